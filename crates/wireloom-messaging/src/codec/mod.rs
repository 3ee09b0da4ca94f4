//! The messages of WebWire 2.0, byte for byte. Borrowed from the input: decoding allocates nothing.
//!
//! A message is what the transport delivers as one; its first byte is its type. There is no length and no fragmentation.
//! How large a message may be is the connection's business ([`AcceptConf::message_buffer_size`]), not the codec's.
//!
//! ```
//! use wireloom_messaging::codec::{Encoding, Message, Name, Payload, RequestId};
//!
//! let bytes = [0x80, 1, 0, 0, 0, 0, 0, 0, 0, 4, b'a', b'u', b't', b'h', b'h', b'i'];
//! let message = Message::decode(&bytes)?;
//! assert_eq!(message, Message::Request {
//!     id: RequestId::from_u64(1),
//!     name: Name::new("auth")?,
//!     payload: Payload::utf8("hi"),
//! });
//! let mut again = Vec::new();
//! message.encode(&mut again)?;
//! assert_eq!(again, bytes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accept_conf;
mod decode;
mod encode;
mod error;
mod name;
mod payload;
mod utf16;

pub use accept_conf::AcceptConf;
pub use error::{DecodeError, EncodeError, TextError};
pub use name::{MAX_NAME, Name, is_printable};
pub use payload::{Encoding, Payload};
pub use utf16::{decode_utf16, encode_utf16};

/// The first byte of every message (section 2).
pub mod kind {
    /// Server to client: the handler answered with an error of the application.
    pub const REPLY_ERROR: u8 = 0;
    /// Server to client: the server shuts down, the request was not handled.
    pub const REPLY_SHUTDOWN: u8 = 1;
    /// Server to client: the handler failed.
    pub const REPLY_INTERNAL_ERROR: u8 = 2;
    /// Server to client: there is no session with that key.
    pub const REPLY_SESSION_NOT_FOUND: u8 = 3;
    /// Server to client: the session has as many connections as it may have.
    pub const REPLY_MAX_SESSION_CONNECTIONS: u8 = 4;
    /// Server to client: the server has no sessions.
    pub const REPLY_SESSIONS_DISABLED: u8 = 5;
    /// Server to client: the connection has a session now.
    pub const SESSION_CREATED: u8 = 21;
    /// Server to client: the connection has no session any more.
    pub const SESSION_CLOSED: u8 = 22;
    /// Server to client: the first message of every connection.
    pub const ACCEPT_CONF: u8 = 23;
    /// Client to server: close the connection's session.
    pub const CLOSE_SESSION: u8 = 31;
    /// Client to server: take up a session.
    pub const RESTORE_SESSION: u8 = 32;
    /// Client to server: still there.
    pub const HEARTBEAT: u8 = 33;
    /// Both ways: a signal with any bytes; 64 and [65](SIGNAL_UTF16) are UTF-8 and UTF-16.
    pub const SIGNAL: u8 = 63;
    /// Both ways: a signal with UTF-16.
    pub const SIGNAL_UTF16: u8 = 65;
    /// Client to server: a request with any bytes; 128 and 129 are UTF-8 and UTF-16.
    pub const REQUEST: u8 = 127;
    /// Server to client: a reply with any bytes; 192 and 193 are UTF-8 and UTF-16.
    pub const REPLY: u8 = 191;
}

/// What ties a reply to its request: eight bytes that the client chose (section 3.1).
///
/// A client keeps them unique among its open requests of one connection. A server gives them back as they came and never
/// takes them for a number: clients in JavaScript put two words of four bytes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 8]);

impl RequestId {
    /// The identifier that a counter gives, little-endian.
    pub const fn from_u64(value: u64) -> Self {
        Self(value.to_le_bytes())
    }

    /// The inverse of [`from_u64`](Self::from_u64).
    pub const fn to_u64(self) -> u64 {
        u64::from_le_bytes(self.0)
    }
}

/// Who may send a message (section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Only clients.
    ToServer,
    /// Only servers.
    ToClient,
    /// Signals.
    Both,
}

