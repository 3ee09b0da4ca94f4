//! TLS configurations for both ends, made from an [`Identity`](crate::Identity) or a [`ServerTrust`].

mod client;
mod peer;
mod rejection;
mod server;
mod verify;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite};

pub(crate) use client::ClientTls;
pub use client::{RootCertificates, ServerTrust, TrustError};
pub use peer::{ClientAuth, TlsInfo};
pub use rejection::CertificateRejection;
pub(crate) use server::{quic_server_config, tcp_server_config};
pub(crate) use verify::Verdicts;

/// Where the secrets of connections go: nowhere, or to the file that `SSLKEYLOGFILE` names.
pub(crate) fn key_log(write: bool) -> Arc<dyn rustls::KeyLog> {
    if write {
        Arc::new(rustls::KeyLogFile::new())
    } else {
        Arc::new(rustls::NoKeyLog)
    }
}

/// HTTP/3's ALPN name (RFC 9114, section 3.1).
const ALPN_H3: &[u8] = b"h3";
/// HTTP/2's ALPN name (RFC 9113, section 3.3).
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// HTTP/1.1's ALPN name (RFC 7301, section 6).
const ALPN_HTTP11: &[u8] = b"http/1.1";

/// Named at every use, so that no process-wide default provider is needed or touched.
/// AES-128-GCM first: both suites are beyond reach, and on bulk data the longer key costs a tenth of the throughput.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let is_other = |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(is_other);
    Arc::new(provider)
}

#[cfg(test)]
mod tests;
