//! Who a server is, or a client: certificates and private keys, and how they change while it runs.

mod error;
mod files;
mod generate;
mod hash;
mod pem;
mod replaceable;
mod rotating;
mod sni;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use error::IdentityError;
use files::PemFiles;
pub use generate::PemPair;
use generate::{DAY, Names, issue_key, validity_from};
pub use hash::{CertificateHash, ParseHashError};
pub use replaceable::ReplaceableIdentity;
use replaceable::Slot;
use rotating::Rotating;
use sni::ByName;

/// A server's certificate and private key, or a client's for servers that ask who it is (mutual TLS,
/// [`ClientBuilder::identity`](crate::ClientBuilder::identity)). A cheap clone; clones are the same identity and change together.
///
/// One identity serves TCP and QUIC at the same time. Nothing runs in the background: whatever changes with time (files
/// that are replaced, certificates that rotate) is looked at when a client connects or when a method is called.
///
/// `Debug` shows the kind, never a key.
#[derive(Clone)]
pub struct Identity(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    Fixed(Arc<CertifiedKey>),
    Files(PemFiles),
    Rotating(Rotating),
    ByName(ByName),
    Replaceable(Arc<Slot>),
}

/// The hashes that an application publishes for `serverCertificateHashes`: always all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateHashes {
    /// Of the certificate that is presented now.
    pub current: CertificateHash,
    /// Of the certificate that will be presented next; `None` unless the identity is a rotating one.
    pub next: Option<CertificateHash>,
}

impl CertificateHashes {
    /// The current hash, then the next one if there is one.
    pub fn iter(&self) -> impl Iterator<Item = CertificateHash> + use<> {
        std::iter::once(self.current).chain(self.next)
    }
}

impl Identity {
    /// A certificate chain (the server's own first) and its private key, as PEM text.
    ///
    /// # Errors
    /// [`IdentityError::NoCertificate`], [`IdentityError::NoPrivateKey`], [`IdentityError::Pem`],
    /// [`IdentityError::MalformedCertificate`], [`IdentityError::UnusableKey`] or [`IdentityError::KeyMismatch`].
    pub fn pem(certificate: impl AsRef<[u8]>, private_key: impl AsRef<[u8]>) -> Result<Self, IdentityError> {
        pem::parse(certificate.as_ref(), private_key.as_ref()).map(|key| Self::new(Kind::Fixed(key)))
    }

    /// The same in DER: certificates, the server's own first, and a private key in PKCS #8, SEC 1 or PKCS #1.
    ///
    /// ```
    /// # fn f(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<(), wireloom::IdentityError> {
    /// let identity = wireloom::Identity::der(chain, key)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::NoCertificate`], [`IdentityError::MalformedCertificate`], [`IdentityError::UnusableKey`] or
    /// [`IdentityError::KeyMismatch`].
    pub fn der<C: Into<Vec<u8>>>(
        chain: impl IntoIterator<Item = C>,
        private_key: impl Into<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let chain = chain.into_iter().map(|der| CertificateDer::from(der.into())).collect();
        let key = PrivateKeyDer::try_from(private_key.into());
        let key = key.map_err(|what| IdentityError::UnusableKey(what.to_owned()))?;
        pem::certified_key(chain, key).map(|key| Self::new(Kind::Fixed(key)))
    }

    /// The same from two files, which are read again when they change.
    ///
    /// A handshake looks at size and modification time of both files, at most every 10 seconds (see
    /// [`pem_files_checked_every`](Self::pem_files_checked_every)), and reads them when they differ. While the new files
    /// are unusable, for example because only one of them was replaced yet, the old identity stays and an error is
    /// logged. The check is a blocking call on the thread of the handshake: keep the files on a local disk.
    ///
    /// # Errors
    /// Those of [`pem`](Self::pem), and [`IdentityError::File`].
    pub fn pem_files(certificate: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        Self::pem_files_checked_every(certificate, private_key, files::CHECK_INTERVAL)
    }

    /// [`pem_files`](Self::pem_files) with another interval. Zero looks at every handshake.
    ///
    /// # Errors
    /// Those of [`pem_files`](Self::pem_files).
    pub fn pem_files_checked_every(
        certificate: impl Into<PathBuf>,
        private_key: impl Into<PathBuf>,
        interval: Duration,
    ) -> Result<Self, IdentityError> {
        PemFiles::open(certificate.into(), private_key.into(), interval).map(|files| Self::new(Kind::Files(files)))
    }

    /// A self-signed ECDSA P-256 certificate in memory, valid for 13 days, for development and pinned hashes.
    ///
    /// It is a new one at every start and it expires: use [`rotating`](Self::rotating) for a process that lives longer.
    /// Names are DNS names (`*.` wildcards too) and IP addresses.
    ///
    /// # Errors
    /// [`IdentityError::NoName`] or [`IdentityError::InvalidName`].
    pub fn self_signed<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Result<Self, IdentityError> {
        let names = Names::new(names)?;
        let key = issue_key(&names, validity_from(SystemTime::now(), 13 * DAY))?;
        Ok(Self::new(Kind::Fixed(key)))
    }

