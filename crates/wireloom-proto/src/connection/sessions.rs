//! How sessions come about (draft-ietf-webtrans-http3-16 section 3).

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};

use super::events::{CommandError, Event, Recv, SessionRequest};
use super::{Connection, Stream};
use crate::codes::Code;
use crate::h3::frame;
use crate::h3::headers::{self, RequestHead};
use crate::h3::reader::FrameReader;
use crate::stream_id::{SessionId, Side, StreamId};
use crate::webtransport::negotiate::Dialect;
use crate::webtransport::protocols;
use crate::webtransport::session::{Session, State};

impl Connection {
    /// Server: the header section of a WebTransport CONNECT is complete; `data` is what follows it.
    pub(super) fn session_head(
        &mut self,
        stream: StreamId,
        reader: FrameReader,
        head: RequestHead,
        data: Bytes,
        fin: bool,
    ) -> Recv {
        // "The :scheme field MUST be https" (section 3.2); a message that uses the capsule protocol has no Content-Length
        // (RFC 9297 section 3.2).
        let is_https = head.head.uri().scheme_str() == Some("https");
        let Some(id) = SessionId::new(stream).filter(|_| is_https && head.content_length.is_none()) else {
            return self.refuse(stream, Code::H3_MESSAGE_ERROR);
        };
        // "A server that receives more than one session on an underlying transport connection when flow control is not
        // enabled MUST reset the excessive CONNECT streams with a H3_REQUEST_REJECTED status" (section 5.1).
        if self.sessions.len() >= self.session_limit() {
            return self.refuse(stream, Code::H3_REQUEST_REJECTED);
        }
        self.sessions
            .insert(id, Session::new(id, State::Held(Box::new(head.head)), None, reader));
        self.streams.insert(stream, Stream::Connect);
        if self.negotiated.is_some() {
            self.admit(id);
            if !self.sessions.contains_key(&id) {
                return Recv::Done;
            }
        }
        self.recv_connect(stream, data, fin)
    }

    fn session_limit(&self) -> usize {
        self.dialect().map_or(self.config.max_sessions, |dialect| {
            dialect.max_sessions(self.config.max_sessions, self.has_flow_control())
        })
    }

