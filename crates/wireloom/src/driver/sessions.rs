//! WebTransport sessions below their handles.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashSet;
use wireloom_proto::connection::{CommandError, SessionEnd, SessionRequest};
use wireloom_proto::h3::priority::Priority;
use wireloom_proto::{Dir, SessionId, StreamId};

use super::datagrams::Datagrams;
use super::sending::CONTROL_PRIORITY;
use super::{Driver, IncomingStream, Transport, WakeList};
use crate::error::SessionError;
use crate::session::SessionState;

/// A session's queues, and the state that its handles share.
#[derive(Default)]
pub(crate) struct SessionEntry {
    /// `None` between the request and the first handle.
    pub(super) state: Option<Arc<SessionState>>,
    pub(super) priority: Priority,
    /// By direction: streams of the peer that nobody accepted yet, bounded by `MAX_UNACCEPTED` and QUIC's stream limits.
    pub(super) streams: [VecDeque<IncomingStream>; 2],
    pub(super) datagrams: Datagrams,
    /// Streams that wait to write until the peer raises the session's limit on data.
    pub(super) waiting: FxHashSet<StreamId>,
    answer: Option<Established>,
    /// What happened between the answer and the first handle.
    draining: bool,
    ended: Option<SessionError>,
}

/// The server's answer to a CONNECT of ours.
pub(crate) enum Established {
    Accepted {
        head: Box<http::Response<()>>,
        protocol: Option<String>,
    },
    Rejected {
        head: Box<http::Response<()>>,
    },
    Failed(SessionError),
}

impl SessionEntry {
    pub(super) fn end(self, error: SessionError, wakes: &mut WakeList) {
        if let Some(state) = self.state {
            state.set_ended(error);
            wakes.all(&state.signals);
        }
    }

    /// Client: keeps the answer for whoever dials.
    pub(super) fn end_unattached(&mut self, error: SessionError) {
        self.streams = Default::default();
        self.datagrams.forget_received();
        match self.answer {
            Some(_) => self.ended = Some(error),
            None => self.answer = Some(Established::Failed(error)),
        }
    }

    /// How many of the driver's `unaccepted` streams are this session's.
    pub(super) fn unaccepted(&self) -> usize {
        self.streams.iter().map(VecDeque::len).sum()
    }

    pub(super) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }
}

impl Driver {
    pub(super) fn on_draining(&mut self, wakes: &mut WakeList, session: SessionId) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        entry.draining = true;
        if let Some(state) = &entry.state {
            state.set_draining();
            wakes.all(&state.signals);
        }
    }

    pub(super) fn on_established(&mut self, wakes: &mut WakeList, session: SessionId, answer: Established) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.answer = Some(answer);
            wakes.all(&self.signals);
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
            SessionEnd::PeerMisbehaved { code, reason } => SessionError::PeerMisbehaved { code, reason },
            other => {
                tracing::debug!(parent: &self.span, ?other, "session ended");
                SessionError::LocallyClosed {
                    code: 0,
                    reason: String::new(),
                }
            }
        };
        tracing::debug!(parent: &self.span, %session, %error, "session over");
        self.forget_streams(wakes, streams);
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        self.unaccepted -= entry.unaccepted();
        for stream in entry.streams.iter().flatten() {
            // No handle will: the peer may have stopped a stream that nobody accepted.
            self.streams.remove(&stream.id);
        }
        if entry.state.is_none() && self.side == wireloom_proto::Side::Client {
            // Nobody holds a handle yet: whoever dials learns it from the answer, or from the handle.
            entry.end_unattached(error);
            wakes.all(&self.signals);
        } else if let Some(entry) = self.sessions.remove(&session) {
            entry.end(error, wakes);
        }
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
    ) -> Result<Option<SessionId>, CommandError> {
        let Some(stream) = quic.open(Dir::Bi) else {
            return Ok(None);
        };
        match self.h3.connect(now, stream, request) {
            Ok(session) => {
                quic.set_priority(stream, CONTROL_PRIORITY);
                self.sessions.insert(session, Box::default());
                // From now on HTTP/3 reads the response and the capsules as they come.
                self.feeds.insert(stream, None);
                self.settle(now, quic, wakes);
                Ok(Some(session))
            }
            Err(e) => {
                quic.reset(stream, wireloom_proto::Code::H3_REQUEST_CANCELLED);
                quic.stop(stream, wireloom_proto::Code::H3_REQUEST_CANCELLED);
                Err(e)
            }
        }
    }

    /// The server's answer, once.
    pub(crate) fn take_answer(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
    ) -> Option<Established> {
        let answer = self.sessions.get_mut(&session)?.answer.take()?;
        if !matches!(answer, Established::Accepted { .. }) {
            self.sessions.remove(&session);
            self.note_idle(now, quic, wakes);
        }
        Some(answer)
    }

    /// Gives a session the state that its handles share. `false` if it is forgotten already.
    pub(crate) fn attach(&mut self, state: &Arc<SessionState>) -> bool {
        let Some(entry) = self.sessions.get_mut(&state.id) else {
            return false;
        };
        if entry.draining {
            state.set_draining();
        }
        match entry.ended.take() {
            // The peer accepted it and closed it at once: the handle says so.
            Some(ended) => {
                // Its queues are empty.
                state.set_ended(ended);
                self.sessions.remove(&state.id);
            }
            None => entry.state = Some(state.clone()),
        }
        true
    }

    /// Client: nobody waits for the session any more.
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
        self.drop_payload(quic, session);
        if let Some(entry) = self.sessions.remove(&session) {
            self.unaccepted -= entry.unaccepted();
        }
        self.note_idle(now, quic, wakes);
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
}
