//! One HTTP/3 connection: the QUIC state machine and the HTTP/3 one, composed.
//!
//! [`Driver`] runs under the connection's lock, in the endpoint's task when packets arrive and in application tasks when
//! they call a handle. A stream's header is parsed where its bytes arrive, so between the packet and `accept_bi` there is
//! no task, no channel and no second wake-up; once a WebTransport stream is handed out its handle reads and writes QUIC
//! directly, and HTTP/3 hears only that a half is over.

mod datagrams;
mod early_data;
mod idle;
mod incoming;
mod outgoing;
mod requests;
mod schedule;
mod sending;
mod sessions;
mod stream_limit;
mod streams;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::ext::Protocol;
use rustc_hash::FxHashMap;
use wireloom_proto::connection::{OwnStreams, PeerTransport};
use wireloom_proto::{Action, Code, Config, Connection as H3, Dir, Event, Recv, SessionId, Side, StreamId};

pub(crate) use early_data::Memory;
pub(crate) use incoming::{Incoming, IncomingKind, IncomingQueue};
pub use requests::RequestError;
pub(crate) use requests::{MessageEvent, RequestBody, ResponseSender};
pub(crate) use sessions::SessionEntry;
pub(crate) use streams::IncomingStream;

use self::early_data::Early;
use self::incoming::Waiting;
use self::outgoing::Outgoing;
use self::requests::Message;
use self::schedule::Schedule;
use self::sending::{CONTROL_PRIORITY, Sending, SentBody};
use self::stream_limit::StreamLimit;
use self::streams::StreamEntry;
use crate::body::EarlyData;
use crate::error::ConnectionError;
use crate::metrics::{self, Carrier};
use crate::quic::{Application, LostReason, QuicEvent, ReadEnd, Rest, Slot, Transport, WriteEnd};
use crate::session::Answer;
use crate::tls::TlsInfo;
use crate::wake::{Signals, Topic, WakeList};

/// A connection as its handles hold it.
pub(crate) type Conn = Slot<Driver>;

/// At most this much of a stream is read before its header is understood; the rest waits under QUIC's flow control.
const HEAD_READ: usize = 2048;

/// So many streams may wait to be accepted with all that came of them. Beyond that only the header is read, so that the rest
/// stays under QUIC's limits: a short stream that is read to its end counts against none of them.
const MAX_UNACCEPTED: usize = 1024;

/// With so many things waiting for the application, small payloads are copied out of the large buffers in which they were
/// received.
const COPY_FROM: usize = 32;

/// Enough for the header of any WebTransport stream.
const HEADER_READ: usize = 16;

/// A message body is read in pieces of about this size, when the application asks for one.
const BODY_READ: usize = 64 * 1024;

/// How long a connection that is closed waits for its peer to have seen the ends of its sessions. A dead peer need not be
/// waited for longer.
pub(crate) const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// HTTP/3 may have this many writes waiting on one stream, such as capsules that raise limits, before the connection is
/// closed: a peer that lets none of them out only makes us keep them.
const MAX_BACKLOG: usize = 4096;

/// What the endpoint's owner settles for each connection.
#[derive(Debug, Clone)]
pub(crate) struct DriverConfig {
    pub(crate) h3: Arc<Config>,
    /// From the first packet to the peer's SETTINGS.
    pub(crate) handshake_timeout: Duration,
    /// How long a connection without sessions and requests is kept. `None`: until QUIC's idle timeout.
    pub(crate) unused_timeout: Option<Duration>,
    /// Up to this many concurrent streams of each direction the limit grows when the peer uses what it has.
    pub(crate) max_streams: u32,
    /// Streams of each direction that the limit starts with.
    pub(crate) initial_streams: u32,
    /// Bytes of received datagrams that a session keeps until the application takes them.
    pub(crate) datagram_queue: usize,
    /// Bytes that may be written ahead of what is acknowledged, on the whole connection.
    pub(crate) send_window: u64,
}

/// What a connection holds of its server's limits, until it is over.
pub(crate) trait Permit: Send {
    /// The handshake is complete, which proves the peer's address.
    fn proven(&mut self);
    /// The connection is over. It is counted until this is dropped, when QUIC forgets it: whoever opens and closes connections
    /// makes QUIC remember them for a while.
    fn ended(&mut self);
}

