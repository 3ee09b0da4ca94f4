//! File descriptors that Python hands over as numbers.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Takes over a descriptor that Python has made for us and will not close: the result of `os.dup` or `socket.detach`.
pub(crate) fn adopt(number: RawFd) -> PyResult<OwnedFd> {
    if number < 0 {
        return Err(PyValueError::new_err("not a file descriptor"));
    }
    // SAFETY: the callers in python/wireloom give each number away: it comes from `os.dup` or `detach` in the same
    // expression, so nobody else closes it. A number that is open nowhere makes the first use fail with EBADF.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Watches a descriptor in Tokio, within its runtime.
pub(crate) fn watch(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, and an `OwnedFd` names the same open file from its making to its
    // drop, which is what is asked of it here.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    watched.map_err(std::io::Error::from)
}
