//! Certificates of clients: which are wanted, and what a handshake has told of either end.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConnection, WebPkiClientVerifier};
use x509_parser::der_parser::asn1_rs::{Oid, ToDer as _};
use x509_parser::x509::AttributeTypeAndValue;

use super::{ALPN_H3, RootCertificates, provider};

/// Whether clients prove who they are with a certificate (mutual TLS).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum ClientAuth {
    /// None is asked for. The default.
    #[default]
    None,
    /// One is asked for. A client without one is served all the same, see [`TlsInfo::peer_certificates`]; one whose certificate
    /// does not end at these roots is not.
    Optional(RootCertificates),
    /// No client is served without one that ends at these roots.
    Required(RootCertificates),
}

impl ClientAuth {
    /// `None` where none is asked for.
    pub(super) fn verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, rustls::Error> {
        let (roots, is_optional) = match self {
            Self::None => return Ok(None),
            Self::Optional(roots) => (roots, true),
            Self::Required(roots) => (roots, false),
        };
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots.0), provider());
        let builder = if is_optional {
            builder.allow_unauthenticated()
        } else {
            builder
        };
        let verifier = builder
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Some(verifier))
    }
}

/// What TLS has agreed on and who the peer is: in the extensions of every request over TLS or QUIC (with the feature `axum` it
/// is an extractor), and of sessions and connections ([`Session::tls_info`](crate::Session::tls_info)). A cheap clone.
#[derive(Debug, Clone)]
pub struct TlsInfo(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    version: u16,
    cipher_suite: Option<u16>,
    alpn: Option<Cow<'static, [u8]>>,
    server_name: Option<String>,
    chain: Vec<Vec<u8>>,
}

impl TlsInfo {
    pub(crate) fn of_tcp(connection: &ServerConnection) -> Self {
        Self(Arc::new(Inner {
            version: connection.protocol_version().map_or(0, u16::from),
            cipher_suite: connection
                .negotiated_cipher_suite()
                .map(|suite| u16::from(suite.suite())),
            alpn: connection.alpn_protocol().map(|name| name.to_vec().into()),
            server_name: connection.server_name().map(str::to_owned),
            chain: chain(connection.peer_certificates()),
        }))
    }

    pub(crate) fn of_quic(certificates: Option<&[CertificateDer<'static>]>, server_name: Option<String>) -> Self {
        static ANONYMOUS: LazyLock<TlsInfo> = LazyLock::new(|| TlsInfo::over_quic(Vec::new(), None));
        if certificates.is_none() && server_name.is_none() {
            return ANONYMOUS.clone();
        }
        Self::over_quic(chain(certificates), server_name)
    }

    fn over_quic(chain: Vec<Vec<u8>>, server_name: Option<String>) -> Self {
        Self(Arc::new(Inner {
            version: u16::from(rustls::ProtocolVersion::TLSv1_3),
            cipher_suite: None,
            // No handshake over QUIC gets beyond it (RFC 9001 section 8.1), and there is no other here.
            alpn: Some(ALPN_H3.into()),
            server_name,
            chain,
        }))
    }

    /// The version as it is on the wire: 0x0303 is TLS 1.2, 0x0304 is 1.3.
    pub fn version(&self) -> u16 {
        self.0.version
    }

    /// The cipher suite by its number (IANA). `None` over HTTP/3: quinn does not tell.
    pub fn cipher_suite(&self) -> Option<u16> {
        self.0.cipher_suite
    }

    /// The protocol that ALPN chose: `h3`, `h2` or `http/1.1`. `None` where a client over TCP did not offer any.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.0.alpn.as_deref()
    }

    /// Server: the name that the client asked for (SNI), in lower case. `None` where it named none, as those that dial an IP
    /// address, and on clients, which know whom they dialled.
    pub fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    /// The peer's own certificate and those that came with it, in DER. Of a client: verified as [`ClientAuth`] says, and empty
    /// where it has shown none. Of a server: verified as the client was told to.
    pub fn peer_certificates(&self) -> &[Vec<u8>] {
        &self.0.chain
    }

    /// The subject of the peer's certificate as text, its most specific part first (RFC 4514): `CN=alice,O=Example`.
    pub fn peer_subject(&self) -> Option<String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(self.0.chain.first()?).ok()?;
        let names: Vec<_> = certificate.subject().iter_rdn().collect();
        let parts = names.iter().rev().map(|name| {
            let attributes: Vec<String> = name.iter().map(attribute).collect();
            attributes.join("+")
        });
        Some(parts.collect::<Vec<_>>().join(","))
    }
}

fn chain(certificates: Option<&[CertificateDer<'_>]>) -> Vec<Vec<u8>> {
    certificates
        .unwrap_or_default()
        .iter()
        .map(|der| der.to_vec())
        .collect()
}

/// `type=value`, escaped (RFC 4514 sections 2.3 and 2.4).
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let (Some(name), Ok(value)) = (short_name(attribute.attr_type()), attribute.as_str()) else {
        let mut out = format!("{}=#", attribute.attr_type().to_id_string());
        for byte in attribute.attr_value().to_der_vec().unwrap_or_default() {
            // Writing to a string does not fail.
            let _ = write!(out, "{byte:02x}");
        }
        return out;
    };
    let mut out = format!("{name}=");
    let last = value.chars().count().saturating_sub(1);
    for (index, char) in value.chars().enumerate() {
        match char {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', char]),
            '#' if index == 0 => out.push_str("\\#"),
            ' ' if index == 0 || index == last => out.push_str("\\ "),
            '\0' => out.push_str("\\00"),
            char => out.push(char),
        }
    }
    out
}

/// The names of RFC 4514 section 3.
fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    Some(match oid.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    #[test]
    fn subjects_as_text() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::CountryName, "NL");
        name.push(DnType::OrganizationName, " A+B, \"C\" ");
        name.push(
            DnType::CustomDnType(vec![2, 5, 4, 5]),
            DnValue::Utf8String("7".to_owned()),
        );
        name.push(DnType::CommonName, "#ü");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let info = TlsInfo::of_quic(Some(&[certificate.der().clone()]), None);
        let subject = info.peer_subject().expect("a certificate");
        assert_eq!(subject, "CN=\\#ü,2.5.4.5=#0c0137,O=\\ A\\+B\\, \\\"C\\\"\\ ,C=NL");
        assert_eq!(TlsInfo::of_quic(None, None).peer_subject(), None);
    }
}