pub(crate) struct Driver {
    side: Side,
    config: Arc<DriverConfig>,
    h3: H3,
    /// Own unidirectional streams opened so far; HTTP/3 starts with the third.
    own_opened: u64,
    /// Client: what is known of the server from earlier connections.
    memory: Option<Arc<Memory>>,
    /// Client: while early data can be sent.
    early: Option<Box<Early>>,
    /// Streams that HTTP/3 still reads: headers, control, CONNECT, message heads. `None` where nothing is held, as on the
    /// streams that every idle connection has.
    feeds: FxHashMap<StreamId, Option<Box<Feed>>>,
    /// Data that QUIC did not take yet.
    outgoing: FxHashMap<StreamId, Outgoing>,
    /// WebTransport streams on which a task waits, or that the peer stopped.
    streams: FxHashMap<StreamId, StreamEntry>,
    /// The last streams that the peer stopped after they were finished, for who asks whether they were delivered.
    stopped_late: VecDeque<(StreamId, Code)>,
    messages: FxHashMap<StreamId, Message>,
    /// Those of which a body is not yet with QUIC as a whole, perhaps longer than the message is kept.
    bodies: FxHashMap<StreamId, SentBody>,
    /// Only where there is anybody to be fair to.
    sending: Option<Box<Sending>>,
    /// When a writer was last woken that had waited for QUIC, and whether there was another with it: they wait for the same.
    woken_at: Option<Instant>,
    is_contended: bool,
    /// Sessions with datagrams that wait to be sent.
    queued_datagrams: Option<Box<Schedule>>,
    /// Where datagrams of a burst are put together.
    datagram_arena: BytesMut,
    /// Boxed, because a map's smallest table has room for several and nearly every connection has one.
    sessions: FxHashMap<SessionId, Box<SessionEntry>>,
    /// Streams of all sessions that nobody accepted yet.
    unaccepted: usize,
    pub(crate) signals: Arc<Signals>,
    lost: Option<ConnectionError>,
    ready: bool,
    was_idle: bool,
    /// Unused, the connection is closed at once.
    winding_down: bool,
    /// Closed on this side, but the ends of its sessions are still under way.
    closing: bool,
    incoming: Option<Arc<IncomingQueue>>,
    me: Weak<Conn>,
    /// What the handshake has told of a client with a certificate, once somebody has asked.
    tls: Option<TlsInfo>,
    /// Until the peer's SETTINGS, then while unused.
    deadline: Option<Instant>,
    /// The STREAM frames that had been sent when the deadline was set for a connection that is unused and not idle.
    sent_before: u64,
    /// When the peer is told what still waits for its limits.
    tell_blocked_at: Option<Instant>,
    limits: [StreamLimit; 2],
    /// Given back when the connection ends: connection limits count it.
    permit: Option<Box<dyn Permit>>,
    span: tracing::Span,
}

/// A stream that HTTP/3 still reads.
#[derive(Default)]
struct Feed {
    /// HTTP/3 wants no more for now.
    paused: bool,
    /// Read from QUIC, not yet taken by HTTP/3.
    held: VecDeque<Bytes>,
    end: Option<ReadEnd>,
}

impl Driver {
    pub(crate) fn new(
        side: Side,
        config: Arc<DriverConfig>,
        incoming: Option<Arc<IncomingQueue>>,
        permit: Option<Box<dyn Permit>>,
        span: tracing::Span,
        now: Instant,
    ) -> Self {
        Self {
            side,
            h3: H3::new(side, config.h3.clone()),
            own_opened: 0,
            memory: None,
            early: None,
            feeds: FxHashMap::default(),
            outgoing: FxHashMap::default(),
            streams: FxHashMap::default(),
            stopped_late: VecDeque::new(),
            messages: FxHashMap::default(),
            bodies: FxHashMap::default(),
            sending: None,
            woken_at: None,
            is_contended: false,
            queued_datagrams: None,
            datagram_arena: BytesMut::new(),
            sessions: FxHashMap::default(),
            unaccepted: 0,
            signals: Arc::default(),
            lost: None,
            ready: false,
            was_idle: false,
            winding_down: false,
            closing: false,
            incoming,
            me: Weak::new(),
            tls: None,
            deadline: now.checked_add(config.handshake_timeout),
            sent_before: 0,
            tell_blocked_at: None,
            limits: [(); 2].map(|()| StreamLimit::new(config.initial_streams, config.max_streams, now)),
            permit,
            span,
            config,
        }
    }