/// One message of either direction (section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// The handler answered with an error of the application.
    ReplyError {
        /// Of the request.
        id: RequestId,
        /// 1 to 255 bytes; printable ASCII when sent, anything when received.
        code: &'a [u8],
        /// For people, UTF-8 by convention; may be empty.
        message: &'a [u8],
    },
    /// The server shuts down, the request was not handled.
    ReplyShutdown {
        /// Of the request.
        id: RequestId,
    },
    /// The handler failed; the reason stays with the server.
    ReplyInternalError {
        /// Of the request.
        id: RequestId,
    },
    /// There is no session with that key.
    ReplySessionNotFound {
        /// Of the request.
        id: RequestId,
    },
    /// The session has as many connections as it may have.
    ReplyMaxSessionConnections {
        /// Of the request.
        id: RequestId,
    },
    /// The server has no sessions.
    ReplySessionsDisabled {
        /// Of the request.
        id: RequestId,
    },
    /// The connection has a session now.
    SessionCreated {
        /// The session as JSON (section 9.2), at least one byte.
        session: &'a [u8],
    },
    /// The connection has no session any more.
    SessionClosed,
    /// The first message of every connection.
    AcceptConf(AcceptConf<'a>),
    /// Close the connection's session.
    CloseSession {
        /// Of this request.
        id: RequestId,
    },
    /// Take up a session.
    RestoreSession {
        /// Of this request.
        id: RequestId,
        /// At least one byte.
        key: &'a [u8],
    },
    /// Still there.
    Heartbeat,
    /// One way, without an answer. Name or payload has at least one byte; with UTF-16 the payload has.
    Signal {
        /// May be empty.
        name: Name<'a>,
        /// May be empty.
        payload: Payload<'a>,
    },
    /// Wants exactly one reply. Name or payload has at least one byte.
    Request {
        /// Of this request.
        id: RequestId,
        /// May be empty.
        name: Name<'a>,
        /// May be empty.
        payload: Payload<'a>,
    },
    /// The handler's answer.
    Reply {
        /// Of the request.
        id: RequestId,
        /// May be empty.
        payload: Payload<'a>,
    },
}

impl Message<'_> {
    /// The first byte on the wire.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::ReplyError { .. } => kind::REPLY_ERROR,
            Self::ReplyShutdown { .. } => kind::REPLY_SHUTDOWN,
            Self::ReplyInternalError { .. } => kind::REPLY_INTERNAL_ERROR,
            Self::ReplySessionNotFound { .. } => kind::REPLY_SESSION_NOT_FOUND,
            Self::ReplyMaxSessionConnections { .. } => kind::REPLY_MAX_SESSION_CONNECTIONS,
            Self::ReplySessionsDisabled { .. } => kind::REPLY_SESSIONS_DISABLED,
            Self::SessionCreated { .. } => kind::SESSION_CREATED,
            Self::SessionClosed => kind::SESSION_CLOSED,
            Self::AcceptConf(_) => kind::ACCEPT_CONF,
            Self::CloseSession { .. } => kind::CLOSE_SESSION,
            Self::RestoreSession { .. } => kind::RESTORE_SESSION,
            Self::Heartbeat => kind::HEARTBEAT,
            Self::Signal { payload, .. } => kind::SIGNAL + payload.encoding.offset(),
            Self::Request { payload, .. } => kind::REQUEST + payload.encoding.offset(),
            Self::Reply { payload, .. } => kind::REPLY + payload.encoding.offset(),
        }
    }

    /// Who may send it.
    pub const fn direction(&self) -> Direction {
        match self {
            Self::Signal { .. } => Direction::Both,
            Self::CloseSession { .. } | Self::RestoreSession { .. } | Self::Heartbeat | Self::Request { .. } => {
                Direction::ToServer
            }
            _ => Direction::ToClient,
        }
    }

    /// The identifier, where the message has one.
    pub const fn id(&self) -> Option<RequestId> {
        match *self {
            Self::ReplyError { id, .. }
            | Self::ReplyShutdown { id }
            | Self::ReplyInternalError { id }
            | Self::ReplySessionNotFound { id }
            | Self::ReplyMaxSessionConnections { id }
            | Self::ReplySessionsDisabled { id }
            | Self::CloseSession { id }
            | Self::RestoreSession { id, .. }
            | Self::Request { id, .. }
            | Self::Reply { id, .. } => Some(id),
            _ => None,
        }
    }
}
