//! What can go wrong for a client, and whether trying again helps.

use std::sync::Arc;

use crate::engine::{CloseCode, Rejected, SendError};
use crate::transport::Ended;

/// Why there is no connection.
///
/// [`is_final`](Self::is_final) splits them in two: what another attempt will not change, after which the client is closed, and
/// everything else, after which it tries again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL names nothing that can be dialled, or the client's settings lack something for it. Final.
    #[error("{0}")]
    Unusable(String),
    /// The server refused: it has nothing here, or nothing for this client. Final.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server's certificate is not trusted. Final.
    #[error("the server's certificate is not trusted: {0}")]
    Certificate(String),
    /// The server says things that this client does not understand or want. Final if [`Rejected::is_final`] is.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Nobody answers, or the network fails.
    #[error("{0}")]
    Unreachable(String),
    /// The server accepted the connection and ended it before it was usable.
    #[error("the server ended the connection: {0}")]
    Ended(Ended),
    /// The server has dismissed this client, for this reason: it is not to come back by itself. Final.
    #[error("dismissed by the server{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Dismissed {
        /// What the server says about it; may be empty.
        reason: String,
    },
    /// It took too long.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The session could not be restored now, and may be later.
    #[error("the session was not restored: {0}")]
    Restore(&'static str),
    /// WebTransport failed with the first, and WebSocket with the second. Final if both are.
    #[error("over WebTransport: {0}; over WebSocket: {1}")]
    Both(Arc<Self>, Arc<Self>),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ConnectError {
    /// Whether trying again is of no use.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unusable(_) | Self::Refused(_) | Self::Certificate(_) | Self::Dismissed { .. } | Self::Closed => true,
            Self::Rejected(rejected) => rejected.is_final(),
            Self::Both(first, second) => first.is_final() && second.is_final(),
            Self::Unreachable(_) | Self::Ended(_) | Self::TimedOut | Self::Restore(_) => false,
        }
    }
}

impl From<Ended> for ConnectError {
    fn from(ended: Ended) -> Self {
        match ended.code {
            CloseCode::Dismissed => Self::Dismissed { reason: ended.reason },
            _ => Self::Ended(ended),
        }
    }
}

/// Why a request has no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The handler answered with this error.
    #[error("{code}{}{message}", if message.is_empty() { "" } else { ": " })]
    Application {
        /// Of the application, printable ASCII.
        code: String,
        /// For people; may be empty.
        message: String,
    },
    /// The handler failed; the server keeps the reason for itself.
    #[error("the server failed to handle the request")]
    Internal,
    /// The server shuts down and did not handle the request.
    #[error("the server is shutting down")]
    Shutdown,
    /// There is no session with that key.
    #[error("there is no such session")]
    SessionNotFound,
    /// The session has as many connections as it may have.
    #[error("the session has as many connections as it may have")]
    MaxSessionConnections,
    /// The server has no sessions.
    #[error("the server has no sessions")]
    SessionsDisabled,
    /// The deadline passed. The server may have handled the request, or not.
    #[error("the deadline has passed")]
    TimedOut,
    /// The connection was lost after the request was sent, or closed by this client. The server may have handled it, or not.
    #[error("the connection was lost: {0}")]
    Disconnected(Ended),
    /// It was not sent: it breaks the protocol's rules, or is larger than the server's message buffer.
    #[error(transparent)]
    Invalid(#[from] SendError),
    /// It was not sent, over any connection: the client is closed, by its application or by a final error.
    #[error("the client is closed: {0}")]
    Closed(ConnectError),
    /// The server's answer is not what the protocol says.
    #[error("the server's answer is not what it has to be")]
    BadReply,
    /// It was not sent: what was given cannot be written as JSON.
    #[error("what was given cannot be written as JSON")]
    BadJson,
    /// The server's answer is no session object.
    #[error("the server's answer is no session")]
    BadSession,
}

impl RequestError {
    /// Whether the same request may succeed when it is sent again, later.
    ///
    /// That does not say that it is harmless to: see [`may_have_been_handled`](Self::may_have_been_handled).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Shutdown | Self::TimedOut | Self::Disconnected(_) | Self::MaxSessionConnections => true,
            Self::Invalid(error) => matches!(error, SendError::NotAccepted),
            Self::Application { .. }
            | Self::Internal
            | Self::SessionNotFound
            | Self::SessionsDisabled
            | Self::Closed(_)
            | Self::BadReply
            | Self::BadJson
            | Self::BadSession => false,
        }
    }

    /// Whether the server may have handled the request although there is no reply.
    pub fn may_have_been_handled(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Disconnected(_) | Self::Internal)
    }
}

impl From<crate::codec::EncodeError> for RequestError {
    fn from(error: crate::codec::EncodeError) -> Self {
        Self::Invalid(error.into())
    }
}
