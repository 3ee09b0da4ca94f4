//! WebTransport sessions below their handles.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashSet;
use wireloom_proto::connection::{CommandError, SessionEnd, SessionRequest};
use wireloom_proto::h3::priority::Priority;
use wireloom_proto::{Code, Dir, SessionId, StreamId};

use super::datagrams::Datagrams;
use super::sending::CONTROL_PRIORITY;
use super::{Driver, IncomingStream, Transport, WakeList};
use crate::error::SessionError;
use crate::metrics::{self, OpenSession};
use crate::session::{Answer, SessionState};

/// A session's queues, and the state that its handles share.
pub(crate) struct SessionEntry {
    pub(super) state: Arc<SessionState>,
    pub(super) priority: Priority,
    /// By direction: streams of the peer that nobody accepted yet, bounded by `MAX_UNACCEPTED` and QUIC's stream limits.
    pub(super) streams: [VecDeque<IncomingStream>; 2],
    pub(super) datagrams: Datagrams,
    /// Streams that wait to write until the peer raises the session's limit on data.
    pub(super) waiting: FxHashSet<StreamId>,
    /// Server: once it is accepted.
    open: Option<OpenSession>,
}

impl SessionEntry {
    pub(super) fn new(state: Arc<SessionState>) -> Box<Self> {
        Box::new(Self {
            state,
            streams: Default::default(),
            priority: Priority::default(),
            datagrams: Datagrams::default(),
            waiting: FxHashSet::default(),
            open: None,
        })
    }

    pub(super) fn end(self, error: SessionError, wakes: &mut WakeList) {
        if let Some(open) = &self.open {
            open.ended(&error);
        }
        self.state.set_ended(error);
        wakes.all(&self.state.signals);
    }

    /// How many of the driver's `unaccepted` streams are this session's.
    pub(super) fn unaccepted(&self) -> usize {
        self.streams.iter().map(VecDeque::len).sum()
    }
}

impl Driver {
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
            self.discard_outgoing(*stream);
            self.forget_order(*stream);
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
                quic.set_priority(stream, CONTROL_PRIORITY);
                let path = request.path.split('?').next().unwrap_or_default();
                let state = self.new_session(session, path);
                // From now on HTTP/3 reads the response and the capsules as they come.
                self.feeds.insert(stream, None);
                self.settle(now, quic, wakes);
                Ok(Some(state))
            }
            Err(e) => {
                quic.reset(stream, Code::H3_REQUEST_CANCELLED);
                quic.stop(stream, Code::H3_REQUEST_CANCELLED);
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
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.open = Some(OpenSession::new(self.h3.dialect()));
        }
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
        metrics::session_rejected(head.status());
        if let Err(error) = self.h3.reject_session(now, session, head, body) {
            tracing::debug!(parent: &self.span, %session, %error, "session could not be rejected in these words");
            // The client must not wait for ever because of a head that cannot be sent.
            let mut plain = http::Response::new(());
            *plain.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            self.refuse_session(now, session, &plain, Code::H3_INTERNAL_ERROR);
        }
        self.sessions.remove(&session);
        self.settle(now, quic, wakes);
    }

    /// Rejects a session with a plain status, or with `code` where the client does not even take that
    /// (SETTINGS_MAX_FIELD_SECTION_SIZE).
    pub(super) fn refuse_session(&mut self, now: Instant, session: SessionId, plain: &http::Response<()>, code: Code) {
        if self.h3.reject_session(now, session, plain, Bytes::new()).is_err() {
            // Over already only if the client cancelled it in the same breath.
            let _ = self.h3.reset_session(now, session, code);
        }
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

    pub(crate) fn abort_session(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
    ) {
        // Where it is over already there is nothing to abort.
        let _ = self.h3.reset_session(now, session, Code::H3_INTERNAL_ERROR);
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
}
