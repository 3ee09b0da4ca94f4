//! The client's verdict on certificates of every kind, in real handshakes over a pipe.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ServerConfig;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::verify::check_pinned;
use super::*;
use crate::identity::{CertificateHash, Identity};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Server {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Server {
    fn new(algorithm: &'static SignatureAlgorithm, from: SystemTime, to: SystemTime) -> Self {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let certificate = params(from, to).self_signed(&key).expect("signed").der().clone();
        Self { certificate, key }
    }

    fn p256(from: SystemTime, to: SystemTime) -> Self {
        Self::new(&rcgen::PKCS_ECDSA_P256_SHA256, from, to)
    }

    fn hash(&self) -> CertificateHash {
        CertificateHash::of_der(&self.certificate)
    }

    fn config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("PKCS #8");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("a pair");
        config.alpn_protocols = vec![ALPN_H3.to_vec()];
        Arc::new(config)
    }
}

fn params(from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a valid name");
    (params.not_before, params.not_after) = (from.into(), to.into());
    params
}

/// Dials `server` as `name`: whether it was accepted, or what is found by the text of the error.
async fn dial(trust: &ServerTrust, server: Arc<ServerConfig>, name: &str) -> (bool, Option<CertificateRejection>) {
    let tls = ClientTls::new(trust, None).expect("trust");
    attempt(tls.observed(), server, name).await
}

async fn attempt(
    (config, verdicts): (rustls::ClientConfig, Arc<Verdicts>),
    server: Arc<ServerConfig>,
    name: &str,
) -> (bool, Option<CertificateRejection>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let (client, _server) = tokio::join!(connector.connect(name, near), TlsAcceptor::from(server).accept(far));
    let mut found = None;
    if let Err(error) = &client {
        let rustls = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>())
            .expect("an error of rustls");
        found = verdicts.find(&format!("the handshake failed: {rustls}"));
        assert_eq!(CertificateRejection::from_rustls(rustls), found);
    }
    (client.is_ok(), found)
}

#[tokio::test]
async fn pinned_certificates_follow_the_w3c_rules() {
    use CertificateRejection as R;
    let now = SystemTime::now();
    let rsa = Server::new(&rcgen::PKCS_RSA_SHA256, now - DAY, now + DAY);
    let ed25519 = Server::new(&rcgen::PKCS_ED25519, now - DAY, now + DAY);
    let p384 = Server::new(&rcgen::PKCS_ECDSA_P384_SHA384, now - DAY, now + DAY);
    let wrong = CertificateHash::new([7; 32]);
    let good = Server::p256(now - DAY, now + 13 * DAY);
    for (server, hashes, expected) in [
        (&good, vec![wrong, good.hash()], None),
        (&p384, vec![p384.hash()], None),
        (&good, vec![wrong], Some(R::HashMismatch { presented: good.hash() })),
        (&rsa, vec![rsa.hash()], Some(R::KeyAlgorithm)),
        (&ed25519, vec![ed25519.hash()], Some(R::KeyAlgorithm)),
    ] {
        let (ok, found) = dial(&ServerTrust::Hashes(hashes), server.config(), "another.name").await;
        assert_eq!((ok, found.as_ref()), (expected.is_none(), expected.as_ref()));
    }
    for (from, to, expected) in [
        (now - 2 * DAY, now - DAY, R::Expired),
        (now + DAY, now + 2 * DAY, R::NotYetValid),
        (now - DAY, now + 19 * DAY, R::ValidityTooLong { days: 20 }),
        (
            now - DAY,
            now + 13 * DAY + Duration::from_secs(1),
            R::ValidityTooLong { days: 15 },
        ),
        (now - 30 * DAY, now - DAY, R::ValidityTooLong { days: 29 }),
    ] {
        let server = Server::p256(from, to);
        let (ok, found) = dial(&ServerTrust::Hashes(vec![server.hash()]), server.config(), "localhost").await;
        assert_eq!((ok, found.as_ref()), (false, Some(&expected)));
    }
}

#[tokio::test]
async fn handshakes_at_the_same_time_are_told_their_own_rejections() {
    let now = SystemTime::now();
    let servers = [(); 8].map(|()| Server::p256(now - DAY, now + DAY));
    let tls = ClientTls::new(&ServerTrust::Hashes(vec![CertificateHash::new([7; 32])]), None).expect("trust");
    let one_servers = tls.resuming();
    let dials = servers.iter().map(|server| {
        let attempt = attempt(one_servers.clone(), server.config(), "localhost");
        async { (attempt.await, server.hash()) }
    });
    for ((ok, found), presented) in futures_util::future::join_all(dials).await {
        assert_eq!(
            (ok, found),
            (false, Some(CertificateRejection::HashMismatch { presented }))
        );
    }
    assert_eq!(one_servers.1.find("something else"), None);
}

