//! Messages over WebTransport (appendix A): on one stream that the client opens (profile S), or with a stream for each
//! request beside it (profile M).

mod close;
mod control;
mod framing;
mod multi;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Range;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use wireloom::{Session, SessionError};

use self::close::Closing;
use self::control::Control;
use self::multi::Multi;
use super::{Delivery, Ended, Incoming, Link, Route, Signals, TransportKind};
use crate::codec::{Message, RequestId, kind};
use crate::engine::CloseCode;

/// The subprotocol that asks for profile S (WT-Available-Protocols).
pub const PROTOCOL_S: &str = "webwire.v2";

/// The subprotocol that asks for profile M.
pub const PROTOCOL_M: &str = "webwire.v2m";

/// The code of a stream whose request was given up.
pub const CANCELLED: u32 = 0x10;

/// The code of a stream whose request took too long.
pub const DEADLINE_EXCEEDED: u32 = 0x11;

/// How long a client may take to open its control stream.
const PREFACE_DEADLINE: Duration = Duration::from_secs(10);

/// How messages share a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// One stream for everything.
    Single,
    /// A stream for each request: they do not wait for each other, and can be cancelled.
    #[default]
    Multi,
}

impl Profile {
    /// What a session has agreed on: `M` by its subprotocol, or by the query `wwr=2m` where the client's library has no
    /// subprotocols.
    pub fn of(protocol: Option<&str>, query: Option<&str>) -> Self {
        let asked = query.is_some_and(|query| query.split('&').any(|pair| pair == "wwr=2m"));
        if protocol == Some(PROTOCOL_M) || (protocol.is_none() && asked) {
            Self::Multi
        } else {
            Self::Single
        }
    }
}

/// One end of a session that carries messages. Dropping it closes the session with code 0.
pub struct WebTransportLink {
    session: Session,
    control: Control,
    multi: Option<Multi>,
    limit: usize,
    closing: Closing,
    is_client: bool,
}

/// Takes a session that a client has opened: waits for its control stream and the preface on it. Messages of more than
/// `limit` bytes end the link.
///
/// # Errors
/// The client said nothing for ten seconds or something else, and the session was closed; or it ended.
pub async fn accept(session: Session, profile: Profile, limit: usize) -> Result<WebTransportLink, Ended> {
    let preface = async {
        let (send, recv) = session.accept_bi().await.map_err(|error| ended(&error))?;
        let mut control = Control::new(send, recv);
        let first = poll_fn(|cx| control.poll_recv(cx, limit)).await?;
        match first.as_deref().map(Message::decode) {
            Some(Ok(Message::Heartbeat)) => Ok(control),
            _ => Err(Ended::violation(CloseCode::Malformed, "no preface")),
        }
    };
    let preface = tokio::time::timeout(PREFACE_DEADLINE, preface).await;
    let preface = preface.unwrap_or_else(|_| Err(Ended::violation(CloseCode::Policy, "no preface in time")));
    match preface {
        Ok(control) => Ok(WebTransportLink::new(session, control, profile, limit, false)),
        Err(ended) => {
            session.close(ended.code.webtransport(), &ended.reason);
            Err(ended)
        }
    }
}

/// Takes a session that this client has opened: opens the control stream with the preface. The server must have agreed to
/// the profile, as [`Profile::of`] tells.
///
/// # Errors
/// The session has ended.
pub async fn connect(session: Session, profile: Profile, limit: usize) -> Result<WebTransportLink, Ended> {
    let (send, recv) = session.open_bi().await.map_err(|error| ended(&error))?;
    let mut control = Control::new(send, recv);
    control.send(&[kind::HEARTBEAT]);
    poll_fn(|cx| control.poll_flush(cx)).await?;
    Ok(WebTransportLink::new(session, control, profile, limit, true))
}

