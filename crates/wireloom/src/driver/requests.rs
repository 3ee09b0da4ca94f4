//! HTTP messages below their handles: bodies are pulled from QUIC as the application reads them, and pushed as it writes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use wireloom_proto::connection::CommandError;
use wireloom_proto::h3::priority::Priority;
use wireloom_proto::{Code, Dir, StreamId};

use super::{Conn, Driver, Transport, WakeList};
use crate::body::BodyError;
use crate::error::ConnectionError;

/// One message exchange on a request stream.
#[derive(Default)]
pub(super) struct Message {
    events: VecDeque<MessageEvent>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Waits for the peer to give up.
    pub(super) watcher: Option<Waker>,
    /// The peer's part is complete, or nobody wants more of it.
    received: bool,
    /// Our part is complete or given up.
    sent: bool,
    /// The peer wants no more of our part.
    stopped: Option<Code>,
    pub(super) priority: Priority,
}

/// A piece of the peer's message.
pub(crate) enum MessageEvent {
    Response(Box<http::Response<()>>),
    Data(Bytes),
    Trailers(Box<HeaderMap>),
    Finished,
    Failed(RequestError),
}

/// Why an HTTP/3 message was cut short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The peer reset the stream.
    #[error("the peer cancelled the message: {0}")]
    Cancelled(Code),
    /// The peer's message broke a rule; the stream was reset with this code.
    #[error("the peer's message is malformed: {0}")]
    Malformed(Code),
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// What was to be sent cannot be sent.
    #[error("the message cannot be sent: {0}")]
    Invalid(#[from] CommandError),
    /// The application's own body failed.
    #[error("the application's body failed")]
    Body,
}

impl RequestError {
    pub(super) fn reset(code: Code, by_peer: bool) -> Self {
        if by_peer {
            Self::Cancelled(code)
        } else {
            Self::Malformed(code)
        }
    }
}

impl Driver {
    pub(super) fn on_message(&mut self, wakes: &mut WakeList, stream: StreamId, event: MessageEvent) {
        let Some(message) = self.messages.get_mut(&stream) else {
            return;
        };
        if message.received {
            return;
        }
        message.events.push_back(event);
        wakes.waker(message.reader.take());
    }

    pub(super) fn on_send_stopped(&mut self, wakes: &mut WakeList, stream: StreamId, code: Code) {
        let Some(message) = self.messages.get_mut(&stream) else {
            return;
        };
        message.stopped = Some(code);
        wakes.waker(message.writer.take());
        wakes.waker(message.watcher.take());
    }

    /// Opens a request stream and sends the head. `Ok(None)` while the peer allows no more streams.
    pub(crate) fn send_request(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        head: &http::Request<()>,
        fin: bool,
    ) -> Result<Option<StreamId>, RequestError> {
        if let Some(lost) = self.unusable() {
            return Err(lost.into());
        }
        // "only safe methods" may be sent where they can be replayed (RFC 8470 section 4), and only what can be said again.
        if quic.is_handshaking() && !(self.is_early() && fin && head.method().is_safe()) {
            return Ok(None);
        }
        let Some(stream) = quic.open(Dir::Bi) else {
            return Ok(None);
        };
        if let Err(e) = self.h3.send_request(now, stream, head, fin) {
            quic.reset(stream, Code::H3_REQUEST_CANCELLED);
            quic.stop(stream, Code::H3_REQUEST_CANCELLED);
            return Err(e.into());
        }
        self.messages.insert(
            stream,
            Message {
                sent: fin,
                ..Message::default()
            },
        );
        self.feeds.insert(stream, None);
        self.note_early(stream, head);
        self.settle(now, quic, wakes);
        Ok(Some(stream))
    }

    /// Server: an interim response, as long as the final one is not sent.
    pub(crate) fn send_interim(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        stream: StreamId,
        head: &http::Response<()>,
    ) -> Result<(), CommandError> {
        let sent = self.h3.send_response(stream, head, false);
        self.settle(now, quic, wakes);
        sent
    }

