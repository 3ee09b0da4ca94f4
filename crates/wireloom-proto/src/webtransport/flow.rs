//! Session flow control (draft-ietf-webtrans-http3-16 section 5): how many streams may be opened and how many bytes sent in
//! one session. Pure numbers: who counts what, and which capsule follows, is the connection's.

use crate::stream_id::Dir;
use crate::varint;

/// The highest limit on streams that can be announced (section 5.6.2).
pub(crate) const MAX_STREAMS: u64 = 1 << 60;

/// What one endpoint lets its peer use in each session, ahead of the application.
///
/// Announced in SETTINGS, and raised by capsules as streams close and data is consumed. It counts only with peers that
/// announce limits too, in drafts 12 and later; browsers do not. A limit of 0 allows nothing, all three at 0 switch flow
/// control off, and with it several sessions on one connection in those drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowControl {
    /// Unidirectional streams of the peer that are open or not accepted yet. Default 1024, at most 2^60.
    pub streams_uni: u64,
    /// Bidirectional streams of the peer that are open or not accepted yet. Default 1024, at most 2^60.
    pub streams_bi: u64,
    /// Bytes that the peer may send on all streams of a session ahead of the application's reading. Default 8 MiB, at most
    /// 2^62 - 1. Sessions that share a connection begin with less and have less, so that one that is not read leaves room for
    /// the others ([`Config::shared_data`](crate::Config::shared_data)).
    pub data: u64,
}

impl FlowControl {
    /// Announces no limits: no session has any, and drafts 13 and later allow one session on a connection.
    pub const OFF: Self = Self {
        streams_uni: 0,
        streams_bi: 0,
        data: 0,
    };

    /// Whether any limit is announced, which says that this end wants flow control (section 5.1).
    pub const fn is_on(&self) -> bool {
        self.streams_uni > 0 || self.streams_bi > 0 || self.data > 0
    }

    /// The limit on streams of one direction.
    pub(crate) const fn streams(&self, dir: Dir) -> u64 {
        match dir {
            Dir::Bi => self.streams_bi,
            Dir::Uni => self.streams_uni,
        }
    }

    /// With each limit no higher than can be said.
    pub(crate) fn clamped(self) -> Self {
        Self {
            streams_uni: self.streams_uni.min(MAX_STREAMS),
            streams_bi: self.streams_bi.min(MAX_STREAMS),
            data: self.data.min(varint::MAX),
        }
    }
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            streams_uni: 1024,
            streams_bi: 1024,
            data: 8 << 20,
        }
    }
}

/// A limit that the peer sets and raises: what this end has used of it.
#[derive(Debug, Clone)]
pub(crate) struct SendLimit {
    max: u64,
    used: u64,
    /// This end wanted more than there was, since the last raise.
    wanted: bool,
    /// The peer was told so.
    told: bool,
}

/// The peer announced a limit that breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotRaised;

impl SendLimit {
    pub(crate) const fn new(max: u64) -> Self {
        Self {
            max,
            used: 0,
            wanted: false,
            told: false,
        }
    }

    pub(crate) const fn max(&self) -> u64 {
        self.max
    }

    pub(crate) const fn available(&self) -> u64 {
        self.max.saturating_sub(self.used)
    }

    /// The caller keeps `n` within [`SendLimit::available`].
    pub(crate) fn take(&mut self, n: u64) {
        debug_assert!(n <= self.available(), "{n} of {self:?}");
        self.used = self.used.saturating_add(n);
    }

    /// The peer's new limit. Answers whether somebody waits for it.
    ///
    /// `strictly`: the same limit again is against the rules too.
    pub(crate) fn raise(&mut self, max: u64, strictly: bool) -> Result<bool, NotRaised> {
        if max < self.max || (strictly && max == self.max) {
            return Err(NotRaised);
        }
        if max == self.max {
            return Ok(false);
        }
        self.max = max;
        self.told = false;
        Ok(std::mem::take(&mut self.wanted))
    }

    /// Something has to wait for a higher limit.
    pub(crate) const fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether the peer is to be told now: once for each limit, and only where somebody waits.
    pub(crate) const fn tell(&mut self) -> bool {
        let tell = self.wanted && !self.told;
        self.told |= tell;
        tell
    }
}

