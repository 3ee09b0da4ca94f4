// WebTransport that is made up, because Node has none: what a server, a network or a browser does with it is the test's to say.
import { decode } from '../src/codec.js';
import type { Message } from '../src/codec.js';
import { frame, Unframer } from '../src/framing.js';
import type { WebTransportConstructor } from '../src/index.js';

export const never = new Promise<never>(() => {});
export const after = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));

/** A bidirectional stream, as the peer has it. */
export class Stream {
  /** What came, as Latin-1. */
  text = '';
  /** Whole messages of it. */
  readonly heard: Message[] = [];
  isFinished = false;
  /** Why the client does not want to read any more, or reset its half. */
  stopped: unknown;
  reset: unknown;
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
  #reader!: ReadableStreamDefaultController<Uint8Array>;
  #writer!: WritableStreamDefaultController;

  constructor() {
    const unframer = new Unframer();
    this.readable = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#reader = controller;
      },
      cancel: (why) => {
        this.stopped = why ?? 'stopped';
      },
    });
    this.writable = new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#writer = controller;
      },
      write: (bytes) => {
        this.text += Buffer.from(bytes).toString('latin1');
        for (const message of unframer.push(bytes, Infinity)) this.heard.push(decode(message)!);
      },
      close: () => {
        this.isFinished = true;
      },
      abort: (why) => {
        this.reset = why ?? 'reset';
      },
    });
  }

  /** As they are, without a length. */
  write(bytes: Uint8Array): void {
    this.#reader.enqueue(bytes);
  }

  say(message: string | Uint8Array): void {
    this.write(frame(typeof message === 'string' ? bytesOf(message) : message));
  }

  finish(): void {
    this.#reader.close();
  }

  /** As when the session is lost. */
  fail(why: Error): void {
    this.#writer.error(why);
    try {
      this.#reader.error(why);
    } catch {
      // It has ended.
    }
  }
}

export interface Session {
  url: string;
  options: object;
  /** By the client. */
  isClosed: boolean;
  closedWith: { closeCode?: number; reason?: string } | undefined;
  /** By the server, with a code. */
  end: (closeCode: number, reason: string) => void;
  /** By nobody: `closed` rejects. */
  lose: () => void;
  /** What came on the control stream. */
  readonly control: string;
  /** The control stream, and those of requests. */
  streams: Stream[];
  datagrams: number;
  /** A datagram of the server's. */
  datagram: (hex: string) => void;
  /** A unidirectional stream of the server's. */
  incoming: (stream: ReadableStream<Uint8Array>) => void;
}

/** What became of each session of the newest constructor. */
export const sessions: Session[] = [];

export interface FakeOptions {
  /** What the server says first, framed, in hexadecimal digits. */
  first?: string;
  /** A unidirectional stream of the client's. */
  stream?: () => Promise<unknown>;
  /** Waited for before each stream of a request: rejects where there may be none. */
  request?: () => Promise<void>;
  /** Called for each session as soon as it is made. */
  made?: (session: Session) => void;
}

/** Sessions that get ready, or not, as `ready` says; a ready one says what a server says first. */
export function fake(
  ready: () => Promise<void>,
  { first = '0b17020060ea000000200000', stream = () => never, request = () => Promise.resolve(), made }: FakeOptions = {},
): WebTransportConstructor {
  sessions.length = 0;
  class Fake {
    readonly ready: Promise<void>;
    readonly closed: Promise<object>;
    readonly incomingUnidirectionalStreams: ReadableStream<unknown>;
    readonly datagrams: object;
    #session: Session;
    #settle!: { resolve: (info: object) => void; reject: (why: Error) => void };
    constructor(url: string, options: object) {
      this.closed = new Promise((resolve, reject) => {
        this.#settle = { resolve, reject };
      });
      const streams: Stream[] = [];
      const session: Session = {
        url,
        options,
        isClosed: false,
        closedWith: undefined,
        end: (closeCode, reason) => {
          this.#settle.resolve({ closeCode, reason });
          this.#fail();
        },
        lose: () => {
          this.#settle.reject(new Error('lost'));
          this.#fail();
        },
        get control() {
          return streams[0]?.text ?? '';
        },
        streams,
        datagrams: 0,
        datagram: () => {},
        incoming: () => {},
      };
      this.#session = session;
      this.incomingUnidirectionalStreams = new ReadableStream({
        start: (controller) => {
          session.incoming = (stream) => {
            controller.enqueue(stream);
          };
        },
      });
      const readable = new ReadableStream({
        start: (controller) => {
          session.datagram = (hex) => {
            controller.enqueue(bytesOf(hex));
          };
        },
      });
      const writable = new WritableStream({ write: () => never }, { highWaterMark: 1, size: () => (session.datagrams++, 1) });
      this.datagrams = { readable, writable, maxDatagramSize: 1000 };
      sessions.push(session);
      made?.(session);
      this.ready = ready();
    }
    #fail(): void {
      for (const stream of this.#session.streams) stream.fail(new Error('the session is over'));
    }
    async createBidirectionalStream() {
      const { streams } = this.#session;
      const isFirst = streams.length === 0;
      if (!isFirst) await request();
      const stream = new Stream();
      streams.push(stream);
      if (isFirst && first) stream.write(bytesOf(first));
      return stream;
    }
    createUnidirectionalStream() {
      return stream();
    }
    close(info = {}) {
      if (this.#session.isClosed) return;
      this.#session.isClosed = true;
      this.#session.closedWith = info;
      this.#settle.resolve(info);
      this.#fail();
    }
  }
  return Fake as unknown as WebTransportConstructor;
}