    /// What the handshake has told of the peer. Its certificates are copied once.
    pub(crate) fn tls_info(&mut self, quic: &Transport) -> TlsInfo {
        if let Some(tls) = &self.tls {
            return tls.clone();
        }
        let tls = TlsInfo::of_quic(quic.peer_certificates().as_deref(), quic.server_name());
        // In early data certificates are not known yet.
        self.tls = (!quic.is_handshaking()).then(|| tls.clone());
        tls
    }

    /// Client: knows the server, and gets to know it, through `memory`.
    pub(crate) fn with_memory(self, memory: Option<Arc<Memory>>) -> Self {
        Self { memory, ..self }
    }

    /// Tells the connection its own handle, for those that it hands out.
    pub(crate) fn set_handle(&mut self, me: &Arc<Conn>) {
        self.me = Arc::downgrade(me);
    }

    pub(crate) fn lost(&self) -> Option<&ConnectionError> {
        self.lost.as_ref()
    }

    /// Why nothing new can be asked for, if so.
    pub(crate) fn unusable(&self) -> Option<ConnectionError> {
        let closing = self.closing.then_some(ConnectionError::LocallyClosed);
        self.lost.clone().or(closing)
    }

    pub(crate) fn h3(&self) -> &H3 {
        &self.h3
    }

    /// The peer's SETTINGS are here.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// What is kept for requests, sessions and their streams, here and in QUIC, for tests that end with nothing left over.
    pub(crate) fn leftovers(&self, quic: &mut Transport) -> usize {
        let feeds = self.feeds.keys().filter(|stream| stream.dir() == Dir::Bi).count();
        let orders = self.sending.as_ref().map_or(0, |sending| sending.orders());
        let kept =
            feeds + orders + self.outgoing.len() + self.streams.len() + self.messages.len() + self.sessions.len();
        let quic = quic.remote_open_streams(Dir::Bi);
        kept + self.unaccepted + usize::try_from(quic).unwrap_or(usize::MAX)
    }

    /// Refuses new requests and sessions (GOAWAY) and asks the open sessions to end.
    pub(crate) fn go_away(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) {
        let sessions: Vec<SessionId> = self.h3.sessions().collect();
        self.h3.goaway(now);
        for session in sessions {
            // It may have ended meanwhile.
            let _ = self.h3.drain_session(session);
        }
        self.settle(now, quic, wakes);
    }

    /// Closes the connection and tells everybody.
    pub(crate) fn close(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        code: Code,
        reason: &[u8],
        error: ConnectionError,
    ) {
        if self.lost.is_none() {
            quic.close(now, code, reason);
            self.count_end(quic);
            self.lose(error, wakes);
        }
    }

    /// Closes the sessions, and the connection once the peer has confirmed that: "the endpoint SHOULD wait until all CONNECT
    /// streams have been closed by the peer before sending the CONNECTION_CLOSE" (draft-ietf-webtrans-http3-16 section 6).
    pub(crate) fn close_soon(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) {
        if self.lost.is_some() || self.closing {
            return;
        }
        self.closing = true;
        self.deadline = Some(now + CLOSE_GRACE);
        let sessions: Vec<SessionId> = self.h3.sessions().collect();
        for session in sessions {
            let _ = self.h3.cancel_session(now, session);
        }
        self.settle(now, quic, wakes);
        // For the timer.
        quic.wake();
    }

