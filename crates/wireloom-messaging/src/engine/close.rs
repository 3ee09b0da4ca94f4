//! Why a connection is closed, as the other end is told.

/// Why a connection is closed. WebSocket and WebTransport have codes of their own for each (section 5, appendix A.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// One end has no more to say.
    Normal,
    /// The server shuts down.
    Shutdown,
    /// A message that is none.
    Malformed,
    /// A message that may not be here: a text message on WebSocket, a wrong stream on WebTransport.
    NotAcceptable,
    /// Nothing was heard for the read timeout, the peer does not read, or a limit is reached.
    Policy,
    /// A message larger than the message buffer.
    TooBig,
    /// Something failed here.
    Internal,
    /// The peer does not take what it is subscribed to fast enough. It should connect again at once, and recover.
    SlowConsumer,
    /// The server wants the client not to come back by itself: [`Connection::dismiss`](crate::server::Connection::dismiss).
    Dismissed,
    /// Any other code of the peer's.
    Other(u32),
    /// The connection was lost without a word.
    Lost,
}

/// Codes of WebSocket from here on are the application's (RFC 6455 section 7.4.2).
const PRIVATE: u16 = 4000;

impl CloseCode {
    /// The code in a WebSocket Close frame (RFC 6455 section 7.4).
    pub const fn websocket(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::Shutdown => 1001,
            Self::Malformed => 1002,
            Self::NotAcceptable => 1003,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            // Try Again Later.
            Self::SlowConsumer => 1013,
            Self::Dismissed => PRIVATE + 0x13,
            Self::Internal | Self::Other(_) | Self::Lost => 1011,
        }
    }

    /// The inverse of [`websocket`](Self::websocket); `None` is a Close without a code. Pages may send few codes, and 4000 + the
    /// session's in the place of others.
    pub const fn from_websocket(code: Option<u16>) -> Self {
        match code {
            None | Some(1000 | 1005) => Self::Normal,
            Some(1001) => Self::Shutdown,
            Some(1002 | 1007) => Self::Malformed,
            Some(1003) => Self::NotAcceptable,
            Some(1006) => Self::Lost,
            Some(1008) => Self::Policy,
            Some(1009) => Self::TooBig,
            Some(1011) => Self::Internal,
            Some(1013) => Self::SlowConsumer,
            Some(other) => match other.checked_sub(PRIVATE) {
                Some(code @ 0..=0x13) => match Self::from_webtransport(code as u32) {
                    Self::Other(_) => Self::Other(other as u32),
                    known => known,
                },
                _ => Self::Other(other as u32),
            },
        }
    }

    /// The code that closes a WebTransport session.
    pub const fn webtransport(self) -> u32 {
        match self {
            Self::Normal => 0,
            Self::Shutdown => 1,
            Self::Malformed => 2,
            Self::NotAcceptable => 3,
            Self::Policy => 4,
            Self::TooBig => 5,
            Self::Internal | Self::Lost => 6,
            Self::SlowConsumer => 0x12,
            Self::Dismissed => 0x13,
            Self::Other(code) => code,
        }
    }

    /// The inverse of [`webtransport`](Self::webtransport).
    pub const fn from_webtransport(code: u32) -> Self {
        match code {
            0 => Self::Normal,
            1 => Self::Shutdown,
            2 => Self::Malformed,
            3 => Self::NotAcceptable,
            4 => Self::Policy,
            5 => Self::TooBig,
            6 => Self::Internal,
            0x12 => Self::SlowConsumer,
            0x13 => Self::Dismissed,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Normal => f.write_str("closed normally"),
            Self::Shutdown => f.write_str("server shutdown"),
            Self::Malformed => f.write_str("malformed message"),
            Self::NotAcceptable => f.write_str("message not acceptable here"),
            Self::Policy => f.write_str("timeout or policy"),
            Self::TooBig => f.write_str("message too big"),
            Self::Internal => f.write_str("internal error"),
            Self::SlowConsumer => f.write_str("slow consumer"),
            Self::Dismissed => f.write_str("dismissed by the server"),
            Self::Other(code) => write!(f, "closed with code {code}"),
            Self::Lost => f.write_str("connection lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CloseCode;

    #[test]
    fn codes_come_back() {
        for code in [
            CloseCode::Normal,
            CloseCode::Shutdown,
            CloseCode::Malformed,
            CloseCode::NotAcceptable,
            CloseCode::Policy,
            CloseCode::TooBig,
            CloseCode::Internal,
            CloseCode::SlowConsumer,
            CloseCode::Dismissed,
        ] {
            assert_eq!(CloseCode::from_websocket(Some(code.websocket())), code);
            assert_eq!(CloseCode::from_webtransport(code.webtransport()), code);
            let of_a_page = 4000 + code.webtransport() as u16;
            assert_eq!(CloseCode::from_websocket(Some(of_a_page)), code);
        }
        assert_eq!(CloseCode::Dismissed.websocket(), 4019);
        for other in [1010, 3000, 3999, 4007, 4017, 4020, 4999] {
            assert_eq!(CloseCode::from_websocket(Some(other)), CloseCode::Other(other.into()));
        }
        assert_eq!(
            CloseCode::from_websocket(None),
            CloseCode::Normal,
            "every browser's close()"
        );
    }
}
