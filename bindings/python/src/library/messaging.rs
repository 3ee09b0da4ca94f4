//! The messaging client.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::{PyStopAsyncIteration, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use tokio::sync::Notify;
use wireloom::ServerTrust;
use wireloom_messaging::client::{Client, RequestError};
use wireloom_messaging::{Data, IncomingMessage};

use super::client::hash_of;
use super::failure;
use crate::asgi::bytes_of;
use crate::awaitable::Await;
use crate::errors;
use crate::event_loop::hub_of;
use crate::hub::Hub;

create_exception!(
    wireloom,
    RequestFailed,
    errors::WireloomError,
    "There is no reply. `code` is the handler's error code, or None where the handler has given none; `is_retryable` and `may_have_been_handled` say what a repetition would mean."
);

/// Signals that wait for the application; beyond that the oldest are dropped.
const SIGNALS: usize = 1024;

#[derive(Default)]
struct Signals {
    waiting: Mutex<VecDeque<IncomingMessage>>,
    news: Notify,
}

impl Signals {
    fn push(&self, signal: IncomingMessage) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == SIGNALS {
            waiting.pop_front();
        }
        waiting.push_back(signal);
        drop(waiting);
        self.news.notify_one();
    }

    async fn next(&self) -> IncomingMessage {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(signal) = next {
                return signal;
            }
            self.news.notified().await;
        }
    }
}

/// Requests, replies and signals over WebTransport, or WebSocket where that is blocked.
#[pyclass(module = "wireloom.messaging", name = "MessagingClient", frozen)]
pub(super) struct MessagingClient {
    hub: Arc<Hub>,
    client: Client,
    signals: Arc<Signals>,
}

#[pymethods]
impl MessagingClient {
    /// Connects; the client reconnects by itself from then on.
    #[staticmethod]
    #[pyo3(signature = (url, *, certificate_hashes = Vec::new(), verify = true, request_timeout = 60.0, connect_timeout = 10.0))]
    fn connect(
        py: Python<'_>,
        url: &str,
        certificate_hashes: Vec<Bound<'_, PyAny>>,
        verify: bool,
        request_timeout: f64,
        connect_timeout: f64,
    ) -> PyResult<Await> {
        let seconds = |value: f64| {
            Duration::try_from_secs_f64(value).map_err(|_| PyValueError::new_err("a time is a number of seconds"))
        };
        let signals = Arc::<Signals>::default();
        let received = signals.clone();
        let mut builder = Client::builder(url)
            .request_timeout(seconds(request_timeout)?)
            .connect_timeout(seconds(connect_timeout)?)
            .on_signal(move |signal| received.push(signal));
        if !certificate_hashes.is_empty() {
            let hashes = certificate_hashes.iter().map(hash_of).collect::<PyResult<Vec<_>>>()?;
            builder = builder.trust(ServerTrust::Hashes(hashes));
        } else if !verify {
            builder = builder.trust(ServerTrust::Insecure);
        }
        let hub = hub_of(py)?;
        Ok(Await::future(&hub.clone(), async move {
            let client = builder.connect().await;
            let client = client.map_err(|error| failure::connect_without_status(error.to_string()))?;
            Ok(Self { hub, client, signals })
        }))
    }

    /// Asks the handler of that name; `data` is text or bytes. Cancelled, the handler is told.
    #[pyo3(signature = (name, data, *, timeout = None, idempotent = false))]
    fn request(
        &self,
        name: String,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        idempotent: bool,
    ) -> PyResult<Await> {
        let data = data_of(data)?;
        let timeout = timeout
            .map(Duration::try_from_secs_f64)
            .transpose()
            .map_err(|_| PyValueError::new_err("a time is a number of seconds"))?;
        let client = self.client.clone();
        Ok(Await::future(&self.hub, async move {
            let mut request = client.request(name, data);
            if let Some(timeout) = timeout {
                request = request.timeout(timeout);
            }
            if idempotent {
                request = request.idempotent();
            }
            let reply = request.await.map_err(|error| failed(&error))?;
            Ok(Payload(reply))
        }))
    }

    /// Tells the handler of that name something, without a reply.
    fn signal(&self, name: String, data: &Bound<'_, PyAny>) -> PyResult<Await> {
        let data = data_of(data)?;
        let client = self.client.clone();
        Ok(Await::future(&self.hub, async move {
            client.signal(name, data).await.map_err(|error| failed(&error))?;
            Ok(())
        }))
    }

    /// The signals of the server: `async for message in client.signals()`.
    fn signals(slf: Py<Self>) -> SignalIteration {
        SignalIteration(slf)
    }

    /// Closes the connection for good.
    fn close(&self) -> Await {
        let client = self.client.clone();
        Await::future(&self.hub, async move {
            client.close().await;
            Ok(())
        })
    }

    fn __aenter__(slf: Py<Self>) -> Await {
        let hub = slf.get().hub.clone();
        Await::future(&hub, async move { Ok(slf) })
    }

    #[pyo3(signature = (*_raised))]
    fn __aexit__(&self, _raised: &Bound<'_, pyo3::types::PyTuple>) -> Await {
        self.close()
    }
}

/// A signal.
#[pyclass(module = "wireloom.messaging", name = "Message", frozen)]
pub(super) struct Message(IncomingMessage);

#[pymethods]
impl Message {
    /// The name, or None if it is no UTF-8.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Text or bytes, as it was sent.
    #[getter]
    fn data(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        payload(py, self.0.data())
    }
}

/// What `async for` goes over.
#[pyclass(module = "wireloom._wireloom", frozen)]
pub(super) struct SignalIteration(Py<MessagingClient>);

#[pymethods]
impl SignalIteration {
    fn __aiter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __anext__(&self) -> Await {
        let client = self.0.get();
        let (signals, own) = (client.signals.clone(), client.client.clone());
        Await::future(&client.hub, async move {
            tokio::select! {
                biased;
                signal = signals.next() => Ok(Message(signal)),
                _ = own.closed() => Err(PyStopAsyncIteration::new_err(())),
            }
        })
    }
}

struct Payload(Data);

impl<'py> IntoPyObject<'py> for Payload {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        payload(py, &self.0).map(|value| value.into_bound(py))
    }
}

fn payload(py: Python<'_>, data: &Data) -> PyResult<Py<PyAny>> {
    if data.encoding == wireloom_messaging::codec::Encoding::Binary {
        return Ok(PyBytes::new(py, &data.bytes).into_any().unbind());
    }
    let text = data.text().map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyString::new(py, &text).into_any().unbind())
}

fn data_of(value: &Bound<'_, PyAny>) -> PyResult<Data> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(Data::from(text.to_str()?)),
        Err(_) => Ok(Data::binary(bytes_of(value)?)),
    }
}

fn failed(error: &RequestError) -> PyErr {
    if matches!(error, RequestError::TimedOut) {
        return PyTimeoutError::new_err(error.to_string());
    }
    Python::attach(|py| {
        let code = match error {
            RequestError::Application { code, .. } => Some(code.clone()),
            _ => None,
        };
        let made = RequestFailed::new_err(error.to_string());
        // A fresh exception takes any attribute.
        let value = made.value(py);
        let _ = value.setattr("code", code);
        let _ = value.setattr("is_retryable", error.is_retryable());
        let _ = value.setattr("may_have_been_handled", error.may_have_been_handled());
        made
    })
}

/// Adds the exception.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("RequestFailed", module.py().get_type::<RequestFailed>())
}
