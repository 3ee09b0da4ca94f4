// One connection, from the server's first message to its end.

import {
  decode,
  encodeCloseSession,
  encodeHeartbeat,
  encodeRequest,
  encodeRequestHeader,
  encodeRestoreSession,
  encodeSignal,
} from './codec.js';
import type { Id, Message } from './codec.js';
import { Data } from './data.js';
import { WireloomError } from './errors.js';
import type { Body, Delivery, Ended, Link } from './link.js';
import { CloseCode } from './link.js';
import { parseSession } from './session.js';
import type { Session } from './session.js';

/** A request on its way, over as many connections as it takes. */
export interface Call {
  /** Unique within the client, and growing: the order in which they were made. */
  token: number;
  kind: 'request' | 'closeSession' | 'restoreSession';
  /** A request's name, or the key of the session to restore. */
  name: string;
  payload: Data;
  body?: Body;
  /** Sent again over the next connection when this one is lost. */
  idempotent: boolean;
  /** Answered at once, by a handler that does nothing else. */
  isPrompt: boolean;
  /** Of topics: in order with what else is sent. */
  isTopic: boolean;
  /** Answered or given up: not to be sent any more. */
  isOver?: boolean;
  /** When it was sent for the first time. */
  sentAt?: number;
  /** Gives it up where it is being handled. */
  cancel?: () => void;
  resolve: (reply: Data) => void;
  reject: (error: unknown) => void;
}

export interface ConnectionEvents {
  signal(name: string, payload: Data): void;
  session(session: Session | null): void;
  /** There is no stream for a call with a body, of which nothing has been read. */
  unsent(call: Call): void;
  /** Once, with the calls that were not answered. Not after `close`. */
  end(ended: Ended, calls: Call[]): void;
}

export interface ConnectionSettings {
  subProtocol: string;
  /** How long nothing may be heard before the server is asked for a sign of life; 0: for ever. */
  silenceMs: number;
  /** How long it then may take. */
  patienceMs: number;
}

/** No key of a session has this character: the server answers that it has none, and asks no application. */
const NO_KEY = '?';
/** How long requests may wait, while nothing at all is heard, before the server is asked for a sign of life. */
const UNEASY_MS = 2_000;
const LOOK_MS = 100;
/** The patience while a handler may keep a server from reading on. */
const BUSY_PATIENCE_MS = 60_000;
/** Signals that may come before the server's first message; those beyond are lost. */
const MAX_EARLY = 100;

export const NOTHING = Data.of(undefined);
const REASONS = {
  shutdown: 'the server is shutting down',
  internal: 'the server failed',
  sessionNotFound: 'there is no such session',
  maxSessionConnections: 'the session has as many connections as it may have',
  sessionsDisabled: 'the server has no sessions',
};

export class Connection {
  readonly link: Link;
  /** Another has taken its place; what is under way on it is still answered. */
  isLeft = false;
  /** The server shuts down: it takes nothing more, and is about to end the connection. */
  isDraining = false;
  #settings: ConnectionSettings;
  #events: ConnectionEvents;
  #calls = new Map<Id, Call>();
  #lastId = 0;
  #accepted: ((error?: unknown) => void) | null = null;
  /** What has overtaken the server's first message: streams and datagrams of their own do not wait for it. */
  #early: Message[] = [];
  #heartbeatMs = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** By a clock that nobody sets. */
  #sentAt = performance.now();
  #heardAt = performance.now();
  #uneasy: ReturnType<typeof setTimeout> | undefined;
  #probing = false;
  #over = false;

  constructor(link: Link, settings: ConnectionSettings, events: ConnectionEvents) {
    this.link = link;
    this.#settings = settings;
    this.#events = events;
  }

