//! WebTransport sessions below their handles.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashSet;
use wireloom_proto::connection::{CommandError, SessionEnd, SessionRequest};
use wireloom_proto::{Dir, SessionId, StreamId};

use super::{COPY_FROM, Driver, IncomingStream, Topic, Transport, WakeList};
use crate::error::{DatagramError, SessionError};
use crate::session::{Answer, SessionState};

/// A session's queues, and the state that its handles share.
pub(crate) struct SessionEntry {
    pub(super) state: Arc<SessionState>,
    /// By direction: streams of the peer that nobody accepted yet, bounded by `MAX_UNACCEPTED` and QUIC's stream limits.
    pub(super) streams: [VecDeque<IncomingStream>; 2],
    datagrams: VecDeque<Bytes>,
    datagram_bytes: usize,
    /// Streams that wait to write until the peer raises the session's limit on data.
    pub(super) waiting: FxHashSet<StreamId>,
    /// Where datagrams that wait are copied to.
    arena: BytesMut,
}

impl SessionEntry {
    pub(super) fn new(state: Arc<SessionState>) -> Box<Self> {
        Box::new(Self {
            state,
            streams: Default::default(),
            datagrams: VecDeque::new(),
            datagram_bytes: 0,
            waiting: FxHashSet::default(),
            arena: BytesMut::new(),
        })
    }

    pub(super) fn end(self, error: SessionError, wakes: &mut WakeList) {
        self.state.set_ended(error);
        wakes.all(&self.state.signals);
    }

    /// How many of the driver's `unaccepted` streams are this session's.
    pub(super) fn unaccepted(&self) -> usize {
        self.streams.iter().map(VecDeque::len).sum()
    }
}

/// The size of the buffers in which datagrams wait.
const ARENA: usize = 16 * 1024;

/// What a queued datagram costs: small ones are not free.
fn datagram_cost(payload: &Bytes) -> usize {
    payload.len() + size_of::<Bytes>()
}

