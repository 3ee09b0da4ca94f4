// The client over WebTransport that is made up: what a server, a network or a browser does to it when much goes wrong.
import { afterEach, expect, test } from 'vitest';
import type { Client, ClientOptions } from '../src/index.js';
import { closeClients, endless, open as openAt } from './clients.js';
import { after, fake, sessions, Stream } from './fake.js';
import type { FakeOptions, Session } from './fake.js';

afterEach(closeClients);

const open = (more: FakeOptions = {}, options: ClientOptions = {}): Client =>
  openAt('https://127.0.0.1:1/messages', {
    WebTransport: fake(() => Promise.resolve(), more),
    webSocketUrl: null,
    backoff: { firstMs: 1, maxMs: 1 },
    ...options,
  });

async function connected(more: FakeOptions = {}, options: ClientOptions = {}): Promise<{ client: Client; session: Session }> {
  const client = open(more, options);
  await client.connected();
  return { client, session: sessions[0]! };
}

test('a server whose handler is busy is not taken for dead', async () => {
  const { client, session } = await connected({}, { patienceMs: 300 });
  client.request('slow').catch(() => {});
  // Behind another message that waits for the handler the server does not see what asks for a sign of life.
  await expect.poll(() => session.control, { timeout: 20_000 }).toContain('?');
  await after(1_000);
  expect(client.state.status).toBe('connected');
  expect(sessions.length).toBe(1);
});

test('a dead connection is noticed where handlers would answer at once', async () => {
  const { client, session } = await connected({}, { patienceMs: 300 });
  const request = client.request('fast', undefined, { prompt: true });
  await expect(request).rejects.toMatchObject({ kind: 'disconnected', message: 'the server does not answer' });
  expect(session.isClosed).toBe(true);
});

test('the server is told that a request was given up', async () => {
  const { client, session } = await connected();
  const abort = new AbortController();
  const request = client.request('slow', undefined, { signal: abort.signal });
  await expect.poll(() => session.streams[1]?.isFinished).toBe(true);
  abort.abort(new Error('enough'));
  await expect(request).rejects.toThrow('enough');
  await expect.poll(() => session.streams[1]!.stopped).toBeDefined();
  // What was given up takes no stream's place.
  for (let n = 0; n < 200; n++) {
    await expect(client.request('slow', undefined, { timeoutMs: 1 })).rejects.toMatchObject({ kind: 'timeout' });
  }
  await expect.poll(() => session.streams.length).toBe(202);
  expect(session.control).not.toContain('slow');
});

/** `17`: section 4.1. */
const ACCEPT_CONF = '17020060ea000000200000';

test('what overtakes the first message is kept until that comes', async () => {
  const client = open({ first: '' });
  const heard: string[] = [];
  client.onAny((message, name) => heard.push(`${name} ${message.text()}`));
  await expect.poll(() => sessions[0]?.control).toBe('\x01\x21');
  sessions[0]!.datagram('400161' + '78');
  // A heartbeat says nothing.
  sessions[0]!.datagram('21');
  const stream = new Stream();
  stream.say('400162' + '79');
  sessions[0]!.incoming(stream.readable);
  await after(50);
  sessions[0]!.streams[0]!.say(ACCEPT_CONF);
  await client.connected();
  await expect.poll(() => heard.sort()).toEqual(['a x', 'b y']);
  expect(sessions.length).toBe(1);
});

test('a reply before the first message is final', async () => {
  const client = open({ first: '' });
  await expect.poll(() => sessions[0]?.control).toBe('\x01\x21');
  sessions[0]!.streams[0]!.say('c0' + '0100000000000000');
  await expect(client.connected()).rejects.toMatchObject({ kind: 'closed', cause: { kind: 'rejected' } });
});

test("a server's good-bye is answered, and what is said after it is said on the next connection", async () => {
  const { client, session } = await connected();
  const states: unknown[] = [];
  client.onState((state) => states.push(state));
  session.streams[0]!.finish();
  await expect.poll(() => session.streams[0]!.isFinished).toBe(true);
  const sent = Promise.all([client.signal('one', 'x'), client.signal('two', 'x', { unordered: true })]);
  client.request('three').catch(() => {});
  await after(50);
  session.end(1, 'the server shuts down');
  await sent;
  await expect.poll(() => sessions[1]?.streams.map(({ text }) => text).join()).toMatch(/one.*three/s);
  expect(session.control).not.toContain('one');
  expect(session.streams.length).toBe(1);
  expect(states[0]).toMatchObject({ status: 'connecting', error: { message: 'the server shuts down' } });
});

