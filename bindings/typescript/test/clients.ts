// The clients of one test.
import { Client } from '../src/index.js';
import type { ClientOptions } from '../src/index.js';
import { NodeWebSocket } from './serve.js';

const clients: Client[] = [];

/** A client for as long as its test runs. */
export function open(url: string, options: ClientOptions): Client {
  const client = new Client(url, { WebSocket: NodeWebSocket, ...options });
  clients.push(client);
  return client;
}

/** A payload that never has an end. */
export function endless(): { stream: ReadableStream<Uint8Array>; cancelled: Promise<void> } {
  let cancel = () => {};
  const cancelled = new Promise<void>((resolve) => (cancel = resolve));
  return { stream: new ReadableStream({ cancel }), cancelled };
}

/** After each test. */
export function closeClients(): void {
  for (const client of clients.splice(0)) client.close();
}
