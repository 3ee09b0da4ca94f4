//! What a task of asyncio waits for while Rust is not ready: as much of a future as the task looks at.
//!
//! An `asyncio.Future` would resume the task by way of `loop.call_soon`, which means a turn of asyncio for each wake-up. This
//! resumes it where the wake-up is delivered: in the event loop's thread, where no other task runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::asyncio::{CancelledError, InvalidStateError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::hub::Hub;

/// One wait of one task.
#[pyclass(module = "wireloom._wireloom", frozen, weakref)]
pub(crate) struct Pause {
    hub: Arc<Hub>,
    state: Mutex<State>,
}

struct State {
    is_blocking: bool,
    outcome: Option<Outcome>,
    /// The task's callback and the context in which it wants to be called.
    callback: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Resumed,
    Cancelled,
}

impl Pause {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            state: Mutex::new(State {
                is_blocking: true,
                outcome: None,
                callback: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resumes the task. An exception that the task does not keep ends the event loop.
    pub(crate) fn resume(slf: &Bound<'_, Self>) {
        let this = slf.get();
        let mut state = this.state();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(Outcome::Resumed);
        let callback = state.callback.take();
        drop(state);
        let Some((callback, context)) = callback else { return };
        let py = slf.py();
        let called = match context {
            Some(context) => context.call_method1(py, intern!(py, "run"), (callback, slf)),
            None => callback.call1(py, (slf,)),
        };
        if let Err(error) = called {
            this.hub.raise(error);
        }
    }

    /// Has the event loop call the callback: somebody else runs now.
    fn call_soon(slf: &Bound<'_, Self>, callback: &Py<PyAny>, context: Option<&Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let arguments = PyDict::new(py);
        if let Some(context) = context {
            arguments.set_item(intern!(py, "context"), context)?;
        }
        let event_loop = slf.get().hub.event_loop(py);
        event_loop.call_method(intern!(py, "call_soon"), (callback, slf), Some(&arguments))?;
        Ok(())
    }
}

#[pymethods]
impl Pause {
    #[getter]
    fn _asyncio_future_blocking(&self) -> bool {
        self.state().is_blocking
    }

    #[setter(_asyncio_future_blocking)]
    fn set_asyncio_future_blocking(&self, blocking: bool) {
        self.state().is_blocking = blocking;
    }

    fn get_loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.hub.event_loop(py).clone()
    }

    #[pyo3(signature = (callback, *, context = None))]
    fn add_done_callback(slf: &Bound<'_, Self>, callback: Py<PyAny>, context: Option<Py<PyAny>>) -> PyResult<()> {
        let mut state = slf.get().state();
        if state.outcome.is_none() {
            let before = state.callback.replace((callback, context));
            drop(state);
            drop(before);
            return Ok(());
        }
        drop(state);
        Self::call_soon(slf, &callback, context.as_ref())
    }

    fn remove_done_callback(&self, _callback: &Bound<'_, PyAny>) -> usize {
        let callback = self.state().callback.take();
        usize::from(callback.is_some())
    }

    #[pyo3(signature = (msg = None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        // The task keeps the message itself.
        let _ = msg;
        let mut state = slf.get().state();
        if state.outcome.is_some() {
            return Ok(false);
        }
        state.outcome = Some(Outcome::Cancelled);
        let callback = state.callback.take();
        drop(state);
        if let Some((callback, context)) = callback {
            Self::call_soon(slf, &callback, context.as_ref())?;
        }
        Ok(true)
    }

    fn done(&self) -> bool {
        self.state().outcome.is_some()
    }

    fn cancelled(&self) -> bool {
        self.state().outcome == Some(Outcome::Cancelled)
    }

    fn result(&self) -> PyResult<()> {
        match self.state().outcome {
            Some(Outcome::Resumed) => Ok(()),
            Some(Outcome::Cancelled) => Err(CancelledError::new_err(())),
            None => Err(InvalidStateError::new_err("the wait is not over")),
        }
    }

    fn exception(&self) -> PyResult<()> {
        self.result()
    }
}
