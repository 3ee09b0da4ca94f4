import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { decode } from '../src/codec.js';
import { Data } from '../src/index.js';
import type { Client, ClientOptions, WebSocketConstructor } from '../src/index.js';
import { closeClients, endless, open as openAt } from './clients.js';
import { Script } from './script.js';

let script: Script;
beforeEach(async () => {
  script = await Script.start();
});
afterEach(() => {
  closeClients();
  script.close();
});

const open = (options: ClientOptions = {}): Client => openAt(script.url, { backoff: { firstMs: 1, maxMs: 1 }, ...options });

describe('what the server says first', () => {
  test.each([
    ['another version', '17010060ea000000200000', 'version 1'],
    ['another sub-protocol', '17020060ea000000200000636861742f31', 'sub-protocol is "chat/1"'],
    ['a signal', '40016161', 'out of order'],
  ])('%s is final', async (_, first, reason) => {
    const client = open();
    const peer = await script.peers.next();
    peer.send(first);
    await expect(client.connected()).rejects.toMatchObject({ kind: 'closed', message: expect.stringContaining(reason) as string });
    expect(await peer.closed).toBeGreaterThan(4000);
  });

  test('a later minor version is taken', async () => {
    const client = open();
    (await script.peers.next()).send('17020960ea000000200000');
    await client.connected();
  });

  test('nothing: another attempt', async () => {
    const client = open({ connectTimeoutMs: 100 });
    await script.peers.next();
    await script.accept();
    await client.connected();
  });
});

test.each([
  ['garbage', 'ff', 4002],
  ['a malformed message', '3f00', 4002],
  ['nothing', '', 4002],
  ['a second AcceptConf', '17020060ea000000200000', 4002],
  ['more than the message buffer', `3f0161${'00'.repeat(8192)}`, 4005],
])('%s ends the connection, and the next is used', async (_, bytes, code) => {
  const client = open();
  const peer = await script.accept();
  const request = client.request('a', 'x', { idempotent: true });
  await peer.request('a');
  peer.send(bytes);
  expect(await peer.closed).toBe(code);
  const next = await script.accept();
  next.reply(await next.request('a'), 1);
  expect((await request).json()).toBe(1);
});

test('messages that only clients send, and replies that nobody waits for, are ignored', async () => {
  const client = open();
  const peer = await script.accept();
  for (const bytes of ['21', '1f0100000000000000', '7f01000000000000000172', 'bf6300000000000000', '0163000000000000ff00', '16', '157b7d']) {
    peer.send(bytes);
  }
  const request = client.request('a');
  peer.reply(await peer.request('a'), 1);
  expect((await request).json()).toBe(1);
  expect(client.session).toBeNull();
});

test('heartbeats come at three quarters of the read timeout, and whatever is sent puts them off', async () => {
  const client = open({ silenceMs: 0 });
  const peer = await script.peers.next();
  // 800 ms.
  peer.send('17020020030000002000', '00');
  const at: number[] = [];
  for (let n = 0; n < 4; n++) {
    expect(decode(await peer.heard.next())).toEqual({ type: 'heartbeat' });
    at.push(performance.now());
  }
  // The first says that the client is there.
  for (let n = 1; n < 4; n++) expect(at[n]! - at[n - 1]!).toBeGreaterThan(590);
  for (let n = 0; n < 8; n++) {
    await client.signal('s', 'x');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(decode(await peer.heard.next())).toMatchObject({ type: 'signal' });
  }
  expect(peer.heard.isEmpty).toBe(true);
});

