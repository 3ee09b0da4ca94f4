//! From Rust to one event loop: what waits to be told to Python, in batches.
//!
//! Nothing on Tokio's side ever touches a Python object or waits for the interpreter. It pushes a [`Delivery`], and whoever
//! runs the event loop takes all of them at once with the interpreter attached: one wake-up for many.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;
use pyo3::prelude::*;

use crate::awaitable::AWAITS_PER_TURN;
use crate::pause::Pause;

/// Something to be done with the interpreter attached, in the event loop's thread.
pub(crate) enum Delivery {
    /// Resolve what a coroutine waits for.
    Wake(Arc<Waiter>),
    /// Begin something new: a request.
    Start(Arc<dyn Start>),
}

/// What begins in Python because of the network.
pub(crate) trait Start: Send + Sync {
    fn start(self: Arc<Self>, py: Python<'_>);
}

/// asyncio's part in a turn of Tokio, where both are in one thread.
pub(crate) trait Turn: Send + Sync {
    /// Python has run: if asyncio has to go on with something, the turn ends.
    fn after(&self, event_loop: &Bound<'_, PyAny>);
    /// The turn ends as soon as it can.
    fn end(&self);
}

/// How the event loop learns that there are deliveries.
enum Host {
    /// Tokio runs in the event loop's own thread: a task of it delivers.
    Inline {
        deliverer: AtomicWaker,
        turn: Arc<dyn Turn>,
    },
    /// Tokio runs in another thread: the event loop watches the other end of this pair.
    Foreign(UnixStream),
}

/// The deliveries for one event loop.
pub(crate) struct Hub {
    ready: Mutex<Vec<Delivery>>,
    host: Host,
    runtime: tokio::runtime::Handle,
    event_loop: Py<PyAny>,
    is_closed: AtomicBool,
    /// Awaits of the library that were ready at once, since the event loop last had a turn because of them.
    at_once: AtomicU32,
    /// `KeyboardInterrupt` or `SystemExit` of a coroutine: the event loop ends with it.
    raised: Mutex<Option<PyErr>>,
}

impl Hub {
    pub(crate) fn inline(event_loop: Py<PyAny>, runtime: tokio::runtime::Handle, turn: Arc<dyn Turn>) -> Self {
        let deliverer = AtomicWaker::new();
        Self::new(Host::Inline { deliverer, turn }, event_loop, runtime)
    }

    /// The stream is what the event loop has to watch.
    pub(crate) fn foreign(
        event_loop: Py<PyAny>,
        runtime: tokio::runtime::Handle,
    ) -> std::io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((Self::new(Host::Foreign(ours), event_loop, runtime), theirs))
    }

    fn new(host: Host, event_loop: Py<PyAny>, runtime: tokio::runtime::Handle) -> Self {
        Self {
            ready: Mutex::default(),
            host,
            runtime,
            event_loop,
            is_closed: AtomicBool::new(false),
            at_once: AtomicU32::new(0),
            raised: Mutex::default(),
        }
    }

    /// The event loop is to end with this.
    pub(crate) fn raise(&self, error: PyErr) {
        self.raised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        if let Host::Inline { turn, .. } = &self.host {
            turn.end();
        }
    }

    pub(crate) fn take_raised(&self) -> Option<PyErr> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.event_loop.bind(py)
    }

    /// Whether the event loop is to have a turn before the library goes on. It is only ever counted in the loop's thread.
    pub(crate) fn is_turn(&self) -> bool {
        let is_turn = self.at_once.load(Ordering::Relaxed) >= AWAITS_PER_TURN;
        if is_turn {
            self.at_once.store(0, Ordering::Relaxed);
        }
        is_turn
    }

    /// Counts an await of the library that had nothing to wait for.
    pub(crate) fn was_ready(&self) {
        self.at_once.fetch_add(1, Ordering::Relaxed);
    }

    /// The event loop is gone: nothing is delivered any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let dropped = std::mem::take(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner));
        drop(dropped);
    }

    pub(crate) fn push(&self, delivery: Delivery) {
        if self.is_closed.load(Ordering::Acquire) {
            return;
        }
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.push(delivery);
        // Later ones ride along with the first.
        if ready.len() > 1 {
            return;
        }
        drop(ready);
        match &self.host {
            Host::Inline { deliverer, .. } => deliverer.wake(),
            Host::Foreign(stream) => {
                // Full means that the loop has a byte to read already.
                let _ = (&mut &*stream).write(&[0]);
            }
        }
    }

    /// Inline only: who delivers.
    pub(crate) fn register(&self, waker: &Waker) {
        if let Host::Inline { deliverer, .. } = &self.host {
            deliverer.register(waker);
        }
    }

    pub(crate) fn has_deliveries(&self) -> bool {
        !self.ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// From a task of Tokio: begins something with the next delivery, together with all that the network has brought in this turn.
    pub(crate) fn start(&self, start: Arc<dyn Start>) {
        self.push(Delivery::Start(start));
    }

    /// Delivers what was pushed before now.
    pub(crate) fn deliver(&self, py: Python<'_>) {
        // Not longer locked than for this: what is delivered pushes again.
        let ready = std::mem::take(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner));
        for delivery in ready {
            match delivery {
                Delivery::Wake(waiter) => waiter.deliver(py),
                Delivery::Start(start) => start.start(py),
            }
        }
        if let Host::Inline { turn, .. } = &self.host {
            turn.after(self.event_loop(py));
        }
    }
}

/// What one coroutine waits with: a waker towards Rust, a pause towards Python.
pub(crate) struct Waiter {
    hub: Arc<Hub>,
    is_queued: AtomicBool,
    pause: Mutex<Option<Py<Pause>>>,
}

impl Waiter {
    pub(crate) fn new(hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            hub,
            is_queued: AtomicBool::new(false),
            pause: Mutex::default(),
        })
    }

    /// A new pause that the next wake-up ends. A wake-up that comes between the poll before and this one is not lost: it is
    /// delivered later than this, because both happen with the interpreter attached in the loop's thread.
    pub(crate) fn pause<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let pause = Bound::new(py, Pause::new(self.hub.clone()))?;
        let before = self
            .pause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(pause.clone().unbind());
        drop(before);
        Ok(pause.into_any())
    }

    fn deliver(&self, py: Python<'_>) {
        self.is_queued.store(false, Ordering::Release);
        let pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that was cancelled meanwhile is over: whoever waits next finds what has come.
        if let Some(pause) = pause {
            Pause::resume(pause.bind(py));
        }
    }
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.hub.push(Delivery::Wake(self.clone()));
        }
    }
}
