//! WebTransport for Rust.

mod body;
mod identity;
mod limits;
mod resolve;
pub mod tcp;
mod tls;

pub use body::{Body, BodyError, RemoteAddr};
pub use identity::{CertificateHash, CertificateHashes, Identity, IdentityError, ParseHashError, PemPair};
pub use limits::{ConnectionLimits, ConnectionPermit, Refused};
pub use resolve::{LookupFuture, Resolve, SystemResolver};
pub use tls::{CertificateRejection, RootCertificates, ServerTrust, TrustError};