/// A limit that this end sets and raises: what the peer has used of it.
///
/// It is raised so that `window` lies ahead of what is released, in steps of a quarter of the window, or as soon as that at least
/// doubles what the peer has left: where everything is released at once these are steps of a quarter, and where much is held
/// back smaller ones, so that the rest of the window stays usable. What is held back without having been seen may be three
/// quarters before a peer runs dry that does not say so; one that says that it is blocked is told every raise.
#[derive(Debug, Clone)]
pub(crate) struct RecvLimit {
    window: u64,
    /// The highest limit that can be announced.
    ceiling: u64,
    max: u64,
    /// What was seen.
    used: u64,
    released: u64,
    /// What was released when the limit was raised last.
    released_before: u64,
    /// What the peer seems to have used without this end having seen it. It may have been under way only, so it counts against
    /// nobody: `used` and this are never more than `max`, and it gives way to what comes.
    written_off: u64,
    blocked: bool,
}

/// The peer used more than it was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded;

impl RecvLimit {
    pub(crate) const fn new(window: u64, ceiling: u64) -> Self {
        Self {
            window,
            ceiling,
            max: window,
            used: 0,
            released: 0,
            released_before: 0,
            written_off: 0,
            blocked: false,
        }
    }

    pub(crate) fn receive(&mut self, n: u64) -> Result<(), Exceeded> {
        match self.used.checked_add(n) {
            Some(used) if used <= self.max => {
                self.used = used;
                self.written_off = self.written_off.min(self.max - used);
                Ok(())
            }
            _ => Err(Exceeded),
        }
    }

    /// `n` of what was received is done with. The new limit, if one is to be announced.
    pub(crate) fn release(&mut self, n: u64) -> Option<u64> {
        self.released = self.released.saturating_add(n).min(self.used);
        self.announce()
    }

    /// `n` of what was received is done with. Whether a new limit is to be announced: see [`RecvLimit::shrink`].
    pub(crate) fn consume(&mut self, n: u64) -> bool {
        self.released = self.released.saturating_add(n).min(self.used);
        self.gain() > 0
    }

    /// The window is to be no larger than `most`: it shrinks as promises are used up. Whether a new limit is to be announced
    /// all the same, with [`RecvLimit::grow`].
    pub(crate) fn shrink(&mut self, most: u64) -> bool {
        self.window = self.window.min(most);
        self.gain() > 0
    }

    /// By how much the window may grow at once: to twice its size, and to `most`.
    pub(crate) fn growth(&self, most: u64) -> u64 {
        most.saturating_sub(self.window).min(self.window)
    }

    /// Makes the window larger by `more`, which may be 0. The new limit.
    pub(crate) fn grow(&mut self, more: u64) -> Option<u64> {
        self.window = self.window.saturating_add(more);
        self.announce()
    }

    /// How much the peer may have sent at most that is not released.
    pub(crate) fn promised(&self) -> u64 {
        self.window.max(self.max - self.released - self.written_off)
    }

    /// The peer says that it can go no further than `limit`, which may be out of date. The new limit, if there is one.
    pub(crate) fn peer_blocked(&mut self, limit: u64) -> Option<u64> {
        self.blocked = limit == self.max;
        self.announce()
    }

    /// Whether the peer said that it has used all, since the last raise.
    pub(crate) const fn is_peer_blocked(&self) -> bool {
        self.blocked
    }

    /// What the peer may have used without this end having seen it.
    pub(crate) const fn unseen(&self) -> u64 {
        self.max - self.used - self.written_off
    }

    /// Whether the peer is at the limit and what was released since does not raise it, because the window has become smaller than
    /// what was not seen.
    pub(crate) fn is_in_vain(&self) -> bool {
        self.blocked && self.released > self.released_before && self.gain() == 0
    }

    /// `n` of what the peer used will hardly be seen any more. The new limit.
    pub(crate) fn lose(&mut self, n: u64) -> Option<u64> {
        self.written_off += n.min(self.unseen());
        self.announce()
    }

    fn announce(&mut self) -> Option<u64> {
        let gain = self.gain();
        if gain == 0 {
            return None;
        }
        self.max += gain;
        self.released_before = self.released;
        self.blocked = false;
        Some(self.max)
    }

    /// By how much the limit is to be raised now.
    fn gain(&self) -> u64 {
        let target = (self.released + self.written_off)
            .saturating_add(self.window)
            .min(self.ceiling);
        let gain = target.saturating_sub(self.max);
        if gain < self.unseen().min(self.window / 4) && !self.blocked {
            0
        } else {
            gain
        }
    }
}

