//! Why a client refused a server's certificate.

use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::identity::CertificateHash;

/// Why a client refused a server's certificate: the server's fault, or that of whoever told the client what to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateRejection {
    /// Certificate hashes were given and the server's certificate has none of them.
    #[error("the server's certificate has the unexpected hash {presented}")]
    HashMismatch {
        /// The hash of what the server presented.
        presented: CertificateHash,
    },
    /// Trusted by hash, but valid for more than 14 days in all, which the W3C API forbids.
    #[error("a certificate trusted by its hash may be valid for 14 days at most, this one is for {days}")]
    ValidityTooLong {
        /// Days from its beginning to its end, rounded up.
        days: u64,
    },
    /// Trusted by hash, but its key is not ECDSA on P-256 or P-384, which the W3C API forbids.
    #[error("a certificate trusted by its hash needs an ECDSA key on P-256 or P-384")]
    KeyAlgorithm,
    /// It is not valid yet. Is one of the two clocks wrong?
    #[error("the server's certificate is not valid yet")]
    NotYetValid,
    /// It is not valid any more.
    #[error("the server's certificate has expired")]
    Expired,
    /// No trusted root vouches for it. Self-signed certificates end here unless their hash is given.
    #[error("the server's certificate was issued by nobody whom this client trusts")]
    UnknownIssuer,
    /// It belongs to another name than the one that was dialled.
    #[error("the server's certificate is for another name")]
    WrongName,
    /// Its issuer has withdrawn it.
    #[error("the server's certificate has been revoked")]
    Revoked,
    /// The server did not prove that it has the certificate's private key, or the issuer whom the certificate names did
    /// not sign it.
    #[error("a signature by the server or on its certificate is wrong")]
    BadSignature,
    /// It is not a valid X.509 certificate.
    #[error("the server's certificate is malformed")]
    Malformed,
    /// Something rarer, in the words of the TLS library.
    #[error("the server's certificate was refused: {0}")]
    Other(String),
}

impl CertificateRejection {
    /// Finds the rejection in an error of rustls; `None` when the error is about something else.
    pub(crate) fn from_rustls(error: &rustls::Error) -> Option<Self> {
        let rustls::Error::InvalidCertificate(error) = error else {
            return None;
        };
        Some(match error {
            CertificateError::Other(OtherError(inner)) => inner
                .downcast_ref::<Self>()
                .cloned()
                .unwrap_or_else(|| Self::Other(inner.to_string())),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::BadEncoding => Self::Malformed,
            error => Self::Other(error.to_string()),
        })
    }
}

impl From<CertificateRejection> for rustls::Error {
    fn from(rejection: CertificateRejection) -> Self {
        CertificateError::Other(OtherError(Arc::new(rejection))).into()
    }
}
