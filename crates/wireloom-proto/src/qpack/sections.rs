//! The sections whose decoding the peer has not acknowledged (RFC 9204 section 2.1).

use std::collections::VecDeque;

use crate::stream_id::StreamId;

/// Sections that may wait for their acknowledgement; while so many do, the next are encoded without the dynamic table.
pub(super) const MAX_SECTIONS: usize = 256;

/// A section with references to the dynamic table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) stream: StreamId,
    /// Its Required Insert Count.
    pub(super) required: u64,
    /// The smallest absolute index that it refers to. Entries leave in order, so this protects all others as well.
    pub(super) oldest: u64,
}

/// How many cancelled streams are remembered.
const MAX_CANCELLED: usize = 64;

/// In the order in which they were sent, at most [`MAX_SECTIONS`].
#[derive(Debug, Default)]
pub(super) struct Sections {
    sent: Vec<Sent>,
    /// The last streams that the peer cancelled. A section that is sent on one of them because STOP_SENDING is still under way
    /// would never be acknowledged, so it must not refer to the table.
    cancelled: VecDeque<StreamId>,
}

impl Sections {
    /// Whether a section on `stream` may refer to the table.
    pub(super) fn may_refer(&self, stream: StreamId) -> bool {
        self.sent.len() < MAX_SECTIONS && !self.cancelled.contains(&stream)
    }

    pub(super) fn push(&mut self, sent: Sent) {
        self.sent.push(sent);
    }

    /// Takes the oldest section of the stream, which is the one that an acknowledgement means.
    pub(super) fn acknowledge(&mut self, stream: StreamId) -> Option<Sent> {
        let at = self.sent.iter().position(|sent| sent.stream == stream)?;
        Some(self.sent.remove(at))
    }

    pub(super) fn cancel(&mut self, stream: StreamId) {
        self.sent.retain(|sent| sent.stream != stream);
        if self.cancelled.len() == MAX_CANCELLED {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back(stream);
    }

    /// The smallest absolute index that is referred to; the maximum if none is.
    pub(super) fn oldest(&self) -> u64 {
        self.sent.iter().map(|sent| sent.oldest).min().unwrap_or(u64::MAX)
    }

    /// Whether `stream` may be blocked if at most `limit` streams may, where `known` insertions are acknowledged.
    pub(super) fn may_block(&self, stream: StreamId, known: u64, limit: usize) -> bool {
        if limit == 0 {
            return false;
        }
        let at_risk = self.sent.iter().filter(|sent| sent.required > known);
        let mut streams: Vec<StreamId> = at_risk.map(|sent| sent.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        streams.len() < limit || streams.binary_search(&stream).is_ok()
    }

    #[cfg(feature = "__testing")]
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }
}
