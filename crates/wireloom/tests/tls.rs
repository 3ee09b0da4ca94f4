//! What the ends of a connection know of each other, over QUIC.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::future::IntoFuture;
use std::mem::discriminant;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use common::{fixture, fixture_with, within};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wireloom::{
    CertificateHash, Client, ClientAuth, ConnectError, ConnectionError, Identity, RootCertificates, ServerTrust,
    TlsInfo,
};

#[tokio::test]
async fn a_client_learns_who_the_server_is_and_a_server_whom_the_client_meant() {
    let f = fixture().await;
    let port = f.server.local_addrs()[0].port();
    for (host, name) in [("localhost", Some("localhost")), ("127.0.0.1", None)] {
        let accept = async {
            let request = f.server.accept().await.unwrap();
            let tls = request.tls_info();
            assert_eq!((tls.server_name(), tls.alpn()), (name, Some(&b"h3"[..])));
            request.accept().await.unwrap()
        };
        let url = format!("https://{host}:{port}/");
        let (server, client) = within(async { tokio::join!(accept, f.client.connect(&url)) }).await;
        let tls = server.tls_info();
        assert_eq!((tls.server_name(), tls.version()), (name, 0x0304));
        assert!(tls.peer_certificates().is_empty(), "nobody asked for one");
        let tls = client.unwrap().tls_info();
        assert_eq!(CertificateHash::of_der(&tls.peer_certificates()[0]), f.hash);
        assert!(tls.peer_subject().is_some() && tls.server_name().is_none());
    }
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    assert_eq!(
        connection.tls_info().peer_certificates().first(),
        connection.server_certificate().as_ref()
    );
}

/// Roots, and a client whose certificate ends there.
fn authority() -> (RootCertificates, Identity) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "alice");
    let alice = params.signed_by(&key, &issuer).unwrap();
    let identity = Identity::pem(alice.pem(), key.serialize_pem()).unwrap();
    (
        RootCertificates::from_der([authority.der().to_vec()]).unwrap(),
        identity,
    )
}

#[tokio::test]
async fn clients_prove_who_they_are() {
    let (roots, alice) = authority();
    let f = fixture_with(|builder| builder.client_auth(ClientAuth::Required(roots))).await;
    let url = f.url.clone();
    let builder = || Client::builder().server_certificate_hash(f.hash);
    // A stranger has a certificate as well, of somebody else.
    let strangers = [builder(), builder().identity(Identity::self_signed(["bob"]).unwrap())];
    for stranger in strangers {
        let error = within(stranger.build().unwrap().connect(&url)).await.unwrap_err();
        let aborted = ConnectError::Connection(ConnectionError::AbortedByPeer {
            code: 0,
            reason: String::new(),
        });
        assert_eq!(discriminant(&error), discriminant(&aborted), "{error:?}");
    }
    for early_data in [false, true] {
        let client = builder()
            .identity(alice.clone())
            .early_data(early_data)
            .build()
            .unwrap();
        for _ in 0..2 {
            let f = &f;
            let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
            let (server, client) = within(async { tokio::join!(accept, client.connect(&url)) }).await;
            let _client = client.unwrap();
            assert_eq!(server.tls_info().peer_subject().as_deref(), Some("CN=alice"));
        }
    }
}

#[tokio::test]
async fn over_tcp_as_over_quic() {
    let (roots, alice) = authority();
    let f = fixture_with(|builder| builder.client_auth(ClientAuth::Required(roots))).await;
    let address = f.server.local_addrs()[0];
    let app = Router::new().route("/", get(async |tls: TlsInfo| tls.peer_subject().unwrap_or_default()));
    let serving = tokio::spawn(f.server.serve(app).into_future());
    let trust = ServerTrust::Hashes(vec![f.hash]);
    let ask = async |identity: Option<&Identity>| {
        let config = Arc::new(trust.tcp_client_config(identity).unwrap());
        let tcp = TcpStream::connect(address).await?;
        let mut tls = TlsConnector::from(config)
            .connect("localhost".try_into().unwrap(), tcp)
            .await?;
        tls.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    assert!(within(ask(Some(&alice))).await.unwrap().ends_with("CN=alice"));
    within(ask(None)).await.unwrap_err();
    serving.abort();
}

/// Accepts whoever has this public key, as SPKI pins do.
#[derive(Debug)]
struct PublicKey(Vec<u8>);

impl ServerCertVerifier for PublicKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_known = certificate.windows(self.0.len()).any(|part| part == self.0);
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure);
        is_known.then(ServerCertVerified::assertion).ok_or(unknown)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("QUIC has TLS 1.3")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test]
async fn a_verifier_of_ones_own() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let identity = Identity::pem(certificate.pem(), key.serialize_pem()).unwrap();
    let f = fixture_with(|builder| builder.identity(identity)).await;
    for (pin, is_accepted) in [(key.public_key_raw().to_vec(), true), (vec![7; 65], false)] {
        let verifier = Arc::new(PublicKey(pin));
        let client = Client::builder().dangerous().verifier(verifier).build().unwrap();
        match within(client.dial(&f.url)).await {
            Ok(_) => assert!(is_accepted),
            Err(ConnectError::Certificate(_)) => assert!(!is_accepted),
            Err(error) => panic!("{error:?}"),
        }
    }
}
