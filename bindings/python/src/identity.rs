//! Certificates, for servers.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::errors::IdentityError;

/// A server's certificate and private key.
#[pyclass(module = "wireloom", name = "Identity", frozen)]
pub(crate) struct Identity(pub(crate) wireloom::Identity);

#[pymethods]
impl Identity {
    /// A self-signed certificate for 13 days, which browsers accept by its hash.
    #[staticmethod]
    fn self_signed(names: Vec<String>) -> PyResult<Self> {
        wireloom::Identity::self_signed(names).map(Self).map_err(failed)
    }

    /// Self-signed certificates that replace each other before they expire.
    #[staticmethod]
    fn rotating(names: Vec<String>) -> PyResult<Self> {
        wireloom::Identity::rotating(names).map(Self).map_err(failed)
    }

    /// A certificate chain and its private key, as PEM.
    #[staticmethod]
    fn pem(certificate: &str, private_key: &str) -> PyResult<Self> {
        wireloom::Identity::pem(certificate, private_key)
            .map(Self)
            .map_err(failed)
    }

    /// The same from files, which are read again when they change.
    #[staticmethod]
    fn pem_files(certificate: PathBuf, private_key: PathBuf) -> PyResult<Self> {
        wireloom::Identity::pem_files(certificate, private_key)
            .map(Self)
            .map_err(failed)
    }

    /// The SHA-256 of the certificate, for `serverCertificateHashes`.
    #[getter]
    fn certificate_hash(&self) -> Vec<u8> {
        self.0.certificate_sha256().as_bytes().to_vec()
    }

    /// The SHA-256 of the certificate that will be presented next, if there is one.
    #[getter]
    fn next_certificate_hash(&self) -> Option<Vec<u8>> {
        self.0.certificate_hashes().next.map(|hash| hash.as_bytes().to_vec())
    }
}

fn failed(error: wireloom::IdentityError) -> PyErr {
    IdentityError::new_err(error.to_string())
}

/// As long as browsers let a certificate be pinned, less a day.
const DAYS: u32 = 13;

/// A new self-signed certificate and its key as PEM, for several processes that share it.
#[pyfunction]
pub(crate) fn self_signed_pem(names: Vec<String>) -> PyResult<(String, String)> {
    let pair = wireloom::PemPair::self_signed(names, DAYS).map_err(failed)?;
    Ok((pair.certificate, pair.private_key))
}
