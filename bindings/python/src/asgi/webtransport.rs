//! WebTransport sessions: the `webtransport` scope.
//!
//! `receive` takes turns among what has news: new streams, data on each stream, datagrams, the ends of things. A source that has
//! news is in the ring (`sources.rs`); `receive` polls the first, and puts it to the end if it may have more. Bytes are taken
//! from QUIC only for a `receive` that returns them, so that a client may send more only as fast as the application takes it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use wireloom::{ReadError, RecvStream, SendStream, Session, SessionError, WebTransportUpgrade, WriteError};

use super::access::Entry;
use super::body::ResponseBody;
use super::exchange::{Reply, is_turn};
use super::scope::Ends;
use super::site::{Active, Guest, Site};
use super::sources::{Kind, Ring, Source};
use super::webtransport_events::Event;
use crate::waiters::is_nobody;

/// The most that one `webtransport.stream.receive` carries, in bytes.
const CHUNK: usize = 64 * 1024;

/// Streams that an application has asked for and not been given yet.
pub(super) const MAX_OPENINGS: usize = 1024;

/// Streams that are remembered as stopped by the client.
const MAX_STOPPED: usize = 1024;

/// One session.
pub(crate) struct WebTransportExchange {
    pub(super) site: Arc<Site>,
    pub(super) ring: Arc<Ring>,
    pub(super) own: Own,
    state: Mutex<State>,
}

/// The sources that every session has.
pub(super) struct Own {
    bi: Source,
    uni: Source,
    datagram: Source,
    draining: Source,
    pub(super) opening: Source,
    closed: Source,
}

impl Own {
    fn new(ring: &Arc<Ring>) -> Self {
        let source = |kind| Source::new(ring, kind);
        Self {
            bi: source(Kind::Bi),
            uni: source(Kind::Uni),
            datagram: source(Kind::Datagram),
            draining: source(Kind::Draining),
            opening: source(Kind::Opening),
            closed: source(Kind::Closed),
        }
    }
}

/// A stream that this side opened.
type Opened = (SendStream, Option<RecvStream>);

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(super) struct State {
    pub(super) request: Option<(Parts, Ends)>,
    entry: Option<Entry>,
    active: Option<Active>,
    pub(super) upgrade: Option<WebTransportUpgrade>,
    pub(super) phase: Phase,
    pub(super) ready: u32,
    reply: Reply,
    /// Waits for the session after the acceptance.
    accepter: Option<Waker>,
    pub(super) session: Option<Session>,
    /// Dropped when the application is done with the session.
    handler: Option<oneshot::Sender<()>>,
    /// How the application ended before there was a session: whether in good order.
    pub(super) left: Option<bool>,
    pub(super) end: Option<End>,
    /// Happened, and not received yet.
    pub(super) events: VecDeque<Event>,
    pub(super) streams: FxHashMap<u64, Stream>,
    /// Streams that are over because the client stopped them, the last of them: sends on them are dropped silently.
    pub(super) stopped: VecDeque<u64>,
    /// By `bidirectional`, in the order in which they were asked for.
    pub(super) openings: VecDeque<bool>,
    opening: Option<Pending<Result<Opened, SessionError>>>,
    next_bi: Option<Pending<Result<(SendStream, RecvStream), SessionError>>>,
    next_uni: Option<Pending<Result<RecvStream, SessionError>>>,
    next_datagram: Option<Pending<Result<Bytes, SessionError>>>,
    draining: Option<Pending<()>>,
    closed: Option<Pending<SessionError>>,
    pub(super) task: Option<Py<PyAny>>,
}

/// How far the session is, as the application sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// `webtransport.connect` was not received yet.
    New,
    Deciding,
    /// Accepted, and the client may not have heard of it.
    Accepting,
    Open,
    /// It never was a session.
    Denied,
    /// `webtransport.disconnect` was received.
    Over,
}

/// How the session ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) code: u32,
    pub(super) reason: String,
    pub(super) clean: bool,
}

impl From<SessionError> for End {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Closed { code, reason } | SessionError::LocallyClosed { code, reason } => Self {
                code,
                reason,
                clean: true,
            },
            error => Self {
                code: 0,
                reason: error.to_string(),
                clean: false,
            },
        }
    }
}

