//! hyper's deadline for the header of each request of an HTTP/1.1 connection.
//!
//! hyper makes a timer for every request and drops it as soon as the header is there. These are a number in a cell; one timer of
//! Tokio's for each connection looks at it now and then.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// The timer of one connection, which has one deadline at a time.
#[derive(Clone, Default)]
pub(super) struct HeaderTimer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    deadline: Option<Instant>,
    is_due: bool,
}

impl HeaderTimer {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, deadline: Instant) {
        *self.state() = State {
            deadline: Some(deadline),
            is_due: false,
        };
    }

    /// Completes when a deadline has passed: the connection is then to be polled again, and after that this. No deadline is nearer
    /// than `limit` when it is set.
    pub(super) async fn due(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let next = {
                let mut state = self.state();
                match state.deadline {
                    Some(deadline) if deadline <= now && !state.is_due => {
                        state.is_due = true;
                        return;
                    }
                    Some(deadline) if !state.is_due => deadline,
                    // hyper waits for none, or knows that it has passed.
                    _ => now + limit,
                }
            };
            tokio::time::sleep_until(next.into()).await;
        }
    }
}

impl Timer for HeaderTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.set(deadline);
        Box::pin(Deadline(self.clone()))
    }

    /// Not by another sleep: dropping the one before would end its deadline.
    fn reset(&self, _: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        self.set(deadline);
    }
}

/// The deadline as long as hyper waits for it.
struct Deadline(HeaderTimer);

impl Future for Deadline {
    type Output = ();

    /// Wakes nobody: [`HeaderTimer::due`] does.
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.state().is_due {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Sleep for Deadline {}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.0.state().deadline = None;
    }
}
