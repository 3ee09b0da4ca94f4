//! The tasks in which the application runs.
//!
//! A task takes its first step at once instead of in the event loop's next turn, as Python 3.12's eager tasks do; where the
//! first step is the last, as with most requests, the event loop never hears of it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
            let call_soon = event_loop.getattr(intern!(py, "call_soon"))?.unbind();
            let caught = Py::new(
                py,
                Caught {
                    call_soon,
                    steps: Mutex::default(),
                },
            )?;
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
                let caught = caught.get();
                let mut first = None;
                while let Some(step) = caught.take() {
                    if created.as_ref().is_ok_and(|task| step.is_of(task)) {
                        first = Some(step);
                    } else if let Err(error) = caught.pass_on(py, step) {
                        error.write_unraisable(py, Some(event_loop));
                    }
                }
                let created = created?;
                if let Some(Step { callback, context }) = first {
                    context.call_method1(py, intern!(py, "run"), (callback,))?;
                }
                Ok(created)
            }
        }
    }
}

/// Stands in for `loop.call_soon` while a task is made. Others may call it then, too: what the garbage collector finalises, or
/// a debugger.
#[pyclass(module = "wireloom._wireloom", frozen)]
pub(crate) struct Caught {
    call_soon: Py<PyAny>,
    /// The first one of the task; others if somebody has made a task meanwhile.
    steps: Mutex<VecDeque<Step>>,
}

struct Step {
    callback: Py<PyAny>,
    context: Py<PyAny>,
}

impl Step {
    fn is_of(&self, task: &Bound<'_, PyAny>) -> bool {
        let owner = self.callback.bind(task.py()).getattr(intern!(task.py(), "__self__"));
        owner.is_ok_and(|owner| owner.is(task))
    }
}

impl Caught {
    fn steps(&self) -> MutexGuard<'_, VecDeque<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Step> {
        self.steps().pop_front()
    }

    fn pass_on(&self, py: Python<'_>, step: Step) -> PyResult<()> {
        let named = PyDict::new(py);
        named.set_item(intern!(py, "context"), step.context)?;
        self.call_soon.call(py, (step.callback,), Some(&named))?;
        Ok(())
    }
}

#[pymethods]
impl Caught {
    #[pyo3(signature = (*arguments, **named))]
    fn __call__<'py>(
        &self,
        arguments: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = arguments.py();
        // As tasks ask for their steps.
        if let (Ok((callback,)), Some(named)) = (arguments.extract(), named)
            && let Some(context) = named.get_item(intern!(py, "context"))?
        {
            let context = context.unbind();
            self.steps().push_back(Step { callback, context });
            return Ok(py.None().into_bound(py));
        }
        self.call_soon.bind(py).call(arguments, named)
    }
}
