//! Between the servers of `wireloom` and the application: one tower service for all of them.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use wireloom::{Body, RemoteAddr, WebTransportUpgrade};

use super::access::Entry;
use super::beside::{self, Role};
use super::body::ResponseBody;
use super::http::{Answer, HttpExchange};
use super::scope::Ends;
use super::site::Site;
use super::static_files::StaticFiles;
use super::websocket::{self, WebSocketExchange};
use super::webtransport::{self, WebTransportExchange};

/// Where requests come in.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) is_secure: bool,
    pub(crate) role: Role,
}

/// The application as a tower service.
#[derive(Clone)]
pub(crate) struct AsgiService(pub(crate) Arc<Service>);

/// What every clone of the service shares.
pub(crate) struct Service {
    pub(crate) site: Arc<Site>,
    pub(crate) listener: Listener,
    pub(crate) static_files: Arc<[StaticFiles]>,
    /// The path of the metrics.
    pub(crate) metrics: Option<Arc<str>>,
    /// They have a listener of their own.
    pub(crate) has_metrics_port: bool,
    /// The path at which the server says that it is there.
    pub(crate) health_check: Option<Arc<str>>,
}

impl Service {
    fn answer(&self, request: Request<Body>) -> Answering {
        let (mut parts, body) = request.into_parts();
        let peer = parts.extensions.get::<RemoteAddr>().map(|RemoteAddr(peer)| *peer);
        let settings = &self.site.settings;
        let ends = Ends::new(
            settings,
            peer,
            self.listener.address,
            self.listener.is_secure,
            &parts.headers,
        );
        match self.listener.role {
            Role::Site => {}
            Role::Metrics => {
                let metrics = beside::metrics(&self.site, &parts, self.metrics.as_deref());
                return self.own(&parts, &ends).now(metrics);
            }
            Role::Redirect(port) => return self.own(&parts, &ends).now(beside::redirect(&parts, port)),
        }
        if let Some(files) = self.static_files.iter().find(|files| files.serves(&parts)) {
            let (own, file) = (self.own(&parts, &ends), files.clone().answer(parts));
            return Answering::Static(Box::pin(async move { own.complete(file.await) }));
        }
        if !self.has_metrics_port && self.metrics.as_deref() == Some(parts.uri.path()) && parts.method == Method::GET {
            return self.own(&parts, &ends).now(super::metrics::response(&self.site));
        }
        let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
        if self.health_check.as_deref() == Some(parts.uri.path()) && is_read {
            return self.own(&parts, &ends).now(text(StatusCode::OK, "OK"));
        }
        let refuse = |parts: &Parts, status, why| self.own(parts, &ends).now(text(status, why));
        let Some(active) = self.site.begin() else {
            return refuse(&parts, StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
        };
        if let Some(upgrade) = parts.extensions.remove::<WebTransportUpgrade>() {
            let exchange = WebTransportExchange::new(self.site.clone(), active, parts, ends, upgrade);
            self.site.hub.start(exchange.clone());
            return Answering::Session(webtransport::Answer(exchange));
        }
        if let Some(handshake) = websocket::Handshake::of(&mut parts) {
            let exchange = WebSocketExchange::new(self.site.clone(), active, parts, ends, handshake);
            self.site.hub.start(exchange.clone());
            return Answering::WebSocket(websocket::Answer(exchange));
        }
        if parts.method == Method::CONNECT {
            // A proxy's request, which no application of ASGI can answer.
            return refuse(&parts, StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        let announced = body.size_hint().lower();
        if settings.max_body.is_some_and(|limit| announced > limit) {
            return refuse(&parts, StatusCode::PAYLOAD_TOO_LARGE, "Content Too Large");
        }
        let exchange = HttpExchange::new(self.site.clone(), active, parts, ends, body);
        self.site.hub.start(exchange.clone());
        Answering::Http(Answer(exchange))
    }

    fn own(&self, parts: &Parts, ends: &Ends) -> Own {
        Own {
            site: self.site.clone(),
            version: parts.version,
            is_head: parts.method == Method::HEAD,
            entry: self.site.entry(parts, ends),
        }
    }
}

/// An answer of the server's own, which has the fields that all have and is counted and logged as all are.
struct Own {
    site: Arc<Site>,
    version: Version,
    is_head: bool,
    entry: Option<Entry>,
}

impl Own {
    fn complete(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        super::fields::prepare(response.headers_mut(), self.version, &self.site.settings.headers);
        // A file's body does not say how long it is, but its field does.
        let announced = || super::fields::content_length(response.headers()).ok().flatten();
        let size = response.body().size_hint().exact().or_else(announced);
        let sent = size.filter(|_| !self.is_head).unwrap_or_default();
        self.site.note(self.entry, response.status(), sent);
        response
    }

    fn now(self, response: Response<ResponseBody>) -> Answering {
        Answering::Now(Some(Box::new(self.complete(response))))
    }
}

/// What the server says by itself.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

impl tower_service::Service<Request<Body>> for AsgiService {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        self.0.answer(request)
    }
}

/// The future of an answer.
pub(crate) enum Answering {
    Now(Option<Box<Response<ResponseBody>>>),
    Static(Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>),
    Http(Answer),
    WebSocket(websocket::Answer),
    Session(webtransport::Answer),
}

impl Future for Answering {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(*response)),
                None => Poll::Pending,
            },
            Self::Static(answer) => answer.as_mut().poll(cx).map(Ok),
            Self::Http(answer) => answer.poll(cx).map(Ok),
            Self::WebSocket(answer) => answer.poll(cx).map(Ok),
            Self::Session(answer) => answer.poll(cx).map(Ok),
        }
    }
}