test.each([
  ['the clock, which is set back', 0, 3_600_000],
  ['a sign of life, which does not come', 100, 0],
])('heartbeats do not wait for %s', async (_, silenceMs, setBackMs) => {
  open({ silenceMs, patienceMs: 30_000 });
  const peer = await script.peers.next();
  // 800 ms.
  peer.send('17020020030000002000', '00');
  await peer.heard.next();
  const { now } = Date;
  Date.now = () => now() - setBackMs;
  const late = () => new Promise<never>((_, reject) => setTimeout(reject, 800, new Error('no heartbeat')));
  try {
    for (let heartbeats = 0; heartbeats < 3; ) {
      if (decode(await Promise.race([peer.heard.next(), late()]))!.type === 'heartbeat') heartbeats++;
    }
  } finally {
    Date.now = now;
  }
});

test('a connection that takes little at a time is asked once for all that waits', async () => {
  let [room, looks] = [50, 0];
  class Slow extends WebSocket {
    // @ts-expect-error: it is a getter there, too
    override get bufferedAmount(): number {
      looks++;
      return room > 0 ? 0 : 2 ** 20;
    }
    override send(data: Buffer): void {
      room--;
      super.send(data);
    }
  }
  const client = open({ WebSocket: Slow as unknown as WebSocketConstructor });
  const peer = await script.accept();
  await client.connected();
  const refill = setInterval(() => (room = 50), 30);
  await Promise.all(Array.from({ length: 500 }, (_, n) => client.signal(String(n))));
  for (let n = 0; n < 500; n++) expect(await peer.next()).toMatchObject({ name: String(n) });
  clearInterval(refill);
  expect(looks).toBeLessThan(2000);
});

test('times may be infinite', async () => {
  const client = open({ connectTimeoutMs: Infinity });
  const peer = await script.peers.next();
  await new Promise((resolve) => setTimeout(resolve, 50));
  peer.accept();
  await client.connected();
  expect(script.peers.isEmpty).toBe(true);
});

test('a listener that closes the client leaves no pause behind', async () => {
  const client = open({ backoff: { firstMs: 3_600_000, maxMs: 3_600_000 } });
  const peer = await script.accept();
  await client.connected();
  const set = vi.spyOn(globalThis, 'setTimeout');
  client.onState(() => {
    client.close();
  });
  peer.socket.terminate();
  await expect.poll(() => client.state.status).toBe('closed');
  expect(set.mock.calls.filter(([, ms]) => ms! > 1_000_000)).toEqual([]);
  set.mockRestore();
});

describe('a buffer that is used again', () => {
  test('while what it held waits for a connection', async () => {
    const client = open();
    const peer = await script.peers.next();
    const scratch = new Uint8Array([1]);
    void client.signal('a', scratch);
    scratch[0] = 2;
    void client.signal('a', scratch.buffer);
    scratch[0] = 3;
    client.request('a', new Data('binary', scratch)).catch(() => {});
    structuredClone(scratch.buffer, { transfer: [scratch.buffer] });
    peer.accept();
    const payloads: unknown[] = [];
    for (let n = 0; n < 3; n++) payloads.push([...((await peer.next()) as { payload: Data }).payload.bytes]);
    expect(payloads).toEqual([[1], [2], [3]]);
  });

  test('while what it held may be sent again', async () => {
    const client = open();
    const peer = await script.accept();
    await client.connected();
    const scratch = new Uint8Array([1]);
    client.topic('t').publish(scratch, { key: 'k' }).catch(() => {});
    scratch[0] = 2;
    expect([...(await peer.request('$publish/k/t')).payload.bytes]).toEqual([1]);
    peer.socket.terminate();
    const next = await script.accept();
    expect([...(await next.request('$publish/k/t')).payload.bytes]).toEqual([1]);
  });
});

test('a wake-up of a connection does not end the pause after it', async () => {
  const client = open({ backoff: { firstMs: 3_600_000, maxMs: 3_600_000 } });
  const peer = await script.accept();
  await client.connected();
  client.wake();
  const set = vi.spyOn(globalThis, 'setTimeout');
  peer.socket.terminate();
  await expect.poll(() => set.mock.calls.filter(([, ms]) => ms! > 1_000_000).length).toBe(1);
  set.mockRestore();
});

