//! Which connection a client gets, and what it is told when it gets none.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use common::raw::{frame_of, head};
use common::raw_server::RawServer;
use common::{Fixture, fixture, within};
use futures_util::FutureExt;
use futures_util::future::join_all;
use quinn::VarInt;
use wireloom::{
    CertificateHash, CertificateRejection, Client, ClientBuilder, ConnectError, ConnectionError, LookupFuture,
    RequestError, Resolve,
};
use wireloom_proto::{Code, h3};

/// A name with these addresses.
struct Fixed(Vec<SocketAddr>);

impl Resolve for Fixed {
    fn lookup<'a>(&'a self, _: &'a str, _: u16) -> LookupFuture<'a> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// Trusts anybody.
fn anybody() -> ClientBuilder {
    Client::builder().dangerous().accept_any_certificate()
}

/// Takes what comes and answers nothing.
fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_refused_certificate_is_told_whatever_the_other_addresses_do() {
    let f = fixture().await;
    let server = f.server.local_addrs()[0];
    let (_silent, silent) = silent();
    // A port that was free a moment ago.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dials = [[silent, server], [server, silent], [closed, server], [server, closed]].map(|addresses| async move {
        let client = Client::builder()
            .server_certificate_hash(CertificateHash::new([7; 32]))
            .resolver(Fixed(addresses.into()))
            // All of it is waited for where an address is silent.
            .connect_timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let error = within(client.dial("https://example.test/"))
            .await
            .map(|_| ())
            .unwrap_err();
        let expected = CertificateRejection::HashMismatch { presented: f.hash };
        assert!(
            matches!(&error, ConnectError::Certificate(rejection) if *rejection == expected),
            "{addresses:?}: {error:?}"
        );
    });
    join_all(dials).await;
}

