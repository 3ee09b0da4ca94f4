//! Frame types and the frames that this end writes (RFC 9114 section 7).
//!
//! An endpoint writes SETTINGS, GOAWAY, HEADERS, DATA and reserved frames, and a client PRIORITY_UPDATE; the other types are
//! there to be recognised.
//! "These frame types MUST NOT be sent" (RFC 9114 section 7.2.8).
//! "A client MUST NOT send a PUSH_PROMISE frame" (RFC 9114 section 7.2.5).
//! "A server MUST NOT send a MAX_PUSH_ID frame" (RFC 9114 section 7.2.7).

use bytes::{BufMut, Bytes, BytesMut};

use crate::tlv::encode_integer;
pub use crate::tlv::{encode, encode_header, header_len};
use crate::varint;

/// DATA: a piece of a message body.
pub const DATA: u64 = 0x00;
/// HEADERS: a header or trailer section.
pub const HEADERS: u64 = 0x01;
/// CANCEL_PUSH.
pub const CANCEL_PUSH: u64 = 0x03;
/// SETTINGS: first on each control stream.
pub const SETTINGS: u64 = 0x04;
/// PUSH_PROMISE.
pub const PUSH_PROMISE: u64 = 0x05;
/// GOAWAY.
pub const GOAWAY: u64 = 0x07;
/// MAX_PUSH_ID.
pub const MAX_PUSH_ID: u64 = 0x0d;
/// WT_STREAM: no frame, but the signal at the start of a bidirectional WebTransport stream
/// (draft-ietf-webtrans-http3-16 section 4.3).
pub const WT_STREAM: u64 = super::stream_type::WEBTRANSPORT_BIDI;
/// PRIORITY_UPDATE for a request (RFC 9218 section 7.2).
pub const PRIORITY_UPDATE_REQUEST: u64 = 0xf_0700;
/// PRIORITY_UPDATE for a push (RFC 9218 section 7.2).
pub const PRIORITY_UPDATE_PUSH: u64 = 0xf_0701;

/// Whether `value` has the form 0x1f * N + 0x21, which is reserved among frame types, stream types, settings and error
/// codes alike (RFC 9114 sections 6.2.3, 7.2.4.1, 7.2.8 and 8.1).
pub const fn is_reserved(value: u64) -> bool {
    value >= 0x21 && (value - 0x21).is_multiple_of(0x1f)
}

/// The reserved value of number `n`, for those who send some. `n` is cut so that the result fits a variable-length integer.
pub const fn reserved(n: u64) -> u64 {
    0x1f * (n % ((varint::MAX - 0x21) / 0x1f + 1)) + 0x21
}

/// Whether `ty` was a frame type of HTTP/2 that has no counterpart.
pub const fn is_http2(ty: u64) -> bool {
    matches!(ty, 0x02 | 0x06 | 0x08 | 0x09)
}

/// A whole GOAWAY frame. `id` is a request stream's identifier from a server and a push id from a client.
pub fn encode_goaway(id: u64) -> Bytes {
    encode_integer(GOAWAY, id)
}

/// A whole PRIORITY_UPDATE frame for the request stream `id` (RFC 9218 section 7.2).
pub fn encode_priority_update(id: u64, value: &[u8]) -> Bytes {
    let len = varint::size(id) + value.len();
    let mut out = BytesMut::with_capacity(header_len(PRIORITY_UPDATE_REQUEST, len as u64) + len);
    encode_header(PRIORITY_UPDATE_REQUEST, len as u64, &mut out);
    varint::encode(id, &mut out);
    out.put_slice(value);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_values() {
        assert!(is_reserved(0x21) && is_reserved(0x40) && !is_reserved(0x41) && !is_reserved(0x02));
        for n in [0, 1, 1000, u64::MAX] {
            assert!(is_reserved(reserved(n)) && reserved(n) <= varint::MAX);
        }
    }

    #[test]
    fn goaway_bytes() {
        assert_eq!(&encode_goaway(4)[..], [0x07, 0x01, 0x04]);
        assert_eq!(&encode(DATA, b"hi")[..], [0x00, 0x02, b'h', b'i']);
    }
}
