// Which transport: WebTransport first, WebSocket where it cannot connect, and what worked last before the other.

import { later } from './backoff.js';
import { describe, WireloomError, wrap } from './errors.js';
import type { Link, TransportKind } from './link.js';
import type { Memory } from './session.js';
import { openWebSocket } from './websocket.js';
import type { WebSocketConstructor } from './websocket.js';
import { openWebTransport } from './webtransport.js';
import type { WebTransportConstructor } from './webtransport.js';

/** SHA-256 of a certificate: bytes, or hexadecimal digits with or without colons. */
export type CertificateHash = BufferSource | string;

/** Names and values of a URL's query. */
export type Query = Readonly<Record<string, string>>;

export interface Endpoints {
  webTransportUrl: string | undefined;
  webSocketUrl: string | undefined;
  WebTransport: WebTransportConstructor | undefined;
  WebSocket: WebSocketConstructor | undefined;
  hashes: () => Promise<readonly CertificateHash[]> | readonly CertificateHash[];
  query: () => Promise<Query> | Query;
  /** How long WebTransport may take before WebSocket is taken in its place. */
  fallbackMs: number;
}

/** WebSocket is tried beside WebTransport after this part of the patience, so that the choice is made in time. */
const HEAD_START = 0.4;
/** How long WebSocket is tried first after it was all that worked. */
const REMEMBERED_MS = 600_000;
/**
 * After so many failures WebSocket is the scout that tells whether the server is back: Chromium delays a page's WebTransport
 * after ten failed handshakes, by up to minutes.
 */
const SCOUT_AFTER = 3;

export class Dialer {
  #endpoints: Endpoints;
  #memory: Memory;
  #webSocketSince = 0;
  #webSocketWorks = false;

  constructor(endpoints: Endpoints, memory: Memory) {
    this.#endpoints = endpoints;
    this.#memory = memory;
  }

  /** Reads what an earlier page has learnt. */
  async remember(): Promise<void> {
    this.#webSocketSince = Number(await this.#memory.get('websocket'));
    this.#webSocketWorks = this.#webSocketSince > 0;
  }

  has(kind: TransportKind): boolean {
    const { WebTransport, webTransportUrl, WebSocket, webSocketUrl } = this.#endpoints;
    return kind === 'webtransport' ? !!WebTransport && !!webTransportUrl : !!WebSocket && !!webSocketUrl;
  }

  /** One attempt with everything that there is. `failures`: how many have failed before it. */
  async dial(failures: number, abort: AbortSignal): Promise<Link> {
    const hasBoth = this.has('webtransport') && this.has('websocket');
    if (!hasBoth) return await (this.has('webtransport') ? this.webTransport(abort) : this.#webSocket(abort));
    const isFresh = Math.abs(Date.now() - this.#webSocketSince) < REMEMBERED_MS;
    const scouts = failures >= SCOUT_AFTER && this.#webSocketWorks;
    if (!isFresh && !scouts) return await this.#race(abort);
    const webSocket = this.#webSocket(abort);
    try {
      if (!isFresh) await webSocket;
    } catch (error) {
      // Where only UDP gets through.
      if (failures % 4 !== 3) throw error;
    }
    return await this.#race(abort, webSocket, isFresh);
  }

  /** WebTransport alone. */
  async webTransport(abort: AbortSignal): Promise<Link> {
    const { webTransportUrl, WebTransport, hashes } = this.#endpoints;
    const list = await ask(hashes, 'certificate hashes', abort);
    const link = await openWebTransport(await this.#url(webTransportUrl!, abort), list.map(parseHash), WebTransport!, abort);
    this.#prefer(0);
    return link;
  }

  async #webSocket(abort: AbortSignal): Promise<Link> {
    const { webSocketUrl, WebSocket } = this.#endpoints;
    const link = await openWebSocket(await this.#url(webSocketUrl!, abort), WebSocket!, abort);
    this.#webSocketWorks = true;
    return link;
  }

  async #url(address: string, abort: AbortSignal): Promise<string> {
    const url = new URL(address);
    const query = await ask(this.#endpoints.query, 'query', abort);
    for (const name in query) url.searchParams.set(name, query[name]!);
    return url.href;
  }

  #prefer(webSocketSince: number): void {
    if (webSocketSince === this.#webSocketSince) return;
    this.#webSocketSince = webSocketSince;
    void this.#memory.set('websocket', webSocketSince ? String(webSocketSince) : null);
  }

  /**
   * WebTransport, and WebSocket if it fails or takes too long; the other way round if `isFresh`. `tried` is a WebSocket that has
   * begun already.
   */
  async #race(abort: AbortSignal, tried?: Promise<Link>, isFresh = false): Promise<Link> {
    const [first, second] = [linked(abort), linked(abort)];
    const { fallbackMs } = this.#endpoints;
    const timers: ReturnType<typeof setTimeout>[] = [];
    /** Until the time is up, or the other has failed. */
    const after = (other: Promise<Link>, ms: number) =>
      Promise.race([
        other.then(
          () => new Promise<never>(() => {}),
          () => {},
        ),
        new Promise<void>((resolve) => timers.push(later(resolve, ms))),
      ]);
    const webTransport = (isFresh ? after(tried!, fallbackMs) : Promise.resolve()).then(() => this.webTransport(first.signal));
    const webSocket = tried ?? after(webTransport, fallbackMs * HEAD_START).then(() => this.#webSocket(second.signal));
    // Not before WebTransport has had its time.
    const patience = isFresh || after(webTransport, fallbackMs);
    const fallback = webSocket.then(async (link) => {
      await patience;
      return link;
    });
    let winner: Link | undefined;
    try {
      winner = await Promise.any([webTransport, fallback]);
      // WebTransport that was given up with the client, before its time was up, says nothing of the network.
      const isClosed = (abort.reason as Partial<WireloomError> | undefined)?.kind === 'closed';
      if (winner.kind === 'websocket' && !isFresh && !isClosed) this.#prefer(Date.now());
      return winner;
    } catch (error) {
      const why = (error as AggregateError).errors.map(describe).join('; ');
      throw new WireloomError('unreachable', why, undefined, error);
    } finally {
      for (const timer of timers) clearTimeout(timer);
      // Those that lost are closed whenever they open.
      first.abort();
      second.abort();
      for (const loser of [webTransport, webSocket]) {
        loser.then(
          (link) => {
            if (link !== winner) link.close(0, '');
          },
          () => {},
        );
      }
    }
  }
}

/** What the application says of this attempt; if that fails the attempt does. */
async function ask<T>(what: () => Promise<T> | T, name: string, abort: AbortSignal): Promise<T> {
  try {
    abort.throwIfAborted();
    const aborted = new Promise<never>((_, reject) => {
      abort.addEventListener('abort', () => {
        reject(abort.reason as Error);
      });
    });
    return await Promise.race([what(), aborted]);
  } catch (error) {
    throw wrap('unreachable', error, `no ${name}: `);
  }
}

/** Aborts with its parent. */
export function linked(parent: AbortSignal): AbortController {
  const controller = new AbortController();
  const abort = () => {
    controller.abort(parent.reason);
  };
  if (parent.aborted) abort();
  else parent.addEventListener('abort', abort, { signal: controller.signal });
  return controller;
}

function parseHash(hash: CertificateHash): BufferSource {
  if (typeof hash !== 'string') return hash;
  const digits = hash.replace(/[:\s]/g, '');
  if (!/^[0-9a-f]{64}$/i.test(digits)) throw new WireloomError('invalid', `${hash} is no SHA-256`);
  return Uint8Array.from(digits.match(/../g)!, (pair) => parseInt(pair, 16));
}
