//! One deadline per connection, in a heap with lazy deletion.
//!
//! A connection's deadline moves with nearly every packet, mostly to later. An entry is pushed only when the new deadline
//! is earlier than the one that is registered; one that has become too early is pushed again when it fires. So a busy
//! connection costs no heap operation per packet, and an idle one costs one entry.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// By connection: the earliest entry in the heap.
    registered: Vec<Option<Instant>>,
}

impl Timers {
    pub(super) fn set(&mut self, key: usize, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if self.registered.len() <= key {
            self.registered.resize(key + 1, None);
        }
        if self.registered[key].is_none_or(|at| deadline < at) {
            self.registered[key] = Some(deadline);
            self.heap.push(Reverse((deadline, key)));
        }
    }

    /// When `pop` next has something.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// A connection whose registered deadline has passed. Its real deadline may be later: the caller looks and calls `set`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<usize> {
        loop {
            let &Reverse((at, key)) = self.heap.peek()?;
            if at > now {
                return None;
            }
            self.heap.pop();
            if self.registered[key] == Some(at) {
                self.registered[key] = None;
                return Some(key);
            }
            // An entry that a later, earlier one has replaced: that one has fired or is still to come.
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn later_deadlines_cost_no_entry_and_earlier_ones_win() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(3, Some(at(10)));
        timers.set(3, Some(at(20)));
        assert_eq!(timers.heap.len(), 1);
        timers.set(3, Some(at(5)));
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!(timers.pop(at(4)), None);
        assert_eq!(timers.pop(at(5)), Some(3));
        timers.set(3, Some(at(20)));
        // The stale entry at 10 is skipped.
        assert_eq!(timers.pop(at(15)), None);
        assert_eq!(timers.pop(at(20)), Some(3));
        assert_eq!(timers.next(), None);
    }
}
