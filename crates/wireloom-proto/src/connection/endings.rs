//! How sessions end (draft-ietf-webtrans-http3-16 section 6).

use std::time::Instant;

use bytes::Bytes;

use super::capsules::Over;
use super::deadline;
use super::events::{CommandError, Event, Recv, SessionEnd};
use super::{Connection, Stream};
use crate::capsule;
use crate::codes::Code;
use crate::h3::frame;
use crate::stream_id::{SessionId, Side, StreamId};
use crate::webtransport::session::Session;

impl Connection {
    /// Ends a session with WT_CLOSE_SESSION and FIN. `reason` is cut at 1024 bytes, between characters. All its streams are
    /// reset; [`Event::SessionClosed`] lists them. The CONNECT stream is then read, and what comes dropped, until the peer
    /// ends it too; after [`Config::close_timeout`](super::Config::close_timeout) it is stopped.
    ///
    /// A client that has no response yet may call this too; a server rejects such a session instead.
    pub fn close_session(
        &mut self,
        now: Instant,
        session: SessionId,
        code: u32,
        reason: &str,
    ) -> Result<(), CommandError> {
        self.now = Some(now);
        self.usable_session(session)?;
        let Some(closed) = self.sessions.remove(&session) else {
            return Err(CommandError::SessionClosed);
        };
        let reason = capsule::clip_reason(reason).to_owned();
        let stream = session.stream();
        let streams = self.end_streams(session);
        if closed.stopped.is_some() {
            self.streams.remove(&stream);
            self.out.stop(stream, Code::WT_SESSION_GONE);
            self.abandon(stream);
        } else {
            // "An endpoint that sends a WT_CLOSE_SESSION capsule MUST immediately send a FIN on the CONNECT Stream"
            // (draft 16 section 6). "The endpoint MAY also send a STOP_SENDING": not now, since it could overtake the
            // capsule and hide it.
            let payload = capsule::encode_close_session(code, &reason);
            self.out.write(stream, frame::encode(frame::DATA, &payload), true);
            self.await_end(stream, false, false, Code::WT_SESSION_GONE);
        }
        let end = SessionEnd::ClosedByUs { code, reason };
        self.out.event(Event::SessionClosed { session, end, streams });
        Ok(())
    }

    /// Client: gives a session up, by resetting its CONNECT stream if the server has not answered yet: it would not look at a
    /// capsule before that (RFC 9114 section 4.1.1). As [`Connection::close_session`] otherwise.
    pub fn cancel_session(&mut self, now: Instant, session: SessionId) -> Result<(), CommandError> {
        if self.usable_session(session)?.is_open() {
            return self.close_session(now, session, 0, "");
        }
        self.reset_session(now, session, Code::H3_REQUEST_CANCELLED)
    }

    /// Ends a session by resetting its CONNECT stream with `code`: the peer learns that something failed here, and no code or
    /// reason of the application's. A server may do so instead of an answer, too.
    pub fn reset_session(&mut self, now: Instant, session: SessionId, code: Code) -> Result<(), CommandError> {
        let is_visible = self.sessions.get(&session).is_some_and(|session| session.is_visible());
        if self.out.is_closed() || !is_visible {
            return Err(CommandError::SessionClosed);
        }
        self.now = Some(now);
        self.sessions.remove(&session);
        let streams = self.end_streams(session);
        self.discard(session.stream(), code);
        let end = SessionEnd::ClosedByUs {
            code: 0,
            reason: String::new(),
        };
        self.out.event(Event::SessionClosed { session, end, streams });
        Ok(())
    }

    /// Asks the peer to end the session soon (WT_DRAIN_SESSION). Nothing else changes. A second call does nothing.
    pub fn drain_session(&mut self, session: SessionId) -> Result<(), CommandError> {
        self.usable_session(session)?;
        let Some(draining) = self.sessions.get_mut(&session) else {
            return Err(CommandError::SessionClosed);
        };
        if !draining.drain_sent && draining.stopped.is_none() {
            draining.drain_sent = true;
            self.write_capsule(session, &capsule::encode_drain_session());
        }
        Ok(())
    }

    /// Ends a session for a reason that came over the CONNECT stream; `fin` if that stream has ended.
    pub(super) fn end_session(&mut self, id: SessionId, session: &Session, over: Over, fin: bool) -> Recv {
        let stream = id.stream();
        if let Over::Connection(code, reason) = over {
            return self.close(code, reason);
        }
        let streams = self.end_streams(id);
        let end = match over {
            Over::Connection(..) => return Recv::Done,
            Over::Closed {
                code,
                reason,
                trailing: false,
            } => {
                // "The recipient MUST either close or reset the stream in response" (draft 16 section 6).
                if session.stopped.is_none() {
                    self.out.write(stream, Bytes::new(), true);
                }
                self.await_end(stream, fin, true, Code::WT_SESSION_GONE);
                SessionEnd::ClosedByPeer { code, reason }
            }
            Over::Closed {
                code,
                reason,
                trailing: true,
            } => {
                // "If any additional stream data is received on the CONNECT stream after receiving a WT_CLOSE_SESSION
                // capsule, the stream MUST be reset with code H3_MESSAGE_ERROR" (draft 16 section 6).
                self.discard(stream, Code::H3_MESSAGE_ERROR);
                SessionEnd::ClosedByPeer { code, reason }
            }
            Over::Misbehaved(code, reason) => {
                self.discard(stream, code);
                SessionEnd::PeerMisbehaved { code, reason }
            }
            Over::Reset(code) => {
                self.discard(stream, Code::H3_REQUEST_CANCELLED);
                SessionEnd::ResetByPeer { code }
            }
            Over::Stopped(code) => {
                self.discard(stream, Code::H3_REQUEST_CANCELLED);
                SessionEnd::StoppedByPeer { code }
            }
            Over::Rejected(head) => {
                if session.stopped.is_none() {
                    self.out.write(stream, Bytes::new(), true);
                }
                self.await_end(stream, fin, false, Code::H3_REQUEST_CANCELLED);
                self.out.event(Event::SessionRejected {
                    session: id,
                    head,
                    streams,
                });
                return if fin { Recv::Done } else { Recv::Continue };
            }
        };
        if session.is_visible() {
            self.out.event(Event::SessionClosed {
                session: id,
                end,
                streams,
            });
        }
        if self.streams.contains_key(&stream) {
            Recv::Continue
        } else {
            Recv::Done
        }
    }

