//! The server's certificate, and what a client trusts: its hash.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Result;

/// A self-signed certificate for localhost, of a kind that certificate hashes may name (two weeks at most, ECDSA P-256).
pub struct Certificate {
    /// The certificate in DER.
    pub der: CertificateDer<'static>,
    key: Vec<u8>,
    pem: String,
    key_pem: String,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl Certificate {
    /// Makes one.
    pub fn generate() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::hours(1);
        params.not_after = now + time::Duration::days(10);
        let certificate = params.self_signed(&key)?;
        let der = certificate.der().clone();
        Ok(Self {
            sha256: sha256(&der),
            der,
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: key.serialize_der(),
        })
    }

    /// The private key as rustls takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The private key in PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The private key as PKCS #8 in DER.
    pub fn pkcs8(&self) -> &[u8] {
        &self.key
    }
}

/// Of a certificate in DER, in hexadecimal digits.
pub(crate) fn sha256(certificate: &[u8]) -> String {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .expect("it is a suite of TLS 1.3");
    let digest = suite.common.hash_provider.hash(certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash as bytes.
pub fn hash_bytes(hexadecimal: &str) -> Result<[u8; 32]> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    let bytes: Result<Vec<u8>> = pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect();
    bytes?.try_into().map_err(|_| "not a SHA-256".into())
}
