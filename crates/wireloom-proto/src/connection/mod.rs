//! One HTTP/3 connection with its requests and WebTransport sessions.
//!
//! # The calling contract
//!
//! The caller (the driver) owns the QUIC connection. It
//! 1. opens three unidirectional streams as soon as QUIC lets it and calls [`Connection::start`], and says with
//!    [`Connection::handle_connected`] that the handshake is complete;
//! 2. for every stream that the peer opens, and for its own request streams, reads a chunk and calls [`Connection::recv`],
//!    obeying the [`Recv`] that it answers;
//! 3. tells resets, STOP_SENDING and datagrams with the `handle_*` methods;
//! 4. after any of these, and after any command, drains [`Connection::poll_action`] first and then
//!    [`Connection::poll_event`], until both are empty;
//! 5. calls [`Connection::handle_timeout`] when [`Connection::poll_timeout`] has passed.
//!
//! Time never runs backwards. The payload of a WebTransport stream does not pass through here: [`Recv::WebTransport`]
//! hands the stream out with the first payload bytes, and from then on the caller reads and writes it directly and only
//! reports the end of each half ([`Connection::send_closed`], [`Connection::recv_closed`], [`Connection::recv_aborted`]).
//!
//! Where [`Connection::has_flow_control`], sessions have limits, and the caller also
//! 1. asks [`Connection::check_open`] before it opens a stream, and [`Connection::send_credit`] before it writes payload;
//! 2. tells payload that it wrote ([`Connection::data_sent`]), that it read itself ([`Connection::data_received`]) and that
//!    the application has taken, first bytes included ([`Connection::data_consumed`]);
//! 3. calls [`Connection::tell_blocked`] when something has waited for a limit for a while;
//! 4. calls [`Connection::recv_closed`] for streams that came with FIN too, once the application has taken them.
//!
//! A body does not pass through here on its way out either: [`Connection::data_header`] answers the bytes that go before
//! each piece. The caller keeps its own writes and the [`Action::Write`]s of one stream in the order in which it made the
//! calls.
//!
//! What a server gets before [`Connection::handle_connected`] is early data (0-RTT), which anybody may have recorded and sent
//! again. Requests whose method is not safe are then answered 425 (RFC 8470 section 5.2), and sessions wait.
//!
//! Nothing that a peer sends makes a method panic, and every queue is bounded by [`Config`]. The queues of actions and events
//! hold what one call produced. Where a rule is broken, the action tells the peer ([`Action::Close`] and so on) and the event
//! the application.

mod capsules;
mod config;
mod control;
mod deadlines;
mod endings;
mod events;
mod flow;
mod incoming;
mod message;
mod outbox;
mod priorities;
mod requests;
mod responses;
mod session_streams;
mod sessions;
mod stream_set;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;

pub use config::Config;
pub(crate) use config::deadline;
pub use events::{Action, CommandError, Event, OwnStreams, PeerTransport, Recv, SessionEnd, SessionRequest};

use crate::codes::Code;
use crate::h3::reader::{FrameError, FrameLimits, FrameReader};
use crate::h3::settings::Settings;
use crate::qpack;
use crate::stream_id::{Dir, SessionId, Side, StreamId};
use crate::webtransport::flow::FlowControl;
use crate::webtransport::negotiate::{self, Dialect, Dialects};
use crate::webtransport::parked::Parked;
use crate::webtransport::session::Session;
use crate::webtransport::stream_header::Partial;
use control::Control;
use deadlines::Deadlines;
use flow::Unattributed;
use message::Message;
pub(crate) use message::Waiting;
use outbox::Outbox;
use priorities::EarlyUpdates;
pub(crate) use priorities::Wishes;
use stream_set::StreamSet;

/// What a stream is, as long as the core has to know.
#[derive(Debug)]
enum Stream {
    /// The peer's, its header incomplete.
    Header(Box<Beginning>),
    /// The peer's control stream.
    Control,
    /// The peer's QPACK encoder stream.
    QpackEncoder,
    /// The peer's QPACK decoder stream.
    QpackDecoder,
    /// An ordinary request.
    Message(Box<Message>),
    /// The CONNECT stream of a session, which `sessions` holds.
    Connect,
    /// A CONNECT stream whose session is over or was rejected: our side has ended, the peer's is awaited.
    Closing {
        /// Whether the peer sent WT_CLOSE_SESSION: nothing may follow then.
        peer_closed: bool,
        /// Sent in STOP_SENDING at the deadline.
        code: Code,
    },
    /// A stream of an open session (or of a requested one that this end opened), and which halves of it are open.
    WebTransport { session: SessionId, send: bool, recv: bool },
    /// A stream that waits in `parked`.
    Parked,
}

