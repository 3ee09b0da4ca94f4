//! From the library's errors to exceptions.

use pyo3::exceptions::{PyConnectionError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use wireloom::{ConnectError, ConnectionError, DatagramError, ReadError, SessionError, WriteError};

use crate::errors;

/// With an attribute. Where even that fails the exception is without it.
fn with<'py, T: IntoPyObject<'py>>(py: Python<'py>, error: PyErr, name: &str, value: T) -> PyErr {
    // A fresh exception takes any attribute.
    let _ = error.value(py).setattr(name, value);
    error
}

pub(super) fn session(error: &SessionError) -> PyErr {
    Python::attach(|py| {
        let made = errors::SessionClosed::new_err(error.to_string());
        let (code, reason, by_peer) = match error {
            SessionError::Closed { code, reason } => (Some(*code), reason.clone(), true),
            SessionError::LocallyClosed { code, reason } => (Some(*code), reason.clone(), false),
            error => (None, String::new(), !is_local(error)),
        };
        let made = with(py, made, "code", code);
        let made = with(py, made, "reason", reason);
        with(py, made, "by_peer", by_peer)
    })
}

fn is_local(error: &SessionError) -> bool {
    matches!(
        error,
        SessionError::Connection(ConnectionError::LocallyClosed | ConnectionError::EndpointGone)
    )
}

pub(super) fn read(error: &ReadError) -> PyErr {
    match error {
        ReadError::Reset(code) => {
            Python::attach(|py| with(py, errors::StreamReset::new_err(error.to_string()), "code", *code))
        }
        ReadError::Session(ended) => session(ended),
        error => PyValueError::new_err(error.to_string()),
    }
}

pub(super) fn write(error: &WriteError) -> PyErr {
    match error {
        WriteError::Stopped(code) => {
            Python::attach(|py| with(py, errors::StreamStopped::new_err(error.to_string()), "code", *code))
        }
        WriteError::Session(ended) => session(ended),
        error => PyValueError::new_err(error.to_string()),
    }
}

pub(crate) fn datagram(error: &DatagramError) -> PyErr {
    match error {
        DatagramError::TooLarge { max } => Python::attach(|py| {
            with(
                py,
                errors::DatagramTooLarge::new_err(error.to_string()),
                "max_size",
                *max,
            )
        }),
        DatagramError::Session(ended) => session(ended),
        error => PyConnectionError::new_err(error.to_string()),
    }
}

pub(super) fn connect(error: &ConnectError) -> PyErr {
    let text = error.to_string();
    match error {
        ConnectError::InvalidUrl(_) | ConnectError::InvalidRequest(_) => PyValueError::new_err(text),
        ConnectError::Connection(ConnectionError::HandshakeTimedOut | ConnectionError::TimedOut) => {
            PyTimeoutError::new_err(text)
        }
        ConnectError::Rejected(response) => Python::attach(|py| {
            let made = errors::ConnectError::new_err(text);
            with(py, made, "status", response.status().as_u16())
        }),
        _ => connect_without_status(text),
    }
}

/// There was no answer that has a status.
pub(super) fn connect_without_status(text: String) -> PyErr {
    Python::attach(|py| with(py, errors::ConnectError::new_err(text), "status", None::<u16>))
}
