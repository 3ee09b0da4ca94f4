//! Python's exceptions, which mirror the errors of the Rust library.

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::prelude::*;

create_exception!(
    wireloom,
    ClientDisconnected,
    PyOSError,
    "The client is gone: what an application sends to it reaches nobody."
);
create_exception!(
    wireloom,
    WireloomError,
    PyException,
    "The base of the library's own exceptions."
);
create_exception!(
    wireloom,
    ConnectError,
    WireloomError,
    "A server could not be reached, or refused the session."
);
create_exception!(wireloom, ServeError, WireloomError, "A server could not start.");
create_exception!(
    wireloom,
    SessionClosed,
    WireloomError,
    "The session is over. `code` and `reason` are those with which it was closed; `by_peer` says by whom."
);
create_exception!(
    wireloom,
    StreamReset,
    WireloomError,
    "The peer gave up sending. `code` is its error code, or None if it sent none that is meant for applications."
);
create_exception!(
    wireloom,
    StreamStopped,
    WireloomError,
    "The peer wants no more of the stream. `code` is its error code, or None as in `StreamReset`."
);
create_exception!(
    wireloom,
    DatagramTooLarge,
    WireloomError,
    "The datagram does not fit. `max_size` says what would."
);
create_exception!(
    wireloom,
    IdentityError,
    WireloomError,
    "A certificate or key cannot be used."
);

/// Adds them to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("ClientDisconnected", py.get_type::<ClientDisconnected>())?;
    module.add("WireloomError", py.get_type::<WireloomError>())?;
    module.add("ConnectError", py.get_type::<ConnectError>())?;
    module.add("ServeError", py.get_type::<ServeError>())?;
    module.add("SessionClosed", py.get_type::<SessionClosed>())?;
    module.add("StreamReset", py.get_type::<StreamReset>())?;
    module.add("StreamStopped", py.get_type::<StreamStopped>())?;
    module.add("DatagramTooLarge", py.get_type::<DatagramTooLarge>())?;
    module.add("IdentityError", py.get_type::<IdentityError>())
}
