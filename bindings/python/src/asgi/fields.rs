//! Fields of responses that are the server's business.

use http::header::{self, HeaderMap, HeaderName};
use http::{StatusCode, Version};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// RFC 9110 section 6.4.1: no content, whatever the application sends.
pub(crate) fn may_have_content(status: StatusCode) -> bool {
    status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED && !status.is_informational()
}

/// What the application announces.
pub(crate) fn content_length(fields: &HeaderMap) -> PyResult<Option<u64>> {
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = first.to_str().ok().and_then(|text| text.parse().ok());
    match (length, lengths.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(PyValueError::new_err("Content-Length is one number")),
    }
}

/// Fields of the connection, which is not the application's (RFC 9110 section 7.6.1); HTTP/2 and HTTP/3 forbid them.
const OF_THE_CONNECTION: [HeaderName; 4] = [
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Adds what is always sent, unless the application has its own of that name.
pub(crate) fn add(fields: &mut HeaderMap, always: &HeaderMap) {
    for name in always.keys() {
        if !fields.contains_key(name) {
            for value in always.get_all(name) {
                fields.append(name.clone(), value.clone());
            }
        }
    }
}

/// Takes out what may not be sent and adds what is always sent.
pub(crate) fn prepare(fields: &mut HeaderMap, version: Version, always: &HeaderMap) {
    if fields.keys().any(|name| OF_THE_CONNECTION.contains(name)) {
        for name in &OF_THE_CONNECTION {
            fields.remove(name);
        }
    }
    add(fields, always);
    if version >= Version::HTTP_2 {
        fields.remove(header::CONNECTION);
    }
}
