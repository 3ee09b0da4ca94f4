//! axum's WebSocket over HTTP/1.1 and over the extended CONNECT of HTTP/2.

use std::time::Duration;

use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::routing::any;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use wireloom::ConnectionLimits;
use wireloom::tcp::Options;

use crate::support::{ClientBody, Server, localhost, within};

pub(crate) fn router() -> Router {
    Router::new().route("/ws", any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)))
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn talk<T: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<T>) {
    for text in ["hello", "again"] {
        socket.send(Message::text(text)).await.expect("sent");
        assert_eq!(
            within(socket.next()).await.expect("open").expect("no error"),
            Message::text(text)
        );
    }
    socket.close(None).await.expect("closed");
    while let Some(Ok(message)) = within(socket.next()).await {
        assert!(message.is_close());
    }
}

#[tokio::test]
async fn over_http1() {
    let limits = ConnectionLimits::default();
    let server = Server::start(router(), Some(&localhost()), Options::new().limits(limits.clone())).await;
    let tls = server.connect_tls("http/1.1").await;
    let (socket, _response) = within(tokio_tungstenite::client_async(server.url("wss", "/ws"), tls))
        .await
        .expect("an upgrade");
    assert_eq!(limits.connections(), 1, "an upgraded connection stays counted");
    talk(socket).await;
    within(server.stop()).await.expect("no panic").expect("served");
    assert_eq!(limits.connections(), 0);
}

async fn probe(sender: &mut SendRequest<ClientBody>) {
    let request = http::Request::get("https://localhost/nowhere").body(Empty::new().boxed());
    let answer = sender.send_request(request.expect("a request"));
    within(answer).await.expect("an answer");
}

/// A WebSocket over HTTP/2.
async fn open(sender: &mut SendRequest<ClientBody>) -> WebSocketStream<TokioIo<Upgraded>> {
    // The server's SETTINGS, which allow this, come before its first answer.
    probe(sender).await;
    let request = http::Request::connect("https://localhost/ws")
        .version(http::Version::HTTP_2)
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::new().boxed())
        .expect("a request");
    let response = within(sender.send_request(request)).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let upgraded = within(hyper::upgrade::on(response)).await.expect("an upgrade");
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

#[tokio::test]
async fn over_http2() {
    let server = Server::start(router(), Some(&localhost()), Options::new()).await;
    let (mut sender, _connection) = server.http2().await;
    talk(open(&mut sender).await).await;
    drop(sender);
    within(server.stop()).await.expect("no panic").expect("served");
}

/// A connection that carries a WebSocket takes further requests, however long the last one is ago.
#[tokio::test]
async fn over_http2_beside_requests() {
    let header_timeout = Duration::from_secs(2);
    let options = Options::new().header_timeout(header_timeout);
    let server = Server::start(router(), Some(&localhost()), options).await;
    let (mut sender, _connection) = server.http2().await;
    let socket = open(&mut sender).await;
    // An idle connection would be given up to twice as long.
    tokio::time::sleep(header_timeout * 5 / 2).await;
    probe(&mut sender).await;
    talk(socket).await;
}
