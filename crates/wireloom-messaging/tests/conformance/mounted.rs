//! In an axum router beside everything else: WebSocket over TLS and WebTransport at the same path of the same port.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::net::{TcpListener, TcpStream};
use wireloom::{Client, Identity};
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::Server;
use wireloom_messaging::transport::webtransport::{self, PROTOCOL_M, Profile};
use wireloom_messaging::transport::{TransportKind, websocket};

use crate::behaviours::echo;
use crate::peer::{Peer, within};

pub async fn peer(link: impl wireloom_messaging::transport::Link + 'static) -> Peer {
    let mut peer = Peer {
        link: Box::new(link),
        accepted: Default::default(),
    };
    peer.accepted = peer.recv().await;
    peer
}

async fn tcp(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn one_path_for_both() {
    let server = Server::builder().build(echo());
    let app = Router::new()
        .route("/", get(async || "beside everything else"))
        .route_service("/chat", server.service());
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let http = wireloom::Server::builder().bind("127.0.0.1:0").identity(identity);
    let http = http.listen().await.unwrap();
    let address = http.local_addrs()[0];
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn({
        let serve = http.serve(app).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        async move { serve.await.unwrap() }
    });

    // WebTransport, with the profile asked for by the query, as by clients without subprotocols.
    let client = Client::builder().server_certificate_hash(hash).build().unwrap();
    let session = client.connect(&format!("https://{address}/chat?wwr=2m")).await.unwrap();
    assert_eq!(session.protocol(), None);
    let mut multi = peer(webtransport::connect(session, Profile::Multi, 8192).await.unwrap()).await;
    multi.ping().await;
    assert_eq!(server.connections()[0].transport(), TransportKind::WebTransportMulti);
    let session = client.session(&format!("https://{address}/chat"));
    let session = session.protocols([PROTOCOL_M]).connect().await.unwrap();
    drop(session);

    // WebSocket over TLS.
    let tls = tls_connect(address, hash).await;
    let url = format!("wss://{address}/chat");
    let mut secure = peer(websocket::connect(tls, url, 8192).await.unwrap()).await;
    secure.ping().await;
    let remote = server.connections().iter().find_map(|connection| {
        (connection.transport() == TransportKind::WebSocket).then(|| connection.remote_address())
    });
    assert!(remote.unwrap().is_some(), "the client's address is known");

    // Both shut down in order.
    let shutdown = tokio::spawn({
        let server = server.clone();
        async move { server.shut_down().await }
    });
    secure.expect_end(CloseCode::Shutdown).await;
    multi.expect_end(CloseCode::Shutdown).await;
    within(shutdown).await.unwrap();
    let late = websocket::connect(tls_connect(address, hash).await, format!("wss://{address}/chat"), 8192).await;
    assert!(matches!(late, Err(websocket::HandshakeError::Http(response)) if response.status() == 503));
    let late = client.connect(&format!("https://{address}/chat")).await;
    assert!(late.is_err());
    stop.send(()).unwrap();
    within(serving).await.unwrap();
}

pub async fn tls_connect(
    address: SocketAddr,
    hash: wireloom::CertificateHash,
) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {
    let trust = wireloom::ServerTrust::Hashes(vec![hash]);
    let config = trust.tcp_client_config(None).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = address.ip();
    connector
        .connect(
            tokio_rustls::rustls::pki_types::ServerName::from(name),
            tcp(address).await,
        )
        .await
        .unwrap()
}

/// Without a router.
#[tokio::test]
async fn sessions_one_by_one() {
    let server = Server::builder().max_connections(1, 1).build(echo());
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let http = wireloom::Server::builder().bind("127.0.0.1:0").identity(identity);
    let http = http.listen().await.unwrap();
    let url = format!("https://{}/chat", http.local_addrs()[0]);
    let messaging = server.clone();
    tokio::spawn(async move {
        while let Some(request) = http.accept().await {
            let server = messaging.clone();
            tokio::spawn(async move { server.run_webtransport(request).await });
        }
    });
    let client = Client::builder().server_certificate_hash(hash).build().unwrap();
    let session = client.session(&url).protocols([PROTOCOL_M]).connect().await.unwrap();
    assert_eq!(session.protocol(), Some(PROTOCOL_M));
    let mut only = peer(webtransport::connect(session, Profile::Multi, 8192).await.unwrap()).await;
    only.ping().await;
    assert_eq!(server.connections()[0].transport(), TransportKind::WebTransportMulti);
    assert!(client.connect(&url).await.is_err(), "one too many");
    let (_, ()) = within(async { tokio::join!(only.expect_end(CloseCode::Shutdown), server.shut_down()) }).await;
}

/// On plain HTTP/1.1 of any server, here axum's own.
#[tokio::test]
async fn in_a_plain_axum_server() {
    let server = Server::builder().build(echo());
    let app = Router::new().route_service("/chat", server.service());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let url = format!("ws://{address}/chat");
    let mut plain = peer(websocket::connect(tcp(address).await, &url[..], 8192).await.unwrap()).await;
    plain.ping().await;
    plain.close().await;
    let status = async |head: &str| {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tcp(address).await;
        stream
            .write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = [0; 12];
        within(stream.read_exact(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    assert_eq!(status("GET /chat HTTP/1.1").await, "426");
    assert_eq!(status("OPTIONS /chat HTTP/1.1").await, "200");
    let bad = "GET /chat HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket";
    assert_eq!(status(bad).await, "426", "no version");
    let bad = format!("{bad}\r\nSec-WebSocket-Version: 13");
    assert_eq!(status(&bad).await, "400", "no key");
    within(server.shut_down()).await;
}

/// Whose addresses `axum::serve` tells in a way of its own.
#[tokio::test]
async fn the_limit_for_an_address_holds_in_axum() {
    let server = Server::builder().max_connections(10, 1).build(echo());
    let app = Router::new().route_service("/chat", server.service());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let url = format!("ws://{address}/chat");
    let stream = tcp(address).await;
    let expected = stream.local_addr().unwrap();
    let mut first = peer(websocket::connect(stream, url.clone(), 8192).await.unwrap()).await;
    first.ping().await;
    assert_eq!(server.connections()[0].remote_address(), Some(expected));
    let second = websocket::connect(tcp(address).await, url, 8192).await;
    assert!(matches!(second, Err(websocket::HandshakeError::Http(response)) if response.status() == 503));
}
