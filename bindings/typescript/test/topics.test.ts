// Topics against a scripted server: what a real one says only when much goes wrong. `topics-server.test.ts` has the real one.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Client, ClientOptions, SubscribeOptions, TopicMessage } from '../src/index.js';
import { closeClients, open as openAt } from './clients.js';
import { Script } from './script.js';
import type { Peer } from './script.js';

let script: Script;
beforeEach(async () => {
  script = await Script.start();
});
afterEach(() => {
  vi.restoreAllMocks();
  closeClients();
  script.close();
});

const open = (options: ClientOptions = {}): Client => openAt(script.url, { backoff: { firstMs: 1, maxMs: 1 }, ...options });

/** A subscription whose messages are noted as text. */
function noted(client: Client, options: SubscribeOptions = {}) {
  const got: string[] = [];
  const subscription = client.topic('t').subscribe({
    onMessage: ({ data, offset }) => got.push(`${offset ?? '-'}:${data.text()}`),
    onGap: () => got.push('gap'),
    onLive: () => got.push('live'),
    onError: ({ code }) => got.push(code),
    onPresence: ({ here, joined, left }) =>
      got.push(`${[...here.keys()].join('')} +${joined.map(({ id }) => id).join('')} -${left.join('')}`),
    ...options,
  });
  return { got, subscription };
}

const say = (peer: Peer, offset: number, text = String.fromCharCode(96 + offset)) => peer.signal(`$message/${offset}/t`, text);
const subscribed = (from: number, more: object = {}) => ({ epoch: 'e', offset: from, from, recovered: true, ...more });

