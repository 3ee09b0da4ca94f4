//! What has been received and waits for its sender's turn, as a pure data structure.
//!
//! The kernel keeps one queue for everybody: behind a flood from one peer all others would wait. So the socket is emptied first,
//! which is cheap, and the senders then take turns, as many bytes each. They are told apart by a hash of their address, so
//! that nothing has to be kept for each; two may share a place. What one has waiting is bounded by what is free: it may
//! fill half of [`CAPACITY`] alone, two a third each, and there is always some room for the next one. What finds no room is
//! lost, as it would be in the kernel.

use std::collections::VecDeque;

/// Places, a power of two.
const PLACES: usize = 64;
/// Bytes of one turn, or one message if that is larger.
const QUANTUM: usize = 16 * 1024;
/// Of all senders, in bytes; each message counts [`OVERHEAD`] more than its length.
const CAPACITY: usize = 8 << 20;
/// About what a message that waits costs beside its bytes.
const OVERHEAD: usize = 128;

pub(super) struct Inbox<T> {
    places: Box<[Place<T>]>,
    /// Those that are not empty, in the order of their turn.
    turns: VecDeque<usize>,
    bytes: usize,
}

struct Place<T> {
    messages: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        let place = || Place {
            messages: VecDeque::new(),
            bytes: 0,
        };
        Self {
            places: std::iter::repeat_with(place).take(PLACES).collect(),
            turns: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Whether there is room for a message of `len` bytes from the sender with this hash.
    pub(super) fn has_room(&self, hash: u64, len: usize) -> bool {
        let place = &self.places[place(hash)];
        place.bytes + len + OVERHEAD <= CAPACITY.saturating_sub(self.bytes)
    }

    /// A message of `len` bytes, for which there is room.
    pub(super) fn push(&mut self, hash: u64, message: T, len: usize) {
        let key = place(hash);
        let place = &mut self.places[key];
        if place.messages.is_empty() {
            self.turns.push_back(key);
        }
        let size = len + OVERHEAD;
        place.messages.push_back((message, size));
        place.bytes += size;
        self.bytes += size;
    }

    /// How many places have something.
    pub(super) fn waiting(&self) -> usize {
        self.turns.len()
    }

    /// The messages of the next turn.
    pub(super) fn take_turn(&mut self, mut sink: impl FnMut(T)) {
        let Some(key) = self.turns.pop_front() else { return };
        let place = &mut self.places[key];
        let mut taken = 0;
        while taken < QUANTUM
            && let Some((message, size)) = place.messages.pop_front()
        {
            taken += size;
            sink(message);
        }
        place.bytes -= taken;
        self.bytes -= taken;
        if place.messages.is_empty() {
            // A burst must not be paid for ever.
            place.messages.shrink_to(16);
        } else {
            self.turns.push_back(key);
        }
    }
}

fn place(hash: u64) -> usize {
    // The upper bits, which a multiplicative hash mixes best.
    (hash >> (64 - PLACES.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(place: u64) -> u64 {
        place << (64 - PLACES.trailing_zeros())
    }

    fn turn(inbox: &mut Inbox<u32>) -> Vec<u32> {
        let mut taken = Vec::new();
        inbox.take_turn(|message| taken.push(message));
        taken
    }

    #[test]
    fn a_flood_does_not_delay_another_sender() {
        let mut inbox = Inbox::new();
        for message in 0..1000 {
            inbox.push(hash(3), message, 8000);
        }
        inbox.push(hash(7), 5000, 60);
        assert_eq!(inbox.waiting(), 2);
        assert_eq!(turn(&mut inbox), [0, 1, 2]);
        assert_eq!(turn(&mut inbox), [5000]);
        assert_eq!(turn(&mut inbox), [3, 4, 5]);
        assert_eq!(inbox.waiting(), 1);
    }

    #[test]
    fn one_may_fill_half_and_the_next_finds_room() {
        let mut inbox = Inbox::new();
        let mut fill = |place| {
            let mut n = 0;
            while inbox.has_room(hash(place), 1200) {
                inbox.push(hash(place), 0, 1200);
                n += 1;
            }
            n
        };
        let first = fill(0);
        assert_eq!(first, CAPACITY / 2 / (1200 + OVERHEAD));
        let second = fill(1);
        assert!(second >= first / 2 - 1, "{second} of {first}");
        assert!(fill(2) > 0);
    }

    #[test]
    fn everything_comes_once_and_nothing_is_left() {
        let mut inbox = Inbox::new();
        for message in 0..500 {
            inbox.push(hash(u64::from(message % 5)), message, 100_000);
        }
        let mut all = Vec::new();
        while inbox.waiting() > 0 {
            let taken = turn(&mut inbox);
            assert_eq!(taken.len(), 1, "a message larger than a turn is a turn");
            all.extend(taken);
        }
        assert!(all.iter().copied().eq(0..500), "by turns, as they came");
        assert_eq!(inbox.bytes, 0);
        assert!(turn(&mut inbox).is_empty());
    }
}
