import { WireloomError } from './errors.js';

/** How a payload's bytes are to be read. */
export type Encoding = 'binary' | 'utf8' | 'utf16';

/**
 * What `request`, `signal` and `publish` take: a string travels as text, bytes as bytes, `undefined` as an empty payload, and
 * everything else as JSON. A string that is to travel as JSON goes through {@link Data.json}. A `Blob` or `ReadableStream` is
 * something that only `request` takes.
 */
export type Payload<T = unknown> = Data<T> | T;

const encoder = new TextEncoder();
/** What others take for a byte order mark is a character here (section 3.3). */
const asItIs = { ignoreBOM: true };
const decoder = new TextDecoder('utf-8', asItIs);

/** UTF-8, without a check: what is not UTF-8 becomes U+FFFD. */
export const decodeText = (bytes: Uint8Array): string => decoder.decode(bytes);
export const encodeText = (text: string): Uint8Array => encoder.encode(text);

/** Whether it is of a global class that may not be there. */
export function isA(type: string, value: unknown): boolean {
  const Type = (globalThis as unknown as Record<string, (new () => object) | undefined>)[type];
  return !!Type && value instanceof Type;
}

/** A payload as it was received or is to be sent: bytes and how to read them. `T` is what {@link Data.json} is said to give. */
export class Data<T = unknown> {
  readonly encoding: Encoding;
  /** As they travel. */
  readonly bytes: Uint8Array;

  constructor(encoding: Encoding, bytes: Uint8Array) {
    this.encoding = encoding;
    this.bytes = bytes;
  }

  /** Any value of JSON, as UTF-8. */
  static json<T>(value: T): Data<T> {
    const text = JSON.stringify(value) as string | undefined;
    if (text === undefined) throw new WireloomError('invalid', 'the payload is no JSON');
    return Data.text(text);
  }

  /** Text, as UTF-8. */
  static text(text: string): Data<never> {
    return new Data('utf8', encoder.encode(text));
  }

  /** What a {@link Payload} stands for. */
  static of(payload: unknown): Data<never> {
    if (payload instanceof Data) return payload as Data<never>;
    if (typeof payload === 'string') return Data.text(payload);
    if (payload === undefined) return new Data('utf8', new Uint8Array());
    if (payload instanceof ArrayBuffer) return new Data('binary', new Uint8Array(payload));
    if (ArrayBuffer.isView(payload)) {
      return new Data('binary', new Uint8Array(payload.buffer as ArrayBuffer, payload.byteOffset, payload.byteLength));
    }
    for (const type of ['Blob', 'ReadableStream', 'SharedArrayBuffer']) {
      // JSON has `{}` for them.
      if (isA(type, payload)) throw new WireloomError('invalid', `a ${type} is no payload here`);
    }
    return Data.json(payload) as Data<never>;
  }

  /** @internal With bytes of its own: whoever gave them may use the buffer for something else. */
  copy(): Data<T> {
    return new Data(this.encoding, this.bytes.slice());
  }

  /** As text. Bytes that are not text of the encoding become U+FFFD; binary is read as UTF-8. */
  text(): string {
    return this.encoding === 'utf16' ? new TextDecoder('utf-16le', asItIs).decode(this.bytes) : decodeText(this.bytes);
  }

  /**
   * As JSON; `undefined` for an empty payload. Nothing checks that the value is a `T`.
   *
   * @throws SyntaxError for what is no JSON.
   */
  json(): T {
    return (this.bytes.length > 0 ? JSON.parse(this.text().replace(/^\uFEFF/, '')) : undefined) as T;
  }
}
