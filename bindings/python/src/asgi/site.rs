//! The application and everything that its calls share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::StatusCode;
use http::request::Parts;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use super::access::{AccessLog, Entry};
use super::metrics::Board;
use super::scope::{Ends, Templates};
use super::settings::Settings;
use super::tasks::Spawner;
use crate::awaitable::Done;
use crate::hub::Hub;

/// What is served.
pub(crate) struct Site {
    pub(crate) hub: Arc<Hub>,
    pub(crate) settings: Settings,
    pub(crate) app: Py<PyAny>,
    pub(crate) templates: Templates,
    pub(crate) spawner: Spawner,
    pub(crate) done: Py<Done>,
    /// `report(message, exception)`: the log.
    pub(crate) report: Py<PyAny>,
    pub(crate) access: Option<AccessLog>,
    pub(crate) counts: Counts,
    /// Where there are several workers.
    pub(crate) board: Option<Board>,
    guests: Mutex<Guests>,
    /// Tasks that wait: asyncio itself keeps them only weakly.
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    tasks: FxHashMap<u64, Py<PyAny>>,
}

/// What stays longer than a request, and has to hear when the server shuts down.
pub(crate) trait Guest: Send + Sync {
    fn drain(&self);
}

#[derive(Default)]
struct Guests {
    list: Vec<Weak<dyn Guest>>,
    /// The server is shutting down.
    are_leaving: bool,
}

/// Counters, for limits and metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) active: AtomicUsize,
    pub(crate) requests: AtomicU64,
    pub(crate) websockets: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Responses by the first digit of their status.
    pub(crate) statuses: [AtomicU64; 6],
    pub(crate) body_bytes_sent: AtomicU64,
    /// The limit of requests is reached.
    pub(crate) is_exhausted: AtomicBool,
}

impl Site {
    pub(crate) fn new(
        py: Python<'_>,
        hub: Arc<Hub>,
        app: Py<PyAny>,
        report: Py<PyAny>,
        settings: Settings,
        templates: Templates,
        access: Option<AccessLog>,
    ) -> PyResult<Self> {
        let spawner = Spawner::new(py, hub.event_loop(py))?;
        Ok(Self {
            hub,
            settings,
            app,
            templates,
            spawner,
            done: Py::new(py, Done::default())?,
            report,
            access,
            counts: Counts::default(),
            board: None,
            guests: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, task: Py<PyAny>) -> u64 {
        let mut tasks = self.tasks();
        let key = tasks.next;
        tasks.next += 1;
        tasks.tasks.insert(key, task);
        key
    }

    #[must_use = "it is dropped after the lock is released"]
    pub(crate) fn release(&self, key: u64) -> Option<Py<PyAny>> {
        self.tasks().tasks.remove(&key)
    }

    /// The tasks that run, for the end of the server.
    pub(crate) fn running(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.tasks().tasks.values().map(|task| task.clone_ref(py)).collect()
    }

    pub(crate) fn running_count(&self) -> usize {
        self.tasks().tasks.len()
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a session or a WebSocket, for the end of the server.
    pub(crate) fn enter<G: Guest + 'static>(&self, guest: &Arc<G>) {
        let mut guests = self.guests();
        if guests.are_leaving {
            drop(guests);
            guest.drain();
            return;
        }
        let list = &mut guests.list;
        // Now and then, so that it costs nothing that counts.
        if list.len() == list.capacity() {
            list.retain(|guest| guest.strong_count() > 0);
        }
        let guest: Arc<dyn Guest> = guest.clone();
        list.push(Arc::downgrade(&guest));
    }

    /// Tells every session and WebSocket that the server is shutting down.
    pub(crate) fn drain(&self) {
        let mut guests = self.guests();
        guests.are_leaving = true;
        let list = std::mem::take(&mut guests.list);
        drop(guests);
        for guest in list.iter().filter_map(Weak::upgrade) {
            guest.drain();
        }
    }

    /// For the access log, if there is one and the request belongs into it.
    pub(crate) fn entry(&self, parts: &Parts, ends: &Ends) -> Option<Entry> {
        self.access.as_ref()?.entry(parts, ends)
    }

    /// Counts a response, and logs it where `entry` is one.
    pub(crate) fn note(&self, entry: Option<Entry>, status: StatusCode, bytes: u64) {
        let status = status.as_u16();
        let counts = &self.counts;
        counts.statuses[usize::from(status / 100).min(5)].fetch_add(1, Ordering::Relaxed);
        counts.body_bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        if let (Some(access), Some(entry)) = (&self.access, entry) {
            access.write(entry, status, bytes);
        }
    }

    /// Writes what waits: of the access log, and for other workers.
    pub(crate) fn flush(&self) {
        if let Some(access) = &self.access {
            access.flush();
        }
        if let Some(board) = &self.board {
            board.write(&self.counts);
        }
    }

    /// Tells the log what an application did.
    pub(crate) fn report(&self, py: Python<'_>, message: &str, error: Option<&PyErr>) {
        let error = error.map(|error| error.value(py).clone().unbind());
        if let Err(error) = self.report.bind(py).call1((message, error)) {
            error.write_unraisable(py, None);
        }
    }

    /// Makes room for one more call of the application; `None` if the limit is reached.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Active> {
        let counts = &self.counts;
        let before = counts.active.fetch_add(1, Ordering::Relaxed);
        let active = Active(self.clone());
        if self.settings.concurrency.is_some_and(|limit| before >= limit) {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let number = counts.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if self.settings.max_requests.is_some_and(|limit| number >= limit) {
            counts.is_exhausted.store(true, Ordering::Release);
        }
        Some(active)
    }
}

/// One call of the application, counted until this is dropped, which is at its end: Python may keep `receive` and `send` longer.
pub(crate) struct Active(Arc<Site>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.counts.active.fetch_sub(1, Ordering::Relaxed);
    }
}
