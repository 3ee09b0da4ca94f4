//! Ordinary HTTP/3 beside WebTransport, through an axum router, with our own client.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::future::IntoFuture;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use common::raw::{self, Answer, Raw, answer, frame_of, read_status};
use common::raw_server::RawServer;
use common::{fixture_with, within};
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use wireloom::proto::connection::SessionRequest;
use wireloom::proto::h3::{frame, stream_type};
use wireloom::proto::varint;
use wireloom::{
    Client, ConnectError, Connection, EarlyHints, EarlyHintsError, Identity, RemoteAddr, RequestError, Server,
    ServerMonitor, WebTransportUpgrade,
};

struct Running {
    client: Client,
    url: String,
    monitor: ServerMonitor,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

async fn run(app: Router) -> Running {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let server = Server::builder()
        .bind("127.0.0.1:0")
        .identity(identity)
        .listen()
        .await
        .unwrap();
    let url = format!("https://{}", server.local_addrs()[0]);
    let monitor = server.monitor();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        server
            .serve(app)
            .with_graceful_shutdown(async {
                let _ = stopped.await;
            })
            .await
            .unwrap();
    });
    let client = Client::builder().server_certificate_hash(hash).build().unwrap();
    Running {
        client,
        url,
        monitor,
        stop: Some(stop),
        task,
    }
}

impl Running {
    async fn dial(&self) -> Connection {
        within(self.client.dial(&self.url)).await.unwrap()
    }

    fn request(&self, method: &str, path: &str, body: &'static [u8]) -> http::Request<Bytes> {
        http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .body(Bytes::from_static(body))
            .unwrap()
    }
}

#[tokio::test]
async fn a_router_answers_with_status_fields_and_body() {
    let app = Router::new().route(
        "/hello",
        get(|request: Request| async move {
            assert_eq!(request.version(), http::Version::HTTP_3);
            assert!(request.extensions().get::<RemoteAddr>().is_some());
            ([("x-a", "b")], "hello")
        }),
    );
    let run = run(app).await;
    let connection = run.dial().await;
    let response = within(connection.request_whole(run.request("GET", "/hello", b""), 1000))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-a"], "b");
    assert_eq!(response.headers()["content-length"], "5");
    assert!(response.headers().contains_key("date"));
    assert_eq!(response.body(), "hello");
    let response = within(connection.request_whole(run.request("GET", "/nowhere", b""), 1000))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let response = within(connection.request_whole(run.request("HEAD", "/hello", b""), 1000))
        .await
        .unwrap();
    assert_eq!(
        (response.status(), response.headers()["content-length"].as_bytes()),
        (StatusCode::OK, &b"5"[..])
    );
    assert!(response.body().is_empty());
}

