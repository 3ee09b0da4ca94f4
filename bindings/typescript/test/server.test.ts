// The client against `wireloom serve`, over WebSocket with and without TLS.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Client, Data } from '../src/index.js';
import type { ClientOptions, ClientState, Session, WebSocketConstructor } from '../src/index.js';
import { closeClients, open as openAt } from './clients.js';
import { Proxy } from './proxy.js';
import { NodeWebSocket, Serve, Unchecked } from './serve.js';

let serve: Serve;

beforeAll(async () => {
  serve = await Serve.start();
});
afterAll(() => serve.stop());
afterEach(closeClients);

const open = (url = serve.ws, options: ClientOptions = {}): Client => openAt(url, { backoff: { firstMs: 10, maxMs: 200 }, ...options });

const kind = (kind: string): unknown => expect.objectContaining({ name: 'WireloomError', kind });

/** Resolves with the first state that fits. */
function state(client: Client, fits: (state: ClientState) => boolean): Promise<ClientState> {
  return new Promise((resolve) => {
    if (fits(client.state)) { resolve(client.state); return; }
    const stop = client.onState((now) => {
      if (!fits(now)) return;
      stop();
      resolve(now);
    });
  });
}

class MemoryStorage {
  readonly entries = new Map<string, string>();
  getItem(key: string): string | null {
    return this.entries.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.entries.set(key, value);
  }
  removeItem(key: string): void {
    this.entries.delete(key);
  }
}

describe.each([
  ['ws', () => serve.ws, NodeWebSocket],
  ['wss', () => serve.wss, Unchecked],
  ['https, without WebTransport', () => serve.wss.replace('wss', 'https'), Unchecked],
] as [string, () => string, WebSocketConstructor][])('over %s', (_, url, WebSocket) => {
  test('requests in all encodings', async () => {
    const client = open(url(), { WebSocket });
    for (const payload of ['жü', '', new Uint8Array([0, 255]), { a: [1] }, undefined, new Data('utf16', new Uint8Array([97, 0]))]) {
      const reply = await client.request('echo', payload);
      expect(reply).toEqual(Data.of(payload));
    }
    expect((await client.request('upper', 'straße')).text()).toBe('STRASSE');
    expect(client.transport).toBe('websocket');
    expect(client.webTransport).toBeNull();
  });

  test('signals in order', async () => {
    const client = open(url(), { WebSocket });
    const got: string[] = [];
    const all = new Promise<void>((resolve) => {
      client.on('news', (message) => {
        got.push(message.text());
        if (got.length === 200) resolve();
      });
    });
    for (let n = 0; n < 200; n++) void client.signal('news', String(n), { unordered: n % 2 === 0 });
    await all;
    expect(got).toEqual(Array.from({ length: 200 }, (_, n) => String(n)));
  });
});

