//! Streams whose kind is not known yet.

use std::time::Instant;

use bytes::Bytes;

use super::deadline;
use super::events::Recv;
use super::message::{Message, Progress};
use super::{Beginning, Connection, Stream};
use crate::codes::Code;
use crate::stream_id::{Dir, Side, StreamId};
use crate::varint;
use crate::webtransport::stream_header::{self, Header, Partial};

impl Connection {
    /// The first chunk of a stream, or one of a stream that is forgotten.
    #[inline]
    pub(super) fn recv_new(&mut self, now: Instant, stream: StreamId, mut data: Bytes, fin: bool) -> Recv {
        if !self.is_new(stream) || (stream.dir() == Dir::Bi && !self.meet(stream)) {
            return Recv::Done;
        }
        match stream_header::parse(stream.dir(), &data) {
            Header::WebTransport { session, len } => {
                let _ = data.split_to(len);
                self.attach(now, stream, session, data, fin)
            }
            Header::Other { ty, len } if stream.dir() == Dir::Uni => {
                self.mark_seen(stream);
                let _ = data.split_to(len);
                self.recv_uni_type(stream, ty, data, fin)
            }
            Header::Other { .. } => {
                self.mark_seen(stream);
                self.begin_request(now, stream, data, fin)
            }
            Header::Incomplete => {
                let mut beginning = Box::<Beginning>::default();
                beginning.partial.push(stream.dir(), &mut data);
                if fin {
                    return self.header_ended(now, stream, &beginning.partial);
                }
                self.streams.insert(stream, Stream::Header(beginning));
                self.await_header(now, stream);
                Recv::Continue
            }
        }
    }

    /// Takes note of a bidirectional stream of the peer. Whether there may be any.
    fn meet(&mut self, stream: StreamId) -> bool {
        self.bi_end = self.bi_end.max(stream.index() + 1);
        // "Clients MUST treat receipt of a server-initiated bidirectional stream as a connection error of type
        // H3_STREAM_CREATION_ERROR unless such an extension has been negotiated" (RFC 9114 section 6.1).
        let is_legal = self.side == Side::Server || self.dialect().is_some();
        if !is_legal {
            self.out
                .close(Code::H3_STREAM_CREATION_ERROR, "bidirectional stream from a server");
        }
        is_legal
    }

    /// The peer wants no answer on a stream of which nothing has come yet: packets overtake each other.
    pub(super) fn stopped_unread(&mut self, now: Instant, stream: StreamId, code: Code) {
        if stream.dir() == Dir::Bi && self.meet(stream) {
            let mut beginning = Box::<Beginning>::default();
            beginning.stopped = Some(code);
            self.streams.insert(stream, Stream::Header(beginning));
            self.await_header(now, stream);
        }
    }

    /// More of a stream whose header was incomplete.
    pub(super) fn recv_header(&mut self, now: Instant, stream: StreamId, mut data: Bytes, fin: bool) -> Recv {
        let Some(Stream::Header(beginning)) = self.streams.get_mut(&stream) else {
            return Recv::Done;
        };
        let stopped = beginning.stopped;
        match beginning.partial.push(stream.dir(), &mut data) {
            Header::WebTransport { session, .. } => {
                self.streams.remove(&stream);
                self.attach(now, stream, session, data, fin)
            }
            Header::Other { ty, .. } if stream.dir() == Dir::Uni => {
                self.mark_seen(stream);
                self.recv_uni_type(stream, ty, data, fin)
            }
            Header::Other { ty, .. } => {
                self.streams.remove(&stream);
                self.mark_seen(stream);
                // The frame reader wants the type as well. It has at most 8 bytes, so joining them costs little.
                let mut whole = Vec::with_capacity(8 + data.len());
                varint::encode(ty, &mut whole);
                whole.extend_from_slice(&data);
                let recv = self.begin_request(now, stream, whole.into(), fin);
                let Some(code) = stopped else { return recv };
                self.handle_stopped(now, stream, code);
                if self.streams.contains_key(&stream) {
                    recv
                } else {
                    Recv::Done
                }
            }
            Header::Incomplete if fin => {
                let partial = beginning.partial;
                self.streams.remove(&stream);
                self.header_ended(now, stream, &partial)
            }
            Header::Incomplete => Recv::Continue,
        }
    }

