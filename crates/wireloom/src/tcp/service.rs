//! Between hyper and the application's tower service.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{ALT_SVC, CONTENT_LENGTH, COOKIE};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::host;
use super::interim::{self, InterimLine};
use crate::body::{self, RemoteAddr};
use crate::early_hints::EarlyHints;
use crate::metrics;
use crate::server::OriginPolicy;
use crate::service::{BoxError, HttpService, settle_content};
use crate::tls::TlsInfo;
use crate::websocket;

/// Which requests a connection has, to tell an idle one from a busy one.
#[derive(Debug, Default)]
pub(super) struct Activity(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    running: usize,
    /// When the last one ended; `None` before the first one ended.
    idle_since: Option<Instant>,
}

/// What a connection has been doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idle {
    /// It has never sent a request.
    Unused,
    /// A request is being answered.
    Busy,
    /// The last answer ended this long ago.
    For(Duration),
}

impl Activity {
    pub(super) fn idle(&self) -> Idle {
        self.with(|requests| match requests.idle_since {
            _ if requests.running > 0 => Idle::Busy,
            Some(since) => Idle::For(since.elapsed()),
            None => Idle::Unused,
        })
    }

    /// From now on it is never idle: it carries a WebSocket, of whose end hyper does not tell. A client that is gone does not
    /// answer the PINGs.
    fn stay_busy(&self) {
        self.with(|requests| requests.running += 1);
    }

    fn begin(self: &Arc<Self>) -> Running {
        self.with(|requests| requests.running += 1);
        Running(Arc::clone(self))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Requests) -> T) -> T {
        // Nothing that runs under this lock can panic.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request, from its header to the end of its answer's body, or a part of that body that is not written yet.
pub(super) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.with(|requests| {
            requests.running -= 1;
            if requests.running == 0 {
                requests.idle_since = Some(Instant::now());
            }
        });
    }
}

/// The body of an answer: the service's, or one of ours.
type Answer<B> = Either<B, Full<Bytes>>;

/// What the requests and answers of one connection have in common.
pub(super) struct Added {
    /// `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) tls: Option<TlsInfo>,
    pub(super) alt_svc: Option<HeaderValue>,
    pub(super) origins: Option<Arc<OriginPolicy>>,
    pub(super) activity: Arc<Activity>,
    /// HTTP/1 only.
    pub(super) interim: Option<Arc<InterimLine>>,
}

/// "If there are multiple Cookie header fields after decompression, these MUST be concatenated into a single octet string"
/// before they are passed into "a generic HTTP server application" (RFC 9113 section 8.2.3). hyper does not.
fn join_cookies(fields: &mut HeaderMap) {
    let crumbs = fields.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    // It is a value where its parts are.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(COOKIE, cookie);
    }
}

/// Whether the fields tell of another length than the body's.
fn contradicts(fields: &HeaderMap, length: u64) -> bool {
    let told = fields.get_all(CONTENT_LENGTH).iter();
    told.map(|told| told.to_str().ok().and_then(|told| told.parse().ok()))
        .any(|told: Option<u64>| told != Some(length))
}

/// A part of a body, which counts as a request that is answered until HTTP/2 has written it: hyper takes parts of any size from
/// the service long before their stream's window has room.
pub(super) struct Part {
    data: Bytes,
    _running: Running,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}

/// Over HTTP/1, where hyper closes the connection by itself when all is written.
pub(super) async fn answer_http1<S>(
    service: S,
    request: Request<Incoming>,
    added: Arc<Added>,
) -> Result<Response<impl Body<Data = Bytes, Error = BoxError> + Send + use<S>>, S::Error>
where
    S: HttpService,
{
    let (response, running) = answer(service, request, added).await?;
    // The closure is what carries `running` to the end of the body; of all adapters this one keeps the size hint.
    Ok(response.map(|body| {
        body.map_err(move |error| {
            let _until_the_body_ends = &running;
            error
        })
    }))
}

