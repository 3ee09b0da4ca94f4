//! What handlers of axum learn from their arguments.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use wireloom::tcp::Options;
use wireloom::{EarlyHints, RemoteAddr, TlsInfo};

use crate::support::{Server, curl};

async fn facts(
    RemoteAddr(remote): RemoteAddr,
    ConnectInfo(info): ConnectInfo<SocketAddr>,
    tls: Option<TlsInfo>,
    hints: Option<EarlyHints>,
) -> String {
    assert_eq!(remote, info);
    format!("{} {} {}", remote.ip(), tls.is_some(), hints.is_some())
}

#[tokio::test]
async fn each_version_has_what_it_has() {
    let app = Router::new()
        .route("/", get(facts))
        .route("/tls", get(async |tls: TlsInfo| tls.version().to_string()))
        .route(
            "/name",
            get(async |tls: TlsInfo| format!("{:?} {:?}", tls.server_name(), tls.alpn())),
        );
    let secure = Server::tls(app.clone()).await;
    assert_eq!(
        curl(&["--http1.1", &secure.url("https", "/")]).await,
        "127.0.0.1 true true"
    );
    assert_eq!(
        curl(&["--http2", &secure.url("https", "/")]).await,
        "127.0.0.1 true false"
    );
    assert_eq!(curl(&[&secure.url("https", "/tls")]).await, 0x0304.to_string());
    let url = format!("https://localhost:{}/name", secure.address.port());
    let name = curl(&["--http2", &url]).await;
    assert_eq!(name, format!("{:?} {:?}", Some("localhost"), Some(b"h2")));
    let plain = Server::start(app, None, Options::new()).await;
    assert_eq!(curl(&[&plain.url("http", "/")]).await, "127.0.0.1 false true");
    // What is asked for and not there is the server's fault, as with axum's own.
    let missing = curl(&["--write-out", "%{http_code}", &plain.url("http", "/tls")]).await;
    assert!(missing.ends_with("500"), "{missing}");
}
