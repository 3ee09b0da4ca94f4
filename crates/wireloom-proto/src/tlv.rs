//! Writing what frames and capsules have in common: a type, a length and that many bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::varint;

/// The length of what [`encode_header`] writes, at most 16 bytes.
pub const fn header_len(ty: u64, len: u64) -> usize {
    varint::size(ty) + varint::size(len)
}

/// Appends type and length; `len` bytes of payload are to follow. Both at most [`varint::MAX`].
pub fn encode_header(ty: u64, len: u64, out: &mut impl BufMut) {
    varint::encode(ty, out);
    varint::encode(len, out);
}

/// A whole frame or capsule of type `ty`.
pub fn encode(ty: u64, payload: &[u8]) -> Bytes {
    let len = payload.len() as u64;
    let mut out = BytesMut::with_capacity(header_len(ty, len) + payload.len());
    encode_header(ty, len, &mut out);
    out.put_slice(payload);
    out.freeze()
}

/// One of a single integer: "Each frame's payload MUST contain exactly the fields identified in its description" (RFC 9114
/// section 7.1), and "Each Capsule's payload MUST contain exactly the fields identified in its description" (RFC 9297
/// section 3.3).
pub(crate) fn encode_integer(ty: u64, value: u64) -> Bytes {
    let len = varint::size(value);
    let mut out = BytesMut::with_capacity(header_len(ty, len as u64) + len);
    encode_header(ty, len as u64, &mut out);
    varint::encode(value, &mut out);
    out.freeze()
}
