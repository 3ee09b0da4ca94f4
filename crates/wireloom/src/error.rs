//! What can go wrong, one type per operation, each saying whose fault it is. `io_error.rs` makes errors of `std::io` of them.

use wireloom_proto::Code;

use crate::quic::LostReason;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer closed it with an HTTP/3 code (H3_NO_ERROR is an ordinary end).
    #[error("the peer closed the connection: {code}{}", detail(reason))]
    ClosedByPeer {
        /// RFC 9114 section 8.1.
        code: Code,
        /// What the peer said, if it is text.
        reason: String,
    },
    /// The peer's QUIC or TLS layer gave up; 0x100 + n is TLS alert n (RFC 9001 section 4.8).
    #[error("the peer aborted the connection with QUIC error {code:#x}{}", detail(reason))]
    AbortedByPeer {
        /// RFC 9000 section 20.1.
        code: u64,
        /// What the peer said, if it is text.
        reason: String,
    },
    /// QUIC or TLS failed on this side, because of what the peer sent.
    #[error("QUIC failed: {reason}")]
    Transport {
        /// RFC 9000 section 20.1.
        code: u64,
        /// Which rule.
        reason: String,
    },
    /// The peer broke a rule of HTTP/3 or WebTransport; we closed the connection with `code`.
    #[error("the peer broke the protocol ({code}): {reason}")]
    Protocol {
        /// What we sent.
        code: Code,
        /// Which rule.
        reason: &'static str,
    },
    /// The peer does not know the connection any more: it restarted (stateless reset).
    #[error("the peer forgot the connection")]
    Reset,
    /// Nothing came from the peer for the idle timeout.
    #[error("timed out: nothing came from the peer")]
    TimedOut,
    /// The handshake or the peer's SETTINGS took longer than the deadline.
    #[error("the handshake took too long")]
    HandshakeTimedOut,
    /// No version of QUIC in common.
    #[error("the peer speaks no common version of QUIC")]
    VersionMismatch,
    /// Closed on this side.
    #[error("the connection was closed locally")]
    LocallyClosed,
    /// The endpoint's task is gone, as when its runtime was shut down.
    #[error("the endpoint is gone")]
    EndpointGone,
}

/// The peer's words, without what would steer a terminal or forge lines of a log. The field of the error has them as they came.
fn detail(reason: &str) -> String {
    if reason.is_empty() {
        return String::new();
    }
    let mut text = String::from(" (");
    for c in reason.chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push(')');
    text
}

impl From<LostReason> for ConnectionError {
    fn from(reason: LostReason) -> Self {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        match reason {
            LostReason::ClosedByPeer { code, reason } => Self::ClosedByPeer {
                code,
                reason: text(&reason),
            },
            LostReason::PeerTransport { code, reason } => Self::AbortedByPeer {
                code,
                reason: text(&reason),
            },
            LostReason::Transport { code, reason } => Self::Transport { code, reason },
            LostReason::Reset => Self::Reset,
            LostReason::TimedOut => Self::TimedOut,
            LostReason::Version => Self::VersionMismatch,
            LostReason::Local => Self::LocallyClosed,
        }
    }
}

/// Why a session is over, or could not do what was asked because it is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer closed the session (WT_CLOSE_SESSION, or a clean end of the CONNECT stream, which means code 0).
    #[error("the peer closed the session with code {code}{}", detail(reason))]
    Closed {
        /// The application's code.
        code: u32,
        /// The application's reason, at most 1024 bytes.
        reason: String,
    },
    /// Closed on this side, by `close` or by dropping the last handle.
    #[error("the session was closed locally with code {code}")]
    LocallyClosed {
        /// The code that was given to `close`.
        code: u32,
        /// The reason as sent.
        reason: String,
    },
    /// The peer reset the CONNECT stream without closing the session.
    #[error("the peer reset the session: {code}")]
    Reset {
        /// The HTTP/3 code.
        code: Code,
    },
    /// The peer stopped reading the CONNECT stream (STOP_SENDING) without closing the session.
    #[error("the peer stopped the session: {code}")]
    Stopped {
        /// The HTTP/3 code.
        code: Code,
    },
    /// Client: the server did not accept the session, in which streams were opened early.
    #[error("the server answered {status}")]
    Rejected {
        /// The final status, not 2xx.
        status: http::StatusCode,
    },
    /// The peer broke a rule of the session; it was reset with `code`.
    #[error("the peer broke the session ({code}): {reason}")]
    PeerMisbehaved {
        /// What we sent.
        code: Code,
        /// Which rule.
        reason: &'static str,
    },
    /// The connection under it ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl SessionError {
    /// Whether somebody ended the session on purpose, by closing it.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::LocallyClosed { .. })
    }

    /// The application's code, if either side closed the session with one: 0 where it gave none.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Closed { code, .. } | Self::LocallyClosed { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The application's reason, if either side closed the session; it may be empty.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Closed { reason, .. } | Self::LocallyClosed { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// Why reading a stream failed. The end of a stream is not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer reset the stream: what was read before is a prefix of what it meant to send.
    #[error("the peer reset the stream{}", code_text(*.0))]
    Reset(
        /// The application's code, `None` if the peer sent one outside the application's range.
        Option<u32>,
    ),
    /// This side called `stop`.
    #[error("reading was stopped locally")]
    Stopped,
    /// The session or its connection is over.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl ReadError {
    /// The application's code with which the peer reset the stream.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Reset(code) => *code,
            _ => None,
        }
    }
}

/// Why writing a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer wants no more of the stream (STOP_SENDING). The stream has been reset.
    #[error("the peer stopped the stream{}", code_text(*.0))]
    Stopped(
        /// The application's code, `None` if the peer sent one outside the application's range.
        Option<u32>,
    ),
    /// This side finished or reset the stream before.
    #[error("the stream was finished or reset locally")]
    Finished,
    /// The session or its connection is over.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl WriteError {
    /// The application's code with which the peer stopped the stream.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Stopped(code) => *code,
            _ => None,
        }
    }
}

fn code_text(code: Option<u32>) -> String {
    code.map_or_else(String::new, |code| format!(" with code {code}"))
}

/// Why reading a stream to its end failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadToEndError {
    /// The stream holds more than the limit.
    #[error("the stream is longer than the limit")]
    TooLong,
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// Larger than the path or the peer takes now.
    #[error("the datagram is larger than the {max} bytes that fit")]
    TooLarge {
        /// What fits now, in bytes of payload.
        max: usize,
    },
    /// The peer takes no datagrams.
    #[error("the peer takes no datagrams")]
    Unsupported,
    /// The session or its connection is over.
    #[error(transparent)]
    Session(#[from] SessionError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_words_neither_steer_a_terminal_nor_forge_lines() {
        let reason = "bye\u{1b}[31m\n2026 INFO all is well, \u{fc}brigens";
        let error = SessionError::Closed {
            code: 7,
            reason: reason.into(),
        };
        let text = error.to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.ends_with("2026 INFO all is well, \u{fc}brigens)"), "{text}");
        assert_eq!(error.reason(), Some(reason));
    }
}
