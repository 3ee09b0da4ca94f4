// A message is framed on a stream: on the control stream, or on one of its own (appendix A).

import { sleep } from './backoff.js';
import { encodeHeartbeat, isReply, isSignal } from './codec.js';
import { describe, WireloomError, wrap } from './errors.js';
import { concat, encodeVarint, frame, Unframer } from './framing.js';
import { CloseCode, Link, Source } from './link.js';
import type { Body, Delivery } from './link.js';

export type WebTransportConstructor = new (url: string, options?: WebTransportOptions) => WebTransport;

/** The subprotocols of profile M (a stream for each request) and profile S (one for everything). */
const PROTOCOLS = ['webwire.v2m', 'webwire.v2'];
/** Asks for profile M where there are no subprotocols: Firefox, and Chromium of old. */
const QUERY = 'wwr=2m';
/** The code of a stream whose request was given up. */
const CANCELLED = 0x10;
/** Bytes that may wait before senders do. */
const HIGH_WATER = 1 << 18;
/** Requests, and unordered signals, with a stream of their own; those beyond take the control stream. Servers allow 100 streams and more. */
const MAX_STREAMS = 64;
/** Datagrams that may wait for the browser to take them; those beyond are lost. */
const MAX_DATAGRAMS = 1024;
/** How long the end of the control stream waits for the session's, which says why; and a good-bye for its answer. */
const END_MS = 1000;

/** TypeScript's types are of an older draft. */
type Options = WebTransportOptions & { protocols?: string[] };
type Datagrams = WebTransportDatagramDuplexStream & { createWritable?: () => WritableStream<Uint8Array> };

/**
 * Opens one. `abort` gives it up.
 *
 * @throws WireloomError of kind `unreachable`; the constructor's own for a URL or a hash that is none.
 */
export async function openWebTransport(
  url: string,
  hashes: BufferSource[],
  Constructor: WebTransportConstructor,
  abort: AbortSignal,
): Promise<Link> {
  const options: Options = {};
  if (hashes.length > 0) options.serverCertificateHashes = hashes.map((value) => ({ algorithm: 'sha-256', value }));
  const negotiates = 'protocol' in (Constructor.prototype as object);
  if (negotiates) options.protocols = PROTOCOLS;
  const address = new URL(url);
  if (!negotiates) address.search += `${address.search ? '&' : '?'}${QUERY}`;
  const transport = new Constructor(address.href, options);
  // Whoever cares asks again.
  transport.closed.catch(() => {});
  const giveUp = () => {
    transport.close();
  };
  abort.addEventListener('abort', giveUp);
  try {
    await transport.ready;
    const protocol = (transport as { protocol?: string }).protocol;
    const control = await transport.createBidirectionalStream({ sendOrder: 2 });
    abort.throwIfAborted();
    return new WebTransportLink(transport, control, !negotiates || protocol === PROTOCOLS[0]);
  } catch (error) {
    giveUp();
    throw wrap('unreachable', error, 'no WebTransport: ');
  } finally {
    abort.removeEventListener('abort', giveUp);
  }
}

const ignore = () => {};

const readerOf = (stream: ReadableStream) => (stream as ReadableStream<Uint8Array>).getReader();

/** Calls `handle` with everything that comes. */
async function forEach<T>(reader: ReadableStreamDefaultReader<T>, handle: (value: T) => void): Promise<void> {
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    handle(value);
  }
}

class WebTransportLink extends Link {
  readonly kind = 'webtransport';
  override readonly webTransport: WebTransport;
  #control: WritableStreamDefaultWriter<Uint8Array>;
  #datagrams: WritableStreamDefaultWriter<Uint8Array> | undefined;
  override readonly canStream: boolean;
  #streams = 0;
  #signals = 0;
  #waitingDatagrams = 0;
  #out: Uint8Array[] = [];
  #size = 0;
  /** While something is being written. */
  #writing: Promise<void> | null = null;
  /** Resolves with the control stream's end. */
  #heardAll: Promise<unknown>;
  /** Once that has ended, until the session has. */
  #leaving: Promise<void> | null = null;

