//! The verifiers that rustls asks about a server's certificate.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384};
use x509_parser::prelude::FromDer;

use super::{CertificateRejection, provider};
use crate::identity::CertificateHash;

const DAY: u64 = 24 * 60 * 60;

/// So many rejections are kept, the oldest forgotten first: one server has few, and only those of handshakes that end just now are
/// asked for.
const MAX_KEPT: usize = 16;

/// What a verifier has found.
#[derive(Debug)]
pub(crate) struct Verdicts {
    /// The latest rejections, for whoever cannot get at the error of rustls: QUIC keeps only the alert and the error's text. The
    /// same text means the same rejection, so handshakes at the same time can share this.
    rejections: Mutex<VecDeque<(String, CertificateRejection)>>,
    /// When the first of the accepted certificates is over, in seconds of Unix time.
    valid_until: AtomicI64,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            rejections: Mutex::default(),
            valid_until: AtomicI64::new(i64::MAX),
        }
    }
}

impl Verdicts {
    fn refused(&self, error: &Error) {
        let Some(rejection) = CertificateRejection::from_rustls(error) else {
            return;
        };
        let text = error.to_string();
        let mut kept = self.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, _)| *known != text);
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((text, rejection));
    }

    fn accepted(&self, certificate: &[u8]) {
        // Who trusts anything may have accepted what is no certificate.
        if let Ok((_, certificate)) = X509Certificate::from_der(certificate) {
            let not_after = certificate.validity().not_after.timestamp();
            self.valid_until.fetch_min(not_after, Ordering::Relaxed);
        }
    }

    /// The rejection that ended a handshake, of whose end QUIC tells `reason`; `None` if it was something else.
    pub(crate) fn find(&self, reason: &str) -> Option<CertificateRejection> {
        let kept = self.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(text, _)| reason.ends_with(text));
        found.map(|(_, rejection)| rejection.clone())
    }

    /// Whether a certificate that was accepted would not be any more, for its age.
    pub(crate) fn are_outdated(&self, now: UnixTime) -> bool {
        self.valid_until.load(Ordering::Relaxed) < unix_seconds(now)
    }
}

fn unix_seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Asks another verifier and keeps what it said.
#[derive(Debug)]
pub(super) struct Observed {
    inner: Arc<dyn ServerCertVerifier>,
    verdicts: Arc<Verdicts>,
}

impl Observed {
    pub(super) fn new(inner: Arc<dyn ServerCertVerifier>, verdicts: Arc<Verdicts>) -> Self {
        Self { inner, verdicts }
    }

    fn note<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| self.verdicts.refused(error))
    }
}

impl ServerCertVerifier for Observed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        self.note(verdict).inspect(|_| self.verdicts.accepted(end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note(self.inner.verify_tls12_signature(message, cert, signature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note(self.inner.verify_tls13_signature(message, cert, signature))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}

/// How [`Pinned`] judges a certificate.
#[derive(Debug)]
pub(super) enum Pin {
    /// By the rules of `serverCertificateHashes`.
    Hashes(Vec<CertificateHash>),
    /// Whatever it is.
    Anything,
}

/// Judges the certificate alone: no chain, no name. The server still has to prove that the certificate is its own.
#[derive(Debug)]
pub(super) struct Pinned {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    pub(super) fn new(pin: Pin) -> Self {
        Self {
            pin,
            algorithms: provider().signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Pin::Hashes(hashes) = &self.pin {
            check_pinned(end_entity, hashes, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        // RSA and the like too, or a server with such a key would fail before its certificate could be refused by name.
        self.algorithms.supported_schemes()
    }
}

/// The checks of "verify a certificate hash" and of the custom certificate requirements in the W3C WebTransport API.
pub(super) fn check_pinned(
    certificate: &[u8],
    hashes: &[CertificateHash],
    now: UnixTime,
) -> Result<(), CertificateRejection> {
    let presented = CertificateHash::of_der(certificate);
    if !hashes.contains(&presented) {
        return Err(CertificateRejection::HashMismatch { presented });
    }
    let Ok((&[], certificate)) = X509Certificate::from_der(certificate) else {
        return Err(CertificateRejection::Malformed);
    };
    if !is_allowed_key(&certificate) {
        return Err(CertificateRejection::KeyAlgorithm);
    }
    let not_before = certificate.validity().not_before.timestamp();
    let not_after = certificate.validity().not_after.timestamp();
    // Too long counts even when it has expired: waiting or setting a clock would not mend it.
    let seconds = u64::try_from(not_after.saturating_sub(not_before)).unwrap_or(0);
    if seconds > 14 * DAY {
        return Err(CertificateRejection::ValidityTooLong {
            days: seconds.div_ceil(DAY),
        });
    }
    // Both ends belong to the period (RFC 5280, section 4.1.2.5).
    let now = unix_seconds(now);
    if now < not_before {
        return Err(CertificateRejection::NotYetValid);
    }
    if now > not_after {
        return Err(CertificateRejection::Expired);
    }
    Ok(())
}

fn is_allowed_key(certificate: &X509Certificate<'_>) -> bool {
    let algorithm = &certificate.public_key().algorithm;
    let curve = algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384)
}
