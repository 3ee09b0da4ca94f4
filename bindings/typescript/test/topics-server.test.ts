// Topics of `wireloom serve`, over WebSocket. It has every topic, for everybody, with the last hundred messages of each.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Client, ClientOptions, TopicMessage } from '../src/index.js';
import { closeClients, open as openAt } from './clients.js';
import { Proxy } from './proxy.js';
import { Serve } from './serve.js';

let serve: Serve;
let proxy: Proxy;
beforeAll(async () => {
  serve = await Serve.start();
  proxy = await Proxy.to(serve.ws);
});
afterAll(async () => {
  proxy.close();
  await serve.stop();
});
afterEach(closeClients);

const open = (url = serve.ws, options: ClientOptions = {}): Client => openAt(url, { backoff: { firstMs: 10, maxMs: 200 }, ...options });

const text = ({ data, offset }: TopicMessage): string => `${offset ?? '-'}:${data.text()}`;

test('everybody gets what is published, in one order', async () => {
  const got: string[][] = [[], []];
  const subscriptions = got.map((list) => open().topic('all').subscribe({ onMessage: (message) => list.push(text(message)) }));
  await Promise.all(subscriptions.map(({ ready }) => ready));
  const publishers = [open(), open()];
  const positions = await Promise.all(
    Array.from({ length: 200 }, (_, n) => publishers[n % 2]!.topic('all').publish(`${n % 2}.${Math.floor(n / 2)}`)),
  );
  await expect.poll(() => got.map((list) => list.length)).toEqual([200, 200]);
  expect(got[0]).toEqual(got[1]);
  // Each publisher's are in the order in which it made them.
  for (const publisher of ['0', '1']) {
    const mine = got[0]!.map((line) => line.split(':')[1]!).filter((line) => line.startsWith(publisher));
    expect(mine).toEqual(Array.from({ length: 100 }, (_, n) => `${publisher}.${n}`));
  }
  expect(positions.map(({ offset }) => offset).sort((one, other) => one - other)).toEqual(Array.from({ length: 200 }, (_, n) => n + 1));
});

test('history, since and bytes', async () => {
  const client = open();
  const topic = client.topic('past');
  const positions = [];
  for (let n = 1; n <= 5; n++) positions.push(await topic.publish(new Uint8Array([n, 255])));
  const read = async (options: object, count: number): Promise<number[]> => {
    const got: number[] = [];
    for await (const { data } of open().topic('past').subscribe(options)) {
      expect(data.encoding).toBe('binary');
      if (got.push(data.bytes[0]!) === count) break;
    }
    return got;
  };
  expect(await read({ history: 2 }, 2)).toEqual([4, 5]);
  expect(await read({ history: { ageMs: 60_000 } }, 5)).toEqual([1, 2, 3, 4, 5]);
  expect(await read({ since: positions[1] }, 3)).toEqual([3, 4, 5]);
});

test('a connection that is cut again and again: all messages once, in order', async () => {
  const got: string[] = [];
  let gaps = 0;
  const reader = open(proxy.url).topic('cut').subscribe({ onMessage: (message) => got.push(text(message)), onGap: () => gaps++ });
  await reader.ready;
  const publisher = open(proxy.url);
  const topic = publisher.topic('cut');
  let isDone = false;
  const cuts = (async () => {
    for (let n = 0; !isDone; n++) {
      await new Promise((resolve) => setTimeout(resolve, 40 + 10 * (n % 5)));
      proxy.cut();
    }
  })();
  const total = 400;
  const published: Promise<unknown>[] = [];
  for (let n = 1; n <= total; n++) {
    published.push(topic.publish(String(n)));
    // The server has the last hundred: what the reader has not seen is always among them.
    do await new Promise((resolve) => setTimeout(resolve, n % 4 === 0 ? 5 : 0));
    while (got.length < n - 60);
  }
  await Promise.all(published);
  isDone = true;
  await cuts;
  await expect.poll(() => got.length, { timeout: 30_000 }).toBe(total);
  expect(got).toEqual(Array.from({ length: total }, (_, n) => `${n + 1}:${n + 1}`));
  expect(gaps).toBe(0);
  expect(proxy.accepted).toBeGreaterThan(4);
});

test('what was missed beyond the history is told', async () => {
  const got: string[] = [];
  const reader = open(proxy.url).topic('far').subscribe({
    history: 3,
    onMessage: (message) => got.push(text(message)),
    onGap: () => got.push('gap'),
  });
  await reader.ready;
  const topic = open().topic('far');
  await topic.publish('1');
  await expect.poll(() => got).toEqual(['1:1']);
  proxy.refuses = true;
  proxy.cut();
  await Promise.all(Array.from({ length: 150 }, (_, n) => topic.publish(String(n + 2))));
  proxy.refuses = false;
  await expect.poll(() => got).toEqual(['1:1', 'gap', '149:149', '150:150', '151:151']);
});

test('presence', async () => {
  const [ann, bob] = [open(), open(proxy.url)];
  const seen: string[] = [];
  const watcher = ann.topic('here').subscribe({
    presence: true,
    join: { name: 'Ann' },
    onPresence: ({ here }) => seen.push([...here.values()].map((info) => (info as { name: string }).name).sort().join()),
  });
  await watcher.ready;
  expect(watcher.here.get(watcher.id!)).toEqual({ name: 'Ann' });
  const other = bob.topic('here').subscribe({ join: { name: 'Bob' } });
  await expect.poll(() => seen.at(-1)).toBe('Ann,Bob');
  await other.join({ name: 'Bobby' });
  await expect.poll(() => seen.at(-1)).toBe('Ann,Bobby');
  expect((await ann.topic('here').here()).length).toBe(2);
  await other.join(null);
  await expect.poll(() => seen.at(-1)).toBe('Ann');
});

test('ephemeral messages', async () => {
  const got: string[] = [];
  const reader = open().topic('soft').subscribe({ onMessage: (message) => got.push(text(message)) });
  await reader.ready;
  const topic = open().topic('soft');
  await topic.publish('kept');
  await topic.publishEphemeral('soft');
  await expect.poll(() => got).toEqual(['1:kept', '-:soft']);
});

test('a repeated key is published once', async () => {
  const topic = open().topic('key');
  const first = await topic.publish('x', { key: 'mine' });
  expect(await open().topic('key').publish('x', { key: 'mine' })).toEqual(first);
});
