//! The hub of each event loop: that of its reactor, or for foreign kinds of loops one beside it.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::hub::Hub;
use crate::reactor::Reactor;

/// Hubs of foreign loops, by the identity of the loop, which the entry keeps alive.
static FOREIGN: Mutex<Option<HashMap<usize, Py<Bridge>>>> = Mutex::new(None);

/// The hub of the event loop that runs in this thread.
pub(crate) fn hub_of(py: Python<'_>) -> PyResult<Arc<Hub>> {
    let event_loop = py
        .import(intern!(py, "asyncio"))?
        .call_method0(intern!(py, "get_running_loop"))?;
    if let Ok(reactor) = event_loop.getattr(intern!(py, "_wireloom_reactor")) {
        return reactor.cast::<Reactor>()?.get().hub().cloned();
    }
    let key = event_loop.as_ptr() as usize;
    let known = FOREIGN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .and_then(|known| known.get(&key).map(|bridge| bridge.clone_ref(py)));
    if let Some(bridge) = known {
        return Ok(bridge.get().hub.clone());
    }
    let bridge = Py::new(py, Bridge::new(event_loop.clone().unbind())?)?;
    let hub = bridge.get().hub.clone();
    let descriptor = bridge.get().stream.as_raw_fd();
    event_loop.call_method1(intern!(py, "add_reader"), (descriptor, bridge.getattr(py, "deliver")?))?;
    // Loops that are closed make room here, so that a program that runs many keeps few.
    let known = {
        let mut foreign = FOREIGN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = foreign.take().unwrap_or_default();
        known.insert(key, bridge);
        known
    };
    let (open, closed): (HashMap<_, _>, HashMap<_, _>) =
        known.into_iter().partition(|(_, bridge)| !bridge.get().is_closed(py));
    for bridge in closed.values() {
        bridge.get().hub.close();
    }
    drop(closed);
    FOREIGN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_default()
        .extend(open);
    Ok(hub)
}

/// Tokio in a thread of its own, for event loops that cannot have it inside. One for the process.
fn runtime() -> PyResult<tokio::runtime::Handle> {
    static RUNTIME: OnceLock<Result<tokio::runtime::Handle, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("wireloom".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .map_err(|error| error.to_string())?;
        Ok(handle)
    });
    runtime.clone().map_err(PyRuntimeError::new_err)
}

/// What a foreign event loop watches.
#[pyclass(module = "wireloom._wireloom", frozen)]
pub(crate) struct Bridge {
    hub: Arc<Hub>,
    stream: UnixStream,
}

impl Bridge {
    fn new(event_loop: Py<PyAny>) -> PyResult<Self> {
        let (hub, stream) = Hub::foreign(event_loop, runtime()?)?;
        Ok(Self {
            hub: Arc::new(hub),
            stream,
        })
    }

    fn is_closed(&self, py: Python<'_>) -> bool {
        self.hub
            .event_loop(py)
            .call_method0(intern!(py, "is_closed"))
            .and_then(|closed| closed.is_truthy())
            .unwrap_or(true)
    }
}

#[pymethods]
impl Bridge {
    /// The loop's reader callback.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let mut bytes = [0; 64];
        // What comes after this is a new event.
        while (&self.stream).read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
        self.hub.deliver(py);
        self.hub.take_raised().map_or(Ok(()), Err)
    }
}
