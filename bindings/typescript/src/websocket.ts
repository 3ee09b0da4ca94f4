// A message is a binary WebSocket message (section 5).

import { describe, WireloomError } from './errors.js';
import { CloseCode, Link } from './link.js';

/** What is used of a WebSocket: browsers', Deno's, Node's from version 22, and the package `ws`. */
export interface WebSocketLike {
  binaryType: string;
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string) => WebSocketLike;

/** Bytes that may wait before senders do. */
const HIGH_WATER = 1 << 20;

/** Close codes from 1000 (RFC 6455 section 7.4) as {@link Ended} has them. */
const CODES: Record<number, number> = { 1000: 0, 1001: 1, 1002: 2, 1003: 3, 1005: 0, 1007: 2, 1008: 4, 1009: 5, 1011: 6, 1013: CloseCode.TooSlow, 4019: CloseCode.Dismissed };

/**
 * Opens one. `abort` gives it up.
 *
 * @throws WireloomError of kind `unreachable`; the constructor's own for a URL that is none.
 */
export async function openWebSocket(url: string, Constructor: WebSocketConstructor, abort: AbortSignal): Promise<Link> {
  const socket = new Constructor(url);
  const link = new WebSocketLink(socket);
  let giveUp = () => {};
  try {
    await new Promise<void>((resolve, reject) => {
      const fail = (why: string) => {
        reject(new WireloomError('unreachable', `no WebSocket: ${why}`));
      };
      socket.onopen = () => {
        resolve();
      };
      // A close event comes after it.
      socket.onerror = (event: { message?: string }) => {
        if (event.message) fail(event.message);
      };
      link.listen(undefined, ({ reason }) => {
        fail(reason || 'it was refused');
      });
      giveUp = () => {
        fail(describe(abort.reason));
        socket.close();
      };
      abort.addEventListener('abort', giveUp);
    });
  } finally {
    abort.removeEventListener('abort', giveUp);
  }
  return link;
}

class WebSocketLink extends Link {
  readonly kind = 'websocket';
  readonly hasStream = false;
  #socket: WebSocketLike;
  #waiting: Promise<void> | null = null;

  constructor(socket: WebSocketLike) {
    super();
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onmessage = ({ data }: { data: unknown }) => {
      // A text message is none; the connection finds that malformed.
      this.deliver(data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array());
    };
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
      this.end({ code: code === 1006 ? undefined : (CODES[code] ?? code), reason });
    };
  }

  send(message: Uint8Array): void {
    // After the end nothing is sent.
    this.#socket.send(message as Uint8Array<ArrayBuffer>);
  }

  ready(): Promise<void> | null {
    if (this.#socket.bufferedAmount < HIGH_WATER) return null;
    // There is no event for it.
    this.#waiting ??= new Promise((resolve) => {
      const look = setInterval(() => {
        if (this.#socket.bufferedAmount >= HIGH_WATER / 2 && !this.isOver) return;
        clearInterval(look);
        this.#waiting = null;
        resolve();
      }, 20);
    });
    return this.#waiting;
  }

  close(code: number, reason: string): void {
    // Pages may say 1000 and codes from 3000, and reasons of 123 bytes.
    if (this.end({ code, reason }, true)) this.#socket.close(code === CloseCode.Normal ? 1000 : 4000 + code, reason.slice(0, 40));
  }
}
