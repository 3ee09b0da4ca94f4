//! What handlers of axum learn from their arguments, over QUIC; `tcp/extractors.rs` has the same over TCP.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{any, get};
use common::{run, within};
use http::StatusCode;
use tokio::sync::mpsc;
use wireloom::{EarlyHints, RemoteAddr, TlsInfo, WebTransportUpgrade};

#[tokio::test]
async fn requests_and_sessions_have_them_all() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let live =
        async move |upgrade: WebTransportUpgrade, remote: RemoteAddr, info: ConnectInfo<SocketAddr>, tls: TlsInfo| {
            tell.send((remote.0, info.0, tls.version())).unwrap();
            upgrade.on_upgrade(async |_| {})
        };
    let request = async |remote: RemoteAddr, info: ConnectInfo<SocketAddr>, tls: TlsInfo, _: EarlyHints| {
        assert_eq!((remote.0, tls.version()), (info.0, 0x0304));
        remote.0.ip().to_string()
    };
    let app = Router::new().route("/live", any(live)).route("/", get(request));
    let run = run(app, |builder| builder).await;
    run.connect("/live").await.unwrap();
    let (remote, info, version) = within(told.recv()).await.unwrap();
    assert_eq!((remote, version), (info, 0x0304));
    let answer = within(run.dial().await.request_whole(run.request("GET", "/", b""), 100)).await;
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status(), &answer.body()[..]),
        (StatusCode::OK, &b"127.0.0.1"[..])
    );
}
