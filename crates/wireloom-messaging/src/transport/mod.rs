//! What carries messages: memory, WebSocket, WebTransport.
//!
//! A [`Link`] delivers whole messages, in order and reliably, with back-pressure and an end that says why; that is all that
//! the rest of the crate knows of a transport. What only WebTransport can do (a stream for each request, unordered and
//! unreliable signals, cancellation) has a meaning on every link, and degrades where it must.
//!
//! A link is one object that one task drives, and not a reader and a writer: nothing is shared, locked or woken twice, and
//! an idle connection costs one task.

pub mod memory;
mod signals;
#[cfg(any(feature = "websocket", feature = "webtransport"))]
mod unsent;
#[cfg(feature = "websocket")]
pub mod websocket;
#[cfg(feature = "webtransport")]
pub mod webtransport;

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Range;
use std::task::{Context, Poll};

use bytes::Bytes;

pub use self::signals::Signals;
use crate::codec::RequestId;
use crate::engine::CloseCode;

/// Above so many bytes that the peer has not taken, a link is not [ready](Link::poll_ready) for more.
pub(crate) const HIGH_WATER: usize = 64 * 1024;

/// Where a message came from, and where its reply has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route(u64);

impl Route {
    /// The stream that all messages share, on WebSocket and memory the only one.
    pub const CONTROL: Self = Self(0);

    #[cfg(feature = "webtransport")]
    pub(crate) const fn own(number: u64) -> Self {
        Self(number)
    }

    /// Of a client's request.
    #[cfg(feature = "webtransport")]
    pub(crate) const fn of(id: RequestId) -> Self {
        Self(id.to_u64())
    }

    /// Client: the request whose stream it is.
    #[cfg(feature = "client")]
    pub(crate) const fn request(self) -> RequestId {
        RequestId::from_u64(self.0)
    }
}

/// How a signal travels. Links other than WebTransport's in profile M, which has streams for more than one, treat all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Delivery {
    /// Reliably and in order.
    #[default]
    Ordered,
    /// Reliably; may overtake others and be overtaken.
    Unordered,
    /// At most once, in a datagram; unordered where it does not fit into one.
    Unreliable,
}

/// What a link carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportKind {
    /// Within the process.
    Memory,
    /// RFC 6455.
    WebSocket,
    /// One stream (appendix A, profile S).
    WebTransport,
    /// A stream for each request (profile M).
    WebTransportMulti,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::WebSocket => "WebSocket",
            Self::WebTransport | Self::WebTransportMulti => "WebTransport",
        })
    }
}

/// What a link delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole message.
    Message {
        /// Where the reply has to go.
        route: Route,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Server: the client has given the request of this route up, nobody waits for its reply. Client: none will come.
    Cancelled(Route),
    /// Something that is no message, and shows that the peer is alive.
    Activity,
    /// The server asks the client to go elsewhere soon.
    Draining,
}

/// The end of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
pub struct Ended {
    /// Whose code it is depends: the peer's if it closed, ours if it broke a rule of the transport.
    pub code: CloseCode,
    /// Details, for people.
    pub reason: String,
    /// Whether the peer is to be told `code`: it broke a rule.
    pub violation: bool,
}

impl Ended {
    /// The peer closed, or the connection was lost.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            violation: false,
        }
    }

    /// The peer broke a rule and is to be told.
    pub fn violation(code: CloseCode, reason: impl Into<String>) -> Self {
        Self {
            violation: true,
            ..Self::new(code, reason)
        }
    }

    pub(crate) fn lost(reason: impl fmt::Display) -> Self {
        Self::new(CloseCode::Lost, reason.to_string())
    }
}

/// One end of a connection that carries whole messages. Driven by one task; dropping it cuts the connection off.
pub trait Link: Send {
    /// The next thing that arrives. If no message is wanted, back-pressure applies to the peer: only cancellations and the
    /// end need to be delivered.
    fn poll_recv(&mut self, cx: &mut Context<'_>, want: bool) -> Poll<Result<Incoming, Ended>>;

    /// Waits until the peer has taken enough for one more message. Writes what it can on the way.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>>;

    /// Queues a message, after [`poll_ready`](Self::poll_ready). A reply ends its route.
    ///
    /// # Errors
    /// The link has ended.
    fn send(&mut self, route: Route, message: Bytes) -> Result<(), Ended>;

    /// Queues a signal, after [`poll_ready`](Self::poll_ready).
    ///
    /// # Errors
    /// The link has ended.
    fn send_signal(&mut self, message: Bytes, delivery: Delivery) -> Result<(), Ended> {
        let _ = delivery;
        self.send(Route::CONTROL, message)
    }

    /// Queues some of these signals, in order, after [`poll_ready`](Self::poll_ready): they are the same for many links.
    ///
    /// # Errors
    /// The link has ended.
    ///
    /// # Panics
    /// The range is not within the signals.
    fn send_signals(&mut self, signals: &Signals, range: Range<usize>) -> Result<(), Ended> {
        let messages = signals.messages()[range].iter();
        messages
            .cloned()
            .try_for_each(|message| self.send(Route::CONTROL, message))
    }

    /// Waits until everything that was queued has been handed to the network.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>>;

    /// Says good-bye after all that was queued, and waits until the peer has heard it or is gone. The first code counts.
    fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode, reason: &str) -> Poll<()>;

    /// Client: nobody waits for this reply any more. Reaches the handler where the transport can tell.
    fn cancel(&mut self, id: RequestId) {
        let _ = id;
    }

    /// Server: asks the client to go elsewhere soon, where the transport can tell.
    fn drain(&mut self) {}

    /// The largest message to be received, in bytes: what is larger ends the link.
    fn set_message_limit(&mut self, limit: usize);

    /// Client: called at intervals. `false` when nothing has come from the server since the call before the last, although that asked
    /// for a sign of life. Always `true` where the transport watches by itself, as QUIC does.
    fn check_alive(&mut self) -> bool {
        true
    }

    /// Grows with the bytes that the network has taken, also within a message, where the transport can tell: who takes a large one bit by
    /// bit is not stuck.
    fn taken(&self) -> u64 {
        0
    }

    /// Whether part of a message has arrived since the last whole one.
    fn is_receiving(&self) -> bool {
        false
    }

    /// Where the peer is.
    fn remote_address(&self) -> Option<SocketAddr> {
        None
    }

    /// What carries it.
    fn kind(&self) -> TransportKind;
}

/// The next thing that arrives. Cancel safe.
///
/// # Errors
/// The link has ended.
pub async fn recv(link: &mut (impl Link + ?Sized)) -> Result<Incoming, Ended> {
    poll_fn(|cx| link.poll_recv(cx, true)).await
}

/// Sends one message and flushes it. Not cancel safe.
///
/// # Errors
/// The link has ended.
pub async fn send(link: &mut (impl Link + ?Sized), message: Bytes) -> Result<(), Ended> {
    poll_fn(|cx| link.poll_ready(cx)).await?;
    link.send(Route::CONTROL, message)?;
    poll_fn(|cx| link.poll_flush(cx)).await
}

/// Closes the link in good order.
pub async fn close(link: &mut (impl Link + ?Sized), code: CloseCode, reason: &str) {
    poll_fn(|cx| link.poll_close(cx, code, reason)).await;
}
