import { expect, test } from 'vitest';
import { concat, frame, Unframer } from '../src/framing.js';
import { forSeeds, Random } from './random.js';

test('a stream cut at any places gives the same messages', () => {
  forSeeds(500, (random) => {
    const messages = Array.from({ length: 1 + random.below(8) }, () => random.bytes(1 + random.below(random.pick([3, 80, 300]))));
    const stream = concat(messages.map(frame));
    const unframer = new Unframer();
    const got: Uint8Array[] = [];
    for (let at = 0; at < stream.length; ) {
      const end = Math.min(stream.length, at + 1 + random.below(random.pick([1, 10, 1000])));
      // Of a buffer that is used again.
      got.push(...unframer.push(stream.slice(at, end), 400));
      at = end;
    }
    expect(got).toEqual(messages);
  });
});

test('a message of 4 MiB in small pieces is put together in one go', () => {
  const message = new Random(1).bytes(4 << 20);
  const stream = frame(message);
  const unframer = new Unframer();
  const got: Uint8Array[] = [];
  const started = performance.now();
  for (let at = 0; at < stream.length; at += 1200) got.push(...unframer.push(stream.subarray(at, at + 1200), 1 << 23));
  expect(got.length).toBe(1);
  expect(Buffer.compare(got[0]!, message)).toBe(0);
  // Copying everything with each piece would take 7 GB of copies.
  expect(performance.now() - started).toBeLessThan(20_000);
});

test('lengths that may not be', () => {
  const limit = 1000;
  expect(new Unframer().push(frame(new Uint8Array(1000)), limit)).toHaveLength(1);
  const rejected = expect.objectContaining({ kind: 'rejected' }) as Error;
  const tooLarge = expect.objectContaining({ kind: 'tooLarge' }) as Error;
  expect(() => new Unframer().push(frame(new Uint8Array(1001)), limit)).toThrow(tooLarge);
  expect(() => new Unframer().push(new Uint8Array([0]), limit)).toThrow(rejected);
  // Before a byte of it has come.
  expect(() => new Unframer().push(new Uint8Array([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), limit)).toThrow(tooLarge);
});
