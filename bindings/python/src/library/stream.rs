//! Streams.

use std::sync::Arc;

use pyo3::exceptions::{PyStopAsyncIteration, PyValueError};
use pyo3::prelude::*;
use tokio::sync::Mutex;

use super::failure;
use super::session::Chunk;
use crate::asgi::bytes_of;
use crate::awaitable::Await;
use crate::hub::Hub;

/// The sending half of a stream. Dropped unfinished, it is reset.
#[pyclass(module = "wireloom", name = "SendStream", frozen, weakref)]
pub(super) struct SendStream {
    hub: Arc<Hub>,
    id: u64,
    /// Coroutines take turns; nothing else is awaited while it is held.
    stream: Arc<Mutex<wireloom::SendStream>>,
}

impl SendStream {
    pub(super) fn new(hub: Arc<Hub>, stream: wireloom::SendStream) -> Self {
        Self {
            hub,
            id: stream.id(),
            stream: Arc::new(Mutex::new(stream)),
        }
    }
}

#[pymethods]
impl SendStream {
    /// Sends all of `data`, waiting while the peer takes no more. Cancelled, an unknown part was sent.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<Await> {
        let data = bytes_of(data)?;
        let stream = self.stream.clone();
        Ok(Await::future(&self.hub, async move {
            let mut stream = stream.lock().await;
            stream.write_chunk(data).await.map_err(|error| failure::write(&error))
        }))
    }

    /// Ends the stream: what was sent will be delivered, and then its end.
    fn finish(&self) -> Await {
        let stream = self.stream.clone();
        Await::future(&self.hub, async move {
            stream.lock().await.finish().map_err(|error| failure::write(&error))
        })
    }

    /// Gives the stream up. A write that waits is given up with it.
    #[pyo3(signature = (code = 0))]
    fn reset(&self, code: u32) -> Await {
        let stream = self.stream.clone();
        Await::future(&self.hub, async move {
            stream.lock().await.reset(code);
            Ok(())
        })
    }

    /// Streams of the session with a higher order go first.
    fn set_send_order(&self, order: i64) -> PyResult<()> {
        let stream = self
            .stream
            .try_lock()
            .map_err(|_| PyValueError::new_err("another coroutine is sending on the stream"))?;
        stream.set_send_order(order);
        Ok(())
    }

    /// The QUIC stream identifier.
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }

    fn __aenter__(slf: Py<Self>) -> Await {
        let hub = slf.get().hub.clone();
        Await::future(&hub, async move { Ok(slf) })
    }

    /// Finishes the stream, or resets it with code 1 if an exception is on its way.
    #[pyo3(signature = (kind, _error, _trace))]
    fn __aexit__(&self, kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) -> Await {
        if kind.is_none() { self.finish() } else { self.reset(1) }
    }
}

/// The receiving half of a stream. Dropped before its end, the peer is asked to stop.
#[pyclass(module = "wireloom", name = "RecvStream", frozen, weakref)]
pub(super) struct RecvStream {
    hub: Arc<Hub>,
    id: u64,
    stream: Arc<Mutex<wireloom::RecvStream>>,
}

impl RecvStream {
    pub(super) fn new(hub: Arc<Hub>, stream: wireloom::RecvStream) -> Self {
        Self {
            hub,
            id: stream.id(),
            stream: Arc::new(Mutex::new(stream)),
        }
    }
}

#[pymethods]
impl RecvStream {
    /// The next bytes, at most `limit`; `b""` at the end.
    #[pyo3(signature = (limit = 65536))]
    fn read(&self, limit: usize) -> PyResult<Await> {
        if limit == 0 {
            return Err(PyValueError::new_err("'limit' is at least 1"));
        }
        let stream = self.stream.clone();
        Ok(Await::future(&self.hub, async move {
            let mut stream = stream.lock().await;
            let chunk = stream.read_chunk(limit).await.map_err(|error| failure::read(&error))?;
            Ok(Chunk(chunk.unwrap_or_default()))
        }))
    }

    /// Everything up to the end; ValueError if that is more than `limit` bytes. Cancelled, what was read is lost.
    #[pyo3(signature = (limit = 1 << 20))]
    fn read_to_end(&self, limit: usize) -> Await {
        let stream = self.stream.clone();
        Await::future(&self.hub, async move {
            let mut stream = stream.lock().await;
            let content = stream
                .read_to_end(limit)
                .await
                .map_err(|error| failure::read_to_end(&error))?;
            Ok(Chunk(content.into()))
        })
    }

    /// Asks the peer to send no more.
    #[pyo3(signature = (code = 0))]
    fn stop(&self, code: u32) -> Await {
        let stream = self.stream.clone();
        Await::future(&self.hub, async move {
            stream.lock().await.stop(code);
            Ok(())
        })
    }

    /// The QUIC stream identifier.
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }

    fn __aiter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __anext__(&self) -> Await {
        let stream = self.stream.clone();
        Await::future(&self.hub, async move {
            let mut stream = stream.lock().await;
            match stream.read_chunk(65536).await {
                Ok(Some(chunk)) => Ok(Chunk(chunk)),
                Ok(None) => Err(PyStopAsyncIteration::new_err(())),
                Err(error) => Err(failure::read(&error)),
            }
        })
    }
}