describe('a subscription', () => {
  test('that ends leaves no timer, which would keep a process from ending', async () => {
    const set = vi.spyOn(globalThis, 'setTimeout');
    const clear = vi.spyOn(globalThis, 'clearTimeout');
    const { subscription } = noted(open());
    const peer = await script.accept();
    peer.fail(await peer.request('$subscribe/t'), 'TOPIC_UNAVAILABLE');
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    await subscription.ready;
    const before = set.mock.calls.length;
    peer.signal('$reset/t', '');
    peer.fail(await peer.request('$subscribe/t'), 'TOPIC_UNAVAILABLE');
    const pauses = () =>
      set.mock.calls.flatMap(([, ms], n) => (n >= before && ms! <= 100 ? [set.mock.results[n]!.value as NodeJS.Timeout] : []));
    await expect.poll(() => pauses().length).toBe(1);
    subscription.unsubscribe();
    expect(clear.mock.calls.map(([timer]) => timer)).toContain(pauses()[0]);
  });

  test('gets what is published, and what is ephemeral', async () => {
    const client = open();
    const { got, subscription } = noted(client, { history: 10 });
    const peer = await script.accept();
    const request = await peer.request('$subscribe/t');
    expect(request.json).toEqual({ history: { count: 10 } });
    expect(subscription.isLive).toBe(false);
    peer.reply(request, subscribed(3, { recovered: false }));
    await subscription.ready;
    say(peer, 4);
    peer.signal('$message//t', 'x');
    say(peer, 5);
    await expect.poll(() => got).toEqual(['live', '4:d', '-:x', '5:e']);
    expect(subscription.position).toEqual({ epoch: 'e', offset: 5 });
  });

  test('takes what overtook the reply in order, each once', async () => {
    const client = open();
    const { got } = noted(client);
    const peer = await script.accept();
    const request = await peer.request('$subscribe/t');
    for (const offset of [6, 4, 5, 4]) say(peer, offset);
    peer.reply(request, subscribed(4, { offset: 6 }));
    await expect.poll(() => got).toEqual(['5:e', '6:f', 'live']);
  });

  test('closes a gap, and drops what it has seen', async () => {
    const client = open();
    const { got } = noted(client);
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    await expect.poll(() => got).toEqual(['live']);
    say(peer, 1);
    say(peer, 3);
    const again = await peer.request('$subscribe/t');
    expect(again.json).toEqual({ since: { epoch: 'e', offset: 1 } });
    say(peer, 4);
    peer.reply(again, subscribed(1, { offset: 4 }));
    for (const offset of [2, 3, 4, 5, 5, 2]) say(peer, offset);
    await expect.poll(() => got).toEqual(['live', '1:a', '2:b', '3:c', '4:d', 'live', '5:e']);
  });

  test('recovers over a lost connection, from its position', async () => {
    const client = open();
    const { got, subscription } = noted(client, { since: { epoch: 'e', offset: 6 } });
    const peer = await script.accept();
    const request = await peer.request('$subscribe/t');
    expect(request.json).toEqual({ since: { epoch: 'e', offset: 6 } });
    peer.reply(request, subscribed(6, { offset: 7 }));
    say(peer, 7);
    await expect.poll(() => got).toEqual(['7:g', 'live']);
    peer.socket.terminate();
    const next = await script.accept();
    const again = await next.request('$subscribe/t');
    expect(again.json).toEqual({ since: { epoch: 'e', offset: 7 } });
    expect(subscription.isLive).toBe(false);
    next.reply(again, subscribed(7, { offset: 9 }));
    say(next, 8);
    say(next, 9);
    await expect.poll(() => got).toEqual(['7:g', 'live', '8:h', '9:i', 'live']);
  });

  test('tells of what cannot be recovered', async () => {
    const client = open();
    const { got, subscription } = noted(client, { history: { count: 2, ageMs: 60_000 } });
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(5));
    await subscription.ready;
    peer.signal('$reset/t', '');
    const again = await peer.request('$subscribe/t');
    expect(again.json).toEqual({ since: { epoch: 'e', offset: 5 }, history: { count: 2, ageMs: 60_000 } });
    peer.reply(again, { epoch: 'f', offset: 2, from: 0, recovered: false });
    say(peer, 1);
    say(peer, 2);
    await expect.poll(() => got).toEqual(['live', 'gap', '1:a', '2:b', 'live']);
    expect(subscription.position).toEqual({ epoch: 'f', offset: 2 });
  });

  test('that is renewed in vain is renewed with growing pauses, and at once again after a message', async () => {
    // However slow the machine is.
    vi.spyOn(performance, 'now').mockReturnValue(0);
    vi.spyOn(Math, 'random').mockReturnValue(0.5);
    const set = vi.spyOn(globalThis, 'setTimeout');
    const pauses = () => set.mock.calls.map(([, ms]) => ms!).filter((ms) => ms % 75 === 0 && ms > 0);
    const { got } = noted(open());
    const peer = await script.accept();
    const renew = async () => {
      peer.signal('$reset/t', '');
      peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    };
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    for (let n = 0; n < 4; n++) await renew();
    expect(pauses()).toEqual([75, 150, 300]);
    say(peer, 1);
    await expect.poll(() => got).toContain('1:a');
    await renew();
    expect(pauses()).toEqual([75, 150, 300]);
  });

  test('tells where each message stands, also to a loop that is slow', async () => {
    const positions: unknown[] = [];
    const subscription = open().topic('t').subscribe({
      onMessage: ({ position }) => positions.push([position?.offset, subscription.position?.offset]),
    });
    const iterator = subscription[Symbol.asyncIterator]();
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    await subscription.ready;
    for (const offset of [1, 2]) say(peer, offset);
    peer.signal('$message//t', 'x');
    await expect.poll(() => positions).toEqual([[1, 1], [2, 2], [undefined, 2]]);
    expect(await iterator.next()).toMatchObject({ value: { offset: 1, position: { epoch: 'e', offset: 1 } } });
    expect(await iterator.next()).toMatchObject({ value: { offset: 2, position: { epoch: 'e', offset: 2 } } });
    expect(await iterator.next()).toMatchObject({ value: { offset: null, position: null } });
  });

  test('is refused', async () => {
    const client = open();
    const { got, subscription } = noted(client);
    const peer = await script.accept();
    peer.fail(await peer.request('$subscribe/t'), 'TOPIC_FORBIDDEN');
    await expect(subscription.ready).rejects.toMatchObject({ kind: 'application', code: 'TOPIC_FORBIDDEN' });
    expect(got).toEqual(['TOPIC_FORBIDDEN']);
    // Another attempt may be made.
    client.topic('t').subscribe();
    await peer.request('$subscribe/t');
  });

  test('is tried again where the broker cannot be reached', async () => {
    const client = open();
    const { subscription } = noted(client);
    const peer = await script.accept();
    peer.fail(await peer.request('$subscribe/t'), 'TOPIC_UNAVAILABLE');
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    await subscription.ready;
  });

  test('ends', async () => {
    const client = open();
    const { got, subscription } = noted(client);
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    await subscription.ready;
    expect(() => client.topic('t').subscribe()).toThrow('is subscribed to already');
    subscription.unsubscribe();
    subscription.unsubscribe();
    peer.reply(await peer.request('$unsubscribe/t'));
    say(peer, 1);
    await client.signal('done');
    expect(await peer.next()).toMatchObject({ type: 'signal', name: 'done' });
    expect(got).toEqual(['live']);
  });

  test('that ends before the server has answered says so', async () => {
    const client = open();
    const { subscription } = noted(client);
    const peer = await script.accept();
    await peer.request('$subscribe/t');
    subscription.unsubscribe();
    await expect(subscription.ready).rejects.toMatchObject({ kind: 'closed' });
    await peer.request('$unsubscribe/t');
  });

  test('that ends before it is sent is not sent over the next connection', async () => {
    const client = open();
    const peer = await script.accept();
    // Nothing more goes to a server that shuts down.
    client.request('r', 'x', { idempotent: true }).catch(() => {});
    const request = await peer.request('r');
    peer.send('01', Buffer.from([request.id]), '00'.repeat(7));
    await new Promise((resolve) => setTimeout(resolve, 50));
    const { subscription } = noted(client);
    const lost = new Promise<void>((resolve) => client.onState(() => resolve()));
    peer.socket.close(1001);
    await lost;
    subscription.unsubscribe();
    const next = await script.accept();
    await next.request('r');
    await client.signal('done');
    expect(await next.next()).toMatchObject({ type: 'signal', name: 'done' });
  });

  test.each([
    ['is no JSON', 1n],
    ['is larger than the message buffer', 'x'.repeat(10_000)],
  ])('is not tried again where its info %s', async (_, join) => {
    const client = open();
    await script.accept();
    await client.connected();
    const { got, subscription } = noted(client, { join });
    await expect(Promise.race([subscription.ready, new Promise((resolve) => setTimeout(resolve, 2_000))])).rejects.toThrow();
    expect(got).toHaveLength(1);
    expect(() => client.topic('t').subscribe().unsubscribe()).not.toThrow();
  });

  test('a plain signal of a topic that is not subscribed to reaches the handlers', async () => {
    const client = open();
    const peer = await script.accept();
    const got = new Promise((resolve) => client.onAny((message, name) => resolve(`${name} ${message.text()}`)));
    peer.signal('$message/1/other', 'x');
    expect(await got).toBe('$message/1/other x');
  });
});

