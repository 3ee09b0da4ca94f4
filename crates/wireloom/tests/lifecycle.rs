//! What ends, and how: nothing hangs and nothing is left over, whoever ends it and whenever.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::future::IntoFuture as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use common::raw::{Raw, connect, get as get_head, int, wt_bi};
use common::{Running, fixture, fixture_with, run, thrifty, within};
use http::StatusCode;
use http_body_util::BodyExt as _;
use quinn::VarInt;
use tokio::task::JoinSet;
use wireloom::{Client, ConnectError, Identity, ServeError, Server, ServerBuilder, SessionError, WebTransportUpgrade};
use wireloom_proto::Code;

#[tokio::test]
async fn responses_that_nobody_reads_to_the_end_give_their_streams_back() {
    let app = Router::new().route("/big", get(|| async { vec![7; 256 << 10] }));
    let run = run(app, |b| b.max_streams_per_connection(8)).await;
    // The body is complete on the server before the client's window lets it go.
    let client = thrifty(run.hash, 16 << 10);
    let connection = within(client.dial(&run.url)).await.unwrap();
    for _ in 0..20 {
        let response = within(connection.request(run.request("GET", "/big", b"")))
            .await
            .unwrap();
        drop(response);
    }
}

#[tokio::test]
async fn a_session_that_is_closed_right_after_it_was_accepted_ends_at_the_client_too() {
    let f = fixture().await;
    for code in 0..30 {
        let serve = async {
            let session = f.server.accept().await.unwrap().accept().await.unwrap();
            session.drain();
            session.close(code, "at once");
        };
        let (client, ()) = within(async { tokio::join!(f.client.connect(&f.url), serve) }).await;
        let client = client.unwrap();
        within(client.draining()).await;
        let reason = "at once".into();
        assert_eq!(within(client.closed()).await, SessionError::Closed { code, reason });
    }
}

#[tokio::test]
async fn a_rejection_arrives_even_if_the_connection_is_closed_right_after() {
    let f = fixture().await;
    let serve = async {
        f.server.accept().await.unwrap().reject(StatusCode::GONE);
        f.server.shut_down(0, "").await;
    };
    let (client, ()) = within(async { tokio::join!(f.client.connect(&f.url), serve) }).await;
    assert!(matches!(client, Err(ConnectError::Rejected(r)) if r.status() == StatusCode::GONE));
}

#[tokio::test]
async fn a_connection_without_use_is_closed_whatever_it_carried() {
    let f = fixture().await;
    // Nothing but the timer can end its connections.
    let quiet = || {
        let builder = Client::builder().server_certificate_hash(f.hash).keep_alive(None);
        builder.idle_timeout(Duration::from_secs(600)).build().unwrap()
    };
    let rejected = quiet();
    let reject = async { f.server.accept().await.unwrap().reject(StatusCode::NOT_FOUND) };
    let (session, ()) = within(async { tokio::join!(rejected.connect(&f.url), reject) }).await;
    assert!(session.is_err());

    let abandoned = quiet();
    let request = async {
        tokio::select! {
            _ = abandoned.connect(&f.url) => panic!("nobody answers"),
            request = f.server.accept() => request.unwrap(),
        }
    };
    let request = within(request).await;

    let accepted = quiet();
    let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let (session, server) = within(async { tokio::join!(accepted.connect(&f.url), accept) }).await;
    drop(session.unwrap());
    within(server.closed()).await;

    let asked = quiet();
    let connection = within(asked.dial(&f.url)).await.unwrap();
    let ask = async {
        let get = http::Request::get(&f.url).body(bytes::Bytes::new()).unwrap();
        connection.request_whole(get, 100).await.unwrap()
    };
    tokio::select! {
        _ = f.server.accept() => panic!("no session"),
        answer = within(ask) => assert_eq!(answer.status(), StatusCode::NOT_FOUND),
    }
    for client in [rejected, abandoned, accepted, asked] {
        within(client.shut_down()).await;
    }
    drop(request);
}