pub(super) async fn answer_http2<S>(
    service: S,
    request: Request<Incoming>,
    added: Arc<Added>,
) -> Result<Response<impl Body<Data = Part, Error = BoxError> + Send + use<S>>, S::Error>
where
    S: HttpService,
{
    let (response, running) = answer(service, request, added).await?;
    Ok(response.map(|body| {
        body.map_frame(move |frame| {
            frame.map_data(|data| Part {
                data,
                _running: running.0.begin(),
            })
        })
    }))
}

/// Passes one request to the service and adds what every answer has.
async fn answer<S>(
    mut service: S,
    mut request: Request<Incoming>,
    added: Arc<Added>,
) -> Result<(Response<Answer<S::Body>>, Running), S::Error>
where
    S: HttpService,
{
    let running = added.activity.begin();
    metrics::request(request.version());
    let scheme = if added.tls.is_some() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    if !host::is_proper(&request, &scheme) {
        tracing::debug!(peer = ?added.peer, "request without a proper Host refused");
        let mut refusal = Response::new(Either::Right(Full::from("the Host field is missing or wrong\n")));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Ok((refusal, running));
    }
    if let Some(refusal) = websocket::refuse(&request, added.origins.as_deref(), scheme) {
        tracing::debug!(peer = ?added.peer, status = %refusal.status(), "WebSocket handshake refused");
        return Ok((refusal.map(|()| Either::Right(Full::default())), running));
    }
    let is_tunnel = websocket::is_extended_connect(&request);
    let method = request.method().clone();
    let is_http2 = request.version() == Version::HTTP_2;
    if is_http2 {
        join_cookies(request.headers_mut());
    }
    if let Some(peer) = added.peer {
        RemoteAddr(peer).insert(request.extensions_mut());
    }
    if let Some(tls) = &added.tls {
        request.extensions_mut().insert(tls.clone());
    }
    poll_fn(|cx| service.poll_ready(cx)).await?;
    let mut response = match added.interim.as_ref().filter(|_| request.version() == Version::HTTP_11) {
        Some(line) => {
            let number = line.begin();
            let hints = EarlyHints::http1(line.clone(), number);
            request.extensions_mut().insert(hints);
            let response = interim::answered(line, service.call(request.map(body::Body::from))).await?;
            line.end().await;
            response
        }
        None => service.call(request.map(body::Body::from)).await?,
    };
    if is_tunnel && response.status().is_success() {
        added.activity.stay_busy();
    }
    if let Some(alt_svc) = &added.alt_svc
        && !response.status().is_informational()
    {
        response.headers_mut().entry(ALT_SVC).or_insert_with(|| alt_svc.clone());
    }
    // A tunnel has neither content nor a length of it, which hyper sees to.
    if method == Method::CONNECT && response.status().is_success() {
        return Ok((response.map(Either::Left), running));
    }
    let length = response.body().size_hint().exact();
    // hyper's HTTP/1 tells the length of the body that it is given, without a field of its own.
    let untold = length.filter(|_| is_http2 || method == Method::HEAD);
    if !settle_content(&method, &mut response, untold) {
        // hyper's HTTP/1 knows these cases, and would not let 304 tell of a length if it had no body.
        if !is_http2 && response.status() == StatusCode::NOT_MODIFIED {
            return Ok((response.map(Either::Left), running));
        }
        return Ok((response.map(|_| Either::Right(Full::default())), running));
    }
    if length.is_some_and(|length| contradicts(response.headers(), length)) {
        // hyper would send both over HTTP/1.1, where the client then takes a part of one answer for the next.
        tracing::warn!(
            ?length,
            "the service's content-length is not that of its body: answered 500"
        );
        let mut failure = Response::new(Either::Right(Full::default()));
        *failure.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok((failure, running));
    }
    Ok((response.map(Either::Left), running))
}