/// What came of a stream before it is known what it is.
#[derive(Debug, Default)]
struct Beginning {
    partial: Partial,
    /// The peer wants no answer on it.
    stopped: Option<Code>,
}

/// The state machine of one connection. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Connection {
    side: Side,
    config: Arc<Config>,
    /// The dialects that are announced: none without WebTransport.
    dialects: Dialects,
    transport: Option<PeerTransport>,
    settings_deadline: Option<Instant>,
    /// `Some` once both SETTINGS and transport parameters of the peer are known.
    negotiated: Option<Option<Dialect>>,
    /// What the peer lets each session use; `None` without flow control.
    peer_limits: Option<FlowControl>,
    unattributed: Unattributed,
    control: Control,
    encoder: qpack::Encoder,
    decoder: qpack::Decoder,
    streams: FxHashMap<StreamId, Stream>,
    /// The peer's streams whose kind is or was known. At a server the bidirectional ones tell which session ids are used up.
    seen_bi: StreamSet,
    seen_uni: StreamSet,
    /// One more than the highest index among the peer's bidirectional streams.
    bi_end: u64,
    sessions: FxHashMap<SessionId, Box<Session>>,
    early_updates: EarlyUpdates,
    parked: Parked,
    header_deadlines: Deadlines,
    close_deadlines: Deadlines,
    /// Requests that the client cancelled unanswered since `cancel_since`.
    cancelled: u32,
    cancel_since: Option<Instant>,
    /// The last time that the caller told.
    now: Option<Instant>,
    out: Outbox,
}

impl Connection {
    /// A connection at its very start. Nothing is sent before [`Connection::start`].
    ///
    /// Connections of one endpoint share their configuration: give an `Arc`.
    pub fn new(side: Side, config: impl Into<Arc<Config>>) -> Self {
        let config = config.into();
        let dialects = if config.webtransport {
            config.dialects
        } else {
            Dialects::NONE
        };
        Self {
            side,
            dialects,
            transport: None,
            settings_deadline: None,
            negotiated: None,
            peer_limits: None,
            unattributed: Unattributed::default(),
            control: Control::default(),
            encoder: qpack::Encoder::with_table(config.qpack_encoder_capacity, config.qpack_encoder_blocked_streams),
            decoder: qpack::Decoder::with_table(config.qpack_max_table_capacity, config.qpack_blocked_streams),
            streams: FxHashMap::default(),
            seen_bi: StreamSet::default(),
            seen_uni: StreamSet::default(),
            bi_end: 0,
            sessions: FxHashMap::default(),
            early_updates: EarlyUpdates::default(),
            parked: Parked::default(),
            header_deadlines: Deadlines::default(),
            close_deadlines: Deadlines::default(),
            cancelled: 0,
            cancel_since: None,
            now: None,
            out: Outbox::default(),
            config,
        }
    }

    /// The handshake is complete and the peer's transport parameters are known. May come before or after
    /// [`Connection::start`] and the peer's SETTINGS; [`Event::Ready`] follows when SETTINGS are there too.
    pub fn handle_connected(&mut self, now: Instant, transport: PeerTransport) {
        self.now = Some(now);
        self.transport = Some(transport);
        if self.control.settings.is_none() {
            self.settings_deadline = Some(deadline(now, self.config.settings_timeout));
        }
        self.negotiate();
    }

    /// Client: early data (0-RTT) is sent on the strength of an earlier connection, whose server had announced `remembered`.
    /// Requests keep to it; the server has to, too, once it has accepted early data. Where it rejects it, all streams are void:
    /// begin anew with another [`Connection`].
    ///
    /// Sessions wait for [`Event::Ready`] all the same: "Clients cannot initiate WebTransport sessions in 0-RTT packets"
    /// (draft-ietf-webtrans-http3-16 section 3.2).
    pub fn resume(&mut self, remembered: Settings) {
        if self.control.settings.is_none() {
            self.control.remembered = Some(Box::new(remembered));
        }
    }

