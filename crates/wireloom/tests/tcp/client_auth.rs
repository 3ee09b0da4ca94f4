//! Certificates of clients, and which versions of HTTP are offered.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use wireloom::tcp::{HttpVersions, Options};
use wireloom::{ClientAuth, Identity, PemPair, RootCertificates, TlsInfo};

use crate::support::{Server, within};

async fn subject(request: Request) -> String {
    let info: &TlsInfo = request.extensions().get().expect("over TLS");
    assert!(info.cipher_suite().is_some());
    format!("<{:#06x} {:?}>", info.version(), info.peer_subject())
}

/// What the server answers to a client with this certificate and ALPN; `None` if it is refused.
async fn ask(server: &Server, config: ClientConfig) -> Option<String> {
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, server.connect().await)
        .await;
    let mut tls = tls.ok()?;
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    tls.write_all(request).await.ok()?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once('<')?;
    Some(format!("<{body}"))
}

#[tokio::test]
async fn clients_prove_who_they_are() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let client = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(rcgen::DnType::CommonName, "alice");
    let alice = params.signed_by(&client, &issuer).expect("a certificate");
    let roots = RootCertificates::from_der([authority.der().to_vec()]).expect("roots");
    let server = PemPair::self_signed(["localhost"], 10).expect("a name");
    let mut trusted = RootCertStore::empty();
    let identity = Identity::pem(&server.certificate, &server.private_key).expect("an identity");
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(server.certificate.as_bytes()).expect("a certificate");
    trusted.add(der).expect("a root");
    let config = |is_alice: bool| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(trusted.clone());
        if is_alice {
            let key = PrivateKeyDer::Pkcs8(client.serialize_der().into());
            let chain = vec![alice.der().clone()];
            builder.with_client_auth_cert(chain, key).expect("they belong together")
        } else {
            builder.with_no_client_auth()
        }
    };
    let known = Some("<0x0304 Some(\"CN=alice\")>".to_owned());
    let unknown = Some("<0x0304 None>".to_owned());
    for (clients, with, without) in [
        (ClientAuth::None, &unknown, &unknown),
        (ClientAuth::Optional(roots.clone()), &known, &unknown),
        (ClientAuth::Required(roots), &known, &None),
    ] {
        let options = Options::new().client_auth(clients);
        let server = Server::start(Router::new().route("/", get(subject)), Some(&identity), options).await;
        assert_eq!(&within(ask(&server, config(true))).await, with);
        assert_eq!(&within(ask(&server, config(false))).await, without);
        within(server.stop()).await.expect("no panic").expect("served");
    }
    // Without ALPN a client means HTTP/1.1.
    for (versions, is_served) in [(HttpVersions::Http1, true), (HttpVersions::Http2, false)] {
        let options = Options::new().versions(versions);
        let server = Server::start(Router::new().route("/", get(subject)), Some(&identity), options).await;
        assert_eq!(
            within(ask(&server, config(false))).await.is_some(),
            is_served,
            "{versions:?}"
        );
        let mut h2 = config(false);
        h2.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = TlsConnector::from(Arc::new(h2)).connect(name, server.connect().await);
        assert_eq!(within(tls).await.is_ok(), !is_served, "{versions:?}");
        within(server.stop()).await.expect("no panic").expect("served");
    }
}
