//! HTTP datagrams (RFC 9297 section 2.1): the quarter stream id in front of each QUIC datagram.

use bytes::{BufMut, Bytes};

use crate::codes::Code;
use crate::stream_id::StreamId;
use crate::varint;

/// A quarter stream id above this would name a stream id above 2^62-1.
const MAX_QUARTER_ID: u64 = (1 << 60) - 1;

/// A datagram that closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It is too short to hold its quarter stream id.
    #[error("datagram too short for its quarter stream id")]
    Truncated,
    /// The quarter stream id is above 2^60-1.
    #[error("quarter stream id too large")]
    IdTooLarge,
}

impl DatagramError {
    /// "Receipt of a QUIC DATAGRAM frame whose payload is too short to allow parsing the Quarter Stream ID field MUST
    /// be treated as an HTTP/3 connection error of type H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2.1).
    /// "Receipt of an HTTP/3 Datagram that includes a larger value MUST be treated as an HTTP/3 connection error of
    /// type H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2.1).
    pub const fn code(self) -> Code {
        Code::H3_DATAGRAM_ERROR
    }
}

/// Takes the prefix off `datagram`, whose payload remains, and returns the request stream it belongs to.
#[inline]
pub fn decode(datagram: &mut Bytes) -> Result<StreamId, DatagramError> {
    let quarter = varint::take(datagram).ok_or(DatagramError::Truncated)?;
    if quarter > MAX_QUARTER_ID {
        return Err(DatagramError::IdTooLarge);
    }
    Ok(StreamId::from_u64(quarter << 2))
}

/// Appends the prefix of datagrams of `stream`, which must be a request stream ([`StreamId::is_request`]).
#[inline]
pub fn encode_prefix(stream: StreamId, out: &mut impl BufMut) {
    debug_assert!(stream.is_request(), "datagrams belong to request streams");
    varint::encode(stream.index(), out);
}

/// The length of the prefix of datagrams of `stream`: 1, 2, 4 or 8 bytes.
pub const fn prefix_len(stream: StreamId) -> usize {
    varint::size(stream.index())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for id in [0, 4, 252, 256, 4 * MAX_QUARTER_ID] {
            let stream = StreamId::from_u64(id);
            let mut datagram = Vec::new();
            encode_prefix(stream, &mut datagram);
            assert_eq!(datagram.len(), prefix_len(stream));
            datagram.extend_from_slice(b"hello");
            let mut datagram = Bytes::from(datagram);
            assert_eq!(decode(&mut datagram), Ok(stream));
            assert_eq!(datagram, "hello");
        }
    }

    /// "Receipt of a QUIC DATAGRAM frame whose payload is too short to allow parsing the Quarter Stream ID field MUST
    /// be treated as an HTTP/3 connection error of type H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2.1).
    /// "Receipt of an HTTP/3 Datagram that includes a larger value MUST be treated as an HTTP/3 connection error of
    /// type H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2.1).
    #[test]
    fn hostile() {
        assert_eq!(decode(&mut Bytes::new()), Err(DatagramError::Truncated));
        assert_eq!(
            decode(&mut Bytes::from_static(&[0xc0, 0, 0])),
            Err(DatagramError::Truncated)
        );
        let mut large = Vec::new();
        varint::encode(MAX_QUARTER_ID + 1, &mut large);
        assert_eq!(decode(&mut Bytes::from(large)), Err(DatagramError::IdTooLarge));
        for error in [DatagramError::Truncated, DatagramError::IdTooLarge] {
            assert_eq!(error.code(), Code::H3_DATAGRAM_ERROR);
        }
    }
}
