// The client over WebTransport that is made up: what a server, a network or a browser does to it when much goes wrong.
import { afterEach, expect, test } from 'vitest';
import type { Client, ClientOptions } from '../src/index.js';
import { closeClients, open as openAt } from './clients.js';
import { after, fake, sessions } from './fake.js';
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
