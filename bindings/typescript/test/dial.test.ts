// Which transport is taken. WebTransport is made up: how it fails is what matters. `e2e` has the real one.
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Client, ClientOptions, RequestOptions } from '../src/index.js';
import { closeClients, open as openAt } from './clients.js';
import { after, fake, never, sessions } from './fake.js';
import { Script } from './script.js';
import type { Peer } from './script.js';

let script: Script;
beforeEach(async () => {
  script = await Script.start();
});
afterEach(() => {
  closeClients();
  script.close();
});

function open(ready: () => Promise<void>, options: ClientOptions = {}): Client {
  return openAt('https://127.0.0.1:1/messages', {
    WebTransport: fake(ready),
    webSocketUrl: script.url,
    backoff: { firstMs: 1, maxMs: 1 },
    fallbackMs: 500,
    returnMs: 0,
    ...options,
  });
}

/** Accepts whatever WebSocket comes. */
function accepts(): { count: number } {
  const accepted = { count: 0 };
  void (async () => {
    for (;;) {
      await script.accept();
      accepted.count++;
    }
  })();
  return accepted;
}

async function connected(client: Client): Promise<number> {
  const started = performance.now();
  await client.connected();
  return performance.now() - started;
}

class MemoryStorage extends Map<string, string> {
  getItem = (key: string) => this.get(key) ?? null;
  setItem = (key: string, value: string) => this.set(key, value);
  removeItem = (key: string) => this.delete(key);
}

test('WebTransport that works is taken, and no WebSocket is made', async () => {
  const accepted = accepts();
  const client = open(() => after(50), { certificateHashes: [':a0'.repeat(32).slice(1), new Uint8Array(32)] });
  await connected(client);
  expect(client.transport).toBe('webtransport');
  await after(300);
  expect(accepted.count).toBe(0);
  // Without subprotocols the profile is in the query.
  expect(sessions).toMatchObject([
    {
      url: 'https://127.0.0.1:1/messages?wwr=2m',
      options: { serverCertificateHashes: [{ algorithm: 'sha-256', value: new Uint8Array(32).fill(0xa0) }, { algorithm: 'sha-256' }] },
      isClosed: false,
    },
  ]);
});

test('slow WebTransport is preferred while its time is not up, and the WebSocket is closed', async () => {
  const client = open(() => after(350));
  const peer = await script.accept();
  await connected(client);
  expect(client.transport).toBe('webtransport');
  expect(await peer.closed).toBe(1000);
});

test('a WebSocket that is lost while WebTransport has its time is not taken', async () => {
  const client = open(() => never);
  (await script.accept()).socket.close(1001);
  await script.accept();
  await client.connected();
  expect(client.transport).toBe('websocket');
});

test('an attempt whose time is up does not wait for a WebSocket that has opened', async () => {
  const client = open(() => never, { connectTimeoutMs: 300 });
  const silent = await script.peers.next();
  await script.accept();
  await client.connected();
  await silent.closed;
});

test('WebTransport that is lost during the change-over to it is not taken', async () => {
  let works = false;
  const client = open(() => (works ? Promise.resolve() : Promise.reject(new Error('no'))), { returnMs: 50 });
  const peer = await script.accept();
  await client.connected();
  works = true;
  // The server answers nothing: the change waits a while.
  await expect.poll(() => sessions.length).toBe(2);
  await after(100);
  sessions[1]!.lose();
  works = false;
  await expect.poll(() => sessions.length, { timeout: 10_000 }).toBeGreaterThan(2);
  expect(client.transport).toBe('websocket');
  const request = client.request('a');
  await expect.poll(async () => (await peer.next()).type).toBe('request');
  request.catch(() => {});
});

test('a large message may come in one piece with the first', async () => {
  const signal = Buffer.concat([Buffer.from('400161', 'hex'), Buffer.alloc(70_000, 'x')]);
  // A message buffer of 1 MiB.
  const first = `0b17020060ea000000001000${(0x80000000 + signal.length).toString(16)}${signal.toString('hex')}`;
  const client = open(() => Promise.resolve(), { WebTransport: fake(() => Promise.resolve(), { first }), webSocketUrl: null });
  const heard = new Promise((resolve) => client.on('a', (message) => resolve(message.text().length)));
  expect(await Promise.race([heard, after(2_000)])).toBe(70_000);
});

test.each([
  ['waits', () => never, 64],
  ['is refused', () => Promise.reject(new Error('no more streams')), 0],
])('unordered signals take the control stream when one of their own %s', async (_, stream, waiting) => {
  const client = open(() => Promise.resolve(), { WebTransport: fake(() => Promise.resolve(), { stream }), webSocketUrl: null });
  await client.connected();
  for (let n = 0; n < 200; n++) await client.signal('many', 'x', { unordered: true });
  await expect.poll(() => sessions[0]!.control.split('many').length - 1).toBe(200 - waiting);
});

