import type { Backoff } from './backoff.js';
import type { CertificateHash, Query } from './dial.js';
import type { ClientStorage } from './session.js';
import type { WebSocketConstructor } from './websocket.js';
import type { WebTransportConstructor } from './webtransport.js';

export interface ClientOptions {
  /**
   * SHA-256 of the certificates that are accepted over WebTransport: for servers with certificates of their own making, of at most
   * 14 days. A function is called for each attempt, so that it can fetch the current ones. Default: those that the browser trusts.
   */
  certificateHashes?: readonly CertificateHash[] | (() => readonly CertificateHash[] | Promise<readonly CertificateHash[]>);
  /**
   * Called for each attempt, of each transport: what it answers is put into the URL's query. For tokens that expire: browsers send no
   * headers of an application's own. If it fails the attempt has failed, and is repeated.
   */
  query?: () => Query | Promise<Query>;
  /** Where WebSocket connects. Default: the same URL with `wss:`. `null`: never. */
  webSocketUrl?: string | null;
  /** Default: the global one. Node 20 has none: pass that of the package `ws`. */
  WebSocket?: WebSocketConstructor;
  /** Default: the global one. `null`: never. */
  WebTransport?: WebTransportConstructor | null;
  /** How long WebTransport may take before WebSocket is taken in its place, in ms. Default 2 000. */
  fallbackMs?: number;
  /**
   * On WebSocket, how long until WebTransport is tried again beside it, in ms; the pause doubles up to ten minutes while that fails.
   * It is tried early when the network changes. 0: never. Default 15 000.
   */
  returnMs?: number;
  /** What is spoken on top; the server must name the same. Default none. */
  subProtocol?: string;
  /** Keeps the session, and that WebSocket had to be used. Default: nothing is kept. `localStorage` shares the session between tabs. */
  storage?: ClientStorage;
  /** How long a request may take that does not say so itself, waiting for a connection included, in ms. Default 60 000. */
  requestTimeoutMs?: number;
  /** How long one attempt to connect may take, from dialling to the restored session, in ms. Default 10 000. */
  connectTimeoutMs?: number;
  /** The pauses between attempts. */
  backoff?: Partial<Backoff>;
  /**
   * How long nothing may be heard before the server is asked for a sign of life, in ms: a TCP connection may be dead for a quarter
   * of an hour before anybody is told, QUIC's for half a minute. 0: never. Default 20 000.
   */
  silenceMs?: number;
  /** How long a sign of life may take before the connection is given up, in ms. Default 8 000. */
  patienceMs?: number;
  /** How many requests and signals may wait for replies or a connection. Default 10 000. */
  maxPending?: number;
}

/** What a request may be given. */
export interface RequestOptions {
  /** Gives the request up: it rejects with the signal's reason, and over WebTransport the handler is told. */
  signal?: AbortSignal;
  /** How long it may take, from now to the reply, waiting for a connection included, in ms. `Infinity`: for ever. */
  timeoutMs?: number;
  /**
   * It does no harm if it is handled twice: sent again over the next connection if this one is lost before the reply; not so over
   * WebTransport if it is a `ReadableStream`, which is gone by then.
   */
  idempotent?: boolean;
  /**
   * Its handler answers at once. While only such requests wait, a server that says nothing for `patienceMs` is gone; otherwise, as a
   * handler may keep the server from reading on, not before a minute.
   */
  prompt?: boolean;
  /** How many bytes a `ReadableStream` that is the payload has. Without it, it is read whole before it is sent. */
  size?: number;
}
