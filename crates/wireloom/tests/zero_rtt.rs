//! Early data (0-RTT), with both ends willing: what may leave early, what may not, and what holds an end to its word.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::{SocketAddr, UdpSocket};

use axum::Router;
use axum::extract::Request;
use axum::routing::{any, get};
use bytes::Bytes;
use common::raw::{Answer, Raw, answer, connect, early_config, get as raw_get, head, read_status};
use common::raw_server::{RawPeer, RawServer, settings};
use common::{Running, run, within};
use futures_util::FutureExt;
use http::{Method, StatusCode};
use wireloom::proto::connection::SessionRequest;
use wireloom::proto::h3::settings::Settings;
use wireloom::proto::h3::{headers, settings as names};
use wireloom::proto::{Code, StreamId, qpack, varint};
use wireloom::{Client, Connection, ConnectionError, EarlyData, LookupFuture, Resolve, WebTransportUpgrade};

/// Says whether the request came early.
async fn when(request: Request) -> &'static str {
    match request.extensions().get::<EarlyData>() {
        Some(_) => "early",
        None => "in time",
    }
}

/// Wants to be asked again.
async fn picky(request: Request) -> (StatusCode, &'static str) {
    match request.extensions().get::<EarlyData>() {
        Some(_) => (StatusCode::TOO_EARLY, "early"),
        None => (StatusCode::OK, "in time"),
    }
}

fn app() -> Router {
    Router::new()
        .route("/", get(when).post(when))
        .route("/picky", get(picky))
        .route(
            "/wt",
            any(|upgrade: WebTransportUpgrade| async move {
                upgrade.on_upgrade(|session| async move {
                    session.closed().await;
                })
            }),
        )
}

async fn ask(run: &Running, connection: &Connection, method: &str, path: &str) -> Bytes {
    let request = run.request(method, path, b"");
    let response = within(connection.request_whole(request, 100)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{method} {path}");
    response.into_body()
}

/// Leaves nothing but a ticket. What the server announced.
async fn visit(run: &Running, client: &Client) -> Settings {
    let connection = within(client.dial(&run.url)).await.unwrap();
    assert_eq!(ask(run, &connection, "GET", "/").await, "in time");
    connection.close();
    connection.peer_settings()
}

/// Our client leaves a server that announces less than before, so: "its SETTINGS frame MUST NOT reduce any limits or
/// alter any values that might be violated by the client with its 0-RTT data" (RFC 9114 section 7.2.4.2).
/// "the server MUST NOT reduce these initial flow control values from those negotiated during the previous session"
/// (draft 16 section 3.2).
/// "they MUST send a SETTINGS_H3_DATAGRAM setting greater than or equal to the value they sent to the client in the
/// connection where they sent them the NewSessionTicket message" (RFC 9297 section 2.1.1).
#[tokio::test]
async fn requests_leave_early_only_if_both_ends_want_that() {
    for (client_wants, server_wants) in [(false, false), (true, false), (false, true), (true, true)] {
        let run = run(app(), |b| b.early_data(server_wants)).await;
        let builder = Client::builder().server_certificate_hash(run.hash);
        let client = builder.early_data(client_wants).build().unwrap();
        let announced = visit(&run, &client).await;
        for _ in 0..2 {
            let connection = within(client.dial(&run.url)).await.unwrap();
            let both = client_wants && server_wants;
            let expected = if both { "early" } else { "in time" };
            assert_eq!(ask(&run, &connection, "GET", "/").await, expected);
            // Now the handshake is complete.
            assert_eq!(ask(&run, &connection, "GET", "/").await, "in time");
            assert_eq!(connection.peer_settings(), announced);
            assert!(connection.server_certificate().is_some());
            connection.close();
        }
    }
}

#[tokio::test]
async fn what_is_not_safe_waits_and_what_is_too_early_is_asked_again() {
    let run = run(app(), |b| b.early_data(true)).await;
    let builder = Client::builder().server_certificate_hash(run.hash);
    let client = builder.early_data(true).build().unwrap();
    visit(&run, &client).await;
    let dial = async || within(client.dial(&run.url)).await.unwrap();

    let connection = dial().await;
    let (get, post) = tokio::join!(ask(&run, &connection, "GET", "/"), ask(&run, &connection, "POST", "/"));
    assert_eq!((&get[..], &post[..]), (&b"early"[..], &b"in time"[..]));
    connection.close();

    let connection = dial().await;
    assert_eq!(ask(&run, &connection, "GET", "/picky").await, "in time");
    connection.close();

    let connection = dial().await;
    let request = SessionRequest::new(run.url.trim_start_matches("https://"), "/wt");
    let (get, session) = tokio::join!(ask(&run, &connection, "GET", "/"), within(connection.open(request)));
    assert_eq!(get, "early");
    session.unwrap().close(0, "");
}

/// A raw server's view of the next request: its method, and whether the handshake was complete.
async fn request_of(conn: &quinn::Connection) -> (Method, quinn::SendStream, quinn::RecvStream) {
    let (send, mut recv) = conn.accept_bi().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut rest = Bytes::copy_from_slice(&bytes);
        let header = varint::take(&mut rest).and_then(|_| varint::take(&mut rest));
        if header.is_some_and(|len| rest.len() as u64 >= len) {
            let section = qpack::Decoder::new().decode(StreamId::from_u64(0), rest, 1 << 16);
            let head = headers::decode_request(section.unwrap().fields().unwrap()).unwrap();
            return (head.head.method().clone(), send, recv);
        }
        let mut byte = [0];
        recv.read_exact(&mut byte).await.unwrap();
        bytes.push(byte[0]);
    }
}

