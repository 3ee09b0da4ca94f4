// WebWire 2.0: messages to bytes and back. The client's half: it encodes what clients send, and decodes everything.

import { Data, decodeText, encodeText } from './data.js';
import type { Encoding } from './data.js';
import { WireloomError } from './errors.js';

/** A request's identifier: eight bytes, little-endian, which no other pending request has. Exact up to 2^53. */
export type Id = number;

export type Message =
  | { type: 'acceptConf'; major: number; minor: number; readTimeoutMs: number; messageBufferSize: number; subProtocol: string }
  | { type: 'sessionCreated'; session: string }
  | { type: 'sessionClosed' | 'heartbeat' }
  | { type: 'signal'; name: string; payload: Data }
  | { type: 'request'; id: Id; name: string; payload: Data }
  | { type: 'reply'; id: Id; payload: Data }
  | { type: 'error'; id: Id; code: string; message: string }
  | { type: (typeof SPECIAL_REPLIES)[number] | 'closeSession'; id: Id }
  | { type: 'restoreSession'; id: Id; key: string };

/** Types 1 to 5. */
const SPECIAL_REPLIES = ['shutdown', 'internal', 'sessionNotFound', 'maxSessionConnections', 'sessionsDisabled'] as const;
const ENCODINGS: Encoding[] = ['binary', 'utf8', 'utf16'];
/** Where payloads follow: the type of a binary one. */
const enum Type {
  SessionCreated = 21,
  SessionClosed = 22,
  AcceptConf = 23,
  CloseSession = 31,
  RestoreSession = 32,
  Heartbeat = 33,
  Signal = 63,
  Request = 127,
  Reply = 191,
}

/** Whether the first byte is that of a signal: what a server's datagram may carry. */
export const isSignal = (message: Uint8Array): boolean => ENCODINGS[message[0]! - Type.Signal] !== undefined;

/** Whether the message ends a request. */
export const isReply = (message: Uint8Array): boolean => message[0]! <= 5 || ENCODINGS[message[0]! - Type.Reply] !== undefined;

/** Names are bytes. Each is one character here, of those that may be sent and of any others. */
const latin1 = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

/**
 * Section 3.2: at most 255 printable ASCII characters.
 *
 * @throws WireloomError of kind `invalid`.
 */
export function checkName(name: string): void {
  if (!/^[ -~]{0,255}$/.test(name)) throw new WireloomError('invalid', `${JSON.stringify(name.slice(0, 300))} is no name`);
}

/** Section 6.2, the verdict on each message: `null` for one that is malformed or unknown. */
export function decode(bytes: Uint8Array): Message | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length;
  const kind = bytes[0] ?? 255;
  const id = (): Id => view.getUint32(1, true) + view.getUint32(5, true) * 2 ** 32;

  /** A name at `at`, behind its length, and the payload to the end; `shortest` is the least that may be. */
  const named = (at: number, base: number, shortest: number) => {
    if (length < shortest) return null;
    const encoding = ENCODINGS[kind - base]!;
    const end = at + 1 + bytes[at]!;
    const isUtf16 = encoding === 'utf16';
    if (end > length || (isUtf16 && length % 2 === 1)) return null;
    // Section 3.4: the payload begins at an even offset.
    const start = isUtf16 ? end + (end % 2) : end;
    return { name: latin1(bytes.subarray(at + 1, end)), payload: new Data(encoding, bytes.subarray(start)) };
  };

  if (kind === 0) {
    const end = 10 + (bytes[9] ?? 0);
    if (length < 11 || end === 10 || length < end) return null;
    return { type: 'error', id: id(), code: latin1(bytes.subarray(10, end)), message: decodeText(bytes.subarray(end)) };
  }
  const special = SPECIAL_REPLIES[kind - 1];
  if (special) return length < 9 ? null : { type: special, id: id() };
  switch (kind) {
    case Type.SessionCreated:
      return length < 2 ? null : { type: 'sessionCreated', session: decodeText(bytes.subarray(1)) };
    case Type.SessionClosed:
      return length === 1 ? { type: 'sessionClosed' } : null;
    case Type.Heartbeat:
      return length === 1 ? { type: 'heartbeat' } : null;
    case Type.AcceptConf:
      if (length < 11) return null;
      return {
        type: 'acceptConf',
        major: bytes[1]!,
        minor: bytes[2]!,
        readTimeoutMs: view.getUint32(3, true),
        messageBufferSize: view.getUint32(7, true),
        subProtocol: decodeText(bytes.subarray(11)),
      };
    case Type.CloseSession:
      return length === 9 ? { type: 'closeSession', id: id() } : null;
    case Type.RestoreSession:
      return length < 10 ? null : { type: 'restoreSession', id: id(), key: decodeText(bytes.subarray(9)) };
  }
  if (ENCODINGS[kind - Type.Signal]) {
    const rest = named(1, Type.Signal, kind === Type.Signal + 2 ? 4 : 3);
    // A signal in UTF-16 has a payload.
    return !rest || (kind === Type.Signal + 2 && rest.payload.bytes.length === 0) ? null : { type: 'signal', ...rest };
  }
  if (ENCODINGS[kind - Type.Request]) {
    const rest = named(9, Type.Request, 11);
    return rest && { type: 'request', id: id(), ...rest };
  }
  const encoding = ENCODINGS[kind - Type.Reply];
  if (!encoding) return null;
  const start = encoding === 'utf16' ? 10 : 9;
  if (length < start || (start === 10 && length % 2 === 1)) return null;
  return { type: 'reply', id: id(), payload: new Data(encoding, bytes.subarray(start)) };
}

