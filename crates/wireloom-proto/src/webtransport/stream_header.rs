//! The first bytes of a stream that the peer opened: what kind it is, and whose.

use bytes::{BufMut, Bytes, BytesMut};

use crate::h3::stream_type;
use crate::stream_id::{Dir, SessionId};
use crate::varint;

/// What the first bytes say. `len` counts what has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// More bytes are needed.
    Incomplete,
    /// A WebTransport stream of the session with this (unchecked) number.
    WebTransport { session: u64, len: usize },
    /// Another type (unidirectional), or the type of the first frame (bidirectional).
    Other { ty: u64, len: usize },
}

/// Reads the header of a stream in direction `dir`.
#[inline]
pub(crate) fn parse(dir: Dir, bytes: &[u8]) -> Header {
    let Some((ty, len)) = varint::decode(bytes) else {
        return Header::Incomplete;
    };
    // The signal on bidirectional streams: "it is an extension of HTTP/3 frame syntax that MUST be supported by any
    // peer negotiating WebTransport" (draft 16 section 4.3).
    let webtransport = match dir {
        Dir::Bi => stream_type::WEBTRANSPORT_BIDI,
        Dir::Uni => stream_type::WEBTRANSPORT,
    };
    if ty != webtransport {
        return Header::Other { ty, len };
    }
    match varint::decode(&bytes[len..]) {
        Some((session, id_len)) => Header::WebTransport {
            session,
            len: len + id_len,
        },
        None => Header::Incomplete,
    }
}

/// The bytes of a header that came in pieces: at most 15 of two integers of 8 bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Partial {
    held: [u8; 16],
    len: u8,
}

impl Partial {
    /// What is held.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.held[..usize::from(self.len)]
    }

    /// Adds `data` and reads again. `data` is cut down to what follows the header; it is empty if the header is incomplete,
    /// and if it is of another type it begins after that type.
    pub(crate) fn push(&mut self, dir: Dir, data: &mut Bytes) -> Header {
        let before = usize::from(self.len);
        let here = data.len().min(self.held.len() - before);
        self.held[before..before + here].copy_from_slice(&data[..here]);
        self.len += here as u8;
        let header = parse(dir, self.bytes());
        let taken = match header {
            // Sixteen bytes hold every header, so all of `data` was taken.
            Header::Incomplete => data.len(),
            // An incomplete header was shorter before, so the end lies in `data`.
            Header::WebTransport { len, .. } | Header::Other { len, .. } => len.saturating_sub(before),
        };
        let _ = data.split_to(taken);
        header
    }
}

/// The bytes that open streams of a session, and those before its datagrams, built once.
#[derive(Debug)]
pub(crate) struct Prefixes {
    /// Before a bidirectional stream.
    pub(crate) bi: Bytes,
    /// Before a unidirectional stream.
    pub(crate) uni: Bytes,
    /// Before a datagram.
    pub(crate) datagram: Bytes,
}

impl Prefixes {
    pub(crate) fn new(session: SessionId) -> Self {
        let mut out = BytesMut::with_capacity(3 * 10);
        stream_prefix(stream_type::WEBTRANSPORT_BIDI, session, &mut out);
        let bi = out.split().freeze();
        stream_prefix(stream_type::WEBTRANSPORT, session, &mut out);
        let uni = out.split().freeze();
        crate::datagram::encode_prefix(session.stream(), &mut out);
        Self {
            bi,
            uni,
            datagram: out.freeze(),
        }
    }
}

/// "The body of the stream SHALL be the stream type, followed by the session ID, encoded as a variable-length integer,
/// followed by the user-specified stream data" (draft 16 section 4.2); a bidirectional one has the signal in place of
/// the type.
fn stream_prefix(ty: u64, session: SessionId, out: &mut impl BufMut) {
    varint::encode(ty, out);
    varint::encode(session.into_u64(), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_id::StreamId;

    /// "it is an extension of HTTP/3 frame syntax that MUST be supported by any peer negotiating WebTransport" (draft
    /// 16 section 4.3).
    #[test]
    fn every_split_gives_the_same_header() {
        let session = SessionId::new(StreamId::from_u64(4 << 20)).expect("a request stream");
        let prefixes = Prefixes::new(session);
        for (dir, prefix) in [(Dir::Bi, &prefixes.bi), (Dir::Uni, &prefixes.uni)] {
            let mut bytes = prefix.to_vec();
            bytes.extend_from_slice(b"payload");
            let whole = Header::WebTransport {
                session: session.into_u64(),
                len: prefix.len(),
            };
            assert_eq!(parse(dir, &bytes), whole);
            for cut in 0..prefix.len() {
                let mut partial = Partial::default();
                assert_eq!(
                    partial.push(dir, &mut Bytes::copy_from_slice(&bytes[..cut])),
                    Header::Incomplete
                );
                assert_eq!(partial.bytes(), &bytes[..cut]);
                let mut rest = Bytes::copy_from_slice(&bytes[cut..]);
                assert_eq!(partial.push(dir, &mut rest), whole);
                assert_eq!(rest, "payload");
            }
        }
        assert_eq!(&prefixes.datagram[..], [0x80, 0x10, 0, 0]);
    }

    #[test]
    fn other_types() {
        let mut partial = Partial::default();
        assert_eq!(
            partial.push(Dir::Uni, &mut Bytes::from_static(&[0x40])),
            Header::Incomplete
        );
        let mut rest = Bytes::from_static(&[0x00, 4, 0]);
        assert_eq!(partial.push(Dir::Uni, &mut rest), Header::Other { ty: 0, len: 2 });
        assert_eq!(&rest[..], [4, 0]);
        // The types do not swap between directions.
        assert_eq!(parse(Dir::Uni, &[0x40, 0x41, 0]), Header::Other { ty: 0x41, len: 2 });
        assert_eq!(parse(Dir::Bi, &[0x40, 0x54, 0]), Header::Other { ty: 0x54, len: 2 });
    }
}
