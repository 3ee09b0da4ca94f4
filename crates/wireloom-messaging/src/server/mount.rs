//! The server as a service in an axum router, or in any other that speaks tower and hyper.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tower_service::Service;

use super::{Admission, Refusal, Server};
use crate::transport::TransportKind;
use crate::transport::websocket::WebSocketLink;

/// The body of a [`MountService`]'s responses.
pub type MountBody = Full<Bytes>;

/// A [`MountService`]'s response, once the application has [admitted](super::Handler::admit) the client.
pub type MountFuture = Pin<Box<dyn Future<Output = Result<Response<MountBody>, Infallible>> + Send>>;

impl Server {
    /// A tower service that connects clients over WebSocket (HTTP/1.1, and the extended CONNECT of HTTP/2) and, with the
    /// feature `webtransport`, over WebTransport where the server beneath is `wireloom`'s: both at the same path.
    ///
    /// Other requests are answered 426, OPTIONS 200, handshakes that are none 400, and clients who are not
    /// [admitted](super::Handler::admit) or for whom there is no room what the refusal says. The server beneath has its own graceful
    /// shutdown: call [`shut_down`](Server::shut_down) first, or at the same time.
    ///
    /// Where a client is, and with it the limit of connections for one address, is known under `wireloom`'s servers, under axum's with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, and under others that put a `SocketAddr` into the request's extensions.
    ///
    /// ```
    /// use axum::Router;
    /// use wireloom_messaging::server::{Handlers, Server};
    ///
    /// let server = Server::builder().build(Handlers::new());
    /// let app: Router = Router::new().route_service("/chat", server.service());
    /// ```
    pub fn service(&self) -> MountService {
        MountService { server: self.clone() }
    }
}

/// A [`Server`] as a tower service: see [`Server::service`].
#[derive(Debug, Clone)]
pub struct MountService {
    server: Server,
}

impl<B> Service<Request<B>> for MountService {
    type Response = Response<MountBody>;
    type Error = Infallible;
    type Future = MountFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> MountFuture {
        #[cfg_attr(not(feature = "webtransport"), allow(unused_mut))]
        let (mut request, _) = request.into_parts();
        #[cfg(feature = "webtransport")]
        if let Some(upgrade) = request.extensions.remove::<wireloom::WebTransportUpgrade>() {
            let answer = webtransport(self.server.clone(), request, upgrade);
            return Box::pin(async move { Ok(answer.await.unwrap_or_else(|refusal| refused(&refusal))) });
        }
        let answer = match handshake(&request) {
            Ok(Some(accept)) => {
                let answer = websocket(self.server.clone(), request, accept);
                return Box::pin(async move { Ok(answer.await.unwrap_or_else(|refusal| refused(&refusal))) });
            }
            Ok(None) if request.method == Method::OPTIONS => Response::default(),
            Ok(None) => refused(&Refusal::new(
                StatusCode::UPGRADE_REQUIRED,
                "this resource is reached with WebSocket or WebTransport\n",
            )),
            Err(refusal) => refused(&refusal),
        };
        Box::pin(ready(Ok(answer)))
    }
}

async fn websocket(
    server: Server,
    mut request: Parts,
    accept: Option<HeaderValue>,
) -> Result<Response<MountBody>, Refusal> {
    let Some(upgrade) = request.extensions.remove::<hyper::upgrade::OnUpgrade>() else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "the connection cannot be upgraded",
        ));
    };
    let remote = remote_of(&request);
    let place = server.place_or_refusal(admission(request, TransportKind::WebSocket, remote));
    let place = place.await?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let link = WebSocketLink::upgraded(TokioIo::new(upgraded), server.0.message_buffer_size()).await;
                // A task of its own, so that nothing of the upgrade is kept.
                tokio::spawn(server.run_in(Box::new(link.with_remote_address(remote)), place));
            }
            Err(error) => tracing::debug!(%error, ?remote, "the upgrade to WebSocket failed"),
        }
    });
    let mut response = Response::default();
    if let Some(accept) = accept {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}

#[cfg(feature = "webtransport")]
async fn webtransport(
    server: Server,
    request: Parts,
    upgrade: wireloom::WebTransportUpgrade,
) -> Result<Response<MountBody>, Refusal> {
    use super::webtransport::profile_of;
    use crate::transport::webtransport::{PROTOCOL_M, PROTOCOL_S};

    let upgrade = upgrade.protocols([PROTOCOL_M, PROTOCOL_S]);
    let (profile, kind) = profile_of(upgrade.selected_protocol().as_deref(), request.uri.query());
    let remote = Some(upgrade.remote_address());
    let place = server.place_or_refusal(admission(request, kind, remote)).await?;
    let response = upgrade.on_upgrade(move |session| async move { server.run_session(session, profile, place).await });
    Ok(response.map(|_| MountBody::default()))
}

fn admission(request: Parts, transport: TransportKind, remote: Option<SocketAddr>) -> Admission {
    Admission {
        transport,
        remote,
        uri: request.uri,
        headers: request.headers,
        extensions: request.extensions,
    }
}

/// As `wireloom`'s servers say it, as axum's does, or bare.
fn remote_of(request: &Parts) -> Option<SocketAddr> {
    #[cfg(feature = "webtransport")]
    if let Some(wireloom::RemoteAddr(remote)) = request.extensions.get() {
        return Some(*remote);
    }
    if let Some(ConnectInfo(remote)) = request.extensions.get() {
        return Some(*remote);
    }
    request.extensions.get::<SocketAddr>().copied()
}

/// Whether the request is a WebSocket handshake, and how to accept it: with a key on HTTP/1.1 (RFC 6455 section 4.2), with
/// a mere 200 on HTTP/2 (RFC 8441 section 5) and HTTP/3 (RFC 9220).
fn handshake(request: &Parts) -> Result<Option<Option<HeaderValue>>, Refusal> {
    let headers = &request.headers;
    if request.version >= Version::HTTP_2 {
        let protocol = request.extensions.get::<hyper::ext::Protocol>();
        let asks = request.method == Method::CONNECT && protocol.is_some_and(|p| p.as_str() == "websocket");
        return Ok(asks.then_some(None));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Ok(None);
    }
    let bad = |reason: &str| Refusal::new(StatusCode::BAD_REQUEST, reason);
    if request.method != Method::GET || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(bad("a WebSocket handshake is a GET with Connection: upgrade"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        // RFC 6455 section 4.4.
        return Err(Refusal::new(
            StatusCode::UPGRADE_REQUIRED,
            "the version of WebSocket is 13",
        ));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|key| key.len() == 24 && key.ends_with(b"==")) else {
        return Err(bad("no Sec-WebSocket-Key of 16 bytes"));
    };
    let accept = HeaderValue::try_from(derive_accept_key(key)).map_err(|_| bad("no Sec-WebSocket-Key"))?;
    Ok(Some(Some(accept)))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut tokens = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
}

fn refused(refusal: &Refusal) -> Response<MountBody> {
    let mut response = Response::new(MountBody::from(refusal.reason.clone()));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if refusal.status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}