    /// Self-signed ECDSA P-256 certificates of 13 days, each presented for 10 days and then replaced by the next.
    ///
    /// The next certificate is made together with the current one, so that both hashes can be published
    /// ([`certificate_hashes`](Self::certificate_hashes)). Hashes that were read at any moment let clients connect for at
    /// least 10 days from then. A certificate begins a day before it is first presented and ends two days after it was
    /// last presented, for clients whose clocks differ. Certificates live in memory: a restart makes new ones.
    ///
    /// # Errors
    /// [`IdentityError::NoName`] or [`IdentityError::InvalidName`].
    pub fn rotating<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Result<Self, IdentityError> {
        Rotating::new(Names::new(names)?, SystemTime::now()).map(|rotating| Self::new(Kind::Rotating(rotating)))
    }

    /// Chooses by the server name in the client's TLS hello; `default` serves clients that name another one, or none.
    ///
    /// Names may be wildcards: `*.example.com` serves `a.example.com`, but neither `example.com` nor `a.b.example.com`.
    /// An exact name goes before a wildcard. Case and a final dot do not matter. Clients that dial an IP address send no
    /// name.
    ///
    /// # Errors
    /// [`IdentityError::InvalidName`].
    pub fn sni<N: Into<String>>(
        default: Self,
        named: impl IntoIterator<Item = (N, Self)>,
    ) -> Result<Self, IdentityError> {
        ByName::new(default, named).map(|by_name| Self::new(Kind::ByName(by_name)))
    }

    /// The hash of the certificate that is presented now; with [`sni`](Self::sni), that of the default.
    pub fn certificate_sha256(&self) -> CertificateHash {
        self.certificate_hashes().current
    }

    /// The hashes to publish now; with [`sni`](Self::sni), those of the default.
    pub fn certificate_hashes(&self) -> CertificateHashes {
        match &*self.0 {
            Kind::Rotating(rotating) => rotating.hashes(SystemTime::now()),
            Kind::ByName(by_name) => by_name.default().certificate_hashes(),
            Kind::Replaceable(slot) => slot.current().certificate_hashes(),
            Kind::Fixed(_) | Kind::Files(_) => CertificateHashes {
                current: leaf_hash(&self.certified_key(None)),
                next: None,
            },
        }
    }

    /// Reads the files of [`pem_files`](Self::pem_files) now, changed or not; with [`sni`](Self::sni), those of every identity,
    /// and those of the content of a [`ReplaceableIdentity`]. Does nothing for the other kinds. New connections use what was
    /// read; existing ones go on.
    ///
    /// # Errors
    /// Those of [`pem_files`](Self::pem_files); the identity whose files failed stays as it was, the others are read. The
    /// first failure is returned.
    pub fn reload(&self) -> Result<(), IdentityError> {
        match &*self.0 {
            Kind::Files(files) => files.reload(),
            Kind::ByName(by_name) => by_name.all().map(Self::reload).fold(Ok(()), Result::and),
            Kind::Replaceable(slot) => slot.current().reload(),
            Kind::Fixed(_) | Kind::Rotating(_) => Ok(()),
        }
    }

    fn new(kind: Kind) -> Self {
        Self(Arc::new(kind))
    }

    /// What to present to a client that asks for `server_name`.
    fn certified_key(&self, server_name: Option<&str>) -> Arc<CertifiedKey> {
        match &*self.0 {
            Kind::Fixed(key) => Arc::clone(key),
            Kind::Files(files) => files.current(Instant::now()),
            Kind::Rotating(rotating) => rotating.current(SystemTime::now()),
            Kind::ByName(by_name) => by_name.select(server_name).certified_key(server_name),
            Kind::Replaceable(slot) => slot.current().certified_key(server_name),
        }
    }

    /// What rustls asks at every handshake.
    pub(crate) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver(self.clone()))
    }

    /// The same on a client.
    pub(crate) fn client_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(Resolver(self.clone()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &*self.0 {
            Kind::Fixed(_) => "fixed",
            Kind::Files(_) => "files",
            Kind::Rotating(_) => "rotating",
            Kind::ByName(_) => "by name",
            Kind::Replaceable(_) => "replaceable",
        };
        f.debug_tuple("Identity").field(&kind).finish()
    }
}

#[derive(Debug)]
struct Resolver(Identity);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified_key(client_hello.server_name()))
    }
}

impl ResolvesClientCert for Resolver {
    /// Whatever the server hints at: there is one certificate, and the server says whether it will do.
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified_key(None))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn leaf_hash(key: &CertifiedKey) -> CertificateHash {
    CertificateHash::of_der(key.cert.first().expect("every identity was made with a certificate"))
}
