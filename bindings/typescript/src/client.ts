import { BACKOFF, later, pause, sleep } from './backoff.js';
import type { Backoff } from './backoff.js';
import { checkName } from './codec.js';
import { Connection, disconnected, NOTHING } from './connection.js';
import type { Call, ConnectionSettings } from './connection.js';
import { Data, isA } from './data.js';
import type { Payload } from './data.js';
import { Dialer, linked } from './dial.js';
import { describe, WireloomError, wrap } from './errors.js';
import { concat } from './framing.js';
import type { Body, Delivery, Ended, Link, TransportKind } from './link.js';
import { CloseCode, Source } from './link.js';
import type { ClientOptions, RequestOptions } from './options.js';
import type {
  EventName,
  EventPayload,
  Protocol,
  RequestName,
  RequestPayload,
  RequestReply,
  SignalName,
  SignalPayload,
  TopicName,
  TopicPayload,
} from './protocol.js';
import { Memory, parseSession } from './session.js';
import type { Session } from './session.js';
import { guard } from './subscription.js';
import { Topic, Topics } from './topics.js';
import { onWake } from './wake.js';
import type { WebSocketConstructor } from './websocket.js';
import type { WebTransportConstructor } from './webtransport.js';

/** Where a client is. */
export type ClientState =
  | { status: 'connecting'; failures: number; error: WireloomError | null }
  | { status: 'connected'; transport: TransportKind }
  | { status: 'closed'; error: WireloomError | null };

/** A publication whose key the server has forgotten may be published twice: it is repeated for less than its two minutes. */
const REPEAT_MS = 110_000;
/** How long WebTransport may take where WebSocket works; and how long what is under way on WebSocket then holds up the change. */
const RETURN_TIMEOUT_MS = 5_000;
const QUIESCE_MS = 2_000;
const LONGEST_RETURN_MS = 600_000;

interface Waiting {
  token: number;
  send: (connection: Connection) => void;
  fail: (error: WireloomError) => void;
  call?: Call;
}

/**
 * A client of one server, over as many connections as it takes. It connects at once and goes on trying until it is closed, or the
 * server says that it speaks something else. Requests and signals may be made at once: they wait.
 *
 * `P` says what the application's names carry: see {@link Protocol}.
 */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- every name, any payload
export class Client<P extends Protocol = any> {
  #options: ClientOptions;
  #settings: ConnectionSettings;
  #backoff: Backoff;
  #memory: Memory;
  #dialer: Dialer;
  #topics: Topics;
  #connection: Connection | null = null;
  #state: ClientState = { status: 'connecting', failures: 0, error: null };
  #session: Session | null = null;
  /** While the session of an earlier page is being read. */
  #remembering: Promise<void> | null = null;
  #handlers = new Map<string | null, Set<(message: Data, name: string) => void>>();
  #stateListeners = new Set<(state: ClientState) => void>();
  #sessionListeners = new Set<(session: Session | null) => void>();
  /** In the order of their tokens. */
  #waiting: Waiting[] = [];
  /** Calls and signals that have not ended. */
  #pending = 0;
  #lastToken = 0;
  /** How to give up each call, wherever it is: on a connection, waiting for one, or having its body read. */
  #calls = new Set<(error: unknown) => void>();
  /** Connections that were left for a better one, while they answer what they were asked. */
  #left = new Set<Connection>();
  /** What is waited for before more is sent. */
  #room: Promise<void> | null = null;
  /** Nothing new is sent: what was sent before must arrive first. */
  #isHeld = false;
  /** How many attempts the connection took, and since when it is. */
  #failures = 0;
  #since = 0;
  #close = new AbortController();
  /** Ends the pause before the next attempt. */
  #wakeUp: (() => void) | null = null;
  /** Whether there was a reason to wake up since the attempt has begun. */
  #woken = false;
  #returnMs: number;
  #returnTimer: ReturnType<typeof setTimeout> | undefined;
  #returning = false;