#[tokio::test]
async fn requests_and_sessions_that_wait_for_room_all_get_it() {
    let app = Router::new().route("/", get(|| async { "hello" }));
    let run = run(app, |b| b.max_streams_per_connection(4)).await;
    let connection = run.dial().await;
    let mut tasks = JoinSet::new();
    for i in 0..200 {
        let (connection, request) = (connection.clone(), run.request("GET", "/", b""));
        tasks.spawn(async move {
            let response = connection.request_whole(request, 100);
            // Some give up while they wait.
            if i % 5 == 0 {
                let _ = tokio::time::timeout(Duration::from_millis(i / 10), response).await;
            } else {
                assert_eq!(response.await.unwrap().body(), "hello");
            }
        });
    }
    while let Some(task) = within(tasks.join_next()).await {
        task.unwrap();
    }
}

#[tokio::test]
async fn stopped_after_the_end_waits_no_longer_than_the_session() {
    let f = fixture_with(|b| b).await;
    let (server, client) = f.session().await;
    let mut send = within(client.open_uni()).await.unwrap();
    send.finish().unwrap();
    server.close(3, "");
    assert!(matches!(
        within(send.stopped()).await,
        Err(SessionError::Closed { code: 3, .. })
    ));
}

/// The status with which a session at `path` is rejected.
async fn rejection(run: &Running, path: &str) -> StatusCode {
    match run.connect(path).await {
        Err(ConnectError::Rejected(response)) => response.status(),
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test]
async fn every_session_request_is_answered_whatever_its_handler_does() {
    async fn panics(_: WebTransportUpgrade) -> StatusCode {
        panic!("on purpose")
    }
    async fn too_large(upgrade: WebTransportUpgrade) -> impl IntoResponse {
        let mut response = upgrade.on_upgrade(|_| async {});
        let value = http::HeaderValue::try_from("x".repeat(100_000)).unwrap();
        response.headers_mut().insert("x-large", value);
        response
    }
    let app = Router::new()
        .route("/panic", any(panics))
        .route("/large", any(too_large))
        .route(
            "/101",
            any(|_: WebTransportUpgrade| async { StatusCode::SWITCHING_PROTOCOLS }),
        )
        .route(
            "/103",
            any(|_: WebTransportUpgrade| async { StatusCode::from_u16(103).unwrap() }),
        )
        .route(
            "/upgraded",
            any(|upgrade: WebTransportUpgrade| async {
                upgrade.on_upgrade(|session| async move {
                    session.send_datagram(b"about to panic").unwrap();
                    panic!("on purpose")
                })
            }),
        );
    let run = run(app, |b| b).await;
    for path in ["/panic", "/large", "/101", "/103"] {
        assert_eq!(rejection(&run, path).await, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
    let session = run.connect("/upgraded").await.unwrap();
    assert!(within(session.closed()).await.is_closed());
    assert_eq!(run.monitor.stats().sessions, 0);

    let f = fixture().await;
    let reject = async { f.server.accept().await.unwrap().reject(StatusCode::OK) };
    let (rejected, ()) = within(async { tokio::join!(f.client.connect(&f.url), reject) }).await;
    assert!(matches!(rejected, Err(ConnectError::Rejected(r)) if r.status() == StatusCode::INTERNAL_SERVER_ERROR));
}

#[tokio::test]
async fn a_body_where_there_can_be_none_is_left_out() {
    let app = Router::new()
        .route("/204", get(|| async { (StatusCode::NO_CONTENT, "too much") }))
        .route("/304", get(|| async { (StatusCode::NOT_MODIFIED, "too much") }));
    let run = run(app, |b| b).await;
    let connection = run.dial().await;
    for path in ["/204", "/304"] {
        let response = within(connection.request_whole(run.request("GET", path, b""), 100))
            .await
            .unwrap();
        assert_eq!((response.status().as_str(), response.body().len()), (&path[1..], 0));
        let length = response.headers().get("content-length");
        assert!(
            length.is_none() || path == "/304",
            "that of 204 would be malformed: {length:?}"
        );
    }
}

#[tokio::test]
async fn short_streams_that_nobody_accepts_are_bounded_and_none_is_lost() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut opened = 0u32;
    'opening: while opened < 10_000 {
        let mut open = pin!(client.open_uni());
        let mut rounds = 0;
        let mut send = loop {
            tokio::select! {
                biased;
                send = &mut open => break send.unwrap(),
                // What the server has to say about credit comes before the echo.
                () = within(round_trip(&client, &server)) => rounds += 1,
            }
            if rounds > 50 {
                break 'opening;
            }
        };
        send.write_all(&opened.to_be_bytes()).await.unwrap();
        send.finish().unwrap();
        opened += 1;
    }
    assert!((1000..3000).contains(&opened), "{opened}");
    // Other streams are not held up.
    let (mut send, _recv) = within(client.open_bi()).await.unwrap();
    send.finish().unwrap();
    within(server.accept_bi()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..opened {
        let mut recv = within(server.accept_uni()).await.unwrap();
        let number = within(recv.read_to_end(4)).await.unwrap();
        seen.push(u32::from_be_bytes(number.try_into().unwrap()));
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..opened));
    within(client.open_uni()).await.unwrap();
}

async fn round_trip(client: &wireloom::Session, server: &wireloom::Session) {
    client.send_datagram(b"?").unwrap();
    server.recv_datagram().await.unwrap();
    server.send_datagram(b"!").unwrap();
    client.recv_datagram().await.unwrap();
}

#[tokio::test]
async fn a_session_request_that_waits_does_not_keep_a_connection_that_is_gone() {
    let f = fixture().await;
    let monitor = f.server.monitor();
    for _ in 0..3 {
        let client = Client::builder().server_certificate_hash(f.hash).build().unwrap();
        let connection = within(client.dial(&f.url)).await.unwrap();
        let (uri, body) = (f.url.as_str(), bytes::Bytes::new());
        let asked = async {
            let _ = connection.request(http::Request::get(uri).body(body).unwrap()).await;
        };
        tokio::select! {
            () = asked => panic!("nobody answers"),
            () = async { while monitor.leftovers() == 0 { tokio::task::yield_now().await } } => {}
        }
        connection.close();
        within(client.shut_down()).await;
    }
    let gone = async {
        while monitor.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
    let (server, _client) = f.session().await;
    assert!(server.close_reason().is_none());
}

#[tokio::test]
async fn handlers_end_with_the_client_that_asked() {
    /// Tells when it is dropped.
    struct Guard(tokio::sync::mpsc::UnboundedSender<&'static str>, &'static str);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }
    let (dropped, mut drops) = tokio::sync::mpsc::unbounded_channel();
    let (tell, mut started) = tokio::sync::mpsc::unbounded_channel();
    let handler = |what: &'static str| {
        let (dropped, tell) = (dropped.clone(), tell.clone());
        move || {
            let guard = Guard(dropped.clone(), what);
            tell.send(()).unwrap();
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }
        }
    };
    let guard = dropped.clone();
    let news = move || {
        let guard = Guard(guard.clone(), "news");
        async move {
            let frames = futures_util::stream::poll_fn(move |_| {
                let _ = &guard;
                Poll::<Option<Result<bytes::Bytes, std::io::Error>>>::Pending
            });
            axum::body::Body::from_stream(frames)
        }
    };
    let app = Router::new()
        .route("/get", get(handler("get")))
        .route("/session", any(handler("session")))
        .route("/news", get(news));
    let run = run(app, |b| b).await;
    let connection = run.dial().await;

    tokio::select! {
        _ = connection.request(run.request("GET", "/get", b"")) => panic!("nobody answers"),
        _ = within(started.recv()) => {}
    }
    assert_eq!(within(drops.recv()).await, Some("get"));

    drop(
        within(connection.request(run.request("GET", "/news", b"")))
            .await
            .unwrap(),
    );
    assert_eq!(within(drops.recv()).await, Some("news"));

    tokio::select! {
        _ = run.connect("/session") => panic!("nobody answers"),
        _ = within(started.recv()) => {}
    }
    assert_eq!(within(drops.recv()).await, Some("session"));

    // So when the whole connection goes. The first may be closed by now, without use.
    let connection = run.dial().await;
    let close = async {
        within(started.recv()).await;
        connection.close();
    };
    let request = connection.request(run.request("GET", "/get", b""));
    let (failed, ()) = within(async { tokio::join!(request, close) }).await;
    assert!(failed.is_err());
    assert_eq!(within(drops.recv()).await, Some("get"));
}