  constructor(transport: WebTransport, control: WebTransportBidirectionalStream, isMulti: boolean) {
    super();
    this.webTransport = transport;
    this.canStream = isMulti;
    this.#control = (control.writable as WritableStream<Uint8Array>).getWriter();
    // The preface: the server sees the stream with its first byte.
    this.send(encodeHeartbeat());
    transport.closed.then(
      ({ closeCode, reason }) => {
        this.end({ code: closeCode ?? CloseCode.Normal, reason: reason ?? '' });
      },
      (error: unknown) => {
        this.end({ code: undefined, reason: describe(error) });
      },
    );
    this.#heardAll = this.#read(readerOf(control.readable)).catch(ignore);
    void this.#heardAll.then(() => {
      // The server reads no more, and says why with the session's end as soon as our half of the stream has ended, too.
      this.#leaving = transport.closed.then(ignore, ignore);
      this.#finish().catch(ignore);
      setTimeout(() => { this.#cut(CloseCode.Normal, 'the control stream has ended'); }, END_MS);
    });
    if (isMulti) {
      const streams = transport.incomingUnidirectionalStreams as ReadableStream<ReadableStream>;
      forEach(streams.getReader(), (stream) => {
        // One that fails takes nothing with it.
        this.#read(readerOf(stream)).catch(ignore);
      }).catch(ignore);
      const datagrams = transport.datagrams as Datagrams;
      this.#datagrams = (datagrams.createWritable?.() ?? (datagrams.writable as WritableStream<Uint8Array>)).getWriter();
      forEach(readerOf(datagrams.readable), (message) => {
        if (isSignal(message)) this.deliver(message);
      }).catch(ignore);
    }
  }

