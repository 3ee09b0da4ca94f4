//! What a server under test saw, told to the test that waits for it.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a test waits for anything that must happen: far more than any healthy run takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// One thing that a session's handler saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session was accepted.
    Accepted,
    /// The peer closed the session with this code and reason.
    Closed(u32, String),
    /// The session ended in another way.
    Lost(String),
    /// A stream that the peer opened ended with FIN; its whole content.
    Finished(String),
    /// The peer reset its half of a stream, with the session's error code if it was one.
    Reset(Option<u32>),
    /// The peer stopped our half of a stream, with the session's error code if it was one.
    Stopped(Option<u32>),
}

#[derive(Default)]
struct State {
    events: HashMap<String, Vec<Event>>,
    live: HashMap<String, usize>,
}

/// Events by the `id` in a session's path, and how many handlers are alive for it.
#[derive(Default)]
pub struct Journal {
    state: Mutex<State>,
    changed: Condvar,
}

impl Journal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes an event of the session (or sessions) `id`.
    pub fn note(&self, id: &str, event: Event) {
        self.state().events.entry(id.to_owned()).or_default().push(event);
        self.changed.notify_all();
    }

    /// Counts one live session or stream of `id` until the guard is dropped.
    pub fn alive<'a>(&'a self, id: &'a str) -> Alive<'a> {
        *self.state().live.entry(id.to_owned()).or_default() += 1;
        Alive { journal: self, id }
    }

    /// Waits until `event` was noted for `id`; `Err` tells what was noted instead.
    pub fn wait(&self, id: &str, event: &Event) -> Result<(), String> {
        self.wait_until(
            |state| state.events.get(id).is_some_and(|events| events.contains(event)),
            |state| format!("waited for {event:?}; seen: {:?}", state.events.get(id)),
        )
    }

    /// Waits until nothing of `id` is alive.
    pub fn wait_idle(&self, id: &str) -> Result<(), String> {
        let live = |state: &State| state.live.get(id).copied().unwrap_or(0);
        self.wait_until(
            |state| live(state) == 0,
            |state| format!("{} sessions and streams are left", live(state)),
        )
    }

    /// Waits until nothing at all is alive.
    pub fn wait_all_idle(&self) -> Result<(), String> {
        let live = |state: &State| state.live.values().sum::<usize>();
        self.wait_until(
            |state| live(state) == 0,
            |state| format!("sessions and streams are left: {:?}", state.live),
        )
    }

    /// How often `event` was noted for `id`.
    pub fn count(&self, id: &str, event: &Event) -> usize {
        self.state()
            .events
            .get(id)
            .map_or(0, |events| events.iter().filter(|seen| *seen == event).count())
    }

    fn wait_until(&self, done: impl Fn(&State) -> bool, failed: impl Fn(&State) -> String) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(&state));
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
        Ok(())
    }
}

/// One live session or stream; see [`Journal::alive`].
pub struct Alive<'a> {
    journal: &'a Journal,
    id: &'a str,
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if let Some(live) = self.journal.state().live.get_mut(self.id) {
            *live -= 1;
        }
        self.journal.changed.notify_all();
    }
}