test('datagrams that the browser does not take do not pile up', async () => {
  const client = open(() => Promise.resolve(), { webSocketUrl: null });
  await client.connected();
  for (let n = 0; n < 5000; n++) await client.signal('a', 'x', { unreliable: true });
  expect(sessions[0]!.datagrams).toBeLessThan(2000);
});

test('a stream that went with its connection is not sent again', async () => {
  const client = open(() => Promise.resolve(), { webSocketUrl: null });
  await client.connected();
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      controller.enqueue(new Uint8Array(10));
    },
  });
  const request = client.request('upload', body, { size: 5000, idempotent: true });
  await expect.poll(() => body.locked).toBe(true);
  sessions[0]!.lose();
  await expect(request).rejects.toMatchObject({ kind: 'disconnected' });
  const blob = client.request('upload', new Blob(['x']), { idempotent: true, timeoutMs: 300 });
  await client.connected();
  sessions[1]!.lose();
  await expect(blob).rejects.toMatchObject({ kind: 'timeout' });
});

/** On WebSocket, with a request that nobody answers though the server reads on, and then on WebTransport. */
async function changedOver(
  options: RequestOptions = {},
): Promise<{ client: Client; peer: Peer; request: Promise<unknown>; setWorks: (works: boolean) => void }> {
  let works = false;
  script.answers = true;
  const client = open(() => (works ? Promise.resolve() : Promise.reject(new Error('no'))), { returnMs: 50 });
  const peer = await script.accept();
  await client.connected();
  const request = client.request('a', undefined, options);
  request.catch(() => {});
  works = true;
  await expect.poll(() => client.transport).toBe('webtransport');
  return { client, peer, request, setWorks: (value) => (works = value) };
}

test('closing ends the WebSocket, too, that was left with a request on it', async () => {
  const { client, peer, request } = await changedOver();
  client.close();
  await expect(Promise.race([request, after(2_000)])).rejects.toMatchObject({ kind: 'closed' });
  expect(await Promise.race([peer.closed, after(2_000)])).toBe(1000);
});

test('a server that is still busy with what came over the WebSocket is not left', async () => {
  let works = false;
  const client = open(() => (works ? Promise.resolve() : Promise.reject(new Error('no'))), { returnMs: 50 });
  const peer = await script.accept();
  await client.connected();
  const request = client.request('slow');
  const slow = await peer.request('slow');
  await client.signal('waits', 'x');
  works = true;
  await expect.poll(() => sessions.length).toBe(2);
  void client.signal('later', 'x');
  // It was given up, with all that was held back for it sent where the rest was.
  await expect.poll(() => sessions[1]!.isClosed).toBe(true);
  expect(client.transport).toBe('websocket');
  const heard: string[] = [];
  while (!heard.includes('later')) {
    const message = await peer.next();
    heard.push('name' in message ? message.name : message.type);
  }
  expect(heard.filter((name) => name !== 'restoreSession')).toEqual(['waits', 'later']);
  expect(sessions.map(({ control }) => control).join()).not.toContain('later');
  script.answers = true;
  peer.reply(slow);
  await request;
  await expect.poll(() => client.transport).toBe('webtransport');
});

test('a server that shuts down behind the WebSocket that was left does not stop the connection that is in its place', async () => {
  const { client, peer, request } = await changedOver({ idempotent: true });
  peer.refuse(await peer.request('a'));
  await expect.poll(() => sessions.at(-1)!.streams[1]?.heard).toMatchObject([{ type: 'request', name: 'a' }]);
  await client.signal('later', 'x');
  await expect.poll(() => sessions.at(-1)!.control).toContain('later');
  client.close();
  await expect(request).rejects.toMatchObject({ kind: 'closed' });
});

test('what a server says to the new connection alone is heard, as soon as it has accepted it', async () => {
  let works = false;
  const client = open(() => (works ? Promise.resolve() : Promise.reject(new Error('no'))), { returnMs: 50 });
  await script.accept();
  await client.connected();
  const heard: string[] = [];
  client.on('n', (message) => heard.push(message.text()));
  works = true;
  await expect.poll(() => sessions[1]?.control).toBeTruthy();
  sessions[1]!.streams[0]!.say('40016e' + '78');
  await expect.poll(() => heard).toEqual(['x']);
});