describe('requests', () => {
  test('fail as the server says', async () => {
    const client = open();
    await expect(client.request('fail', 'so it is')).rejects.toMatchObject({ kind: 'application', code: 'FAIL', message: 'so it is' });
    await expect(client.request('nonsense')).rejects.toMatchObject({ kind: 'application', code: 'UNKNOWN_REQUEST' });
  });

  test('have a deadline, and the late reply is dropped', async () => {
    const client = open();
    await client.connected();
    await expect(client.request('sleep', '300', { timeoutMs: 20 })).rejects.toEqual(kind('timeout'));
    expect((await client.request('echo', 'still here')).text()).toBe('still here');
  });

  test('are aborted with the reason of the signal', async () => {
    const client = open();
    await client.connected();
    const reason = new Error('enough');
    const controller = new AbortController();
    const request = client.request('sleep', '60000', { signal: controller.signal });
    setTimeout(() => {
      controller.abort(reason);
    }, 20);
    await expect(request).rejects.toBe(reason);
    await expect(client.request('echo', 'x', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    // Before it was sent.
    const waiting = open('ws://127.0.0.1:1/');
    await expect(waiting.request('echo', 'x', { signal: AbortSignal.timeout(30) })).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  test('that are too large are not sent', async () => {
    const client = open();
    await client.connected();
    const room = 8192 - 10 - 'echo'.length;
    expect((await client.request('echo', new Uint8Array(room - 1))).bytes.length).toBe(room - 1);
    await expect(client.request('echo', new Uint8Array(room + 1))).rejects.toEqual(kind('tooLarge'));
    await expect(client.signal('x', new Uint8Array(8192))).rejects.toEqual(kind('tooLarge'));
    expect(client.state.status).toBe('connected');
  });

  test('with a Blob or a stream', async () => {
    const client = open();
    const blob = new Blob(['some ', 'parts']);
    expect((await client.request('echo', blob)).text()).toBe('some parts');
    expect((await client.request('echo', new Blob(['of a stream']).stream() as ReadableStream<Uint8Array>)).text()).toBe('of a stream');
    await expect(client.request('echo', new Blob([new Uint8Array(20_000)]))).rejects.toEqual(kind('tooLarge'));
    expect((await client.request('echo', 'after')).text()).toBe('after');
  });

  test('beyond what may wait are refused', async () => {
    const client = open('ws://127.0.0.1:1/', { maxPending: 3 });
    const waiting = [1, 2, 3].map(() => client.request('echo', 'x'));
    await expect(client.request('echo', 'x')).rejects.toEqual(kind('queueFull'));
    await expect(client.signal('x', 'x')).rejects.toEqual(kind('queueFull'));
    client.close();
    for (const one of waiting) await expect(one).rejects.toEqual(kind('closed'));
  });

  test('names that may not be sent', async () => {
    const client = open();
    await expect(client.request('ü', 'x')).rejects.toEqual(kind('invalid'));
    await expect(client.signal('', undefined)).rejects.toEqual(kind('invalid'));
    expect(() => client.topic('')).toThrow('is no topic');
    expect(() => client.topic('t'.repeat(201))).toThrow('is no topic');
  });

  test('twenty thousand at once', async () => {
    const client = open(serve.ws, { maxPending: 20_000 });
    const numbers = Array.from({ length: 20_000 }, (_, n) => String(n));
    const replies = await Promise.all(numbers.map((n) => client.request('echo', n)));
    expect(replies.map((reply) => reply.text())).toEqual(numbers);
  });
});

describe('connections', () => {
  test('requests made before there is one wait for it', async () => {
    const client = open();
    expect(client.state).toEqual({ status: 'connecting', failures: 0, error: null });
    expect((await client.request('echo', 'early')).text()).toBe('early');
    expect(client.state).toEqual({ status: 'connected', transport: 'websocket' });
  });

  test('lost: what may be repeated is, and the rest is told', async () => {
    const proxy = await Proxy.to(serve.ws);
    const client = open(proxy.url);
    await client.connected();
    const lost = client.request('sleep', '1000');
    const repeated = client.request('sleep', '1000', { idempotent: true });
    const told = expect(lost).rejects.toEqual(kind('disconnected'));
    // Both are with the server.
    await client.request('echo', 'x');
    proxy.cut();
    await told;
    expect((await repeated).text()).toBe('slept');
    expect(proxy.accepted).toBe(2);
    proxy.close();
  });

  test('signals wait for the next, unreliable ones do not', async () => {
    const proxy = await Proxy.to(serve.ws);
    const client = open(proxy.url);
    await client.connected();
    proxy.refuses = true;
    proxy.cut();
    await state(client, ({ status }) => status === 'connecting');
    const got: string[] = [];
    client.onAny((message, name) => got.push(`${name} ${message.text()}`));
    await client.signal('unreliable', 'x', { unreliable: true });
    const reliable = client.signal('reliable', 'x');
    proxy.refuses = false;
    await reliable;
    await client.request('echo', 'x');
    await expect.poll(() => got).toEqual(['reliable x']);
    proxy.close();
  });

  test('that nobody answers on are given up', async () => {
    const proxy = await Proxy.to(serve.ws);
    const client = open(proxy.url, { silenceMs: 300, patienceMs: 300 });
    await client.connected();
    // The server's answers keep it: no second connection.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(proxy.accepted).toBe(1);
    proxy.isSilent = true;
    const lost = await state(client, ({ status }) => status === 'connecting');
    expect(lost).toMatchObject({ error: { kind: 'disconnected', message: 'the server does not answer' } });
    proxy.isSilent = false;
    await client.connected();
    expect((await client.request('echo', 'again')).text()).toBe('again');
    proxy.close();
  });

  test('a wake-up ends the pause', async () => {
    const proxy = await Proxy.to(serve.ws);
    proxy.refuses = true;
    const client = open(proxy.url, { backoff: { firstMs: 3_600_000, maxMs: 3_600_000 } });
    await state(client, (now) => now.status === 'connecting' && now.failures === 1);
    proxy.refuses = false;
    client.wake();
    await client.connected();
    proxy.close();
  });

  test('a wake-up during an attempt ends the pause after it', async () => {
    const proxy = await Proxy.to(serve.ws);
    proxy.isSilent = true;
    const client = open(proxy.url, { backoff: { firstMs: 3_600_000, maxMs: 3_600_000 }, connectTimeoutMs: 2_000 });
    await expect.poll(() => proxy.accepted).toBe(1);
    client.wake();
    // What the proxy has swallowed does not come again: this attempt fails.
    await state(client, (now) => now.status === 'connecting' && now.failures === 1);
    proxy.isSilent = false;
    await client.connected();
    expect(proxy.accepted).toBe(2);
    proxy.close();
  });

  test('the server is killed and started again', async () => {
    const mine = await Serve.start();
    const port = new URL(mine.page).port;
    const client = open(mine.ws);
    await client.connected();
    await mine.stop();
    const repeated = client.request('echo', 'over', { idempotent: true });
    await state(client, ({ status }) => status === 'connecting');
    const again = await Serve.start('--bind', '127.0.0.1:0', '--page-bind', `127.0.0.1:${port}`);
    expect((await repeated).text()).toBe('over');
    await again.stop();
  });

  test('the server shuts down: what it has is answered', async () => {
    const mine = await Serve.start();
    const client = open(mine.ws);
    await client.connected();
    const slow = client.request('sleep', '500');
    await client.request('echo', 'x');
    const stopped = mine.stop('SIGINT');
    expect((await slow).text()).toBe('slept');
    const lost = await state(client, ({ status }) => status === 'connecting');
    expect(lost).toMatchObject({ error: { kind: 'disconnected' } });
    await stopped;
  });

  test('a server that speaks something else is final', async () => {
    const client = open(serve.ws, { subProtocol: 'chat/1' });
    const waiting = client.request('echo', 'x');
    await expect(client.connected()).rejects.toMatchObject({ kind: 'closed', cause: { kind: 'rejected' } });
    await expect(waiting).rejects.toEqual(kind('closed'));
    await expect(client.request('echo', 'x')).rejects.toEqual(kind('closed'));
  });

  test('closing rejects what waits', async () => {
    const client = open();
    await client.connected();
    const waiting = client.request('sleep', '60000');
    const states: string[] = [];
    client.onState(({ status }) => states.push(status));
    client.close();
    await expect(waiting).rejects.toEqual(kind('closed'));
    expect(states).toEqual(['closed']);
    client.close();
  });

  test('a URL that is none', () => {
    expect(() => new Client('nonsense', { WebSocket: NodeWebSocket })).toThrow(TypeError);
    expect(() => new Client('https://127.0.0.1/', { webSocketUrl: null, WebTransport: null })).toThrow('nothing here can connect');
  });
});

describe('sessions', () => {
  test('are made, told, kept, restored before anything else, and closed', async () => {
    const proxy = await Proxy.to(serve.ws);
    const storage = new MemoryStorage();
    const client = open(proxy.url, { storage });
    const told: (Session | null)[] = [];
    client.onSession((session) => told.push(session));
    await client.request('login', 'ann');
    expect(client.session?.info).toEqual({ user: 'ann' });
    expect(told).toEqual([client.session]);
    expect((await client.request('whoami')).json()).toEqual({ user: 'ann' });

    // Over a lost connection: this request waits for the restoration.
    proxy.cut();
    await state(client, ({ status }) => status === 'connecting');
    expect((await client.request('whoami')).json()).toEqual({ user: 'ann' });
    expect(told).toHaveLength(2);

    // In another page.
    const second = open(proxy.url, { storage });
    expect((await second.request('whoami')).json()).toEqual({ user: 'ann' });
    expect(second.session?.key).toBe(client.session?.key);
    expect(storage.entries.size).toBe(1);

    await second.closeSession();
    expect(second.session).toBeNull();
    expect(storage.entries.size).toBe(0);
    await expect(second.request('whoami')).rejects.toMatchObject({ code: 'NO_SESSION' });
    proxy.close();
  });

  test('of an earlier page are closed by one that asks for it at once', async () => {
    const storage = new MemoryStorage();
    const before = open(serve.ws, { storage });
    await before.request('login', 'ann');
    const { key } = before.session!;
    before.close();
    const client = open(serve.ws, { storage });
    await client.closeSession();
    expect(storage.entries.size).toBe(0);
    expect(client.session).toBeNull();
    await expect(client.request('whoami')).rejects.toMatchObject({ code: 'NO_SESSION' });
    await expect(client.restoreSession(key)).rejects.toEqual(kind('sessionNotFound'));
  });

  test('of another page that are newer stay', async () => {
    const storage = new MemoryStorage();
    const [first, second] = [open(serve.ws, { storage }), open(serve.ws, { storage })];
    await first.request('login', 'ann');
    await second.restoreSession(first.session!.key);
    await second.closeSession();
    await second.request('login', 'bob');
    await first.closeSession();
    expect(first.session).toBeNull();
    expect([...storage.entries.values()]).toEqual([expect.stringContaining(second.session!.key)]);
  });

  test('that the server does not know any more are forgotten', async () => {
    const storage = new MemoryStorage();
    const gone = '{"k":"gone","c":"2019-01-15T11:29:22Z","l":"2019-01-15T11:29:22Z"}';
    storage.setItem(`wireloom:session:${serve.ws}`, gone);
    const client = open(serve.ws, { storage });
    const closed = new Promise<void>((resolve) =>
      client.onSession((session) => {
        if (!session) resolve();
      }),
    );
    await closed;
    await client.connected();
    expect(client.session).toBeNull();
    await expect.poll(() => storage.entries.size).toBe(0);
  });

  test('are taken up by key', async () => {
    const [ann, other] = [open(), open()];
    await ann.request('login', 'ann');
    const session = await other.restoreSession(ann.session!.key);
    expect(session.info).toEqual({ user: 'ann' });
    expect((await other.request('whoami')).json()).toEqual({ user: 'ann' });
    await expect(other.restoreSession('unknown')).rejects.toEqual(kind('sessionNotFound'));
    expect((await other.request('whoami')).json()).toEqual({ user: 'ann' });
  });

  test('end where the server closes them', async () => {
    const client = open();
    await client.request('login', 'ann');
    await client.request('logout');
    await expect.poll(() => client.session).toBeNull();
  });
});
