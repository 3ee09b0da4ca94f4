// One subscription, over as many connections as it takes.

import { BACKOFF, pause } from './backoff.js';
import type { Backoff } from './backoff.js';
import { Data } from './data.js';
import { WireloomError, wrap } from './errors.js';
import type { Topics } from './topics.js';

/** Everything up to and including this offset has been seen. Offsets begin anew in each epoch. */
export interface Position {
  epoch: string;
  offset: number;
}

/** Somebody who is present in a topic. */
export interface Present<I = unknown> {
  /** Public; the same for all connections of a session. */
  id: string;
  /** What it joined with. */
  info: I;
}

export interface TopicMessage<T = unknown> {
  data: Data<T>;
  /** `null` for an ephemeral one. */
  offset: number | null;
  /** Its own, for `since`: to go on behind it in another page. `null` for an ephemeral one. */
  position: Position | null;
}

export interface PresenceChange {
  /** Everybody who is present now, by id. */
  here: ReadonlyMap<string, unknown>;
  /** New, or with new info. */
  joined: Present[];
  left: string[];
}

export interface SubscribeOptions<T = unknown> {
  /** How much of what was published before to begin with: a number of messages, and how old. Default: nothing. */
  history?: { count?: number; ageMs?: number } | number;
  /** Begin after this position instead, if what follows it is still there. */
  since?: Position | null;
  /** Tell of who comes and goes. */
  presence?: boolean;
  /** Be present oneself, with this info: any JSON of at most 1 KiB. */
  join?: unknown;
  /** Called for each message, in order, none twice. */
  onMessage?: (message: TopicMessage<T>) => void;
  onPresence?: (change: PresenceChange) => void;
  /** Called when messages were missed that the server does not have any more. Those of `history` follow. */
  onGap?: () => void;
  /** Called when the subscription is up to date with the server, after each connection: what was missed has been handed on. */
  onLive?: () => void;
  /** Called once if the server refuses the subscription. */
  onError?: (error: WireloomError) => void;
  /** Messages that may wait for a loop (`for await`). When it is full the subscription stands still, and recovers later. Default 10 000. */
  buffer?: number;
}

interface Subscribed {
  epoch: string;
  offset: number;
  from: number;
  recovered: boolean;
  here?: Present[];
  id?: string;
}

/** Answers that trying again does not change. */
const isFinal = ({ kind, code }: WireloomError): boolean =>
  kind === 'application' ? code !== 'TOPIC_UNAVAILABLE' : kind === 'invalid' || kind === 'tooLarge';
/** Messages that may arrive before the reply that they belong to. */
const MAX_HELD = 10_000;
const SUBSCRIBE_TIMEOUT_MS = 20_000;
/** Between renewals that bring nothing. Who comes and goes may be missed meanwhile. */
const RENEWALS: Backoff = { ...BACKOFF, maxMs: 5_000 };

interface Reader<T> {
  queue: TopicMessage<T>[];
  wake: () => void;
}

/** A subscription to a topic: see {@link Topic.subscribe}. Messages come to `onMessage`, and to each `for await` loop over it. */
export class Subscription<T = unknown> implements AsyncIterable<TopicMessage<T>> {
  readonly topic: string;
  /** What has been handed on, to loops too that have not taken it yet: to go on in another page store that of the last message. */
  position: Position | null;
  /** Everybody who is present, by id, where `presence` was asked for. */
  readonly here = new Map<string, unknown>();
  /** One's own id among those, where `join` was given. */
  id: string | null = null;
  /** Resolves when the server has accepted the subscription; rejects if it refuses, or the subscription or client ends before. */
  readonly ready: Promise<void>;
  #topics: Topics;
  #options: SubscribeOptions<T>;
  #settle!: { resolve: () => void; reject: (error: WireloomError) => void };
  /** Whether the server may have been told on this connection to join. */
  #isPresent = false;
  /** Which request for the subscription counts: the newest. 0: over. */
  #round = 1;
  #isLive = false;
  /** Takes back the request of a round that is over: it may not have been sent yet. */
  #takeBack = new AbortController();
  #retry: ReturnType<typeof setTimeout> | undefined;
  /** The topic's newest offset when the subscription was taken, until that has come. */
  #newest = Infinity;
  /** Requests that were refused, since the last that was not. */
  #failures = 0;
  /** Renewals since the last message. */
  #renewals = 0;
  /** Of the last request. */
  #begun = 0;
  /** What came before the reply that it belongs to; presence has offset 0. */
  #held: [payload: Data, offset: number][] = [];
  #readers = new Set<Reader<T>>();
  /** A reader is full: nothing is taken until it has room. */
  #isBehind = false;
  #error: WireloomError | null = null;