test('a server that does not end the session after its good-bye is left', async () => {
  const { client, session } = await connected();
  session.streams[0]!.finish();
  await expect.poll(() => session.streams[0]!.isFinished).toBe(true);
  await client.signal('a', 'x');
  await expect.poll(() => sessions[1]?.control).toContain('a');
  expect(session.isClosed).toBe(true);
});

test('payloads that get no stream are read, and take the control stream', async () => {
  let streams = 0;
  // As Chromium does at the server's limit.
  const request = () => (++streams > 3 ? Promise.reject(new Error('no more streams')) : Promise.resolve());
  const { client, session } = await connected({ request });
  for (let n = 0; n < 5; n++) {
    const blob = new Blob([`blob ${n}`]);
    client.request('upload', n % 2 === 0 ? blob : blob.stream(), { size: blob.size }).catch(() => {});
  }
  await expect.poll(() => session.control).toMatch(/blob 3.*blob 4/s);
  expect(session.streams.slice(1).map(({ text }) => text.slice(-6))).toEqual(['blob 0', 'blob 1', 'blob 2']);
});

test('payloads beyond so many streams do not ask for one', async () => {
  const { client, session } = await connected();
  for (let n = 0; n < 70; n++) client.request('upload', new Blob([`blob ${n}`])).catch(() => {});
  await expect.poll(() => session.control.match(/blob \d+/g)?.length).toBe(6);
  expect(session.streams.length).toBe(65);
});

test.each([
  ['is aborted', (abort: AbortController) => abort.abort()],
  ['loses its session', (_: unknown, session: Session) => session.lose()],
  ['is stopped by the server', (_: unknown, session: Session) => session.streams[1]!.fail(new Error('stopped'))],
  ['loses its client', (_: unknown, __: unknown, client: Client) => client.close()],
] as const)('a source that gives nothing is let go when its request %s', async (_, end) => {
  const { client, session } = await connected();
  const { stream, cancelled } = endless();
  const abort = new AbortController();
  const request = client.request('upload', stream, { size: 100, signal: abort.signal });
  request.catch(() => {});
  await expect.poll(() => session.streams[1]?.text).toContain('upload');
  end(abort, session, client);
  await cancelled;
  await expect(request).rejects.not.toMatchObject({ kind: 'invalid' });
});

test('a source that fails is told of at once, as no payload', async () => {
  const { client, session } = await connected();
  const stream = new ReadableStream<Uint8Array>({ pull: () => Promise.reject(new Error('gone')) });
  const request = client.request('upload', stream, { size: 100 });
  await expect(request).rejects.toMatchObject({ kind: 'invalid', message: expect.stringContaining('gone') as string });
  await expect.poll(() => session.streams[1]!.reset).toBeDefined();
});

test('a server hears of the client as soon as it has spoken', async () => {
  const { session } = await connected();
  // The preface, and a message of the conversation: it says nothing unasked before.
  await expect.poll(() => session.streams[0]!.heard).toEqual([{ type: 'heartbeat' }, { type: 'heartbeat' }]);
});

test.each([
  ['no byte on a stream of its own', (session: Session) => {
    const stream = new Stream();
    stream.write(new Uint8Array(1));
    session.incoming(stream.readable);
  }, 2],
  ["no byte on a request's stream", (session: Session) => session.streams[1]!.write(new Uint8Array(1)), 2],
  ['no byte on the control stream', (session: Session) => session.streams[0]!.write(new Uint8Array(1)), 2],
  ['more than the message buffer', (session: Session) => session.streams[1]!.write(Uint8Array.of(0xbf, 0xff, 0xff, 0xff)), 5],
] as const)('a message of %s ends the connection', async (_, say, code) => {
  const { client, session } = await connected();
  const request = client.request('a');
  const told = expect(request).rejects.toMatchObject({ kind: 'disconnected' });
  await expect.poll(() => session.streams[1]?.isFinished).toBe(true);
  say(session);
  await expect.poll(() => session.closedWith?.closeCode).toBe(code);
  await told;
});
