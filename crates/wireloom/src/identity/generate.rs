//! Making self-signed ECDSA P-256 certificates.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::IdentityError;
use super::pem::certified_key;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How far in the past a fresh certificate begins, for peers whose clock runs late.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A certificate and its private key, both as PEM text. `Debug` does not show the key.
#[derive(Clone)]
#[non_exhaustive]
pub struct PemPair {
    /// `-----BEGIN CERTIFICATE-----`
    pub certificate: String,
    /// `-----BEGIN PRIVATE KEY-----` (PKCS #8). A secret.
    pub private_key: String,
}

impl fmt::Debug for PemPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemPair")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl PemPair {
    /// Makes a self-signed ECDSA P-256 certificate for `names` (DNS names, `*.` wildcards and IP addresses).
    ///
    /// It is valid for exactly `days` days, of which one hour is already over, for peers whose clock runs late. Browsers
    /// accept certificate hashes only for certificates of at most 14 days.
    ///
    /// # Errors
    /// [`IdentityError::NoName`], [`IdentityError::InvalidName`] and [`IdentityError::InvalidValidity`] (0 days, or more
    /// than 3650) are the caller's.
    pub fn self_signed<N: Into<String>>(names: impl IntoIterator<Item = N>, days: u32) -> Result<Self, IdentityError> {
        let names = Names::new(names)?;
        if days == 0 || days > 3650 {
            return Err(IdentityError::InvalidValidity(days));
        }
        let (certificate, key) = issue(&names, validity_from(SystemTime::now(), days * DAY))?;
        Ok(Self {
            certificate: certificate.pem(),
            private_key: key.serialize_pem(),
        })
    }
}

/// Subject alternative names, checked.
#[derive(Debug, Clone)]
pub(super) struct Names(Vec<SanType>);

impl Names {
    pub(super) fn new<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Result<Self, IdentityError> {
        let names = names
            .into_iter()
            .map(|name| parse_name(name.into()))
            .collect::<Result<Vec<_>, _>>()?;
        if names.is_empty() {
            Err(IdentityError::NoName)
        } else {
            Ok(Self(names))
        }
    }
}

fn parse_name(name: String) -> Result<SanType, IdentityError> {
    let unbracketed = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(&name);
    if let Ok(ip) = unbracketed.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let lower = name.to_ascii_lowercase();
    let host = lower.strip_prefix("*.").unwrap_or(&lower);
    if rustls::pki_types::DnsName::try_from(host).is_err() {
        return Err(IdentityError::InvalidName(name));
    }
    lower
        .as_str()
        .try_into()
        .map(SanType::DnsName)
        .map_err(|_| IdentityError::InvalidName(name))
}

/// A self-signed certificate for TLS, in memory only.
pub(super) fn issue_key(names: &Names, validity: Range<SystemTime>) -> Result<Arc<CertifiedKey>, IdentityError> {
    let (certificate, key) = issue(names, validity)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    certified_key(vec![certificate.der().clone()], key)
}

/// A window of exactly `length` that has begun a little before `now`.
pub(super) fn validity_from(now: SystemTime, length: Duration) -> Range<SystemTime> {
    let start = now - CLOCK_SKEW;
    start..start + length
}

fn issue(names: &Names, validity: Range<SystemTime>) -> Result<(rcgen::Certificate, KeyPair), IdentityError> {
    let generate = |error: rcgen::Error| IdentityError::Generate(error.to_string());
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(generate)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names.clone_from(&names.0);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "wireloom self-signed");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = OffsetDateTime::from(validity.start);
    params.not_after = OffsetDateTime::from(validity.end);
    let certificate = params.self_signed(&key).map_err(generate)?;
    Ok((certificate, key))
}
