//! What has been received and waits for its sender's turn, as a pure data structure.
//!
//! The kernel keeps one queue for everybody: behind a flood from one peer all others would wait. So the socket is emptied first,
//! which is cheap, and the senders then take turns, as many bytes each. They are told apart by a hash of their address, so
//! that nothing has to be kept for each; two may share a place. What one has waiting is bounded by what is free: it may
//! fill half of [`CAPACITY`] alone, two a third each, and there is always some room for the next one. What finds no room is
//! lost, as it would be in the kernel.
//!
//! Who has just become busy goes first, once (as in RFC 8290's FQ-CoDel): a sender of little hardly waits for the others.
//! A byte may be cheap (of a long stream) or dear (of a handshake, of a hundred tiny streams in one packet). A sender whose turn
//! took long gets fewer bytes for the next one, down to a single datagram, and more again when they are cheap.

use std::collections::VecDeque;
use std::time::Duration;

/// Places, a power of two.
const PLACES: usize = 64;
/// Bytes of one turn, or one message if that is larger.
const QUANTUM: usize = 16 * 1024;
/// A turn is meant to be over after this.
const LONG_TURN: Duration = Duration::from_micros(100);
/// Of all senders, in bytes; each message counts [`OVERHEAD`] more than its length.
const CAPACITY: usize = 8 << 20;
/// About what a message that waits costs beside its bytes.
const OVERHEAD: usize = 128;

/// A message as the socket gives it: one datagram, or several.
pub(super) trait Message {
    fn len(&self) -> usize;
    /// Takes the first datagrams off, as many as `len` bytes hold, but one at least.
    fn take(&mut self, len: usize) -> Self;
}

pub(super) struct Inbox<T> {
    places: Box<[Place<T>]>,
    /// Those that have become busy, before all others.
    new: VecDeque<usize>,
    /// Those that have had a turn, in the order of their next one. One that then had nothing left is here too until that turn,
    /// or it would be new again with every message.
    old: VecDeque<usize>,
    /// How many places are not empty.
    waiting: usize,
    bytes: usize,
}

struct Place<T> {
    messages: VecDeque<T>,
    bytes: usize,
    /// In `new` or `old`.
    is_queued: bool,
    /// Bytes of its next turn. Below [`QUANTUM`], messages are split.
    allowance: usize,
}

impl<T: Message> Inbox<T> {
    pub(super) fn new() -> Self {
        let place = || Place {
            messages: VecDeque::new(),
            bytes: 0,
            is_queued: false,
            allowance: QUANTUM,
        };
        Self {
            places: std::iter::repeat_with(place).take(PLACES).collect(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            waiting: 0,
            bytes: 0,
        }
    }

    /// Whether there is room for a message of `len` bytes from the sender with this hash.
    pub(super) fn has_room(&self, hash: u64, len: usize) -> bool {
        let place = &self.places[place(hash)];
        place.bytes + len + OVERHEAD <= CAPACITY.saturating_sub(self.bytes)
    }

    /// A message for which there is room.
    pub(super) fn push(&mut self, hash: u64, message: T) {
        let key = place(hash);
        let place = &mut self.places[key];
        self.waiting += usize::from(place.messages.is_empty());
        if !std::mem::replace(&mut place.is_queued, true) {
            self.new.push_back(key);
        }
        let size = message.len() + OVERHEAD;
        place.messages.push_back(message);
        place.bytes += size;
        self.bytes += size;
    }

    /// How many places have something.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The messages of the next turn; `None` if there are none. [`Self::took`] is to be told how long they kept the endpoint.
    pub(super) fn take_turn(&mut self, mut sink: impl FnMut(T)) -> Option<Turn> {
        let key = loop {
            let key = self.new.pop_front().or_else(|| self.old.pop_front())?;
            let place = &mut self.places[key];
            if !place.messages.is_empty() {
                break key;
            }
            place.is_queued = false;
        };
        let place = &mut self.places[key];
        let mut taken = 0;
        while taken < place.allowance
            && let Some(message) = place.messages.front_mut()
        {
            let whole = place.allowance >= QUANTUM;
            let part = message.take(if whole { usize::MAX } else { place.allowance - taken });
            taken += part.len();
            if message.len() == 0 {
                place.messages.pop_front();
                taken += OVERHEAD;
            }
            sink(part);
        }
        place.bytes -= taken;
        self.bytes -= taken;
        self.old.push_back(key);
        if place.messages.is_empty() {
            self.waiting -= 1;
            // A burst must not be paid for ever.
            place.messages.shrink_to(16);
        }
        Some(Turn { key, taken })
    }

    /// How long a turn took.
    pub(super) fn took(&mut self, turn: &Turn, time: Duration) {
        let allowance = &mut self.places[turn.key].allowance;
        if time > LONG_TURN {
            *allowance = (turn.taken.min(*allowance) / 2).max(1);
        } else if turn.taken >= *allowance {
            // Slowly: between dear packets there are always cheap ones.
            *allowance = (*allowance + *allowance / 8 + OVERHEAD).min(QUANTUM);
        }
    }
}

/// A turn that was taken.
pub(super) struct Turn {
    key: usize,
    taken: usize,
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