#[test]
fn both_ends_of_the_validity_count() {
    let epoch = SystemTime::UNIX_EPOCH;
    let server = Server::p256(epoch + DAY, epoch + 15 * DAY);
    let at = |now: Duration| check_pinned(&server.certificate, &[server.hash()], UnixTime::since_unix_epoch(now));
    let second = Duration::from_secs(1);
    assert_eq!(at(DAY - second), Err(CertificateRejection::NotYetValid));
    assert_eq!(at(DAY), Ok(()));
    assert_eq!(at(15 * DAY), Ok(()));
    assert_eq!(at(15 * DAY + second), Err(CertificateRejection::Expired));
}

#[test]
fn what_is_no_certificate_is_malformed() {
    let server = Server::p256(SystemTime::now() - DAY, SystemTime::now() + DAY);
    let mut longer = server.certificate.to_vec();
    longer.push(0);
    for der in [&b""[..], b"hello", &server.certificate[..100], &longer] {
        let hash = CertificateHash::of_der(der);
        assert_eq!(
            check_pinned(der, &[hash], UnixTime::now()),
            Err(CertificateRejection::Malformed)
        );
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let now = SystemTime::now();
    let (victim, thief) = (Server::p256(now - DAY, now + DAY), Server::p256(now - DAY, now + DAY));
    let key =
        aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::try_from(thief.key.serialize_der()).expect("PKCS #8"))
            .expect("a signing key");
    let stolen = rustls::sign::CertifiedKey::new(vec![victim.certificate.clone()], key);
    let mut config = ServerConfig::clone(&victim.config());
    config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen));
    for trust in [ServerTrust::Hashes(vec![victim.hash()]), ServerTrust::Insecure] {
        let (ok, found) = dial(&trust, Arc::new(config.clone()), "localhost").await;
        assert_eq!(
            (ok, found.as_ref()),
            (false, Some(&CertificateRejection::BadSignature)),
            "{trust:?}"
        );
    }
}

#[tokio::test]
async fn roots_check_issuer_name_and_time() {
    use CertificateRejection as R;
    let now = SystemTime::now();
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = params(now - DAY, now + DAY);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test root");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("signed").pem();
    let issuer = Issuer::new(ca, ca_key);
    let issued = |from, to| {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(from, to).signed_by(&key, &issuer).expect("signed").der().clone();
        Server { certificate, key }
    };
    let good = issued(now - DAY, now + DAY);
    let roots = ServerTrust::Roots(RootCertificates::from_pem(&ca_pem).expect("a root"));
    let stranger = Server::p256(now - DAY, now + DAY);
    for (server, name, expected) in [
        (&good, "localhost", None),
        (&good, "example.com", Some(R::WrongName)),
        (&stranger, "localhost", Some(R::UnknownIssuer)),
        (&issued(now - 2 * DAY, now - DAY), "localhost", Some(R::Expired)),
        (&issued(now + DAY, now + 2 * DAY), "localhost", Some(R::NotYetValid)),
    ] {
        let (ok, found) = dial(&roots, server.config(), name).await;
        assert_eq!((ok, found.as_ref()), (expected.is_none(), expected.as_ref()), "{name}");
    }
    let (ok, _) = dial(&ServerTrust::Insecure, stranger.config(), "example.com").await;
    assert!(ok);
    let own = ServerTrust::Roots(RootCertificates::from_der([stranger.certificate.to_vec()]).expect("a root"));
    let (ok, _) = dial(&own, stranger.config(), "localhost").await;
    assert!(ok, "a self-signed certificate can be a root for itself");
}

#[tokio::test]
async fn identities_of_our_own_are_accepted_by_hash() {
    for identity in [Identity::self_signed(["a"]), Identity::rotating(["a"])] {
        let identity = identity.expect("a valid name");
        let config = Arc::new(quic_server_config(&identity, &ClientAuth::None, false).expect("a configuration"));
        let trust = ServerTrust::Hashes(identity.certificate_hashes().iter().collect());
        let (ok, found) = dial(&trust, config, "127.0.0.1").await;
        assert!(ok, "{found:?}");
    }
}

#[test]
fn trust_that_cannot_work_is_refused_when_it_is_set_up() {
    assert!(matches!(
        ClientTls::new(&ServerTrust::Hashes(Vec::new()), None),
        Err(TrustError::NoHashes)
    ));
    assert!(matches!(RootCertificates::from_pem(""), Err(TrustError::NoRoots)));
    assert!(matches!(
        RootCertificates::from_der([*b"nonsense"]),
        Err(TrustError::BadRoot(_))
    ));
}

#[test]
fn the_client_configuration_is_usable_with_quic() {
    let config = ClientTls::new(&ServerTrust::Insecure, None)
        .expect("trust")
        .observed()
        .0;
    let name = ServerName::try_from("localhost").expect("a name");
    rustls::quic::ClientConnection::new(Arc::new(config), rustls::quic::Version::V1, name, Vec::new()).expect("QUIC");
}
