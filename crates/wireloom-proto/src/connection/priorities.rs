//! How urgent requests and sessions are (RFC 9218): what both ends said about it.
//!
//! The core knows and tells; whoever writes to QUIC heeds.

use bytes::Bytes;
use http::HeaderMap;
use rustc_hash::FxHashMap;

use super::events::{CommandError, Event};
use super::{Connection, Stream};
use crate::codes::Code;
use crate::h3::frame;
use crate::h3::priority::{Priority, Wish};
use crate::stream_id::{SessionId, Side, StreamId};

/// Updates that are kept for requests that have not arrived; of further ones none is.
const MAX_EARLY: usize = 128;

/// What was said about one request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes {
    /// The request's field, or PRIORITY_UPDATE.
    client: Wish,
    /// The response's field, or the application's own will.
    server: Wish,
}

impl Wishes {
    /// "the server-provided value [is preferred] over the client's", parameter by parameter (section 8).
    fn priority(self) -> Priority {
        Priority::default().with(self.client).with(self.server)
    }

    /// The server answered with these fields. The priority, if they change it.
    pub(super) fn answered(&mut self, fields: &HeaderMap) -> Option<Priority> {
        let before = self.priority();
        self.server = Wish::of(fields)?;
        Some(self.priority()).filter(|priority| *priority != before)
    }
}

/// Updates that came before their requests: "buffered until the stream is opened and applied immediately after the request
/// message has been processed", the last one of each (section 7.2).
pub(super) type EarlyUpdates = FxHashMap<StreamId, Wish>;

impl Connection {
    /// Says how urgent a request or session is from now on. A client tells the server (PRIORITY_UPDATE, RFC 9218 section 7.2);
    /// a server changes only what it does itself. [`Event::Priority`] follows if that is a change.
    ///
    /// [`CommandError::InvalidState`] where the request or session is over.
    pub fn set_priority(&mut self, stream: StreamId, priority: Priority) -> Result<(), CommandError> {
        if self.out.is_closed() || !stream.is_request() {
            return Err(CommandError::InvalidState);
        }
        let is_client = self.side == Side::Client;
        let wish = Wish::from(priority);
        let is_known = self.wish(stream, |wishes| {
            if is_client {
                *wishes = Wishes {
                    client: wish,
                    server: Wish::default(),
                };
            } else {
                wishes.server = wish;
            }
        });
        if !is_known {
            return Err(CommandError::InvalidState);
        }
        if let (Side::Client, Some(own)) = (self.side, self.control.own) {
            let value = priority.to_value();
            let update = frame::encode_priority_update(stream.into_u64(), value.as_bytes());
            self.out.write(own.control, update, false);
        }
        Ok(())
    }

    /// Server: PRIORITY_UPDATE for a request.
    pub(super) fn recv_priority_update(&mut self, id: u64, value: &Bytes) -> Result<(), (Code, &'static str)> {
        let stream = StreamId::from_u64(id);
        // "If a server receives a PRIORITY_UPDATE (type=0xF0700) for a stream ID that is not a request stream, this MUST be
        // treated as a connection error of type H3_ID_ERROR" (RFC 9218 section 7.2).
        if !stream.is_request() {
            return Err((Code::H3_ID_ERROR, "PRIORITY_UPDATE of what is no request"));
        }
        // "Failure to parse the Priority Field Value MAY be treated as a connection error" (section 7). It is a hint, and an
        // extension of structured fields is no crime.
        let Some(wish) = Wish::parse(value) else {
            return Ok(());
        };
        // What is not mentioned has its default, as in the request's field.
        if self.wish(stream, |wishes| wishes.client = wish) {
            return Ok(());
        }
        if self.is_over(stream) {
            // The caller may still be sending a response that is complete here.
            let priority = Priority::default().with(wish);
            self.out.event(Event::Priority { stream, priority });
            return Ok(());
        }
        let is_full = self.early_updates.len() >= MAX_EARLY;
        if self.is_expected(stream) && (!is_full || self.early_updates.contains_key(&stream)) {
            self.early_updates.insert(stream, wish);
        }
        Ok(())
    }

    /// Whether a request may yet begin on the peer's `stream`. When that is decided its early update is taken out, so that none
    /// outlives its use.
    fn is_expected(&self, stream: StreamId) -> bool {
        match self.streams.get(&stream) {
            // Of a CONNECT that is kept until SETTINGS the head is not known either.
            None | Some(Stream::Header(_) | Stream::Connect) => true,
            Some(Stream::Message(message)) => !message.is_head_known(self.side),
            _ => false,
        }
    }

    /// Whether the request on the peer's `stream` came and went.
    fn is_over(&self, stream: StreamId) -> bool {
        self.was_seen(stream) && !self.streams.contains_key(&stream)
    }

    /// Changes what is said about a request whose head is known, and tells if that changes its priority. Whether there is such
    /// a request.
    fn wish(&mut self, stream: StreamId, change: impl FnOnce(&mut Wishes)) -> bool {
        let wishes = match self.streams.get_mut(&stream) {
            Some(Stream::Message(message)) if message.is_head_known(self.side) => &mut message.wishes,
            Some(Stream::Connect) => match SessionId::new(stream).and_then(|id| self.sessions.get_mut(&id)) {
                Some(session) if session.is_visible() => &mut session.wishes,
                _ => return false,
            },
            _ => return false,
        };
        let before = wishes.priority();
        change(wishes);
        let priority = wishes.priority();
        if priority != before {
            self.out.event(Event::Priority { stream, priority });
        }
        true
    }

    /// The head of a request is known. Its priority, if it is not the default.
    pub(super) fn first_wish(&mut self, stream: StreamId, fields: &HeaderMap, wishes: &mut Wishes) -> Option<Priority> {
        // An update is the client's newer word, even where it came first.
        wishes.client = self.forget_early_update(stream).or_else(|| Wish::of(fields))?;
        Some(wishes.priority()).filter(|priority| *priority != Priority::default())
    }

    /// It is known what `stream` is, or that it will never be anything. Its update, if it had one.
    #[inline]
    pub(super) fn forget_early_update(&mut self, stream: StreamId) -> Option<Wish> {
        // There is seldom any.
        if self.early_updates.is_empty() {
            None
        } else {
            self.early_updates.remove(&stream)
        }
    }

    pub(super) fn tell_priority(&mut self, stream: StreamId, priority: Option<Priority>) {
        if let Some(priority) = priority {
            self.out.event(Event::Priority { stream, priority });
        }
    }

    /// Server: the head of a final response is sent.
    pub(super) fn response_wish(&mut self, stream: StreamId, fields: &HeaderMap) {
        if let Some(wish) = Wish::of(fields) {
            self.wish(stream, |wishes| wishes.server = wish);
        }
    }
}