/** A message of `length` bytes that begins with its type and, unless it has none, its identifier. */
function begin(kind: number, length: number, id?: Id): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes[0] = kind;
  if (id !== undefined) {
    const view = new DataView(bytes.buffer);
    view.setUint32(1, id % 2 ** 32, true);
    view.setUint32(5, Math.floor(id / 2 ** 32), true);
  }
  return bytes;
}

/** Type, identifier, name and padding of a message whose payload of `size` bytes follows; room for it where `whole`. */
function header(base: number, name: string, encoding: Encoding, size: number, whole: boolean, id?: Id): Uint8Array {
  checkName(name);
  const at = id === undefined ? 1 : 9;
  const isUtf16 = encoding === 'utf16';
  // The traps of section 4.3, and what section 4.4 does not allow.
  const empty = id === undefined && isUtf16 ? size === 0 : name === '' && size === 0;
  if (empty || (isUtf16 && size % 2 === 1)) throw new WireloomError('invalid', 'neither a name nor a payload, or half a character');
  const end = at + 1 + name.length;
  const start = isUtf16 ? end + (end % 2) : end;
  const bytes = begin(base + ENCODINGS.indexOf(encoding), start + (whole ? size : 0), id);
  bytes[at] = name.length;
  bytes.set(encodeText(name), at + 1);
  return bytes;
}

function withPayload(base: number, name: string, payload: Data, id?: Id): Uint8Array {
  const size = payload.bytes.length;
  const bytes = header(base, name, payload.encoding, size, true, id);
  bytes.set(payload.bytes, bytes.length - size);
  return bytes;
}

export const encodeHeartbeat = (): Uint8Array => begin(Type.Heartbeat, 1);
export const encodeCloseSession = (id: Id): Uint8Array => begin(Type.CloseSession, 9, id);
export const encodeSignal = (name: string, payload: Data): Uint8Array => withPayload(Type.Signal, name, payload);
export const encodeRequest = (id: Id, name: string, payload: Data): Uint8Array => withPayload(Type.Request, name, payload, id);

/** What comes before the `size` bytes of a binary payload that is sent piece by piece. */
export const encodeRequestHeader = (id: Id, name: string, size: number): Uint8Array =>
  header(Type.Request, name, 'binary', size, false, id);

export function encodeRestoreSession(id: Id, key: string): Uint8Array {
  if (key === '') throw new WireloomError('invalid', 'the key of a session has a character at least');
  const text = encodeText(key);
  const bytes = begin(Type.RestoreSession, 9 + text.length, id);
  bytes.set(text, 9);
  return bytes;
}
