//! WebTransport for Rust.

mod body;
mod identity;
mod limits;
#[allow(dead_code, reason = "for the QUIC client")]
mod resolve;
pub mod tcp;
#[allow(dead_code, unused_imports, reason = "for the QUIC client and server")]
mod tls;

pub use body::{Body, BodyError, RemoteAddr};
pub use identity::{CertificateHash, CertificateHashes, Identity, IdentityError, ParseHashError, PemPair};
pub use limits::{ConnectionLimits, ConnectionPermit, Refused};
pub use resolve::{LookupFuture, Resolve, SystemResolver};
pub use tls::{CertificateRejection, RootCertificates, ServerTrust, TrustError};