  /**
   * `url`: `https:` for WebTransport and WebSocket at the same address, `wss:` or `ws:` for WebSocket alone. In a page it may be
   * relative to the page's.
   *
   * @throws TypeError for a URL that is none, WireloomError of kind `invalid` where there is no transport for it.
   */
  constructor(url: string | URL, options: ClientOptions = {}) {
    const global = globalThis as { location?: Location; WebTransport?: unknown; WebSocket?: unknown };
    const address = new URL(url, global.location?.href);
    const isSecure = address.protocol === 'https:';
    const hashes = options.certificateHashes ?? [];
    this.#options = options;
    this.#settings = {
      subProtocol: options.subProtocol ?? '',
      silenceMs: options.silenceMs ?? 20_000,
      patienceMs: options.patienceMs ?? 8_000,
    };
    this.#backoff = { ...BACKOFF, ...options.backoff };
    this.#returnMs = options.returnMs ?? 15_000;
    this.#memory = new Memory(options.storage, address.href);
    const WebTransport = options.WebTransport === undefined ? global.WebTransport : options.WebTransport;
    this.#dialer = new Dialer(
      {
        webTransportUrl: isSecure ? address.href : undefined,
        webSocketUrl:
          options.webSocketUrl === null
            ? undefined
            : new URL(options.webSocketUrl ?? address, address).href.replace(/^http/, 'ws'),
        WebTransport: (WebTransport ?? undefined) as WebTransportConstructor | undefined,
        WebSocket: options.WebSocket ?? (global.WebSocket as WebSocketConstructor | undefined),
        hashes: () => (typeof hashes === 'function' ? hashes() : hashes),
        query: options.query ?? (() => ({})),
        fallbackMs: options.fallbackMs ?? 2_000,
      },
      this.#memory,
    );
    if (!this.#dialer.has('webtransport') && !this.#dialer.has('websocket')) {
      throw new WireloomError('invalid', `nothing here can connect to ${address.href}: pass a WebSocket`);
    }
    this.#topics = new Topics({
      request: (name, payload, repeats, options) =>
        this.#call('request', name, payload, { ...options, idempotent: repeats, prompt: true, isTopic: true }),
      signal: (name, payload, delivery) => this.#signal(name, payload, delivery),
    });
    onWake(() => {
      this.wake();
    }, this.#close.signal);
    this.#remembering = this.#memory.session().then((session) => {
      this.#session = session;
      this.#remembering = null;
    });
    void this.#start();
  }

  // --- What the application sees

  /** Where it is now. */
  get state(): ClientState {
    return this.#state;
  }

  /** Which transport it is on; `null` while it is on none. */
  get transport(): TransportKind | null {
    return this.#connection?.link.kind ?? null;
  }

  /** The WebTransport session beneath, where it is one: for its datagram statistics and congestion. Streams on it are the client's. */
  get webTransport(): WebTransport | null {
    return this.#connection?.link.webTransport ?? null;
  }

  /** The session that the server has made for this client. It may not be restored yet. */
  get session(): Session | null {
    return this.#session;
  }

  /** Calls `listener` with every change of state. Answers how to stop. */
  onState(listener: (state: ClientState) => void): () => void {
    return listen(this.#stateListeners, listener);
  }

  /** Calls `listener` when the server made or restored a session, and with `null` when there is none any more. */
  onSession(listener: (session: Session | null) => void): () => void {
    return listen(this.#sessionListeners, listener);
  }

  /** Calls `handler` for each signal of this name, in order. Answers how to stop. One that throws is reported, and no more. */
  on<N extends EventName<P>>(name: N, handler: (message: Data<EventPayload<P, N>>, name: string) => void): () => void {
    return this.#on(name, handler as (message: Data, name: string) => void);
  }

  /** Calls `handler` for each signal whose name has no handler of its own. */
  onAny(handler: (message: Data, name: string) => void): () => void {
    return this.#on(null, handler);
  }

  /** Waits until it is connected. Rejects with the error that closed it. */
  async connected(): Promise<void> {
    while (this.#state.status !== 'connected') {
      if (this.#state.status === 'closed') throw this.#closedError();
      await new Promise<void>((resolve) => {
        const stop = this.onState(() => {
          stop();
          resolve();
        });
      });
    }
  }

  /**
   * Sends a request and waits for the reply. A `Blob`, or a `ReadableStream` of known `size`, travels as binary on a stream of its own
   * over WebTransport, without being whole in memory. Nothing may be larger than the server's message buffer.
   *
   * @throws WireloomError; the signal's reason if it was aborted.
   */
  async request<N extends RequestName<P>>(
    name: N,
    payload?: Payload<RequestPayload<P, N>> | Blob | ReadableStream<Uint8Array>,
    options: RequestOptions = {},
  ): Promise<Data<RequestReply<P, N>>> {
    checkName(name);
    const body = bodyOf(payload, options.size);
    const reply = await this.#call('request', name, body ? NOTHING : Data.of(payload), { ...options, ...(body && { body }) });
    return reply as Data<RequestReply<P, N>>;
  }

  /** Sends a signal. Resolves when it is on its way, which is not to say that it arrives. While there is no connection it waits. */
  async signal<N extends SignalName<P>>(name: N, payload?: Payload<SignalPayload<P, N>>, delivery: Delivery = {}): Promise<void> {
    checkName(name);
    await this.#signal(name, Data.of(payload), delivery);
  }

  /** A topic. Nothing is sent before it is used. */
  topic<N extends TopicName<P>>(name: N): Topic<TopicPayload<P, N>> {
    return new Topic(this.#topics, name);
  }

  /** Takes up the session of this key, in the place of the one that there is. */
  async restoreSession(key: string, options?: RequestOptions): Promise<Session> {
    const session = parseSession((await this.#call('restoreSession', key, NOTHING, { ...options })).text());
    void this.#setSession(session);
    return session;
  }

  /** Closes the session; the server destroys it if no other connection has it. */
  async closeSession(options?: RequestOptions): Promise<void> {
    if (this.#remembering) await this.#remembering;
    if (!this.#session) return;
    // The server destroys it with the last connection that gives it up, and these have it, too.
    for (const connection of this.#left) void connection.closeSession();
    await this.#call('closeSession', '', NOTHING, { ...options });
    await this.#setSession(null);
  }

  /** Looks at once whether there is a connection, instead of waiting. Called by itself when the page is seen or online again. */
  wake(): void {
    this.#wakeUp?.();
    const connection = this.#connection;
    if (!connection) {
      this.#woken = true;
      return;
    }
    void connection.probe();
    if (connection.link.kind === 'websocket') {
      this.#returnMs = this.#options.returnMs ?? 15_000;
      this.#planReturn(Math.min(this.#returnMs, 1_000));
    }
  }

  /** Ends the connection and the client. What waits is rejected. The session stays, and may be restored by another client. */
  close(): void {
    this.#finish(null);
  }

  // --- Requests and signals

  #call(
    kind: Call['kind'],
    name: string,
    payload: Data,
    options: RequestOptions & { isTopic?: boolean; body?: Body },
  ): Promise<Data> {
    const { signal, timeoutMs = this.#options.requestTimeoutMs ?? 60_000, body } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) throw signal.reason as Error;
      this.#admit();
      let timer: ReturnType<typeof setTimeout> | undefined;
      const end = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        this.#pending--;
        this.#calls.delete(giveUp);
        call.isOver = true;
        // A stream that nobody has begun to read; another's reader has it.
        if (call.body?.isOnce) call.body.stream().cancel().catch(() => {});
        call.resolve = call.reject = () => {};
      };
      const call: Call = {
        token: ++this.#lastToken,
        kind,
        name,
        payload,
        ...(body && { body }),
        idempotent: options.idempotent ?? false,
        isPrompt: options.prompt ?? false,
        isTopic: options.isTopic ?? false,
        resolve: (reply) => {
          end();
          resolve(reply);
        },
        reject: (error) => {
          if (this.#mayRepeat(call, error)) return;
          end();
          reject(error);
        },
      };
      const giveUp = (error: unknown) => {
        // Those that have waited longest are the first whose time is up.
        const at = this.#waiting.findIndex((waiting) => waiting.call === call);
        if (at >= 0) this.#waiting.splice(at, 1);
        call.cancel?.();
        end();
        reject(error);
      };
      const abort = () => {
        giveUp(signal?.reason);
      };
      this.#calls.add(giveUp);
      signal?.addEventListener('abort', abort);
      if (timeoutMs < 2 ** 31) {
        timer = setTimeout(() => {
          giveUp(new WireloomError('timeout', `no reply to ${name} within ${timeoutMs} ms`));
        }, timeoutMs);
      }
      this.#enqueue(call);
      // The caller may use the buffer for something else.
      if (!call.isOver && (call.idempotent || call.sentAt === undefined)) call.payload = call.payload.copy();
    });
  }

  /** Over this connection, or the next. */
  #enqueue(call: Call): void {
    // While its body was being read.
    if (call.isOver) return;
    this.#push({
      token: call.token,
      call,
      send: (connection) => {
        // Of topics' calls only publications are sent again.
        if (call.isTopic && call.sentAt !== undefined && Date.now() - call.sentAt > REPEAT_MS) {
          call.idempotent = false;
          call.reject(new WireloomError('unknownOutcome', 'it was repeated for as long as the server remembers it'));
        } else if (call.body && !(connection.link.hasStream && call.body.size < Infinity)) {
          void this.#readBody(call, call.body, connection.link.limit);
        } else {
          connection.call(call);
        }
      },
      fail: (error) => {
        call.idempotent = false;
        call.reject(error);
      },
    });
  }

  /** Where a body cannot be streamed it is read first, up to what the server takes. */
  async #readBody(call: Call, body: Body, limit: number): Promise<void> {
    delete call.body;
    const parts: Uint8Array[] = [];
    let size = 0;
    try {
      const source = new Source(body);
      call.cancel = () => {
        source.cancel();
      };
      for (let piece; (piece = await source.read()); ) {
        parts.push(piece);
        size += piece.length;
        if (size <= limit) continue;
        source.cancel();
        throw new WireloomError('tooLarge', `the payload is larger than the server's message buffer of ${limit} bytes`);
      }
      call.payload = new Data('binary', concat(parts));
      this.#enqueue(call);
    } catch (error) {
      call.reject(error);
    }
  }

  /** Whether a call that the server did not take, or whose connection is lost, is to be sent again. */
  #mayRepeat(call: Call, error: unknown): boolean {
    if (!call.idempotent || call.body?.isOnce || !(error instanceof WireloomError)) return false;
    if (error.kind !== 'disconnected' && error.kind !== 'shutdown') return false;
    this.#enqueue(call);
    return true;
  }

  #signal(name: string, payload: Data, delivery: Delivery): Promise<void> {
    return new Promise((resolve, reject) => {
      if (delivery.unreliable && !this.#connection && this.#state.status !== 'closed') {
        // Stale by then.
        resolve();
        return;
      }
      this.#admit();
      let [data, isSent] = [payload, false];
      this.#push({
        token: ++this.#lastToken,
        send: (connection) => {
          this.#pending--;
          isSent = true;
          try {
            connection.signal(name, data, delivery);
            resolve();
          } catch (error) {
            reject(error);
          }
        },
        fail: (error) => {
          this.#pending--;
          reject(error);
        },
      });
      // As with requests.
      if (!isSent) data = payload.copy();
    });
  }

  #admit(): void {
    if (this.#state.status === 'closed') throw this.#closedError();
    if (this.#pending >= (this.#options.maxPending ?? 10_000)) {
      throw new WireloomError('queueFull', `${this.#pending} requests and signals wait already`);
    }
    this.#pending++;
  }

  #push(waiting: Waiting): void {
    let at = this.#waiting.length;
    while (at > 0 && this.#waiting[at - 1]!.token > waiting.token) at--;
    this.#waiting.splice(at, 0, waiting);
    this.#flush();
  }

  #flush(): void {
    const connection = this.#connection;
    if (!connection || this.#isHeld) return;
    // What a server that shuts down does not take waits for one that has time.
    while (this.#waiting.length > 0 && this.#connection === connection && !connection.isDraining) {
      const room = connection.link.ready();
      if (room) {
        // Once, however much comes meanwhile.
        if (room !== this.#room) {
          void room.then(() => {
            this.#flush();
          });
        }
        this.#room = room;
        break;
      }
      this.#waiting.shift()!.send(connection);
    }
  }

  // --- Connections

  async #start(): Promise<void> {
    await this.#remembering;
    await this.#dialer.remember();
    await this.#connect(0);
  }

  /** Tries until there is a connection, or an error that trying again does not mend. */
  async #connect(failed: number): Promise<void> {
    let failures = failed;
    this.#woken = false;
    for (;;) {
      // A listener may have closed it.
      if (this.#close.signal.aborted) return;
      // An attempt that has begun before may have failed for what is over now.
      if (failures > 0 && (this.#woken || (await this.#rest(pause(this.#backoff, failures - 1, Math.random()))))) failures = 1;
      if (this.#close.signal.aborted) return;
      this.#woken = false;
      try {
        const { connectTimeoutMs = 10_000 } = this.#options;
        this.#adopt(await this.#attempt((abort) => this.#dialer.dial(failures, abort), connectTimeoutMs), failures);
        return;
      } catch (caught) {
        // A constructor throws TypeErrors and the like for URLs and hashes that are none.
        const error = wrap('invalid', caught);
        if (this.#close.signal.aborted) return;
        if (['rejected', 'invalid', 'dismissed'].includes(error.kind)) {
          this.#finish(error);
          return;
        }
        failures++;
        this.#setState({ status: 'connecting', failures, error });
      }
    }
  }

  /** Waits; answers whether it was woken before the time was up. */
  #rest(ms: number): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (woken: boolean) => {
        clearTimeout(timer);
        this.#wakeUp = null;
        resolve(woken);
      };
      const timer = later(() => {
        end(false);
      }, ms);
      this.#wakeUp = () => {
        end(true);
      };
    });
  }

  /** One attempt, to the restored session. */
  async #attempt(dial: (abort: AbortSignal) => Promise<Link>, timeoutMs: number): Promise<Connection> {
    const abort = linked(this.#close.signal);
    const timer = later(() => {
      abort.abort(new WireloomError('unreachable', `no connection within ${timeoutMs} ms`));
    }, timeoutMs);
    try {
      const link = await dial(abort.signal);
      // A transport may have opened meanwhile that waited for a better one.
      if (abort.signal.aborted) {
        link.close(CloseCode.Normal, '');
        throw abort.signal.reason as Error;
      }
      const connection: Connection = new Connection(link, this.#settings, {
        signal: (name, payload) => {
          this.#dispatch(connection, name, payload);
        },
        session: (session) => {
          void this.#setSession(session);
          if (session && connection.isLeft) void this.#moveSession(session);
        },
        unsent: (call) => {
          void this.#readBody(call, call.body!, link.limit);
        },
        end: (ended, calls) => {
          this.#lost(connection, ended, calls);
        },
      });
      const lose = () => {
        connection.lose(describe(abort.signal.reason));
      };
      abort.signal.addEventListener('abort', lose);
      const key = this.#session?.key;
      const session = await connection.open(key);
      abort.signal.removeEventListener('abort', lose);
      if (key !== undefined && this.#session?.key === key) void this.#setSession(session, true);
      return connection;
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
  }

  /** @throws WireloomError if it is lost already. */
  #adopt(connection: Connection, failures: number): void {
    if (this.#close.signal.aborted) {
      connection.close();
      return;
    }
    // Its end was told to nobody who would connect again.
    if (connection.isOver) throw disconnected({ code: undefined, reason: '' });
    this.#connection = connection;
    this.#failures = failures;
    this.#since = Date.now();
    this.#topics.connected();
    this.#setState({ status: 'connected', transport: connection.link.kind });
    this.#flush();
    this.#planReturn(this.#returnMs);
  }

  #lost(connection: Connection, ended: Ended, calls: Call[]): void {
    const isCurrent = connection === this.#connection;
    const error = disconnected(ended);
    if (isCurrent) {
      this.#connection = null;
      clearTimeout(this.#returnTimer);
      this.#topics.disconnected();
    }
    for (const call of calls) call.reject(error);
    // Over whichever connection.
    if (error.kind === 'dismissed') this.#finish(error);
    if (!isCurrent || this.#close.signal.aborted) return;
    const wasStable = Date.now() - this.#since >= this.#backoff.stableMs;
    // A client that did not keep up comes back at once, and recovers: unless it never does.
    const failures = !wasStable ? this.#failures + 1 : ended.code === CloseCode.TooSlow ? 0 : 1;
    this.#setState({ status: 'connecting', failures, error });
    void this.#connect(failures);
  }

  #dispatch(connection: Connection, name: string, payload: Data): void {
    // What the subscriptions of a connection that was left say comes again over the next.
    if (name.startsWith('$') && (connection.isLeft || this.#topics.handle(name, payload))) return;
    tell(this.#handlers.get(name) ?? this.#handlers.get(null), payload, name);
  }

  #on(name: string | null, handler: (message: Data, name: string) => void): () => void {
    const handlers = this.#handlers.get(name) ?? new Set();
    this.#handlers.set(name, handlers);
    const stop = listen(handlers, handler);
    return () => {
      stop();
      // It may have been called before, and others have come since.
      if (handlers.size === 0 && this.#handlers.get(name) === handlers) this.#handlers.delete(name);
    };
  }

  // --- Back to WebTransport

  #planReturn(ms: number): void {
    clearTimeout(this.#returnTimer);
    const mayReturn = this.#options.returnMs !== 0 && this.transport === 'websocket' && this.#dialer.has('webtransport');
    if (mayReturn) this.#returnTimer = later(() => void this.#return(), ms);
  }

  /** Tries WebTransport beside the WebSocket, and changes over without a gap. */
  async #return(): Promise<void> {
    const old = this.#connection;
    if (this.#returning || old?.link.kind !== 'websocket') return;
    this.#returning = true;
    // Unless this try is successful: what handlers are busy with may take long, too, and each time all else waits.
    this.#returnMs = Math.min(this.#returnMs * 2, LONGEST_RETURN_MS);
    const key = this.#session?.key;
    try {
      const connection = await this.#attempt((abort) => this.#dialer.webTransport(abort), RETURN_TIMEOUT_MS);
      // What was sent before the change is handled before what is sent after it.
      this.#isHeld = true;
      const isQuiet = await quiesce(old, QUIESCE_MS);
      this.#isHeld = false;
      // A session that was made meanwhile would be missing there.
      if (!isQuiet || this.#connection !== old || this.#session?.key !== key) {
        connection.close();
        return;
      }
      this.#adopt(connection, 0);
      this.#returnMs = this.#options.returnMs ?? 15_000;
      void this.#leave(old);
    } catch (error) {
      // As above, but for a server that wants no more of it.
      if (error instanceof WireloomError && error.kind === 'dismissed') this.#finish(error);
    } finally {
      this.#returning = false;
      this.#isHeld = false;
      this.#flush();
      // Whatever it is on now: what was due meanwhile has found this try under way.
      this.#planReturn(this.#returnMs);
    }
  }

  /** What is under way on it is still answered. */
  async #leave(old: Connection): Promise<void> {
    old.isLeft = true;
    this.#left.add(old);
    await quiesce(old, 60_000);
    this.#left.delete(old);
    for (const call of old.close()) call.reject(new WireloomError('disconnected', 'the connection was left for a better one'));
  }

  /** A connection that was left has made a session: the one in its place takes it up before anything else is sent. */
  async #moveSession({ key }: Session): Promise<void> {
    const connection = this.#connection;
    this.#isHeld = true;
    try {
      await connection?.restore(key);
    } catch {
      connection?.lose('the session could not be restored');
    }
    this.#isHeld = false;
    this.#flush();
  }

  // --- State

  #setState(state: ClientState): void {
    this.#state = state;
    tell(this.#stateListeners, state);
  }

  /** Resolves when it is stored, or forgotten. */
  async #setSession(session: Session | null, isRestored = false): Promise<void> {
    const had = this.#session;
    this.#session = session;
    if (!session && !had) return;
    const isNew = session && !isRestored;
    const stored = isNew ? this.#memory.setSession(session) : this.#updateSession((session ?? had!).key, session);
    tell(this.#sessionListeners, session);
    await stored;
  }

  /** Unless another client has stored another there, or none any more, or this one has meanwhile. */
  async #updateSession(key: string, session: Session | null): Promise<void> {
    const stored = await this.#memory.session();
    if (stored?.key === key && this.#session === session) await this.#memory.setSession(session);
  }

  #closedError(): WireloomError {
    const { error } = this.#state as { error: WireloomError | null };
    return new WireloomError('closed', error ? error.message : 'the client was closed', undefined, error ?? undefined);
  }

  #finish(error: WireloomError | null): void {
    if (this.#state.status === 'closed') return;
    this.#setState({ status: 'closed', error });
    this.#close.abort(new WireloomError('closed', 'the client was closed'));
    this.#wakeUp?.();
    clearTimeout(this.#returnTimer);
    for (const connection of [this.#connection, ...this.#left]) connection?.close();
    this.#connection = null;
    const closed = this.#closedError();
    const waits = this.#waiting.splice(0);
    for (const giveUp of this.#calls) giveUp(closed);
    // Of these the calls are over.
    for (const waiting of waits) waiting.fail(closed);
    this.#topics.closed(closed);
  }
}

function listen<A extends unknown[]>(listeners: Set<(...values: A) => void>, listener: (...values: A) => void): () => void {
  // One function may be there several times.
  const own = (...values: A) => {
    listener(...values);
  };
  listeners.add(own);
  return () => {
    listeners.delete(own);
  };
}

/** Calls those that are there now: one that is added meanwhile has its turn next time, one that is removed has none. */
function tell<A extends unknown[]>(listeners = new Set<(...values: A) => void>(), ...values: A): void {
  for (const listener of [...listeners]) if (listeners.has(listener)) guard(listener, ...values);
}

/**
 * Waits until all calls are answered and what was sent has been read, or the time is up. Answers whether nothing waits at the server:
 * a handler may still be at work, but what comes now over another connection overtakes nothing.
 */
async function quiesce(connection: Connection, ms: number): Promise<boolean> {
  const end = performance.now() + ms;
  while (connection.pending.length > 0 && performance.now() < end) await sleep(10);
  const answered = await Promise.race([connection.answers(), sleep(Math.min(ms, QUIESCE_MS))]);
  return answered || connection.pending.length === 0;
}

/** A payload that may be streamed. */
function bodyOf(payload: unknown, size: number | undefined): Body | undefined {
  if (isA('Blob', payload)) return { size: (payload as Blob).size, stream: () => (payload as Blob).stream(), isOnce: false };
  if (!isA('ReadableStream', payload)) return undefined;
  return { size: size ?? Infinity, stream: () => payload as ReadableStream<Uint8Array>, isOnce: true };
}
