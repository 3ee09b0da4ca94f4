//! Why there is no session.

use std::io;

use crate::error::{ConnectionError, SessionError};
use crate::tls::{CertificateRejection, TrustError};

/// Why a session could not be opened, by whose fault it was. Where several addresses were tried, it is the error that tells most:
/// that of a refused certificate before that of a connection, and this before [`Unreachable`](Self::Unreachable).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The caller's: not `https://host[:port]/path`.
    #[error("invalid URL: {0}")]
    InvalidUrl(&'static str),
    /// The caller's: a field or a subprotocol that may not be sent.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// The name cannot be resolved, or not in time (the source is of kind `TimedOut` then).
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No socket can be bound here.
    #[error("no UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// TLS cannot be set up here: no roots, no cipher suite.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] TrustError),
    /// No answer at all: nobody listens there, no way leads there, or UDP is blocked on it.
    #[error("no answer over UDP")]
    Unreachable,
    /// The server's certificate is not trusted.
    #[error(transparent)]
    Certificate(#[from] CertificateRejection),
    /// The connection failed. With [`HandshakeTimedOut`](ConnectionError::HandshakeTimedOut) the server was heard of, but did not get
    /// to its SETTINGS in time.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The server speaks HTTP/3, but no WebTransport in a dialect that is enabled here.
    #[error("the server does not speak WebTransport")]
    NotWebTransport,
    /// The server answered with another status than 2xx. Redirections are reported, never followed: data could have been
    /// sent already (draft-ietf-webtrans-http3-16 section 3.2).
    #[error("the server answered {}", .0.status())]
    Rejected(
        /// Status and fields.
        Box<http::Response<()>>,
    ),
    /// The session ended before it was established. With code WT_ALPN_ERROR: the server chose a subprotocol that was not
    /// offered, or none where one is [required](crate::SessionBuilder::require_protocol).
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No more sessions or streams on this connection now.
    #[error("no more sessions are possible on this connection")]
    NoMoreSessions,
}
