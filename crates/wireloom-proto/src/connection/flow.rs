//! Session flow control on one connection (draft-ietf-webtrans-http3-16 section 5): who counts, and which capsules follow.
//!
//! The core counts streams by itself. Payload passes beside it, so the caller tells the bytes, which costs one look-up each
//! time; where [`Connection::has_flow_control`] says no, it need not say anything.
//!
//! # Streams that end early
//! What the peer sent on a stream that is reset or stopped counts too, by its final size. Where QUIC does not tell it, and
//! for streams that were reset before their header could be read (RESET_STREAM_AT would prevent that), the peer has used
//! credit that this end never saw. Such losses are made good when the peer says that it is blocked at the limit, not before:
//! until then nobody knows whether anything was lost. A stream then costs no more than one stream, and half of the bytes
//! that were not seen are written off, since the rest may still be unread on other streams. Of that rest the half is written
//! off whenever the peer is at the limit and reading does not raise it, which happens where the window has become smaller
//! meanwhile: so the peer always goes on, and gets no more in all than was not seen when the stream ended. A stream of which not even the session is known is made good to each session whose it may have
//! been. What was written off and comes after all, because it was only under way, takes that credit back. QUIC's own limits
//! bound what a peer can gain by lying about it.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::capsules::Over;
use super::events::{CommandError, Event};
use super::{Connection, Stream, deadline};
use crate::capsule;
use crate::codes::Code;
use crate::h3::frame;
use crate::h3::settings::Settings;
use crate::stream_id::{Dir, SessionId, Side, StreamId};
use crate::varint;
use crate::webtransport::flow::{FlowControl, Losses, MAX_STREAMS, SessionFlow};
use crate::webtransport::negotiate::Dialect;
use crate::webtransport::session::Session;

/// Streams of the peer that ended before their session was known, since the connection's beginning.
#[derive(Debug, Default)]
pub(super) struct Unattributed {
    total: Losses,
    /// The total at the start of this turn and of the one before.
    before: [Losses; 2],
    turn_ends: Option<Instant>,
}

impl Unattributed {
    /// What was lost more than a turn ago, which is too long for a session whose CONNECT comes now. A turn lasts `timeout`, as
    /// long as a stream may wait for its session.
    fn long_ago(&mut self, now: Instant, timeout: Duration) -> Losses {
        if self.turn_ends.is_none_or(|end| end <= now) {
            let is_next = self.turn_ends.is_some_and(|end| now < deadline(end, timeout));
            let last = if is_next { self.before[0] } else { self.total };
            self.before = [self.total, last];
            self.turn_ends = Some(deadline(now, timeout));
        }
        self.before[1]
    }
}

/// The least that a session begins with where data is shared, in bytes: a limit of nothing would never be raised.
const MIN_PART: u64 = 4 << 10;

/// What a capsule says to the session's flow control.
#[derive(Debug, Clone, Copy)]
pub(super) enum FlowCapsule {
    MaxData(u64),
    MaxStreams(Dir, u64),
    DataBlocked(u64),
    StreamsBlocked(Dir, u64),
}

fn violation(reason: &'static str) -> Over {
    Over::Misbehaved(Code::WT_FLOW_CONTROL_ERROR, reason)
}

/// The capsules that tell the peer what waits for its limits and has not been told.
fn blocked(flow: &mut SessionFlow) -> Bytes {
    let mut capsules = BytesMut::new();
    if flow.data_out.tell() {
        capsules.put(capsule::encode_data_blocked(flow.data_out.max()));
    }
    for dir in [Dir::Bi, Dir::Uni] {
        let limit = &mut flow.streams_out[dir as usize];
        if limit.tell() {
            capsules.put(capsule::encode_streams_blocked(dir, limit.max()));
        }
    }
    capsules.freeze()
}

impl Connection {
    /// Whether the sessions of this connection have limits: both ends announced some, in a dialect that has them. `false`
    /// before [`Event::Ready`].
    pub const fn has_flow_control(&self) -> bool {
        self.peer_limits.is_some()
    }

    /// See `peer_limits`.
    pub(super) fn limits_of_peer(&self, peer: &Settings, dialect: Option<Dialect>) -> Option<FlowControl> {
        dialect
            .filter(|_| self.config.flow_control.is_on())
            .and_then(|dialect| dialect.peer_limits(peer))
    }

