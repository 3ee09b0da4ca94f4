//! How many streams a peer may have open at once: few to begin with, more where they are used.
//!
//! A hundred stream slots cost little on an idle connection, a thousand cost 160 KiB. So the limit follows the peer: it
//! grows when the peer holds half of its streams open, and when it uses them up about as fast as credit can come back,
//! which is what a peer with many short streams does.

use std::time::{Duration, Instant};

/// The shortest time over which the rate is looked at.
const MIN_WINDOW: Duration = Duration::from_millis(1);

pub(super) struct StreamLimit {
    current: u32,
    max: u32,
    window_start: Instant,
    opened: u32,
}

impl StreamLimit {
    pub(super) fn new(initial: u32, max: u32, now: Instant) -> Self {
        Self {
            current: initial.min(max),
            max,
            window_start: now,
            opened: 0,
        }
    }

    /// The peer opened `opened` streams just now and has `open` of them open. The new limit, if it changes.
    pub(super) fn on_opened(&mut self, now: Instant, rtt: Duration, opened: u32, open: u64) -> Option<u32> {
        if self.current >= self.max {
            return None;
        }
        if now.duration_since(self.window_start) > MIN_WINDOW.max(rtt * 4) {
            self.window_start = now;
            self.opened = 0;
        }
        self.opened = self.opened.saturating_add(opened);
        if self.opened < self.current && open * 2 <= u64::from(self.current) {
            return None;
        }
        self.current = self.current.saturating_mul(4).min(self.max);
        self.opened = 0;
        Some(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    #[test]
    fn many_open_streams_raise_the_limit_up_to_the_maximum() {
        let now = Instant::now();
        let mut limit = StreamLimit::new(100, 1000, now);
        assert_eq!(limit.on_opened(now, RTT, 50, 50), None);
        assert_eq!(limit.on_opened(now, RTT, 1, 51), Some(400));
        assert_eq!(limit.on_opened(now, RTT, 300, 300), Some(1000));
        assert_eq!(limit.on_opened(now, RTT, 1000, 1000), None);
    }

    #[test]
    fn short_streams_raise_it_by_their_rate_and_slow_ones_do_not() {
        let start = Instant::now();
        let mut limit = StreamLimit::new(100, 1000, start);
        for i in 0..200 {
            assert_eq!(limit.on_opened(start + RTT * i, RTT, 10, 1), None);
        }
        let burst = start + RTT * 300;
        assert_eq!(limit.on_opened(burst, RTT, 60, 1), None);
        assert_eq!(limit.on_opened(burst + RTT, RTT, 60, 1), Some(400));
    }
}
