//! Ordinary requests: what the application sends.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::events::CommandError;
use super::message::{Content, Message, Progress};
use super::{Connection, Stream};
use crate::codes::Code;
use crate::h3::settings::MAX_FIELD_SECTION_SIZE;
use crate::h3::{frame, headers};
use crate::qpack::FieldRef;
use crate::stream_id::{Side, StreamId};

impl Connection {
    /// Client: sends a request on `stream`, a new bidirectional stream, with FIN after the header section if `fin`. The body
    /// follows with [`Connection::data_header`], the response as [`Event::Response`](super::Event::Response). It need not wait
    /// for the server's SETTINGS.
    ///
    /// An extended CONNECT is not made here but with [`Connection::connect`].
    pub fn send_request(
        &mut self,
        now: Instant,
        stream: StreamId,
        head: &Request<()>,
        fin: bool,
    ) -> Result<(), CommandError> {
        self.now = Some(now);
        self.check_new_request(stream)?;
        // "Endpoints MUST NOT initiate new requests or promise new pushes on the connection after receipt of a GOAWAY
        // frame from the peer" (RFC 9114 section 5.2).
        if self.is_going_away() {
            return Err(CommandError::GoingAway);
        }
        let content = Content::request(headers::declared_length(head.headers())?);
        if fin && !content.is_complete() {
            return Err(CommandError::ContentLength);
        }
        let section = self.encode(stream, &headers::encode_request(head, None)?)?;
        let mut message = Message::client(self.frame_reader(), head.method().clone(), content, fin);
        let priority = self.first_wish(stream, head.headers(), &mut message.wishes);
        self.streams.insert(stream, Stream::Message(message));
        self.out.write(stream, section, fin);
        self.tell_priority(stream, priority);
        Ok(())
    }

    /// Server: answers a request. Any number of interim (1xx) responses may precede the final one, with which `fin` means
    /// that there is no body.
    pub fn send_response(&mut self, stream: StreamId, head: &Response<()>, fin: bool) -> Result<(), CommandError> {
        let message = self.sending(stream, Progress::Head)?;
        let is_final = !head.status().is_informational();
        if fin && !is_final {
            return Err(CommandError::InvalidMessage("an interim response cannot be the last"));
        }
        let content = Content::response(
            headers::declared_length(head.headers())?,
            &message.method,
            head.status(),
        );
        if fin && !content.is_complete() {
            return Err(CommandError::ContentLength);
        }
        let section = self.encode(stream, &headers::encode_response(&head.status(), head.headers())?)?;
        if is_final {
            let message = self.sending(stream, Progress::Head)?;
            message.outgoing = content;
            message.send = Progress::Body;
            self.response_wish(stream, head.headers());
        }
        if fin {
            return self.end_sending(stream, section);
        }
        self.out.write(stream, section, false);
        Ok(())
    }

    /// The header of a DATA frame of `len` bytes. The caller writes it and then exactly that many bytes of the body itself.
    ///
    /// "DATA frames MUST be associated with an HTTP request or response" (RFC 9114 section 7.2.1): there is none for
    /// any other stream.
    ///
    /// [`CommandError::ContentLength`] if the body would become longer than its Content-Length, or if there can be none (the
    /// response to HEAD, 204, 304).
    pub fn data_header(&mut self, stream: StreamId, len: u64) -> Result<Bytes, CommandError> {
        let message = self.sending(stream, Progress::Body)?;
        let mut counted = message.outgoing;
        if !counted.add(len) {
            return Err(CommandError::ContentLength);
        }
        message.outgoing = counted;
        let mut header = BytesMut::with_capacity(frame::header_len(frame::DATA, len));
        frame::encode_header(frame::DATA, len, &mut header);
        Ok(header.freeze())
    }

    /// Ends a message with a trailer section.
    pub fn send_trailers(&mut self, stream: StreamId, trailers: &HeaderMap) -> Result<(), CommandError> {
        let message = self.sending(stream, Progress::Body)?;
        // A tunnel has no trailers (RFC 9114 section 4.4).
        if message.method == Method::CONNECT {
            return Err(CommandError::InvalidState);
        }
        if !message.outgoing.is_complete() {
            return Err(CommandError::ContentLength);
        }
        let section = self.encode(stream, &headers::encode_trailers(trailers))?;
        self.end_sending(stream, section)
    }

    /// Ends a message, as [`Connection::send_trailers`] does and the head with `fin`. "After sending a request, a
    /// client MUST close the stream for sending" (RFC 9114 section 4.1).
    /// "After sending a final response, the server MUST close the stream for sending" (RFC 9114 section 4.1).
    ///
    /// [`CommandError::ContentLength`] if the body is shorter than its Content-Length; the message is then to
    /// be given up with [`Connection::reset_message`].
    pub fn finish(&mut self, stream: StreamId) -> Result<(), CommandError> {
        let message = self.sending(stream, Progress::Body)?;
        if !message.outgoing.is_complete() {
            return Err(CommandError::ContentLength);
        }
        self.end_sending(stream, Bytes::new())
    }