    /// A session without flow control is open. The peer may keep the limits in our SETTINGS all the same, which nobody would
    /// raise: it is told once that there are none. A peer that knows of no limits skips that, as it does every unknown
    /// capsule, and one that knows them to be off has to ignore it (draft 16 section 5.1).
    pub(super) fn lift_limits(&mut self, id: SessionId, session: &Session) {
        if session.flow.is_none() && session.dialect.is_some_and(Dialect::may_keep_limits) {
            let mut capsules = BytesMut::new();
            for dir in [Dir::Bi, Dir::Uni] {
                capsules.put(capsule::encode_max_streams(dir, MAX_STREAMS));
            }
            capsules.put(capsule::encode_max_data(varint::MAX));
            self.announce_in(id, session, &capsules.freeze());
        }
    }

    /// The state that a new session begins with.
    pub(super) fn new_flow(&mut self) -> Option<Box<SessionFlow>> {
        let peer = self.peer_limits?;
        // A server's streams come after the CONNECT, a client's may overtake it.
        let taken = match self.side {
            Side::Client => self.unattributed.total,
            Side::Server => self.lost_long_ago(),
        };
        Some(SessionFlow::new(self.own_limits(), peer, taken))
    }

    fn lost_long_ago(&mut self) -> Losses {
        match self.now {
            Some(now) => self.unattributed.long_ago(now, self.config.parked_timeout),
            None => Losses::default(),
        }
    }

    /// What each session has to begin with. With as many sessions as there may be, or as have a part, they take half of what is
    /// shared; the other half is for those that read.
    pub(super) fn own_limits(&self) -> FlowControl {
        let mut limits = self.config.flow_control.clamped();
        if self.config.shared_data != u64::MAX {
            limits.data = limits.data.min(self.config.shared_data / 2 / self.parts());
        }
        limits
    }

    /// How many sessions have a part of what is shared: all that there may be, as long as that leaves each a [`MIN_PART`].
    fn parts(&self) -> u64 {
        let room = self.config.shared_data / 2 / MIN_PART;
        (self.config.max_sessions as u64).min(room).max(1)
    }

    /// The window that a session may have with as many beside it as there are: its own part, and an even share of what is left
    /// when all parts are taken.
    fn fair_window(&self) -> u64 {
        let most = self.config.flow_control.clamped().data;
        if self.config.shared_data == u64::MAX {
            return most;
        }
        let first = self.own_limits().data;
        let left = self
            .config
            .shared_data
            .saturating_sub(first.saturating_mul(self.parts()));
        first
            .saturating_add(left / (self.sessions.len() as u64).max(1))
            .min(most)
    }

    /// What no session has been promised.
    fn unpromised(&self) -> u64 {
        let flows = self.sessions.values().filter_map(|session| session.flow.as_deref());
        let (n, promised) = flows.fold((0u64, 0u64), |(n, sum), flow| {
            (n + 1, sum.saturating_add(flow.data_in.promised()))
        });
        let unopened = self.parts().saturating_sub(n).saturating_mul(self.own_limits().data);
        self.config
            .shared_data
            .saturating_sub(promised.saturating_add(unopened))
    }

    /// The session's flow control, once the session is open.
    fn flow_of(&mut self, session: SessionId) -> Option<&mut SessionFlow> {
        self.sessions.get_mut(&session)?.flow.as_deref_mut()
    }

    /// How many bytes may be sent now on all streams of `session` together, their headers aside. [`u64::MAX`] without flow
    /// control, 0 if there is no such session.
    ///
    /// "The sum of the lengths of Stream Body data sent on all streams associated with this session MUST NOT exceed the
    /// Maximum Data value advertised by a receiver" (draft 16 section 5.6.4).
    pub fn send_credit(&self, session: SessionId) -> u64 {
        match self.sessions.get(&session).map(|session| &session.flow) {
            Some(Some(flow)) => flow.data_out.available(),
            Some(None) => u64::MAX,
            None => 0,
        }
    }

