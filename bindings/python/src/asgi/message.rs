//! Reading the messages that applications send. Whatever is wrong with one is an exception for the application that sent it.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple};

/// A message, which has to be a dictionary with a `type`.
pub(crate) struct Message<'a, 'py> {
    fields: &'a Bound<'py, PyDict>,
    kind: Bound<'py, PyString>,
}

impl<'a, 'py> Message<'a, 'py> {
    pub(crate) fn new(message: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let fields = message
            .cast::<PyDict>()
            .map_err(|_| PyTypeError::new_err(format!("an ASGI message is a dict, not {}", type_name(message))))?;
        let kind = fields
            .get_item(pyo3::intern!(message.py(), "type"))?
            .ok_or_else(|| PyValueError::new_err("an ASGI message has a 'type'"))?;
        let kind = kind
            .cast_into::<PyString>()
            .map_err(|_| PyTypeError::new_err("the 'type' of an ASGI message is a str"))?;
        Ok(Self { fields, kind })
    }

    pub(crate) fn py(&self) -> Python<'py> {
        self.kind.py()
    }

    pub(crate) fn kind(&self) -> PyResult<&str> {
        self.kind.to_str()
    }

    /// A field that is there and is not None.
    pub(crate) fn get(&self, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.fields.get_item(name)?.filter(|value| !value.is_none()))
    }

    pub(crate) fn bytes(&self, name: &Bound<'py, PyString>) -> PyResult<Bytes> {
        match self.get(name)? {
            Some(value) => bytes(&value),
            None => Ok(Bytes::new()),
        }
    }

    pub(crate) fn bool(&self, name: &Bound<'py, PyString>, default: bool) -> PyResult<bool> {
        self.get(name)?.map_or(Ok(default), |value| value.is_truthy())
    }

    pub(crate) fn text(&self, name: &Bound<'py, PyString>) -> PyResult<Option<String>> {
        self.get(name)?.map(|value| value.extract()).transpose()
    }

    pub(crate) fn integer(&self, name: &Bound<'py, PyString>) -> PyResult<Option<u64>> {
        self.get(name)?
            .map(|value| {
                value.extract().map_err(|_| {
                    PyValueError::new_err(format!("'{name}' is {}, which is no number here", text_of(&value)))
                })
            })
            .transpose()
    }

    /// The 'status' of a final response.
    pub(crate) fn status(&self) -> PyResult<StatusCode> {
        self.integer(pyo3::intern!(self.py(), "status"))?
            .and_then(|status| u16::try_from(status).ok())
            .filter(|status| (200..600).contains(status))
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| PyValueError::new_err("'status' is a number from 200 to 599"))
    }

    /// A number of 32 bits.
    pub(crate) fn code(&self, name: &Bound<'py, PyString>) -> PyResult<Option<u32>> {
        self.integer(name)?
            .map(|value| u32::try_from(value).map_err(|_| PyValueError::new_err(format!("'{name}' is beyond 32 bits"))))
            .transpose()
    }

    /// Appends the fields in 'headers'.
    pub(crate) fn headers(&self, into: &mut HeaderMap) -> PyResult<()> {
        let Some(list) = self.get(pyo3::intern!(self.kind.py(), "headers"))? else {
            return Ok(());
        };
        if let Ok(list) = list.cast::<PyList>() {
            for pair in list.iter() {
                header(&pair, into)?;
            }
            return Ok(());
        }
        for pair in list.try_iter()? {
            header(&pair?, into)?;
        }
        Ok(())
    }

    /// The application sent what it may not send now.
    pub(crate) fn unexpected(&self, expected: &str) -> PyErr {
        pyo3::exceptions::PyRuntimeError::new_err(format!(
            "expected the ASGI message {expected}, got '{}'",
            self.kind.to_string_lossy()
        ))
    }
}

fn header(pair: &Bound<'_, PyAny>, into: &mut HeaderMap) -> PyResult<()> {
    let (name, value) = if let Ok(pair) = pair.cast::<PyTuple>()
        && pair.len() == 2
    {
        (pair.get_item(0)?, pair.get_item(1)?)
    } else {
        pair.extract()
            .map_err(|_| PyTypeError::new_err("headers are pairs of bytes"))?
    };
    let name = with_bytes(&name, |name| {
        HeaderName::from_bytes(name)
            .map_err(|_| PyValueError::new_err(format!("no header is named {:?}", String::from_utf8_lossy(name))))
    })??;
    let value = with_bytes(&value, |value| {
        // Servers have always been lenient about the space around a value, not about what ends a line.
        HeaderValue::from_bytes(value.trim_ascii())
            .map_err(|_| PyValueError::new_err(format!("the value of '{name}' cannot be sent")))
    })??;
    into.try_append(name, value)
        .map_err(|_| PyValueError::new_err("too many headers"))?;
    Ok(())
}

fn with_bytes<T>(value: &Bound<'_, PyAny>, f: impl FnOnce(&[u8]) -> T) -> PyResult<T> {
    if let Ok(value) = value.cast::<PyBytes>() {
        return Ok(f(value.as_bytes()));
    }
    Ok(f(&bytes(value)?))
}

/// The bytes of anything that holds bytes.
pub(crate) fn bytes(value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(value) = value.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(value.as_bytes()));
    }
    if let Ok(value) = value.cast::<PyByteArray>() {
        return Ok(value.to_vec().into());
    }
    Ok(Bytes::copy_from_slice(&backed(value)?))
}

/// Bytes that stay Python's, where they are `bytes`, for what goes on to copy them.
pub(crate) fn backed(value: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    if let Ok(value) = value.cast::<PyBytes>() {
        return Ok(value.clone().into());
    }
    if value.is_instance_of::<PyString>() || value.is_instance_of::<pyo3::types::PyInt>() {
        return Err(PyTypeError::new_err(format!(
            "bytes are needed, not {}",
            type_name(value)
        )));
    }
    // bytearray, memoryview and everything else with a buffer, by way of Python itself.
    let copied = value
        .py()
        .get_type::<PyBytes>()
        .call1((value,))
        .map_err(|_| PyTypeError::new_err(format!("bytes are needed, not {}", type_name(value))))?;
    Ok(copied.cast_into::<PyBytes>()?.into())
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value
        .get_type()
        .name()
        .map_or_else(|_| "that".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn text_of(value: &Bound<'_, PyAny>) -> String {
    value
        .repr()
        .map_or_else(|_| "that".to_owned(), |text| text.to_string_lossy().into_owned())
}