impl WebTransportLink {
    fn new(session: Session, control: Control, profile: Profile, limit: usize, is_client: bool) -> Self {
        control.make_urgent();
        let multi = match profile {
            Profile::Single => None,
            Profile::Multi => Some(Multi::new(session.clone(), is_client, limit)),
        };
        let closing = if is_client {
            Closing::with_draining(&session)
        } else {
            Closing::default()
        };
        Self {
            session,
            control,
            multi,
            limit,
            closing,
            is_client,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn is_over(&self) -> bool {
        self.session.close_reason().is_some()
    }
}

/// What the end of a session means to a link.
fn ended(error: &SessionError) -> Ended {
    match error {
        SessionError::Closed { code, reason } => Ended::new(CloseCode::from_webtransport(*code), reason.clone()),
        error => Ended::lost(error),
    }
}

impl Link for WebTransportLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>, want: bool) -> Poll<Result<Incoming, Ended>> {
        if self.closing.poll_draining(cx, &self.session).is_ready() {
            return Poll::Ready(Ok(Incoming::Draining));
        }
        // The control stream first: it is urgent, and may not starve behind requests.
        if want && self.closing.control_ended.is_none() {
            match self.control.poll_recv(cx, self.limit) {
                Poll::Ready(Ok(Some(bytes))) => {
                    return Poll::Ready(Ok(Incoming::Message {
                        route: Route::CONTROL,
                        bytes,
                    }));
                }
                Poll::Ready(Ok(None)) => self.closing.control_ended = Some(Ended::new(CloseCode::Normal, "")),
                Poll::Ready(Err(ended)) => self.closing.control_ended = Some(ended),
                Poll::Pending => {}
            }
        }
        if let Some(multi) = &mut self.multi
            && let Poll::Ready(incoming) = multi.poll_recv(cx, want)
        {
            return Poll::Ready(incoming);
        }
        let Some(control) = self.closing.control_ended.clone() else {
            // The end must be noticed even if nothing is read.
            return if want {
                Poll::Pending
            } else {
                self.closing.poll_session(cx, &self.session).map(Err)
            };
        };
        if control.violation {
            return Poll::Ready(Err(control));
        }
        if self.is_client && self.multi.as_ref().is_some_and(Multi::has_requests) && !self.is_over() {
            // Replies on streams of their own may still be on their way.
            return self.closing.poll_session(cx, &self.session).map(Err);
        }
        // Who began waits for this before it closes the session, and then says why.
        self.control.finish();
        let reason = ready!(self.closing.poll_reason(cx, &self.session));
        Poll::Ready(Err(reason.unwrap_or(control)))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if let Some(multi) = &mut self.multi
            && !multi.has_room()
        {
            multi.poll_write(cx);
            if !multi.has_room() {
                return Poll::Pending;
            }
        }
        self.control.poll_ready(cx)
    }

    fn send(&mut self, route: Route, message: Bytes) -> Result<(), Ended> {
        if let Some(multi) = &mut self.multi {
            let is_request = matches!(message.first(), Some(kind::REQUEST..=129));
            if self.is_client && is_request {
                multi.request(message);
                return Ok(());
            }
            if route != Route::CONTROL {
                if let Some(message) = multi.answer(route, message) {
                    self.control.send(&message);
                }
                return Ok(());
            }
        }
        self.control.send(&message);
        Ok(())
    }

    fn send_signal(&mut self, message: Bytes, delivery: Delivery) -> Result<(), Ended> {
        if let Some(multi) = &mut self.multi
            && delivery != Delivery::Ordered
            && multi.signal(&message, delivery)
        {
            return Ok(());
        }
        self.send(Route::CONTROL, message)
    }

    fn send_signals(&mut self, signals: &Signals, range: Range<usize>) -> Result<(), Ended> {
        self.control.send_framed(&signals.webtransport(range));
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if let Some(multi) = &mut self.multi {
            multi.poll_write(cx);
        }
        self.control.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode, reason: &str) -> Poll<()> {
        close::poll_close(self, cx, code, reason)
    }

    fn cancel(&mut self, id: RequestId) {
        if let Some(multi) = &mut self.multi {
            multi.cancel(id);
        }
    }

    fn drain(&mut self) {
        self.session.drain();
    }

    fn set_message_limit(&mut self, limit: usize) {
        self.limit = limit;
        if let Some(multi) = &mut self.multi {
            multi.set_limit(limit);
        }
    }

    fn taken(&self) -> u64 {
        self.control.taken() + self.multi.as_ref().map_or(0, Multi::taken)
    }

    fn is_receiving(&self) -> bool {
        self.control.is_receiving()
    }

    fn remote_address(&self) -> Option<SocketAddr> {
        Some(self.session.remote_address())
    }

    fn kind(&self) -> TransportKind {
        match self.multi {
            None => TransportKind::WebTransport,
            Some(_) => TransportKind::WebTransportMulti,
        }
    }
}

impl std::fmt::Debug for WebTransportLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebTransportLink")
            .field("session", &self.session)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}
