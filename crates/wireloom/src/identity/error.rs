//! Why an identity could not be loaded or made.

use std::io;
use std::path::PathBuf;

/// Why an [`Identity`](super::Identity) could not be loaded or made. Each variant says what to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file is missing or may not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file in question.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The PEM text is damaged (a section without its end, or base64 that does not decode).
    #[error("damaged PEM: {0}")]
    Pem(String),
    /// The PEM text holds no `CERTIFICATE` section, or the chain is empty.
    #[error("there is no certificate")]
    NoCertificate,
    /// The PEM text holds no private key (`PRIVATE KEY`, `EC PRIVATE KEY` or `RSA PRIVATE KEY`).
    #[error("the PEM text holds no private key")]
    NoPrivateKey,
    /// The first certificate is not valid X.509.
    #[error("malformed certificate: {0}")]
    MalformedCertificate(String),
    /// The private key has an algorithm or an encoding that TLS cannot use here (encrypted keys among them).
    #[error("unusable private key: {0}")]
    UnusableKey(String),
    /// The certificate was issued for another private key.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// A name is neither an IP address nor an ASCII DNS name (write international names in their `xn--` form).
    #[error("not a DNS name or IP address: {0:?}")]
    InvalidName(String),
    /// No name was given.
    #[error("a certificate needs at least one name")]
    NoName,
    /// The validity in days is zero, or so long that the date cannot be written.
    #[error("a certificate cannot be valid for {0} days")]
    InvalidValidity(u32),
    /// Making the key or signing the certificate failed. Not expected to happen.
    #[error("cannot generate a certificate: {0}")]
    Generate(String),
}