    /// The next piece of the peer's message; reads QUIC only when there is none yet.
    fn poll_message(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<MessageEvent> {
        loop {
            let lost = self.lost.clone();
            let Some(message) = self.messages.get_mut(&stream) else {
                return Poll::Ready(MessageEvent::Finished);
            };
            if let Some(event) = message.events.pop_front() {
                if matches!(event, MessageEvent::Finished | MessageEvent::Failed(_)) {
                    message.received = true;
                }
                return Poll::Ready(event);
            }
            if message.received {
                return Poll::Ready(MessageEvent::Finished);
            }
            if let Some(lost) = lost {
                message.received = true;
                return Poll::Ready(MessageEvent::Failed(lost.into()));
            }
            message.reader = Some(cx.waker().clone());
            let Some(mut feed) = self.take_feed(stream) else {
                return Poll::Pending;
            };
            if !feed.paused || self.h3.is_blocked(stream) {
                // Nothing more has come since HTTP/3 last looked, or HTTP/3 would only keep it.
                self.keep_feed(stream, feed);
                return Poll::Pending;
            }
            feed.paused = false;
            self.feed(now, quic, wakes, stream, feed);
            self.settle(now, quic, wakes);
            if self.messages.get(&stream).is_some_and(|m| m.events.is_empty()) {
                // Wait for QUIC, and let a packet that completes a frame go straight to HTTP/3.
                return Poll::Pending;
            }
        }
    }

    /// Nobody reads the peer's message any more.
    fn abandon_receive(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, stream: StreamId) {
        let Some(message) = self.messages.get_mut(&stream) else {
            return;
        };
        if !message.received {
            message.received = true;
            message.events.clear();
            // "a server MAY request that the client stop sending by aborting reading with H3_NO_ERROR" once it has
            // answered (RFC 9114 section 4.1); a client no longer wants the response.
            let code = match self.side {
                wireloom_proto::Side::Server => Code::H3_NO_ERROR,
                wireloom_proto::Side::Client => Code::H3_REQUEST_CANCELLED,
            };
            self.feeds.remove(&stream);
            self.h3.stop_message(stream, code);
            self.settle(now, quic, wakes);
        }
        self.forget_message(now, quic, wakes, stream);
    }

    fn abandon_send(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, stream: StreamId) {
        let Some(message) = self.messages.get_mut(&stream) else {
            return;
        };
        if !message.sent {
            message.sent = true;
            let code = match self.side {
                wireloom_proto::Side::Server => Code::H3_INTERNAL_ERROR,
                wireloom_proto::Side::Client => Code::H3_REQUEST_CANCELLED,
            };
            self.h3.reset_message(stream, code);
            self.settle(now, quic, wakes);
        }
        self.body_over(stream);
        self.forget_message(now, quic, wakes, stream);
    }

    fn forget_message(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, stream: StreamId) {
        if self.messages.get(&stream).is_some_and(|m| m.sent && m.received) {
            self.messages.remove(&stream);
            self.note_idle(now, quic, wakes);
        }
    }

    /// Resolves when nobody wants our message any more.
    fn poll_cancelled(&mut self, stream: StreamId, cx: &mut Context<'_>) -> Poll<()> {
        match self.messages.get_mut(&stream) {
            Some(message) if self.lost.is_none() && message.stopped.is_none() => {
                message.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether the message takes another piece now.
    fn poll_ready_to_send(&mut self, stream: StreamId, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        if let Some(lost) = &self.lost {
            return Poll::Ready(Err(lost.clone().into()));
        }
        let backed_up = self.is_backed_up(stream);
        let Some(message) = self.messages.get_mut(&stream) else {
            return Poll::Ready(Err(CommandError::InvalidState.into()));
        };
        if let Some(code) = message.stopped {
            return Poll::Ready(Err(RequestError::Cancelled(code)));
        }
        if backed_up {
            message.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

/// The peer's message on one request stream. Dropping it before its end stops the peer from sending more.
pub(crate) struct RequestBody {
    conn: Arc<Conn>,
    stream: StreamId,
    over: bool,
    /// Content-Length, less what was read.
    left: Option<u64>,
    /// The client waits for 100 (Continue) before it sends.
    expects_continue: bool,
}

impl RequestBody {
    pub(crate) fn new(conn: Arc<Conn>, stream: StreamId) -> Self {
        Self {
            conn,
            stream,
            over: false,
            left: None,
            expects_continue: false,
        }
    }

    /// Server: "A server that receives a 100-continue expectation" says that it reads the body when it does (RFC 9110 section
    /// 10.1.1).
    pub(crate) fn with_expectation(mut self, fields: &HeaderMap) -> Self {
        let expect = fields.get(http::header::EXPECT);
        self.expects_continue = expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        self
    }

    /// Takes the length from the message's fields; the core has checked them.
    pub(crate) fn with_length(mut self, fields: &HeaderMap) -> Self {
        self.left = fields
            .get(http::header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        self
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match (self.over, self.left) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(left)) => SizeHint::with_exact(left),
            (false, None) => SizeHint::new(),
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.poll_next(cx)) {
            MessageEvent::Data(data) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Some(Ok(Frame::data(data)))
            }
            MessageEvent::Trailers(trailers) => Some(Ok(Frame::trailers(*trailers))),
            MessageEvent::Failed(error) => {
                self.over = true;
                Some(Err(error.into()))
            }
            // The core lets no head follow a head.
            MessageEvent::Finished | MessageEvent::Response(_) => {
                self.over = true;
                None
            }
        })
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<MessageEvent> {
        let stream = self.stream;
        let expects_continue = std::mem::take(&mut self.expects_continue);
        self.conn.with(|quic, driver, wakes| {
            let now = Instant::now();
            let next = driver.poll_message(now, quic, wakes, stream, cx);
            if expects_continue && next.is_pending() {
                let mut head = http::Response::new(());
                *head.status_mut() = http::StatusCode::CONTINUE;
                // Where the final response is sent already it says enough.
                let _ = driver.send_interim(now, quic, wakes, stream, &head);
            }
            next
        })
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let stream = self.stream;
        self.conn.with(|quic, driver, wakes| {
            driver.abandon_receive(Instant::now(), quic, wakes, stream);
        });
    }
}

/// Our message on one request stream. Dropping it before its end resets the stream.
pub(crate) struct ResponseSender {
    conn: Arc<Conn>,
    stream: StreamId,
}

impl ResponseSender {
    pub(crate) fn new(conn: Arc<Conn>, stream: StreamId) -> Self {
        Self { conn, stream }
    }

    /// Server: an interim or the final response's head.
    pub(crate) fn send_head(&self, head: &http::Response<()>, fin: bool) -> Result<(), RequestError> {
        self.command(fin, |driver, stream| driver.h3.send_response(stream, head, fin))
    }

    /// Resolves when the peer wants no more of the message, or is gone.
    pub(crate) async fn cancelled(&self) {
        std::future::poll_fn(|cx| self.conn.with(|_, driver, _| driver.poll_cancelled(self.stream, cx))).await;
    }

    /// Waits until the piece before is on its way, then takes this one.
    pub(crate) async fn send_data(&self, data: Bytes) -> Result<(), RequestError> {
        if data.is_empty() {
            return Ok(());
        }
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.send_now(data)
    }

    /// Whether the piece before is on its way.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        self.conn
            .with(|_, driver, _| driver.poll_ready_to_send(self.stream, cx))
    }

    /// Takes a piece, after [`poll_ready`](Self::poll_ready).
    pub(crate) fn send_now(&self, data: Bytes) -> Result<(), RequestError> {
        self.conn.with(|quic, driver, wakes| {
            let sent = driver.h3.data_header(self.stream, data.len() as u64).map(|header| {
                let place = driver.note_body(quic, self.stream);
                driver.send_payload(quic, wakes, self.stream, place, header);
                driver.send_payload(quic, wakes, self.stream, place, data);
            });
            sent.map_err(RequestError::from)
        })
    }

    pub(crate) fn send_trailers(&self, trailers: &HeaderMap) -> Result<(), RequestError> {
        self.command(true, |driver, stream| driver.h3.send_trailers(stream, trailers))
    }

    pub(crate) fn finish(&self) -> Result<(), RequestError> {
        self.command(true, |driver, stream| driver.h3.finish(stream))
    }

    fn command(
        &self,
        ends: bool,
        command: impl FnOnce(&mut Driver, StreamId) -> Result<(), CommandError>,
    ) -> Result<(), RequestError> {
        self.conn.with(|quic, driver, wakes| {
            let result = command(driver, self.stream);
            if result.is_ok()
                && ends
                && let Some(message) = driver.messages.get_mut(&self.stream)
            {
                message.sent = true;
            }
            let now = Instant::now();
            driver.settle(now, quic, wakes);
            if ends {
                driver.body_over(self.stream);
            }
            driver.forget_message(now, quic, wakes, self.stream);
            result.map_err(RequestError::from)
        })
    }
}

impl Drop for ResponseSender {
    fn drop(&mut self) {
        let stream = self.stream;
        self.conn.with(|quic, driver, wakes| {
            driver.abandon_send(Instant::now(), quic, wakes, stream);
        });
    }
}