    /// Whether [`Connection::handle_connected`] was called: at a server, what comes before is early data (0-RTT).
    pub const fn is_connected(&self) -> bool {
        self.transport.is_some()
    }

    /// Takes a chunk of a stream, in order and without gaps, and FIN if `fin`. `data` may be empty.
    ///
    /// The answer for a stream that the core has forgotten, because it was reset, stopped or is complete, is [`Recv::Done`].
    pub fn recv(&mut self, now: Instant, stream: StreamId, data: Bytes, fin: bool) -> Recv {
        self.now = Some(now);
        if self.out.is_closed() {
            return Recv::Done;
        }
        match self.streams.get_mut(&stream) {
            None => self.recv_new(now, stream, data, fin),
            Some(&mut Stream::WebTransport { session, .. }) => {
                self.data_received(session, data.len() as u64);
                if fin && !self.has_flow_control() {
                    self.recv_closed(stream);
                }
                Recv::WebTransport { session, payload: data }
            }
            Some(Stream::Header(_)) => self.recv_header(now, stream, data, fin),
            Some(Stream::Control) => self.recv_control(data, fin),
            Some(Stream::QpackEncoder | Stream::QpackDecoder) => self.recv_qpack(stream, data, fin),
            Some(Stream::Message(_)) => self.recv_message(stream, data, fin),
            Some(Stream::Connect) => self.recv_connect(stream, data, fin),
            Some(&mut Stream::Closing { peer_closed, .. }) => self.recv_closing(stream, &data, fin, peer_closed),
            // The driver reads no more of it; should it do so all the same, the bytes would be lost.
            Some(Stream::Parked) => {
                self.parked.remove_stream(stream);
                self.refuse_payload(stream, Code::WT_BUFFERED_STREAM_REJECTED)
            }
        }
    }

    /// The peer reset its half of a stream that was given to [`Connection::recv`], or that it reset before a byte of it
    /// could be read. For streams that [`Recv::WebTransport`] or [`Event::Stream`] handed out this is
    /// [`Connection::recv_aborted`].
    ///
    /// No code changes what becomes of the stream: "use of an error code in an unexpected context or receipt of an
    /// unknown error code MUST be treated as equivalent to H3_NO_ERROR" (RFC 9114 section 8).
    pub fn handle_reset(&mut self, now: Instant, stream: StreamId, code: Code) {
        self.now = Some(now);
        if self.out.is_closed() {
            return;
        }
        match self.streams.get_mut(&stream) {
            None => self.reset_unread(stream),
            Some(Stream::Header(_)) => {
                self.streams.remove(&stream);
                self.reset_unread(stream);
            }
            Some(Stream::Control | Stream::QpackEncoder | Stream::QpackDecoder) => self.critical_closed(),
            Some(Stream::Message(_)) => self.message_reset(now, stream, code),
            Some(Stream::Connect) => self.connect_reset(now, stream, code),
            Some(Stream::Closing { .. }) => {
                self.streams.remove(&stream);
                self.abandon(stream);
            }
            Some(Stream::WebTransport { .. }) => {
                self.recv_aborted(stream, None);
            }
            Some(Stream::Parked) => {
                // What was received of it is void. A bidirectional stream could still be answered, but nobody has seen it.
                self.parked.remove_stream(stream);
                self.streams.remove(&stream);
                self.stream_lost(stream.dir());
                if stream.dir() == Dir::Bi {
                    self.out.reset(stream, Code::WT_BUFFERED_STREAM_REJECTED);
                }
            }
        }
    }

    /// The peer sent STOP_SENDING for a stream that the core writes: a request, a CONNECT, a critical stream. For streams of
    /// a session this is [`Connection::send_closed`].
    ///
    /// It may come before anything of a stream is read, which the core remembers for requests. Whoever is handed a
    /// bidirectional stream of a session asks QUIC whether it was stopped before.
    pub fn handle_stopped(&mut self, now: Instant, stream: StreamId, code: Code) {
        self.now = Some(now);
        if self.out.is_closed() {
            return;
        }
        if self.control.is_own(stream) {
            // "the receiver MUST NOT request that the sender close the control stream" (RFC 9114 section 6.2.1), and
            // none of the QPACK streams (RFC 9204 section 4.2).
            return self.critical_closed();
        }
        let is_new = self.is_new(stream);
        match self.streams.get_mut(&stream) {
            Some(Stream::Message(_)) => self.message_stopped(now, stream, code),
            Some(Stream::Connect) => self.connect_stopped(now, stream, code),
            // The driver's QUIC owes RESET_STREAM for what is not acknowledged yet (RFC 9000 section 3.5).
            Some(Stream::Closing { .. }) => self.out.reset(stream, code),
            Some(Stream::WebTransport { .. }) => {
                self.send_closed(stream);
                self.out.reset(stream, code);
            }
            Some(Stream::Header(beginning)) => beginning.stopped = Some(code),
            None if is_new => self.stopped_unread(now, stream, code),
            // Finished and forgotten here, but the peer will never give credit for what QUIC still holds of it.
            None => self.out.reset(stream, code),
            // Not handed out yet: whoever hands it out asks QUIC.
            Some(Stream::Parked | Stream::Control | Stream::QpackEncoder | Stream::QpackDecoder) => {}
        }
    }