/// All limits of one session.
#[derive(Debug)]
pub(crate) struct SessionFlow {
    /// Streams that this end may open, by direction.
    pub(crate) streams_out: [SendLimit; 2],
    /// Bytes that this end may send.
    pub(crate) data_out: SendLimit,
    /// Streams that the peer may open, by direction. Released when they are over.
    pub(crate) streams_in: [RecvLimit; 2],
    /// Bytes that the peer may send. Released when the application has them.
    pub(crate) data_in: RecvLimit,
    /// Streams of the session ended with an unknown number of bytes unread since the last time that this was made good.
    pub(crate) lossy: bool,
    /// How many bytes that were not seen may be lost.
    pub(crate) doubtful: u64,
    /// How much was made good here of what no session is known to have lost.
    pub(crate) taken: Losses,
}

/// Streams of which not even the session is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// By direction.
    pub(crate) streams: [u64; 2],
    /// Those whose bytes count, in either direction.
    pub(crate) data: u64,
}

impl SessionFlow {
    /// Both ends' limits from SETTINGS, and what was lost before the session can have lost anything.
    pub(crate) fn new(own: FlowControl, peer: FlowControl, taken: Losses) -> Box<Self> {
        let directions = [Dir::Bi, Dir::Uni];
        Box::new(Self {
            streams_out: directions.map(|dir| SendLimit::new(peer.streams(dir))),
            data_out: SendLimit::new(peer.data),
            streams_in: directions.map(|dir| RecvLimit::new(own.streams(dir), MAX_STREAMS)),
            data_in: RecvLimit::new(own.data, varint::MAX),
            lossy: false,
            doubtful: 0,
            taken,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sender_keeps_to_the_limit_and_says_once_that_it_waits() {
        let mut limit = SendLimit::new(3);
        limit.take(3);
        assert_eq!(limit.available(), 0);
        assert!(!limit.tell(), "nobody waits");
        limit.want();
        assert!(limit.tell());
        limit.want();
        assert!(!limit.tell());
        assert_eq!(limit.raise(5, true), Ok(true));
        assert_eq!(limit.available(), 2);
        assert_eq!(limit.raise(6, true), Ok(false));
        limit.want();
        assert!(limit.tell(), "a new limit, a new word");
    }

    #[test]
    fn limits_that_do_not_rise() {
        let mut limit = SendLimit::new(3);
        assert_eq!(limit.raise(2, false), Err(NotRaised));
        assert_eq!(limit.raise(3, false), Ok(false));
        assert_eq!(limit.raise(3, true), Err(NotRaised));
        assert_eq!(limit.raise(varint::MAX, true), Ok(false));
        assert_eq!(limit.max(), varint::MAX);
    }

    /// "An endpoint MUST NOT wait for a WT_DATA_BLOCKED or WT_STREAMS_BLOCKED capsule before sending a WT_MAX_DATA or
    /// WT_MAX_STREAMS capsule" (draft 16 section 5.6).
    #[test]
    fn a_receiver_raises_in_quarter_windows() {
        let mut limit = RecvLimit::new(100, varint::MAX);
        // What the peer has sent besides may wait unread elsewhere, and it need not say that it is blocked.
        limit.receive(24).expect("within");
        assert_eq!(limit.release(24), None);
        limit.receive(1).expect("within");
        assert_eq!(limit.release(1), Some(125));
        limit.receive(100).expect("within");
        assert_eq!(limit.receive(1), Err(Exceeded));
        assert_eq!(limit.receive(u64::MAX), Err(Exceeded));
    }

    #[test]
    fn what_is_held_back_does_not_block_the_rest() {
        // Six of ten streams stay open; the other four come and go.
        let mut limit = RecvLimit::new(10, MAX_STREAMS);
        limit.receive(10).expect("within");
        let mut max = 10;
        for _ in 0..100 {
            let raised = limit.release(1).expect("the peer has none left");
            assert_eq!(raised, max + 1);
            max = raised;
            limit.receive(1).expect("within");
        }
    }

    #[test]
    fn a_blocked_peer_is_told_every_raise() {
        let mut limit = RecvLimit::new(100, varint::MAX);
        limit.receive(10).expect("within");
        assert_eq!(limit.release(10), None);
        // Out of date.
        assert_eq!(limit.peer_blocked(50), None);
        assert_eq!(limit.peer_blocked(100), Some(110));
        assert!(!limit.is_peer_blocked());
        assert_eq!(limit.peer_blocked(110), None);
        limit.receive(1).expect("within");
        assert_eq!(limit.release(1), Some(111));
    }

    /// What was thought lost may have been under way only: it is no crime when it comes after all.
    #[test]
    fn what_was_written_off_may_still_come() {
        let mut limit = RecvLimit::new(2, MAX_STREAMS);
        limit.receive(1).expect("within");
        assert_eq!(limit.peer_blocked(2), None);
        assert_eq!(limit.lose(1), Some(3));
        limit.receive(1).expect("within");
        assert_eq!(limit.promised(), 2);
        limit.receive(1).expect("within the limit that was announced");
        assert_eq!(limit.receive(1), Err(Exceeded));
        // Nothing was lost, and so the window is no larger than it was.
        assert_eq!((limit.promised(), limit.unseen()), (3, 0));
        assert_eq!(limit.release(3), Some(5));
        assert_eq!(limit.promised(), 2);
    }

    #[test]
    fn reading_is_in_vain_where_the_window_is_smaller_than_what_was_not_seen() {
        let mut limit = RecvLimit::new(1000, varint::MAX);
        assert_eq!(limit.peer_blocked(1000), None);
        assert_eq!(limit.lose(500), Some(1500));
        assert_eq!(limit.peer_blocked(1500), None);
        assert!(!limit.is_in_vain(), "nothing was read");
        limit.receive(500).expect("within");
        assert!(limit.consume(500) && !limit.shrink(300));
        assert!(limit.is_in_vain());
        assert_eq!(limit.lose(250), Some(1550));
        assert!(!limit.is_in_vain());
    }

    #[test]
    fn a_window_of_nothing_stays_shut() {
        let mut limit = RecvLimit::new(0, varint::MAX);
        assert_eq!(limit.receive(1), Err(Exceeded));
        assert_eq!(limit.peer_blocked(0), None);
        assert_eq!(limit.lose(1), None);
    }

    #[test]
    fn limits_end_at_the_highest_that_can_be_said() {
        let mut limit = RecvLimit::new(MAX_STREAMS, MAX_STREAMS);
        limit.receive(MAX_STREAMS).expect("within");
        assert_eq!(limit.release(MAX_STREAMS), None);
        assert_eq!(limit.receive(1), Err(Exceeded));
    }

    #[test]
    fn windows_grow_with_what_is_read_and_shrink_as_it_is_released() {
        let mut limit = RecvLimit::new(10, varint::MAX);
        limit.receive(10).expect("within");
        assert!(!limit.consume(0));
        assert!(limit.consume(6) && limit.shrink(40));
        assert_eq!(limit.growth(40), 10);
        assert_eq!(limit.grow(10), Some(26));
        assert_eq!(limit.promised(), 20);
        // Another session came: what was promised stands, and no more is until the window is down to its share.
        limit.receive(16).expect("within");
        assert!(limit.consume(10) && !limit.shrink(8));
        assert_eq!((limit.promised(), limit.growth(8)), (10, 0));
        assert!(limit.consume(4) && limit.shrink(8));
        assert_eq!(limit.grow(0), Some(28));
        assert_eq!(limit.promised(), 8);
    }

    proptest! {
        /// Whatever is sent, held back, lost, and written off though it was not lost: never above the limit, limits only rise,
        /// and a sender that is at its end goes on once everything is released.
        #[test]
        fn no_excess_and_no_deadlock(
            window in 1..40u64,
            ops in proptest::collection::vec((0..6u8, 1..50u64), 0..200),
        ) {
            let (mut recv, mut send) = (RecvLimit::new(window, varint::MAX), SendLimit::new(window));
            let (mut held, mut flying) = (0, 0);
            let mut sent = 0;
            for (op, n) in ops {
                let mut raised = None;
                match op {
                    0 | 1 => {
                        let n = n.min(send.available());
                        send.take(n);
                        sent += n;
                        flying += n;
                    }
                    2 => {
                        let n = n.min(flying);
                        recv.receive(n).expect("an honest sender");
                        flying -= n;
                        held += n;
                    }
                    3 => {
                        let n = n.min(held);
                        held -= n;
                        raised = recv.release(n);
                    }
                    4 => {
                        let n = n.min(flying);
                        flying -= n;
                        raised = recv.lose(n);
                    }
                    _ => raised = recv.lose(n),
                }
                prop_assert!(recv.promised() <= recv.max && recv.unseen() <= recv.max);
                if let Some(max) = raised {
                    prop_assert!(send.raise(max, true).is_ok());
                }
                prop_assert!(sent <= send.max());
            }
            recv.receive(flying).expect("an honest sender");
            if let Some(max) = recv.release(held + flying) {
                send.raise(max, true).expect("higher");
            }
            prop_assert!(send.available() > 0);
        }
    }
}