test('much that waits is given up in no time', async () => {
  const client = open({ maxPending: 100_000 });
  const timeoutMs = (n: number) => (n < 20_000 ? 2_000 : Infinity);
  const requests = Array.from({ length: 40_000 }, (_, n) => client.request(String(n), 'x', { timeoutMs: timeoutMs(n) }));
  const ends = Promise.allSettled(requests);
  // Of the processor: the machine may be busy.
  const before = process.cpuUsage();
  await expect(requests[19_999]).rejects.toMatchObject({ kind: 'timeout' });
  client.close();
  expect((await ends).every(({ status }) => status === 'rejected')).toBe(true);
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1000).toBeLessThan(3_000);
});

test('what cannot be sent says so', async () => {
  const client = open();
  const peer = await script.accept();
  await client.connected();
  await expect(client.restoreSession('')).rejects.toMatchObject({ kind: 'invalid' });
  await client.signal('a');
  expect(await peer.next()).toMatchObject({ type: 'signal' });
  client.close();
  await expect(client.signal('a', 'x', { unreliable: true })).rejects.toMatchObject({ kind: 'closed' });
});

test('a dead connection is noticed by the requests on it', async () => {
  const client = open({ patienceMs: 300, silenceMs: 0 });
  const peer = await script.accept();
  const topic = client.topic('news');
  const published = topic.publish('x', { key: 'k' });
  await peer.request('$publish/k/news');
  // A restoration of nothing asks for a sign of life.
  expect(await peer.next()).toMatchObject({ type: 'restoreSession', key: '?' });
  const next = await script.accept();
  next.reply(await next.request('$publish/k/news'), { epoch: 'e', offset: 1 });
  expect(await published).toEqual({ epoch: 'e', offset: 1 });
});

test('a server that shuts down: what may be repeated goes to the next, in order', async () => {
  const client = open();
  const peer = await script.accept();
  const requests = [1, 2, 3].map((n) => client.request(`r${n}`, String(n), { idempotent: true }));
  const once = client.request('once');
  for (const name of ['r1', 'r2', 'r3', 'once']) {
    const request = await peer.request(name);
    const bytes = Buffer.alloc(9, 0);
    bytes[0] = 1;
    bytes[1] = request.id;
    peer.send(bytes);
  }
  await expect(once).rejects.toMatchObject({ kind: 'shutdown' });
  const later = client.request('later');
  peer.socket.close(1001);
  const next = await script.accept();
  for (const name of ['r1', 'r2', 'r3', 'later']) next.reply(await next.request(name), name);
  expect((await Promise.all([...requests, later])).map((reply) => reply.json() as string)).toEqual(['r1', 'r2', 'r3', 'later']);
});

test('a client that was too slow comes back at once, unless it was so from the beginning', async () => {
  const backoff = { firstMs: 3_600_000, maxMs: 3_600_000 };
  const once = open({ backoff: { ...backoff, stableMs: 0 } });
  const peer = await script.accept();
  await once.connected();
  peer.socket.close(1013, 'too slow');
  await script.accept();
  once.close();

  const always = open({ backoff });
  const next = await script.accept();
  await always.connected();
  const set = vi.spyOn(globalThis, 'setTimeout');
  next.socket.close(1013, 'too slow');
  await expect.poll(() => set.mock.calls.filter(([, ms]) => ms! > 1_000_000).length).toBe(1);
  set.mockRestore();
});

