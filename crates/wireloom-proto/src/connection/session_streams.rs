//! Streams and datagrams of sessions (draft-ietf-webtrans-http3-16 section 4).

use std::collections::hash_map::Entry;
use std::time::Instant;

use bytes::Bytes;

use super::capsules::Over;
use super::events::{CommandError, Event, Recv};
use super::message::Progress;
use super::{Connection, Stream};
use crate::codes::Code;
use crate::datagram;
use crate::stream_id::{Dir, SessionId, Side, StreamId};
use crate::webtransport::negotiate;
use crate::webtransport::parked::Item;
use crate::webtransport::session::Session;

/// What a session id from the peer refers to.
enum Owner {
    Open,
    /// Its CONNECT is not here, not complete, or not answered yet.
    Expected,
    /// It is over, was rejected, or can never be.
    Gone,
}

impl Connection {
    /// A WebTransport stream's header is complete. This is the hot path: one look-up, one insertion, no allocation.
    #[inline]
    pub(super) fn attach(&mut self, now: Instant, stream: StreamId, session: u64, payload: Bytes, fin: bool) -> Recv {
        self.mark_seen(stream);
        self.forget_early_update(stream);
        // "If an endpoint receives a session ID on a unidirectional stream, bidirectional stream, or datagram that does
        // not correspond to a client-initiated bidirectional stream ID, the endpoint MUST close the connection with an
        // H3_ID_ERROR error code" (draft 16 section 4).
        let Some(session) = SessionId::new(StreamId::from_u64(session)) else {
            return self.attach_to_nothing(stream);
        };
        let Some(state) = self.sessions.get_mut(&session).filter(|session| session.is_open()) else {
            return self.park(now, stream, session, payload, fin);
        };
        if let Some(flow) = &mut state.flow
            && let Err(over) = Self::count_stream(flow, stream, payload.len() as u64)
        {
            return self.overflow(stream, session, over);
        }
        self.hand_out(session, stream, fin);
        Recv::WebTransport { session, payload }
    }

    #[cold]
    fn attach_to_nothing(&mut self, stream: StreamId) -> Recv {
        if self.may_speak_webtransport() {
            return self.close(Code::H3_ID_ERROR, "session id that is no request stream");
        }
        // What follows a stream type that was not negotiated is no session id: "The recipient MUST NOT consider unknown stream
        // types to be a connection error of any kind" (RFC 9114 section 6.2).
        self.refuse_payload(stream, Code::H3_STREAM_CREATION_ERROR)
    }

    /// The application gets a stream of the peer. With flow control it keeps its place until the application has taken it,
    /// even if it has ended.
    #[inline]
    fn hand_out(&mut self, session: SessionId, stream: StreamId, fin: bool) {
        let send = stream.dir() == Dir::Bi;
        let recv = !fin || self.has_flow_control();
        if send || recv {
            self.streams
                .insert(stream, Stream::WebTransport { session, send, recv });
        }
    }

    /// The peer used more than the session's limits.
    #[cold]
    fn overflow(&mut self, stream: StreamId, session: SessionId, over: Over) -> Recv {
        self.abort_session(session.stream(), over);
        self.refuse_payload(stream, Code::WT_SESSION_GONE)
    }

    #[cold]
    fn park(&mut self, now: Instant, stream: StreamId, session: SessionId, payload: Bytes, fin: bool) -> Recv {
        if !self.may_speak_webtransport() {
            // A stream type that was not negotiated is an unknown one.
            return self.refuse_payload(stream, Code::H3_STREAM_CREATION_ERROR);
        }
        match self.owner(session) {
            // Streams of a session that is over are refused as its open ones were ended.
            Owner::Gone => return self.refuse_payload(stream, Code::WT_SESSION_GONE),
            Owner::Open | Owner::Expected => {}
        }
        if !self
            .parked
            .push(now, session, Item::Stream { stream, payload, fin }, &self.config)
        {
            // When there are too many, "a stream MUST be closed by sending a RESET_STREAM and/or STOP_SENDING with the
            // WT_BUFFERED_STREAM_REJECTED error code" (draft 16 section 4.6).
            self.stream_lost(stream.dir());
            return self.refuse_payload(stream, Code::WT_BUFFERED_STREAM_REJECTED);
        }
        self.streams.insert(stream, Stream::Parked);
        Recv::Parked
    }

