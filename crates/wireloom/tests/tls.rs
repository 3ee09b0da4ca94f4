//! What the ends of a connection know of each other, over QUIC.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{fixture, within};
use wireloom::CertificateHash;

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