    fn start(&mut self, now: Instant, quic: &mut Transport) {
        // A server can send SETTINGS with its first flight, one round trip before the handshake is complete: the client's
        // CONNECT waits for them.
        // "settings MUST be sent as soon as the transport is ready to send data" (RFC 9114 section 7.2.4.2).
        while self.own_opened < 3 {
            if quic.open(Dir::Uni).is_none() {
                return;
            }
            self.own_opened += 1;
        }
        // Nothing else opens streams before them.
        let own = |index| StreamId::new(self.side, Dir::Uni, index);
        let streams = OwnStreams {
            control: own(0),
            qpack_encoder: own(1),
            qpack_decoder: own(2),
        };
        (0..3).for_each(|index| quic.set_priority(own(index), CONTROL_PRIORITY));
        self.h3.start(now, streams);
    }

    fn on_quic_event(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, event: QuicEvent) {
        match event {
            QuicEvent::Connected => {
                if self.side == Side::Client {
                    self.end_early(now, quic, wakes);
                }
                // "the transport parameters sent by both clients and servers MUST allow the peer to create at least three
                // unidirectional streams" (RFC 9114 section 6.2). A peer that could be told nothing would still be served.
                if self.own_opened < 3 {
                    self.start(now, quic);
                }
                if self.own_opened < 3 {
                    let (code, reason) = (
                        Code::H3_GENERAL_PROTOCOL_ERROR,
                        "fewer than three unidirectional streams are allowed",
                    );
                    return self.on_action(now, quic, wakes, Action::Close { code, reason });
                }
                if let Some(permit) = &mut self.permit {
                    permit.proven();
                }
                let transport = PeerTransport {
                    datagrams: quic.max_datagram_size().is_some(),
                    reset_stream_at: false,
                };
                self.h3.handle_connected(now, transport);
            }
            QuicEvent::Lost(reason) => {
                let error = match reason {
                    LostReason::Local => return,
                    reason => reason.into(),
                };
                // What arrived before the connection's end still counts: a session's close code and reason often come
                // with the same datagrams.
                self.settle(now, quic, wakes);
                self.count_end(quic);
                self.lose(error, wakes);
            }
            QuicEvent::Opened(dir) => {
                let mut opened = 0;
                while let Some(stream) = quic.accept(dir) {
                    opened += 1;
                    self.feed(now, quic, wakes, stream, Feed::default());
                }
                let open = quic.remote_open_streams(dir);
                if let Some(limit) = self.limits[dir as usize].on_opened(now, quic.rtt(), opened, open) {
                    quic.set_max_streams(dir, limit);
                }
            }
            QuicEvent::Readable(stream) => {
                if let Some(feed) = self.take_feed(stream) {
                    self.feed(now, quic, wakes, stream, feed);
                } else if let Some(entry) = self.streams.get_mut(&stream) {
                    wakes.waker(entry.reader.take());
                } else if let Some(message) = self.messages.get_mut(&stream) {
                    wakes.waker(message.reader.take());
                }
            }
            QuicEvent::Writable(stream) if self.is_next(stream) => {}
            QuicEvent::Writable(stream) => self.flush(now, quic, wakes, stream),
            QuicEvent::Delivered(stream) => self.on_delivered(wakes, stream),
            QuicEvent::Stopped(stream, code) => self.on_stopped(now, quic, wakes, stream, code),
            // With flow control whoever is woken may have to wait for its own session, so all are.
            QuicEvent::Available(_) if self.h3.has_flow_control() => wakes.all(&self.signals),
            QuicEvent::Available(dir) => wakes.one(&self.signals, streams::topic(dir)),
            QuicEvent::Datagram => {
                while let Some(datagram) = quic.recv_datagram() {
                    if let Some((session, payload)) = self.h3.handle_datagram(now, datagram) {
                        self.on_datagram(now, wakes, session, payload);
                    }
                }
            }
            QuicEvent::DatagramsUnblocked => wakes.one(&self.signals, Topic::Datagram),
        }
    }

    fn on_stopped(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, stream: StreamId, code: Code) {
        if self.h3.send_closed(stream) {
            // "An endpoint that receives a STOP_SENDING frame MUST send a RESET_STREAM frame" (RFC 9000 section 3.5),
            // with the code copied.
            quic.reset(stream, code);
            self.discard_outgoing(stream);
            let entry = self.streams.entry(stream).or_default();
            entry.stopped = Some(code);
            wakes.waker(entry.writer.take());
            return;
        }
        self.h3.handle_stopped(now, stream, code);
        if let Some(session) = SessionId::new(stream)
            && let Some(entry) = self.sessions.get(&session)
        {
            if self.h3.is_stopped(session) {
                entry.state.set_stopped();
            }
        } else if !self.messages.contains_key(&stream) {
            self.on_stopped_late(wakes, stream, code);
        }
    }