describe('a client that is dismissed', () => {
  const reason = 'your account was closed';

  test('does not come back, and says why', async () => {
    const client = open();
    const peer = await script.accept();
    await client.connected();
    const errors: string[] = [];
    client.topic('t').subscribe({ onError: ({ message }) => errors.push(message) });
    const sent = expect(client.request('sent', 'x', { idempotent: true })).rejects.toMatchObject({ kind: 'dismissed', message: reason });
    await peer.request('$subscribe/t');
    await peer.request('sent');
    peer.socket.close(4019, reason);
    await sent;
    await expect.poll(() => client.state).toMatchObject({ status: 'closed', error: { kind: 'dismissed', message: reason } });
    await expect(client.request('later')).rejects.toMatchObject({ kind: 'closed', message: reason });
    expect(errors).toEqual([reason]);
  });

  test('before it is accepted', async () => {
    const client = open();
    const waiting = expect(client.request('waits')).rejects.toMatchObject({ kind: 'closed', message: reason });
    (await script.peers.next()).socket.close(4019, reason);
    await waiting;
    expect(client.state).toMatchObject({ status: 'closed', error: { kind: 'dismissed' } });
  });
});

describe('a stream that is being read before it is sent', () => {
  test('and fails is no payload', async () => {
    const client = open();
    await script.accept();
    const stream = new ReadableStream<Uint8Array>({ pull: () => Promise.reject(new Error('gone')) });
    const told = { kind: 'invalid', message: expect.stringContaining('gone') as string };
    await expect(client.request('a', stream)).rejects.toMatchObject(told);
    await expect(client.request('a', stream)).rejects.toMatchObject({ kind: 'invalid' });
  });

  test('is cancelled when the request is given up before there is a connection', async () => {
    const client = open();
    const { stream, cancelled } = endless();
    await expect(client.request('a', stream, { timeoutMs: 1 })).rejects.toMatchObject({ kind: 'timeout' });
    await cancelled;
  });

  test('is cancelled when the request is given up', async () => {
    const client = open();
    await script.accept();
    await client.connected();
    const { stream, cancelled } = endless();
    const abort = new AbortController();
    const request = client.request('a', stream, { signal: abort.signal });
    abort.abort(new Error('mine'));
    await expect(request).rejects.toThrow('mine');
    await cancelled;
  });

  test('does not outlive the client', async () => {
    const client = open();
    await script.accept();
    await client.connected();
    const { stream, cancelled } = endless();
    const request = client.request('a', stream, { timeoutMs: Infinity });
    client.close();
    await expect(request).rejects.toMatchObject({ kind: 'closed' });
    await cancelled;
  });
});

test('a handler that throws takes nothing with it', async () => {
  const client = open();
  const peer = await script.accept();
  const seen: unknown[] = [];
  const { error } = console;
  console.error = (thrown: unknown) => seen.push(thrown);
  client.on('a', () => {
    throw new Error('mine');
  });
  const second = new Promise((resolve) => client.on('b', (message) => resolve(message.text())));
  peer.signal('a', 'x');
  peer.signal('b', 'y');
  expect(await second).toBe('y');
  console.error = error;
  expect(seen).toEqual([new Error('mine')]);
});

test('stopping twice stops nobody else', async () => {
  const client = open();
  const peer = await script.accept();
  const stop = client.on('a', () => {});
  stop();
  const heard = new Promise((resolve) => client.on('a', (message) => resolve(message.text())));
  stop();
  client.onAny((message) => expect.fail(message.text()));
  peer.signal('a', 'x');
  expect(await heard).toBe('x');
});

test('one handler may be there twice', async () => {
  const client = open();
  const peer = await script.accept();
  const got: string[] = [];
  const handler = (message: Data) => got.push(message.text());
  const stop = client.on('a', handler);
  client.on('a', handler);
  peer.signal('a', '1');
  await expect.poll(() => got).toEqual(['1', '1']);
  stop();
  stop();
  peer.signal('a', '2');
  peer.signal('a', '3');
  await expect.poll(() => got.at(-1)).toBe('3');
  expect(got).toEqual(['1', '1', '2', '3']);
});

test('a handler that is added or removed by another', async () => {
  const client = open();
  const peer = await script.accept();
  const got: string[] = [];
  const once = () => {
    stop();
    // Not for ever.
    if (got.push('once') < 10) stop = client.on('a', once);
  };
  client.on('a', () => {});
  let stop = client.on('a', once);
  const end = client.on('b', () => {
    stopOther();
    end();
    got.push('end');
  });
  const stopOther = client.on('b', () => got.push('other'));
  peer.signal('a', '1');
  peer.signal('a', '2');
  peer.signal('b', '3');
  await expect.poll(() => got.at(-1)).toBe('end');
  expect(got).toEqual(['once', 'once', 'end']);
});

