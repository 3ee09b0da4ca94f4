//! Ordinary requests: what the peer sends (RFC 9114 section 4.1).

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::config::{CANCEL_WINDOW, MAX_CANCELLED, MAX_IDLE_FRAMES};
use super::events::{Event, Recv};
use super::message::{Content, Message, Progress, Waiting};
use super::{Connection, Stream, frame_reason};
use crate::codes::Code;
use crate::h3::headers::{self, RequestHead};
use crate::h3::reader::{Frame, FrameError};
use crate::qpack::{DecodeError, Field, Section};
use crate::stream_id::{Side, StreamId};
use crate::webtransport::negotiate;

/// Why a message is read no further.
enum Stop {
    /// The connection is at an end.
    Connection(Code, &'static str),
    /// The message is malformed or unacceptable: both halves are reset with this.
    Malformed(Code),
    /// The server answers this by itself; the application never hears of the request.
    Answer(StatusCode),
    /// It is the CONNECT of a session, whose reader takes over.
    Session(Box<RequestHead>),
    /// The decoder keeps its field section until the encoder stream has brought more.
    Blocked,
}

impl Connection {
    pub(super) fn recv_message(&mut self, stream: StreamId, data: Bytes, fin: bool) -> Recv {
        if let Some(Stream::Message(message)) = self.streams.get_mut(&stream)
            && let Some(waiting) = &mut message.waiting
        {
            waiting.push(&data, fin);
            return Recv::Pause;
        }
        self.continue_message(stream, None, data, fin)
    }

    /// The section of a message that waited can be decoded now.
    pub(super) fn resume_message(&mut self, stream: StreamId, block: Bytes) -> Recv {
        let Some(Stream::Message(message)) = self.streams.get_mut(&stream) else {
            return Recv::Done;
        };
        let (data, fin) = message.waiting.take().map(Waiting::take).unwrap_or_default();
        self.continue_message(stream, Some(Frame::Headers(block)), data, fin)
    }

    /// Reads a message: the frame `first`, then what `data` holds.
    fn continue_message(&mut self, stream: StreamId, first: Option<Frame>, mut data: Bytes, fin: bool) -> Recv {
        // Taken out for the time of reading, so that frames can be handled meanwhile.
        let Some(Stream::Message(mut message)) = self.streams.remove(&stream) else {
            return Recv::Done;
        };
        if message.recv == Progress::Closed {
            self.streams.insert(stream, Stream::Message(message));
            return Recv::Done;
        }
        match self.read_message(stream, &mut message, first, &mut data, fin) {
            Ok(recv) => {
                self.keep(stream, message);
                // What follows something for the application waits until that is taken, however early it was sent.
                if matches!(recv, Recv::Continue) {
                    self.await_trailers(stream);
                }
                recv
            }
            Err(Stop::Connection(code, reason)) => self.close(code, reason),
            Err(Stop::Malformed(code)) => {
                if message.is_head_known(self.side) {
                    // Whoever makes the server reset its own response has had it work in vain as well.
                    if let Some(now) = self.now {
                        self.note_cancelled(now, &mut message);
                    }
                    self.out.event(Event::MessageFailed {
                        stream,
                        code,
                        by_peer: false,
                    });
                }
                self.refuse(stream, code)
            }
            Err(Stop::Answer(status)) => {
                self.answer(stream, status);
                Recv::Done
            }
            Err(Stop::Session(head)) => self.session_head(stream, message.reader, *head, data, fin),
            Err(Stop::Blocked) => {
                message.waiting = Some(Waiting::new(&data, fin));
                self.keep(stream, message);
                self.await_trailers(stream);
                Recv::Pause
            }
        }
    }