    /// `n` bytes of payload were given to QUIC on streams of `session`, no more than [`Connection::send_credit`] allowed. They
    /// count for good, whatever becomes of the stream: QUIC counts them in its final size.
    pub fn data_sent(&mut self, session: SessionId, n: u64) {
        if let Some(flow) = self.flow_of(session) {
            flow.data_out.take(n.min(flow.data_out.available()));
        }
    }

    /// Something waits for more [`Connection::send_credit`]: [`Event::SessionDataAvailable`] will tell when there is. The peer
    /// hears of it from [`Connection::tell_blocked`].
    pub fn data_blocked(&mut self, session: SessionId) {
        if let Some(flow) = self.flow_of(session) {
            flow.data_out.want();
        }
    }

    /// Tells the peer what waits for limits that it has not raised since [`Connection::data_blocked`] and
    /// [`Connection::check_open`] (WT_DATA_BLOCKED, WT_STREAMS_BLOCKED): once for each limit.
    ///
    /// When is the caller's affair. A peer that reads raises its limits unasked, in steps of a quarter of a window; one that is
    /// told raises them by whatever it has, so that word at once means many small steps. But where unread streams hold most of a
    /// window, nothing moves without it.
    pub fn tell_blocked(&mut self) {
        let mut waiting: Vec<SessionId> = self.sessions.keys().copied().collect();
        waiting.sort_unstable();
        for session in waiting {
            let Some(state) = self.sessions.get_mut(&session) else {
                continue;
            };
            if state.may_write()
                && let Some(flow) = &mut state.flow
            {
                let payload = blocked(flow);
                self.write_blocked(session, &payload);
            }
        }
    }

    /// `n` bytes of payload of `session` arrived that did not pass through [`Connection::recv`]. Without flow control this does
    /// nothing.
    ///
    /// "If an endpoint receives Stream Body data in excess of this limit, it MUST close the WebTransport session with a
    /// WT_FLOW_CONTROL_ERROR error code" (draft 16 section 5.6.4): actions and [`Event::SessionClosed`] follow.
    pub fn data_received(&mut self, session: SessionId, n: u64) {
        if n == 0 {
            return;
        }
        if let Some(flow) = self.flow_of(session)
            && flow.data_in.receive(n).is_err()
        {
            self.abort_session(session.stream(), violation("more data than the session's limit allows"));
        }
    }

    /// The application has taken `n` bytes of payload of `session`, which count as received already. WT_MAX_DATA may
    /// follow: "An endpoint MUST NOT wait for a WT_DATA_BLOCKED or WT_STREAMS_BLOCKED capsule before sending a
    /// WT_MAX_DATA or WT_MAX_STREAMS capsule" (draft 16 section 5.6).
    /// Without flow control this does nothing.
    pub fn data_consumed(&mut self, session: SessionId, n: u64) {
        let Some(flow) = self.flow_of(session) else { return };
        if !flow.data_in.consume(n) {
            if flow.doubtful > 0 {
                self.make_good(session);
            }
            return;
        }
        let fair = self.fair_window();
        let Some(flow) = self.flow_of(session) else { return };
        let limit = &mut flow.data_in;
        if !limit.shrink(fair) {
            if flow.doubtful > 0 {
                self.make_good(session);
            }
            return;
        }
        // What is read fast has a larger window, as long as the others leave room.
        let growth = limit.growth(fair);
        let growth = if growth == 0 { 0 } else { growth.min(self.unpromised()) };
        if let Some(flow) = self.flow_of(session)
            && let Some(max) = flow.data_in.grow(growth)
        {
            self.announce(session, &capsule::encode_max_data(max));
        }
    }

    /// Whether another stream may be opened in `session` as far as its own limit goes: to be asked before QUIC is.
    /// [`CommandError::Blocked`] if not: [`Event::SessionStreamsAvailable`] will tell when it may. The peer hears of it from
    /// [`Connection::tell_blocked`].
    ///
    /// "An endpoint MUST NOT open more streams than permitted by the current stream limit set by its peer" (draft 16
    /// section 5.6.2).
    pub fn check_open(&mut self, session: SessionId, dir: Dir) -> Result<(), CommandError> {
        let side = self.side;
        if self.out.is_closed() {
            return Err(CommandError::SessionClosed);
        }
        let state = self.sessions.get_mut(&session).ok_or(CommandError::SessionClosed)?;
        state.check_sending(side)?;
        state.check_open(dir)
    }

