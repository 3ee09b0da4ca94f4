import { describe, expect, test } from 'vitest';
import { decode, encodeRequest, encodeRestoreSession, encodeSignal, isReply, isSignal } from '../src/codec.js';
import { Data } from '../src/data.js';
import type { Encoding } from '../src/data.js';
import { forSeeds } from './random.js';
import type { Random } from './random.js';

const name = (random: Random): string => String.fromCharCode(...Array.from({ length: random.below(40) }, () => 32 + random.below(95)));

function payload(random: Random): Data {
  const encoding = random.pick<Encoding>(['binary', 'utf8', 'utf16']);
  const length = random.below(60);
  return new Data(encoding, random.bytes(encoding === 'utf16' ? length * 2 : length));
}

describe('what is encoded is decoded to the same', () => {
  test('requests and signals', () => {
    forSeeds(3000, (random) => {
      const [named, data, id] = [name(random), payload(random), 1 + random.below(2 ** 52)];
      const size = data.bytes.length;
      if (named !== '' || size > 0) {
        const message = encodeRequest(id, named, data);
        expect(decode(message)).toEqual({ type: 'request', id, name: named, payload: data });
        if (data.encoding === 'utf16') expect(message.length % 2).toBe(0);
      }
      if (size > 0 || (named !== '' && data.encoding !== 'utf16')) {
        const message = encodeSignal(named, data);
        expect(decode(message)).toEqual({ type: 'signal', name: named, payload: data });
        expect(isSignal(message)).toBe(true);
      }
    });
  });

  test('session keys', () => {
    expect(decode(encodeRestoreSession(2 ** 53 - 1, 'a-_Z'))).toEqual({ type: 'restoreSession', id: 2 ** 53 - 1, key: 'a-_Z' });
  });
});

/** Section 6.2, as its table has it. */
function isAccepted(d: Uint8Array): boolean {
  const length = d.length;
  const [kind, n1, n9] = [d[0] ?? 255, d[1] ?? 0, d[9] ?? 0];
  if (kind === 0) return length >= 11 && n9 >= 1 && length >= 10 + n9;
  if (kind <= 5 || kind === 191 || kind === 192) return length >= 9;
  if (kind === 21) return length >= 2;
  if (kind === 22 || kind === 33) return length === 1;
  if (kind === 23) return length >= 11;
  if (kind === 31) return length === 9;
  if (kind === 32) return length >= 10;
  if (kind === 63 || kind === 64) return length >= 3 && length >= 2 + n1;
  if (kind === 65) return length >= 4 && length % 2 === 0 && length >= 4 + n1 + (n1 % 2);
  if (kind === 127 || kind === 128) return length >= 11 && length >= 10 + n9;
  if (kind === 129) {
    return length >= 11 && length % 2 === 0 && (n9 === 0 || length >= 10 + n9 + (n9 % 2 === 1 && length > 10 + n9 ? 1 : 0));
  }
  if (kind === 193) return length >= 10 && length % 2 === 0;
  return false;
}

test('every message gets the verdict of section 6.2', () => {
  const kinds = [0, 1, 2, 3, 4, 5, 6, 21, 22, 23, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193];
  forSeeds(20_000, (random) => {
    const bytes = random.bytes(random.below(30));
    if (bytes.length > 0 && random.below(10) > 0) bytes[0] = random.pick(kinds);
    // Names that end near the message's end.
    for (const at of [1, 9]) if (bytes.length > at && random.below(2)) bytes[at] = random.below(bytes.length);
    expect(decode(bytes) !== null, Buffer.from(bytes).toString('hex')).toBe(isAccepted(bytes));
  });
});

test('a message in the middle of a buffer', () => {
  const message = encodeRequest(7, 'echo', Data.text('hi'));
  const buffer = new Uint8Array(100);
  buffer.set(message, 13);
  expect(decode(buffer.subarray(13, 13 + message.length))).toEqual(decode(message));
});

test('what ends a request', () => {
  for (let kind = 0; kind < 256; kind++) {
    expect(isReply(new Uint8Array([kind])), String(kind)).toBe(kind <= 5 || (kind >= 191 && kind <= 193));
    expect(isSignal(new Uint8Array([kind])), String(kind)).toBe(kind >= 63 && kind <= 65);
  }
});

describe('what may not be sent', () => {
  const bytes = (length: number, encoding: Encoding = 'binary') => new Data(encoding, new Uint8Array(length));
  test.each<[string, () => unknown]>([
    ['a name of 256 bytes', () => encodeSignal('n'.repeat(256), bytes(1))],
    ['a name that is not ASCII', () => encodeRequest(1, 'é', bytes(1))],
    ['a name with a line break', () => encodeSignal('a\nb', bytes(1))],
    ['nothing', () => encodeRequest(1, '', bytes(0))],
    ['a signal of nothing', () => encodeSignal('', bytes(0))],
    ['a signal in UTF-16 without a payload', () => encodeSignal('name', bytes(0, 'utf16'))],
    ['half a character', () => encodeRequest(1, 'name', bytes(3, 'utf16'))],
  ])('%s', (_, encode) => {
    expect(encode).toThrow(expect.objectContaining({ name: 'WireloomError', kind: 'invalid' }) as Error);
  });
  test('a name of 255 bytes may', () => {
    expect(decode(encodeSignal('n'.repeat(255), bytes(0)))).toMatchObject({ name: 'n'.repeat(255) });
  });
});