    /// A message of some datagrams of [`DATAGRAM`] bytes, numbered from `first`.
    struct Datagrams {
        first: usize,
        count: usize,
    }

    const DATAGRAM: usize = 1000;

    impl Message for Datagrams {
        fn len(&self) -> usize {
            self.count * DATAGRAM
        }

        fn take(&mut self, len: usize) -> Self {
            let count = (len / DATAGRAM).clamp(1, self.count);
            let part = Self { count, ..*self };
            self.first += count;
            self.count -= count;
            part
        }
    }

    /// The numbers of a turn's datagrams.
    fn turn(inbox: &mut Inbox<Datagrams>, time: Duration) -> Vec<usize> {
        let mut taken = Vec::new();
        if let Some(turn) = inbox.take_turn(|m| taken.extend(m.first..m.first + m.count)) {
            inbox.took(&turn, time);
        }
        taken
    }

    #[test]
    fn a_flood_does_not_delay_another_sender() {
        let mut inbox = Inbox::new();
        for first in (0..8000).step_by(8) {
            inbox.push(hash(3), Datagrams { first, count: 8 });
        }
        let other = Datagrams { first: 9999, count: 1 };
        inbox.push(hash(7), other);
        assert_eq!(inbox.waiting(), 2);
        assert_eq!(turn(&mut inbox, LONG_TURN), Vec::from_iter(0..24));
        assert_eq!(turn(&mut inbox, LONG_TURN), [9999]);
        assert_eq!(turn(&mut inbox, LONG_TURN), Vec::from_iter(24..48));
        assert_eq!(inbox.waiting(), 1);
    }

    #[test]
    fn who_has_become_busy_goes_first_but_once() {
        let mut inbox = Inbox::new();
        let one = |first| Datagrams { first, count: 1 };
        for flood in [1, 2] {
            for first in (0..8000).step_by(8) {
                inbox.push(hash(flood), Datagrams { first, count: 8 });
            }
            turn(&mut inbox, LONG_TURN);
        }
        inbox.push(hash(7), one(9999));
        assert_eq!(turn(&mut inbox, LONG_TURN), [9999], "before the two");
        inbox.push(hash(7), one(9999));
        assert_eq!(turn(&mut inbox, LONG_TURN)[0], 24);
        assert_eq!(turn(&mut inbox, LONG_TURN)[0], 24);
        assert_eq!(turn(&mut inbox, LONG_TURN), [9999], "and now in turn");
        for _ in 0..3 {
            assert_eq!(turn(&mut inbox, LONG_TURN).len(), 24, "its turn had nothing");
        }
        inbox.push(hash(7), one(9999));
        assert_eq!(turn(&mut inbox, LONG_TURN), [9999], "new again");
    }

    #[test]
    fn who_takes_long_gets_less() {
        let mut inbox = Inbox::new();
        for first in (0..2000).step_by(50) {
            inbox.push(hash(3), Datagrams { first, count: 50 });
        }
        let mut lengths = Vec::new();
        let mut all = Vec::new();
        for i in 0..60 {
            let taken = turn(&mut inbox, if i < 20 { LONG_TURN * 2 } else { Duration::ZERO });
            lengths.push(taken.len());
            all.extend(taken);
        }
        assert_eq!(lengths[..6], [50, 9, 5, 3, 2, 1], "split");
        assert!(lengths[6..20].iter().all(|n| *n == 1), "{lengths:?}");
        assert!(lengths.last() >= Some(&16), "as much as at first: {lengths:?}");
        while inbox.waiting() > 0 {
            all.extend(turn(&mut inbox, LONG_TURN));
        }
        assert!(all.iter().copied().eq(0..2000), "in order, and nothing lost");
        assert_eq!(inbox.bytes, 0);
    }

    #[test]
    fn one_may_fill_half_and_the_next_finds_room() {
        let mut inbox = Inbox::new();
        let mut fill = |place| {
            let mut n = 0;
            while inbox.has_room(hash(place), DATAGRAM) {
                inbox.push(hash(place), Datagrams { first: 0, count: 1 });
                n += 1;
            }
            n
        };
        let first = fill(0);
        assert_eq!(first, CAPACITY / 2 / (DATAGRAM + OVERHEAD));
        let second = fill(1);
        assert!(second >= first / 2 - 1, "{second} of {first}");
        assert!(fill(2) > 0);
    }

    #[test]
    fn everything_comes_once_and_nothing_is_left() {
        let mut inbox = Inbox::new();
        for i in 0..500 {
            let message = Datagrams { first: i, count: 1 };
            inbox.push(hash(i as u64 % 5), message);
        }
        let mut all = Vec::new();
        while inbox.waiting() > 0 {
            all.extend(turn(&mut inbox, LONG_TURN));
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..500));
        assert_eq!(inbox.bytes, 0);
        assert!(turn(&mut inbox, LONG_TURN).is_empty());
    }
}