    /// Client: the session is open now, so the server can be told of what has had to wait since before.
    pub(super) fn tell_blocked_in(&mut self, id: SessionId, session: &mut Session) {
        if session.may_write()
            && let Some(flow) = &mut session.flow
        {
            let payload = blocked(flow);
            self.write_blocked(id, &payload);
        }
    }

    fn write_blocked(&mut self, session: SessionId, capsules: &Bytes) {
        if !capsules.is_empty() {
            self.write_capsule(session, capsules);
        }
    }

    /// A stream of the peer belongs to `session`, and `n` bytes of its payload came with the header.
    ///
    /// "If an endpoint receives an incoming stream for a session that would exceed the advertised Maximum Streams
    /// value, it MUST close the WebTransport session with a WT_FLOW_CONTROL_ERROR error code" (draft 16 section 5.6.2).
    pub(super) fn count_stream(flow: &mut SessionFlow, stream: StreamId, n: u64) -> Result<(), Over> {
        if flow.streams_in[stream.dir() as usize].receive(1).is_err() {
            return Err(violation("more streams than the session's limit allows"));
        }
        if flow.data_in.receive(n).is_err() {
            return Err(violation("more data than the session's limit allows"));
        }
        Ok(())
    }

    /// A stream of the peer is over, both halves of it: it makes room for another.
    pub(super) fn stream_over(&mut self, session: SessionId, dir: Dir) {
        if let Some(flow) = self.flow_of(session)
            && let Some(max) = flow.streams_in[dir as usize].release(1)
        {
            self.announce(session, &capsule::encode_max_streams(dir, max));
        }
    }

    /// Bytes of a stream of `session` will never be read, and nobody knows how many.
    pub(super) fn data_lost(&mut self, session: SessionId) {
        if let Some(flow) = self.flow_of(session) {
            flow.lossy = true;
            flow.doubtful = flow.data_in.unseen();
            self.make_good(session);
        }
    }

    /// A stream of the peer ended before its session was known.
    pub(super) fn stream_lost(&mut self, dir: Dir) {
        if !self.has_flow_control() && !self.is_undecided() {
            return;
        }
        self.lost_long_ago();
        let total = &mut self.unattributed.total;
        total.streams[dir as usize] += 1;
        total.data += 1;
        let mut blocked: Vec<SessionId> = self.sessions.keys().copied().collect();
        blocked.sort_unstable();
        for session in blocked {
            self.make_good(session);
        }
    }

    /// See the module: a session whose peer is blocked gets back what was lost.
    fn make_good(&mut self, session: SessionId) {
        let Some(mut state) = self.sessions.remove(&session) else {
            return;
        };
        for payload in self.credit_losses(&mut state) {
            self.announce_in(session, &state, &payload);
        }
        self.sessions.insert(session, state);
    }

    /// Raises the limits at which the peer is blocked by what was lost, and answers the capsules that say so.
    fn credit_losses(&mut self, session: &mut Session) -> Vec<Bytes> {
        let mut capsules = Vec::new();
        let Some(flow) = &mut session.flow else {
            return capsules;
        };
        let total = self.unattributed.total;
        for dir in [Dir::Bi, Dir::Uni] {
            let limit = &mut flow.streams_in[dir as usize];
            let taken = &mut flow.taken.streams[dir as usize];
            let lost = total.streams[dir as usize] - *taken;
            if limit.is_peer_blocked() && lost > 0 {
                let n = limit.unseen().min(lost);
                *taken += n;
                capsules.extend(limit.lose(n).map(|max| capsule::encode_max_streams(dir, max)));
            }
        }
        let limit = &mut flow.data_in;
        if limit.is_peer_blocked() {
            if total.data > flow.taken.data {
                flow.taken.data = total.data;
                flow.lossy = true;
                flow.doubtful = limit.unseen();
            }
            if std::mem::take(&mut flow.lossy) || limit.is_in_vain() {
                let mut raised = None;
                // Where the window is smaller than what is left in doubt, half of it is not enough.
                while raised.is_none() && flow.doubtful > 0 {
                    let doubtful = flow.doubtful.min(limit.unseen());
                    let lost = doubtful.div_ceil(2);
                    flow.doubtful = doubtful - lost;
                    raised = limit.lose(lost);
                }
                capsules.extend(raised.map(capsule::encode_max_data));
            }
        }
        capsules
    }