/// The handler's response ends when the request has: "clients MUST NOT make stream closure dependent on receiving a
/// response to their request" (RFC 9114 section 4.1).
/// "After sending a request, a client MUST close the stream for sending" (RFC 9114 section 4.1).
/// "After sending a final response, the server MUST close the stream for sending" (RFC 9114 section 4.1).
#[tokio::test]
async fn bodies_stream_both_ways_and_end_with_trailers() {
    let app = Router::new().route(
        "/double",
        post(|request: Request| async move {
            let mut body = request.into_body().into_data_stream();
            let (tx, rx) = mpsc::channel::<Result<http_body::Frame<Bytes>, std::io::Error>>(1);
            tokio::spawn(async move {
                let mut n = 0;
                while let Some(chunk) = body.next().await {
                    let chunk = chunk.unwrap();
                    n += chunk.len();
                    for _ in 0..2 {
                        tx.send(Ok(http_body::Frame::data(chunk.clone()))).await.unwrap();
                    }
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("x-received", HeaderValue::from(n));
                tx.send(Ok(http_body::Frame::trailers(trailers))).await.unwrap();
            });
            let stream = futures_util::stream::unfold(rx, |mut rx| async { rx.recv().await.map(|f| (f, rx)) });
            Body::new(http_body_util::StreamBody::new(stream))
        }),
    );
    let run = run(app).await;
    let connection = run.dial().await;
    let sent: &'static [u8] = vec![7u8; 3 << 20].leak();
    let mut response = within(connection.request(run.request("POST", "/double", sent)))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (mut received, mut trailers) = (0, None);
    while let Some(frame) = within(response.body_mut().frame()).await {
        match frame.unwrap().into_data() {
            Ok(data) => received += data.len(),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    assert_eq!(received, 6 << 20);
    assert_eq!(trailers.unwrap()["x-received"], (3 << 20).to_string().as_str());
}

#[tokio::test]
async fn sessions_and_requests_share_a_connection() {
    let app = Router::new().route("/hello", get(|| async { "hello" })).route(
        "/live",
        any(|wt: WebTransportUpgrade| async move {
            wt.protocols(["v2", "v1"])
                .response_header(http::HeaderName::from_static("x-live"), HeaderValue::from_static("yes"))
                .on_upgrade(|session| async move {
                    while let Ok(datagram) = session.recv_datagram().await {
                        session.send_datagram(&datagram).unwrap();
                    }
                })
        }),
    );
    let run = run(app).await;
    let connection = run.dial().await;
    let authority = run.url.trim_start_matches("https://");
    let mut request = SessionRequest::new(authority, "/live");
    request.protocols = vec!["v1".into(), "v3".into()];
    let session = within(connection.open(request)).await.unwrap();
    assert_eq!(session.protocol(), Some("v1"));
    assert_eq!(session.response().unwrap().headers()["x-live"], "yes");
    session.send_datagram(b"x").unwrap();
    let response = within(connection.request_whole(run.request("GET", "/hello", b""), 100))
        .await
        .unwrap();
    assert_eq!(response.body(), "hello");
    assert_eq!(within(session.recv_datagram()).await.unwrap(), "x");
    session.close(0, "");
    let response = within(connection.request_whole(run.request("GET", "/hello", b""), 100))
        .await
        .unwrap();
    assert_eq!(
        response.body(),
        "hello",
        "closing a session never closes its connection"
    );
}

#[tokio::test]
async fn a_handler_rejects_with_any_status_and_plain_routes_are_no_sessions() {
    let app = Router::new()
        .route(
            "/teapot",
            any(|wt: WebTransportUpgrade| async move { wt.reject(StatusCode::IM_A_TEAPOT) }),
        )
        .route("/plain", any(|| async { "not a session" }))
        .route("/get", get(|| async { "not a session" }))
        .route(
            "/live",
            any(|wt: WebTransportUpgrade| async move { wt.on_upgrade(|_| async {}) }),
        );
    let run = run(app).await;
    for (path, status) in [("/teapot", 418), ("/plain", 405), ("/get", 405), ("/missing", 404)] {
        let result = within(run.client.connect(&format!("{}{path}", run.url))).await;
        match result {
            Err(ConnectError::Rejected(response)) => assert_eq!(response.status(), status, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    let connection = run.dial().await;
    let response = within(connection.request_whole(run.request("GET", "/live", b""), 1000))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_panicking_handler_costs_only_its_own_request() {
    async fn panics() -> Response {
        panic!("on purpose")
    }
    let app = Router::new()
        .route("/panic", get(panics))
        .route("/hello", get(|| async { "hello" }));
    let run = run(app).await;
    let connection = run.dial().await;
    assert!(
        within(connection.request_whole(run.request("GET", "/panic", b""), 100))
            .await
            .is_err()
    );
    let response = within(connection.request_whole(run.request("GET", "/hello", b""), 100))
        .await
        .unwrap();
    assert_eq!(response.body(), "hello");
}

#[tokio::test]
async fn graceful_shutdown_lets_requests_and_sessions_end() {
    let (started, has_started) = oneshot::channel::<()>();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let gate = std::sync::Arc::new(std::sync::Mutex::new(Some((started, may_go_on))));
    let app = Router::new()
        .route(
            "/slow",
            get(move || async move {
                let (started, may_go_on) = gate.lock().unwrap().take().unwrap();
                started.send(()).unwrap();
                may_go_on.await.unwrap();
                "done".into_response()
            }),
        )
        .route(
            "/live",
            any(|wt: WebTransportUpgrade| async move {
                wt.on_upgrade(|session| async move {
                    session.closed().await;
                })
            }),
        );
    let mut run = run(app).await;
    let session = within(run.client.connect(&format!("{}/live", run.url))).await.unwrap();
    let connection = run.dial().await;
    let slow = connection.request_whole(run.request("GET", "/slow", b""), 100);
    let stop = run.stop.take().unwrap();
    let rest = async {
        has_started.await.unwrap();
        stop.send(()).unwrap();
        session.draining().await;
        session.send_datagram(b"still works").unwrap();
        go_on.send(()).unwrap();
        session.close(0, "");
    };
    let (response, ()) = within(async { tokio::join!(slow, rest) }).await;
    assert_eq!(response.unwrap().body(), "done");
    within(run.task).await.unwrap();
    assert_eq!(run.monitor.stats().connections, 0);
    assert!(matches!(
        within(run.client.connect(&run.url)).await,
        Err(ConnectError::Unreachable)
    ));
}

/// The server's transport parameters, by identifier (RFC 9000 section 18).
fn transport_parameter(mut parameters: Bytes, wanted: u64) -> Option<u64> {
    while !parameters.is_empty() {
        let id = varint::take(&mut parameters)?;
        let len = usize::try_from(varint::take(&mut parameters)?).ok()?;
        let mut value = parameters.split_to(len);
        if id == wanted {
            return varint::take(&mut value);
        }
    }
    None
}

/// "the transport parameters sent by both clients and servers MUST allow the peer to create at least three
/// unidirectional streams" (RFC 9114 section 6.2), however few streams are configured.
#[tokio::test]
async fn the_peer_can_open_its_own_streams() {
    let f = fixture_with(|builder| builder.max_streams_per_connection(0)).await;
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let parameters = connection.peer_transport_parameters().unwrap();
    // initial_max_streams_uni
    assert!(transport_parameter(parameters, 0x09).unwrap() >= 3);
}

/// "settings MUST be sent as soon as the transport is ready to send data" (RFC 9114 section 7.2.4.2): to a client that
/// says nothing.
#[tokio::test]
async fn settings_come_unasked() {
    let f = fixture_with(|builder| builder).await;
    let raw = within(Raw::silent(f.server.local_addrs()[0])).await;
    let mut types = Vec::new();
    for _ in 0..3 {
        let mut stream = within(raw.conn.accept_uni()).await.unwrap();
        let mut first = [0; 1];
        within(stream.read_exact(&mut first)).await.unwrap();
        types.push(u64::from(first[0]));
        if types.ends_with(&[stream_type::CONTROL]) {
            within(stream.read_exact(&mut first)).await.unwrap();
            assert_eq!(u64::from(first[0]), frame::SETTINGS);
        }
    }
    types.sort_unstable();
    assert_eq!(
        types,
        [
            stream_type::CONTROL,
            stream_type::QPACK_ENCODER,
            stream_type::QPACK_DECODER
        ]
    );
}

/// "clients MUST assume that any request that was sent, whether in whole or in part, might have been processed" (RFC
/// 9114 section 5.4).
#[tokio::test]
async fn a_request_that_is_cut_off_is_not_sent_again() {
    let server = RawServer::new();
    let client = Client::builder().dangerous().accept_any_certificate().build().unwrap();
    let break_off = async {
        let peer = server.accept().await;
        let (_send, mut recv) = peer.request().await;
        recv.read_exact(&mut [0]).await.unwrap();
        peer.conn.close(0x100u32.into(), b"");
    };
    let ask = async {
        let connection = client.dial(&server.url()).await.unwrap();
        let request = http::Request::get(server.url()).body(Bytes::new()).unwrap();
        connection.request(request).await.unwrap_err()
    };
    let ((), error) = within(async { tokio::join!(break_off, ask) }).await;
    assert!(matches!(error, RequestError::Connection(_)), "{error:?}");
    within(client.shut_down()).await;
    assert!(server.accept().now_or_never().is_none(), "it came again");
}

/// An interim response that waits for QPACK and then tells the application nothing: the final one is read all the same.
#[tokio::test]
async fn responses_go_on_after_an_interim_one_that_waited() {
    let server = RawServer::new();
    let client = Client::builder().dangerous().accept_any_certificate().build().unwrap();
    let url = server.url();
    let respond = async {
        let peer = server.accept().await;
        let (mut request, _recv) = peer.request().await;
        let (mut session, _recv) = peer.request().await;
        let mut encoder = peer.conn.open_uni().await.unwrap();
        encoder.write_all(&[2, 0x3f, 0xbd, 0x01]).await.unwrap();
        for send in [&mut request, &mut session] {
            // Status 103 with a field that is inserted later.
            let waits = frame_of(frame::HEADERS, &[0x02, 0x80, 0xd8, 0x10]);
            send.write_all(&waits).await.unwrap();
        }
        // Answered after these have arrived.
        let (mut third, _recv) = peer.request().await;
        third.write_all(&raw::head(&[(":status", "200")])).await.unwrap();
        third.finish().unwrap();
        let (mut fourth, _recv) = peer.request().await;
        encoder.write_all(b"\x41x\x01y").await.unwrap();
        fourth.write_all(&raw::head(&[(":status", "200")])).await.unwrap();
        fourth.finish().unwrap();
        // And these after the insertion.
        peer.request().await;
        let body = frame_of(frame::DATA, b"body");
        let whole = [raw::head(&[(":status", "200")]), body].concat();
        request.write_all(&whole).await.unwrap();
        request.finish().unwrap();
        session.write_all(&raw::head(&[(":status", "200")])).await.unwrap();
        peer.conn.closed().await;
    };
    let ask = async {
        let connection = client.dial(&url).await.unwrap();
        let get = || connection.request(http::Request::get(&url).body(Bytes::new()).unwrap());
        let waiting = async {
            let response = get().await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "body");
        };
        let session = async { connection.open(SessionRequest::new("localhost", "/")).await.unwrap() };
        let others = async {
            for _ in 0..2 {
                assert_eq!(get().await.unwrap().status(), 200);
            }
            let _ = get().await;
        };
        tokio::select! {
            biased;
            ((), _session) = async { tokio::join!(waiting, session) } => {}
            () = async { others.await; std::future::pending().await } => {}
        }
        client.shut_down().await;
    };
    within(async { tokio::join!(respond, ask) }).await;
}

#[tokio::test]
async fn early_hints_come_before_the_response() {
    let hint = |request: Request| async move {
        let hints = request.extensions().get::<EarlyHints>().unwrap().clone();
        let mut fields = HeaderMap::new();
        for link in ["</a.css>; rel=preload", "</b.js>; rel=preload"] {
            fields.insert("link", HeaderValue::from_static(link));
            hints.send(&fields).unwrap();
        }
        let body = futures_util::stream::once(async move {
            assert_eq!(hints.send(&fields), Err(EarlyHintsError::Late));
            Ok::<_, std::io::Error>("done")
        });
        Body::from_stream(body)
    };
    let run = run(Router::new().route("/hints", get(hint))).await;
    let client = within(Raw::connect(run.url[8..].parse().unwrap())).await;
    let (_send, mut recv) = client.bi(&raw::get("/hints"), true).await;
    for link in ["</a.css>; rel=preload", "</b.js>; rel=preload"] {
        let hints = within(raw::read_response(&mut recv)).await;
        assert_eq!(
            (hints.status().as_u16(), &hints.headers()["link"]),
            (103, &HeaderValue::from_static(link))
        );
    }
    assert_eq!(within(read_status(&mut recv)).await, 200);
    assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"\0\x04done");
    // Our own client goes by the last response.
    let connection = run.dial().await;
    let response = within(connection.request_whole(run.request("GET", "/hints", b""), 1000))
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"done"[..]));
}

/// The handshake of a WebSocket (RFC 9220) with more fields.
fn websocket(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", path),
    ];
    all.extend_from_slice(fields);
    raw::head(&all)
}

const VERSION: (&str, &str) = ("sec-websocket-version", "13");

/// A client's frame with a mask of zeros, in a DATA frame.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let head = [first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame_of(frame::DATA, &[&head[..], payload].concat())
}

/// Echoes, and says at the end how it came about.
fn websocket_router() -> (Router, mpsc::UnboundedReceiver<&'static str>) {
    let (ends, ended) = mpsc::unbounded_channel();
    let echo = |upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(async move |mut socket: WebSocket| {
            let end = loop {
                match socket.recv().await {
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                        socket.send(message).await.unwrap();
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) => break "cut off",
                    None => break "closed",
                }
            };
            let _ = ends.send(end);
        })
    };
    let app = Router::new()
        .route("/", get(async || "here"))
        .route("/ws", any(echo))
        .route("/denied", any(async || (StatusCode::UNAUTHORIZED, "who are you?")))
        .route("/ignored", any(async || "nobody upgrades this"));
    (app, ended)
}