    fn read_message(
        &mut self,
        stream: StreamId,
        message: &mut Message,
        first: Option<Frame>,
        data: &mut Bytes,
        fin: bool,
    ) -> Result<Recv, Stop> {
        if let Some(now) = self.now {
            message.reader.set_time(now);
        }
        let mut yielded = match first {
            Some(frame) => self.message_frame(stream, message, frame)?,
            None => false,
        };
        loop {
            match message.reader.read(data) {
                Err(error) => return Err(Stop::Connection(error.code(), frame_reason(error))),
                Ok(None) => break,
                Ok(Some(frame)) => yielded |= self.message_frame(stream, message, frame)?,
            }
        }
        if message.reader.idle_frames() > MAX_IDLE_FRAMES {
            return Err(Stop::Connection(
                Code::H3_EXCESSIVE_LOAD,
                "too many frames without effect",
            ));
        }
        if fin {
            // "When a stream terminates cleanly, if the last frame on the stream was truncated, this MUST be treated as
            // a connection error of type H3_FRAME_ERROR" (RFC 9114 section 7.1).
            message
                .reader
                .finish()
                .map_err(|error| Stop::Connection(error.code(), frame_reason(error)))?;
            if message.recv == Progress::Head {
                // "When a server does not receive a complete request, it SHOULD abort its response stream with the error
                // code H3_REQUEST_INCOMPLETE" (section 4.1). A response without a final header section is malformed.
                let is_server = self.side == Side::Server;
                let code = if is_server {
                    Code::H3_REQUEST_INCOMPLETE
                } else {
                    Code::H3_MESSAGE_ERROR
                };
                return Err(Stop::Malformed(code));
            }
            // "A request or response that [...] contains a Content-Length header field whose value does not equal the sum of
            // the DATA frame lengths received" is malformed (section 4.1.2).
            if !message.incoming.is_complete() {
                return Err(Stop::Malformed(Code::H3_MESSAGE_ERROR));
            }
            message.recv = Progress::Closed;
            self.out.event(Event::Finished { stream });
            return Ok(Recv::Done);
        }
        Ok(if yielded { Recv::Pause } else { Recv::Continue })
    }

    /// Whether the frame yielded something that the application may want to take at its own pace.
    fn message_frame(&mut self, stream: StreamId, message: &mut Message, frame: Frame) -> Result<bool, Stop> {
        match (frame, message.recv) {
            // "Receipt of an invalid sequence of frames MUST be treated as a connection error of type
            // H3_FRAME_UNEXPECTED" (RFC 9114 section 4.1): DATA first, anything known after the trailer section.
            (Frame::Data(_), Progress::Head) => Err(Stop::Connection(Code::H3_FRAME_UNEXPECTED, "DATA before HEADERS")),
            (Frame::Data(_) | Frame::Headers(_) | Frame::HeadersTooLarge, Progress::Trailed) => Err(Stop::Connection(
                Code::H3_FRAME_UNEXPECTED,
                "a frame after the trailer section",
            )),
            (Frame::Data(data), _) => {
                if !message.incoming.add(data.len() as u64) {
                    return Err(Stop::Malformed(Code::H3_MESSAGE_ERROR));
                }
                let yielded = !data.is_empty();
                if yielded {
                    self.out.event(Event::Data { stream, data });
                }
                Ok(yielded)
            }
            // "Receipt of any other known frame type MUST be treated as a connection error of type H3_FRAME_UNEXPECTED"
            // (RFC 9114 section 4.4), whatever its size.
            (Frame::Headers(_) | Frame::HeadersTooLarge, _) if message.tunnel => Err(Stop::Connection(
                Code::H3_FRAME_UNEXPECTED,
                "HEADERS on a CONNECT stream",
            )),
            (Frame::HeadersTooLarge, progress) => Err(self.too_large(progress)),
            (Frame::Headers(block), Progress::Head) if self.side == Side::Server => {
                self.request_head(stream, message, block).map(|()| true)
            }
            (Frame::Headers(block), Progress::Head) => self.response_head(stream, message, block),
            // Another request or response has pseudo-header fields, which trailers cannot have: "receipt of multiple
            // requests or receipt of an additional HTTP response following a final HTTP response MUST be treated as
            // malformed" (RFC 9114 section 4.1).
            (Frame::Headers(block), _) => {
                let fields = self.decode(stream, block, Progress::Body)?;
                let trailers = headers::decode_trailers(fields).map_err(|error| Stop::Malformed(error.code()))?;
                message.recv = Progress::Trailed;
                self.out.event(Event::Trailers { stream, trailers });
                Ok(true)
            }
            // First in a response: a stream of the peer's own that begins so is no message.
            (Frame::WtStream, _) => {
                let error = FrameError::MisplacedWtStream;
                Err(Stop::Connection(error.code(), frame_reason(error)))
            }
            // None was advertised: "A client MUST treat receipt of a PUSH_PROMISE frame that contains a larger push ID
            // than the client has advertised as a connection error of H3_ID_ERROR" (RFC 9114 section 7.2.5).
            (Frame::PushPromise, _) if self.side == Side::Client => {
                Err(Stop::Connection(Code::H3_ID_ERROR, "PUSH_PROMISE without MAX_PUSH_ID"))
            }
            // "If an endpoint receives a SETTINGS frame on a different stream, the endpoint MUST respond with a
            // connection error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.4).
            // "Receiving a CANCEL_PUSH frame on a stream other than the control stream MUST be treated as a connection
            // error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.3).
            // "A client MUST treat a GOAWAY frame on a stream other than the control stream as a connection error of
            // type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.6).
            // "Receipt of a MAX_PUSH_ID frame on any other stream MUST be treated as a connection error of type
            // H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.7).
            // "A server MUST treat the receipt of a PUSH_PROMISE frame as a connection error of type
            // H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.5). PRIORITY_UPDATE too (RFC 9218 section 7).
            _ => Err(Stop::Connection(
                Code::H3_FRAME_UNEXPECTED,
                "a frame that may not come on a request stream",
            )),
        }
    }