    /// Whether WebTransport was negotiated or still may be.
    fn may_speak_webtransport(&self) -> bool {
        self.dialect().is_some() || self.is_undecided()
    }

    /// Whether WebTransport may still be negotiated: by the peer's SETTINGS or, at a server, by a client's CONNECT.
    pub(super) fn is_undecided(&self) -> bool {
        match (self.negotiated, &self.control.settings) {
            (None, _) => self.config.webtransport,
            (Some(None), Some(settings)) => {
                let is_server = self.side == Side::Server && self.config.webtransport;
                is_server && negotiate::may_be_told_by_request(self.dialects, settings)
            }
            _ => false,
        }
    }

    fn owner(&self, session: SessionId) -> Owner {
        match self.sessions.get(&session) {
            Some(session) if session.is_open() => Owner::Open,
            Some(_) => Owner::Expected,
            // A client knows its own requests.
            None if self.side == Side::Client => Owner::Gone,
            None if !self.was_seen(session.stream()) || self.awaits_head(session.stream()) => Owner::Expected,
            None => Owner::Gone,
        }
    }

    /// The session is open now: hands out what waited for it.
    pub(super) fn release_parked(&mut self, session: SessionId, state: &mut Session) -> Result<(), Over> {
        let mut result = Ok(());
        for item in self.parked.take(session) {
            match item {
                Item::Stream { stream, payload, fin } => {
                    if let (Ok(()), Some(flow)) = (&result, &mut state.flow) {
                        result = Self::count_stream(flow, stream, payload.len() as u64);
                    }
                    if result.is_err() {
                        self.discard_payload(stream, Code::WT_SESSION_GONE);
                        continue;
                    }
                    self.streams.remove(&stream);
                    self.hand_out(session, stream, fin);
                    self.out.event(Event::Stream {
                        session,
                        stream,
                        payload,
                        fin,
                    });
                }
                Item::Datagram(payload) => self.out.event(Event::Datagram { session, payload }),
            }
        }
        result
    }

    pub(super) fn expire_parked(&mut self, now: Instant) {
        while let Some(item) = self.parked.pop_expired(now) {
            if let Item::Stream { stream, .. } = item {
                self.stream_lost(stream.dir());
                self.discard_payload(stream, Code::WT_BUFFERED_STREAM_REJECTED);
            }
        }
    }

    /// Takes a QUIC datagram. One of an open session is handed straight back; one whose session may still come waits for it
    /// and becomes [`Event::Datagram`]; one of an ordinary request ends that; others are dropped. One without a legal prefix
    /// closes the connection.
    pub fn handle_datagram(&mut self, now: Instant, mut data: Bytes) -> Option<(SessionId, Bytes)> {
        self.now = Some(now);
        if self.out.is_closed() {
            return None;
        }
        let stream = match datagram::decode(&mut data) {
            Ok(stream) => stream,
            Err(error) => {
                self.out
                    .close(error.code(), "HTTP datagram without a legal quarter stream id");
                return None;
            }
        };
        let session = SessionId::new(stream)?;
        if self.sessions.get(&session).is_some_and(|session| session.is_open()) {
            return Some((session, data));
        }
        self.stray_datagram(now, session, data);
        None
    }

