// The types that an application gives its names.

/**
 * What an application's names mean, for `new Client<MyProtocol>(...)`. All parts are optional; without any, every name is allowed
 * and payloads are `any`. Nothing is checked at run time.
 *
 * ```ts
 * interface Chat {
 *   requests: { login: { request: string; reply: void } };
 *   signals: { typing: { room: string } };        // from client to server
 *   events: { notice: { text: string } };         // from server to client
 *   topics: { [room: `room/${string}`]: Line };
 * }
 * ```
 */
export interface Protocol {
  requests?: object;
  signals?: object;
  events?: object;
  topics?: object;
}

/* eslint-disable @typescript-eslint/no-explicit-any -- names that nobody has described may carry anything */
type Part<P, K extends keyof Protocol> = 0 extends 1 & P
  ? Record<string, any> // `P` is `any`
  : P extends Record<K, infer Names>
    ? Names
    : Record<string, any>;

export type RequestName<P> = keyof Part<P, 'requests'> & string;
type Described<P, N extends string> = N extends keyof Part<P, 'requests'> ? Part<P, 'requests'>[N] : never;
export type RequestPayload<P, N extends string> = Described<P, N> extends { request: infer T } ? T : any;
export type RequestReply<P, N extends string> = Described<P, N> extends { reply: infer T } ? T : any;

type Named<P, K extends keyof Protocol, N> = N extends keyof Part<P, K> ? Part<P, K>[N] : any;
export type SignalName<P> = keyof Part<P, 'signals'> & string;
export type SignalPayload<P, N> = Named<P, 'signals', N>;
export type EventName<P> = keyof Part<P, 'events'> & string;
export type EventPayload<P, N> = Named<P, 'events', N>;
export type TopicName<P> = keyof Part<P, 'topics'> & string;
export type TopicPayload<P, N> = Named<P, 'topics', N>;