test('a restored session does not take the place of one that another tab has stored, or closed', async () => {
  const session = (k: string) => ({ k, c: '2026-01-01T00:00:00.000Z', l: '2026-01-01T00:00:00.000Z', i: {} });
  const stored = new Map([[`wireloom:session:${script.url}`, JSON.stringify(session('first'))]]);
  const storage = {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => stored.set(key, value),
    removeItem: (key: string) => stored.delete(key),
  };
  const client = open({ storage });
  let peer = await script.accept();
  const restored = async () => {
    const request = await peer.next();
    expect(request).toMatchObject({ type: 'restoreSession', key: 'first' });
    peer.reply(request as { id: number }, { ...session('first'), i: { n: 1 } });
    await client.connected();
    await new Promise((resolve) => setTimeout(resolve, 20));
    return [...stored.values()].map((value) => (JSON.parse(value) as { k: string }).k);
  };
  expect(await restored()).toEqual(['first']);
  expect([...stored.values()][0]).toContain('"n":1');
  for (const [change, expected] of [[() => stored.set([...stored.keys()][0]!, JSON.stringify(session('second'))), ['second']], [() => stored.clear(), []]] as const) {
    change();
    const lost = new Promise<void>((resolve) => client.onState(() => resolve()));
    peer.socket.terminate();
    await lost;
    peer = await script.accept();
    expect(await restored()).toEqual(expected);
  }
});

/** Conversations of the original's client and server, recorded between them. */
describe('webwire-recorded.json', () => {
  interface Conversation {
    name: string;
    connections: { from: 'client' | 'server'; hex: string }[][];
  }
  const recorded = JSON.parse(
    readFileSync(new URL('../../../vectors/webwire-recorded.json', import.meta.url), 'utf8'),
  ) as Conversation[];

  function provoke(client: Client, bytes: Buffer): void {
    const message = decode(bytes)!;
    const ignore = () => {};
    if (message.type === 'request') void client.request(message.name, message.payload).catch(ignore);
    else if (message.type === 'signal') void client.signal(message.name, message.payload);
    else if (message.type === 'restoreSession') void client.restoreSession(message.key).catch(ignore);
    else if (message.type === 'closeSession') void client.closeSession().catch(ignore);
  }

  /** Identifiers are each client's own: ours begin anew with each connection. */
  const sameId = (bytes: Buffer, own: Buffer): Buffer =>
    'id' in decode(bytes)! ? Buffer.concat([bytes.subarray(0, 1), own, bytes.subarray(9)]) : bytes;

  test.each(recorded)('our client says what theirs did: $name', async ({ connections }) => {
    const client = open();
    for (const [nth, lines] of connections.entries()) {
      const peer = await script.peers.next();
      // The first message of a later connection comes by itself.
      let restores = nth > 0;
      let own: Buffer = Buffer.alloc(8);
      for (const { from, hex } of lines) {
        const bytes = Buffer.from(hex, 'hex');
        if (from === 'server') {
          peer.send(sameId(bytes, own));
          continue;
        }
        if (!restores) {
          // What the server said before has been heard.
          if (bytes[0] === 0x1f) await expect.poll(() => client.session).not.toBeNull();
          await client.connected();
          provoke(client, bytes);
        }
        restores = false;
        let heard = await peer.heard.next();
        // Theirs begins without.
        if (heard[0] === 0x21) heard = await peer.heard.next();
        if ('id' in decode(heard)!) own = heard.subarray(1, 9);
        expect(heard.toString('hex')).toBe(sameId(bytes, own).toString('hex'));
      }
      peer.socket.close(1000);
    }
  });
});