    /// Our side of the CONNECT stream has ended; waits for the peer to end its own, unless it has (`fin`).
    pub(super) fn await_end(&mut self, stream: StreamId, fin: bool, peer_closed: bool, code: Code) {
        if self.side == Side::Client {
            // The rest of a response is dropped unseen, with what sections there are.
            self.abandon(stream);
        }
        if fin {
            self.streams.remove(&stream);
            return;
        }
        self.streams.insert(stream, Stream::Closing { peer_closed, code });
        self.push_close_deadline(stream);
    }

    fn push_close_deadline(&mut self, stream: StreamId) {
        // A session cannot come about before the caller has told the time.
        let Some(now) = self.now else { return };
        let (streams, sessions) = (&self.streams, &self.sessions);
        self.close_deadlines.push(
            deadline(now, self.config.close_timeout),
            stream,
            |stream| match streams.get(&stream) {
                Some(Stream::Closing { .. }) => true,
                Some(Stream::Connect) => SessionId::new(stream)
                    .and_then(|id| sessions.get(&id))
                    .is_some_and(|session| session.stopped.is_some()),
                _ => false,
            },
        );
    }

    pub(super) fn recv_closing(&mut self, stream: StreamId, data: &Bytes, fin: bool, peer_closed: bool) -> Recv {
        if peer_closed && !data.is_empty() {
            // As above: data after WT_CLOSE_SESSION.
            return self.refuse(stream, Code::H3_MESSAGE_ERROR);
        }
        if fin {
            self.streams.remove(&stream);
            if self.side == Side::Client {
                // Now the server has sent all there was to be dropped.
                self.abandon(stream);
            }
            return Recv::Done;
        }
        Recv::Continue
    }

    pub(super) fn close_expired(&mut self, stream: StreamId) {
        match self.streams.get(&stream) {
            Some(&Stream::Closing { code, .. }) => {
                // "If the sender of CLOSE_WEBTRANSPORT_SESSION does not receive a FIN after some time, it SHOULD send
                // STOP_SENDING on the CONNECT stream" (draft 02 section 5).
                self.streams.remove(&stream);
                self.out.stop(stream, code);
                self.abandon(stream);
            }
            Some(Stream::Connect) => {
                let session = SessionId::new(stream).and_then(|id| self.sessions.get(&id));
                if let Some(code) = session.and_then(|session| session.stopped) {
                    self.abort_session(stream, Over::Stopped(code));
                }
            }
            _ => {}
        }
    }

    /// The peer reset the CONNECT stream.
    pub(super) fn connect_reset(&mut self, now: Instant, stream: StreamId, code: Code) {
        self.connect_aborted(now, stream, Over::Reset(code));
    }

    fn connect_aborted(&mut self, now: Instant, stream: StreamId, over: Over) {
        let is_unanswered = SessionId::new(stream)
            .and_then(|id| self.sessions.get(&id))
            .is_some_and(|session| !session.is_open());
        if is_unanswered {
            self.count_cancelled(now);
        }
        self.abort_session(stream, over);
    }

    /// The peer reads no more of the CONNECT stream. That ends the session, the CONNECT stream being "closed, either cleanly
    /// or abruptly, on either side" (section 6). But what QUIC lets it overtake is waited for: WT_CLOSE_SESSION with its code
    /// and reason, where a peer "MAY also send a STOP_SENDING with error code WT_SESSION_GONE" (section 6), and the response
    /// to a CONNECT: "Clients MUST NOT discard complete responses as a result of having their request terminated abruptly"
    /// (RFC 9114 section 4.1).
    pub(super) fn connect_stopped(&mut self, now: Instant, stream: StreamId, code: Code) {
        let side = self.side;
        let session = SessionId::new(stream).and_then(|id| self.sessions.get_mut(&id));
        match session {
            Some(session) if session.outlives_stop(side, code) => {
                if session.stopped.replace(code).is_none() {
                    self.out.reset(stream, code);
                    self.push_close_deadline(stream);
                }
            }
            _ => self.connect_aborted(now, stream, Over::Stopped(code)),
        }
    }

    pub(super) fn abort_session(&mut self, stream: StreamId, over: Over) {
        let Some(id) = SessionId::new(stream) else { return };
        if let Some(session) = self.sessions.remove(&id) {
            let _ = self.end_session(id, &session, over, true);
        }
    }
}