impl Driver {
    pub(super) fn on_datagram(&mut self, wakes: &mut WakeList, session: SessionId, payload: Bytes) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let traffic = &entry.state.traffic;
        traffic.datagrams_received.add(1);
        // The newest matter most to those who use datagrams; quinn-proto drops in the same order.
        entry.datagram_bytes += datagram_cost(&payload);
        let payload = if entry.datagrams.len() < COPY_FROM {
            payload
        } else {
            if entry.arena.capacity() < payload.len() {
                entry.arena.reserve(payload.len().max(ARENA));
            }
            entry.arena.extend_from_slice(&payload);
            entry.arena.split().freeze()
        };
        entry.datagrams.push_back(payload);
        while entry.datagram_bytes > self.config.datagram_queue
            && let Some(oldest) = entry.datagrams.pop_front()
        {
            entry.datagram_bytes -= datagram_cost(&oldest);
            traffic.datagrams_dropped_incoming.add(1);
        }
        wakes.one(&entry.state.signals, Topic::Datagram);
    }

    pub(super) fn on_draining(&mut self, wakes: &mut WakeList, session: SessionId) {
        if let Some(SessionEntry { state, .. }) = self.sessions.get(&session).map(|entry| &**entry) {
            state.set_draining();
            wakes.all(&state.signals);
        }
    }

    /// Client: the server's answer to a CONNECT of ours.
    pub(super) fn on_answer(&mut self, wakes: &mut WakeList, session: SessionId, answer: Answer) {
        if let Some(SessionEntry { state, .. }) = self.sessions.get(&session).map(|entry| &**entry) {
            state.set_answer(answer);
            wakes.all(&state.signals);
        }
    }

    /// Client: the answer is another than 2xx.
    pub(super) fn on_rejected(&mut self, wakes: &mut WakeList, session: SessionId, response: http::Response<()>) {
        let status = response.status();
        let answer = Answer {
            response: Some(response),
            protocol: None,
        };
        self.on_answer(wakes, session, answer);
        if let Some(entry) = self.sessions.remove(&session) {
            entry.end(SessionError::Rejected { status }, wakes);
        }
    }

    pub(super) fn on_session_closed(
        &mut self,
        wakes: &mut WakeList,
        session: SessionId,
        end: SessionEnd,
        streams: &[StreamId],
    ) {
        let error = match end {
            SessionEnd::ClosedByPeer { code, reason } => SessionError::Closed { code, reason },
            SessionEnd::ClosedByUs { code, reason } => SessionError::LocallyClosed { code, reason },
            SessionEnd::ResetByPeer { code } => SessionError::Reset { code },
            SessionEnd::StoppedByPeer { code } => SessionError::Stopped { code },
            SessionEnd::PeerMisbehaved { code, reason } => SessionError::PeerMisbehaved { code, reason },
            other => {
                tracing::debug!(parent: &self.span, ?other, "session ended");
                SessionError::LocallyClosed {
                    code: 0,
                    reason: String::new(),
                }
            }
        };
        self.forget_streams(wakes, streams);
        let Some(entry) = self.sessions.remove(&session) else {
            return;
        };
        tracing::debug!(parent: &entry.state.span, %error, "session over");
        self.unaccepted -= entry.unaccepted();
        for stream in entry.streams.iter().flatten() {
            // No handle will: the peer may have stopped a stream that nobody accepted.
            self.streams.remove(&stream.id);
        }
        entry.end(error, wakes);
    }

    /// HTTP/3 has reset these: whoever waits on them learns it.
    pub(super) fn forget_streams(&mut self, wakes: &mut WakeList, streams: &[StreamId]) {
        for stream in streams {
            self.feeds.remove(stream);
            self.outgoing.remove(stream);
            if let Some(mut entry) = self.streams.remove(stream) {
                wakes.waker(entry.reader.take());
                wakes.waker(entry.writer.take());
            }
        }
    }

    /// Asks the server for a session.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        request: &SessionRequest,
    ) -> Result<Option<Arc<SessionState>>, CommandError> {
        let Some(stream) = quic.open(Dir::Bi) else {
            return Ok(None);
        };
        match self.h3.connect(now, stream, request) {
            Ok(session) => {
                let path = request.path.split('?').next().unwrap_or_default();
                let state = self.new_session(session, path);
                // From now on HTTP/3 reads the response and the capsules as they come.
                self.feeds.insert(stream, None);
                self.settle(now, quic, wakes);
                Ok(Some(state))
            }
            Err(e) => {
                quic.reset(stream, wireloom_proto::Code::H3_REQUEST_CANCELLED);
                quic.stop(stream, wireloom_proto::Code::H3_REQUEST_CANCELLED);
                Err(e)
            }
        }
    }

    /// A session that is asked for from now on. `path` is without the query, which may hold secrets.
    pub(super) fn new_session(&mut self, session: SessionId, path: &str) -> Arc<SessionState> {
        let (id, draft) = (session.into_u64(), self.h3.dialect().map(tracing::field::debug));
        let span = tracing::debug_span!(parent: &self.span, "session", id, path, draft);
        let state = Arc::new(SessionState::new(session, span));
        self.sessions.insert(session, SessionEntry::new(state.clone()));
        state
    }

    /// What a session's handles share; `None` if it is over.
    pub(crate) fn session_state(&self, session: SessionId) -> Option<Arc<SessionState>> {
        self.sessions.get(&session).map(|entry| entry.state.clone())
    }

    /// Nobody holds the session any more.
    pub(crate) fn abandon_session(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
    ) {
        // Where it is over already there is nothing to close.
        let _ = self.h3.cancel_session(now, session);
        self.settle(now, quic, wakes);
    }

    /// Server: 2xx.
    pub(crate) fn accept_session(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
        head: &http::Response<()>,
        protocol: Option<&str>,
    ) -> Result<(), CommandError> {
        self.h3.accept_session(now, session, head, protocol)?;
        self.settle(now, quic, wakes);
        Ok(())
    }

    /// Server: any other status.
    pub(crate) fn reject_session(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
        head: &http::Response<()>,
        body: Bytes,
    ) {
        if let Err(error) = self.h3.reject_session(session, head, body) {
            tracing::debug!(parent: &self.span, %session, %error, "session could not be rejected in these words");
            // The client must not wait for ever because of a head that cannot be sent. Where the session is over already
            // there is nobody to tell.
            let mut plain = http::Response::new(());
            *plain.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            let _ = self.h3.reject_session(session, &plain, Bytes::new());
        }
        self.sessions.remove(&session);
        self.settle(now, quic, wakes);
    }

    pub(crate) fn close_session(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
        code: u32,
        reason: &str,
    ) {
        // Where it is over already there is nothing to close.
        let _ = self.h3.close_session(now, session, code, reason);
        self.settle(now, quic, wakes);
    }

    pub(crate) fn close_all_sessions(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        code: u32,
        reason: &str,
    ) {
        let sessions: Vec<SessionId> = self.h3.sessions().collect();
        for session in sessions {
            let _ = self.h3.close_session(now, session, code, reason);
        }
        self.settle(now, quic, wakes);
    }

    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn drain_session(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
    ) {
        let _ = self.h3.drain_session(session);
        self.settle(now, quic, wakes);
    }

    /// A stream that waits to be accepted, and whether there are more.
    pub(crate) fn take_stream(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
        dir: Dir,
    ) -> Option<(IncomingStream, bool)> {
        let queue = &mut self.sessions.get_mut(&session)?.streams[dir as usize];
        let stream = queue.pop_front()?;
        let more = !queue.is_empty();
        self.unaccepted -= 1;
        if self.h3.has_flow_control() {
            self.h3.data_consumed(session, stream.len());
            if stream.finished {
                self.h3.recv_closed(stream.id);
            }
            if self.h3.has_output() {
                self.settle(Instant::now(), quic, wakes);
            }
        }
        Some((stream, more))
    }

    /// A datagram that waits to be received, and whether there are more.
    pub(crate) fn take_datagram(&mut self, session: SessionId) -> Option<(Bytes, bool)> {
        let entry = self.sessions.get_mut(&session)?;
        let datagram = entry.datagrams.pop_front()?;
        entry.datagram_bytes -= datagram_cost(&datagram);
        Some((datagram, !entry.datagrams.is_empty()))
    }

    /// `Ok(false)` if the send buffer is full and `drop_oldest` is not wanted.
    pub(crate) fn send_datagram(
        &mut self,
        quic: &mut Transport,
        session: &SessionState,
        payload: &[u8],
        drop_oldest: bool,
    ) -> Result<bool, DatagramError> {
        self.check(session)?;
        let Some(max) = quic.max_datagram_size() else {
            return Err(DatagramError::Unsupported);
        };
        let prefix = session.datagram_prefix();
        let max = max.saturating_sub(prefix.len());
        if payload.len() > max {
            return Err(DatagramError::TooLarge { max });
        }
        if session.is_stopped() {
            // "HTTP/3 Datagrams MUST NOT be sent unless the corresponding stream's send side is open" (RFC 9297 section
            // 2.1): it is lost, as datagrams may be.
            return Ok(true);
        }
        let mut datagram = BytesMut::with_capacity(prefix.len() + payload.len());
        datagram.extend_from_slice(prefix);
        datagram.extend_from_slice(payload);
        let is_taken = quic.send_datagram(datagram.freeze(), drop_oldest);
        session.traffic.datagrams_sent.add(is_taken.into());
        Ok(is_taken)
    }
}
