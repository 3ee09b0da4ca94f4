// Topics: see docs/topics.md in the repository for what is said on the wire.

import { Data } from './data.js';
import type { Payload } from './data.js';
import { WireloomError } from './errors.js';
import type { Delivery } from './link.js';
import type { RequestOptions } from './options.js';
import { guard, Subscription } from './subscription.js';
import type { Position, Present, SubscribeOptions } from './subscription.js';

/** What topics need of a client. */
export interface Wire {
  /** `repeats`: over the next connection too, for as long as the server remembers the key. */
  request(name: string, payload: Data, repeats: boolean, options?: RequestOptions): Promise<Data>;
  signal(name: string, payload: Data, delivery: Delivery): Promise<void>;
}

export interface PublishOptions extends RequestOptions {
  /**
   * 0 to 64 characters of `A-Z a-z 0-9 _ -`: the topic publishes what has the same key once within two minutes. Default: one of its
   * own for each message. An empty one: the publication is not repeated after a lost connection.
   */
  key?: string;
}

/** All topics of a client. */
export class Topics {
  readonly wire: Wire;
  readonly subscriptions = new Map<string, Subscription>();
  isConnected = false;

  constructor(wire: Wire) {
    this.wire = wire;
  }

  connected(): void {
    this.isConnected = true;
    for (const subscription of this.subscriptions.values()) {
      // It may come in the place of another that is not lost.
      subscription.pause();
      subscription.begin();
    }
  }

  disconnected(): void {
    this.isConnected = false;
    for (const subscription of this.subscriptions.values()) subscription.pause();
  }

  closed(error: WireloomError): void {
    for (const subscription of [...this.subscriptions.values()]) subscription.fail(error);
  }

  /** Whether the signal was a subscription's. */
  handle(name: string, payload: Data): boolean {
    const [, kind, rest] = /^\$(message|presence|reset)\/(.*)$/s.exec(name) ?? [];
    if (rest === undefined) return false;
    const slash = kind === 'message' ? rest.indexOf('/') : -1;
    const subscription = this.subscriptions.get(rest.slice(slash + 1));
    if (!subscription) return false;
    if (kind === 'reset') subscription.renew();
    else if (kind === 'presence') guard(() => { subscription.presence(payload); });
    else subscription.message(payload, slash > 0 ? Number(rest.slice(0, slash)) : null);
    return true;
  }
}

/** A topic of a client's server. `T` is what its messages carry. */
export class Topic<T = unknown> {
  readonly name: string;
  #topics: Topics;

  /** @internal */
  constructor(topics: Topics, name: string) {
    if (!/^[ -~]{1,200}$/.test(name)) throw new WireloomError('invalid', `${JSON.stringify(name)} is no topic`);
    this.#topics = topics;
    this.name = name;
  }

  /**
   * Subscribes: from now on, or as `history` and `since` say. It lives over lost connections, and then gets exactly what it missed;
   * where the server cannot give all of it, `onGap` is called.
   *
   * @throws WireloomError of kind `invalid` if this client has a subscription to the topic.
   */
  subscribe(options: SubscribeOptions<T> = {}): Subscription<T> {
    const { subscriptions } = this.#topics;
    if (subscriptions.has(this.name)) throw new WireloomError('invalid', `${this.name} is subscribed to already`);
    const subscription = new Subscription<T>(this.#topics, this.name, options);
    subscriptions.set(this.name, subscription as Subscription);
    if (this.#topics.isConnected) subscription.begin();
    return subscription;
  }

  /**
   * Publishes a message: resolves with its position when the server's broker has accepted it. If the connection is lost it is
   * repeated, which publishes it once, until `timeoutMs`, but not longer than nearly two minutes. One that rejects as `timeout`, or as
   * `unknownOutcome` when it would be repeated later than that, may have been published.
   *
   * @throws WireloomError, of kind `application` with the codes `TOPIC_FORBIDDEN`, `TOPIC_INVALID`, `TOPIC_LIMIT` and
   * `TOPIC_UNAVAILABLE` (try again).
   */
  async publish(payload: Payload<T>, { key = newKey(), ...options }: PublishOptions = {}): Promise<Position> {
    if (!/^[\w-]{0,64}$/.test(key)) throw new WireloomError('invalid', `${JSON.stringify(key)} is no key`);
    const reply = await this.#topics.wire.request(`$publish/${key}/${this.name}`, Data.of(payload), key !== '', options);
    return reply.json() as Position;
  }

  /** Sends an ephemeral message: to those who are subscribed at the moment, not kept, in a datagram where it fits. It may be lost. */
  async publishEphemeral(payload: Payload<T>): Promise<void> {
    await this.#topics.wire.signal(`$publish//${this.name}`, Data.of(payload), { unreliable: true });
  }

  /** Who is here. */
  async here(options?: RequestOptions): Promise<Present[]> {
    const reply = await this.#topics.wire.request(`$presence/${this.name}`, Data.of(undefined), false, options);
    return (reply.json() as { here: Present[] }).here;
  }
}

/** Unlike any other of this topic within two minutes, which is no secret. */
const newKey = (): string => [Date.now(), Math.random() * 2 ** 52, Math.random() * 2 ** 52].map((n) => Math.floor(n).toString(36)).join('-');
