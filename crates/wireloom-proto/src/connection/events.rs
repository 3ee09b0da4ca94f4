//! What crosses the border of the core: actions for QUIC, events for the application, answers, refusals.

use bytes::Bytes;
use http::HeaderMap;

use crate::codes::Code;
use crate::h3::headers::HeaderError;
use crate::h3::priority::Priority;
use crate::h3::settings::Settings;
use crate::stream_id::{Dir, SessionId, StreamId};
use crate::webtransport::negotiate::Dialect;

/// What the QUIC handshake told of the peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerTransport {
    /// max_datagram_frame_size > 0 (RFC 9221 section 3).
    pub datagrams: bool,
    /// The reset_stream_at transport parameter.
    pub reset_stream_at: bool,
}

/// The unidirectional streams that each endpoint opens first (RFC 9114 section 6.2, RFC 9204 section 4.2).
#[derive(Debug, Clone, Copy)]
pub struct OwnStreams {
    /// The control stream.
    pub control: StreamId,
    /// The QPACK encoder stream.
    pub qpack_encoder: StreamId,
    /// The QPACK decoder stream.
    pub qpack_decoder: StreamId,
}

/// What to do with a stream after [`Connection::recv`](super::Connection::recv).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Recv {
    /// Read on.
    Continue,
    /// Taken. A CONNECT stream: read no more until [`Event::Resume`] (early capsules, or a header section that waits for
    /// QPACK's encoder stream). A request stream: the call yielded a head, body or trailers; read on when the application wants
    /// more, unless the stream [waits for QPACK](super::Connection::is_blocked). Nothing breaks if the caller reads on at once,
    /// but what it reads is kept.
    Pause,
    /// A WebTransport stream of an open session. `payload` is what followed the header (may be empty); the rest, if the
    /// call was not `fin`, is read from QUIC directly.
    WebTransport {
        /// Whose stream it is.
        session: SessionId,
        /// The bytes after the header.
        payload: Bytes,
    },
    /// A WebTransport stream whose session is not known yet. Read no more; [`Event::Stream`] hands it out later, or an
    /// [`Action`] rejects it.
    Parked,
    /// Nothing more of this stream is wanted.
    Done,
}

/// What QUIC has to do. Actions of one stream are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write `data` on `stream`, then FIN if `fin`.
    Write {
        /// The stream.
        stream: StreamId,
        /// May be empty where only FIN is meant.
        data: Bytes,
        /// Whether the send side ends here.
        fin: bool,
    },
    /// Reset the send side (RESET_STREAM). A no-op where it is closed already.
    Reset {
        /// The stream.
        stream: StreamId,
        /// The HTTP/3 error code.
        code: Code,
    },
    /// Stop reading (STOP_SENDING). A no-op where the receive side is closed already.
    StopSending {
        /// The stream.
        stream: StreamId,
        /// The HTTP/3 error code.
        code: Code,
    },
    /// Close the connection. Nothing comes after it, not even [`Event::SessionClosed`]: the caller ends what is open.
    Close {
        /// The HTTP/3 error code.
        code: Code,
        /// For the log and the CONNECTION_CLOSE frame.
        reason: &'static str,
    },
}

