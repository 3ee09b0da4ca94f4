//! Streams.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use pyo3::exceptions::{PyStopAsyncIteration, PyValueError};
use pyo3::prelude::*;
use wireloom::{ReadToEndError, WriteError};

use super::failure;
use super::half::{Half, Turn};
use super::session::Chunk;
use crate::asgi::backed;
use crate::awaitable::Await;
use crate::hub::Hub;

/// The most that a read takes at once unless it says otherwise, in bytes.
const CHUNK: usize = 64 * 1024;

/// The sending half of a stream. Dropped unfinished, it is reset.
#[pyclass(module = "wireloom", name = "SendStream", frozen, weakref)]
pub(super) struct SendStream {
    hub: Arc<Hub>,
    half: Arc<Half<wireloom::SendStream>>,
    id: u64,
}

impl SendStream {
    pub(super) fn new(hub: Arc<Hub>, stream: wireloom::SendStream) -> Self {
        Self {
            hub,
            id: stream.id(),
            half: Arc::new(Half::new(stream)),
        }
    }
}

#[pymethods]
impl SendStream {
    /// Sends all of `data`, waiting while the peer takes no more. Cancelled, an unknown part was sent.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<Await> {
        let data = backed(data)?;
        let half = self.half.clone();
        Ok(Await::future(&self.hub, async move {
            let turn = half.turn().await;
            let mut rest = &data[..];
            loop {
                let written = half.wait(&turn, |stream, cx| pin!(stream.write(rest)).poll(cx)).await;
                rest = &rest[written.map_err(|error| failure::write(&error))?..];
                if rest.is_empty() {
                    return Ok(());
                }
            }
        }))
    }

    /// Ends the stream: what was sent will be delivered, and then its end.
    fn finish(&self) -> Await {
        let half = self.half.clone();
        Await::future(&self.hub, async move {
            let _turn = half.turn().await;
            half.lock().finish().map_err(|error| failure::write(&error))
        })
    }

    /// Gives the stream up. A write that waits ends with ValueError.
    #[pyo3(signature = (code = 0))]
    fn reset(&self, code: u32) -> Await {
        let half = self.half.clone();
        Await::future(&self.hub, async move {
            half.give_up(|stream| stream.reset(code));
            Ok(())
        })
    }

    /// Streams of the session with a higher order go first.
    fn set_send_order(&self, order: i64) {
        self.half.lock().set_send_order(order);
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

    /// Finishes the stream unless that was done before, or resets it with code 1 if an exception is on its way.
    #[pyo3(signature = (kind, _error, _trace))]
    fn __aexit__(&self, kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) -> Await {
        if !kind.is_none() {
            return self.reset(1);
        }
        let half = self.half.clone();
        Await::future(&self.hub, async move {
            let _turn = half.turn().await;
            match half.lock().finish() {
                Ok(()) | Err(WriteError::Finished) => Ok(()),
                Err(error) => Err(failure::write(&error)),
            }
        })
    }
}

/// The receiving half of a stream. Dropped before its end, the peer is asked to stop.
#[pyclass(module = "wireloom", name = "RecvStream", frozen, weakref)]
pub(super) struct RecvStream {
    hub: Arc<Hub>,
    half: Arc<Receiving>,
    id: u64,
}

type Receiving = Half<wireloom::RecvStream>;

/// The next bytes, `None` at the end.
async fn next(half: &Receiving, turn: &Turn<'_>, limit: usize) -> PyResult<Option<Bytes>> {
    let poll = |stream: &mut wireloom::RecvStream, cx: &mut Context<'_>| pin!(stream.read_chunk(limit)).poll(cx);
    half.wait(turn, poll).await.map_err(|error| failure::read(&error))
}

impl RecvStream {
    pub(super) fn new(hub: Arc<Hub>, stream: wireloom::RecvStream) -> Self {
        Self {
            hub,
            id: stream.id(),
            half: Arc::new(Half::new(stream)),
        }
    }
}

#[pymethods]
impl RecvStream {
    /// The next bytes, at most `limit`; `b""` at the end.
    #[pyo3(signature = (limit = CHUNK))]
    fn read(&self, limit: usize) -> PyResult<Await> {
        if limit == 0 {
            return Err(PyValueError::new_err("'limit' is at least 1"));
        }
        let half = self.half.clone();
        Ok(Await::future(&self.hub, async move {
            let turn = half.turn().await;
            Ok(Chunk(next(&half, &turn, limit).await?.unwrap_or_default()))
        }))
    }

    /// Everything up to the end; ValueError if that is more than `limit` bytes. Cancelled, what was read is lost.
    #[pyo3(signature = (limit = 1 << 20))]
    fn read_to_end(&self, limit: usize) -> Await {
        let half = self.half.clone();
        Await::future(&self.hub, async move {
            let turn = half.turn().await;
            let mut content = Vec::new();
            while let Some(chunk) = next(&half, &turn, usize::MAX).await? {
                if content.len() + chunk.len() > limit {
                    return Err(PyValueError::new_err(ReadToEndError::TooLong.to_string()));
                }
                content.extend_from_slice(&chunk);
            }
            Ok(Chunk(content.into()))
        })
    }

    /// Asks the peer to send no more. A read that waits ends with ValueError.
    #[pyo3(signature = (code = 0))]
    fn stop(&self, code: u32) -> Await {
        let half = self.half.clone();
        Await::future(&self.hub, async move {
            half.give_up(|stream| stream.stop(code));
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
        let half = self.half.clone();
        Await::future(&self.hub, async move {
            let turn = half.turn().await;
            let chunk = next(&half, &turn, CHUNK).await?;
            chunk.map(Chunk).ok_or_else(|| PyStopAsyncIteration::new_err(()))
        })
    }
}
