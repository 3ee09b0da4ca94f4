//! Clients that send heartbeats without end: some in browsers send one a millisecond (section 7.5). They may, and must not
//! cost a wake-up each.

use std::time::{Duration, Instant};

/// So many heartbeats in a row, within [`WINDOW`], are a flood.
const MANY: u32 = 32;
const WINDOW: Duration = Duration::from_millis(100);

/// How long a flooded connection is not read from. So much later a message behind the flood is seen.
const PAUSE: Duration = Duration::from_millis(10);

/// Counts heartbeats that nothing else interrupts.
#[derive(Debug, Default)]
pub(super) struct Flood {
    count: u32,
    since: Option<Instant>,
    until: Option<Instant>,
}

impl Flood {
    pub(super) fn heartbeat(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) > WINDOW {
            (self.count, self.since) = (0, Some(now));
        }
        self.count += 1;
        if self.count >= MANY && self.until.is_none() {
            self.until = Some(now + PAUSE);
        }
    }

    /// Another message ends the flood.
    pub(super) fn other(&mut self) {
        *self = Self::default();
    }

    /// Until when not to read.
    pub(super) fn paused(&mut self, now: Instant) -> Option<Instant> {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_read_every_ten_milliseconds() {
        let t0 = Instant::now();
        let millis = |n| t0 + Duration::from_millis(n);
        let mut flood = Flood::default();
        (0..31).for_each(|n| flood.heartbeat(millis(n)));
        assert_eq!(flood.paused(millis(30)), None);
        flood.heartbeat(millis(31));
        assert_eq!(flood.paused(millis(31)), Some(millis(41)));
        assert_eq!(flood.paused(millis(41)), None);
        flood.heartbeat(millis(42));
        assert_eq!(flood.paused(millis(42)), Some(millis(52)));
        flood.other();
        assert_eq!(flood.paused(millis(42)), None);
    }

    #[test]
    fn what_browsers_send_is_no_flood() {
        let t0 = Instant::now();
        let mut flood = Flood::default();
        for n in 0..1000 {
            let now = t0 + Duration::from_millis(4 * n);
            flood.heartbeat(now);
            assert_eq!(flood.paused(now), None);
        }
    }
}