    /// Whatever has waited until `now` has waited too long. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
        if self.out.is_closed() {
            return;
        }
        if self.settings_deadline.is_some_and(|deadline| deadline <= now) {
            return self.out.close(Code::H3_MISSING_SETTINGS, "no SETTINGS in time");
        }
        while let Some(stream) = self.header_deadlines.pop(now) {
            self.header_expired(now, stream);
        }
        self.expire_parked(now);
        while let Some(stream) = self.close_deadlines.pop(now) {
            self.close_expired(stream);
        }
    }

    /// When [`Connection::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.out.is_closed() {
            return None;
        }
        let deadlines = [
            self.settings_deadline,
            self.header_deadlines.next(),
            self.parked.next_expiry(),
            self.close_deadlines.next(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The next thing that QUIC has to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.poll_action().or_else(|| {
            self.write_qpack();
            self.out.poll_action()
        })
    }

    /// The next thing that the application has to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.poll_event()
    }

    /// Whether there is anything to poll, for callers that drain only then.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || (self.decoder.has_instructions() && self.control.own.is_some())
    }

    /// What the peer announced; `None` before its SETTINGS arrived.
    pub const fn peer_settings(&self) -> Option<&Settings> {
        self.control.settings.as_ref()
    }

    /// The WebTransport dialect of this connection; `None` before [`Event::Ready`], and where there is none.
    pub fn dialect(&self) -> Option<Dialect> {
        self.negotiated.flatten()
    }

    /// Whether [`Action::Close`] was queued: nothing more will happen.
    pub const fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// Whether there is neither a session nor a request, and every CONNECT stream has been closed by the peer too. Who wants
    /// to close the QUIC connection waits for this, so that WT_CLOSE_SESSION arrives (draft-ietf-webtrans-http3-16 section
    /// 6). Takes time in proportion to the streams that are open.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty()
            && !self
                .streams
                .values()
                .any(|stream| matches!(stream, Stream::Message(_) | Stream::Closing { .. }))
    }

    /// Whether a session is open or requested, or the peer has not ended a CONNECT stream yet: until then a WT_CLOSE_SESSION of
    /// ours may be under way. Takes time in proportion to the streams that are open.
    pub fn has_connects(&self) -> bool {
        !self.sessions.is_empty() || self.streams.values().any(|s| matches!(s, Stream::Closing { .. }))
    }

    /// Whether a field section of the message on `stream` waits for QPACK's encoder stream: until then whatever is read of the
    /// stream is kept, so nothing should be. An event of the message tells that this is over.
    pub fn is_blocked(&self, stream: StreamId) -> bool {
        matches!(self.streams.get(&stream), Some(Stream::Message(message)) if message.waiting.is_some())
    }

    /// Whether the peer sent GOAWAY.
    pub const fn peer_is_going_away(&self) -> bool {
        self.control.goaway_received.is_some()
    }

    /// The sessions that are requested or open, in no order.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions
            .iter()
            .filter(|(_, session)| session.is_visible())
            .map(|(&id, _)| id)
    }

    /// How many updates wait for their requests, for tests.
    #[cfg(feature = "__testing")]
    #[doc(hidden)]
    pub fn early_updates(&self) -> usize {
        self.early_updates.len()
    }

    /// What is still kept, for tests that end with nothing left over.
    #[cfg(feature = "__testing")]
    #[doc(hidden)]
    pub fn leftovers(&self) -> Vec<String> {
        let is_critical =
            |stream: &Stream| matches!(stream, Stream::Control | Stream::QpackEncoder | Stream::QpackDecoder);
        let streams = self.streams.iter().filter(|(_, stream)| !is_critical(stream));
        let mut left: Vec<_> = streams.map(|(id, stream)| format!("stream {id}: {stream:?}")).collect();
        left.extend(self.sessions.keys().map(|id| format!("session {id}")));
        left.extend(self.parked.next_expiry().map(|_| "parked items".to_owned()));
        left.extend((self.decoder.blocked() > 0).then(|| "blocked sections".to_owned()));
        left.extend((self.encoder.unacknowledged() > 0).then(|| "unacknowledged sections".to_owned()));
        left
    }

    /// Chooses the dialect once all that it depends on is known, and tells.
    fn negotiate(&mut self) {
        let (Some(transport), Some(settings), None) = (self.transport, &self.control.settings, self.negotiated) else {
            return;
        };
        let dialect = negotiate::choose(!self.side, self.dialects, settings, transport);
        self.negotiated = Some(dialect);
        self.peer_limits = self.limits_of_peer(settings, dialect);
        self.out.event(Event::Ready {
            settings: settings.clone(),
            dialect,
        });
        self.admit_held();
    }

    /// The kind of the peer's `stream` is known from now on.
    fn mark_seen(&mut self, stream: StreamId) {
        match stream.dir() {
            Dir::Bi => self.seen_bi.insert(stream.index()),
            Dir::Uni => self.seen_uni.insert(stream.index()),
        }
    }

    fn was_seen(&self, stream: StreamId) -> bool {
        match stream.dir() {
            Dir::Bi => self.seen_bi.contains(stream.index()),
            Dir::Uni => self.seen_uni.contains(stream.index()),
        }
    }

    /// Whether `stream` is the peer's and nothing is known of it yet.
    fn is_new(&self, stream: StreamId) -> bool {
        stream.initiator() != self.side && !self.was_seen(stream)
    }

    /// Nothing of `stream` is wanted, in either direction.
    fn discard(&mut self, stream: StreamId, code: Code) {
        self.abandon(stream);
        self.discard_payload(stream, code);
    }

    /// `stream` was reset or is read no further: QPACK is told if there may be field sections on it, and nothing waits any more
    /// for the request or session that it might have become.
    fn abandon(&mut self, stream: StreamId) {
        if let Some(session) = SessionId::new(stream) {
            self.decoder.cancel(stream);
            self.forget_early_update(stream);
            self.refuse_parked(session);
        }
    }

    /// The same as [`Self::discard`] for a stream without field sections.
    fn discard_payload(&mut self, stream: StreamId, code: Code) {
        self.streams.remove(&stream);
        self.out.abort(self.side, stream, code);
    }

    /// The same as an answer to [`Connection::recv`].
    fn refuse(&mut self, stream: StreamId, code: Code) -> Recv {
        self.discard(stream, code);
        Recv::Done
    }

    /// The same for a stream without field sections.
    fn refuse_payload(&mut self, stream: StreamId, code: Code) -> Recv {
        self.discard_payload(stream, code);
        Recv::Done
    }

    fn close(&mut self, code: Code, reason: &'static str) -> Recv {
        self.out.close(code, reason);
        Recv::Done
    }

    /// "If either control stream is closed at any point, this MUST be treated as a connection error of type
    /// H3_CLOSED_CRITICAL_STREAM" (RFC 9114 section 6.2.1), and so for the QPACK streams (RFC 9204 section 4.2).
    fn critical_closed(&mut self) {
        self.out
            .close(Code::H3_CLOSED_CRITICAL_STREAM, "a critical stream was closed");
    }

    fn frame_reader(&self) -> FrameReader {
        FrameReader::new(FrameLimits {
            headers: self.config.max_field_section_size,
            ..FrameLimits::default()
        })
    }
}

/// For CONNECTION_CLOSE, whose reason is static.
const fn frame_reason(error: FrameError) -> &'static str {
    match error {
        FrameError::Malformed(_) => "the length of a frame does not match its fields",
        FrameError::Truncated => "a stream ended inside a frame",
        FrameError::Http2Type(_) => "a frame type of HTTP/2",
        FrameError::MisplacedWtStream => "WT_STREAM elsewhere than at the start of a stream",
        FrameError::TooLarge(_) => "a frame is too large",
    }
}
