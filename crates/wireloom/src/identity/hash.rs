//! The SHA-256 fingerprint by which a browser or a client pins a certificate.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::IdentityError;

/// SHA-256 of a certificate's DER encoding: what `serverCertificateHashes` of the W3C WebTransport API compares.
///
/// Written as 64 lower-case hex digits; read with or without colons, in either case.
///
/// ```
/// # use wireloom::CertificateHash;
/// let hash: CertificateHash = "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:\
///                              27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55".parse().unwrap();
/// assert_eq!(hash.to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateHash([u8; 32]);

impl CertificateHash {
    /// Wraps a digest that was computed elsewhere.
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// Hashes one certificate in DER. The bytes are not checked to be a certificate.
    pub fn of_der(certificate: &[u8]) -> Self {
        let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .expect("TLS13_AES_128_GCM_SHA256 is a TLS 1.3 suite");
        let digest = suite.common.hash_provider.hash(certificate);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Hashes the first certificate of a PEM file: in a chain, that of the server itself.
    ///
    /// # Errors
    /// [`IdentityError::NoCertificate`] when there is none, [`IdentityError::Pem`] when the PEM is damaged.
    pub fn of_pem(pem: impl AsRef<[u8]>) -> Result<Self, IdentityError> {
        match CertificateDer::pem_slice_iter(pem.as_ref()).next() {
            Some(Ok(certificate)) => Ok(Self::of_der(&certificate)),
            Some(Err(error)) => Err(IdentityError::Pem(error.to_string())),
            None => Err(IdentityError::NoCertificate),
        }
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for CertificateHash {
    fn from(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }
}

impl From<CertificateHash> for [u8; 32] {
    fn from(hash: CertificateHash) -> Self {
        hash.0
    }
}

impl AsRef<[u8]> for CertificateHash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for CertificateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateHash({self})")
    }
}

/// The text is not a SHA-256 in hex.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a certificate hash is 64 hex digits, with or without colons between the bytes")]
pub struct ParseHashError;

impl FromStr for CertificateHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().as_bytes();
        let mut bytes = [0; 32];
        // Two layouts and nothing between them: a hash with a colon missing was probably cut when it was copied.
        let stride = match text.len() {
            64 => 2,
            95 if text.iter().skip(2).step_by(3).all(|&c| c == b':') => 3,
            _ => return Err(ParseHashError),
        };
        for (byte, pair) in bytes.iter_mut().zip(text.chunks(stride)) {
            *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn digit(c: u8) -> Result<u8, ParseHashError> {
    match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        b'A'..=b'F' => Ok(c - b'A' + 10),
        _ => Err(ParseHashError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_digest_round_trips() {
        let hash = CertificateHash::of_der(b"");
        assert_eq!(hash.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(hash));
        assert_eq!(EMPTY.to_uppercase().parse(), Ok(hash));
        let colons = EMPTY
            .as_bytes()
            .chunks(2)
            .map(|p| str::from_utf8(p).expect("hex"))
            .collect::<Vec<_>>()
            .join(":");
        assert_eq!(colons.parse(), Ok(hash));
        assert_eq!(format!(" {colons}\n").parse(), Ok(hash));
    }

    #[test]
    fn damaged_text_is_refused() {
        for text in [
            "",
            "e3b0",
            &EMPTY[1..],
            &format!("{EMPTY}0"),
            &EMPTY.replace('e', "g"),
            &"ä".repeat(32),
        ] {
            assert_eq!(text.parse::<CertificateHash>(), Err(ParseHashError), "{text}");
        }
        let colons_moved = format!("e:3{}", ":b0".repeat(31).split_at(1).1.to_owned() + ":");
        assert!(colons_moved.parse::<CertificateHash>().is_err());
    }

    #[test]
    fn pem_without_certificate_says_so() {
        assert!(matches!(
            CertificateHash::of_pem("hello"),
            Err(IdentityError::NoCertificate)
        ));
    }
}
