//! One certificate that browsers accept by hash: ECDSA P-256, valid for ten days.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Result;

/// A self-signed certificate for `localhost` and the loopback addresses, and its key.
pub struct Certificate {
    /// The certificate, DER.
    pub certificate: CertificateDer<'static>,
    /// Its PKCS #8 key, DER.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// The certificate as PEM text.
    pub certificate_pem: String,
    /// The key as PEM text.
    pub key_pem: String,
}

impl Certificate {
    /// Makes a fresh one, valid from an hour ago.
    pub fn generate() -> Result<Self> {
        let mut params = rcgen::CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(String::from))?;
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::hours(1);
        params.not_after = now + time::Duration::days(10);
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// The SHA-256 of the certificate.
    pub fn sha256(&self) -> Vec<u8> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let suite = provider
            .cipher_suites
            .iter()
            .find_map(|suite| match suite.tls13()?.common.hash_provider {
                hash if hash.output_len() == 32 => Some(hash),
                _ => None,
            });
        suite
            .expect("aws-lc-rs has a SHA-256 suite")
            .hash(&self.certificate)
            .as_ref()
            .to_vec()
    }

    /// [`sha256`](Self::sha256) as lower-case hexadecimal digits.
    pub fn sha256_hex(&self) -> String {
        self.sha256().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key in the form that rustls takes.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}
