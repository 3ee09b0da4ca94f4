//! What all connections count together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Error;

/// One thread's counts. Nothing is counted before [`begin`](Self::begin).
pub(super) struct Meter {
    measuring: Cell<bool>,
    replies: Cell<u64>,
    errors: Cell<u64>,
    /// In nanoseconds, up to a minute, to three digits.
    latency: RefCell<Histogram<u64>>,
    failure: RefCell<Option<Error>>,
}

impl Meter {
    pub(super) fn new() -> Result<Rc<Self>, Error> {
        Ok(Rc::new(Self {
            measuring: Cell::new(false),
            replies: Cell::new(0),
            errors: Cell::new(0),
            latency: RefCell::new(Histogram::new_with_bounds(1, 60_000_000_000, 3)?),
            failure: RefCell::new(None),
        }))
    }

    pub(super) fn begin(&self) {
        self.measuring.set(true);
    }

    pub(super) fn end(&self) {
        self.measuring.set(false);
    }

    /// A reply to a request that was, or should have been, sent at `started`.
    pub(super) fn reply(&self, started: Instant, now: Instant, is_error: bool) {
        if !self.measuring.get() {
            return;
        }
        if is_error {
            self.errors.set(self.errors.get() + 1);
            return;
        }
        self.replies.set(self.replies.get() + 1);
        let nanos = u64::try_from(now.saturating_duration_since(started).as_nanos()).unwrap_or(u64::MAX);
        self.latency.borrow_mut().saturating_record(nanos);
    }

    /// The first failure is the cause of the others.
    pub(super) fn fail(&self, error: Error) {
        self.failure.borrow_mut().get_or_insert(error);
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.borrow_mut().take()
    }

    pub(super) fn replies(&self) -> u64 {
        self.replies.get()
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.get()
    }

    /// In microseconds.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        self.latency.borrow().value_at_quantile(quantile) as f64 / 1000.0
    }

    /// In microseconds.
    pub(super) fn max(&self) -> f64 {
        self.latency.borrow().max() as f64 / 1000.0
    }
}

/// When a connection sends: as soon as a reply makes room, or at fixed moments.
#[derive(Clone, Copy)]
pub(super) struct Schedule {
    pub(super) next: Instant,
    /// `None`: as soon as there is room.
    pub(super) interval: Option<Duration>,
}

impl Schedule {
    /// The moment that a request counts from, if one is due. One that is late counts from when it was due: a slow server
    /// does not make its own figures better.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        match self.interval {
            None => Some(now),
            Some(interval) if self.next <= now => {
                let due = self.next;
                self.next += interval;
                Some(due)
            }
            Some(_) => None,
        }
    }
}