/// Sockets that are bound already are served, and the connection's ids lead to the server.
#[tokio::test]
async fn sockets_that_are_bound_already() {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let identity = Identity::self_signed(["localhost"]).unwrap();
    let hash = identity.certificate_sha256();
    let server = Server::builder()
        .sockets(Some(udp), None)
        .connection_id_route(2, 5)
        .identity(identity)
        .listen()
        .await
        .unwrap();
    assert_eq!(server.local_addrs(), [address]);
    let client = Client::builder().server_certificate_hash(hash).build().unwrap();
    let url = format!("https://{address}/");
    let (session, accepted) = tokio::join!(client.connect(&url), async {
        server.accept().await.unwrap().accept().await.unwrap()
    });
    let session = session.unwrap();
    session.send_datagram(b"x").unwrap();
    assert_eq!(&within(accepted.recv_datagram()).await.unwrap()[..], b"x");
}

const SIZE: usize = 256 << 10;

/// A server with an answer that comes in small pieces, and the answer's beginning.
async fn slow_answer(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> (Running, wireloom::Body) {
    let app = Router::new().route("/big", get(|| async { vec![7; SIZE] }));
    let run = run(app, configure).await;
    let client = thrifty(run.hash, 16 << 10);
    let connection = within(client.dial(&run.url)).await.unwrap();
    let response = within(connection.request(run.request("GET", "/big", b"")))
        .await
        .unwrap();
    (run, response.into_body())
}

#[tokio::test]
async fn a_graceful_shutdown_waits_until_answers_have_arrived() {
    let (mut run, body) = slow_answer(|b| b).await;
    run.stop.take().unwrap().send(()).unwrap();
    // The handler is through; what the client's window did not let go yet is still to come.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let body = within(body.collect()).await.unwrap().to_bytes();
    assert_eq!(body.len(), SIZE);
    within(run.task).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_gets_on_slowly_keeps_its_connection() {
    let (run, mut body) = slow_answer(|b| b.unused_timeout(Duration::from_secs(2))).await;
    let start = std::time::Instant::now();
    let (mut read, mut pauses) = (0, 0);
    while let Some(frame) = within(body.frame()).await {
        read += frame.unwrap().into_data().unwrap().len();
        // A window's worth at a time.
        if read / (16 << 10) > pauses {
            pauses += 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    assert_eq!(read, SIZE);
    assert!(
        start.elapsed() > Duration::from_secs(4),
        "longer than the connection may be unused"
    );
    drop(run);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_does_not() {
    let (run, body) = slow_answer(|b| b.unused_timeout(Duration::from_millis(300))).await;
    let gone = async {
        while run.monitor.stats().connections > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(gone).await;
    assert!(within(body.collect()).await.is_err());
}

#[tokio::test]
async fn a_handler_whose_request_is_reset_by_the_server_ends() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |request: axum::extract::Request| {
        let tell = tell.clone();
        async move {
            tell.send("runs").unwrap();
            let _ended = Ended(tell);
            std::future::pending::<()>().await;
            drop(request);
        }
    };
    struct Ended(tokio::sync::mpsc::UnboundedSender<&'static str>);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.send("ended");
        }
    }
    let run = run(
        Router::new().route("/held", any(handler)).route("/", get(|| async {})),
        |b| b,
    )
    .await;
    let raw = Raw::connect(run.url.trim_start_matches("https://").parse().unwrap()).await;
    let (send, _recv) = raw.bi(&get_head("/held"), false).await;
    assert_eq!(within(told.recv()).await, Some("runs"));
    // A request knows no datagrams: it is terminated (RFC 9297 section 2).
    raw.conn.send_datagram(int(u64::from(send.id()) / 4).into()).unwrap();
    assert_eq!(within(told.recv()).await, Some("ended"));
    within(raw.assert_alive()).await; // it did not end with its connection
}

#[tokio::test]
async fn a_stream_that_was_stopped_before_its_session_was_accepted_is_known_to_be() {
    let f = fixture().await;
    let raw = Raw::connect(f.server.local_addrs()[0]).await;
    let (first, _response) = raw.bi(&connect("/first"), false).await;
    let request = within(f.server.accept()).await.unwrap();
    let (_send, mut recv) = raw.bi(&wt_bi(first.id().into(), b"early"), false).await;
    recv.stop(VarInt::from_u64(Code::from_application(77).into()).unwrap())
        .unwrap();
    // A second request, which is served when what was sent before has arrived.
    let (_second, _response) = raw.bi(&connect("/second"), false).await;
    let _second = within(f.server.accept()).await.unwrap();
    let session = request.accept().await.unwrap();
    let (mut send, _recv) = within(session.accept_bi()).await.unwrap();
    assert_eq!(within(send.stopped()).await, Ok(Some(77)));
}

/// A session that nobody has accepted when the server shuts down is refused, and holds nothing up.
#[tokio::test]
async fn a_shutdown_refuses_what_nobody_has_accepted() {
    let f = fixture_with(|b| b.shutdown_deadline(Duration::MAX)).await;
    let monitor = f.server.monitor();
    let connecting = f.client.connect(&f.url);
    let shutting_down = async {
        while monitor.stats().sessions == 0 {
            tokio::task::yield_now().await;
        }
        f.server.shut_down(7, "bye").await;
        assert!(f.server.accept().await.is_none());
    };
    let (refused, ()) = within(async { tokio::join!(connecting, shutting_down) }).await;
    let Err(ConnectError::Rejected(response)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

/// A client that falls back to TCP learns at once that nobody is there.
#[tokio::test]
async fn a_server_that_accepts_sessions_closes_tcp() {
    let f = fixture().await;
    let address = f.server.local_addrs()[0];
    let accepting = async {
        f.server.accept().await;
    };
    let connecting = async {
        while let Ok(mut tcp) = tokio::net::TcpStream::connect(address).await {
            // One that the kernel took before.
            let _ = tokio::io::AsyncReadExt::read_u8(&mut tcp).await;
        }
    };
    within(async {
        tokio::select! {
            () = accepting => panic!("accepted"),
            () = connecting => {}
        }
    })
    .await;
}

/// What is cut off a long one does not count in its Content-Length.
#[tokio::test]
async fn a_long_rejection_keeps_its_status() {
    for (len, declared) in [(1000, true), (100_000, false)] {
        let reject = move |_: WebTransportUpgrade| async move {
            let head = [(http::header::CONTENT_LENGTH, len.to_string())];
            (StatusCode::NOT_FOUND, head, "x".repeat(len))
        };
        let run = run(Router::new().route("/long", any(reject)), |b| b).await;
        match within(run.client.connect(&format!("{}/long", run.url))).await {
            Err(ConnectError::Rejected(response)) => {
                assert_eq!(response.status(), StatusCode::NOT_FOUND, "{len}");
                assert_eq!(response.headers().contains_key("content-length"), declared);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A rejection's body ends with the client that it is for.
#[tokio::test]
async fn a_rejection_that_goes_on_ends_with_its_client() {
    let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    let app = Router::new().route(
        "/endless",
        any(move |_: WebTransportUpgrade| {
            let alive = alive.clone();
            async move {
                let body = futures_util::stream::poll_fn(move |_| {
                    let _ = &alive;
                    Poll::<Option<Result<bytes::Bytes, std::io::Error>>>::Pending
                });
                (StatusCode::NOT_FOUND, axum::body::Body::from_stream(body))
            }
        }),
    );
    let mut run = run(app, |b| b).await;
    {
        let url = format!("{}/endless", run.url);
        let asked = async {
            while run.monitor.stats().sessions == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = run.client.connect(&url) => panic!("{answer:?}"),
            () = within(asked) => {}
        }
    }
    run.client.shut_down().await;
    while run.monitor.stats().connections > 0 {
        tokio::task::yield_now().await;
    }
    // The router's own handle goes with the server.
    let _ = run.stop.take().unwrap().send(());
    assert_eq!(within(ended.recv()).await, None);
}

/// A callback that panics leaves nobody without an answer.
#[tokio::test]
async fn a_check_of_origins_that_panics() {
    let app = Router::new().route(
        "/",
        any(async |upgrade: WebTransportUpgrade| upgrade.on_upgrade(async |_| {})),
    );
    let run = run(app, |b| b.check_origin(|_, _| panic!("on purpose"))).await;
    let session = run.client.session(&run.url).origin("https://evil.test").connect();
    let refused = within(session).await;
    assert!(
        matches!(&refused, Err(ConnectError::Rejected(response)) if response.status() == StatusCode::INTERNAL_SERVER_ERROR),
        "{refused:?}"
    );
}

/// Without one of its sides a server does not go on as if nothing were.
#[tokio::test]
async fn a_side_that_fails_ends_the_server() {
    struct Fragile(Arc<AtomicBool>);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(!self.0.load(Ordering::Relaxed), "on purpose");
            Self(self.0.clone())
        }
    }
    impl tower_service::Service<http::Request<wireloom::Body>> for Fragile {
        type Response = http::Response<wireloom::Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<wireloom::Body>) -> Self::Future {
            std::future::ready(Ok(http::Response::new(wireloom::Body::empty())))
        }
    }
    for over_tcp in [true, false] {
        // What nobody answers any more is waited for until then.
        let f = fixture_with(|builder| builder.shutdown_deadline(Duration::from_millis(200))).await;
        let address = f.server.local_addrs()[0];
        let is_broken = Arc::<AtomicBool>::default();
        let serving = tokio::spawn(f.server.serve(Fragile(is_broken.clone())).into_future());
        let connection = within(f.client.dial(&f.url)).await.unwrap();
        let request = || http::Request::get(&f.url).body(bytes::Bytes::new()).unwrap();
        within(connection.request_whole(request(), 100)).await.unwrap();
        is_broken.store(true, Ordering::Relaxed);
        if over_tcp {
            tokio::net::TcpStream::connect(address).await.unwrap();
        } else {
            let _broken_off = within(connection.request_whole(request(), 100)).await;
        }
        let error = within(serving).await.unwrap().unwrap_err();
        assert!(
            matches!(&error, ServeError::Io(error) if error.to_string().contains("panic")),
            "{error:?}"
        );
    }
}

/// As `serve` does, `accept` ends where nothing will come any more.
#[test]
fn accepting_ends_with_the_last_of_the_sockets_tasks() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let f = runtime.block_on(fixture());
    let other = tokio::runtime::Runtime::new().unwrap();
    other.block_on(async {
        let waiting = async { assert!(f.server.accept().await.is_none()) };
        let ending = async { runtime.shutdown_background() };
        within(async { tokio::join!(waiting, ending) }).await;
    });
}

#[tokio::test]
async fn there_is_nothing_to_accept_without_udp() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::builder().sockets(None, Some(tcp));
    let server = server.identity(Identity::self_signed(["localhost"]).unwrap());
    let server = server.listen().await.unwrap();
    assert!(within(server.accept()).await.is_none());
}