    fn take_feed(&mut self, stream: StreamId) -> Option<Feed> {
        self.feeds
            .remove(&stream)
            .map(|feed| feed.map_or_else(Feed::default, |feed| *feed))
    }

    fn keep_feed(&mut self, stream: StreamId, feed: Feed) {
        let is_plain = !feed.paused && feed.held.is_empty() && feed.end.is_none();
        self.feeds.insert(stream, (!is_plain).then(|| Box::new(feed)));
    }

    /// Reads a stream that HTTP/3 still owns and lets HTTP/3 have it.
    fn feed(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, stream: StreamId, mut feed: Feed) {
        loop {
            if feed.paused {
                // What HTTP/3 took no more of waits in QUIC; only a reset overtakes it.
                if let Some(code) = quic.received_reset(stream) {
                    self.h3.handle_reset(now, stream, code);
                    return;
                }
                break;
            }
            if feed.held.is_empty() && feed.end.is_none() {
                let read = if self.messages.contains_key(&stream) {
                    quic.read(stream, BODY_READ, &mut feed.held)
                } else if self.unaccepted < MAX_UNACCEPTED {
                    quic.read(stream, HEAD_READ, &mut feed.held)
                } else {
                    quic.read_one(stream, HEADER_READ, &mut feed.held)
                };
                match read {
                    ReadEnd::Closed => return,
                    ReadEnd::Reset(code) => {
                        self.h3.handle_reset(now, stream, code);
                        return;
                    }
                    ReadEnd::Finished => feed.end = Some(ReadEnd::Finished),
                    ReadEnd::Blocked if feed.held.is_empty() => break,
                    ReadEnd::Blocked | ReadEnd::More => {}
                }
            }
            let chunk = feed.held.pop_front().unwrap_or_default();
            let fin = feed.end.is_some() && feed.held.is_empty();
            match self.h3.recv(now, stream, chunk, fin) {
                Recv::Continue => {}
                Recv::Pause => feed.paused = true,
                Recv::WebTransport { session, payload } => {
                    let rest = std::mem::take(&mut feed.held);
                    self.on_stream(
                        now,
                        quic,
                        wakes,
                        session,
                        IncomingStream::new(stream, payload, rest, feed.end.is_some()),
                    );
                    return;
                }
                // What was read beyond the header waits with it.
                Recv::Parked => feed.paused = true,
                Recv::Done => return,
            }
            if fin {
                // HTTP/3 has all of it.
                return;
            }
        }
        self.keep_feed(stream, feed);
    }

    /// Carries out what HTTP/3 wants and hands out what it says.
    fn settle(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) {
        loop {
            let mut idle = true;
            while let Some(action) = self.h3.poll_action() {
                idle = false;
                self.on_action(now, quic, wakes, action);
            }
            while let Some(event) = self.h3.poll_event() {
                idle = false;
                self.on_h3_event(now, quic, wakes, event);
            }
            if idle {
                break;
            }
        }
        self.note_senders(quic);
        self.note_idle(now, quic, wakes);
    }

    fn on_action(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, action: Action) {
        match action {
            Action::Write { stream, data, fin } => {
                self.write(quic, stream, data, fin);
                if self.backlog(stream) > MAX_BACKLOG {
                    let (code, reason) = (Code::H3_EXCESSIVE_LOAD, "what is written is never read");
                    let error = ConnectionError::Protocol { code, reason };
                    self.close(now, quic, wakes, code, reason.as_bytes(), error);
                }
            }
            Action::Reset { stream, code } => {
                self.discard_outgoing(stream);
                quic.reset(stream, code);
            }
            Action::StopSending { stream, code } => {
                self.feeds.remove(&stream);
                quic.stop(stream, code);
            }
            Action::Close { code, reason } => {
                tracing::debug!(parent: &self.span, %code, reason, "closing the connection");
                self.close(
                    now,
                    quic,
                    wakes,
                    code,
                    reason.as_bytes(),
                    ConnectionError::Protocol { code, reason },
                );
            }
        }
    }

