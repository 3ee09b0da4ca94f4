//! A session.

use std::sync::Arc;

use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::failure;
use super::stream::{RecvStream, SendStream};
use crate::asgi::bytes_of;
use crate::awaitable::Await;
use crate::hub::Hub;

/// Streams and datagrams between this program and one peer.
#[pyclass(module = "wireloom", name = "Session", frozen, weakref)]
pub(super) struct Session {
    hub: Arc<Hub>,
    session: wireloom::Session,
}

impl Session {
    pub(super) fn new(hub: Arc<Hub>, session: wireloom::Session) -> Self {
        Self { hub, session }
    }

    fn pair(hub: Arc<Hub>, (send, recv): (wireloom::SendStream, wireloom::RecvStream)) -> (SendStream, RecvStream) {
        (SendStream::new(hub.clone(), send), RecvStream::new(hub, recv))
    }
}

/// Bytes that become `bytes`.
pub(super) struct Chunk(pub(super) bytes::Bytes);

impl<'py> IntoPyObject<'py> for Chunk {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = std::convert::Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyBytes::new(py, &self.0))
    }
}

#[pymethods]
impl Session {
    /// Opens a bidirectional stream; waits while the peer allows no more.
    fn open_bi(&self) -> Await {
        let (hub, session) = (self.hub.clone(), self.session.clone());
        Await::future(&self.hub, async move {
            let streams = session.open_bi().await.map_err(|error| failure::session(&error))?;
            Ok(Self::pair(hub, streams))
        })
    }

    /// Opens a unidirectional stream; waits while the peer allows no more.
    fn open_uni(&self) -> Await {
        let (hub, session) = (self.hub.clone(), self.session.clone());
        Await::future(&self.hub, async move {
            let stream = session.open_uni().await.map_err(|error| failure::session(&error))?;
            Ok(SendStream::new(hub, stream))
        })
    }

    /// The next bidirectional stream of the peer.
    fn accept_bi(&self) -> Await {
        let (hub, session) = (self.hub.clone(), self.session.clone());
        Await::future(&self.hub, async move {
            let streams = session.accept_bi().await.map_err(|error| failure::session(&error))?;
            Ok(Self::pair(hub, streams))
        })
    }

    /// The next unidirectional stream of the peer.
    fn accept_uni(&self) -> Await {
        let (hub, session) = (self.hub.clone(), self.session.clone());
        Await::future(&self.hub, async move {
            let stream = session.accept_uni().await.map_err(|error| failure::session(&error))?;
            Ok(RecvStream::new(hub, stream))
        })
    }

    /// The bidirectional streams of the peer, until the session is over.
    fn bi_streams(slf: Py<Self>) -> Iteration {
        Iteration {
            session: slf,
            what: What::Bi,
        }
    }

    /// The unidirectional streams of the peer, until the session is over.
    fn uni_streams(slf: Py<Self>) -> Iteration {
        Iteration {
            session: slf,
            what: What::Uni,
        }
    }

    /// The datagrams of the peer, until the session is over.
    fn datagrams(slf: Py<Self>) -> Iteration {
        Iteration {
            session: slf,
            what: What::Datagrams,
        }
    }

    /// Sends a datagram, unreliably, and returns at once.
    fn send_datagram(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = bytes_of(data)?;
        self.session
            .send_datagram(&data)
            .map_err(|error| failure::datagram(&error))
    }

    /// The next datagram.
    fn recv_datagram(&self) -> Await {
        let session = self.session.clone();
        Await::future(&self.hub, async move {
            let data = session
                .recv_datagram()
                .await
                .map_err(|error| failure::session(&error))?;
            Ok(Chunk(data))
        })
    }

    /// What fits into a datagram now, in bytes; None if the peer takes none.
    #[getter]
    fn max_datagram_size(&self) -> Option<usize> {
        self.session.max_datagram_size()
    }

    /// Closes the session; the first close counts.
    #[pyo3(signature = (code = 0, reason = ""))]
    fn close(&self, code: u32, reason: &str) {
        self.session.close(code, reason);
    }

    /// Waits for the end, and returns the exception that says how it was.
    fn closed(&self) -> Await {
        let session = self.session.clone();
        Await::future(&self.hub, async move {
            let ended = failure::session(&session.closed().await);
            Ok(Python::attach(|py| ended.into_value(py)))
        })
    }

    /// Whether the session is over.
    #[getter]
    fn is_closed(&self) -> bool {
        self.session.close_reason().is_some()
    }

    /// Asks the peer to end the session soon.
    fn drain(&self) {
        self.session.drain();
    }

    /// Waits until the peer asks for that, or the session is over.
    fn draining(&self) -> Await {
        let session = self.session.clone();
        Await::future(&self.hub, async move {
            session.draining().await;
            Ok(())
        })
    }

    /// The subprotocol that was agreed on.
    #[getter]
    fn protocol(&self) -> Option<&str> {
        self.session.protocol()
    }

    /// Host and port of the peer.
    #[getter]
    fn remote_address(&self) -> (String, u16) {
        let address = self.session.remote_address();
        (address.ip().to_string(), address.port())
    }

    /// Client: status and fields of the server's response.
    #[getter]
    fn response<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(response) = self.session.response() else {
            return Ok(None);
        };
        let headers: Vec<(&str, Bound<'_, PyBytes>)> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), PyBytes::new(py, value.as_bytes())))
            .collect();
        let made = PyDict::new(py);
        made.set_item("status", response.status().as_u16())?;
        made.set_item("headers", headers)?;
        Ok(Some(made))
    }

    /// The number of the session on its connection.
    #[getter]
    fn id(&self) -> u64 {
        self.session.id()
    }

    fn __aenter__(slf: Py<Self>) -> Await {
        let hub = slf.get().hub.clone();
        Await::future(&hub, async move { Ok(slf) })
    }

    /// Closes the session, with code 1 if an exception is on its way.
    #[pyo3(signature = (kind, _error, _trace))]
    fn __aexit__(&self, kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) -> Await {
        self.session.close(u32::from(!kind.is_none()), "");
        Await::future(&self.hub, async { Ok(()) })
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.session)
    }
}

enum What {
    Bi,
    Uni,
    Datagrams,
}

/// What `async for` goes over.
#[pyclass(module = "wireloom._wireloom", frozen)]
pub(super) struct Iteration {
    session: Py<Session>,
    what: What,
}

#[pymethods]
impl Iteration {
    fn __aiter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __anext__(&self) -> Await {
        let Session { hub, session } = self.session.get();
        let (own, session) = (hub.clone(), session.clone());
        // The end of the session is the end of the iteration, however it came.
        let end = |_| PyStopAsyncIteration::new_err(());
        match self.what {
            What::Bi => Await::future(hub, async move {
                Ok(Session::pair(own, session.accept_bi().await.map_err(end)?))
            }),
            What::Uni => Await::future(hub, async move {
                Ok(RecvStream::new(own, session.accept_uni().await.map_err(end)?))
            }),
            What::Datagrams => Await::future(
                hub,
                async move { Ok(Chunk(session.recv_datagram().await.map_err(end)?)) },
            ),
        }
    }
}