test('WebTransport is tried again after a try that outlived its WebSocket', async () => {
  let ready: () => Promise<void> = () => Promise.reject(new Error('no'));
  const client = open(() => ready(), { returnMs: 50 });
  const peer = await script.accept();
  await client.connected();
  let fail = () => {};
  const hangs = new Promise<void>((_, reject) => {
    fail = () => {
      reject(new Error('at last'));
    };
  });
  ready = () => hangs;
  await expect.poll(() => sessions.length).toBe(2);
  peer.socket.terminate();
  await script.accept();
  await expect.poll(() => client.transport).toBe('websocket');
  // The next is due by then.
  await after(300);
  ready = () => Promise.resolve();
  fail();
  await expect.poll(() => client.transport).toBe('webtransport');
});

test('WebTransport is tried again while a WebSocket that was left has a request on it', async () => {
  const { client, setWorks } = await changedOver();
  setWorks(false);
  sessions.at(-1)!.lose();
  await script.accept();
  await client.connected();
  expect(client.transport).toBe('websocket');
  setWorks(true);
  await expect.poll(() => client.transport, { timeout: 5_000 }).toBe('webtransport');
});

/** That the server has made a session with this key. */
const created = (key: string) => Buffer.from(`\x15{"k":"${key}","c":"2026-01-01T00:00:00Z","l":"2026-01-01T00:00:00Z"}`);

test('WebTransport is not taken without a session that was made during the change-over', async () => {
  let works = false;
  const client = open(() => (works ? Promise.resolve() : Promise.reject(new Error('no'))), { returnMs: 50 });
  const peer = await script.accept();
  await client.connected();
  const login = client.request('login');
  const request = await peer.request('login');
  works = true;
  await expect.poll(() => sessions.length).toBe(2);
  await after(100);
  peer.send(created('mine'));
  peer.reply(request);
  await login;
  expect(client.session?.key).toBe('mine');
  await expect.poll(() => sessions.length, { timeout: 10_000 }).toBe(3);
  expect(client.transport).toBe('websocket');
  expect(sessions[1]!.control).not.toContain('mine');
  await expect.poll(() => sessions[2]!.control).toContain('mine');
});

test('a session that is made on the WebSocket that was left is restored before anything else is sent', async () => {
  const { client, peer } = await changedOver();
  peer.send(created('mine'));
  await expect.poll(() => client.session?.key).toBe('mine');
  void client.signal('later').catch(() => {});
  await expect.poll(() => sessions.at(-1)!.control).toContain('mine');
  expect(sessions.at(-1)!.control).not.toContain('later');
});

test('a session is closed on the WebSocket that was left, too', async () => {
  const { client, peer } = await changedOver();
  peer.send(created('mine'));
  await expect.poll(() => client.session?.key).toBe('mine');
  client.closeSession().catch(() => {});
  await expect.poll(() => peer.heard.next().then((bytes) => bytes[0]), { timeout: 10_000 }).toBe(0x1f);
});

test('WebTransport that fails: WebSocket at once', async () => {
  accepts();
  const client = open(() => Promise.reject(new Error('no')), { fallbackMs: 30_000 });
  expect(await connected(client)).toBeLessThan(10_000);
  expect(client.transport).toBe('websocket');
});

test('WebTransport that hangs: WebSocket when its time is up, and the session is given up', async () => {
  accepts();
  const client = open(() => never);
  expect(await connected(client)).toBeGreaterThan(480);
  expect(client.transport).toBe('websocket');
  expect(sessions).toMatchObject([{ isClosed: true }]);
});

test('the choice is remembered, and forgotten when WebTransport works', async () => {
  accepts();
  const storage = new MemoryStorage();
  const first = open(() => Promise.reject(new Error('no')), { storage });
  await connected(first);
  first.close();
  expect(Number([...storage.values()][0])).toBeGreaterThan(Date.now() - 60_000);

  let works = false;
  const second = open(() => (works ? Promise.resolve() : Promise.reject(new Error('no'))), { storage, returnMs: 50 });
  await connected(second);
  expect(second.transport).toBe('websocket');
  works = true;
  // The server above answers nothing: the change waits a while for what was sent before it.
  await expect.poll(() => second.transport, { timeout: 20_000 }).toBe('webtransport');
  expect(storage.size).toBe(0);
});

test('WebTransport may have all the time that there is', async () => {
  const set = vi.spyOn(globalThis, 'setTimeout');
  const clear = vi.spyOn(globalThis, 'clearTimeout');
  const client = open(() => after(300), { fallbackMs: Infinity });
  accepts();
  await connected(client);
  expect(client.transport).toBe('webtransport');
  // Nothing keeps a process from ending.
  const cleared = clear.mock.calls.map(([timer]) => timer);
  const left = set.mock.calls.flatMap(([, ms], n) => (ms! > 1_000_000 ? [set.mock.results[n]!.value as NodeJS.Timeout] : []));
  expect(left.filter((timer) => !cleared.includes(timer))).toEqual([]);
  vi.restoreAllMocks();
});