    fn request_head(&mut self, stream: StreamId, message: &mut Message, block: Bytes) -> Result<(), Stop> {
        let fields = self.decode(stream, block, Progress::Head)?;
        let head = headers::decode_request(fields).map_err(|error| Stop::Malformed(error.code()))?;
        match &head.protocol {
            Some(protocol) if self.config.webtransport && negotiate::is_upgrade_token(protocol) => {
                return Err(Stop::Session(Box::new(head)));
            }
            // "If a server receives a request [with] an unknown or unsupported :protocol value, the server SHOULD respond to
            // the request with a 501" (RFC 9220 section 3).
            Some(protocol) if !(self.config.websocket && protocol == "websocket") => {
                return Err(Stop::Answer(StatusCode::NOT_IMPLEMENTED));
            }
            _ => {}
        }
        // "An origin server [...] MUST NOT" let a replay have effects: only safe methods may be processed in early data (RFC
        // 8470 section 3), to others it "can respond with a 425 (Too Early)" (section 5.2).
        if !self.is_connected() && !head.head.method().is_safe() {
            return Err(Stop::Answer(StatusCode::TOO_EARLY));
        }
        message.method = head.head.method().clone();
        let is_connect = message.method == Method::CONNECT;
        message.tunnel = is_connect;
        message.incoming = Content::request(if is_connect { None } else { head.content_length });
        message.recv = Progress::Body;
        let priority = self.first_wish(stream, head.head.headers(), &mut message.wishes);
        self.out.event(Event::Request {
            stream,
            head: Box::new(head.head),
            protocol: head.protocol,
        });
        self.tell_priority(stream, priority);
        Ok(())
    }

    fn response_head(&mut self, stream: StreamId, message: &mut Message, block: Bytes) -> Result<bool, Stop> {
        let fields = self.decode(stream, block, Progress::Body)?;
        // "Clients MUST NOT accept a malformed response" (RFC 9114 section 4.1.2).
        let head = headers::decode_response(fields).map_err(|error| Stop::Malformed(error.code()))?;
        let status = head.head.status();
        if !status.is_informational() {
            if let Some(priority) = message.wishes.answered(head.head.headers()) {
                self.out.event(Event::Priority { stream, priority });
            }
            message.incoming = Content::response(head.content_length, &message.method, status);
            message.tunnel = message.method == Method::CONNECT && status.is_success();
            message.recv = Progress::Body;
        }
        self.out.event(Event::Response {
            stream,
            head: Box::new(head.head),
        });
        // An interim one too: how many there are is the server's choice, and the application takes them one by one.
        Ok(true)
    }

    /// Decompresses a section, which comes while the message has made that `progress`.
    fn decode(&mut self, stream: StreamId, block: Bytes, progress: Progress) -> Result<Vec<Field>, Stop> {
        match self.decoder.decode(stream, block, self.config.max_field_section_size) {
            Ok(Section::Fields(fields)) => Ok(fields),
            Ok(Section::Blocked) => Err(Stop::Blocked),
            Err(DecodeError::TooLarge) => Err(self.too_large(progress)),
            Err(error) => Err(Stop::Connection(error.code(), "a field section cannot be decompressed")),
        }
    }