/// What the application has to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The peer's SETTINGS arrived. Client: sessions may be requested now if `dialect` is `Some`.
    Ready {
        /// As received, unknown identifiers included.
        settings: Settings,
        /// The WebTransport dialect that both ends speak, `None` if the peer lacks what WebTransport requires.
        dialect: Option<Dialect>,
    },
    /// Server: an ordinary request's header section. The body follows as `Data`, `Trailers` and `Finished`, but only as far
    /// as the caller goes on calling `recv`.
    Request {
        /// The request stream.
        stream: StreamId,
        /// Method, URI, fields. HTTP version 3.
        head: Box<http::Request<()>>,
        /// `:protocol`, where this is an extended CONNECT: `websocket`, after [`Config::websocket`](super::Config::websocket).
        protocol: Option<String>,
    },
    /// Server: a WebTransport CONNECT that passed every protocol check. Answer with `accept_session` or `reject_session`.
    SessionRequested {
        /// The session it will be.
        session: SessionId,
        /// Method CONNECT, URI with scheme and authority, fields.
        head: Box<http::Request<()>>,
        /// What the client offers in WT-Available-Protocols, in its order of preference. None of more than 64.
        protocols: Vec<String>,
        /// The dialect in which the session will speak.
        dialect: Dialect,
    },
    /// Client: a response's header section, interim (1xx) or final.
    Response {
        /// The request stream.
        stream: StreamId,
        /// Status and fields.
        head: Box<http::Response<()>>,
    },
    /// A piece of a message body.
    Data {
        /// The request stream.
        stream: StreamId,
        /// A slice of what `recv` was given.
        data: Bytes,
    },
    /// The trailer section.
    Trailers {
        /// The request stream.
        stream: StreamId,
        /// Its fields.
        trailers: HeaderMap,
    },
    /// The message is complete (FIN after a well-formed message).
    Finished {
        /// The request stream.
        stream: StreamId,
    },
    /// The message was cut short or malformed: nothing more of it follows, and where it is not `by_peer` no event of the stream.
    /// Where it is, this end may still be sending, so [`Event::SendStopped`] and [`Event::Priority`] may follow.
    MessageFailed {
        /// The request stream.
        stream: StreamId,
        /// The peer's code if `by_peer`, else what we sent.
        code: Code,
        /// Whether the peer reset the stream itself, or said in GOAWAY that it will not process the request.
        by_peer: bool,
    },
    /// The peer asked us to stop sending on a request stream.
    SendStopped {
        /// The request stream.
        stream: StreamId,
        /// Its code.
        code: Code,
    },
    /// Client: the server accepted the session.
    SessionEstablished {
        /// The session.
        session: SessionId,
        /// Status and fields.
        head: Box<http::Response<()>>,
        /// The server's choice among the offered protocols.
        protocol: Option<String>,
    },
    /// Client: the server did not accept the session (any non-2xx final status; 3xx is never followed).
    SessionRejected {
        /// The session that will not be.
        session: SessionId,
        /// Status and fields.
        head: Box<http::Response<()>>,
        /// Streams that were opened in it already and have been reset by actions.
        streams: Vec<StreamId>,
    },
    /// A stream that waited for its session ([`Recv::Parked`]). If the session ended at once, with capsules that had waited
    /// too, actions have reset the stream already and [`Event::SessionClosed`] follows.
    Stream {
        /// Whose it is.
        session: SessionId,
        /// The stream.
        stream: StreamId,
        /// What followed the header.
        payload: Bytes,
        /// Whether FIN was already received.
        fin: bool,
    },
    /// A datagram that waited for its session.
    Datagram {
        /// Whose it is.
        session: SessionId,
        /// The payload.
        payload: Bytes,
    },
    /// The peer asks that the session be ended soon (WT_DRAIN_SESSION or GOAWAY).
    SessionDraining {
        /// The session.
        session: SessionId,
    },
    /// The session is over. Its streams that were still open have been reset by actions and are listed here, so that their
    /// readers and writers can be woken.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Why.
        end: SessionEnd,
        /// Its streams that this ended.
        streams: Vec<StreamId>,
    },
    /// The peer allows more streams in a session, after [`CommandError::Blocked`].
    SessionStreamsAvailable {
        /// The session.
        session: SessionId,
        /// Of which direction.
        dir: Dir,
    },
    /// The peer allows more bytes in a session, after [`Connection::data_blocked`](super::Connection::data_blocked).
    SessionDataAvailable {
        /// The session.
        session: SessionId,
    },
    /// A request or session has another priority than the default, or than it had: what either end said about it, in fields
    /// or PRIORITY_UPDATE, merged (RFC 9218 section 8). Follows the event that tells of the request.
    Priority {
        /// The request or CONNECT stream.
        stream: StreamId,
        /// What it is now.
        priority: Priority,
    },
    /// Read a paused stream again.
    Resume {
        /// The stream.
        stream: StreamId,
    },
    /// The peer sent GOAWAY: streams from `id` on will not be processed (RFC 9114 section 5.2).
    GoAway {
        /// The first stream (or push) that is not processed.
        id: u64,
    },
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// WT_CLOSE_SESSION from the peer, or a clean FIN, which means code 0 and no reason.
    ClosedByPeer {
        /// The application's code.
        code: u32,
        /// The application's reason, at most 1024 bytes.
        reason: String,
    },
    /// Our own `close_session`.
    ClosedByUs {
        /// The application's code.
        code: u32,
        /// The application's reason as sent.
        reason: String,
    },
    /// The peer reset the CONNECT stream.
    ResetByPeer {
        /// The HTTP/3 code.
        code: Code,
    },
    /// The peer reads no more of the CONNECT stream (STOP_SENDING).
    StoppedByPeer {
        /// The HTTP/3 code.
        code: Code,
    },
    /// The peer broke a rule of the session; the CONNECT stream was reset with `code`.
    PeerMisbehaved {
        /// What we sent.
        code: Code,
        /// What it did, for the log.
        reason: &'static str,
    },
}

/// A request that the application makes (client).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionRequest {
    /// `:authority`.
    pub authority: String,
    /// `:path`, with the query.
    pub path: String,
    /// `origin`.
    pub origin: Option<String>,
    /// Offered in WT-Available-Protocols, most preferred first.
    pub protocols: Vec<String>,
    /// Whether a session without one of these is of no use: it is then closed with WT_ALPN_ERROR. Default false.
    pub requires_protocol: bool,
    /// More fields. A WT-Available-Protocols among them is dropped.
    pub headers: HeaderMap,
}

impl SessionRequest {
    /// A request without origin, protocols and extra fields.
    pub fn new(authority: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            authority: authority.into(),
            path: path.into(),
            origin: None,
            protocols: Vec::new(),
            requires_protocol: false,
            headers: HeaderMap::new(),
        }
    }
}

/// Why a command was refused. All of them are the caller's or the connection's state, never the peer's data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The peer's SETTINGS have not arrived; wait for [`Event::Ready`].
    #[error("the peer's SETTINGS have not arrived yet")]
    NotReady,
    /// The peer does not speak WebTransport in a dialect that is enabled here.
    #[error("the peer does not support WebTransport")]
    Unsupported,
    /// No more sessions on this connection (the dialect, `max_sessions` or GOAWAY).
    #[error("no more sessions are possible on this connection")]
    NoMoreSessions,
    /// The peer's limit on streams of the session is reached; wait for [`Event::SessionStreamsAvailable`].
    #[error("the peer allows no more streams in this session for now")]
    Blocked,
    /// No such session, or it is over.
    #[error("the session is closed")]
    SessionClosed,
    /// No such request stream, or it cannot send this now.
    #[error("the stream cannot take this now")]
    InvalidState,
    /// A header field that may not be sent, a bad path, a protocol that is no structured-field string.
    #[error("invalid message: {0}")]
    InvalidMessage(&'static str),
    /// A header section that HTTP/3 cannot carry.
    #[error("invalid message: {0}")]
    InvalidHeaders(#[from] HeaderError),
    /// The peer sent GOAWAY or we did: no more requests on this connection.
    #[error("the connection is going away")]
    GoingAway,
    /// The body is longer or shorter than its Content-Length.
    #[error("the body does not match its Content-Length")]
    ContentLength,
}