#[tokio::test]
async fn each_of_several_dials_is_told_of_the_certificate() {
    let f = fixture().await;
    let client = Client::builder()
        .server_certificate_hash(CertificateHash::new([7; 32]))
        .early_data(true)
        .build()
        .unwrap();
    let dials = (0..4).map(|_| client.dial(&f.url));
    for dialled in within(join_all(dials)).await {
        let error = dialled.map(|_| ()).unwrap_err();
        assert!(matches!(error, ConnectError::Certificate(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_resolver_that_hangs_is_to_blame() {
    struct Hangs;
    impl Resolve for Hangs {
        fn lookup<'a>(&'a self, _: &'a str, _: u16) -> LookupFuture<'a> {
            Box::pin(std::future::pending())
        }
    }
    let client = anybody().resolver(Hangs).connect_timeout(Duration::from_millis(50));
    let client = client.build().unwrap();
    let url = "https://example.test/";
    let (dialled, connected) = within(async { tokio::join!(client.dial(url), client.connect(url)) }).await;
    for error in [dialled.map(|_| ()).unwrap_err(), connected.map(|_| ()).unwrap_err()] {
        let ConnectError::Resolve { host, source } = error else {
            panic!("{error:?}");
        };
        assert_eq!((&*host, source.kind()), ("example.test", ErrorKind::TimedOut));
    }
}

#[tokio::test]
async fn a_server_that_answered_is_not_unreachable() {
    let server = RawServer::new();
    let (url, endpoint) = (server.url(), server.0.clone());
    let serve = tokio::spawn(async move {
        let mut connections = Vec::new();
        // The handshake, and no SETTINGS.
        while let Some(incoming) = endpoint.accept().await {
            connections.push(incoming.await);
        }
    });
    let client = anybody().connect_timeout(Duration::from_secs(3)).build().unwrap();
    let (dialled, connected) = within(async { tokio::join!(client.dial(&url), client.connect(&url)) }).await;
    for error in [dialled.map(|_| ()).unwrap_err(), connected.map(|_| ()).unwrap_err()] {
        assert!(
            matches!(error, ConnectError::Connection(ConnectionError::HandshakeTimedOut)),
            "{error:?}"
        );
    }
    serve.abort();
}

#[tokio::test]
async fn a_server_that_is_silent_is_unreachable() {
    let (_silent, address) = silent();
    let url = format!("https://{address}/");
    let client = anybody().connect_timeout(Duration::from_millis(50)).build().unwrap();
    let (dialled, connected) = within(async { tokio::join!(client.dial(&url), client.connect(&url)) }).await;
    for error in [dialled.map(|_| ()).unwrap_err(), connected.map(|_| ()).unwrap_err()] {
        assert!(matches!(error, ConnectError::Unreachable), "{error:?}");
    }
}

/// Where nobody can be, as filters of DNS say of the names that they block.
#[tokio::test]
async fn an_address_that_cannot_be_dialled_is_unreachable_whatever_the_url() {
    for address in ["0.0.0.0:443", "127.0.0.1:0"] {
        let client = anybody()
            .resolver(Fixed(vec![address.parse().unwrap()]))
            .build()
            .unwrap();
        let error = within(client.dial("https://example.test/"))
            .await
            .map(|_| ())
            .unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable), "{address}: {error:?}");
    }
}

#[tokio::test]
async fn a_response_that_ends_midway_is_the_servers_fault() {
    let server = RawServer::new();
    let client = anybody().receive_windows(1 << 10, 1 << 20).build().unwrap();
    let url = server.url();
    // More than the window has room for: all of it is written when the client has begun to read the body.
    let body = frame_of(h3::frame::DATA, &[7; 16 << 10]);
    let head_and_body = |fields: &[(&str, &str)]| [head(fields), body.clone()].concat();
    let serve = async {
        let peer = server.accept().await;
        let (mut send, _recv) = peer.request().await;
        send.write_all(&head_and_body(&[(":status", "200"), ("content-length", "20000")]))
            .await
            .unwrap();
        send.finish().unwrap();
        let (mut send, _recv) = peer.request().await;
        send.write_all(&head_and_body(&[(":status", "200")])).await.unwrap();
        let code = VarInt::from_u64(Code::H3_INTERNAL_ERROR.into_u64()).unwrap();
        send.reset(code).unwrap();
        let (mut send, _recv) = peer.request().await;
        send.write_all(&head_and_body(&[(":status", "200")])).await.unwrap();
        peer.conn
            .close(VarInt::from_u64(Code::H3_NO_ERROR.into_u64()).unwrap(), b"");
    };
    let ask = async {
        let connection = client.dial(&url).await.unwrap();
        let mut errors = Vec::new();
        for _ in 0..3 {
            let request = http::Request::get(&url).body(Bytes::new()).unwrap();
            errors.push(connection.request_whole(request, 1 << 20).await.unwrap_err());
        }
        errors
    };
    let (errors, ()) = within(async { tokio::join!(ask, serve) }).await;
    let closed = ConnectionError::ClosedByPeer {
        code: Code::H3_NO_ERROR,
        reason: String::new(),
    };
    let expected = [
        RequestError::Malformed(Code::H3_MESSAGE_ERROR),
        RequestError::Cancelled(Code::H3_INTERNAL_ERROR),
        RequestError::Connection(closed),
    ];
    assert_eq!(errors, expected);
}

#[test]
fn a_client_outlives_the_runtime_that_it_dialled_on_first() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let servers = runtime();
    let f = servers.block_on(fixture());
    for _ in 0..3 {
        let runtime = runtime();
        let connection = runtime.block_on(within(f.client.dial(&f.url))).unwrap();
        drop(runtime);
        connection.draining().now_or_never().expect("it is over");
    }
}

#[tokio::test]
async fn there_need_be_no_deadline() {
    let f = fixture().await;
    let client = Client::builder()
        .server_certificate_hash(f.hash)
        .connect_timeout(Duration::MAX)
        .build()
        .unwrap();
    let f = Fixture { client, ..f };
    let (server, client) = f.session().await;
    client.close(1, "");
    within(server.closed()).await;
    within(f.client.dial(&f.url)).await.unwrap();
}

#[tokio::test]
async fn sessions_on_one_connection() {
    let f = fixture().await;
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let mut sessions = Vec::new();
    for path in ["/one?a=b", "/two"] {
        let accept = async {
            let request = f.server.accept().await.unwrap();
            assert_eq!(request.uri().to_string(), f.url.replace("/test?x=1", path));
            request.protocols(["v1"]).accept().await.unwrap()
        };
        let open = connection.session(path).protocols(["v1"]).require_protocol().connect();
        let (server, client) = within(async { tokio::join!(accept, open) }).await;
        assert_eq!(client.as_ref().unwrap().protocol(), Some("v1"));
        sessions.push((server, client.unwrap()));
    }
    assert_eq!(sessions[0].0.remote_address(), sessions[1].0.remote_address());
    assert_eq!((sessions[0].1.id(), sessions[1].1.id()), (0, 4));
    for path in ["", "relative", "https://other.test/", "/a b"] {
        let error = within(connection.session(path).connect()).await.unwrap_err();
        assert!(matches!(error, ConnectError::InvalidUrl(_)), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn an_ipv4_address_in_its_ipv6_form_is_dialled() {
    let f = fixture().await;
    let port = f.server.local_addrs()[0].port();
    let mapped = Fixed(vec![SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), port)]);
    let client = anybody().resolver(mapped).build().unwrap();
    let connection = within(client.dial("https://localhost/")).await.unwrap();
    assert_eq!(connection.remote_address(), f.server.local_addrs()[0]);
}

/// As of a client that is made for one session: the builder is all that is left of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_dropped_while_it_connects_connects() {
    let f = fixture().await;
    tokio::spawn(async move {
        let mut sessions = Vec::new();
        while let Some(request) = f.server.accept().await {
            sessions.push(request.accept().await);
        }
    });
    for _ in 0..50 {
        let client = Client::builder().server_certificate_hash(f.hash).build().unwrap();
        let session = client.session(&f.url);
        drop(client);
        within(session.connect()).await.unwrap();
    }
}