describe('presence', () => {
  const ann = { id: 'a', info: { name: 'Ann' } };
  const bob = { id: 'b', info: { name: 'Bob' } };

  test('is told, and told anew after a lost connection', async () => {
    const client = open();
    const { got, subscription } = noted(client, { presence: true, join: { name: 'Ann' } });
    const peer = await script.accept();
    const request = await peer.request('$subscribe/t');
    expect(request.json).toEqual({ presence: true, join: { name: 'Ann' } });
    peer.reply(request, subscribed(0, { here: [ann, bob], id: 'a' }));
    await subscription.ready;
    expect(subscription.id).toBe('a');
    expect(subscription.here.get('b')).toEqual({ name: 'Bob' });
    const presence = (change: object) => peer.signal('$presence/t', JSON.stringify(change));
    presence({ join: [{ id: 'c', info: 3 }], leave: ['b', 'unknown'] });
    presence({ join: [{ id: 'c', info: 3 }] });
    presence({ join: [{ id: 'c', info: 4 }] });
    await expect.poll(() => got).toEqual(['ab +ab -', 'live', 'ac +c -b', 'ac +c -']);
    peer.socket.terminate();
    const next = await script.accept();
    next.reply(await next.request('$subscribe/t'), subscribed(0, { here: [ann], id: 'a' }));
    await expect.poll(() => got.slice(4)).toEqual(['a + -c', 'live']);

    const joined = subscription.join(null);
    const leave = await next.request('$presence/t');
    expect(leave.json).toEqual({ join: null });
    next.reply(leave, { here: [] });
    await joined;
    expect(subscription.id).toBeNull();
  });

  test('info that is refused does not end the subscription later', async () => {
    const client = open();
    const { subscription } = noted(client, { join: 1 });
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0, { id: 'a' }));
    await subscription.ready;
    const joined = subscription.join('too large');
    peer.fail(await peer.request('$presence/t'), 'TOPIC_LIMIT');
    await expect(joined).rejects.toMatchObject({ code: 'TOPIC_LIMIT' });
    await expect(subscription.join(1n)).rejects.toThrow(TypeError);
    peer.socket.terminate();
    expect((await (await script.accept()).request('$subscribe/t')).json).toMatchObject({ join: 1 });
  });

  test('that makes no sense is reported, and no more', async () => {
    const client = open();
    const { got, subscription } = noted(client, { presence: true });
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0, { here: [] }));
    await subscription.ready;
    const seen: unknown[] = [];
    const { error } = console;
    console.error = (thrown: unknown) => seen.push(thrown);
    peer.signal('$presence/t', 'what');
    say(peer, 1);
    await expect.poll(() => got).toEqual(['live', '1:a']);
    console.error = error;
    expect(seen).toHaveLength(1);
  });

  test('is asked for', async () => {
    const client = open();
    const here = client.topic('t').here();
    const peer = await script.accept();
    peer.reply(await peer.request('$presence/t'), { here: [ann] });
    expect(await here).toEqual([ann]);
  });
});

