//! What one call of the application has in common, whatever it is for.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::Response;
use pyo3::intern;
use pyo3::prelude::*;

use super::body::ResponseBody;
use super::site::Site;
use crate::awaitable::{AWAITS_PER_TURN, Done};
use crate::waiters::is_nobody;

/// One call of the application: a request, a WebSocket or a session.
pub(crate) trait Exchange: Send + Sync + 'static {
    /// The application has returned, or raised. Called once, with no lock held.
    fn finished(&self, py: Python<'_>, outcome: PyResult<()>);
}

/// The response on its way from the application to the connection.
#[derive(Default)]
pub(crate) struct Reply {
    response: Option<Response<ResponseBody>>,
    connection: Option<Waker>,
}

impl Reply {
    pub(crate) fn give(&mut self, response: Response<ResponseBody>) {
        self.response = Some(response);
        if let Some(connection) = self.connection.take() {
            connection.wake();
        }
    }

    /// Takes back what nobody will take. Dropped by the caller after the lock: it may be what refers to this very exchange.
    #[must_use = "it is dropped after the lock is released"]
    pub(crate) fn withdraw(&mut self) -> Option<Response<ResponseBody>> {
        self.response.take()
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Response<ResponseBody>> {
        match self.response.take() {
            Some(response) => Poll::Ready(response),
            None => {
                self.connection = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Whether the coroutine has to wait although something is ready for it: it is woken as soon as the event loop has turned.
pub(crate) fn is_turn(ready: &mut u32, cx: &Context<'_>) -> bool {
    if *ready < AWAITS_PER_TURN {
        return false;
    }
    // The first attempt has nobody to wake; there is a second one.
    if !is_nobody(cx.waker()) {
        *ready = 0;
        cx.waker().wake_by_ref();
    }
    true
}

/// Counts an await that has nothing to wait for; whether the event loop is to have a turn now.
pub(crate) fn was_ready(ready: &mut u32) -> bool {
    *ready += 1;
    let is_turn = *ready >= AWAITS_PER_TURN;
    if is_turn {
        *ready = 0;
    }
    is_turn
}

/// What `send` answers then. No lock is held: Python may run here.
pub(crate) fn sent<'py>(py: Python<'py>, site: &Site, is_turn: bool) -> PyResult<Bound<'py, PyAny>> {
    if is_turn {
        Ok(Bound::new(py, Done::after_a_turn())?.into_any())
    } else {
        Ok(site.done.bind(py).clone().into_any())
    }
}

/// Calls the application, in a task of its own.
pub(crate) fn run<'py>(
    site: &Arc<Site>,
    exchange: Arc<dyn Exchange>,
    scope: Bound<'py, PyAny>,
    receive: Bound<'py, PyAny>,
    send: Bound<'py, PyAny>,
) -> Option<Py<PyAny>> {
    let py = scope.py();
    let started = site
        .app
        .bind(py)
        .call1((scope, receive, send))
        .and_then(|coroutine| site.spawner.spawn(py, &coroutine));
    let task = match started {
        Ok(task) => task,
        Err(error) => {
            let is_exit = is_exit(py, &error);
            if is_exit {
                site.hub.raise(error.clone_ref(py));
            }
            exchange.finished(py, Err(error));
            return None;
        }
    };
    let is_done = task
        .call_method0(intern!(py, "done"))
        .and_then(|done| done.is_truthy())
        .unwrap_or(false);
    if is_done {
        exchange.finished(py, outcome(&task));
        return None;
    }
    let key = site.keep(task.clone().unbind());
    let finish = Finish {
        site: site.clone(),
        key,
        exchange: exchange.clone(),
    };
    if let Err(error) = task.call_method1(intern!(py, "add_done_callback"), (finish,)) {
        exchange.finished(py, Err(error));
    }
    Some(task.unbind())
}

/// What ends the program rather than a request.
fn is_exit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py)
        || error.is_instance_of::<pyo3::exceptions::PySystemExit>(py)
}

fn outcome(task: &Bound<'_, PyAny>) -> PyResult<()> {
    // Raises CancelledError for a cancelled task.
    let raised = task.call_method0(intern!(task.py(), "exception"))?;
    if raised.is_none() {
        Ok(())
    } else {
        Err(PyErr::from_value(raised))
    }
}

/// A task's done callback.
#[pyclass(module = "wireloom._wireloom", frozen)]
struct Finish {
    site: Arc<Site>,
    key: u64,
    exchange: Arc<dyn Exchange>,
}

#[pymethods]
impl Finish {
    fn __call__(&self, py: Python<'_>, task: &Bound<'_, PyAny>) {
        let kept = self.site.release(self.key);
        drop(kept);
        self.exchange.finished(py, outcome(task));
    }
}
