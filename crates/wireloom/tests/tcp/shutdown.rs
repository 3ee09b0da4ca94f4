//! Ending: what is finished, what is cut off, and that nothing stays.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use wireloom::ConnectionLimits;
use wireloom::tcp::Options;

use crate::support::{Server, localhost, silent_after_an_answer, within};
use crate::websocket;

/// Longer than any test may take: whoever waits for it fails.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

fn get_request() -> http::Request<crate::support::ClientBody> {
    http::Request::get("https://localhost/")
        .header("host", "localhost")
        .body(Empty::new().boxed())
        .expect("a request")
}

/// Reports when a request has come and when its handler is gone, and answers when it is told to.
fn slow() -> (Router, mpsc::UnboundedReceiver<&'static str>, Arc<Notify>) {
    struct Report(mpsc::UnboundedSender<&'static str>);
    impl Drop for Report {
        fn drop(&mut self) {
            let _ = self.0.send("gone");
        }
    }
    let (events, seen) = mpsc::unbounded_channel();
    let answer = Arc::new(Notify::new());
    let wait = Arc::clone(&answer);
    let handler = get(move || async move {
        let report = Report(events);
        let _ = report.0.send("begun");
        wait.notified().await;
        "answered"
    });
    (Router::new().route("/", handler), seen, answer)
}

#[tokio::test]
async fn requests_that_have_begun_are_answered() {
    for version in [1, 2] {
        let (router, mut seen, answer) = slow();
        let server = Server::start(router, Some(&localhost()), Options::new().shutdown_deadline(NEVER)).await;
        let address = server.address;
        let request = if version == 1 {
            let mut sender = server.http1().await;
            tokio::spawn(async move { sender.send_request(get_request()).await })
        } else {
            let (mut sender, _connection) = server.http2().await;
            tokio::spawn(async move { sender.send_request(get_request()).await })
        };
        assert_eq!(within(seen.recv()).await, Some("begun"));
        let stopped = server.stop();
        within(async { while TcpStream::connect(address).await.is_ok() {} }).await;
        answer.notify_one();
        let response = within(request).await.expect("no panic").expect("an answer");
        assert_eq!(within(response.collect()).await.expect("a body").to_bytes(), "answered");
        within(stopped).await.expect("no panic").expect("served");
    }
}

#[tokio::test]
async fn the_deadline_cuts_off_what_is_left() {
    for version in [1, 2] {
        let (router, mut seen, _answer) = slow();
        let options = Options::new().shutdown_deadline(Duration::from_millis(50));
        let server = Server::start(router, Some(&localhost()), options).await;
        let request = if version == 1 {
            let mut sender = server.http1().await;
            tokio::spawn(async move { sender.send_request(get_request()).await })
        } else {
            let (mut sender, _connection) = server.http2().await;
            tokio::spawn(async move { sender.send_request(get_request()).await })
        };
        assert_eq!(within(seen.recv()).await, Some("begun"));
        within(server.stop()).await.expect("no panic").expect("served");
        assert_eq!(seen.try_recv(), Ok("gone"), "no handler outlives the server");
        assert!(within(request).await.expect("no panic").is_err());
    }
}

#[tokio::test]
async fn the_deadline_cuts_off_websockets() {
    let options = Options::new().shutdown_deadline(Duration::from_millis(50));
    let server = Server::start(websocket::router(), Some(&localhost()), options).await;
    let tls = server.connect_tls("http/1.1").await;
    let (mut socket, _response) = within(tokio_tungstenite::client_async(server.url("wss", "/ws"), tls))
        .await
        .expect("an upgrade");
    within(server.stop()).await.expect("no panic").expect("served");
    while let Some(Ok(_)) = within(socket.next()).await {}
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_end() {
    let limits = ConnectionLimits::default();
    let options = Options::new()
        .shutdown_deadline(NEVER)
        .header_timeout(NEVER)
        .handshake_timeout(NEVER);
    let router = Router::new().route("/", get(async || "hello"));
    let server = Server::start(router, Some(&localhost()), options.limits(limits.clone())).await;
    let silent = server.connect().await;
    let unused = [server.connect_tls("http/1.1").await, server.connect_tls("h2").await];
    let mut http1 = server.http1().await;
    let (mut http2, _connection) = server.http2().await;
    for response in [
        http1.send_request(get_request()).await,
        http2.send_request(get_request()).await,
    ] {
        assert_eq!(
            within(response.expect("an answer").collect())
                .await
                .expect("a body")
                .to_bytes(),
            "hello"
        );
    }
    // Accepted, though perhaps not looked at yet.
    within(async {
        while limits.connections() < 5 {
            tokio::task::yield_now().await
        }
    })
    .await;
    within(server.stop()).await.expect("no panic").expect("served");
    assert_eq!(limits.connections(), 0);
    drop((silent, unused, http1, http2));
}

/// Long before HTTP/2's PINGs find out that nobody answers, which takes 40 s.
const SOON: Duration = Duration::from_secs(30);

/// Its client does not acknowledge the goodbye.
#[tokio::test]
async fn a_client_that_is_gone_does_not_delay_the_end() {
    let router = Router::new().route("/", get(async || "hello"));
    let server = Server::start(router, Some(&localhost()), Options::new().shutdown_deadline(NEVER)).await;
    let _silent = silent_after_an_answer(&server).await;
    let ended = tokio::time::timeout(SOON, server.stop()).await;
    ended.expect("in time").expect("no panic").expect("served");
}

/// What was made at once is still on its way.
#[tokio::test]
async fn an_answer_is_delivered_however_slowly_it_is_read() {
    const SIZE: usize = 16 << 20;
    let router = Router::new().route("/", get(async || vec![7; SIZE]));
    let server = Server::start(router, Some(&localhost()), Options::new().shutdown_deadline(NEVER)).await;
    let (mut sender, _connection) = server.http2().await;
    let mut response = within(sender.send_request(get_request())).await.expect("an answer");
    let first = within(response.frame()).await.expect("a body").expect("no error");
    let first = first.into_data().expect("data");
    let stopped = server.stop();
    // Longer than an idle connection is left to say goodbye.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let rest = within(response.collect()).await.expect("the rest").to_bytes();
    assert_eq!(first.len() + rest.len(), SIZE);
    within(stopped).await.expect("no panic").expect("served");
}

/// An upgraded connection whose application only writes, to a client that does not read.
#[tokio::test]
async fn the_deadline_cuts_off_who_waits_to_write() {
    let (ended, mut end) = mpsc::unbounded_channel();
    let handler = get(async move |request: axum::extract::Request| {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.expect("an upgrade");
            let mut io = hyper_util::rt::TokioIo::new(upgraded);
            let error = loop {
                if let Err(error) = io.write_all(&[7; 65536]).await {
                    break error;
                }
                let _ = ended.send(None);
            };
            let _ = ended.send(Some(error.kind()));
        });
        http::Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "flood")
            .body(axum::body::Body::empty())
            .expect("a response")
    });
    let options = Options::new().shutdown_deadline(Duration::from_millis(200));
    let server = Server::start(Router::new().route("/", handler), Some(&localhost()), options).await;
    let mut tls = server.connect_tls("http/1.1").await;
    tls.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: flood\r\n\r\n")
        .await
        .expect("sent");
    assert_eq!(within(end.recv()).await, Some(None), "it writes");
    // Until nothing more fits.
    while tokio::time::timeout(Duration::from_secs(1), end.recv()).await.is_ok() {}
    within(server.stop()).await.expect("no panic").expect("served");
    let last = within(async {
        loop {
            if let Some(last) = end.recv().await.expect("the last") {
                return last;
            }
        }
    });
    assert_eq!(last.await, std::io::ErrorKind::ConnectionAborted);
    drop(tls);
}

