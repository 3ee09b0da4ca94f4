//! The tasks in which the application runs.
//!
//! A task takes its first step at once instead of in the event loop's next turn, as Python 3.12's eager tasks do; where the
//! first step is the last, as with most requests, the event loop never hears of it.

use std::sync::{Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Starts tasks on one event loop.
pub(crate) struct Spawner {
    event_loop: Py<PyAny>,
    mode: Mode,
}

enum Mode {
    /// `asyncio.Task(coroutine, loop=…, eager_start=True)`: from Python 3.12 on.
    Eager { task: Py<PyAny>, arguments: Py<PyDict> },
    /// The task's first `call_soon` is caught and carried out at once.
    Caught {
        task: Py<PyAny>,
        arguments: Py<PyDict>,
        caught: Py<Caught>,
    },
    /// `loop.create_task`: where a task factory is set, or the event loop is of a foreign kind.
    Plain,
}

impl Spawner {
    pub(crate) fn new(py: Python<'_>, event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let asyncio = py.import("asyncio")?;
        let task = asyncio.getattr("Task")?.unbind();
        let arguments = PyDict::new(py);
        arguments.set_item("loop", event_loop)?;
        // asyncio would number them, which costs as much as a header.
        arguments.set_item("name", "wireloom request")?;
        let has_factory = !event_loop.call_method0("get_task_factory")?.is_none();
        let mode = if has_factory {
            Mode::Plain
        } else if py.version_info() >= (3, 12) {
            arguments.set_item("eager_start", true)?;
            let arguments = arguments.unbind();
            Mode::Eager { task, arguments }
        } else if event_loop.hasattr("__dict__")? {
            let caught = Py::new(py, Caught::default())?;
            let arguments = arguments.unbind();
            Mode::Caught {
                task,
                arguments,
                caught,
            }
        } else {
            Mode::Plain
        };
        Ok(Self {
            event_loop: event_loop.clone().unbind(),
            mode,
        })
    }

    /// A task for `coroutine`, which may be over already.
    pub(crate) fn spawn<'py>(&self, py: Python<'py>, coroutine: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = self.event_loop.bind(py);
        match &self.mode {
            Mode::Plain => event_loop.call_method1(intern!(py, "create_task"), (coroutine,)),
            Mode::Eager { task, arguments } => task.bind(py).call((coroutine,), Some(arguments.bind(py))),
            Mode::Caught {
                task,
                arguments,
                caught,
            } => {
                let name = intern!(py, "call_soon");
                event_loop.setattr(name, caught)?;
                let created = task.bind(py).call((coroutine,), Some(arguments.bind(py)));
                event_loop.delattr(name)?;
                let step = caught.get().0.lock().unwrap_or_else(PoisonError::into_inner).take();
                let created = created?;
                if let Some((step, context)) = step {
                    let context = context.into_bound(py);
                    context.call_method1(intern!(py, "run"), (step,))?;
                }
                Ok(created)
            }
        }
    }
}

/// Stands in for `loop.call_soon` while a task is made.
#[pyclass(module = "wireloom._wireloom", frozen)]
#[derive(Default)]
pub(crate) struct Caught(Mutex<Option<(Py<PyAny>, Py<PyAny>)>>);

#[pymethods]
impl Caught {
    #[pyo3(signature = (callback, *arguments, context))]
    fn __call__(&self, callback: Py<PyAny>, arguments: &Bound<'_, PyTuple>, context: Py<PyAny>) {
        // A task's first step has none.
        let _ = arguments;
        let before = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace((callback, context));
        drop(before);
    }
}
