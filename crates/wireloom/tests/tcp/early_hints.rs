//! 103 (Early Hints) over HTTP/1.1, by hand.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use wireloom::tcp::Options;
use wireloom::{EarlyHints, EarlyHintsError};

use crate::support::{Server, within};

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

fn link() -> HeaderMap {
    [(http::header::LINK, HeaderValue::from_static("</a.css>; rel=preload"))]
        .into_iter()
        .collect()
}

fn router(proceed: Arc<Notify>) -> Router {
    let two = async |request: Request| {
        let Some(hints) = request.extensions().get::<EarlyHints>() else {
            return "none".to_owned();
        };
        hints.send(&link()).expect("in time");
        hints.send(&link()).expect("in time");
        let large = HeaderValue::try_from("x".repeat(65536)).expect("legal");
        let large = [(http::header::LINK, large)].into_iter().collect();
        assert_eq!(hints.send(&large), Err(EarlyHintsError::Fields));
        "done".to_owned()
    };
    let waiting = async move |request: Request| {
        let hints = request.extensions().get::<EarlyHints>().expect("HTTP/1.1").clone();
        for _ in 0..2 {
            hints.send(&link()).expect("in time");
            proceed.notified().await;
        }
        // Elsewhere, after the response: it does not hit the next request's.
        tokio::spawn(async move {
            while hints.send(&link()) != Err(EarlyHintsError::Late) {
                tokio::task::yield_now().await;
            }
            proceed.notified().await;
            assert_eq!(hints.send(&link()), Err(EarlyHintsError::Late));
            proceed.notify_one();
        });
        "late"
    };
    Router::new().route("/two", get(two)).route("/waiting", get(waiting))
}

/// Reads on until `end`.
async fn read_until(tcp: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = within(tcp.read_u8()).await.expect("a byte");
        text.push(char::from(byte));
    }
    text
}

#[tokio::test]
async fn they_come_before_the_response_of_their_request() {
    let proceed = Arc::<Notify>::default();
    let server = Server::start(router(proceed.clone()), None, Options::new()).await;
    let mut tcp = server.connect().await;
    // Answered at once, and one request directly behind the other.
    let two = "GET /two HTTP/1.1\r\nhost: a\r\n\r\n";
    tcp.write_all(two.repeat(3).as_bytes()).await.expect("sent");
    for _ in 0..3 {
        let response = read_until(&mut tcp, "\r\n\r\ndone").await;
        let after = response.strip_prefix(&HINT.repeat(2)).expect("two hints first");
        assert!(
            after.starts_with("HTTP/1.1 200 OK\r\n") && !after.contains("103"),
            "{response}"
        );
    }
    // While the response is awaited.
    tcp.write_all(b"GET /waiting HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("sent");
    for _ in 0..2 {
        assert_eq!(read_until(&mut tcp, "\r\n\r\n").await, HINT);
        proceed.notify_one();
    }
    let response = read_until(&mut tcp, "late").await;
    assert!(response.ends_with("\r\n\r\nlate"), "{response}");
    tcp.write_all(b"GET /waiting HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("sent");
    assert_eq!(read_until(&mut tcp, "\r\n\r\n").await, HINT);
    drop(tcp);
    // HTTP/1.0 knows no interim responses.
    let mut old = server.connect().await;
    old.write_all(b"GET /two HTTP/1.0\r\n\r\n").await.expect("sent");
    let mut response = String::new();
    within(old.read_to_string(&mut response)).await.expect("text");
    assert!(
        response.starts_with("HTTP/1.0 200 OK\r\n") && response.ends_with("\r\n\r\nnone"),
        "{response}"
    );
    within(server.stop()).await.expect("no panic").expect("served");
}
