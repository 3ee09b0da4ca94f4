//! Dialling servers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use wireloom::{CertificateHash, RootCertificates};

use super::failure;
use super::session::Session;
use crate::awaitable::Await;
use crate::event_loop::hub_of;
use crate::hub::Hub;

/// Dials WebTransport servers. It belongs to the event loop in which it is first used.
#[pyclass(module = "wireloom", name = "Client", frozen)]
pub(super) struct Client {
    client: wireloom::Client,
    hub: OnceLock<Arc<Hub>>,
}

/// A SHA-256 from bytes, or hexadecimal digits with or without colons.
pub(super) fn hash_of(value: &Bound<'_, PyAny>) -> PyResult<CertificateHash> {
    let wrong = || PyValueError::new_err("a certificate hash is 32 bytes, or 64 hexadecimal digits");
    if let Ok(text) = value.extract::<String>() {
        return text.parse().map_err(|_| wrong());
    }
    let bytes: Vec<u8> = value.extract().map_err(|_| wrong())?;
    Ok(CertificateHash::new(bytes.try_into().map_err(|_| wrong())?))
}

impl Client {
    fn hub(&self, py: Python<'_>) -> PyResult<&Arc<Hub>> {
        if let Some(hub) = self.hub.get() {
            return Ok(hub);
        }
        let hub = hub_of(py)?;
        Ok(self.hub.get_or_init(|| hub))
    }
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (
        *, certificate_hashes = Vec::new(), roots = None, verify = true, connect_timeout = 10.0, idle_timeout = 30.0,
        keep_alive = Some(15.0)
    ))]
    fn new(
        certificate_hashes: Vec<Bound<'_, PyAny>>,
        roots: Option<String>,
        verify: bool,
        connect_timeout: f64,
        idle_timeout: f64,
        keep_alive: Option<f64>,
    ) -> PyResult<Self> {
        let seconds = |value: f64| {
            Duration::try_from_secs_f64(value).map_err(|_| PyValueError::new_err("a time is a number of seconds"))
        };
        let mut builder = wireloom::Client::builder()
            .connect_timeout(seconds(connect_timeout)?)
            .idle_timeout(seconds(idle_timeout)?)
            .keep_alive(keep_alive.map(seconds).transpose()?);
        for hash in &certificate_hashes {
            builder = builder.server_certificate_hash(hash_of(hash)?);
        }
        if let Some(pem) = roots {
            let roots = RootCertificates::from_pem(pem).map_err(|error| PyValueError::new_err(error.to_string()))?;
            builder = builder.root_certificates(roots);
        }
        if !verify {
            builder = builder.dangerous().accept_any_certificate();
        }
        Ok(Self {
            client: builder.build().map_err(|error| failure::connect(&error))?,
            hub: OnceLock::new(),
        })
    }

    /// Opens a session.
    #[pyo3(signature = (url, *, protocols = Vec::new(), headers = Vec::new(), origin = None))]
    fn connect(
        &self,
        py: Python<'_>,
        url: &str,
        protocols: Vec<String>,
        headers: Vec<(String, String)>,
        origin: Option<String>,
    ) -> PyResult<Await> {
        let mut session = self.client.session(url).protocols(protocols);
        for (name, value) in headers {
            let name = HeaderName::try_from(name).map_err(|error| PyValueError::new_err(error.to_string()))?;
            let value = HeaderValue::try_from(value).map_err(|error| PyValueError::new_err(error.to_string()))?;
            session = session.header(name, value);
        }
        if let Some(origin) = origin {
            session = session.origin(origin);
        }
        let hub = self.hub(py)?.clone();
        Ok(Await::future(&hub.clone(), async move {
            let session = session.connect().await.map_err(|error| failure::connect(&error))?;
            Ok(Session::new(hub, session))
        }))
    }

    /// Closes what is unused and waits for the rest, so that the last words are out.
    fn close(&self, py: Python<'_>) -> PyResult<Await> {
        let client = self.client.clone();
        Ok(Await::future(self.hub(py)?, async move {
            client.shut_down().await;
            Ok(())
        }))
    }

    fn __aenter__(slf: Py<Self>, py: Python<'_>) -> PyResult<Await> {
        let hub = slf.get().hub(py)?.clone();
        Ok(Await::future(&hub, async move { Ok(slf) }))
    }

    #[pyo3(signature = (*_raised))]
    fn __aexit__(&self, py: Python<'_>, _raised: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<Await> {
        self.close(py)
    }
}