/// One stream, as far as it is not over.
pub(super) struct Stream {
    pub(super) send: Option<SendStream>,
    pub(super) recv: Option<RecvStream>,
    /// Read already, to know whether it is the last.
    ahead: Option<Bytes>,
    /// The end was read and not told yet.
    is_finished: bool,
    /// The application knows the stream.
    is_announced: bool,
    pub(super) is_paused: bool,
    /// The peer wants no more.
    pub(super) is_stopped: bool,
    /// From the application, not yet with QUIC.
    pub(super) waiting: VecDeque<Bytes>,
    /// After what waits the stream ends.
    pub(super) ends: bool,
    /// Pieces that were given to QUIC so far, and those that the application sent.
    pub(super) written: u64,
    pub(super) queued: u64,
    pub(super) readable: Source,
    pub(super) writable: Source,
}

impl Stream {
    fn new(ring: &Arc<Ring>, id: u64, send: Option<SendStream>, recv: Option<RecvStream>) -> Self {
        Self {
            send,
            recv,
            ahead: None,
            is_finished: false,
            is_announced: false,
            is_paused: false,
            is_stopped: false,
            waiting: VecDeque::new(),
            ends: false,
            written: 0,
            queued: 0,
            readable: Source::new(ring, Kind::Readable(id)),
            writable: Source::new(ring, Kind::Writable(id)),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.recv.is_none() && self.send.is_none() && !self.is_finished && self.ahead.is_none()
    }

    /// Gives QUIC what it takes now, and then the end.
    pub(super) fn flush(&mut self) {
        let Some(send) = &mut self.send else {
            self.drop_waiting();
            return;
        };
        while let Some(piece) = self.waiting.front_mut() {
            if piece.is_empty() {
                self.waiting.pop_front();
                self.written += 1;
                continue;
            }
            match poll_once(send.write(piece), self.writable.waker()) {
                Poll::Ready(Ok(n)) => piece.advance(n),
                Poll::Ready(Err(error)) => return self.write_failed(&error),
                Poll::Pending => return,
            }
        }
        if self.ends {
            // Where the peer has stopped it, it has its end.
            let _ = send.finish();
            self.send = None;
        }
    }

    pub(super) fn stop(&mut self, code: u32) {
        if let Some(mut recv) = self.recv.take() {
            recv.stop(code);
        }
        self.ahead = None;
        self.is_finished = false;
    }

    pub(super) fn write_failed(&mut self, error: &WriteError) {
        if matches!(error, WriteError::Stopped(_)) {
            // `stopped` is told by `poll_stopped`; what is sent meanwhile is dropped.
            self.drop_waiting();
        } else {
            self.send = None;
            self.drop_waiting();
        }
    }

    fn drop_waiting(&mut self) {
        self.waiting.clear();
        self.written = self.queued;
    }

    /// The next event of the receiving half.
    fn poll_read(&mut self, id: u64) -> Option<Event> {
        let data = match self.ahead.take() {
            Some(data) => Some(data),
            None => match &mut self.recv {
                Some(recv) => match poll_once(recv.read_chunk(CHUNK), self.readable.waker()) {
                    Poll::Ready(Ok(Some(data))) => Some(data),
                    Poll::Ready(Ok(None)) => {
                        self.is_finished = true;
                        None
                    }
                    Poll::Ready(Err(error)) => return self.read_failed(id, &error),
                    Poll::Pending => None,
                },
                None => None,
            },
        };
        if data.is_some()
            && !self.is_finished
            && let Some(recv) = &mut self.recv
        {
            match poll_once(recv.read_chunk(CHUNK), self.readable.waker()) {
                Poll::Ready(Ok(Some(next))) => self.ahead = Some(next),
                Poll::Ready(Ok(None)) => self.is_finished = true,
                // Told when this piece is.
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        if data.is_none() && !self.is_finished && self.is_announced {
            return None;
        }
        self.is_announced = true;
        if self.is_finished {
            self.is_finished = false;
            self.recv = None;
            let data = data.unwrap_or_default();
            return Some(Event::Data { id, data, more: false });
        }
        let data = data.unwrap_or_default();
        Some(Event::Data { id, data, more: true })
    }

    fn read_failed(&mut self, id: u64, error: &ReadError) -> Option<Event> {
        self.recv = None;
        match error {
            ReadError::Reset(code) => Some(Event::Reset { id, code: *code }),
            _ => None,
        }
    }

    fn poll_stopped(&mut self, id: u64) -> Option<Event> {
        self.flush();
        let send = self.send.as_mut()?;
        match poll_once(send.stopped(), self.writable.waker()) {
            Poll::Ready(Ok(code)) => {
                self.is_stopped = true;
                self.send = None;
                self.drop_waiting();
                Some(Event::Stopped { id, code })
            }
            Poll::Ready(Err(_)) => {
                self.send = None;
                self.drop_waiting();
                None
            }
            Poll::Pending => None,
        }
    }
}

impl State {
    pub(super) fn forget_if_over(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        if stream.is_over() {
            if stream.is_stopped {
                if self.stopped.len() == MAX_STOPPED {
                    self.stopped.pop_front();
                }
                self.stopped.push_back(id);
            }
            self.streams.remove(&id);
        }
    }
}

/// What the end of the application is for the client.
pub(super) fn end_session(session: &Session, clean: bool) {
    if clean {
        session.close(0, "");
    } else {
        session.abort();
    }
}

/// Polls a future that keeps nothing from one poll to the next.
pub(super) fn poll_once<F: Future>(future: F, waker: &Waker) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

impl WebTransportExchange {
    pub(crate) fn new(
        site: Arc<Site>,
        active: Active,
        parts: Parts,
        ends: Ends,
        upgrade: WebTransportUpgrade,
    ) -> Arc<Self> {
        let entry = site.entry(&parts, &ends);
        let ring = Arc::<Ring>::default();
        Arc::new(Self {
            site,
            own: Own::new(&ring),
            ring,
            state: Mutex::new(State {
                request: Some((parts, ends)),
                entry,
                active: Some(active),
                upgrade: Some(upgrade),
                phase: Phase::New,
                ready: 0,
                reply: Reply::default(),
                accepter: None,
                session: None,
                handler: None,
                left: None,
                end: None,
                events: VecDeque::new(),
                streams: FxHashMap::default(),
                stopped: VecDeque::new(),
                openings: VecDeque::new(),
                opening: None,
                next_bi: None,
                next_uni: None,
                next_datagram: None,
                draining: None,
                closed: None,
                task: None,
            }),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the client's request.
    pub(super) fn answer(&self, state: &mut State, response: Response<ResponseBody>) {
        self.site.note(state.entry.take(), response.status(), 0);
        state.reply.give(response);
    }

    pub(super) fn deny(&self, state: &mut State, status: StatusCode, headers: HeaderMap) {
        state.phase = Phase::Denied;
        state.upgrade = None;
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        super::fields::prepare(
            response.headers_mut(),
            http::Version::HTTP_3,
            &self.site.settings.headers,
        );
        self.answer(state, response);
        self.over(
            state,
            End {
                code: 0,
                reason: String::new(),
                clean: false,
            },
        );
    }

    /// Accepts; the session comes from the connection's task a moment later.
    pub(super) fn accept(self: &Arc<Self>, state: &mut State, upgrade: WebTransportUpgrade) {
        state.phase = Phase::Accepting;
        self.site.counts.sessions.fetch_add(1, Ordering::Relaxed);
        let (handler, done) = oneshot::channel();
        state.handler = Some(handler);
        let accepting = Accepting(Some(self.clone()));
        let response = upgrade.on_upgrade(move |session| async move {
            accepting.opened(session);
            // Graceful shutdown waits for this as long as the application has the session.
            let _ = done.await;
        });
        self.answer(state, response.map(|_| ResponseBody::Empty));
    }

    /// There will be no session.
    fn lose(&self, state: &mut State, why: &str) {
        let end = End {
            code: 0,
            reason: why.to_owned(),
            clean: false,
        };
        self.over(state, end);
    }

    /// There is no session any more, or there will be none: the application may take so long to notice.
    pub(super) fn cancel_after_grace(self: &Arc<Self>) {
        let (exchange, grace) = (Arc::downgrade(self), self.site.settings.session_grace);
        self.site.hub.runtime().spawn(async move {
            tokio::time::sleep(grace).await;
            if let Some(exchange) = exchange.upgrade() {
                exchange.cancel_later();
            }
        });
    }

    fn opened(self: &Arc<Self>, session: Session) {
        let mut state = self.state();
        if let Some(clean) = state.left {
            self.over(
                &mut state,
                End {
                    code: 0,
                    reason: String::new(),
                    clean,
                },
            );
            drop(state);
            end_session(&session, clean);
            return;
        }
        if state.phase == Phase::Accepting {
            state.phase = Phase::Open;
        }
        let mut closed: Pending<SessionError> = Box::pin({
            let session = session.clone();
            async move { session.closed().await }
        });
        // Registers the waker, so that the end is noticed whether or not the application receives.
        if let Poll::Ready(error) = closed.as_mut().poll(&mut Context::from_waker(self.own.closed.waker())) {
            self.over(&mut state, error.into());
        } else {
            state.closed = Some(closed);
        }
        state.session = Some(session.clone());
        let own = &self.own;
        for source in [&own.bi, &own.uni, &own.datagram, &own.draining, &own.opening] {
            source.fire();
        }
        let accepter = state.accepter.take();
        drop(state);
        if let Some(accepter) = accepter {
            accepter.wake();
        }
        let exchange = Arc::downgrade(self);
        self.site.hub.runtime().spawn(async move {
            let end = session.closed().await;
            drop(session);
            if let Some(exchange) = exchange.upgrade() {
                exchange.over(&mut exchange.state(), end.into());
                exchange.cancel_after_grace();
            }
        });
    }

    /// The session is over, whoever ended it.
    pub(super) fn over(&self, state: &mut State, end: End) {
        if state.end.is_none() {
            state.end = Some(end);
            // Streams that wait to be written to have nothing to wait for.
            for stream in state.streams.values_mut() {
                stream.writable.fire();
            }
        }
        if let Some(accepter) = state.accepter.take() {
            accepter.wake();
        }
        self.ring.wake();
    }

    /// Lets go of everything: the application is done.
    pub(super) fn release(&self, state: &mut State) -> impl Send + use<> {
        let streams = std::mem::take(&mut state.streams);
        state.events.clear();
        state.openings.clear();
        self.ring.close();
        // Dropped by the caller after the lock: these reach into the connection.
        (
            streams,
            state.session.take(),
            state.handler.take(),
            (state.opening.take(), state.next_bi.take(), state.next_uni.take()),
            (state.next_datagram.take(), state.draining.take(), state.closed.take()),
            (state.task.take(), state.active.take()),
        )
    }

    pub(super) fn poll_accepted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.session.is_some() || state.end.is_some() {
            return Poll::Ready(());
        }
        state.accepter = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next event for the application.
    pub(super) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut state = self.state();
        if is_turn(&mut state.ready, cx) {
            return Poll::Pending;
        }
        state.ready += 1;
        if state.phase == Phase::New {
            state.phase = Phase::Deciding;
            return Poll::Ready(Event::Connect);
        }
        let may_wait = !is_nobody(cx.waker());
        if may_wait {
            self.ring.register(cx.waker());
        }
        let event = self.next_event(&mut state);
        if may_wait && event.is_some() {
            self.ring.forget(cx.waker());
        }
        event.map_or(Poll::Pending, Poll::Ready)
    }

    fn next_event(&self, state: &mut State) -> Option<Event> {
        loop {
            if state.phase == Phase::Over {
                // Nothing ever again: an application that ignores what it does not know must not spin.
                return None;
            }
            if let Some(event) = state.events.pop_front() {
                return Some(event);
            }
            let Some(kind) = self.ring.next() else {
                let end = state.end.clone()?;
                state.phase = Phase::Over;
                return Some(Event::Disconnect(end));
            };
            if let Some(event) = self.poll_source(state, kind) {
                return Some(event);
            }
        }
    }

    /// Lets one source say what it has. If it may have more it comes back to the ring.
    fn poll_source(&self, state: &mut State, kind: Kind) -> Option<Event> {
        let session = state.session.clone()?;
        match kind {
            Kind::Bi => {
                let own = &self.own.bi;
                let next = state
                    .next_bi
                    .get_or_insert_with(|| Box::pin(async move { session.accept_bi().await }));
                let Poll::Ready(accepted) = next.as_mut().poll(&mut Context::from_waker(own.waker())) else {
                    return None;
                };
                state.next_bi = None;
                let (send, recv) = accepted.ok()?;
                own.fire();
                let id = recv.id();
                self.add(state, id, Some(send), Some(recv))
            }
            Kind::Uni => {
                let own = &self.own.uni;
                let next = state
                    .next_uni
                    .get_or_insert_with(|| Box::pin(async move { session.accept_uni().await }));
                let Poll::Ready(accepted) = next.as_mut().poll(&mut Context::from_waker(own.waker())) else {
                    return None;
                };
                state.next_uni = None;
                let recv = accepted.ok()?;
                own.fire();
                let id = recv.id();
                self.add(state, id, None, Some(recv))
            }
            Kind::Datagram => {
                let own = &self.own.datagram;
                let next = state
                    .next_datagram
                    .get_or_insert_with(|| Box::pin(async move { session.recv_datagram().await }));
                let Poll::Ready(received) = next.as_mut().poll(&mut Context::from_waker(own.waker())) else {
                    return None;
                };
                state.next_datagram = None;
                let data = received.ok()?;
                own.fire();
                Some(Event::Datagram(data))
            }
            Kind::Draining => {
                let draining = state
                    .draining
                    .get_or_insert_with(|| Box::pin(async move { session.draining().await }));
                let own = &self.own.draining;
                if draining
                    .as_mut()
                    .poll(&mut Context::from_waker(own.waker()))
                    .is_pending()
                {
                    return None;
                }
                // It resolves at the end of the session too.
                (state.end.is_none() && state.session.as_ref()?.close_reason().is_none()).then_some(Event::Drain)
            }
            Kind::Opening => self.poll_opening(state, &session),
            Kind::Closed => {
                let closed = state.closed.as_mut()?;
                let own = &self.own.closed;
                if let Poll::Ready(error) = closed.as_mut().poll(&mut Context::from_waker(own.waker())) {
                    state.closed = None;
                    self.over(state, error.into());
                }
                None
            }
            Kind::Readable(id) => self.poll_stream(state, id),
            Kind::Writable(id) => {
                let stream = state.streams.get_mut(&id)?;
                let event = stream.poll_stopped(id);
                state.forget_if_over(id);
                event
            }
        }
    }

    fn poll_stream(&self, state: &mut State, id: u64) -> Option<Event> {
        let stream = state.streams.get_mut(&id)?;
        if stream.is_paused && stream.is_announced {
            return None;
        }
        let event = stream.poll_read(id)?;
        if stream.recv.is_some() || stream.ahead.is_some() {
            stream.readable.fire();
        } else {
            state.forget_if_over(id);
        }
        Some(event)
    }

    /// A stream of the peer's: its first event announces it.
    fn add(&self, state: &mut State, id: u64, send: Option<SendStream>, recv: Option<RecvStream>) -> Option<Event> {
        let mut stream = Stream::new(&self.ring, id, send, recv);
        // Registers for STOP_SENDING.
        let stopped = stream.poll_stopped(id);
        state.streams.insert(id, stream);
        let event = self.poll_stream(state, id);
        state.events.extend(stopped);
        event
    }

    fn poll_opening(&self, state: &mut State, session: &Session) -> Option<Event> {
        let bidirectional = *state.openings.front()?;
        let session = session.clone();
        let opening = state.opening.get_or_insert_with(|| {
            Box::pin(async move {
                if bidirectional {
                    let (send, recv) = session.open_bi().await?;
                    Ok((send, Some(recv)))
                } else {
                    Ok((session.open_uni().await?, None))
                }
            })
        });
        let own = &self.own.opening;
        let Poll::Ready(opened) = opening.as_mut().poll(&mut Context::from_waker(own.waker())) else {
            return None;
        };
        state.opening = None;
        state.openings.pop_front();
        let (send, recv) = opened.ok()?;
        if !state.openings.is_empty() {
            own.fire();
        }
        let id = send.id();
        let mut stream = Stream::new(&self.ring, id, Some(send), recv);
        stream.is_announced = true;
        let stopped = stream.poll_stopped(id);
        stream.readable.fire();
        state.streams.insert(id, stream);
        state.events.extend(stopped);
        Some(Event::Opened { id, bidirectional })
    }
}

impl Guest for WebTransportExchange {
    fn drain(&self) {
        let mut state = self.state();
        if state.phase != Phase::Over && state.end.is_none() {
            state.events.push_back(Event::Drain);
            drop(state);
            self.ring.wake();
        }
    }
}

/// An acceptance on its way to the client. Dropped before there is a session: the client is gone, or takes no such answer.
struct Accepting(Option<Arc<WebTransportExchange>>);

impl Accepting {
    fn opened(mut self, session: Session) {
        if let Some(exchange) = self.0.take() {
            exchange.opened(session);
        }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            // Not here: it may be dropped under the exchange's lock.
            let runtime = exchange.site.hub.runtime().clone();
            runtime.spawn(async move {
                exchange.lose(&mut exchange.state(), "the session could not be accepted");
                exchange.cancel_after_grace();
            });
        }
    }
}

/// The answer to a session request, for the connection.
pub(crate) struct Answer(pub(crate) Arc<WebTransportExchange>);

impl Answer {
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        self.0.state().reply.poll(cx)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let exchange = &self.0;
        let mut state = exchange.state();
        if matches!(state.phase, Phase::New | Phase::Deciding) {
            // At once: an acceptance that came later would be taken by nobody.
            exchange.lose(&mut state, "the client gave up");
            exchange.cancel_after_grace();
        }
    }
}
