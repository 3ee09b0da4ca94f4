//! Peers that are silent, slow or too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use wireloom::ConnectionLimits;
use wireloom::tcp::Options;

use crate::support::{ClientBody, Server, Stoppable, curl, localhost, silent_after_an_answer, within};

fn router() -> Router {
    Router::new().route("/", get(async || "hello"))
}

const SHORT: Duration = Duration::from_millis(50);

/// Waits until the server has closed the connection.
async fn closed(io: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // A reset is a way to close, too.
    let _ = within(io.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn a_silent_peer_loses_its_handshake() {
    let limits = ConnectionLimits::default();
    let options = Options::new().handshake_timeout(SHORT).limits(limits.clone());
    let server = Server::start(router(), Some(&localhost()), options).await;
    closed(&mut server.connect().await).await;
    let mut half = server.connect().await;
    let _already_closed = half.write_all(&[0x16, 0x03, 0x01]).await;
    closed(&mut half).await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let options = || Options::new().header_timeout(SHORT);
    let server = Server::start(router(), Some(&localhost()), options()).await;
    for alpn in ["http/1.1", "h2"] {
        closed(&mut server.connect_tls(alpn).await).await;
    }
    let mut slow = server.connect_tls("http/1.1").await;
    let _already_closed = slow.write_all(b"GET / HTTP/1.1\r\nhost").await;
    closed(&mut slow).await;
    let mut preface_only = server.connect_tls("h2").await;
    let _already_closed = preface_only
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    closed(&mut preface_only).await;
    let plain = Server::start(router(), None, options()).await;
    closed(&mut plain.connect().await).await;
}

#[tokio::test]
async fn an_idle_connection_is_said_goodbye_to() {
    let options = Options::new().header_timeout(Duration::from_millis(200));
    let server = Server::start(router(), Some(&localhost()), options).await;
    // On a machine that is busy enough, the connection is closed before its first request has come.
    let ended = within(async {
        loop {
            let (mut sender, connection) = server.http2().await;
            let request = http::Request::get("https://localhost/")
                .body(Empty::new().boxed())
                .expect("a request");
            if let Ok(response) = sender.send_request(request).await {
                assert_eq!(response.collect().await.expect("a body").to_bytes(), "hello");
                let ended = connection.await.expect("no panic");
                // Until now: without it, the client itself would have ended the connection.
                drop(sender);
                return ended;
            }
        }
    })
    .await;
    ended.expect("GOAWAY is no error");
}

/// Nor does it need an answer to that.
#[tokio::test]
async fn an_idle_connection_keeps_no_place() {
    let limits = ConnectionLimits::default();
    // Longer than one request takes.
    let options = Options::new()
        .header_timeout(Duration::from_secs(2))
        .limits(limits.clone());
    let server = Server::start(router(), Some(&localhost()), options).await;
    let _silent = silent_after_an_answer(&server).await;
    // HTTP/2's PINGs would end it after 40 s.
    let freed = tokio::time::timeout(Duration::from_secs(30), async {
        while limits.connections() > 0 {
            tokio::time::sleep(SHORT).await;
        }
    });
    freed.await.expect("in time");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let limits = ConnectionLimits::new(10, 1);
    let server = Server::start(router(), None, Options::new().limits(limits.clone())).await;
    let mut first = server.connect().await;
    first
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("sent");
    assert_eq!(within(first.read_u8()).await.expect("an answer"), b'H');
    closed(&mut server.connect().await).await;
    drop(first);
    // The server notices in its own time that there is room again.
    within(async {
        loop {
            let mut next = server.connect().await;
            let sent = next.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            if sent.is_ok() && next.read_u8().await.is_ok() {
                return;
            }
        }
    })
    .await;
}

/// A client with huge windows that stops reading has a little of each answer made ahead.
#[tokio::test]
async fn what_waits_for_a_client_that_does_not_read_is_bounded() {
    const ANSWERS: usize = 200;
    let made = Arc::new(AtomicUsize::new(0));
    let counted = made.clone();
    let endless = async move || {
        let chunks = futures_util::stream::repeat_with(move || {
            counted.fetch_add(16 << 10, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(bytes::Bytes::from(vec![7; 16 << 10]))
        });
        axum::body::Body::from_stream(chunks)
    };
    let router = router().route("/endless", get(endless));
    let server = Server::start(router, Some(&localhost()), Options::new()).await;
    let stopped = Arc::<AtomicBool>::default();
    let io = Stoppable {
        io: server.connect_tls("h2").await,
        stopped: stopped.clone(),
    };
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size((1 << 31) - 1)
        .initial_connection_window_size((1 << 31) - 1)
        .handshake::<_, ClientBody>(TokioIo::new(io))
        .await
        .expect("a connection");
    tokio::spawn(connection);
    let mut ask = |path| {
        let request = http::Request::get(format!("https://localhost{path}")).body(Empty::new().boxed());
        sender.send_request(request.expect("a request"))
    };
    within(ask("/")).await.expect("an answer");
    stopped.store(true, Ordering::Relaxed);
    let _answers: Vec<_> = (0..ANSWERS).map(|_| ask("/endless")).collect();
    // What the kernel and hyper keep is full when nothing more is made.
    let (mut last, mut quiet) = (0, 0);
    while last == 0 || quiet < 10 {
        tokio::time::sleep(SHORT).await;
        let now = made.load(Ordering::Relaxed);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    assert!(last < ANSWERS * (256 << 10), "{last} bytes");
}

#[tokio::test]
async fn the_longest_time_for_a_header() {
    let options = Options::new()
        .header_timeout(Duration::MAX)
        .handshake_timeout(Duration::MAX);
    let server = Server::start(router(), Some(&localhost()), options).await;
    for version in ["--http1.1", "--http2"] {
        assert!(curl(&[version, &server.url("https", "/")]).await.contains("hello"));
    }
}
