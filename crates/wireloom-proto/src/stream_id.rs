//! QUIC stream identifiers as HTTP/3 sees them (RFC 9000 section 2.1).

use std::fmt;

/// Which end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The endpoint that dialled.
    Client,
    /// The endpoint that was dialled.
    Server,
}

impl std::ops::Not for Side {
    type Output = Self;
    fn not(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Bidirectional or unidirectional.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dir {
    /// Both ends send.
    Bi,
    /// Only the initiator sends.
    Uni,
}

/// A QUIC stream identifier: a 62-bit number whose two low bits say who opened it and which way it flows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// The `index`th stream (from 0) of `initiator` in direction `dir`.
    pub const fn new(initiator: Side, dir: Dir, index: u64) -> Self {
        let low = match dir {
            Dir::Bi => 0,
            Dir::Uni => 2,
        } | match initiator {
            Side::Client => 0,
            Side::Server => 1,
        };
        Self(index << 2 | low)
    }

    /// From the number on the wire.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The number on the wire.
    pub const fn into_u64(self) -> u64 {
        self.0
    }

    /// Who opened the stream.
    pub const fn initiator(self) -> Side {
        if self.0 & 1 == 0 { Side::Client } else { Side::Server }
    }

    /// Which way it flows.
    pub const fn dir(self) -> Dir {
        if self.0 & 2 == 0 { Dir::Bi } else { Dir::Uni }
    }

    /// Its place among the streams of the same initiator and direction.
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }

    /// Whether this can be a request stream, and so a CONNECT stream: client-initiated and bidirectional.
    pub const fn is_request(self) -> bool {
        self.0 & 3 == 0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A WebTransport session: the identifier of its CONNECT stream.
///
/// "Session IDs are derived from the stream ID of the CONNECT stream that established the session and therefore MUST
/// always correspond to a client-initiated bidirectional stream" (draft 16 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(StreamId);

impl SessionId {
    /// `None` where the stream cannot be a CONNECT stream: the peer's error is then H3_ID_ERROR.
    pub const fn new(stream: StreamId) -> Option<Self> {
        if stream.is_request() { Some(Self(stream)) } else { None }
    }

    /// The CONNECT stream.
    pub const fn stream(self) -> StreamId {
        self.0
    }

    /// The number on the wire in stream headers.
    pub const fn into_u64(self) -> u64 {
        self.0.into_u64()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Session IDs are derived from the stream ID of the CONNECT stream that established the session and therefore
    /// MUST always correspond to a client-initiated bidirectional stream" (draft 16 section 4).
    #[test]
    fn only_request_streams_can_be_sessions() {
        for id in 0..64 {
            let session = SessionId::new(StreamId::from_u64(id));
            assert_eq!(session.map(SessionId::into_u64), (id % 4 == 0).then_some(id));
        }
    }
}