    /// A datagram of no open session.
    #[cold]
    fn stray_datagram(&mut self, now: Instant, id: SessionId, data: Bytes) {
        let stream = id.stream();
        if let Some(Stream::Message(message)) = self.streams.get(&stream)
            && message.is_head_known(self.side)
        {
            // A GET or POST knows no datagrams: "the receiver MUST terminate the request" (RFC 9297 section 2), "the
            // request stream MUST be aborted with H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2). But "If a datagram is
            // received after the corresponding stream's receive side is closed, the received datagrams MUST be silently
            // dropped" (RFC 9297 section 2.1).
            if message.recv != Progress::Closed {
                self.terminate_message(now, stream, Code::H3_DATAGRAM_ERROR);
            }
            return;
        }
        // The peer has ended its side of a CONNECT that is not answered yet: the same.
        let has_ended = self.sessions.get(&id).is_some_and(|session| session.early_fin);
        // Of a stream that is not there yet "the receiver SHALL either drop that datagram silently or buffer it
        // temporarily" (RFC 9297 section 2.1).
        if !has_ended && self.may_speak_webtransport() && matches!(self.owner(id), Owner::Expected) {
            // "When the number of buffered datagrams is exceeded, a datagram MUST be dropped" (draft 16 section 4.6):
            // `push` says no, and that is all.
            self.parked.push(now, id, Item::Datagram(data), &self.config);
        }
    }

    /// Registers a stream that this end opened for `session` and answers the bytes to be written first. The prefix is built
    /// once per session, so this costs a look-up and an insertion.
    ///
    /// A client: "it MUST send a special signal value, encoded as a variable-length integer, as the first bytes of each
    /// bidirectional WebTransport stream it initiates" (draft 16 section 4.3). A server "MUST send a special signal
    /// value, encoded as a variable-length integer, as the first bytes of the stream" (draft 16 section 4.3). Nothing
    /// else ever writes one: "Endpoints MUST NOT send WT_STREAM as a frame type on HTTP/3 streams other than the very
    /// first bytes of a request stream" (draft 16 section 4.3).
    ///
    /// A client may open streams as soon as it has called [`Connection::connect`]: "The client MAY optimistically open
    /// unidirectional and bidirectional streams" (draft-ietf-webtrans-http3-16 section 4).
    ///
    /// [`CommandError::Blocked`] where the session's own limit is reached, as [`Connection::check_open`] says beforehand.
    ///
    /// There is no session before the peer has said that it speaks WebTransport: "stream types that could modify the
    /// state or semantics of existing protocol components, including QPACK or other extensions, MUST NOT be sent until
    /// the peer is known to support them" (RFC 9114 section 6.2).
    pub fn open_stream(&mut self, session: SessionId, stream: StreamId) -> Result<Bytes, CommandError> {
        if self.out.is_closed() {
            return Err(CommandError::SessionClosed);
        }
        let owner = self.sessions.get_mut(&session).ok_or(CommandError::SessionClosed)?;
        owner.check_sending(self.side)?;
        owner.check_open(stream.dir())?;
        if stream.initiator() != self.side {
            return Err(CommandError::InvalidState);
        }
        let prefix = match stream.dir() {
            Dir::Bi => owner.prefixes.bi.clone(),
            Dir::Uni => owner.prefixes.uni.clone(),
        };
        match self.streams.entry(stream) {
            Entry::Occupied(_) => Err(CommandError::InvalidState),
            Entry::Vacant(entry) => {
                entry.insert(Stream::WebTransport {
                    session,
                    send: true,
                    recv: stream.dir() == Dir::Bi,
                });
                if let Some(flow) = &mut owner.flow {
                    flow.streams_out[stream.dir() as usize].take(1);
                }
                Ok(prefix)
            }
        }
    }

    /// The bytes before each datagram of `session`. Sessions are the only requests that have datagrams: "HTTP Datagrams
    /// MUST only be sent with an association to an HTTP request that explicitly supports them" (RFC 9297 section 2).
    pub fn datagram_prefix(&self, session: SessionId) -> Result<Bytes, CommandError> {
        self.sending_session(session)
            .map(|session| session.prefixes.datagram.clone())
    }

