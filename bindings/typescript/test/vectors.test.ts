// The golden bytes that the Rust tests read too.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  decode,
  encodeCloseSession,
  encodeHeartbeat,
  encodeRequest,
  encodeRequestHeader,
  encodeRestoreSession,
  encodeSignal,
} from '../src/codec.js';
import type { Message } from '../src/codec.js';
import { Data } from '../src/data.js';
import { decodeVarint, encodeVarint } from '../src/framing.js';

const read = (name: string): Vector[] =>
  JSON.parse(readFileSync(new URL(`../../../vectors/${name}.json`, import.meta.url), 'utf8')) as Vector[];
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const unhex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));

interface Vector {
  name: string;
  hex: string;
  error?: 'unknown' | 'malformed';
  decode_only?: boolean;
  incomplete?: boolean;
  decoded?: Record<string, string | number> | string;
}

const ENCODINGS = { binary: 'Binary', utf8: 'Utf8', utf16: 'Utf16' };
const NAMES: Partial<Record<Message['type'], string>> = {
  acceptConf: 'AcceptConf',
  heartbeat: 'Heartbeat',
  sessionCreated: 'NotifySessionCreated',
  sessionClosed: 'NotifySessionClosed',
  closeSession: 'RequestCloseSession',
  restoreSession: 'RequestRestoreSession',
  error: 'ReplyError',
  shutdown: 'ReplyShutdown',
  internal: 'ReplyInternalError',
  sessionNotFound: 'ReplySessionNotFound',
  maxSessionConnections: 'ReplyMaxSessConnsReached',
  sessionsDisabled: 'ReplySessionsDisabled',
};

function idHex(id: number): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(id));
  return bytes.toString('hex');
}

/** A message as the vectors describe it. */
function described(message: Message): Record<string, unknown> {
  const id = 'id' in message ? { id: idHex(message.id) } : {};
  switch (message.type) {
    case 'signal':
    case 'request':
    case 'reply': {
      const { payload } = message;
      const type = message.type[0]!.toUpperCase() + message.type.slice(1) + ENCODINGS[payload.encoding];
      const name = 'name' in message ? { name: message.name } : {};
      const text = payload.encoding === 'binary' ? {} : { text: payload.text() };
      return { type, ...id, ...name, payload: hex(payload.bytes), ...text };
    }
    case 'acceptConf':
      return {
        type: 'AcceptConf',
        major: message.major,
        minor: message.minor,
        read_timeout_ms: message.readTimeoutMs,
        message_buffer_size: message.messageBufferSize,
        sub_protocol: message.subProtocol,
      };
    default: {
      const { type, ...rest } = message;
      return { type: NAMES[type], ...rest, ...id };
    }
  }
}

/** What a client sends, encoded anew. */
function encoded(message: Message): Uint8Array | null {
  switch (message.type) {
    case 'heartbeat':
      return encodeHeartbeat();
    case 'closeSession':
      return encodeCloseSession(message.id);
    case 'restoreSession':
      return encodeRestoreSession(message.id, message.key);
    case 'signal':
      return encodeSignal(message.name, message.payload);
    case 'request':
      return encodeRequest(message.id, message.name, message.payload);
    default:
      return null;
  }
}

describe('webwire.json', () => {
  test.each(read('webwire'))('$name', (vector) => {
    const message = decode(unhex(vector.hex));
    if (vector.error) {
      expect(message).toBeNull();
      return;
    }
    expect(message).not.toBeNull();
    expect(described(message!)).toEqual(vector.decoded);
    if (vector.decode_only) return;
    const bytes = encoded(message!);
    if (bytes) expect(hex(bytes)).toBe(vector.hex);
    // What is sent piece by piece begins in the same way.
    if (message!.type === 'request' && message!.payload.encoding === 'binary') {
      const { id, name, payload } = message!;
      expect(hex(encodeRequestHeader(id, name, payload.bytes.length)) + hex(payload.bytes)).toBe(vector.hex);
    }
  });

  test('text of all encodings', () => {
    expect(new Data('utf16', unhex('61003dd800de')).text()).toBe('a😀');
    expect(new Data('utf16', unhex('00d8')).text()).toBe('\ufffd');
    expect(Data.text('жü').bytes).toEqual(unhex('d0b6c3bc'));
  });
});

describe('varint.json', () => {
  test.each(read('varint'))('$name', (vector) => {
    const got = decodeVarint(unhex(vector.hex));
    if (vector.incomplete) {
      expect(got).toBeNull();
      return;
    }
    // Lengths of messages are below 2^53: above, the value is near.
    const expected = Number(vector.decoded);
    expect(got).toEqual([expected, vector.hex.length / 2]);
    if (!vector.decode_only && expected < 2 ** 53) expect(hex(encodeVarint(expected))).toBe(vector.hex);
  });
});