#[tokio::test]
async fn websockets_reach_the_router_as_over_http2() {
    let (app, mut ended) = websocket_router();
    let mut run = run(app).await;
    let client = within(Raw::connect(run.url[8..].parse().unwrap())).await;
    let (mut send, mut recv) = client.bi(&websocket("/ws", &[VERSION]), false).await;
    assert_eq!(within(read_status(&mut recv)).await, 200);
    send.write_all(&masked(0x81, b"hi")).await.unwrap();
    let mut echoed = [0; 6];
    within(recv.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(echoed, [0, 4, 0x81, 2, b'h', b'i']);
    // The server's end waits for it, and the close is confirmed, with FIN.
    run.stop.take().unwrap().send(()).unwrap();
    send.write_all(&masked(0x88, &[3, 232])).await.unwrap();
    let rest = within(recv.read_to_end(100)).await.unwrap();
    assert_eq!(rest, [0, 4, 0x88, 2, 3, 232]);
    assert_eq!(within(ended.recv()).await, Some("closed"));
    within(run.task).await.unwrap();
}

#[tokio::test]
async fn websockets_that_are_not_opened() {
    let (app, _ended) = websocket_router();
    let run = run(app).await;
    let client = within(Raw::connect(run.url[8..].parse().unwrap())).await;
    let evil = ("origin", "https://evil.test");
    for (path, fields, status) in [
        ("/denied", &[VERSION][..], 401),
        ("/nowhere", &[VERSION], 404),
        ("/ws", &[VERSION, evil], 403),
        ("/ws", &[("sec-websocket-version", "12")], 426),
        ("/ws", &[], 426),
        // A 2xx opens a tunnel, which has no end but that of whoever took it: here nobody.
        ("/ignored", &[VERSION], 200),
    ] {
        let (_send, recv) = client.bi(&websocket(path, fields), false).await;
        assert_eq!(within(answer(recv)).await, Answer::Status(status), "{path}");
    }
    within(client.assert_alive()).await;
    // A server without a router has nobody to take them.
    let f = fixture_with(|builder| builder).await;
    let client = within(Raw::connect(f.server.local_addrs()[0])).await;
    let (_send, recv) = client.bi(&websocket("/ws", &[VERSION]), false).await;
    let (answer, _) = within(async {
        tokio::select! {
            answer = answer(recv) => (answer, None::<wireloom::SessionRequest>),
            session = f.server.accept() => panic!("{:?}", session.map(|_| ())),
        }
    })
    .await;
    assert_eq!(answer, Answer::Status(501));
}

#[tokio::test]
async fn a_websocket_whose_client_gives_up() {
    let (app, mut ended) = websocket_router();
    let run = run(app).await;
    let client = within(Raw::connect(run.url[8..].parse().unwrap())).await;
    for reset in [true, false] {
        let (mut send, mut recv) = client.bi(&websocket("/ws", &[VERSION]), false).await;
        assert_eq!(within(read_status(&mut recv)).await, 200);
        if reset {
            send.reset(0x10c_u32.into()).unwrap();
        } else {
            send.finish().unwrap();
        }
        assert_eq!(within(ended.recv()).await, Some("cut off"));
        assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"");
    }
    // And the whole connection, in the middle of a frame.
    let (mut send, mut recv) = client.bi(&websocket("/ws", &[VERSION]), false).await;
    assert_eq!(within(read_status(&mut recv)).await, 200);
    send.write_all(&frame_of(frame::DATA, &[0x82, 0x84, 0])).await.unwrap();
    client.conn.close(0x100_u32.into(), b"");
    assert_eq!(within(ended.recv()).await, Some("cut off"));
}

/// A client that heeds what it is told sends no more; one that does not is answered 431.
#[tokio::test]
async fn header_sections_have_a_largest_size() {
    let f = fixture_with(|builder| builder.max_header_size(1000)).await;
    let address = f.server.local_addrs()[0];
    let app = Router::new().route("/", get(|| async { "hello" }));
    let serving = tokio::spawn(f.server.serve(app).into_future());
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let ask = async |len: usize| {
        let request = http::Request::get(format!("https://{address}/")).header("x", "y".repeat(len));
        let answer = within(connection.request_whole(request.body(Bytes::new()).unwrap(), 100)).await;
        answer.map(|answer| answer.status())
    };
    assert_eq!(ask(500).await, Ok(StatusCode::OK));
    assert!(matches!(ask(1000).await, Err(RequestError::Invalid(_))));
    let raw = Raw::connect(address).await;
    let large = "y".repeat(1000);
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/"),
        ("x", &*large),
    ];
    let (mut send, mut recv) = within(raw.conn.open_bi()).await.unwrap();
    send.write_all(&raw::head(&fields)).await.unwrap();
    send.finish().unwrap();
    assert_eq!(within(read_status(&mut recv)).await, 431);
    serving.abort();
}