    fn on_h3_event(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, event: Event) {
        if self.lost.is_some() {
            // Everybody has been told. A session that came with what closed the connection would have nobody to end it.
            return;
        }
        match event {
            Event::Ready { dialect, settings } => {
                self.remember(settings);
                tracing::debug!(parent: &self.span, ?dialect, "ready");
                self.ready = true;
                self.deadline = None;
                wakes.all(&self.signals);
            }
            Event::Request {
                stream,
                mut head,
                protocol,
            } => {
                if protocol.is_some() {
                    // The only one that the core hands out, told where hyper tells that of HTTP/2.
                    head.extensions_mut().insert(Protocol::from_static("websocket"));
                }
                if !self.h3.is_connected() {
                    head.extensions_mut().insert(EarlyData);
                }
                let waiting = Waiting::request(self.me.clone(), stream, *head);
                if self.incoming.as_ref().is_some_and(|incoming| incoming.push(waiting)) {
                    self.messages.insert(stream, Message::default());
                } else {
                    self.refuse_request(stream);
                }
            }
            Event::SessionRequested {
                session,
                head,
                protocols,
                dialect,
            } => {
                let path = head.uri().path().to_owned();
                let waiting = Waiting::session(self.me.clone(), session, *head, protocols, dialect);
                if self.incoming.as_ref().is_some_and(|incoming| incoming.push(waiting)) {
                    quic.set_priority(session.stream(), CONTROL_PRIORITY);
                    self.new_session(session, &path);
                } else {
                    self.refuse_session(now, session, &unavailable(), Code::H3_REQUEST_REJECTED);
                }
            }
            Event::Response { stream, head } => self.on_message(wakes, stream, MessageEvent::Response(head)),
            Event::Data { stream, data } => self.on_message(wakes, stream, MessageEvent::Data(data)),
            Event::Trailers { stream, trailers } => {
                self.on_message(wakes, stream, MessageEvent::Trailers(Box::new(trailers)));
            }
            Event::Finished { stream } => self.on_message(wakes, stream, MessageEvent::Finished),
            Event::MessageFailed { stream, code, by_peer } => {
                self.feeds.remove(&stream);
                self.on_message(wakes, stream, MessageEvent::Failed(RequestError::reset(code, by_peer)));
                if !by_peer {
                    // The core has reset the sending half, too: whoever writes it or watches it hears that.
                    self.on_send_stopped(wakes, stream, code);
                }
            }
            Event::SendStopped { stream, code } => self.on_send_stopped(wakes, stream, code),
            Event::SessionEstablished {
                session,
                head,
                protocol,
            } => {
                let response = Some(*head);
                self.on_answer(wakes, session, Answer { response, protocol });
            }
            Event::SessionRejected { session, head, streams } => {
                self.on_rejected(wakes, session, *head);
                self.forget_streams(wakes, &streams);
                self.drop_payload(quic, session);
            }
            Event::Stream {
                session,
                stream,
                payload,
                fin,
            } => {
                let feed = self.take_feed(stream).unwrap_or_default();
                let fin = fin || feed.end.is_some();
                let stream = IncomingStream::new(stream, payload, feed.held, fin);
                self.on_stream(now, quic, wakes, session, stream);
            }
            Event::Datagram { session, payload } => self.on_datagram(now, wakes, session, payload),
            Event::SessionDraining { session } => self.on_draining(wakes, session),
            Event::SessionClosed { session, end, streams } => {
                self.drop_payload(quic, session);
                self.on_session_closed(wakes, session, end, &streams);
            }
            Event::SessionStreamsAvailable { .. } => wakes.all(&self.signals),
            Event::SessionDataAvailable { session } => self.on_data_available(wakes, session),
            Event::Priority { stream, priority } => self.on_priority(quic, wakes, stream, priority),
            Event::Resume { stream } => {
                if let Some(mut feed) = self.take_feed(stream) {
                    feed.paused = false;
                    self.feed(now, quic, wakes, stream, feed);
                }
            }
            Event::GoAway { .. } => {
                wakes.all(&self.signals);
            }
            // Events that this version of the core does not have.
            _ => {}
        }
    }