    /// FIN before the header was complete.
    fn header_ended(&mut self, now: Instant, stream: StreamId, partial: &Partial) -> Recv {
        self.mark_seen(stream);
        if stream.dir() == Dir::Uni {
            // "A receiver MUST tolerate unidirectional streams being closed or reset prior to the reception of the
            // unidirectional stream header" (RFC 9114 section 6.2).
            return Recv::Done;
        }
        let type_is_known = varint::decode(partial.bytes()).is_some();
        if self.side == Side::Server && !type_is_known && !partial.bytes().is_empty() {
            // A frame was cut short, which the reader judges.
            return self.begin_request(now, stream, Bytes::copy_from_slice(partial.bytes()), true);
        }
        self.refuse(stream, Code::H3_REQUEST_INCOMPLETE)
    }

    /// A bidirectional stream of the peer that is not WebTransport's; `data` has its first frame's type.
    fn begin_request(&mut self, now: Instant, stream: StreamId, data: Bytes, fin: bool) -> Recv {
        if self.side == Side::Client {
            return self.close(
                Code::H3_STREAM_CREATION_ERROR,
                "bidirectional stream without WT_STREAM from a server",
            );
        }
        // Requests from the identifier in GOAWAY on. Not a byte of one has been looked at: "Servers MUST NOT use the
        // H3_REQUEST_REJECTED error code for requests that were partially or fully processed" (RFC 9114 section 4.1.1).
        if self.is_after_goaway(stream) {
            return self.refuse(stream, Code::H3_REQUEST_REJECTED);
        }
        self.streams
            .insert(stream, Stream::Message(Message::server(self.frame_reader())));
        let recv = self.recv_message(stream, data, fin);
        if self.awaits_head(stream) {
            self.await_header(now, stream);
        }
        recv
    }

    /// Server: whether a request's header section is incomplete, so that it may yet become a session.
    pub(super) fn awaits_head(&self, stream: StreamId) -> bool {
        matches!(self.streams.get(&stream), Some(Stream::Message(message)) if message.recv == Progress::Head)
    }

    /// As with a header section: what has come of it is kept, beside what QUIC's windows bound.
    pub(super) fn await_trailers(&mut self, stream: StreamId) {
        if let Some(Stream::Message(message)) = self.streams.get_mut(&stream)
            && message.awaits_trailers()
            && !message.has_trailer_deadline
            && let Some(now) = self.now
        {
            message.has_trailer_deadline = true;
            self.await_header(now, stream);
        }
    }

    fn await_header(&mut self, now: Instant, stream: StreamId) {
        let streams = &self.streams;
        self.header_deadlines.push(
            deadline(now, self.config.header_timeout),
            stream,
            |stream| match streams.get(&stream) {
                Some(Stream::Header(_)) => true,
                Some(Stream::Message(message)) => message.recv == Progress::Head || message.awaits_trailers(),
                _ => false,
            },
        );
    }

    /// A stream header, a request's header section or a message's trailers took too long.
    pub(super) fn header_expired(&mut self, now: Instant, stream: StreamId) {
        if let Some(Stream::Message(message)) = self.streams.get(&stream)
            && message.awaits_trailers()
        {
            let code = match self.side {
                Side::Server => Code::H3_REQUEST_INCOMPLETE,
                Side::Client => Code::H3_REQUEST_CANCELLED,
            };
            self.terminate_message(now, stream, code);
        } else if self.awaits_head(stream) {
            self.discard(stream, Code::H3_REQUEST_INCOMPLETE);
        } else if matches!(self.streams.get(&stream), Some(Stream::Header(_))) {
            // Nobody can say yet whether it is WebTransport's, so it gets the code that every HTTP/3 peer knows.
            self.mark_seen(stream);
            self.stream_lost(stream.dir());
            self.discard(stream, Code::H3_STREAM_CREATION_ERROR);
        }
    }

    /// The peer reset a stream before its header was complete.
    pub(super) fn reset_unread(&mut self, stream: StreamId) {
        if !self.is_new(stream) {
            return;
        }
        self.mark_seen(stream);
        self.stream_lost(stream.dir());
        if stream.dir() == Dir::Bi {
            self.bi_end = self.bi_end.max(stream.index() + 1);
            self.out.reset(stream, Code::H3_REQUEST_CANCELLED);
            self.abandon(stream);
        }
    }
}
