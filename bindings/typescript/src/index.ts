/**
 * Requests, replies, signals, sessions and topics (WebWire 2.0) over WebTransport, and over WebSocket where that cannot connect.
 *
 * @module
 */

export type { Backoff } from './backoff.js';
export { Client } from './client.js';
export type { ClientState } from './client.js';
export { Data } from './data.js';
export type { Encoding, Payload } from './data.js';
export type { CertificateHash, Query } from './dial.js';
export { WireloomError } from './errors.js';
export type { ErrorKind } from './errors.js';
export type { Delivery, TransportKind } from './link.js';
export type { ClientOptions, RequestOptions } from './options.js';
export type {
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
export type { ClientStorage, Session } from './session.js';
export type { Position, PresenceChange, Present, SubscribeOptions, Subscription, TopicMessage } from './subscription.js';
export type { PublishOptions, Topic } from './topics.js';
export type { WebSocketConstructor, WebSocketLike } from './websocket.js';
export type { WebTransportConstructor } from './webtransport.js';
