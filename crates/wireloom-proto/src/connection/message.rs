//! One HTTP request and its response: how far each half of the stream has come (RFC 9114 section 4.1).

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use super::priorities::Wishes;
use crate::h3::reader::FrameReader;
use crate::stream_id::Side;

/// How far one direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Before the header section, or after interim ones.
    Head,
    /// After the header section.
    Body,
    /// After the trailer section.
    Trailed,
    /// Ended, cleanly or not.
    Closed,
}

/// The body of one direction against its Content-Length.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Content {
    expected: Option<u64>,
    counted: u64,
    /// There can be no body, whatever Content-Length says.
    bodiless: bool,
}

impl Content {
    pub(super) const fn request(expected: Option<u64>) -> Self {
        Self {
            expected,
            counted: 0,
            bodiless: false,
        }
    }

    /// "a response that is defined as never having content, even when it contains a Content-Length field, can have a non-zero
    /// Content-Length field even though no content is included in DATA frames" (RFC 9114 section 4.1.2). The data after a
    /// 2xx to CONNECT is no content at all.
    pub(super) fn response(expected: Option<u64>, request: &Method, status: StatusCode) -> Self {
        let tunnel = *request == Method::CONNECT && status.is_success();
        let bodiless = !tunnel
            && (*request == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED));
        Self {
            expected: if tunnel { None } else { expected },
            counted: 0,
            bodiless,
        }
    }

    /// Counts `len` more bytes; false if they are too many.
    pub(super) fn add(&mut self, len: u64) -> bool {
        self.counted = self.counted.saturating_add(len);
        if self.bodiless {
            self.counted == 0
        } else {
            self.expected.is_none_or(|expected| self.counted <= expected)
        }
    }

    /// Whether the body may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.bodiless || self.expected.is_none_or(|expected| self.counted == expected)
    }
}

/// What was received of a stream behind a field section that waits for QPACK's encoder stream.
#[derive(Debug)]
pub(crate) struct Waiting {
    data: BytesMut,
    fin: bool,
}

impl Waiting {
    pub(super) fn new(data: &[u8], fin: bool) -> Self {
        Self { data: data.into(), fin }
    }

    /// The caller was told not to read on, which bounds this.
    pub(super) fn push(&mut self, data: &[u8], fin: bool) {
        self.data.extend_from_slice(data);
        self.fin |= fin;
    }

    pub(super) fn take(self) -> (Bytes, bool) {
        (self.data.freeze(), self.fin)
    }
}

/// An ordinary request, at either end.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) reader: FrameReader,
    /// `Some` while the decoder keeps a section of it.
    pub(super) waiting: Option<Waiting>,
    /// The method, for what the response may be.
    pub(super) method: Method,
    /// The peer's head makes the rest of its stream a tunnel: a CONNECT, or a 2xx to one.
    pub(super) tunnel: bool,
    pub(super) recv: Progress,
    pub(super) incoming: Content,
    pub(super) send: Progress,
    pub(super) outgoing: Content,
    pub(super) wishes: Wishes,
    /// Counted as a request that was cancelled unanswered, which RESET_STREAM and STOP_SENDING both mean.
    pub(super) cancelled: bool,
    pub(super) has_trailer_deadline: bool,
}

impl Message {
    /// Server: a stream on which a request begins.
    pub(super) fn server(reader: FrameReader) -> Box<Self> {
        Box::new(Self {
            reader,
            waiting: None,
            method: Method::GET,
            tunnel: false,
            recv: Progress::Head,
            incoming: Content::default(),
            send: Progress::Head,
            outgoing: Content::default(),
            wishes: Wishes::default(),
            cancelled: false,
            has_trailer_deadline: false,
        })
    }

    /// Client: a request whose header section is sent.
    pub(super) fn client(reader: FrameReader, method: Method, outgoing: Content, fin: bool) -> Box<Self> {
        Box::new(Self {
            reader,
            waiting: None,
            method,
            tunnel: false,
            recv: Progress::Head,
            incoming: Content::default(),
            send: if fin { Progress::Closed } else { Progress::Body },
            outgoing,
            wishes: Wishes::default(),
            cancelled: false,
            has_trailer_deadline: false,
        })
    }

    /// Whether the application knows of the request.
    pub(super) fn is_head_known(&self, side: Side) -> bool {
        side == Side::Client || self.recv != Progress::Head
    }

    /// Whether a trailer section has begun that is not complete, or cannot be decompressed yet.
    pub(super) fn awaits_trailers(&self) -> bool {
        self.recv == Progress::Body && (self.reader.is_in_headers() || self.waiting.is_some())
    }

    /// Whether the stream can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.recv == Progress::Closed && self.send == Progress::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_their_length() {
        let mut ten = Content::request(Some(10));
        assert!(ten.add(4) && !ten.is_complete() && ten.add(6) && ten.is_complete() && !ten.add(1));
        let mut any = Content::request(None);
        assert!(any.is_complete() && any.add(u64::MAX) && any.add(u64::MAX));
        for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
            let status = StatusCode::from_u16(status).expect("a status");
            let mut none = Content::response(Some(10), &method, status);
            assert!(none.is_complete() && none.add(0) && !none.add(1), "{method} {status}");
        }
        let mut tunnel = Content::response(Some(0), &Method::CONNECT, StatusCode::OK);
        assert!(tunnel.add(10) && tunnel.is_complete());
    }
}
