//! Serving sessions, without ASGI.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::failure;
use super::session::Session;
use crate::awaitable::Await;
use crate::errors::ServeError;
use crate::event_loop::hub_of;
use crate::hub::Hub;
use crate::identity::Identity;

/// Accepts sessions: `async for request in server`.
#[pyclass(module = "wireloom", name = "Server", frozen)]
pub(super) struct Server {
    hub: Arc<Hub>,
    server: Arc<wireloom::Server>,
}

#[pymethods]
impl Server {
    /// Binds UDP of `address` (`host:port`) and starts to listen.
    #[staticmethod]
    #[pyo3(signature = (address, identity, *, origins = Vec::new(), shutdown_deadline = 10.0, max_sessions_per_connection = 16))]
    fn listen(
        py: Python<'_>,
        address: &str,
        identity: &Bound<'_, Identity>,
        origins: Vec<String>,
        shutdown_deadline: f64,
        max_sessions_per_connection: usize,
    ) -> PyResult<Await> {
        let deadline = Duration::try_from_secs_f64(shutdown_deadline)
            .map_err(|_| PyValueError::new_err("a time is a number of seconds"))?;
        let mut builder = wireloom::Server::builder()
            .bind(address)
            .identity(identity.get().0.clone())
            .max_sessions_per_connection(max_sessions_per_connection)
            .shutdown_deadline(deadline);
        for origin in origins {
            builder = builder.allow_origin(origin);
        }
        let hub = hub_of(py)?;
        Ok(Await::future(&hub.clone(), async move {
            let server = builder.listen().await;
            let server = server.map_err(|error| ServeError::new_err(error.to_string()))?;
            Ok(Self {
                hub,
                server: Arc::new(server),
            })
        }))
    }

    /// The bound addresses, as host and port.
    #[getter]
    fn addresses(&self) -> Vec<(String, u16)> {
        let addresses = self.server.local_addrs();
        addresses
            .iter()
            .map(|address| (address.ip().to_string(), address.port()))
            .collect()
    }

    /// The next session that a client asks for; None once the server is shut down.
    fn accept(&self) -> Await {
        let (hub, server) = (self.hub.clone(), self.server.clone());
        Await::future(&self.hub, async move {
            Ok(server.accept().await.map(|request| SessionRequest::new(hub, request)))
        })
    }

    fn __aiter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __anext__(&self) -> Await {
        let (hub, server) = (self.hub.clone(), self.server.clone());
        Await::future(&self.hub, async move {
            match server.accept().await {
                Some(request) => Ok(SessionRequest::new(hub, request)),
                None => Err(PyStopAsyncIteration::new_err(())),
            }
        })
    }

    /// Ends in good order: refuses newcomers, waits for sessions until the deadline, closes the rest.
    #[pyo3(signature = (code = 0, reason = ""))]
    fn close(&self, code: u32, reason: &str) -> Await {
        let (server, reason) = (self.server.clone(), reason.to_owned());
        Await::future(&self.hub, async move {
            server.shut_down(code, &reason).await;
            Ok(())
        })
    }

    fn __aenter__(slf: Py<Self>) -> Await {
        let hub = slf.get().hub.clone();
        Await::future(&hub, async move { Ok(slf) })
    }

    #[pyo3(signature = (*_raised))]
    fn __aexit__(&self, _raised: &Bound<'_, pyo3::types::PyTuple>) -> Await {
        self.close(0, "")
    }
}

/// A session that a client asks for. Dropped without an answer it is rejected with 503.
#[pyclass(module = "wireloom", name = "SessionRequest", frozen)]
pub(super) struct SessionRequest {
    hub: Arc<Hub>,
    path: String,
    query: Option<String>,
    authority: String,
    origin: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    protocols: Vec<String>,
    remote: (String, u16),
    request: Mutex<Option<wireloom::SessionRequest>>,
}

impl SessionRequest {
    fn new(hub: Arc<Hub>, request: wireloom::SessionRequest) -> Self {
        let headers = request.headers().iter();
        let remote = request.remote_address();
        Self {
            hub,
            path: request.path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            authority: request.authority().to_owned(),
            origin: request.origin().map(str::to_owned),
            headers: headers
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect(),
            protocols: request.offered_protocols().to_vec(),
            remote: (remote.ip().to_string(), remote.port()),
            request: Mutex::new(Some(request)),
        }
    }

    fn take(&self) -> PyResult<wireloom::SessionRequest> {
        self.request
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("the request was answered before"))
    }
}

#[pymethods]
impl SessionRequest {
    /// The path, without the query.
    #[getter]
    fn path(&self) -> &str {
        &self.path
    }

    #[getter]
    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Host and port as the client named them.
    #[getter]
    fn authority(&self) -> &str {
        &self.authority
    }

    /// The page's origin; programs send none.
    #[getter]
    fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Vec<(String, Bound<'py, PyBytes>)> {
        let headers = self.headers.iter();
        headers
            .map(|(name, value)| (name.clone(), PyBytes::new(py, value)))
            .collect()
    }

    /// What the client offers, most preferred first.
    #[getter]
    fn protocols(&self) -> Vec<String> {
        self.protocols.clone()
    }

    #[getter]
    fn remote_address(&self) -> (String, u16) {
        self.remote.clone()
    }

    /// Accepts the session.
    #[pyo3(signature = (protocol = None))]
    fn accept(&self, protocol: Option<String>) -> PyResult<Await> {
        if let Some(protocol) = &protocol
            && !self.protocols.contains(protocol)
        {
            return Err(PyValueError::new_err("the client did not offer that protocol"));
        }
        let request = self.take()?.protocols(protocol);
        let hub = self.hub.clone();
        Ok(Await::future(&self.hub, async move {
            let session = request.accept().await.map_err(|error| failure::session(&error))?;
            Ok(Session::new(hub, session))
        }))
    }

    /// Rejects the session with an HTTP status.
    #[pyo3(signature = (status = 403))]
    fn reject(&self, status: u16) -> PyResult<()> {
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|_| (300..600).contains(&status))
            .ok_or_else(|| PyValueError::new_err("'status' is a number from 300 to 599"))?;
        self.take()?.reject(status);
        Ok(())
    }
}