    /// Gives up sending a message (RESET_STREAM). Does nothing where it is sent or given up already.
    pub fn reset_message(&mut self, stream: StreamId, code: Code) {
        let Some(Stream::Message(message)) = self.streams.get_mut(&stream) else {
            return;
        };
        if message.send != Progress::Closed {
            message.send = Progress::Closed;
            self.out.reset(stream, code);
            self.forget_if_over(stream);
        }
    }

    /// Wants no more of the peer's message (STOP_SENDING): no more events of it follow, save
    /// [`Event::SendStopped`](super::Event::SendStopped). Does nothing where it is complete already.
    pub fn stop_message(&mut self, stream: StreamId, code: Code) {
        let Some(Stream::Message(message)) = self.streams.get_mut(&stream) else {
            return;
        };
        if message.recv != Progress::Closed {
            message.recv = Progress::Closed;
            message.waiting = None;
            self.out.stop(stream, code);
            self.abandon(stream);
            self.forget_if_over(stream);
        }
    }

    /// Server: answers by itself, for requests that the application never sees, and wants no more of them.
    pub(super) fn answer(&mut self, stream: StreamId, status: StatusCode) {
        if let Ok(fields) = headers::encode_response(&status, &HeaderMap::new())
            && let Ok(section) = self.encode(stream, &fields)
        {
            self.out.write(stream, section, true);
        } else {
            // The client takes no header section of this size. The application has processed nothing.
            self.out.reset(stream, Code::H3_REQUEST_REJECTED);
        }
        // The client does not discard the response for that (RFC 9114 section 4.1).
        self.out.stop(stream, Code::H3_NO_ERROR);
        self.abandon(stream);
    }

    /// Whether this client may make a request on `stream`: "A client MUST send only a single request on a given stream"
    /// (RFC 9114 section 4.1).
    pub(super) fn check_new_request(&self, stream: StreamId) -> Result<(), CommandError> {
        let is_free = stream.is_request() && !self.streams.contains_key(&stream);
        if self.side == Side::Client && is_free && !self.out.is_closed() {
            Ok(())
        } else {
            Err(CommandError::InvalidState)
        }
    }

    /// A whole HEADERS frame, unless the peer said that the section is too large for it: "An implementation that has received
    /// this parameter SHOULD NOT send an HTTP message header that exceeds the indicated size" (RFC 9114 section 4.2.2).
    pub(super) fn encode(&mut self, stream: StreamId, fields: &[FieldRef<'_>]) -> Result<Bytes, CommandError> {
        // "A client MUST comply with stored settings -- or default values if no values are stored -- when attempting
        // 0-RTT" (RFC 9114 section 7.2.4.2). Of QPACK's the defaults are complied with: no table, nothing that waits.
        let settings = self.peer_settings().or(self.control.remembered.as_deref());
        let limit = settings.and_then(|settings| settings.get(MAX_FIELD_SECTION_SIZE));
        if limit.is_some_and(|limit| headers::section_size(fields) > limit) {
            return Err(CommandError::InvalidMessage(
                "the header section is larger than the peer accepts",
            ));
        }
        let mut section = BytesMut::new();
        self.encoder.encode(stream, fields.iter().copied(), &mut section);
        let instructions = self.encoder.take_instructions();
        if !instructions.is_empty()
            && let Some(own) = self.control.own
        {
            self.out.write(own.qpack_encoder, instructions, false);
        }
        Ok(frame::encode(frame::HEADERS, &section))
    }

    /// The message on `stream`, if its sending half has made that `progress`.
    fn sending(&mut self, stream: StreamId, progress: Progress) -> Result<&mut Message, CommandError> {
        if self.out.is_closed() {
            return Err(CommandError::InvalidState);
        }
        match self.streams.get_mut(&stream) {
            // A server cannot answer before it has seen the request.
            Some(Stream::Message(message)) if message.send == progress && message.is_head_known(self.side) => {
                Ok(message)
            }
            _ => Err(CommandError::InvalidState),
        }
    }

    fn end_sending(&mut self, stream: StreamId, last: Bytes) -> Result<(), CommandError> {
        self.sending(stream, Progress::Body)?.send = Progress::Closed;
        self.out.write(stream, last, true);
        self.forget_if_over(stream);
        Ok(())
    }

    fn forget_if_over(&mut self, stream: StreamId) {
        if matches!(self.streams.get(&stream), Some(Stream::Message(message)) if message.is_over()) {
            self.streams.remove(&stream);
        }
    }
}
