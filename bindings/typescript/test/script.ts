// A server that says what a test tells it to: for what a real one cannot be made to do.
import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';
import type { WebSocket } from 'ws';
import { decode } from '../src/codec.js';
import type { Message } from '../src/codec.js';

type Of<T extends Message['type']> = Extract<Message, { type: T }>;

/** Values that wait for those who want them, and the other way round. */
class Channel<T> {
  #values: T[] = [];
  #wanted: ((value: T) => void)[] = [];

  push(value: T): void {
    const wanted = this.#wanted.shift();
    if (wanted) wanted(value);
    else this.#values.push(value);
  }

  next(): Promise<T> {
    return new Promise((resolve) => {
      if (this.#values.length > 0) resolve(this.#values.shift()!);
      else this.#wanted.push(resolve);
    });
  }

  get isEmpty(): boolean {
    return this.#values.length === 0;
  }
}

const ACCEPT_CONF = '17020060ea000000200000';
const id = (number: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(number));
  return bytes;
};

/** One connection of a client. */
export class Peer {
  readonly heard = new Channel<Buffer>();
  readonly closed: Promise<number>;

  /** `answers`: to questions for a sign of life, of which the test then hears nothing. */
  constructor(readonly socket: WebSocket, readonly url: string, answers: () => boolean) {
    socket.on('message', (bytes: Buffer) => {
      const message = answers() && decode(bytes);
      if (message && message.type === 'restoreSession' && message.key === '?') this.send('03', id(message.id));
      else this.heard.push(bytes);
    });
    this.closed = new Promise((resolve) => socket.once('close', resolve));
  }

  send(...parts: (string | Buffer)[]): void {
    this.socket.send(Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'hex') : part))));
  }

  accept(): void {
    this.send(ACCEPT_CONF);
  }

  signal(name: string, text: string): void {
    this.send('40', Buffer.from([name.length]), Buffer.from(name), Buffer.from(text));
  }

  reply(request: { id: number }, json?: unknown): void {
    this.send('c0', id(request.id), Buffer.from(json === undefined ? '' : JSON.stringify(json)));
  }

  /** That it did not take the request, because it shuts down. */
  refuse(request: { id: number }): void {
    this.send('01', id(request.id));
  }

  fail(request: { id: number }, code: string): void {
    this.send('00', id(request.id), Buffer.from([code.length]), Buffer.from(code));
  }

  /** The next message that is no heartbeat. */
  async next(): Promise<Message> {
    for (;;) {
      const message = decode(await this.heard.next())!;
      if (message.type !== 'heartbeat') return message;
    }
  }

  /** The next request, which must have this name. */
  async request(name: string): Promise<Of<'request'> & { json: Record<string, unknown> }> {
    const message = await this.next();
    if (message.type !== 'request' || message.name !== name) throw new Error(`${name} was expected, not ${JSON.stringify(message)}`);
    const text = message.payload.text();
    return { ...message, json: (text.startsWith('{') ? JSON.parse(text) : {}) as Record<string, unknown> };
  }
}

export class Script {
  readonly peers = new Channel<Peer>();
  /** Whether questions for a sign of life are answered. */
  answers = false;
  #server: WebSocketServer;

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on('connection', (socket, { url }) => this.peers.push(new Peer(socket, url!, () => this.answers)));
  }

  static async start(): Promise<Script> {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
    await new Promise((resolve) => server.once('listening', resolve));
    return new Script(server);
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  /** The next connection, accepted. */
  async accept(): Promise<Peer> {
    const peer = await this.peers.next();
    peer.accept();
    return peer;
  }

  close(): void {
    for (const socket of this.#server.clients) socket.terminate();
    this.#server.close();
  }
}