    /// The application is too far behind.
    fn refuse_request(&mut self, stream: StreamId) {
        if self.h3.send_response(stream, &unavailable(), true).is_err() {
            self.h3.reset_message(stream, Code::H3_REQUEST_REJECTED);
        }
        self.h3.stop_message(stream, Code::H3_NO_ERROR);
    }

    fn count_end(&self, quic: &Transport) {
        if self.side == Side::Server && self.lost.is_none() {
            if !self.h3.is_connected() {
                metrics::handshake_failed(Carrier::Quic);
            }
            metrics::connection_ended(&quic.stats());
        }
    }

    /// The connection is over: whoever waits learns why.
    fn lose(&mut self, error: ConnectionError, wakes: &mut WakeList) {
        if self.lost.is_some() {
            return;
        }
        tracing::debug!(parent: &self.span, %error, "connection over");
        for (_, mut entry) in self.streams.drain() {
            wakes.waker(entry.reader.take());
            wakes.waker(entry.writer.take());
        }
        for message in self.messages.values_mut() {
            wakes.waker(message.reader.take());
            wakes.waker(message.writer.take());
            wakes.waker(message.watcher.take());
        }
        for (_, entry) in self.sessions.drain() {
            entry.end(error.clone().into(), wakes);
        }
        self.unaccepted = 0;
        self.feeds.clear();
        self.outgoing.clear();
        self.bodies.clear();
        self.sending = None;
        self.queued_datagrams = None;
        self.deadline = None;
        if let Some(permit) = &mut self.permit {
            permit.ended();
        }
        self.lost = Some(error);
        wakes.all(&self.signals);
    }
}

impl Application for Driver {
    fn process(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) -> bool {
        if self.lost.is_some() {
            // quinn-proto's last events have nobody left to tell.
            while quic.poll_event().is_some() {}
            return false;
        }
        if self.own_opened < 3 {
            self.start(now, quic);
            if self.own_opened == 3 && self.side == Side::Client && self.begin_early(quic) {
                wakes.all(&self.signals);
            }
        }
        let mut any = false;
        while let Some(event) = quic.poll_event() {
            any = true;
            self.on_quic_event(now, quic, wakes, event);
            if self.lost.is_some() {
                return false;
            }
        }
        if any || self.own_opened == 3 {
            self.settle(now, quic, wakes);
        }
        let more = self.pump_datagrams(quic, wakes);
        if any {
            self.pump(quic, wakes);
            return true;
        }
        more
    }

    fn sent_all(&mut self, quic: &mut Transport, wakes: &mut WakeList) -> Rest {
        self.pump_held(quic, wakes)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.lost.is_some() {
            return None;
        }
        [self.deadline, self.tell_blocked_at, self.h3.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeout(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) {
        if self.deadline.take_if(|at| *at <= now).is_some() && !self.is_delivering(quic) {
            let (code, error) = if self.ready || self.closing {
                (Code::H3_NO_ERROR, ConnectionError::LocallyClosed)
            } else {
                (Code::H3_MISSING_SETTINGS, ConnectionError::HandshakeTimedOut)
            };
            self.close(now, quic, wakes, code, b"", error);
            return;
        }
        if self.tell_blocked_at.is_some_and(|at| at <= now) {
            self.tell_blocked_at = None;
            self.h3.tell_blocked();
        }
        self.h3.handle_timeout(now);
        self.settle(now, quic, wakes);
    }

    fn wind_down(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) {
        self.winding_down = true;
        if self.is_idle(quic) {
            let error = ConnectionError::LocallyClosed;
            self.close(now, quic, wakes, Code::H3_NO_ERROR, b"", error);
        }
    }

    fn forgotten(&mut self) {
        self.permit = None;
    }

    fn endpoint_lost(&mut self, wakes: &mut WakeList) {
        self.lose(ConnectionError::EndpointGone, wakes);
        self.permit = None;
    }
}

fn unavailable() -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    response
}

impl WriteEnd {
    /// Whether the stream may take more later.
    fn is_blocked(self) -> bool {
        self == Self::Blocked
    }
}