describe('a loop over a subscription', () => {
  test('gets everything, and ends it', async () => {
    const client = open();
    const got: (string | null)[] = [];
    const loop = (async () => {
      for await (const { data, offset } of client.topic<string>('t').subscribe()) {
        got.push(data.text());
        if (offset === 3) break;
      }
    })();
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    for (const offset of [1, 2, 3, 4]) say(peer, offset);
    await loop;
    expect(got).toEqual(['a', 'b', 'c']);
    await peer.request('$unsubscribe/t');
  });

  test('that is slow stands still and recovers', async () => {
    const client = open();
    const subscription = client.topic('t').subscribe({ buffer: 4 });
    const iterator = subscription[Symbol.asyncIterator]();
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    for (let offset = 1; offset <= 20; offset++) say(peer, offset);
    await expect.poll(() => subscription.position?.offset).toBe(4);
    expect(subscription.isLive).toBe(false);
    const next = async () => ((await iterator.next()).value as TopicMessage).offset;
    expect([await next(), await next()]).toEqual([1, 2]);
    const again = await peer.request('$subscribe/t');
    expect(again.json).toEqual({ since: { epoch: 'e', offset: 4 } });
    peer.reply(again, subscribed(4));
    say(peer, 5);
    say(peer, 6);
    expect([await next(), await next(), await next(), await next()]).toEqual([3, 4, 5, 6]);
    subscription.unsubscribe();
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  test('that leaves while it stands still is told of when it goes on', async () => {
    const client = open();
    const { got, subscription } = noted(client, { buffer: 2, join: 1 });
    const slow = subscription[Symbol.asyncIterator]();
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0, { id: 'me' }));
    await subscription.ready;
    for (const offset of [1, 2, 3]) say(peer, offset);
    await expect.poll(() => subscription.isLive).toBe(false);
    await subscription.join(null);
    await slow.next();
    const again = await peer.request('$subscribe/t');
    // Which leaves it as it is.
    expect(again.json).toEqual({ since: { epoch: 'e', offset: 2 } });
    peer.reply(again, subscribed(2));
    const leave = await peer.request('$presence/t');
    expect(leave.json).toEqual({ join: null });
    peer.reply(leave, { here: [] });
    await expect.poll(() => subscription.id).toBeNull();
    // Once.
    peer.signal('$reset/t', '');
    peer.reply(await peer.request('$subscribe/t'), subscribed(2));
    await expect.poll(() => got.filter((line) => line === 'live').length).toBe(3);
    await client.signal('next');
    expect(await peer.next()).toMatchObject({ name: 'next' });
  });

  test('that was slow and is left holds up nobody', async () => {
    const client = open();
    const { got, subscription } = noted(client, { buffer: 2 });
    const slow = subscription[Symbol.asyncIterator]();
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    await subscription.ready;
    for (const offset of [1, 2, 3]) say(peer, offset);
    await expect.poll(() => got).toEqual(['live', '1:a', '2:b']);
    await expect.poll(() => subscription.isLive).toBe(false);
    await slow.return!();
    const again = await peer.request('$subscribe/t');
    expect(again.json).toEqual({ since: { epoch: 'e', offset: 2 } });
    peer.reply(again, subscribed(2, { offset: 3 }));
    say(peer, 3);
    await expect.poll(() => got.slice(3)).toEqual(['3:c', 'live']);
  });

  test('may ask for several at once, and be ended while it waits', async () => {
    const client = open();
    const { subscription } = noted(client);
    const iterator = subscription[Symbol.asyncIterator]();
    const peer = await script.accept();
    peer.reply(await peer.request('$subscribe/t'), subscribed(0));
    const both = Promise.all([iterator.next(), iterator.next()]);
    say(peer, 1);
    say(peer, 2);
    expect((await both).map(({ value }) => value?.offset)).toEqual([1, 2]);
    const waits = iterator.next();
    await client.connected();
    await iterator.return!();
    expect(await waits).toEqual({ done: true, value: undefined });
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  test('throws what the server says', async () => {
    const client = open();
    const iterator = client.topic('t').subscribe()[Symbol.asyncIterator]();
    const peer = await script.accept();
    peer.fail(await peer.request('$subscribe/t'), 'TOPIC_LIMIT');
    await expect(iterator.next()).rejects.toMatchObject({ code: 'TOPIC_LIMIT' });
  });

  test('and ends with the client', async () => {
    const client = open();
    const iterator = client.topic('t').subscribe()[Symbol.asyncIterator]();
    await script.accept();
    await client.connected();
    client.close();
    await expect(iterator.next()).rejects.toMatchObject({ kind: 'closed' });
  });
});

describe('a publication', () => {
  test('has a key, and is repeated with it until it is accepted', async () => {
    const client = open();
    const published = client.topic('a/b').publish({ text: 'hi' });
    const peer = await script.accept();
    const first = await peer.next();
    const name = (first as { name: string }).name;
    expect(name).toMatch(/^\$publish\/[\w-]{8,64}\/a\/b$/);
    peer.socket.terminate();
    const next = await script.accept();
    const again = await next.request(name);
    expect(again.json).toEqual({ text: 'hi' });
    next.reply(again, { epoch: 'e', offset: 9 });
    expect(await published).toEqual({ epoch: 'e', offset: 9 });
  });

  test('keys differ', async () => {
    const client = open();
    const names = new Set<string>();
    const topic = client.topic('t');
    for (let n = 0; n < 500; n++) void topic.publish('x').catch(() => {});
    const peer = await script.accept();
    for (let n = 0; n < 500; n++) names.add(((await peer.next()) as { name: string }).name);
    expect(names.size).toBe(500);
  });

  test('without a key is not', async () => {
    const client = open();
    const published = client.topic('t').publish('x', { key: '' });
    const peer = await script.accept();
    await peer.request('$publish//t');
    peer.socket.terminate();
    await expect(published).rejects.toMatchObject({ kind: 'disconnected' });
  });

  test('stays in order over a lost connection', async () => {
    const client = open();
    const topic = client.topic('t');
    const all = [1, 2, 3, 4, 5].map((n) => topic.publish(String(n), { key: `k${n}` }));
    const peer = await script.accept();
    for (const n of [1, 2, 3]) await peer.request(`$publish/k${n}/t`);
    peer.socket.terminate();
    const next = await script.accept();
    for (const n of [1, 2, 3, 4, 5]) next.reply(await next.request(`$publish/k${n}/t`), { epoch: 'e', offset: n });
    expect((await Promise.all(all)).map(({ offset }) => offset)).toEqual([1, 2, 3, 4, 5]);
  });

  test('is not repeated when the server may have forgotten its key', async () => {
    const client = open();
    const published = client.topic('t').publish('x', { key: 'k' });
    const told = expect(published).rejects.toMatchObject({ kind: 'unknownOutcome' });
    const peer = await script.accept();
    await peer.request('$publish/k/t');
    const { now } = Date;
    Date.now = () => now() + 111_000;
    try {
      peer.socket.terminate();
      const next = await script.accept();
      await told;
      await client.signal('next');
      expect(await next.next()).toMatchObject({ name: 'next' });
    } finally {
      Date.now = now;
    }
  });

  test('is refused as the server says', async () => {
    const client = open();
    const published = client.topic('t').publish('x', { key: 'k' });
    const peer = await script.accept();
    peer.fail(await peer.request('$publish/k/t'), 'TOPIC_FORBIDDEN');
    await expect(published).rejects.toMatchObject({ code: 'TOPIC_FORBIDDEN' });
    await expect(client.topic('t').publish('x', { key: 'not a key' })).rejects.toMatchObject({ kind: 'invalid' });
  });

  test('that is ephemeral is a signal', async () => {
    const client = open();
    const peer = await script.accept();
    await client.connected();
    await client.topic('t').publishEphemeral('x');
    expect(await peer.next()).toMatchObject({ type: 'signal', name: '$publish//t' });
  });
});