    /// "A server that receives a larger header section than it is willing to handle can send an HTTP 431" (section 4.2.2). A
    /// client, and a server that gets such trailers, give the message up.
    fn too_large(&self, progress: Progress) -> Stop {
        if self.side == Side::Server && progress == Progress::Head {
            Stop::Answer(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        } else {
            Stop::Malformed(Code::H3_EXCESSIVE_LOAD)
        }
    }

    /// Keeps the message unless both halves have ended.
    pub(super) fn keep(&mut self, stream: StreamId, message: Box<Message>) {
        if !message.is_over() {
            self.streams.insert(stream, Stream::Message(message));
        }
    }

    /// Ends both halves of a message because of something that came beside its stream.
    pub(super) fn terminate_message(&mut self, now: Instant, stream: StreamId, code: Code) {
        let Some(Stream::Message(message)) = self.streams.get(&stream) else {
            return;
        };
        if message.send == Progress::Head && !message.cancelled {
            self.count_cancelled(now);
        }
        self.out.event(Event::MessageFailed {
            stream,
            code,
            by_peer: false,
        });
        self.discard(stream, code);
    }

    pub(super) fn message_reset(&mut self, now: Instant, stream: StreamId, code: Code) {
        let Some(Stream::Message(mut message)) = self.streams.remove(&stream) else {
            return;
        };
        self.note_cancelled(now, &mut message);
        if message.recv != Progress::Closed {
            message.waiting = None;
            self.abandon(stream);
        }
        if !message.is_head_known(self.side) {
            self.out.reset(stream, Code::H3_REQUEST_CANCELLED);
            return;
        }
        if message.recv != Progress::Closed {
            message.recv = Progress::Closed;
            self.out.event(Event::MessageFailed {
                stream,
                code,
                by_peer: true,
            });
        }
        self.keep(stream, message);
    }

    pub(super) fn message_stopped(&mut self, now: Instant, stream: StreamId, code: Code) {
        let Some(Stream::Message(mut message)) = self.streams.remove(&stream) else {
            return;
        };
        self.note_cancelled(now, &mut message);
        if !message.is_head_known(self.side) {
            self.discard(stream, Code::H3_REQUEST_CANCELLED);
            return;
        }
        // "An endpoint SHOULD copy the error code from the STOP_SENDING frame to the RESET_STREAM frame it sends" (RFC 9000
        // section 3.5). Also after FIN: QUIC would wait for ever for credit to send the rest.
        //
        // This is the only way in which a client comes to say H3_REQUEST_REJECTED: "Clients MUST NOT use the
        // H3_REQUEST_REJECTED error code, except when a server has requested closure of the request stream with this
        // error code" (RFC 9114 section 4.1.1). The receiving half goes on: "Clients MUST NOT discard complete
        // responses as a result of having their request terminated abruptly" (RFC 9114 section 4.1).
        self.out.reset(stream, code);
        if message.send != Progress::Closed {
            message.send = Progress::Closed;
            self.out.event(Event::SendStopped { stream, code });
        }
        self.keep(stream, message);
    }

    /// Client: the server will not answer a request, as it says beside its stream.
    pub(super) fn message_rejected(&mut self, stream: StreamId) {
        let Some(Stream::Message(message)) = self.streams.get(&stream) else {
            return;
        };
        let (is_sending, code) = (message.send != Progress::Closed, Code::H3_REQUEST_REJECTED);
        self.out.event(Event::MessageFailed {
            stream,
            code,
            by_peer: true,
        });
        if is_sending {
            self.out.event(Event::SendStopped { stream, code });
        }
        // "Clients MUST NOT use the H3_REQUEST_REJECTED error code" by themselves (RFC 9114 section 4.1.1).
        self.discard(stream, Code::H3_REQUEST_CANCELLED);
    }

    /// Counts a request that the client gave up before it was answered, once.
    fn note_cancelled(&mut self, now: Instant, message: &mut Message) {
        if message.send == Progress::Head && !std::mem::replace(&mut message.cancelled, true) {
            self.count_cancelled(now);
        }
    }

    /// "An endpoint MAY treat activity that is suspicious as a connection error of type H3_EXCESSIVE_LOAD" (RFC 9114 section
    /// 10.5): requests that are made only to be cancelled cost us more than the peer.
    pub(super) fn count_cancelled(&mut self, now: Instant) {
        if self.side == Side::Client {
            return;
        }
        if self
            .cancel_since
            .is_none_or(|since| now.saturating_duration_since(since) > CANCEL_WINDOW)
        {
            self.cancel_since = Some(now);
            self.cancelled = 0;
        }
        self.cancelled += 1;
        if self.cancelled > MAX_CANCELLED {
            self.out.close(Code::H3_EXCESSIVE_LOAD, "too many requests cancelled");
        }
    }
}
