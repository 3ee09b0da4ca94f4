// Messages on a stream: each behind its length, a QUIC variable-length integer (appendix A.1).

import { WireloomError } from './errors.js';

/** RFC 9000 section 16, the shortest form. */
export function encodeVarint(value: number): Uint8Array {
  const size = value < 2 ** 6 ? 1 : value < 2 ** 14 ? 2 : value < 2 ** 30 ? 4 : 8;
  const bytes = new Uint8Array(size);
  for (let at = size - 1, rest = value; at >= 0; at--, rest = Math.floor(rest / 256)) bytes[at] = rest % 256;
  bytes[0]! |= Math.log2(size) << 6;
  return bytes;
}

/** The integer at the start and how many bytes it has, or `null` if they are not all there. Exact up to 2^53. */
export function decodeVarint(bytes: Uint8Array): [value: number, size: number] | null {
  const first = bytes[0];
  if (first === undefined) return null;
  const size = 1 << (first >> 6);
  if (bytes.length < size) return null;
  let value = first & 63;
  for (let at = 1; at < size; at++) value = value * 256 + bytes[at]!;
  return [value, size];
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export const frame = (message: Uint8Array): Uint8Array => concat([encodeVarint(message.length), message]);

/** Cuts a stream into messages. Holds the part of a message that has arrived: at most `limit` bytes and the piece that came last. */
export class Unframer {
  #parts: Uint8Array[] = [];
  #size = 0;
  /** Bytes that are needed before looking again. */
  #needed = 1;

  /**
   * The messages that `piece` completes.
   *
   * @throws WireloomError of kind `rejected` for a message without a byte, `tooLarge` for one with more than `limit`.
   */
  push(piece: Uint8Array, limit: number): Uint8Array[] {
    this.#parts.push(piece);
    this.#size += piece.length;
    const messages: Uint8Array[] = [];
    // A message of many pieces is put together once, not with every piece.
    while (this.#size >= this.#needed) {
      const bytes = concat(this.#parts);
      this.#parts = [bytes];
      const length = decodeVarint(bytes);
      if (!length) {
        this.#needed = bytes.length + 1;
        break;
      }
      const kind = length[0] === 0 ? 'rejected' : length[0] > limit ? 'tooLarge' : null;
      if (kind) throw new WireloomError(kind, `a message of ${length[0]} bytes`);
      const end = length[0] + length[1];
      if (bytes.length < end) {
        this.#needed = end;
        break;
      }
      messages.push(bytes.subarray(length[1], end));
      this.#size = bytes.length - end;
      this.#parts = this.#size > 0 ? [bytes.subarray(end)] : [];
      this.#needed = 1;
    }
    return messages;
  }
}