  #cut(closeCode: number, reason: string): void {
    if (this.end({ code: closeCode === CloseCode.Normal ? undefined : closeCode, reason })) this.webTransport.close({ closeCode, reason });
  }

  /** Hands on the messages of a stream. */
  async #read(reader: ReadableStreamDefaultReader<Uint8Array>, seen: (message: Uint8Array) => void = ignore): Promise<void> {
    const unframer = new Unframer();
    try {
      await forEach(reader, (piece) => {
        for (const message of unframer.push(piece, this.limit)) {
          seen(message);
          this.deliver(message);
        }
      });
    } catch (error) {
      // Section 6.3, on whichever stream.
      if (error instanceof WireloomError) this.#cut(error.kind === 'tooLarge' ? CloseCode.TooBig : CloseCode.Malformed, error.message);
      throw error;
    }
  }

  send(message: Uint8Array): void {
    this.#out.push(encodeVarint(message.length), message);
    this.#size += message.length;
    this.#writing ??= this.#write().catch(ignore);
  }

  /** All that waits in one go, and again while more has come. If the stream has failed, `closed` says why. */
  async #write(): Promise<void> {
    // What is sent in one turn of the event loop leaves together.
    await Promise.resolve();
    try {
      while (this.#out.length > 0) {
        const bytes = concat(this.#out);
        this.#out = [];
        this.#size = 0;
        await this.#control.write(bytes);
      }
    } finally {
      this.#writing = null;
    }
  }

  /** Says no more on the control stream. */
  async #finish(): Promise<void> {
    await this.#writing;
    await this.#control.close();
  }

  ready(): Promise<void> | null {
    return this.#leaving ?? (this.#size < HIGH_WATER ? null : this.#writing);
  }

  get hasStream(): boolean {
    return this.canStream && this.#streams < MAX_STREAMS;
  }

  override request(message: Uint8Array, failed: (why: unknown, isUnsent?: boolean) => void, body?: Body): (() => void) | undefined {
    if (!this.hasStream) return undefined;
    this.#streams++;
    let cancelled = false;
    let writer: WritableStreamDefaultWriter<Uint8Array> | undefined;
    let replies: ReadableStreamDefaultReader<Uint8Array> | undefined;
    const giveUp = () => {
      cancelled = true;
      const why = streamError(CANCELLED);
      writer?.abort(why).catch(ignore);
      // A server that has read the whole request hears of it by this alone. Only its reader can cancel a stream that is being read.
      replies?.cancel(why).catch(ignore);
    };
    const exchange = async () => {
      const stream = await this.webTransport.createBidirectionalStream({ sendOrder: 1 });
      writer = (stream.writable as WritableStream<Uint8Array>).getWriter();
      replies = readerOf(stream.readable);
      if (cancelled) {
        giveUp();
        return;
      }
      let replied = false;
      const answered = this.#read(replies, (reply) => {
        replied ||= isReply(reply);
      });
      // Heard below, or of no use any more.
      answered.catch(ignore);
      if (body) await writeBody(writer, message, body);
      else await writer.write(frame(message));
      writer.close().catch(ignore);
      await answered;
      if (!replied) throw new Error('the server gave the request up');
    };
    exchange()
      .catch((error: unknown) => {
        if (cancelled) return;
        if (!writer) {
          // Chromium has reached the server's limit of streams.
          if (body) failed(error, true);
          else this.send(message);
          return;
        }
        const fail = () => {
          giveUp();
          if (!this.isOver) failed(error);
        };
        // Of the payload nothing else can tell. Else an answer that came early may still be read, and the session's end says more.
        if (error instanceof WireloomError) fail();
        else setTimeout(fail, END_MS);
      })
      .finally(() => this.#streams--);
    return giveUp;
  }

  override signal(message: Uint8Array, { unreliable }: Delivery): boolean {
    if (!this.canStream) return false;
    if (unreliable && this.#datagrams && message.length <= this.webTransport.datagrams.maxDatagramSize) {
      if (this.#waitingDatagrams >= MAX_DATAGRAMS) return true;
      this.#waitingDatagrams++;
      this.#datagrams
        .write(message)
        .catch(ignore)
        .finally(() => this.#waitingDatagrams--);
      return true;
    }
    if (this.#signals >= MAX_STREAMS) return false;
    this.#signals++;
    let stream: unknown;
    const send = async () => {
      stream = await this.webTransport.createUnidirectionalStream({ sendOrder: 0 });
      const writer = (stream as WritableStream<Uint8Array>).getWriter();
      await writer.write(frame(message));
      await writer.close();
    };
    send()
      .catch(() => {
        // As with requests.
        if (!stream) this.send(message);
      })
      .finally(() => this.#signals--);
    return true;
  }

  close(code: number, reason: string): void {
    if (!this.end({ code, reason }, true)) return;
    const close = () => {
      this.webTransport.close({ closeCode: code, reason: reason.slice(0, 300) });
    };
    if (code !== CloseCode.Normal) {
      // A peer that broke a rule is not listened to any more.
      close();
      return;
    }
    // Closing takes with it what the streams still carry, so the control stream ends first, and the server's half of it.
    Promise.race([this.#finish().then(() => this.#heardAll), sleep(END_MS)]).then(close, close);
  }
}

/** Both browsers take one argument, TypeScript knows the two of an older draft. */
function streamError(streamErrorCode: number): unknown {
  const { WebTransportError: Constructor } = globalThis as { WebTransportError?: unknown } as { WebTransportError?: new (init: object) => unknown };
  return Constructor && new Constructor({ message: 'the request was given up', streamErrorCode });
}

/** Sends what the payload's source gives, no faster than it is taken. */
async function writeBody(writer: WritableStreamDefaultWriter<Uint8Array>, header: Uint8Array, body: Body): Promise<void> {
  const source = new Source(body);
  let isBroken = false;
  // A source that gives nothing would not hear of it.
  writer.closed.catch(() => {
    isBroken = true;
    source.cancel();
  });
  let left = body.size;
  try {
    await writer.write(concat([encodeVarint(header.length + left), header]));
    for (let piece; left >= 0 && (piece = await source.read()); ) {
      left -= piece.length;
      if (left >= 0) await writer.write(piece);
    }
  } finally {
    // Of one that was not read to its end.
    source.cancel();
  }
  if (isBroken) await writer.closed;
  if (left !== 0) throw new WireloomError('invalid', `the body does not have ${body.size} bytes`);
}
