//! Early data (0-RTT): requests that leave with a client's first packet (RFC 9114 section 7.2.4.2, RFC 8470).

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use wireloom_proto::h3::settings::Settings;
use wireloom_proto::{Code, Connection as H3, Dir, StreamId};

use super::{Driver, MessageEvent, Transport, WakeList};
use crate::driver::RequestError;

/// What a client remembers of a server at one address until it comes back: what it announced. The first connection that comes back
/// takes it along, and its answer brings it back: an address that does not answer any more is trusted once.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Option<Settings>>);

impl Memory {
    fn take(&self) -> Option<Settings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn remember(&self, settings: Settings) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
    }
}

/// The requests that were sent in early data, as long as it may still be rejected. Bounded by the server's limit on streams.
#[derive(Default)]
pub(super) struct Early {
    requests: Vec<(StreamId, http::Request<()>)>,
}

impl Driver {
    /// Client: whether requests can leave before the handshake is complete, and none else.
    pub(crate) fn is_early(&self) -> bool {
        self.early.is_some()
    }

    /// Client: HTTP/3 begins before the handshake is complete. Whether requests may be sent, too.
    pub(super) fn begin_early(&mut self, quic: &Transport) -> bool {
        if !quic.has_early_data() {
            return false;
        }
        let Some(settings) = self.memory.as_ref().and_then(|memory| memory.take()) else {
            return false;
        };
        self.h3.resume(settings);
        self.early = Some(Box::default());
        true
    }

    /// Client: keeps a request that left early until it is known to have been accepted.
    pub(super) fn note_early(&mut self, stream: StreamId, head: &http::Request<()>) {
        if let Some(early) = &mut self.early {
            early.requests.push((stream, head.clone()));
        }
    }

    /// Client: what the server announced is what it is held to next time.
    pub(super) fn remember(&mut self, settings: Settings) {
        if let Some(memory) = &self.memory {
            memory.remember(settings);
        }
    }

    /// Client: the handshake is complete. Where the server rejected early data everything is said again: "A client that
    /// attempts to send 0-RTT data MUST [...] be prepared to" (RFC 9001 section 4.6.2).
    pub(super) fn end_early(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) {
        let early = self.early.take();
        if quic.early_data_rejected() && self.own_opened > 0 {
            tracing::debug!(parent: &self.span, "early data rejected");
            self.h3 = H3::new(self.side, self.config.h3.clone());
            self.feeds.clear();
            self.outgoing.clear();
            self.own_opened = 0;
            self.start(now, quic);
            for (stream, head) in early.map(|early| early.requests).unwrap_or_default() {
                self.resend(now, quic, wakes, stream, &head);
            }
        }
        wakes.all(&self.signals);
    }

    /// Streams get the numbers that they had, in the order in which they were opened, so that their handles stay good.
    fn resend(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        stream: StreamId,
        head: &http::Request<()>,
    ) {
        let cancelled = Code::H3_REQUEST_CANCELLED;
        let opened = quic.open(Dir::Bi);
        let is_wanted = self.messages.contains_key(&stream);
        if opened == Some(stream) && is_wanted && self.h3.send_request(now, stream, head, true).is_ok() {
            self.feeds.insert(stream, None);
            return;
        }
        if let Some(opened) = opened {
            quic.reset(opened, cancelled);
            quic.stop(opened, cancelled);
        }
        // Given up meanwhile, or the server allows fewer streams than it did.
        self.on_message(wakes, stream, MessageEvent::Failed(RequestError::Cancelled(cancelled)));
    }
}