    /// A flow-control capsule for an open session, which has been taken out of the table meanwhile.
    pub(super) fn flow_capsule(
        &mut self,
        id: SessionId,
        session: &mut Session,
        capsule: FlowCapsule,
    ) -> Result<(), Over> {
        // "if flow control is not enabled, an endpoint MUST ignore receipt of any flow control capsules" (draft 16
        // section 5.1).
        let Some(flow) = &mut session.flow else { return Ok(()) };
        let strictly = session.dialect.is_some_and(|dialect| dialect.limits_must_increase());
        // "If an endpoint receives a WT_MAX_STREAMS capsule that does not increase the Maximum Streams value previously
        // received, it MUST close the WebTransport session with a WT_FLOW_CONTROL_ERROR error code" (draft 16 section
        // 5.6.2); the same for WT_MAX_DATA "that does not increase the Maximum Data value previously received, it MUST
        // close the WebTransport session with a WT_FLOW_CONTROL_ERROR error code" (draft 16 section 5.6.4).
        let not_raised = |_| violation("a limit that does not increase");
        let raised = match capsule {
            FlowCapsule::MaxData(max) => {
                if flow.data_out.raise(max, strictly).map_err(not_raised)? {
                    self.out.event(Event::SessionDataAvailable { session: id });
                }
                None
            }
            // Of 2^60: "Recipients of a capsule with a Maximum Streams value larger than this limit MUST close the
            // WebTransport session with a WT_FLOW_CONTROL_ERROR error code" (draft 16 sections 5.6.2 and 5.6.3).
            FlowCapsule::MaxStreams(_, max) | FlowCapsule::StreamsBlocked(_, max) if max > MAX_STREAMS => {
                return Err(violation("a limit on streams above 2^60"));
            }
            FlowCapsule::MaxStreams(dir, max) => {
                let limit = &mut flow.streams_out[dir as usize];
                if limit.raise(max, strictly).map_err(not_raised)? {
                    self.out.event(Event::SessionStreamsAvailable { session: id, dir });
                }
                None
            }
            FlowCapsule::DataBlocked(limit) => flow.data_in.peer_blocked(limit).map(capsule::encode_max_data),
            FlowCapsule::StreamsBlocked(dir, limit) => flow.streams_in[dir as usize]
                .peer_blocked(limit)
                .map(|max| capsule::encode_max_streams(dir, max)),
        };
        match raised {
            Some(payload) => self.announce_in(id, session, &payload),
            None => {
                for payload in self.credit_losses(session) {
                    self.announce_in(id, session, &payload);
                }
            }
        }
        Ok(())
    }

    fn announce(&mut self, session: SessionId, payload: &Bytes) {
        if self.sessions.get(&session).is_some_and(|state| state.may_write()) {
            self.write_capsule(session, payload);
        }
    }

    fn announce_in(&mut self, id: SessionId, session: &Session, payload: &Bytes) {
        if session.may_write() {
            self.write_capsule(id, payload);
        }
    }

    pub(super) fn write_capsule(&mut self, session: SessionId, payload: &Bytes) {
        self.out
            .write(session.stream(), frame::encode(frame::DATA, payload), false);
    }

    /// One half of a WebTransport stream is over; `is_send` says which. Answers its session if the half was open until now.
    pub(super) fn half_over(&mut self, stream: StreamId, is_send: bool) -> Option<SessionId> {
        use std::collections::hash_map::Entry;
        let Entry::Occupied(mut entry) = self.streams.entry(stream) else {
            return None;
        };
        let Stream::WebTransport { session, send, recv } = entry.get_mut() else {
            return None;
        };
        let session = *session;
        let (half, other) = if is_send { (send, recv) } else { (recv, send) };
        let was_open = std::mem::replace(half, false);
        if !*other {
            entry.remove();
            if self.peer_limits.is_some() && stream.initiator() != self.side {
                self.stream_over(session, stream.dir());
            }
        }
        was_open.then_some(session)
    }
}
