//! The CONNECT stream of a session: its response and its capsules (RFC 9297 section 3, draft-ietf-webtrans-http3-16 section 6).

use bytes::Bytes;
use http::Response;

use super::config::MAX_IDLE_FRAMES;
use super::events::{Event, Recv};
use super::flow::FlowCapsule;
use super::message::Waiting;
use super::sessions::{describes_content, may_carry_capsules};
use super::{Connection, frame_reason};
use crate::capsule::{Capsule, CapsuleError};
use crate::codes::Code;
use crate::h3::headers;
use crate::h3::reader::{Frame, FrameError};
use crate::qpack::{DecodeError, Field, Section};
use crate::stream_id::{SessionId, Side, StreamId};
use crate::webtransport::negotiate::Dialect;
use crate::webtransport::protocols;
use crate::webtransport::session::{Session, State};

/// Why a session is over.
#[derive(Debug)]
pub(super) enum Over {
    /// The connection is at an end.
    Connection(Code, &'static str),
    /// WT_CLOSE_SESSION or a clean FIN; `trailing` if more data came after the capsule.
    Closed { code: u32, reason: String, trailing: bool },
    /// The CONNECT stream is reset with this.
    Misbehaved(Code, &'static str),
    /// The peer reset the CONNECT stream with this.
    Reset(Code),
    /// The peer stopped the CONNECT stream with this.
    Stopped(Code),
    /// Client: a final status that is not 2xx.
    Rejected(Box<Response<()>>),
}

impl Connection {
    pub(super) fn recv_connect(&mut self, stream: StreamId, data: Bytes, fin: bool) -> Recv {
        self.continue_connect(stream, None, data, fin)
    }

    /// Client: the header section of a response that waited can be decoded now.
    pub(super) fn resume_connect(&mut self, stream: StreamId, block: Bytes) -> Recv {
        let session = SessionId::new(stream).and_then(|id| self.sessions.get_mut(&id));
        let waiting = session.and_then(|session| session.waiting.take());
        let (data, fin) = waiting.map(Waiting::take).unwrap_or_default();
        self.continue_connect(stream, Some(Frame::Headers(block)), data, fin)
    }

    /// Reads a CONNECT stream: the frame `first`, then what `data` holds.
    fn continue_connect(&mut self, stream: StreamId, first: Option<Frame>, mut data: Bytes, fin: bool) -> Recv {
        let Some(id) = SessionId::new(stream) else {
            return Recv::Done;
        };
        // Taken out for the time of reading, so that frames can be handled meanwhile.
        let Some(mut session) = self.sessions.remove(&id) else {
            return Recv::Done;
        };
        if let Some(waiting) = &mut session.waiting {
            waiting.push(&data, fin);
            self.sessions.insert(id, session);
            return Recv::Pause;
        }
        match self.read_connect(id, &mut session, first, &mut data, fin) {
            Ok(recv) => {
                self.sessions.insert(id, session);
                recv
            }
            Err(over) => self.end_session(id, &session, over, fin),
        }
    }

    fn read_connect(
        &mut self,
        id: SessionId,
        session: &mut Session,
        mut first: Option<Frame>,
        data: &mut Bytes,
        fin: bool,
    ) -> Result<Recv, Over> {
        if let Some(now) = self.now {
            session.reader.set_time(now);
            session.capsules.set_time(now);
        }
        loop {
            let frame = match first.take() {
                Some(frame) => Some(frame),
                None => session
                    .reader
                    .read(data)
                    .map_err(|error| Over::Connection(error.code(), frame_reason(error)))?,
            };
            let Some(frame) = frame else { break };
            let awaits_response = self.side == Side::Client && !session.is_open();
            match frame {
                Frame::Data(_) if awaits_response => {
                    return Err(Over::Connection(Code::H3_FRAME_UNEXPECTED, "DATA before HEADERS"));
                }
                Frame::Data(piece) if session.is_open() => self.capsules(id, session, piece, !data.is_empty())?,
                // "A server MUST NOT process these bytes as capsules until it sends a 2xx response accepting the
                // session" (draft 16 section 3.2).
                Frame::Data(piece) => session.early.extend_from_slice(&piece),
                Frame::Headers(block) if awaits_response => {
                    let Some(fields) = self.response_fields(id, block)? else {
                        session.waiting = Some(Waiting::new(data, fin));
                        return Ok(Recv::Pause);
                    };
                    self.session_response(id, session, fields)?;
                }
                Frame::HeadersTooLarge if awaits_response => {
                    return Err(Over::Misbehaved(
                        Code::H3_EXCESSIVE_LOAD,
                        "the response's header section is too large",
                    ));
                }
                // First in a response.
                Frame::WtStream => {
                    let error = FrameError::MisplacedWtStream;
                    return Err(Over::Connection(error.code(), frame_reason(error)));
                }
                // "Once the CONNECT method has completed, only DATA frames are permitted to be sent on the stream."
                // "Receipt of any other known frame type MUST be treated as a connection error of type
                // H3_FRAME_UNEXPECTED" (RFC 9114 section 4.4).
                _ => {
                    return Err(Over::Connection(
                        Code::H3_FRAME_UNEXPECTED,
                        "only DATA may come on a CONNECT stream",
                    ));
                }
            }
        }
        if session.reader.idle_frames().max(session.capsules.idle_capsules()) > MAX_IDLE_FRAMES {
            return Err(Over::Connection(
                Code::H3_EXCESSIVE_LOAD,
                "too many frames or capsules without effect",
            ));
        }
        if fin {
            session
                .reader
                .finish()
                .map_err(|error| Over::Connection(error.code(), frame_reason(error)))?;
            if session.is_open() {
                return Err(ended(session));
            }
            if self.side == Side::Client {
                return Err(Over::Misbehaved(
                    Code::H3_MESSAGE_ERROR,
                    "the stream ended without a response",
                ));
            }
            session.early_fin = true;
            return Ok(Recv::Done);
        }
        if session.early.len() > self.config.max_early_capsule_bytes {
            session.paused = true;
            return Ok(Recv::Pause);
        }
        Ok(Recv::Continue)
    }

    /// Server: the session was accepted, so what waited for it is handed out, and the capsules that came early count now.
    pub(super) fn open_early(&mut self, id: SessionId, mut session: Box<Session>) {
        let early = session.take_early();
        let mut result = self.release_parked(id, &mut session);
        if result.is_ok() && !early.is_empty() {
            result = self.capsules(id, &mut session, early, false);
        }
        let fin = session.early_fin;
        if result.is_ok() && fin {
            result = Err(ended(&session));
        }
        let paused = std::mem::take(&mut session.paused);
        match result {
            Ok(()) => {
                self.sessions.insert(id, session);
            }
            Err(over) => {
                let _ = self.end_session(id, &session, over, fin);
            }
        }
        if paused {
            self.out.event(Event::Resume { stream: id.stream() });
        }
    }

    /// Processes a piece of the capsule stream; `more` tells that the CONNECT stream goes on behind it.
    fn capsules(&mut self, id: SessionId, session: &mut Session, mut piece: Bytes, more: bool) -> Result<(), Over> {
        while let Some(capsule) = session.capsules.read(&mut piece).map_err(malformed)? {
            match capsule {
                Capsule::CloseSession { code, reason } => {
                    return Err(Over::Closed {
                        code,
                        reason,
                        trailing: more || !piece.is_empty(),
                    });
                }
                Capsule::DrainSession => {
                    if !std::mem::replace(&mut session.draining, true) {
                        self.out.event(Event::SessionDraining { session: id });
                    }
                }
                // A datagram may take this way too (RFC 9297 section 3.5).
                Capsule::Datagram(payload) => self.out.event(Event::Datagram { session: id, payload }),
                // "Endpoints MUST treat receipt of a WT_MAX_STREAM_DATA or a WT_STREAM_DATA_BLOCKED capsule as a
                // session error" (draft 16 section 5.4).
                Capsule::Prohibited(_) => {
                    return Err(Over::Misbehaved(
                        Code::WT_FLOW_CONTROL_ERROR,
                        "a capsule of per-stream flow control",
                    ));
                }
                Capsule::MaxData(max) => self.flow_capsule(id, session, FlowCapsule::MaxData(max))?,
                Capsule::MaxStreams { dir, max } => {
                    self.flow_capsule(id, session, FlowCapsule::MaxStreams(dir, max))?;
                }
                Capsule::DataBlocked(max) => self.flow_capsule(id, session, FlowCapsule::DataBlocked(max))?,
                Capsule::StreamsBlocked { dir, max } => {
                    self.flow_capsule(id, session, FlowCapsule::StreamsBlocked(dir, max))?;
                }
            }
        }
        Ok(())
    }

    /// Client: the field lines of a response to the CONNECT; `None` if the decoder keeps it for now.
    fn response_fields(&mut self, id: SessionId, block: Bytes) -> Result<Option<Vec<Field>>, Over> {
        match self
            .decoder
            .decode(id.stream(), block, self.config.max_field_section_size)
        {
            Ok(Section::Fields(fields)) => Ok(Some(fields)),
            Ok(Section::Blocked) => Ok(None),
            Err(DecodeError::TooLarge) => Err(Over::Misbehaved(
                Code::H3_EXCESSIVE_LOAD,
                "the response's header section is too large",
            )),
            Err(error) => Err(Over::Connection(error.code(), "a field section cannot be decompressed")),
        }
    }

    /// Client: a response to the CONNECT.
    fn session_response(&mut self, id: SessionId, session: &mut Session, fields: Vec<Field>) -> Result<(), Over> {
        let headers::ResponseHead { head, content_length } = headers::decode_response(fields)
            .map_err(|error| Over::Misbehaved(error.code(), "malformed response to CONNECT"))?;
        if head.status().is_informational() {
            return Ok(());
        }
        // "The WebTransport client MUST NOT automatically follow such redirects" (draft 16 section 3.2).
        if !head.status().is_success() {
            return Err(Over::Rejected(Box::new(head)));
        }
        // "A receiver that observes a violation of these requirements MUST treat the HTTP message as malformed" (RFC
        // 9297 section 3.2). Servers of draft 02 are older than this rule.
        let has_content = content_length.is_some() || describes_content(head.headers());
        if (has_content || !may_carry_capsules(head.status())) && session.dialect != Some(Dialect::Draft02) {
            return Err(Over::Misbehaved(
                Code::H3_MESSAGE_ERROR,
                "the response to CONNECT has content",
            ));
        }
        let protocol = protocols::chosen(head.headers());
        let is_offered = |protocol: &String| session.protocols.contains(protocol);
        // If it was not offered, "the client MUST close the WebTransport session with a WT_ALPN_ERROR error code"
        // (draft 16 section 3.3). The draft speaks of a client that sent a list; without one the field means nothing. Nor does
        // it before draft 15: "Otherwise, the WT-Protocol field MUST be ignored" (draft 14 section 3.3).
        if session.dialect == Some(Dialect::Draft15)
            && !session.protocols.is_empty()
            && protocol.as_ref().is_some_and(|protocol| !is_offered(protocol))
        {
            return Err(Over::Misbehaved(
                Code::WT_ALPN_ERROR,
                "the server chose a protocol that was not offered",
            ));
        }
        let protocol = protocol.filter(is_offered);
        // "A client that requires application protocol negotiation MUST close the WebTransport session with a
        // WT_ALPN_ERROR error code if the server does not include a WT-Protocol header field, or if it is malformed and
        // therefore ignored" (draft 16 section 3.3).
        if protocol.is_none() && session.requires_protocol {
            return Err(Over::Misbehaved(
                Code::WT_ALPN_ERROR,
                "the server chose none of the protocols",
            ));
        }
        session.state = State::Open;
        session.protocols = Vec::new();
        let priority = session.wishes.answered(head.headers());
        self.out.event(Event::SessionEstablished {
            session: id,
            head: Box::new(head),
            protocol,
        });
        self.tell_priority(id.stream(), priority);
        // The server had stopped the stream already, and not because the session is over by now.
        if let Some(code) = session.stopped
            && !session.outlives_stop(self.side, code)
        {
            return Err(Over::Stopped(code));
        }
        self.lift_limits(id, session);
        self.tell_blocked_in(id, session);
        self.release_parked(id, session)
    }
}

/// FIN on the CONNECT stream of an open session: "Cleanly terminating a CONNECT stream without a WT_CLOSE_SESSION
/// capsule SHALL be semantically equivalent to terminating it with a WT_CLOSE_SESSION capsule that has an error code of
/// 0 and an empty error string" (draft 16 section 6). Unless it cuts a capsule short.
fn ended(session: &Session) -> Over {
    match session.capsules.finish() {
        Ok(()) => Over::Closed {
            code: 0,
            reason: String::new(),
            trailing: false,
        },
        Err(error) => malformed(error),
    }
}

fn malformed(error: CapsuleError) -> Over {
    let reason = match error {
        CapsuleError::Truncated => "the CONNECT stream ended inside a capsule",
        CapsuleError::Malformed(_) => "the length of a capsule does not match its fields",
        CapsuleError::ReasonTooLong => "the reason in WT_CLOSE_SESSION is too long",
        CapsuleError::ReasonNotUtf8 => "the reason in WT_CLOSE_SESSION is not UTF-8",
        CapsuleError::AfterClose => "data after WT_CLOSE_SESSION",
    };
    Over::Misbehaved(error.code(), reason)
}
