//! Identities in real handshakes.

use std::fs;
use std::time::Duration;

use axum::Router;
use wireloom::tcp::Options;
use wireloom::{CertificateHash, Identity, PemPair};

use crate::support::{Server, curl, handshake, presented};

#[tokio::test]
async fn new_files_show_in_the_next_handshake() {
    let dir = std::env::temp_dir().join(format!("wireloom-reload-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a writable temporary directory");
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let write = |days: u32| {
        let pair = PemPair::self_signed(["localhost"], days).expect("generated");
        // Different sizes, because two writes can fall into one tick of the file system's clock.
        fs::write(&certificate, pair.certificate.clone() + &"\n".repeat(days as usize)).expect("written");
        fs::write(&key, &pair.private_key).expect("written");
        CertificateHash::of_pem(&pair.certificate).expect("a certificate")
    };
    let first = write(1);
    let identity = Identity::pem_files_checked_every(&certificate, &key, Duration::ZERO).expect("readable");
    let server = Server::start(Router::new(), Some(&identity), Options::new()).await;
    let kept = server.connect_tls("h2").await;
    assert_eq!(presented(&kept), first);
    let second = write(2);
    assert_eq!(presented(&server.connect_tls("h2").await), second);
    assert_eq!(presented(&kept), first);
    fs::write(&key, "broken").expect("written");
    assert_eq!(presented(&server.connect_tls("h2").await), second);
    fs::remove_dir_all(&dir).expect("removed");
    assert_eq!(presented(&server.connect_tls("h2").await), second);
}

#[tokio::test]
async fn the_asked_name_chooses_the_certificate() {
    let identity = |name: &str| Identity::self_signed([name]).expect("a valid name");
    let (default, named) = (identity("localhost"), identity("*.example.com"));
    let both = Identity::sni(default.clone(), [("*.example.com", named.clone())]).expect("valid names");
    let server = Server::start(Router::new(), Some(&both), Options::new()).await;
    for (name, expected) in [
        ("a.example.com", &named),
        ("example.com", &default),
        ("127.0.0.1", &default),
    ] {
        let tls = handshake(server.connect().await, "h2", name)
            .await
            .expect("a handshake");
        assert_eq!(presented(&tls), expected.certificate_sha256(), "{name}");
    }
}

#[tokio::test]
async fn another_tls_library_accepts_a_generated_certificate() {
    let pair = PemPair::self_signed(["localhost", "127.0.0.1"], 13).expect("generated");
    let identity = Identity::pem(&pair.certificate, &pair.private_key).expect("a pair");
    let server = Server::start(Router::new(), Some(&identity), Options::new()).await;
    let file = std::env::temp_dir().join(format!("wireloom-root-{}.pem", std::process::id()));
    fs::write(&file, &pair.certificate).expect("written");
    let root = file.to_str().expect("an ASCII path");
    for host in ["localhost", "127.0.0.1"] {
        let port = server.address.port();
        let to = format!("localhost:{port}:127.0.0.1");
        let url = format!("https://{host}:{port}/");
        curl(&["--no-insecure", "--cacert", root, "--resolve", &to, &url]).await;
    }
    fs::remove_file(&file).expect("removed");
}
