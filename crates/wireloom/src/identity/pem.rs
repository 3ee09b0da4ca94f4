//! PEM text to a certificate chain with its private key.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::IdentityError;

/// Parses a chain (the server's certificate first) and the first private key, and checks that they belong together.
pub(super) fn parse(certificates: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, IdentityError> {
    let damaged = |error: pem::Error| IdentityError::Pem(error.to_string());
    let chain = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(damaged)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => IdentityError::NoPrivateKey,
        error => damaged(error),
    })?;
    certified_key(chain, key)
}

pub(super) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, IdentityError> {
    let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
    x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| IdentityError::MalformedCertificate(error.to_string()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => IdentityError::KeyMismatch,
            rustls::Error::InvalidCertificate(error) => IdentityError::MalformedCertificate(format!("{error:?}")),
            error => IdentityError::UnusableKey(error.to_string()),
        })
}
