import { wrap } from './errors.js';

/** How messages travel. */
export type TransportKind = 'webtransport' | 'websocket';

/** How a signal may travel over WebTransport. WebSocket keeps everything in order. */
export interface Delivery {
  /** May overtake other signals and be overtaken: a lost packet holds up no more than it must. */
  unordered?: boolean;
  /** May be lost: a datagram, if it fits into one. Not sent at all while there is no connection. */
  unreliable?: boolean;
}

/**
 * Why a connection is over (appendix A.5): 0 normal, 1 the server shuts down, 2 malformed, 3 not acceptable, 4 policy or time-out,
 * 5 too big, 6 internal, 0x12 too slow (recover at once), 0x13 dismissed (do not come back), others the application's; `undefined`:
 * lost without a word.
 */
export interface Ended {
  code: number | undefined;
  reason: string;
}

export const enum CloseCode {
  Normal = 0,
  Malformed = 2,
  NotAcceptable = 3,
  Policy = 4,
  TooBig = 5,
  /** The server has dropped a client that did not keep up. */
  TooSlow = 0x12,
  /** The client is not to come back by itself. */
  Dismissed = 0x13,
}

/** A request's payload that is sent piece by piece, without ever being whole in memory. */
export interface Body {
  size: number;
  stream: () => ReadableStream<Uint8Array>;
  /** It cannot be read a second time. */
  isOnce: boolean;
}

/** A body that is being read. */
export class Source {
  #body: Body;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;

  constructor(body: Body) {
    this.#body = body;
  }

  /**
   * The next piece; `undefined` at the end.
   *
   * @throws WireloomError of kind `invalid` for whatever goes wrong.
   */
  async read(): Promise<Uint8Array | undefined> {
    try {
      this.#reader ??= this.#body.stream().getReader();
      return (await this.#reader.read()).value;
    } catch (error) {
      throw wrap('invalid', error, 'no payload: ');
    }
  }

  /** Reads no more: what is being waited for is the end. */
  cancel(): void {
    this.#reader?.cancel().catch(() => {});
  }
}

/** Whole messages over something. */
export abstract class Link {
  abstract readonly kind: TransportKind;
  /** The session beneath, where it is one. */
  readonly webTransport?: WebTransport;
  /** Whether requests have streams of their own. */
  readonly canStream: boolean = false;
  /** Whether there is one for another request now. */
  abstract readonly hasStream: boolean;
  /** The largest message that is taken, in bytes. What comes in one piece with the first message, which says it, may be as large. */
  limit = Infinity;
  #onMessage: ((message: Uint8Array) => void) | undefined;
  #onEnd: (ended: Ended) => void = () => {};
  /** What came before anybody listened: the server speaks first, and transports are compared before one is taken. */
  #early: Uint8Array[] = [];
  #ended: Ended | undefined;

  /** Whether it is over, for this end at least. */
  protected get isOver(): boolean {
    return this.#ended !== undefined;
  }

  /** Hands on what came and comes; without `onMessage` it is kept. `onEnd` is called once, unless `close` was called before. */
  listen(onMessage: ((message: Uint8Array) => void) | undefined, onEnd: (ended: Ended) => void): void {
    this.#onMessage = onMessage;
    this.#onEnd = onEnd;
    if (onMessage) for (const message of this.#early.splice(0)) onMessage(message);
    if (this.#ended) onEnd(this.#ended);
  }

  protected deliver(message: Uint8Array): void {
    if (this.#ended) return;
    if (this.#onMessage) this.#onMessage(message);
    else this.#early.push(message);
  }

  /** Answers whether it was open. `isOurs`: nobody is told. */
  protected end(ended: Ended, isOurs = false): boolean {
    if (this.#ended) return false;
    this.#ended = ended;
    if (!isOurs) this.#onEnd(ended);
    return true;
  }

  /** In order, after everything that was sent this way. */
  abstract send(message: Uint8Array): void;
  /**
   * On a stream of its own, where there are such: answers how to give the request up. `body` follows the message. `isUnsent`: there
   * is no stream, and the body has not been touched.
   */
  request?(message: Uint8Array, failed: (why: unknown, isUnsent?: boolean) => void, body?: Body): (() => void) | undefined;
  /** Beside the others; `false` if there is no other way. */
  signal?(message: Uint8Array, delivery: Delivery): boolean;
  /** `null` if it takes more now, else when it does. */
  abstract ready(): Promise<void> | null;
  /** Says good-bye if there is anybody to hear it. */
  abstract close(code: number, reason: string): void;
}