  /**
   * Waits for the server's first message, and restores the session. Answers `null` if the server does not have it any more.
   *
   * @throws WireloomError of kind `rejected`, which is final, or another.
   */
  async open(key: string | undefined): Promise<Session | null> {
    await new Promise<void>((resolve, reject) => {
      this.#accepted = (error) => {
        if (error) reject(error);
        else resolve();
      };
      this.link.listen(
        (bytes) => {
          this.#receive(bytes);
        },
        (ended) => {
          this.#end(ended);
        },
      );
    });
    if (key === undefined) {
      // The server may tell us things as soon as it has heard of us. WebTransport's preface does not count.
      this.#send(encodeHeartbeat());
      return null;
    }
    try {
      return await this.restore(key);
    } catch (error) {
      if (error instanceof WireloomError && ['sessionNotFound', 'sessionsDisabled'].includes(error.kind)) return null;
      throw error;
    }
  }

  /** Takes up the session with this key. */
  async restore(key: string): Promise<Session> {
    return parseSession((await this.#ask('restoreSession', key)).text());
  }

  /** Gives the session up, if it is told of in time. */
  async closeSession(): Promise<void> {
    await this.#ask('closeSession', '').catch(() => {});
  }

  get isOver(): boolean {
    return this.#over;
  }

  /** The application's requests that wait for their replies. */
  get pending(): Call[] {
    return [...this.#calls.values()].filter((call) => call.token > 0);
  }

  /** Sends a request. */
  call(call: Call): void {
    const id = ++this.#lastId;
    const { kind, name, payload, body } = call;
    try {
      if (kind !== 'request') {
        this.#send(kind === 'closeSession' ? encodeCloseSession(id) : encodeRestoreSession(id, name));
      } else {
        const message = body ? encodeRequestHeader(id, name, body.size) : encodeRequest(id, name, payload);
        this.#checkSize(message.length + (body?.size ?? 0));
        const failed = (why: unknown, isUnsent = false) => {
          if (!this.#calls.delete(id)) return;
          if (isUnsent) this.#events.unsent(call);
          else call.reject(why instanceof WireloomError ? why : new WireloomError('internal', String(why)));
        };
        const cancel = call.isTopic ? undefined : this.link.request?.(message, failed, body);
        // Without a body: where there is no stream for it, the client has read it.
        if (!cancel) this.#send(message);
        this.#sentAt = performance.now();
        call.cancel = () => {
          this.#calls.delete(id);
          cancel?.();
        };
      }
      this.#calls.set(id, call);
      call.sentAt ??= Date.now();
      this.#uneasy ??= setTimeout(() => {
        this.#worry();
      }, UNEASY_MS);
    } catch (error) {
      call.reject(error);
    }
  }

  /**
   * Sends a signal.
   *
   * @throws WireloomError of kind `tooLarge` or `invalid`.
   */
  signal(name: string, payload: Data, delivery: Delivery): void {
    const message = encodeSignal(name, payload);
    this.#checkSize(message.length);
    const beside = (delivery.unordered || delivery.unreliable) && this.link.signal?.(message, delivery);
    if (!beside) this.#send(message);
    this.#sentAt = performance.now();
  }

  /** Asks for a sign of life, unless one is awaited. */
  async probe(): Promise<void> {
    if (this.#probing || this.#over) return;
    this.#probing = true;
    const asked = performance.now();
    const look = setInterval(() => {
      // A handler at work may keep the server from reading on: behind what waits for it everything else waits, on each transport.
      const isBusy = [...this.#calls.values()].some((call) => !call.isPrompt);
      const patience = isBusy ? Math.max(BUSY_PATIENCE_MS, this.#settings.patienceMs) : this.#settings.patienceMs;
      if (this.#heardAt < asked && performance.now() - asked >= patience) this.lose('the server does not answer');
    }, LOOK_MS);
    await this.answers();
    clearInterval(look);
    this.#probing = false;
  }

  /** Asks something: whether it was answered, before which everything that was sent earlier has been taken up. */
  async answers(): Promise<boolean> {
    // Any answer is one.
    await this.#ask('restoreSession', NO_KEY).catch(() => {});
    return !this.#over;
  }

  /** While there are calls. */
  #worry(): void {
    this.#uneasy = undefined;
    if (this.#calls.size === 0 || this.#over) return;
    if (performance.now() - this.#heardAt >= UNEASY_MS) void this.probe();
    this.#uneasy = setTimeout(() => {
      this.#worry();
    }, UNEASY_MS);
  }

  /** A request of its own making. */
  #ask(kind: Call['kind'], name: string): Promise<Data> {
    return new Promise((resolve, reject) => {
      this.call({ token: 0, kind, name, payload: NOTHING, idempotent: false, isPrompt: true, isTopic: true, resolve, reject });
    });
  }

  #checkSize(size: number): void {
    if (size <= this.link.limit) return;
    throw new WireloomError('tooLarge', `the message of ${size} bytes is larger than the server's message buffer of ${this.link.limit}`);
  }

  #send(message: Uint8Array): void {
    this.#checkSize(message.length);
    this.link.send(message);
    this.#sentAt = performance.now();
  }

  #receive(bytes: Uint8Array): void {
    if (this.#over) return;
    this.#heardAt = performance.now();
    const message = bytes.length <= this.link.limit && decode(bytes);
    if (!message) {
      const code = message === false ? CloseCode.TooBig : CloseCode.Malformed;
      this.#reject(code, new WireloomError('disconnected', 'the server sent what is no message'));
    } else if (this.#accepted && this.link.canStream && message.type === 'signal') {
      if (this.#early.length < MAX_EARLY) this.#early.push(message);
    } else if (message.type === 'acceptConf' ? !this.#accepted : this.#accepted) {
      this.#reject(CloseCode.Malformed, new WireloomError('rejected', "the server's messages are out of order"));
    } else {
      this.#handle(message);
    }
  }

  #handle(message: Message): void {
    switch (message.type) {
      case 'acceptConf':
        this.#accept(message);
        break;
      case 'signal':
        this.#events.signal(message.name, message.payload);
        break;
      case 'sessionCreated':
        try {
          this.#events.session(parseSession(message.session));
        } catch {
          // As if it had not been sent.
        }
        break;
      case 'sessionClosed':
        this.#events.session(null);
        break;
      case 'reply':
        this.#take(message.id)?.resolve(message.payload);
        break;
      case 'error':
        this.#take(message.id)?.reject(new WireloomError('application', message.message, message.code));
        break;
      case 'request':
      case 'closeSession':
      case 'restoreSession':
      case 'heartbeat':
        // Only clients send them.
        break;
      default:
        this.isDraining ||= message.type === 'shutdown' && this.#calls.has(message.id);
        this.#take(message.id)?.reject(new WireloomError(message.type, REASONS[message.type]));
    }
  }

  /** Nobody may wait for the reply any more: normal after a time-out. */
  #take(id: Id): Call | undefined {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }

  /** Section 8.2: what is final of what the server says first. */
  #accept(conf: Extract<Message, { type: 'acceptConf' }>): void {
    const wrong =
      conf.major !== 2
        ? `the server speaks version ${conf.major} of the protocol`
        : conf.subProtocol !== this.#settings.subProtocol
          ? `the server's sub-protocol is ${JSON.stringify(conf.subProtocol)}`
          : null;
    if (wrong) {
      this.#reject(CloseCode.NotAcceptable, new WireloomError('rejected', wrong));
      return;
    }
    this.link.limit = conf.messageBufferSize;
    // Section 7.5.
    this.#heartbeatMs = (conf.readTimeoutMs * 3) / 4;
    this.#tick();
    this.#accepted?.();
    this.#accepted = null;
    for (const message of this.#early.splice(0)) this.#handle(message);
  }

  /** Says that the client is still there, and asks whether the server is. */
  #tick(): void {
    const now = performance.now();
    const { silenceMs } = this.#settings;
    if (silenceMs > 0 && now - this.#heardAt >= silenceMs) void this.probe();
    // Also while that is awaited.
    if (this.#heartbeatMs > 0 && performance.now() - this.#sentAt >= this.#heartbeatMs) this.#send(encodeHeartbeat());
    const next = [
      this.#heartbeatMs > 0 ? this.#sentAt + this.#heartbeatMs : Infinity,
      silenceMs > 0 ? Math.max(this.#heardAt + silenceMs, now + 1000) : Infinity,
    ];
    const at = Math.min(...next);
    if (at < Infinity) this.#timer = setTimeout(() => { this.#tick(); }, Math.min(Math.max(at - now, 10), 2 ** 31 - 1));
  }

  /** The server is gone, or as good as gone. */
  lose(reason: string): void {
    if (this.#over) return;
    this.link.close(CloseCode.Policy, reason);
    this.#end({ code: undefined, reason });
  }

  #reject(code: number, error: WireloomError): void {
    this.link.close(code, error.message);
    this.#end({ code, reason: error.message }, error);
  }

  #end(ended: Ended, error?: WireloomError): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#uneasy);
    const { pending } = this;
    this.#accepted?.(error ?? disconnected(ended));
    this.#accepted = null;
    for (const call of this.#calls.values()) {
      delete call.cancel;
      if (call.token === 0) call.reject(disconnected(ended));
    }
    this.#calls.clear();
    this.#events.end(ended, pending);
  }

  /** Says good-bye. Answers the calls that wait. */
  close(): Call[] {
    const { pending } = this;
    if (!this.#over) {
      this.#events = { ...this.#events, end: () => {} };
      this.link.close(CloseCode.Normal, '');
      this.#end({ code: CloseCode.Normal, reason: 'closed by the application' });
    }
    return pending;
  }
}

export const disconnected = ({ reason, code }: Ended): WireloomError =>
  code === CloseCode.Dismissed
    ? new WireloomError('dismissed', reason)
    : new WireloomError('disconnected', reason || `the connection was closed${code === undefined ? '' : ` with code ${code}`}`);
