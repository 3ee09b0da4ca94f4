//! Which servers a client trusts, and the TLS configuration that follows.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::verify::{Observed, Pin, Pinned};
use super::{ALPN_H3, Verdicts, key_log, provider};
use crate::identity::{CertificateHash, Identity};

/// Which servers a client trusts.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum ServerTrust {
    /// Those that the operating system trusts. The default.
    #[default]
    Platform,
    /// Those whose certificate chain ends at one of these roots; the name must match, too.
    Roots(RootCertificates),
    /// Those whose certificate has one of these hashes, under the rules of the W3C `serverCertificateHashes`: valid now,
    /// for at most 14 days in all, with an ECDSA key on P-256 or P-384. Its names and its issuer do not matter.
    Hashes(Vec<CertificateHash>),
    /// Those that this accepts, as by a pinned public key, on first use, or by an identity of SPIFFE. All of its security rests
    /// on it: a verifier has to check the signatures of the handshake, too.
    Verifier(Arc<dyn ServerCertVerifier>),
    /// Any server at all. Whoever sits on the way can read and change everything: for tests only.
    Insecure,
}

impl ServerTrust {
    /// A TLS configuration with this trust for connections over TCP, such as a WebSocket's beside the sessions of a
    /// [`Client`](crate::Client): TLS 1.2 and 1.3, no ALPN. With an `identity` the client shows it to servers that ask for one
    /// (mutual TLS).
    ///
    /// Reads the operating system's roots when it must, which blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn tcp_client_config(&self, identity: Option<&Identity>) -> Result<ClientConfig, TrustError> {
        client_config(&[&TLS13, &TLS12], verifier(self)?, identity)
    }
}

/// Root certificates of one's own, to trust instead of those of the operating system. A cheap clone.
#[derive(Clone)]
pub struct RootCertificates(pub(super) Arc<RootCertStore>);

impl RootCertificates {
    /// Reads every certificate of a PEM text.
    ///
    /// # Errors
    /// [`TrustError::Pem`], [`TrustError::NoRoots`] when there is none, [`TrustError::BadRoot`] when one is unusable.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, TrustError> {
        let certificates = CertificateDer::pem_slice_iter(pem.as_ref())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TrustError::Pem(error.to_string()))?;
        Self::new(certificates)
    }

    /// Takes certificates in DER.
    ///
    /// # Errors
    /// [`TrustError::NoRoots`] when there is none, [`TrustError::BadRoot`] when one is unusable.
    pub fn from_der<D: Into<Vec<u8>>>(certificates: impl IntoIterator<Item = D>) -> Result<Self, TrustError> {
        Self::new(certificates.into_iter().map(|der| CertificateDer::from(der.into())))
    }

    fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| TrustError::BadRoot(error.to_string()))?;
        }
        if roots.is_empty() {
            Err(TrustError::NoRoots)
        } else {
            Ok(Self(Arc::new(roots)))
        }
    }
}

impl fmt::Debug for RootCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCertificates")
            .field("count", &self.0.len())
            .finish()
    }
}

/// Why a client cannot tell whom to trust: a fault of its configuration or of the machine, never of a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The operating system's root certificates cannot be used, or there are none.
    #[error("cannot use the root certificates of the operating system")]
    Platform(#[source] rustls::Error),
    /// The PEM text is damaged.
    #[error("damaged PEM: {0}")]
    Pem(String),
    /// Not one root certificate was given.
    #[error("no root certificate was given")]
    NoRoots,
    /// One of the root certificates is unusable.
    #[error("unusable root certificate: {0}")]
    BadRoot(String),
    /// An empty list of hashes would refuse every server.
    #[error("no certificate hash was given")]
    NoHashes,
    /// The TLS library refused the configuration. Not expected to happen.
    #[error("cannot configure TLS")]
    Tls(#[from] rustls::Error),
}

/// The client's TLS for QUIC, from which each connection gets its configuration.
#[derive(Debug)]
pub(crate) struct ClientTls {
    config: ClientConfig,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl ClientTls {
    /// TLS 1.3 only (RFC 9001, section 4.2), asking for HTTP/3. Reads the operating system's roots when it must, which
    /// blocks for some milliseconds.
    pub(crate) fn new(trust: &ServerTrust, identity: Option<&Identity>) -> Result<Self, TrustError> {
        let verifier = verifier(trust)?;
        let mut config = client_config(&[&TLS13], Arc::clone(&verifier), identity)?;
        config.alpn_protocols = vec![ALPN_H3.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config, verifier })
    }

    /// Whether secrets are written to the file that `SSLKEYLOGFILE` names.
    pub(crate) fn with_key_log(mut self, write: bool) -> Self {
        self.config.key_log = key_log(write);
        self
    }

    /// A configuration for one connection, which does not resume another, and where to read afterwards what became of
    /// the server's certificate.
    pub(crate) fn observed(&self) -> (ClientConfig, Arc<Verdicts>) {
        let verdicts = Arc::<Verdicts>::default();
        let verifier = Observed::new(Arc::clone(&self.verifier), Arc::clone(&verdicts));
        let mut config = self.config.clone();
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        (config, verdicts)
    }

    /// The same for all connections to one server, which resume each other and send early data. Their verifier is one, or TLS would
    /// not resume.
    pub(crate) fn resuming(&self) -> (ClientConfig, Arc<Verdicts>) {
        let (mut config, verdicts) = self.observed();
        // One server; each has room for a few tickets.
        config.resumption = Resumption::in_memory_sessions(8);
        config.enable_early_data = true;
        (config, verdicts)
    }
}

fn client_config(
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, TrustError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(identity.client_resolver()),
        None => builder.with_no_client_auth(),
    })
}

fn verifier(trust: &ServerTrust) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
    Ok(match trust {
        ServerTrust::Platform => {
            Arc::new(rustls_platform_verifier::Verifier::new(provider()).map_err(TrustError::Platform)?)
        }
        ServerTrust::Roots(roots) => WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.0), provider())
            .build()
            .map_err(|error| TrustError::BadRoot(error.to_string()))?,
        ServerTrust::Hashes(hashes) if hashes.is_empty() => return Err(TrustError::NoHashes),
        ServerTrust::Hashes(hashes) => Arc::new(Pinned::new(Pin::Hashes(hashes.clone()))),
        ServerTrust::Verifier(verifier) => Arc::clone(verifier),
        ServerTrust::Insecure => Arc::new(Pinned::new(Pin::Anything)),
    })
}
