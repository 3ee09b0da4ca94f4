//! How sessions come about (draft-ietf-webtrans-http3-16 section 3).

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};

use super::events::{CommandError, Event, Recv, SessionRequest};
use super::message::Content;
use super::{Connection, Stream};
use crate::codes::Code;
use crate::h3::frame;
use crate::h3::headers::{self, RequestHead};
use crate::h3::reader::FrameReader;
use crate::stream_id::{SessionId, Side, StreamId};
use crate::webtransport::negotiate::{self, Dialect};
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
        // "The :scheme field MUST be https" (draft 16 section 3.2).
        let is_https = head.head.uri().scheme_str() == Some("https");
        // Capsule-Protocol is not looked at, whatever it says: "any other value type MUST be handled as if the field
        // were not present by recipients" (RFC 9297 section 3.4), and "Receivers MUST ignore unknown parameters" (RFC
        // 9297 section 3.4).
        //
        // "A receiver that observes a violation of these requirements MUST treat the HTTP message as malformed" (RFC
        // 9297 section 3.2).
        let has_content = head.content_length.is_some() || describes_content(head.head.headers());
        let Some(id) = SessionId::new(stream).filter(|_| is_https && !has_content) else {
            return self.refuse(stream, Code::H3_MESSAGE_ERROR);
        };
        if self.sessions.len() >= self.session_limit() {
            // Servers should answer a session that is one too many with 429 (Too Many Requests), which reaches the application
            // (draft 16 section 5.2).
            let has_flow_control = self.has_flow_control();
            if self
                .dialect()
                .is_some_and(|dialect| dialect.may_answer_surplus(has_flow_control))
            {
                self.answer(stream, StatusCode::TOO_MANY_REQUESTS);
                return Recv::Done;
            }
            // A server that receives more than one session without flow control "MUST reset the excessive CONNECT streams
            // with a H3_REQUEST_REJECTED status" (draft 16 section 5.1). The same before the client's SETTINGS: nothing was
            // processed, and another time it may be welcome.
            return self.refuse(stream, Code::H3_REQUEST_REJECTED);
        }
        self.sessions
            .insert(id, Session::new(id, State::Held(Box::new(head)), reader));
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

    /// Server: the client's SETTINGS are known now. Until then the sessions were held: "the server MUST NOT process any
    /// incoming WebTransport requests until the client's SETTINGS have been received" (draft 16 section 3.1).
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
                self.discard(id.stream(), Code::H3_REQUEST_REJECTED);
            } else {
                self.admit(id);
            }
        }
    }

    /// Server: shows a held CONNECT to the application.
    fn admit(&mut self, id: SessionId) {
        let stream = id.stream();
        let (dialect, flow) = (self.dialect_for(id), self.new_flow());
        let Some(mut session) = self.sessions.remove(&id) else {
            return;
        };
        let (Some(dialect), State::Held(held)) = (dialect, std::mem::replace(&mut session.state, State::Requested))
        else {
            // The client's SETTINGS or transport parameters lack something: "the server MUST treat all established and
            // newly incoming WebTransport sessions as malformed" (draft 16 section 3.1).
            return self.discard(stream, Code::H3_MESSAGE_ERROR);
        };
        let head = Box::new(held.head);
        session.speak(dialect, flow);
        session.protocols = protocols::offered(head.headers());
        let protocols = session.protocols.clone();
        let priority = self.first_wish(stream, head.headers(), &mut session.wishes);
        self.sessions.insert(id, session);
        self.out.event(Event::SessionRequested {
            session: id,
            head,
            protocols,
            dialect,
        });
        self.tell_priority(stream, priority);
    }

    /// Server: the connection's dialect, which a held CONNECT tells where the client's SETTINGS do not.
    fn dialect_for(&mut self, id: SessionId) -> Option<Dialect> {
        if self.dialect().is_none()
            && let Some(State::Held(head)) = self.sessions.get(&id).map(|session| &session.state)
            && let (Some(settings), Some(transport)) = (&self.control.settings, self.transport)
        {
            let dialect = negotiate::choose_by_request(self.dialects, settings, transport, head);
            self.negotiated = Some(dialect);
            self.peer_limits = self.limits_of_peer(settings, dialect);
        }
        self.dialect()
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
        // "the client MUST wait for receipt of the server's SETTINGS frame before establishing any WebTransport
        // sessions" (draft 16 section 4.6), and "Clients MUST NOT attempt to establish WebTransport sessions with the
        // "webtransport-h3" token until they have received the setting indicating WebTransport support from the server"
        // (draft 16 section 3.1).
        let (Some(negotiated), Some(settings)) = (self.negotiated, self.peer_settings()) else {
            return Err(CommandError::NotReady);
        };
        // "A client MUST NOT establish WebTransport sessions if the server's SETTINGS do not have correct values for
        // every required setting or if the server's transport parameters do not have correct values for every required
        // transport parameter" (draft 16 section 3.1).
        //
        // "An HTTP implementation MUST NOT send frames or requests that would be invalid based on its current
        // understanding of the peer's settings" (RFC 9114 section 7.2.4.2): no extended CONNECT to a server that does
        // not know it.
        let dialect = negotiated.ok_or(CommandError::Unsupported)?;
        // After GOAWAY "it MUST open a new HTTP/3 connection to initiate new WebTransport sessions with the same peer"
        // (draft 16 section 4.7): this one takes no more.
        let limit = dialect.max_sessions_at(settings, self.config.max_sessions, self.has_flow_control());
        if self.is_going_away() || self.sessions.len() >= limit {
            return Err(CommandError::NoMoreSessions);
        }
        let head = connect_head(request, dialect)?;
        let fields = headers::encode_request(&head, Some(dialect.upgrade_token()))?;
        let section = self.encode(stream, &fields)?;
        let mut session = Session::new(id, State::Requested, self.frame_reader());
        session.speak(dialect, self.new_flow());
        session.protocols.clone_from(&request.protocols);
        session.requires_protocol = request.requires_protocol;
        let priority = self.first_wish(stream, head.headers(), &mut session.wishes);
        self.sessions.insert(id, session);
        self.streams.insert(stream, Stream::Connect);
        self.out.write(stream, section, false);
        self.tell_priority(stream, priority);
        Ok(id)
    }

    /// Server: accepts a session with a 2xx `head`, to which the fields of the dialect and the chosen `protocol`, one of those
    /// that the client offered, are added. Content-Length and Content-Type are dropped, since a CONNECT has no content, and a
    /// WT-Protocol that `head` has by itself.
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
        // "the server MUST include a single choice from the client's list in that field" (draft 16 section 3.3): "the
        // value in the WT-Protocol response header field MUST be one of the values listed in WT-Available-Protocols of
        // the request" (draft 16 section 3.3).
        if protocol.is_some_and(|protocol| !requested.protocols.iter().any(|offered| offered == protocol)) {
            return Err(CommandError::InvalidMessage("the client did not offer this protocol"));
        }
        if !head.status().is_success() {
            return Err(CommandError::InvalidMessage("only a 2xx status accepts a session"));
        }
        // "HTTP status codes 204 (No Content), 205 (Reset Content), and 206 (Partial Content) MUST NOT be sent on
        // responses that use the Capsule Protocol" (RFC 9297 section 3.2).
        if !may_carry_capsules(head.status()) {
            return Err(CommandError::InvalidMessage(
                "a session is not accepted with 204, 205 or 206",
            ));
        }
        let dialect = requested.dialect;
        let mut fields = head.headers().clone();
        remove_content(&mut fields);
        // Nor does a field of the caller's say what was not checked above.
        protocols::choose(&mut fields, protocol)?;
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
        accepted.protocols = Vec::new();
        self.lift_limits(session, &accepted);
        self.open_early(session, accepted);
        Ok(())
    }

    /// Server: rejects a session with a final status that is not 2xx, and a short `body`, which may be empty.
    pub fn reject_session(
        &mut self,
        now: Instant,
        session: SessionId,
        head: &Response<()>,
        body: Bytes,
    ) -> Result<(), CommandError> {
        self.now = Some(now);
        self.requested_session(session)?;
        if head.status().is_success() || head.status().is_informational() {
            return Err(CommandError::InvalidMessage("this status does not reject a session"));
        }
        let mut content = Content::response(
            headers::declared_length(head.headers())?,
            &Method::CONNECT,
            head.status(),
        );
        if !content.add(body.len() as u64) || !content.is_complete() {
            return Err(CommandError::ContentLength);
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

/// "The Capsule Protocol MUST NOT be used with messages that contain Content-Length, Content-Type, or Transfer-Encoding
/// header fields" (RFC 9297 section 3.2). No message is sent with the last of them anyway.
fn remove_content(fields: &mut HeaderMap) {
    fields.remove(header::CONTENT_LENGTH);
    fields.remove(header::CONTENT_TYPE);
}

/// Whether the fields speak of content, Content-Length aside.
pub(super) fn describes_content(fields: &HeaderMap) -> bool {
    fields.contains_key(header::CONTENT_TYPE)
}

/// Whether a 2xx status may begin a stream of capsules.
pub(super) fn may_carry_capsules(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT
    )
}

/// "Both the :authority and the :path value MUST be set" (draft 16 section 3.2), as in every request that is no plain
/// CONNECT.
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
    remove_content(&mut fields);
    protocols::offer(&mut fields, &request.protocols)?;
    dialect.add_request_fields(&mut fields);
    let mut head = Request::new(());
    *head.method_mut() = Method::CONNECT;
    *head.uri_mut() = uri;
    *head.headers_mut() = fields;
    Ok(head)
}