fn anybody() -> Client {
    let builder = Client::builder().dangerous().accept_any_certificate();
    builder.early_data(true).build().unwrap()
}

/// A visit at a raw server, which leaves a ticket.
async fn raw_visit(server: &RawServer, client: &Client) {
    let url = server.url();
    let serve = async {
        let peer = server.accept().await;
        let (_, mut send, _recv) = request_of(&peer.conn).await;
        send.write_all(&head(&[(":status", "204")])).await.unwrap();
        send.finish().unwrap();
        peer.conn.closed().await;
    };
    let ask = async {
        let connection = client.dial(&url).await.unwrap();
        let request = http::Request::get(&url).body(Bytes::new()).unwrap();
        assert_eq!(connection.request(request).await.unwrap().status(), 204);
        connection.close();
    };
    within(async { tokio::join!(serve, ask) }).await;
}

/// "Clients cannot initiate WebTransport sessions in 0-RTT packets" (draft 16 section 3.2).
#[tokio::test]
async fn a_session_is_asked_for_only_after_the_handshake() {
    let server = RawServer::new();
    let client = anybody();
    raw_visit(&server, &client).await;
    let serve = async {
        let Ok((conn, mut complete)) = server.0.accept().await.unwrap().accept().unwrap().into_0rtt() else {
            panic!("a server can always")
        };
        let (method, mut send, _recv) = request_of(&conn).await;
        assert_eq!(method, Method::GET);
        send.write_all(&head(&[(":status", "204")])).await.unwrap();
        send.finish().unwrap();
        // The client has all that it needs for a CONNECT in early data.
        let peer = RawPeer::start(conn, settings()).await;
        let (method, mut send, recv) = request_of(&peer.conn).await;
        assert_eq!(method, Method::CONNECT);
        assert!((&mut complete).now_or_never().is_some(), "before the handshake");
        send.write_all(&head(&[(":status", "200")])).await.unwrap();
        (peer, send, recv)
    };
    let url = server.url();
    let ask = async {
        let connection = client.dial(&url).await.unwrap();
        let authority = server.0.local_addr().unwrap().to_string();
        let request = http::Request::get(&url).body(Bytes::new()).unwrap();
        let (session, response) = tokio::join!(
            connection.open(SessionRequest::new(authority, "/wt")),
            connection.request(request)
        );
        (session.unwrap(), response.unwrap())
    };
    let (_peer, (_session, response)) = within(async { tokio::join!(serve, ask) }).await;
    assert_eq!(response.status(), 204);
}