test('what is closed while it connects has learnt nothing of the network', async () => {
  const storage = new MemoryStorage();
  const client = open(() => never, { storage, fallbackMs: 10_000 });
  const peer = await script.accept();
  // It is open, and waits for WebTransport, which has all of its time.
  await after(100);
  client.close();
  await peer.closed;
  await after(50);
  expect(storage.size).toBe(0);
});

test('a WebSocket that hangs where WebSocket is remembered does not take the whole attempt', async () => {
  const storage = new MemoryStorage([['wireloom:websocket:https://127.0.0.1:1/messages', String(Date.now())]]);
  const sockets: Socket[] = [];
  // Takes the connection, and says nothing.
  const silent = createServer((socket) => sockets.push(socket));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const webSocketUrl = `ws://127.0.0.1:${(silent.address() as AddressInfo).port}/`;
  const client = open(() => Promise.resolve(), { storage, webSocketUrl, connectTimeoutMs: 3_600_000 });
  await client.connected();
  expect(client.transport).toBe('webtransport');
  // Tried first.
  expect(sockets.length).toBe(1);
  expect(storage.size).toBe(0);
  client.close();
  for (const socket of sockets) socket.destroy();
  silent.close();
});

test('an old memory does not count', async () => {
  accepts();
  const storage = new MemoryStorage([['wireloom:websocket:https://127.0.0.1:1/messages', String(Date.now() - 700_000)]]);
  const client = open(() => Promise.resolve(), { storage });
  await connected(client);
  expect(client.transport).toBe('webtransport');
});

test('neither works: both reasons, and both again', async () => {
  const client = open(() => Promise.reject(new Error('no UDP')), { webSocketUrl: 'ws://127.0.0.1:1/' });
  await expect.poll(() => (client.state.status === 'connecting' ? client.state.failures : 0)).toBeGreaterThan(2);
  const { error } = client.state as { error: Error };
  expect(error).toMatchObject({ kind: 'unreachable' });
  expect(error.message).toMatch(/no UDP.*ECONNREFUSED/);
});

test('after some failures WebSocket is the scout', async () => {
  // It has been seen to work, long ago.
  const storage = new MemoryStorage([['wireloom:websocket:https://127.0.0.1:1/messages', String(Date.now() - 700_000)]]);
  const down = open(() => Promise.reject(new Error('no')), { storage, webSocketUrl: 'ws://127.0.0.1:1/' });
  await expect.poll(() => (down.state.status === 'connecting' ? down.state.failures : 0)).toBeGreaterThan(40);
  const { failures } = down.state as { failures: number };
  // The first three, then every fourth.
  expect(sessions.length).toBeLessThan(3 + failures / 3);
  expect(sessions.length).toBeGreaterThan(failures / 5);
});

test.each([false, true])('a server that dismisses the client over one transport is left over both: %s', async (overWebSocket) => {
  const client = open(() => after(50), { fallbackMs: 20, returnMs: 10 });
  const peer = await script.accept();
  await client.connected();
  expect(client.transport).toBe('websocket');
  await expect.poll(() => sessions.length).toBeGreaterThan(1);
  if (overWebSocket) peer.socket.close(4019, 'enough');
  else sessions.at(-1)!.end(0x13, 'enough');
  await expect.poll(() => client.state).toMatchObject({ status: 'closed', error: { kind: 'dismissed', message: 'enough' } });
});

test('hashes that cannot be had are asked for again; a wrong one is final', async () => {
  let asked = 0;
  const client = open(() => Promise.resolve(), {
    webSocketUrl: null,
    certificateHashes: () => (++asked < 3 ? Promise.reject(new TypeError('fetch failed')) : ['00'.repeat(32)]),
  });
  await connected(client);
  expect(asked).toBe(3);
  const wrong = open(() => Promise.resolve(), { webSocketUrl: null, certificateHashes: ['00'] });
  await expect(wrong.connected()).rejects.toMatchObject({ kind: 'closed', cause: { kind: 'invalid' } });
});

test('the query is asked for anew for each attempt, of both transports, and keeps what the URL has', async () => {
  let asked = 0;
  const query = () => (++asked === 1 ? Promise.reject(new TypeError('fetch failed')) : Promise.resolve({ token: `t${asked}&` }));
  const client = open(() => Promise.resolve(), { webSocketUrl: null, query });
  await connected(client);
  expect(sessions.map(({ url }) => url)).toEqual(['https://127.0.0.1:1/messages?token=t2%26&wwr=2m']);
  const socket = openAt(`${script.url}?room=a&token=old`, { query: () => ({ token: 'new' }) });
  const peer = await script.accept();
  await socket.connected();
  expect(peer.url).toBe('/?room=a&token=new');
});
