//! One deadline per connection, in a heap with lazy deletion.
//!
//! A connection's deadline moves with nearly every packet, mostly to later. An entry is pushed only when the new deadline
//! is earlier than the one that is registered; one that has become too early is pushed again when it fires. So a busy
//! connection costs no heap operation per packet, and an idle one costs one entry.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Entries that may be out of date beside one for each connection.
const SPARE: usize = 64;

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
            self.sweep();
        }
    }

    /// Removes what has been replaced once that is the most of it: where short deadlines fire again and again, the long ones that
    /// they replace would stay until their time.
    fn sweep(&mut self) {
        if self.heap.len() > 2 * self.registered.len() + SPARE {
            let registered = &self.registered;
            self.heap.retain(|&Reverse((at, key))| registered[key] == Some(at));
            self.heap.shrink_to(2 * self.registered.len() + SPARE);
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
    fn replaced_deadlines_do_not_pile_up() {
        let t0 = Instant::now();
        let mut timers = Timers::default();
        for cycle in 0..10_000 {
            let now = t0 + Duration::from_millis(30 * cycle);
            timers.set(0, Some(now + Duration::from_secs(600)));
            timers.set(0, Some(now + Duration::from_millis(25)));
            assert!(timers.heap.len() <= 2 + SPARE);
            assert_eq!(timers.pop(now + Duration::from_millis(25)), Some(0));
        }
        assert!(timers.heap.capacity() <= 4 * SPARE);
    }

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