#[tokio::test]
async fn requests_that_left_in_vain_are_sent_again() {
    let server = RawServer::new();
    let client = anybody();
    raw_visit(&server, &client).await;
    server.forget();
    let serve = async {
        let peer = server.accept().await;
        for _ in 0..3 {
            let (_, mut send, _recv) = request_of(&peer.conn).await;
            let id = u64::from(send.id()).to_string();
            send.write_all(&head(&[(":status", "200"), ("x-stream", &id)]))
                .await
                .unwrap();
            send.finish().unwrap();
        }
        peer
    };
    let url = server.url();
    let ask = async {
        let connection = client.dial(&url).await.unwrap();
        let request = || async {
            let request = http::Request::get(&url).body(Bytes::new()).unwrap();
            let response = connection.request(request).await.unwrap();
            response.headers()["x-stream"].to_str().unwrap().parse::<u64>().unwrap()
        };
        let (a, b, c) = tokio::join!(request(), request(), request());
        [a, b, c]
    };
    let (_peer, streams) = within(async { tokio::join!(serve, ask) }).await;
    assert_eq!(streams, [0, 4, 8]);
}

/// "If a server accepts 0-RTT but then sends settings that are not compatible with the previously specified settings,
/// this MUST be treated as a connection error of type H3_SETTINGS_ERROR" (RFC 9114 section 7.2.4.2).
/// "that was previously specified to have a non-default value, this MUST be treated as a connection error of type
/// H3_SETTINGS_ERROR" (RFC 9114 section 7.2.4.2).
/// "they MUST validate that the new value of the SETTINGS_H3_DATAGRAM setting sent by the server in the handshake is
/// greater than or equal to the stored value" (RFC 9297 section 2.1.1).
/// "the client MUST terminate the connection with error H3_SETTINGS_ERROR" (RFC 9297 section 2.1.1).
#[tokio::test]
async fn a_server_that_reduces_its_settings_is_left() {
    let without = |id| {
        let mut fewer = Settings::new();
        settings()
            .iter()
            .filter(|s| s.0 != id)
            .for_each(|s| fewer.set(s.0, s.1));
        fewer
    };
    for (reduced, is_kept) in [
        (settings(), true),
        (without(names::WEBTRANSPORT_DRAFT02), false),
        (without(names::H3_DATAGRAM), false),
    ] {
        let server = RawServer::new();
        let client = anybody();
        raw_visit(&server, &client).await;
        let serve = async {
            let conn = server.0.accept().await.unwrap().await.unwrap();
            let peer = RawPeer::start(conn, reduced).await;
            let quinn::ConnectionError::ApplicationClosed(close) = peer.conn.closed().await else {
                panic!("not closed")
            };
            common::raw::code(close.error_code)
        };
        let url = server.url();
        let ask = async {
            let connection = client.dial(&url).await.unwrap();
            let authority = server.0.local_addr().unwrap().to_string();
            let session = connection.open(SessionRequest::new(authority, "/wt"));
            if is_kept {
                // Nobody answers it, but it was asked for.
                tokio::select! {
                    _ = session => panic!("nobody answers"),
                    () = async { while connection.dialect().is_none() { tokio::task::yield_now().await } } => {}
                }
                connection.close();
                return None;
            }
            session.await.err()
        };
        let (code, error) = within(async { tokio::join!(serve, ask) }).await;
        let expected = if is_kept {
            Code::H3_NO_ERROR
        } else {
            Code::H3_SETTINGS_ERROR
        };
        assert_eq!(code, expected, "{error:?}");
        let is_protocol = matches!(
            error,
            Some(wireloom::ConnectError::Connection(ConnectionError::Protocol {
                code: Code::H3_SETTINGS_ERROR,
                ..
            }))
        );
        assert_eq!(is_protocol, !is_kept);
    }
}

