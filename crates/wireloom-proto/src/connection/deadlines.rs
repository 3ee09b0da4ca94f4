//! Deadlines that all lie equally far ahead when they are set: a queue instead of a timer for each stream.

use std::collections::VecDeque;
use std::time::Instant;

use crate::stream_id::StreamId;

/// Deadlines in ascending order. One whose stream has moved on stays until its time or until it is swept out; whoever takes
/// it checks that.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: VecDeque<(Instant, StreamId)>,
    /// Entries that were still pending after the last sweep.
    pending: usize,
}

impl Deadlines {
    /// Adds a deadline that is not before any other. `is_pending` tells which of the streams still wait, so that the queue
    /// stays within about twice their number however fast streams come and go.
    pub(super) fn push(&mut self, at: Instant, stream: StreamId, is_pending: impl Fn(StreamId) -> bool) {
        if self.queue.len() >= 2 * self.pending + 32 {
            self.queue.retain(|&(_, stream)| is_pending(stream));
            self.pending = self.queue.len();
        }
        self.queue.push_back((at, stream));
    }

    /// Takes the oldest deadline if it has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<StreamId> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_front().map(|(_, stream)| stream)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.front().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn in_order_and_swept() {
        let (mut deadlines, start) = (Deadlines::default(), Instant::now());
        for id in 0..10_000 {
            deadlines.push(start + Duration::from_millis(id), StreamId::from_u64(id), |stream| {
                stream.into_u64() == 5
            });
        }
        assert!(deadlines.queue.len() <= 40, "{}", deadlines.queue.len());
        assert_eq!(deadlines.next(), Some(start + Duration::from_millis(5)));
        assert_eq!(deadlines.pop(start), None);
        assert_eq!(
            deadlines.pop(start + Duration::from_millis(5)),
            Some(StreamId::from_u64(5))
        );
    }
}
