// The client over WebTransport, in real browsers, against `wireloom serve`.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Serve } from '../test/serve.js';
import { Browser, BROWSERS, until } from './browser.js';
import type { Page } from './browser.js';
import { cut, heal } from './network.js';
import { Pages } from './pages.js';

/** Does it in less than so many ms: in one of some attempts, because the machine may be busy with something else. */
async function within(ms: number, action: () => Promise<void>): Promise<void> {
  const took: number[] = [];
  while (took.length < 5) {
    const started = performance.now();
    await action();
    took.push(performance.now() - started);
    if (took.at(-1)! < ms) return;
  }
  expect.fail(`it took ${took.join(', ')} ms`);
}

describe.each(BROWSERS)('%s', (name) => {
  let pages: Pages;
  let serve: Serve;
  let browser: Browser;
  let page: Page;

  beforeAll(async () => {
    pages = await Pages.serve();
    serve = await Serve.start('--allow-origin', pages.origin);
    browser = await Browser.start(name);
    page = await browser.page();
    await page.goto(pages.origin);
  });
  afterAll(async () => {
    heal();
    await browser.stop();
    await serve.stop();
    pages.close();
  });

  /** Makes `client`, of that page, anew. */
  async function connect(options = ''): Promise<void> {
    await page.evaluate(`(async () => {
      globalThis.client?.close();
      globalThis.wireloom = await import('/wireloom.min.js');
      globalThis.states = [];
      globalThis.client = new wireloom.Client('${serve.webTransport}/messages', {
        certificateHashes: ['${serve.certificateHash}'], webSocketUrl: '${serve.ws}', backoff: { firstMs: 50, maxMs: 500 }, ${options}
      });
      client.onState((state) => states.push(state.status + ':' + (state.transport ?? state.error?.kind)));
      await client.connected();
    })()`);
  }

  test('requests, signals of all kinds and sessions over WebTransport', async () => {
    await connect();
    expect(await page.evaluate('client.transport')).toBe('webtransport');
    expect(await page.evaluate(`client.request('upper', 'straße').then((reply) => reply.text())`)).toBe('STRASSE');
    expect(await page.evaluate(`client.request('fail', 'x').catch((error) => error.code + error.message)`)).toBe('FAILx');
    const signals = `new Promise((resolve) => {
      const got = [];
      client.on('news', (message) => { got.push(message.text()); if (got.length === 3) resolve(got.sort()); });
      client.signal('news', 'ordered');
      client.signal('news', 'unordered', { unordered: true });
      client.signal('news', 'unreliable', { unreliable: true });
    })`;
    expect(await page.evaluate(signals)).toEqual(['ordered', 'unordered', 'unreliable']);
    expect(await page.evaluate(`client.request('login', 'ann').then(() => client.session.info)`)).toEqual({ user: 'ann' });
    expect(await page.evaluate(`client.request('whoami').then((reply) => reply.json())`)).toEqual({ user: 'ann' });
    expect(await page.evaluate('client.webTransport instanceof WebTransport')).toBe(true);
  });

  test('more requests at once than there may be streams', async () => {
    await connect();
    const all = `Promise.all(Array.from({ length: 2000 }, (_, n) => client.request('echo', String(n)).then((reply) => Number(reply.text()))))
      .then((replies) => replies.every((reply, n) => reply === n))`;
    expect(await page.evaluate(all)).toBe(true);
  });

  test('requests do not wait for each other, and are given up', async () => {
    await connect();
    const reply = `(async () => {
      const controller = new AbortController();
      const slow = client.request('sleep', '60000', { signal: controller.signal }).catch((error) => error.message);
      const fast = (await client.request('echo', 'fast')).text();
      controller.abort(new Error('enough'));
      return [fast, await slow, (await client.request('echo', 'after')).text()];
    })()`;
    expect(await page.evaluate(reply)).toEqual(['fast', 'enough', 'after']);
  });

  test('a payload streamed piece by piece', async () => {
    await connect();
    const reply = `(async () => {
      const bytes = crypto.getRandomValues(new Uint8Array(8000));
      const blob = await client.request('echo', new Blob([bytes]));
      const pieces = new ReadableStream({ start(c) { for (let at = 0; at < 8000; at += 1000) c.enqueue(bytes.slice(at, at + 1000)); c.close(); } });
      const stream = await client.request('echo', pieces, { size: 8000 });
      const wrong = await client.request('echo', new Blob(['short']).stream(), { size: 6 }).catch((error) => error.kind);
      const large = await client.request('echo', new Blob([new Uint8Array(9000)])).catch((error) => error.kind);
      return [bytes.every((byte, at) => blob.bytes[at] === byte && stream.bytes[at] === byte), wrong, large, client.state.status];
    })()`;
    expect(await page.evaluate(reply)).toEqual([true, 'invalid', 'tooLarge', 'connected']);
  });

  test('in a worker', async () => {
    const source = `
      import('${pages.origin}/wireloom.min.js').then(async ({ Client }) => {
        const client = new Client('${serve.webTransport}/messages', { certificateHashes: ['${serve.certificateHash}'], webSocketUrl: null });
        postMessage(client.transport + (await client.request('echo', 'hi')).text() + client.transport);
      }).catch((error) => postMessage(String(error)));`;
    const answer = `new Promise((resolve) => {
      const url = URL.createObjectURL(new Blob([${JSON.stringify(source)}], { type: 'text/javascript' }));
      new Worker(url, { type: 'module' }).onmessage = (event) => resolve(event.data);
    })`;
    expect(await page.evaluate(answer)).toBe('nullhiwebtransport');
  });

  test('UDP blocked: WebSocket within three seconds, the same session, remembered, and back', async () => {
    const storage = `storage: globalThis.kept ??= new (class {
      entries = new Map(); getItem(k) { return this.entries.get(k) ?? null } setItem(k, v) { this.entries.set(k, v) } removeItem(k) { this.entries.delete(k) }
    })()`;
    await connect(storage);
    await page.evaluate(`client.request('login', 'ann')`);
    const end = cut([Number(new URL(serve.webTransport).port)], ['udp']);
    await within(3_000, async () => {
      await page.evaluate(`globalThis.kept?.entries.forEach((_, key) => key.includes('websocket') && kept.entries.delete(key))`);
      await connect(storage);
    });
    expect(await page.evaluate('client.transport')).toBe('websocket');
    expect(await page.evaluate(`client.request('whoami').then((reply) => reply.json())`)).toEqual({ user: 'ann' });
    // Remembered: sooner than WebTransport could be given up.
    await within(1_500, () => connect(`${storage}, returnMs: 500`));
    // Signals in order over the change.
    await page.evaluate(`(globalThis.got = [], client.on('n', (m) => got.push(Number(m.text()))), globalThis.n = 0,
      globalThis.timer = setInterval(() => client.signal('n', String(n++)), 5), null)`);
    end();
    await until(page, `client.transport === 'webtransport'`);
    await until(page, `(globalThis.seen ??= got.length, got.length > seen + 50)`);
    await page.evaluate('clearInterval(timer)');
    await until(page, 'got.length === n');
    expect(await page.evaluate('got.every((value, at) => value === at)')).toBe(true);
    expect(await page.evaluate(`client.request('whoami').then((reply) => reply.json())`)).toEqual({ user: 'ann' });
    expect(await page.evaluate('states.join()')).toBe('connected:websocket,connected:webtransport');
  });
});