#[tokio::test]
async fn a_server_lets_only_safe_requests_through_early() {
    let run = run(app(), |b| b.early_data(true)).await;
    let address = run.url.trim_start_matches("https://").parse().unwrap();
    let config = early_config();
    let mut raw = within(Raw::with_config(address, config.clone())).await;
    raw.start().await;
    within(raw.assert_served("/")).await;

    let mut raw = within(Raw::early(address, config)).await;
    raw.start().await;
    let request = |method| {
        head(&[
            (":method", method),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", "/"),
        ])
    };
    let (_get, mut got) = raw.bi(&raw_get("/"), true).await;
    let (_post, posted) = raw.bi(&request("POST"), true).await;
    let (_connect, mut connected) = raw.bi(&connect("/wt"), false).await;
    let got = within(got.read_to_end(1000)).await.unwrap();
    assert!(got.ends_with(b"early"), "{got:?}");
    assert_eq!(within(answer(posted)).await, Answer::Status(425));
    // It waited for the end of the handshake.
    assert_eq!(within(read_status(&mut connected)).await, 200);
    let (_post, posted) = raw.bi(&request("POST"), true).await;
    assert_eq!(within(answer(posted)).await, Answer::Status(200));
}

/// A name with these addresses.
struct Fixed(Vec<SocketAddr>);

impl Resolve for Fixed {
    fn lookup<'a>(&'a self, _: &'a str, _: u16) -> LookupFuture<'a> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// A client that comes back to a server which is gone since: nobody answers at its first address any more.
struct ComesBack {
    client: Client,
    gone: SocketAddr,
    _silent: UdpSocket,
    other: Running,
}

impl ComesBack {
    const URL: &str = "https://example.test";

    async fn new() -> Self {
        let mut first = run(app(), |b| b.early_data(true)).await;
        let other = run(app(), |b| b.early_data(true)).await;
        let addresses = [&first, &other].map(address);
        let client = Client::builder()
            .server_certificate_hash(first.hash)
            .server_certificate_hash(other.hash)
            .resolver(Fixed(addresses.into()))
            .early_data(true)
            .build()
            .unwrap();
        // Tickets for several connections.
        let dial = || client.dial(Self::URL);
        let (one, two) = within(async { tokio::join!(dial(), dial()) }).await;
        for connection in [one.unwrap(), two.unwrap()] {
            assert_eq!(connection.remote_address(), addresses[0]);
            ask(&first, &connection, "GET", "/").await;
            connection.close();
        }
        first.stop.take().unwrap().send(()).unwrap();
        within(first.task).await.unwrap();
        let silent = within(async {
            loop {
                match UdpSocket::bind(addresses[0]) {
                    Ok(socket) => break socket,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        Self {
            client,
            gone: addresses[0],
            _silent: silent.await,
            other,
        }
    }
}

fn address(run: &Running) -> SocketAddr {
    run.url.trim_start_matches("https://").parse().unwrap()
}

/// It does not leave early, so there is nothing to lose by asking at each address.
#[tokio::test]
async fn a_session_is_opened_where_somebody_answers() {
    let f = ComesBack::new().await;
    let url = format!("{}/wt", ComesBack::URL);
    let session = within(f.client.connect(&url)).await.unwrap();
    assert_eq!(session.remote_address(), address(&f.other));
}

#[tokio::test]
async fn an_address_that_has_not_answered_yet_is_trusted_by_one_connection() {
    let f = ComesBack::new().await;
    let dial = async || within(f.client.dial(ComesBack::URL)).await.unwrap();
    let early = dial().await;
    assert_eq!(early.remote_address(), f.gone);
    let late = dial().await;
    assert_eq!(late.remote_address(), address(&f.other));
    ask(&f.other, &late, "GET", "/").await;
    late.close();
    // This one has answered.
    let again = dial().await;
    assert_eq!(again.remote_address(), address(&f.other));
    assert_eq!(ask(&f.other, &again, "GET", "/").await, "early");
}