    /// Whether the peer reads no more of the CONNECT stream of a session that is kept all the same, because the
    /// WT_CLOSE_SESSION or the response that belongs to it is awaited: no stream may be opened and no datagram sent.
    pub fn is_stopped(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|session| session.stopped.is_some())
    }

    /// The session, if streams may be opened and datagrams sent in it. When it is over, or as good as over, "it MUST
    /// NOT send any new datagrams or open any new streams" (draft 16 section 6); "HTTP/3 Datagrams MUST NOT be sent
    /// unless the corresponding stream's send side is open" (RFC 9297 section 2.1).
    pub(super) fn sending_session(&self, session: SessionId) -> Result<&Session, CommandError> {
        let session = self.usable_session(session)?;
        session.check_sending(self.side).map(|()| session)
    }

    pub(super) fn usable_session(&self, session: SessionId) -> Result<&Session, CommandError> {
        if self.out.is_closed() {
            return Err(CommandError::SessionClosed);
        }
        let session = self.sessions.get(&session).ok_or(CommandError::SessionClosed)?;
        session.check_usable(self.side)?;
        Ok(session)
    }

    /// The send half of a WebTransport stream is over: finished or reset by the application, or stopped by the peer. One
    /// look-up without flow control; with it, WT_MAX_STREAMS may follow. Answers whether the half was open until now.
    pub fn send_closed(&mut self, stream: StreamId) -> bool {
        self.half_over(stream, true).is_some()
    }

    /// The receive half of a WebTransport stream was read to its end. One look-up without flow control; with it,
    /// WT_MAX_STREAMS may follow. Answers whether the half was open until now.
    ///
    /// Not needed without flow control where [`Recv::WebTransport`] answered a call with `fin`, or [`Event::Stream`] came with
    /// it. With flow control this is how the application's taking the stream makes room for another.
    pub fn recv_closed(&mut self, stream: StreamId) -> bool {
        self.half_over(stream, false).is_some()
    }

    /// The receive half of a WebTransport stream was reset by the peer, or stopped by the application. `unread` is how much of
    /// its final size was never told with [`Connection::data_received`], headers aside, if QUIC knows: "For streams that were
    /// reset, implementing WT_MAX_DATA requires that the QUIC stack provide the WebTransport implementation with information
    /// about the final size of streams" (draft-ietf-webtrans-http3-16 section 5.4). Answers whether the half was open until now.
    pub fn recv_aborted(&mut self, stream: StreamId, unread: Option<u64>) -> bool {
        let Some(session) = self.half_over(stream, false) else {
            return false;
        };
        match unread {
            Some(n) => {
                self.data_received(session, n);
                self.data_consumed(session, n);
            }
            None => self.data_lost(session),
        }
        true
    }

    /// Ends all streams of a session, which is over, and refuses those that waited for it. Answers the former. Takes time in
    /// proportion to all streams of the connection.
    pub(super) fn end_streams(&mut self, session: SessionId) -> Vec<StreamId> {
        let is_its =
            |stream: &Stream| matches!(stream, Stream::WebTransport { session: owner, .. } if *owner == session);
        let mut ended: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| is_its(stream))
            .map(|(&id, _)| id)
            .collect();
        ended.sort_unstable();
        for &stream in &ended {
            // "the endpoint MUST reset the send side and abort reading on the receive side of all unidirectional and
            // bidirectional streams associated with the session" (draft 16 section 6) using WT_SESSION_GONE. Draft 02
            // names no code; browsers take any.
            if let Some(Stream::WebTransport { send, recv, .. }) = self.streams.remove(&stream) {
                if send {
                    self.out.reset(stream, Code::WT_SESSION_GONE);
                }
                if recv {
                    self.out.stop(stream, Code::WT_SESSION_GONE);
                }
            }
        }
        self.refuse_parked(session);
        ended
    }

    /// Refuses what waits for a session that is over, or never comes about.
    pub(super) fn refuse_parked(&mut self, session: SessionId) {
        for item in self.parked.take(session) {
            if let Item::Stream { stream, .. } = item {
                self.discard_payload(stream, Code::WT_SESSION_GONE);
            }
        }
    }
}
