//! How long to wait before the next attempt.

use std::time::Duration;

/// The pause before each attempt to reconnect: it doubles from `first` to `max`, and each is between half of that and all of it,
/// so that the clients of a server that restarts do not all come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// Before the first attempt after a loss. Default 100 ms.
    pub first: Duration,
    /// The longest. Default 30 s.
    pub max: Duration,
    /// A connection that lived so long starts it anew. Default 5 s.
    pub stable: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
            stable: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// Pauses from `first` to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            ..Self::default()
        }
    }

    /// After `failures` attempts that failed. `random` is anything, evenly distributed.
    pub fn pause(&self, failures: u32, random: u32) -> Duration {
        let whole = self.first.saturating_mul(1 << failures.min(20)).min(self.max);
        let half = whole / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// Where the operating system has no randomness, all pauses are whole.
pub(super) fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_spread() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        let whole: Vec<u128> = (0..8).map(|n| backoff.pause(n, u32::MAX).as_millis()).collect();
        assert_eq!(whole, [100, 200, 400, 800, 1600, 3000, 3000, 3000]);
        let least: Vec<u128> = (0..8).map(|n| backoff.pause(n, 0).as_millis()).collect();
        assert_eq!(least, [50, 100, 200, 400, 800, 1500, 1500, 1500]);
        assert_eq!(backoff.pause(u32::MAX, u32::MAX), Duration::from_secs(3));
        let between = backoff.pause(0, u32::MAX / 2).as_millis();
        assert!((74..=76).contains(&between), "{between}");
        assert_eq!(Backoff::new(Duration::ZERO, Duration::ZERO).pause(3, 7), Duration::ZERO);
    }
}