    /// Server: the client's SETTINGS are known now: "the server MUST NOT process any incoming WebTransport requests until the
    /// client's SETTINGS have been received" (section 3.1).
    pub(super) fn admit_held(&mut self) {
        let mut held: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| !session.is_visible())
            .map(|(&id, _)| id)
            .collect();
        held.sort_unstable();
        for (index, id) in held.into_iter().enumerate() {
            if self.dialect().is_some() && index >= self.session_limit() {
                self.sessions.remove(&id);
                self.end_streams(id);
                self.discard(id.stream(), Code::H3_REQUEST_REJECTED);
            } else {
                self.admit(id);
            }
        }
    }

    /// Server: shows a held CONNECT to the application.
    fn admit(&mut self, id: SessionId) {
        let (dialect, flow) = (self.dialect(), self.new_flow());
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(dialect) = dialect else {
            // "If the server receives SETTINGS that do not have correct values for every required setting, or transport
            // parameters [...], the server MUST treat all established and newly incoming WebTransport sessions as malformed"
            // (section 3.1).
            self.sessions.remove(&id);
            self.end_streams(id);
            self.discard(id.stream(), Code::H3_MESSAGE_ERROR);
            return;
        };
        let State::Held(head) = std::mem::replace(&mut session.state, State::Requested) else {
            return;
        };
        session.dialect = Some(dialect);
        session.flow = flow;
        session.protocols = protocols::offered(head.headers());
        let mut wishes = session.wishes;
        let protocols = session.protocols.clone();
        let stream = id.stream();
        let priority = self.first_wish(stream, head.headers(), &mut wishes);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.wishes = wishes;
        }
        self.out.event(Event::SessionRequested {
            session: id,
            head,
            protocols,
            dialect,
        });
        self.tell_priority(stream, priority);
    }

    /// Client: requests a session on `stream`, a new bidirectional stream. The answer is one of
    /// [`Event::SessionEstablished`], [`Event::SessionRejected`] and [`Event::SessionClosed`].
    pub fn connect(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: &SessionRequest,
    ) -> Result<SessionId, CommandError> {
        self.now = Some(now);
        self.check_new_request(stream)?;
        let id = SessionId::new(stream).ok_or(CommandError::InvalidState)?;
        // "the client MUST wait for receipt of the server's SETTINGS frame before establishing any WebTransport sessions"
        // (section 4.6).
        let (Some(negotiated), Some(settings)) = (self.negotiated, self.peer_settings()) else {
            return Err(CommandError::NotReady);
        };
        let dialect = negotiated.ok_or(CommandError::Unsupported)?;
        // "A client receiving GOAWAY cannot initiate CONNECT requests for new WebTransport sessions" (section 4.7).
        let limit = dialect.max_sessions_at(settings, self.config.max_sessions, self.has_flow_control());
        if self.is_going_away() || self.sessions.len() >= limit {
            return Err(CommandError::NoMoreSessions);
        }
        let head = connect_head(request, dialect)?;
        let fields = headers::encode_request(&head, Some(dialect.upgrade_token()))?;
        let section = self.encode(stream, &fields)?;
        let mut session = Session::new(id, State::Requested, Some(dialect), self.frame_reader());
        session.protocols.clone_from(&request.protocols);
        session.flow = self.new_flow();
        let priority = self.first_wish(stream, head.headers(), &mut session.wishes);
        self.sessions.insert(id, session);
        self.streams.insert(stream, Stream::Connect);
        self.out.write(stream, section, false);
        self.tell_priority(stream, priority);
        Ok(id)
    }

    /// Server: accepts a session with a 2xx `head`, to which the fields of the dialect and the chosen `protocol`, one of those
    /// that the client offered, are added. Content-Length is dropped, since a CONNECT has no content.
    ///
    /// Streams and datagrams that waited follow as events, then what the client's early capsules say.
    pub fn accept_session(
        &mut self,
        now: Instant,
        session: SessionId,
        head: &Response<()>,
        protocol: Option<&str>,
    ) -> Result<(), CommandError> {
        self.now = Some(now);
        let requested = self.requested_session(session)?;
        // "the server MUST include a single choice from the client's list" (section 3.3).
        if protocol.is_some_and(|protocol| !requested.protocols.iter().any(|offered| offered == protocol)) {
            return Err(CommandError::InvalidMessage("the client did not offer this protocol"));
        }
        if !head.status().is_success() {
            return Err(CommandError::InvalidMessage("only a 2xx status accepts a session"));
        }
        let dialect = requested.dialect;
        let mut fields = head.headers().clone();
        fields.remove(header::CONTENT_LENGTH);
        if let Some(protocol) = protocol {
            protocols::choose(&mut fields, protocol)?;
        }
        if let Some(dialect) = dialect {
            dialect.add_response_fields(&mut fields);
        }
        let section = self.encode(session.stream(), &headers::encode_response(&head.status(), &fields)?)?;
        self.out.write(session.stream(), section, false);
        self.response_wish(session.stream(), &fields);
        let Some(mut accepted) = self.sessions.remove(&session) else {
            return Err(CommandError::SessionClosed);
        };
        accepted.state = State::Open;
        self.open_early(session, accepted);
        Ok(())
    }

    /// Server: rejects a session with a final status that is not 2xx, and a short `body`, which may be empty.
    pub fn reject_session(&mut self, session: SessionId, head: &Response<()>, body: Bytes) -> Result<(), CommandError> {
        self.requested_session(session)?;
        if head.status().is_success() || head.status().is_informational() {
            return Err(CommandError::InvalidMessage("this status does not reject a session"));
        }
        let stream = session.stream();
        let section = self.encode(stream, &headers::encode_response(&head.status(), head.headers())?)?;
        let Some(rejected) = self.sessions.remove(&session) else {
            return Err(CommandError::SessionClosed);
        };
        self.end_streams(session);
        self.out.write(stream, section, body.is_empty());
        if !body.is_empty() {
            self.out.write(stream, frame::encode(frame::DATA, &body), true);
        }
        self.await_end(stream, rejected.early_fin, false, Code::H3_NO_ERROR);
        if rejected.paused {
            self.out.event(Event::Resume { stream });
        }
        Ok(())
    }

    fn requested_session(&self, id: SessionId) -> Result<&Session, CommandError> {
        match self.sessions.get(&id) {
            Some(session) if matches!(session.state, State::Requested) && self.side == Side::Server => Ok(session),
            Some(session) if session.is_visible() => Err(CommandError::InvalidState),
            _ => Err(CommandError::SessionClosed),
        }
    }
}

fn connect_head(request: &SessionRequest, dialect: Dialect) -> Result<Request<()>, CommandError> {
    let uri = Uri::builder()
        .scheme("https")
        .authority(request.authority.as_str())
        .path_and_query(request.path.as_str())
        .build()
        .map_err(|_| CommandError::InvalidMessage("authority or path cannot be part of a URI"))?;
    let mut fields: HeaderMap = request.headers.clone();
    if let Some(origin) = &request.origin {
        let origin = HeaderValue::try_from(origin.as_str())
            .map_err(|_| CommandError::InvalidMessage("the origin cannot be a field value"))?;
        fields.insert(header::ORIGIN, origin);
    }
    fields.remove(header::CONTENT_LENGTH);
    protocols::offer(&mut fields, &request.protocols)?;
    dialect.add_request_fields(&mut fields);
    let mut head = Request::new(());
    *head.method_mut() = Method::CONNECT;
    *head.uri_mut() = uri;
    *head.headers_mut() = fields;
    Ok(head)
}
