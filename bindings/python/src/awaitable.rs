//! What Python awaits: an operation of Rust that is polled by the coroutine itself.
//!
//! An operation that can complete at once does so without a future, a task or a turn of the event loop. One that cannot
//! yields a [`Pause`](crate::pause::Pause), and is polled again when that is over: a result is taken at the moment when the coroutine
//! continues, so that cancelling it before never loses anything that was received.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;

use crate::hub::{Hub, Waiter};

/// After so many awaits that were ready at once the event loop gets a turn: a coroutine whose every await is ready would keep all
/// others waiting.
pub(crate) const AWAITS_PER_TURN: u32 = 64;

/// Something that can be awaited. Polled with the interpreter attached, in the event loop's thread, and holding no lock.
pub(crate) trait Operation: Send {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>>;

    /// Whether its awaits are counted here, and not by whoever made it.
    fn is_counted(&self) -> bool {
        false
    }

    /// The coroutine, to which `waker` belongs, waits no more.
    fn cancel(&mut self, _waker: &Waker) {}
}

/// An awaitable; it is a coroutine as far as `asyncio.create_task` and `inspect.isawaitable` are concerned.
#[pyclass(module = "wireloom._wireloom", name = "Operation", weakref)]
pub(crate) struct Await {
    // Only for `Sync`: every access is exclusive anyway.
    state: Mutex<State>,
}

struct State {
    operation: Option<Box<dyn Operation>>,
    hub: Arc<Hub>,
    waiter: Option<Arc<Waiter>>,
}

impl Await {
    pub(crate) fn new(hub: &Arc<Hub>, operation: impl Operation + 'static) -> Self {
        Self {
            state: Mutex::new(State {
                operation: Some(Box::new(operation)),
                hub: hub.clone(),
                waiter: None,
            }),
        }
    }

    /// Awaits a future of Rust, which may need the runtime.
    pub(crate) fn future<F, T>(hub: &Arc<Hub>, future: F) -> Self
    where
        F: Future<Output = PyResult<T>> + Send + 'static,
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let runtime = hub.runtime().clone();
        Self::new(
            hub,
            RustFuture {
                future: Box::pin(future),
                runtime,
            },
        )
    }

    fn state(&mut self) -> &mut State {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn abandon(&mut self) {
        let state = self.state();
        if let (Some(mut operation), Some(waiter)) = (state.operation.take(), state.waiter.take()) {
            operation.cancel(&Waker::from(waiter));
        }
    }
}

// `__await__` is Python's name, and the type's own once the underscores are off.
#[allow(clippy::self_named_constructors)]
#[pymethods]
impl Await {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let state = self.state();
        let Some(operation) = &mut state.operation else {
            return Err(PyRuntimeError::new_err("this was awaited before"));
        };
        // Nobody is told at the first try: most succeed.
        let polled = match &state.waiter {
            None => {
                if operation.is_counted() && state.hub.is_turn() {
                    return Ok(Some(py.None()));
                }
                let polled = operation.poll(py, &mut Context::from_waker(Waker::noop()));
                if polled.is_pending() {
                    let waiter = Waiter::new(state.hub.clone());
                    let waker = Waker::from(waiter.clone());
                    state.waiter = Some(waiter);
                    operation.poll(py, &mut Context::from_waker(&waker))
                } else {
                    if operation.is_counted() {
                        state.hub.was_ready();
                    }
                    polled
                }
            }
            Some(waiter) => {
                let waker = Waker::from(waiter.clone());
                operation.poll(py, &mut Context::from_waker(&waker))
            }
        };
        match polled {
            Poll::Ready(result) => {
                state.operation = None;
                let value = result?;
                if value.is_none(py) {
                    Ok(None)
                } else {
                    Err(PyStopIteration::new_err((value,)))
                }
            }
            Poll::Pending => match &state.waiter {
                Some(waiter) => waiter.pause(py).map(|future| Some(future.unbind())),
                None => Ok(None),
            },
        }
    }

    fn send(&mut self, py: Python<'_>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match self.__next__(py)? {
            Some(paused) => Ok(paused),
            None => Err(PyStopIteration::new_err((py.None(),))),
        }
    }

    #[pyo3(signature = (exception, value = None, traceback = None))]
    fn throw(
        &mut self,
        exception: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = traceback;
        self.abandon();
        Err(raised(exception, value)?)
    }

    fn close(&mut self) {
        self.abandon();
    }
}

/// What a generator's `throw` raises.
fn raised(exception: &Bound<'_, PyAny>, value: Option<&Bound<'_, PyAny>>) -> PyResult<PyErr> {
    let raised = match value {
        Some(value) if value.is_instance_of::<pyo3::exceptions::PyBaseException>() => value.clone(),
        Some(value) => exception.call1((value,))?,
        None => exception.clone(),
    };
    Ok(PyErr::from_value(raised))
}

impl Drop for Await {
    fn drop(&mut self) {
        self.abandon();
    }
}

struct RustFuture<F> {
    future: Pin<Box<F>>,
    runtime: tokio::runtime::Handle,
}

impl<F, T> Operation for RustFuture<F>
where
    F: Future<Output = PyResult<T>> + Send,
    T: for<'py> IntoPyObject<'py> + Send,
{
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let _entered = self.runtime.enter();
        self.future.as_mut().poll(cx).map(|result| {
            let value = result?;
            value.into_py_any(py)
        })
    }

    fn is_counted(&self) -> bool {
        true
    }
}

/// What was done before it is awaited: one object for all of them, and one for each that lets the event loop have a turn first.
#[pyclass(module = "wireloom._wireloom", frozen)]
#[derive(Default)]
pub(crate) struct Done {
    /// The turn is still to come.
    turn: AtomicBool,
}

impl Done {
    pub(crate) fn after_a_turn() -> Self {
        Self {
            turn: AtomicBool::new(true),
        }
    }
}

#[pymethods]
impl Done {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        // Read first, which is cheaper.
        (self.turn.load(Ordering::Relaxed) && self.turn.swap(false, Ordering::Relaxed)).then(|| py.None())
    }

    fn send(&self, py: Python<'_>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.__next__(py).ok_or_else(|| PyStopIteration::new_err((py.None(),)))
    }

    #[pyo3(signature = (exception, value = None, traceback = None))]
    fn throw(
        &self,
        exception: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = traceback;
        Err(raised(exception, value)?)
    }

    fn close(&self) {}
}