  /** @internal */
  constructor(topics: Topics, topic: string, options: SubscribeOptions<T>) {
    this.#topics = topics;
    this.topic = topic;
    this.#options = options;
    this.position = options.since ?? null;
    this.ready = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.ready.catch(() => {});
  }

  /** Whether it is up to date: everything that there was when the server took the subscription has been handed on. */
  get isLive(): boolean {
    return this.#isLive && this.#newest === Infinity;
  }

  /** Ends it, and the loops over it. */
  unsubscribe(): void {
    if (!this.#end()) return;
    this.#settle.reject(new WireloomError('closed', `${this.topic} was unsubscribed`));
    if (this.#topics.isConnected) {
      this.#topics.wire.request(`$unsubscribe/${this.topic}`, Data.of(undefined), false).catch(() => {});
    }
  }

  /** Changes the info that one is present with; `null`: is not present any more. */
  async join(info: unknown): Promise<void> {
    const payload = Data.json({ join: info ?? null });
    const before = this.#options;
    const options = (this.#options = { ...before, join: info ?? undefined });
    if (!this.#isLive) return;
    this.#isPresent ||= options.join !== undefined;
    let reply;
    try {
      reply = await this.#topics.wire.request(`$presence/${this.topic}`, payload, false);
    } catch (error) {
      // What is refused would end the subscription when it is made anew.
      if (this.#options === options && error instanceof WireloomError && isFinal(error)) this.#options = before;
      throw error;
    }
    if (this.#options.join === undefined) this.#isPresent = false;
    this.id = (reply.json() as { id?: string }).id ?? null;
  }

  [Symbol.asyncIterator](): AsyncIterator<TopicMessage<T>, undefined> {
    const reader: Reader<T> = { queue: [], wake: () => {} };
    this.#readers.add(reader);
    const end = () => {
      this.#readers.delete(reader);
      reader.queue.length = 0;
      reader.wake();
      // Of a loop that nobody else needs.
      if (this.#readers.size === 0 && !this.#options.onMessage) this.unsubscribe();
      else this.#catchUp();
    };
    const next = async (): Promise<IteratorResult<TopicMessage<T>, undefined>> => {
      while (reader.queue.length === 0) {
        if (this.#error) throw this.#error;
        if (this.#round === 0 || !this.#readers.has(reader)) return { done: true, value: undefined };
        await new Promise<void>((resolve) => (reader.wake = resolve));
      }
      const value = reader.queue.shift()!;
      this.#catchUp();
      return { done: false, value };
    };
    let last: Promise<unknown> = Promise.resolve();
    return {
      // Several may be asked for at once.
      next: () => {
        const result = last.then(next, next);
        last = result;
        return result;
      },
      return: () => {
        end();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  /** When the readers that were full have room again. */
  #catchUp(): void {
    if (this.#isBehind && [...this.#readers].every(({ queue }) => queue.length <= this.#buffer / 2)) this.begin();
  }

  get #buffer(): number {
    return this.#options.buffer ?? 10_000;
  }

  // --- What the connection says. Not for applications.

  /**
   * @internal Subscribes again: after a gap, or what the server calls a reset. At once, but with growing pauses while that brings no
   * message: a server that cannot say what it is asked for would be asked without end.
   */
  renew(): void {
    this.#isLive = false;
    if (performance.now() - this.#begun >= RENEWALS.stableMs) this.#renewals = 0;
    if (this.#renewals++ === 0) this.begin();
    else this.#plan(RENEWALS, this.#renewals - 2);
  }

  /** The next attempt, unless one is planned. */
  #plan(backoff: Backoff, failures: number): void {
    this.#retry ??= setTimeout(() => {
      this.begin();
    }, pause(backoff, failures, Math.random()));
  }

  /** Whatever is under way or planned. */
  #stop(): void {
    this.#isLive = false;
    this.#takeBack.abort();
    clearTimeout(this.#retry);
    this.#retry = undefined;
  }

  /** @internal Subscribes: to begin with, and over a new connection. */
  begin(): void {
    if (this.#round === 0) return;
    this.#stop();
    this.#begun = performance.now();
    this.#isBehind = false;
    this.#held = [];
    this.#takeBack = new AbortController();
    void this.#subscribe(++this.#round);
  }

  async #subscribe(round: number): Promise<void> {
    const { history, presence, join } = this.#options;
    const wanted = {
      since: this.position ?? undefined,
      history: typeof history === 'number' ? { count: history } : history,
      presence,
      join,
    };
    const isCurrent = () => round === this.#round;
    try {
      this.#isPresent ||= join !== undefined;
      const options = { timeoutMs: SUBSCRIBE_TIMEOUT_MS, signal: this.#takeBack.signal };
      const reply = await this.#topics.wire.request(`$subscribe/${this.topic}`, Data.json(wanted), false, options);
      if (!isCurrent()) return;
      this.#take(reply.json() as Subscribed);
      // It was changed meanwhile; or before, and a subscription without it leaves presence as it is.
      if (this.#options.join !== join || (join === undefined && this.#isPresent)) await this.join(this.#options.join);
    } catch (caught) {
      // Whoever subscribes is told afterwards, even of what cannot be sent.
      await Promise.resolve();
      if (!isCurrent()) return;
      const error = wrap('invalid', caught);
      if (isFinal(error)) {
        this.fail(error);
      } else if (this.#topics.isConnected && error.kind !== 'disconnected') {
        this.#plan(BACKOFF, this.#failures++);
      }
    }
  }

  #take({ epoch, offset: newest, from, recovered, here, id }: Subscribed): void {
    const before = this.position;
    this.#failures = 0;
    // What was seen already is not handed on again.
    const offset = before?.epoch === epoch ? Math.max(before.offset, from) : from;
    this.position = { epoch, offset };
    this.#isLive = true;
    this.id = id ?? this.id;
    this.#settle.resolve();
    if (before && !recovered) guard(this.#options.onGap);
    if (here) {
      const ids = new Set(here.map((present) => present.id));
      this.#change(
        here,
        [...this.here.keys()].filter((id) => !ids.has(id)),
      );
    }
    // In the order of their offsets: some may be of the subscription before, and come again. A gap begins anew.
    this.#newest = newest;
    for (const [payload, offset] of this.#held.splice(0).sort(([, one], [, other]) => one - other)) {
      if (offset === 0) this.presence(payload);
      else this.message(payload, offset);
    }
    this.#checkLive();
  }

  /** Whether everything has come that there was when the server took the subscription. */
  #checkLive(): void {
    if (!this.#isLive || this.position!.offset < this.#newest) return;
    this.#newest = Infinity;
    guard(this.#options.onLive);
  }

  /** @internal The connection is lost. */
  pause(): void {
    if (this.#round === 0) return;
    this.#round++;
    this.#isPresent = false;
    this.#stop();
  }

  /** @internal */
  message(payload: Data, offset: number | null): void {
    const data = payload as Data<T>;
    if (offset === null) {
      this.#hand({ data, offset, position: null });
    } else if (!this.#isLive || !this.position) {
      // Of a reader that is full it comes again. More than may be held will be found missing.
      if (!this.#isBehind && this.#held.length < MAX_HELD) this.#held.push([payload, offset]);
    } else if (offset === this.position.offset + 1) {
      this.#hand({ data, offset, position: { epoch: this.position.epoch, offset } });
      this.#checkLive();
    } else if (offset > this.position.offset) {
      // The server has dropped some for a client that did not keep up.
      this.renew();
    }
  }

  #hand(message: TopicMessage<T>): void {
    if ([...this.#readers].some(({ queue }) => queue.length >= this.#buffer)) {
      if (message.position) {
        this.#isLive = false;
        this.#isBehind = true;
      }
      return;
    }
    if (message.position) {
      this.position = message.position;
      this.#renewals = 0;
    }
    for (const reader of this.#readers) {
      reader.queue.push(message);
      reader.wake();
    }
    guard(this.#options.onMessage, message);
  }

  /** @internal */
  presence(payload: Data): void {
    if (!this.#isLive) {
      if (this.#held.length < MAX_HELD) this.#held.push([payload, 0]);
      return;
    }
    const { join = [], leave = [] } = payload.json() as { join?: Present[]; leave?: string[] };
    this.#change(join, leave);
  }

  #change(present: Present[], left: string[]): void {
    const joined = present.filter(({ id, info }) => JSON.stringify(this.here.get(id)) !== JSON.stringify(info));
    for (const { id, info } of joined) this.here.set(id, info);
    const gone = left.filter((id) => this.here.delete(id));
    if (joined.length + gone.length > 0) guard(this.#options.onPresence, { here: this.here, joined, left: gone });
  }

  /** @internal It will not be. */
  fail(error: WireloomError): void {
    this.#error = error;
    if (!this.#end()) return;
    this.#settle.reject(error);
    guard(this.#options.onError, error);
  }

  #end(): boolean {
    if (this.#round === 0) return false;
    this.#round = 0;
    this.#stop();
    this.#topics.subscriptions.delete(this.topic);
    for (const reader of this.#readers) reader.wake();
    return true;
  }
}

/** Calls an application's listener, if there is one. What it throws is reported, and no more. */
export function guard<A extends unknown[]>(listener: ((...values: A) => void) | undefined, ...values: A): void {
  try {
    listener?.(...values);
  } catch (error) {
    const { reportError } = globalThis as { reportError?: (error: unknown) => void };
    if (reportError) reportError(error);
    else console.error(error);
  }
}
