//! What a certificate says, and whether browsers accept it by its hash.

use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wireloom::CertificateHash;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, Pem, X509Certificate};

use crate::failure::Failure;

/// W3C WebTransport, `serverCertificateHashes`: "the total length of the validity period MUST NOT exceed two weeks".
pub(crate) const MAX_PINNED_DAYS: u32 = 14;

const DAY: i64 = 24 * 60 * 60;

/// What matters of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) sha256: CertificateHash,
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// Subject alternative names: DNS names and addresses.
    pub(crate) names: Vec<String>,
    /// `ECDSA P-256`, `RSA` and so on.
    pub(crate) key: String,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
}

impl Facts {
    pub(crate) fn of_file(path: &Path) -> Result<Self, Failure> {
        let bytes =
            std::fs::read(path).map_err(|e| Failure::new("file", format!("cannot read {}: {e}", path.display())))?;
        let wrong = |why: &str| {
            Failure::new("file", format!("{}: {why}", path.display()))
                .hint("a file with -----BEGIN CERTIFICATE-----, or a certificate in DER")
        };
        // DER is a SEQUENCE; PEM is text.
        if bytes.first() == Some(&0x30) {
            return Self::of_der(&bytes).ok_or_else(|| wrong("this is no certificate"));
        }
        let section = Pem::iter_from_buffer(&bytes)
            .flatten()
            .find(|pem| pem.label == "CERTIFICATE");
        let pem = section.ok_or_else(|| wrong("there is no certificate in it"))?;
        Self::of_der(&pem.contents).ok_or_else(|| wrong("its certificate is damaged"))
    }

    /// `None` if the bytes are no certificate.
    pub(crate) fn of_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .map_or_else(Vec::new, |extension| {
                extension.value.general_names.iter().filter_map(name).collect()
            });
        let validity = certificate.validity();
        Some(Self {
            sha256: CertificateHash::of_der(der),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names,
            key: key_name(&certificate),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// Days from its beginning to its end, rounded up.
    pub(crate) fn total_days(&self) -> i64 {
        (self.not_after - self.not_before + DAY - 1) / DAY
    }

    /// Days that are left, negative if it is over.
    pub(crate) fn days_left(&self) -> f64 {
        (self.not_after - now()) as f64 / DAY as f64
    }

    /// Why it cannot be used at this moment by anybody, if it cannot.
    pub(crate) fn invalid_now(&self) -> Option<&'static str> {
        let now = now();
        if now < self.not_before {
            Some("it is not valid yet")
        } else if now > self.not_after {
            Some("it has expired")
        } else {
            None
        }
    }

    /// Why browsers do not accept it by its hash, if they do not.
    pub(crate) fn unpinnable(&self) -> Option<String> {
        if let Some(reason) = self.invalid_now() {
            return Some(reason.to_owned());
        }
        if self.not_after - self.not_before > i64::from(MAX_PINNED_DAYS) * DAY {
            return Some(format!(
                "it is valid for {} days, more than {MAX_PINNED_DAYS}",
                self.total_days()
            ));
        }
        (!matches!(self.key.as_str(), "ECDSA P-256" | "ECDSA P-384"))
            .then(|| format!("its key is {}, not ECDSA on P-256 or P-384", self.key))
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "sha256": self.sha256.to_string(),
            "subject": self.subject,
            "issuer": self.issuer,
            "names": self.names,
            "key": self.key,
            "not_before": self.not_before,
            "not_after": self.not_after,
            "days_left": (self.days_left() * 10.0).round() / 10.0,
            "accepted_by_hash": self.unpinnable().is_none(),
            "not_accepted_by_hash_because": self.unpinnable(),
        })
    }
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()?;
            Some(address.to_string())
        }
        _ => None,
    }
}

fn key_name(certificate: &X509Certificate<'_>) -> String {
    let algorithm = &certificate.public_key().algorithm;
    let oid = algorithm.algorithm.to_id_string();
    match oid.as_str() {
        "1.2.840.10045.2.1" => {
            let curve = algorithm
                .parameters
                .as_ref()
                .and_then(|p| p.as_oid().ok())
                .map(|oid| oid.to_id_string());
            match curve.as_deref() {
                Some("1.2.840.10045.3.1.7") => "ECDSA P-256".to_owned(),
                Some("1.3.132.0.34") => "ECDSA P-384".to_owned(),
                Some("1.3.132.0.35") => "ECDSA P-521".to_owned(),
                _ => "ECDSA on another curve".to_owned(),
            }
        }
        "1.2.840.113549.1.1.1" => "RSA".to_owned(),
        "1.3.101.112" => "Ed25519".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(not_before: i64, not_after: i64, key: &str) -> Facts {
        Facts {
            sha256: CertificateHash::of_der(b""),
            subject: "CN=a".to_owned(),
            issuer: "CN=a".to_owned(),
            names: Vec::new(),
            key: key.to_owned(),
            not_before: now() + not_before * DAY,
            not_after: now() + not_after * DAY,
        }
    }

    #[test]
    fn browsers_rules_for_hashes() {
        assert_eq!(facts(-1, 13, "ECDSA P-256").unpinnable(), None);
        assert_eq!(facts(-1, 12, "ECDSA P-384").unpinnable(), None);
        for (facts, reason) in [
            (facts(-1, 14, "ECDSA P-256"), "15 days"),
            (facts(-2, -1, "ECDSA P-256"), "expired"),
            (facts(1, 2, "ECDSA P-256"), "not valid yet"),
            (facts(-1, 2, "RSA"), "RSA"),
        ] {
            assert!(facts.unpinnable().expect(reason).contains(reason));
        }
    }

    #[test]
    fn a_generated_certificate_is_read() {
        let pair = wireloom::PemPair::self_signed(["localhost", "*.example.com", "::1", "127.0.0.1"], 13);
        let pem = pair.expect("valid names").certificate;
        let der = Pem::iter_from_buffer(pem.as_bytes())
            .flatten()
            .next()
            .expect("a section")
            .contents;
        let facts = Facts::of_der(&der).expect("a certificate");
        assert_eq!(facts.names, ["localhost", "*.example.com", "::1", "127.0.0.1"]);
        assert_eq!(facts.key, "ECDSA P-256");
        assert_eq!(facts.total_days(), 13);
        assert_eq!(facts.unpinnable(), None);
    }
}
