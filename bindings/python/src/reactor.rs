//! Tokio inside an asyncio event loop: where asyncio would wait for its file descriptors, Tokio runs, and watches them among
//! its own.
//!
//! Requests are begun within Tokio's turn, by a task that delivers all that have come: as long as coroutines finish without waiting for
//! anything, the two loops are one and asyncio's does not turn at all. As soon as a callback or a timer waits in asyncio, the
//! turn ends and asyncio has its own.

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;

use crate::descriptor::{adopt, watch};
use crate::hub::{Hub, Turn};

/// The longest wait, as asyncio has it.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What asyncio's loop and Tokio's share.
struct Shared {
    /// asyncio has something to do.
    is_wanted: AtomicBool,
    /// Timers that asyncio had when the turn began.
    timers: AtomicUsize,
    turn: AtomicWaker,
}

impl Turn for Shared {
    fn after(&self, event_loop: &Bound<'_, PyAny>) {
        if has_work(event_loop, self).unwrap_or(true) {
            self.end();
        }
    }

    fn end(&self) {
        if !self.is_wanted.swap(true, Ordering::AcqRel) {
            self.turn.wake();
        }
    }
}

/// The Rust half of `wireloom.EventLoop`.
#[pyclass(module = "wireloom._wireloom", frozen)]
pub(crate) struct Reactor {
    /// `None` once closed.
    runtime: Mutex<Option<Runtime>>,
    descriptors: Mutex<Option<Arc<AsyncFd<OwnedFd>>>>,
    hub: OnceLock<Arc<Hub>>,
    shared: Arc<Shared>,
}

impl Reactor {
    pub(crate) fn hub(&self) -> PyResult<&Arc<Hub>> {
        self.hub
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("the reactor has no event loop"))
    }
}

#[pymethods]
impl Reactor {
    /// `selector` is a duplicate of the descriptor through which asyncio's selector waits; it is taken over.
    #[new]
    fn new(selector: i32) -> PyResult<Self> {
        let selector = adopt(selector)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let descriptors = watch(selector)?;
        drop(entered);
        Ok(Self {
            runtime: Mutex::new(Some(runtime)),
            descriptors: Mutex::new(Some(Arc::new(descriptors))),
            hub: OnceLock::new(),
            shared: Arc::new(Shared {
                is_wanted: AtomicBool::new(false),
                timers: AtomicUsize::new(0),
                turn: AtomicWaker::new(),
            }),
        })
    }

    /// Once, before the first turn.
    fn attach(&self, event_loop: Py<PyAny>) -> PyResult<()> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(runtime) = &*runtime else {
            return Err(PyRuntimeError::new_err("the reactor is closed"));
        };
        let hub = Arc::new(Hub::inline(event_loop, runtime.handle().clone(), self.shared.clone()));
        runtime.spawn(deliver(hub.clone()));
        self.hub
            .set(hub)
            .map_err(|_| PyRuntimeError::new_err("the reactor has an event loop"))
    }

    /// Lets Tokio run for `timeout` seconds, or until asyncio is wanted. Whether file descriptors of asyncio are ready.
    #[pyo3(signature = (timeout = None))]
    fn turn(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let hub = self.hub()?;
        let (Some(runtime), Some(descriptors)) = (
            self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take(),
            self.descriptors.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        ) else {
            return Err(PyRuntimeError::new_err("the reactor is closed or runs already"));
        };
        let timers = hub.event_loop(py).getattr(intern!(py, "_scheduled"))?.len()?;
        self.shared.timers.store(timers, Ordering::Relaxed);
        // NaN, negative and endless waits are as asyncio never asks for them.
        let timeout = timeout.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default().min(MAX_WAIT));
        let ready = py.detach(|| runtime.block_on(wait(&self.shared, &descriptors, timeout)));
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
        if let Some(raised) = hub.take_raised() {
            return Err(raised);
        }
        ready.map_err(PyOSError::new_err)
    }

    /// Ends everything that runs in Tokio.
    fn close(&self, py: Python<'_>) {
        if let Some(hub) = self.hub.get() {
            hub.close();
        }
        let descriptors = self.descriptors.lock().unwrap_or_else(PoisonError::into_inner).take();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| {
            drop(descriptors);
            if let Some(runtime) = runtime {
                runtime.shutdown_background();
            }
        });
    }
}

/// One turn of Tokio.
async fn wait(shared: &Shared, descriptors: &AsyncFd<OwnedFd>, timeout: Option<Duration>) -> Result<bool, String> {
    let is_glance = timeout == Some(Duration::ZERO);
    let sleep = timeout.filter(|_| !is_glance).map(tokio::time::sleep);
    let mut sleep = pin!(sleep);
    let mut has_begun = false;
    poll_fn(|cx| {
        shared.turn.register(cx.waker());
        let is_first = !std::mem::replace(&mut has_begun, true);
        let is_readable = is_readable(descriptors, cx)?;
        if is_readable || is_glance || shared.is_wanted.load(Ordering::Acquire) {
            if is_first {
                // Tokio's tasks have their turn, and it looks at its sockets, before this is polled again: once at least, however
                // much asyncio has to do.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !is_readable {
                shared.is_wanted.store(false, Ordering::Release);
            }
            return Poll::Ready(Ok(is_readable));
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(cx).map(|()| Ok(false)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Whether any descriptor of asyncio's selector is ready. Tokio tells edges and asyncio wants levels: what was ready once is
/// looked at again until it is not.
fn is_readable(descriptors: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> Result<bool, String> {
    while let Poll::Ready(guard) = descriptors.poll_read_ready(cx) {
        let mut guard = guard.map_err(|error| error.to_string())?;
        let mut watched = [PollFd::new(descriptors.get_ref(), PollFlags::IN)];
        match poll(&mut watched, Some(&rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => guard.clear_ready(),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(false)
}

/// The task that resolves futures.
async fn deliver(hub: Arc<Hub>) {
    poll_fn(|cx| {
        hub.register(cx.waker());
        if hub.has_deliveries() {
            Python::attach(|py| hub.deliver(py));
        }
        Poll::<()>::Pending
    })
    .await;
}

/// Whether asyncio has callbacks to run, new timers to wait for, or is to stop.
fn has_work(event_loop: &Bound<'_, PyAny>, shared: &Shared) -> PyResult<bool> {
    let py = event_loop.py();
    Ok(event_loop.getattr(intern!(py, "_ready"))?.len()? > 0
        || event_loop.getattr(intern!(py, "_scheduled"))?.len()? != shared.timers.load(Ordering::Relaxed)
        || event_loop.getattr(intern!(py, "_stopping"))?.is_truthy()?)
}