#[tokio::test]
async fn dropping_the_server_cuts_everything_off() {
    let (router, mut seen, _answer) = slow();
    let limits = ConnectionLimits::default();
    let server = Server::start(router, None, Options::new().limits(limits.clone())).await;
    let mut tcp = server.connect().await;
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    assert_eq!(within(seen.recv()).await, Some("begun"));
    server.task.abort();
    assert_eq!(within(seen.recv()).await, Some("gone"));
    assert!(!matches!(within(tcp.read(&mut [0; 1])).await, Ok(1..)));
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_only() {
    let router = Router::new().route("/panic", get(async || -> &'static str { panic!("on purpose") }));
    let server = Server::start(
        router.route("/", get(async || "hello")),
        Some(&localhost()),
        Options::new(),
    )
    .await;
    let panics = || {
        http::Request::get("https://localhost/panic")
            .header("host", "localhost")
            .body(Empty::new().boxed())
            .expect("a request")
    };
    assert!(within(server.http1().await.send_request(panics())).await.is_err());
    let (mut http2, _connection) = server.http2().await;
    assert!(within(http2.send_request(panics())).await.is_err());
    let response = within(http2.send_request(get_request()))
        .await
        .expect("the other streams go on");
    assert_eq!(response.status(), 200);
    assert_eq!(
        within(server.http1().await.send_request(get_request()))
            .await
            .expect("an answer")
            .status(),
        200
    );
    within(server.stop()).await.expect("no panic").expect("served");
}
