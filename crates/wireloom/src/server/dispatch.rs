//! HTTP/3 requests and session requests, each in a task, through the application's service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use tracing::Instrument;
use tracing::instrument::Instrumented;
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{SessionId, StreamId};

use super::origin::OriginPolicy;
use super::tunnel::Offer;
use super::upgrade::WebTransportUpgrade;
use crate::body::{Body, RemoteAddr};
use crate::driver::{Conn, Incoming, IncomingKind, RequestBody, RequestError, ResponseSender};
use crate::early_hints::EarlyHints;
use crate::metrics;
use crate::service::{AnswerBody, BoxError, HttpService, settle_content};
use crate::session::{Answer, Session, max_datagram_size};
use crate::websocket;

/// The largest body that goes with a rejection; what is longer is cut.
const MAX_REJECTION_BODY: usize = 16 * 1024;

/// What a session runs until it is over.
pub(super) type Handler = Instrumented<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Answers with the application's service, of any framework. The handler of an accepted session is left to the caller: as a part of
/// this future, idle sessions would keep all the room that answering once took.
pub(super) async fn dispatch<S>(incoming: Incoming, mut service: S, origins: Arc<OriginPolicy>) -> Option<Handler>
where
    S: HttpService,
{
    let Incoming { conn, mut head, kind } = incoming;
    let (remote, tls) = {
        // Nothing is changed that QUIC had to tell.
        let state = &mut *conn.lock();
        (state.quic.remote_address(), state.app.tls_info(&state.quic))
    };
    RemoteAddr(remote).insert(head.extensions_mut());
    head.extensions_mut().insert(tls);
    if matches!(kind, IncomingKind::Request(_)) {
        metrics::request(head.version());
    }
    match kind {
        IncomingKind::Request(stream) if websocket::is_extended_connect(&head) => {
            let recv = RequestBody::new(conn.clone(), stream);
            let send = ResponseSender::new(conn, stream);
            if let Some(refusal) = websocket::refuse(&head, Some(&origins), Scheme::HTTPS) {
                tracing::debug!(%remote, status = %refusal.status(), "WebSocket handshake refused");
                let _ = send.send_head(&refusal, true);
                return None;
            }
            if let Err(error) = tunnel(head, recv, send, service).await {
                tracing::debug!(%remote, %error, "WebSocket not opened");
            }
            None
        }
        IncomingKind::Request(stream) => {
            let method = head.method().clone();
            let body = Body::h3(body_of(conn.clone(), stream, head.headers()));
            let hints = EarlyHints::http3(&conn, stream);
            head.extensions_mut().insert(hints);
            let sender = ResponseSender::new(conn, stream);
            let request = head.map(|()| body);
            let answer = async {
                match call(&mut service, request).await {
                    Ok(response) => {
                        if let Err(error) = respond(&sender, response, &method).await {
                            tracing::debug!(%remote, %error, "response cut short");
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%remote, %error, "the service failed");
                        let _ = sender.send_head(&status(StatusCode::INTERNAL_SERVER_ERROR), true);
                    }
                }
            };
            // As over TCP: a handler, or a body that waits for news, ends with the client that asked.
            tokio::select! {
                biased;
                () = answer => {}
                () = sender.cancelled() => tracing::debug!(%remote, "request cancelled"),
            }
            None
        }
        IncomingKind::Session { id, protocols, dialect } => {
            let unanswered = Unanswered(Some((conn.clone(), id)));
            if !origins.allows(&head) {
                tracing::debug!(%remote, "session from a foreign origin rejected");
                unanswered.reject(&status(StatusCode::FORBIDDEN), Bytes::new());
                return None;
            }
            let state = conn.with(|_, driver, _| driver.session_state(id))?;
            let upgrade = WebTransportUpgrade::new(protocols, dialect, remote, max_datagram_size(&conn, &state));
            head.extensions_mut().insert(upgrade.clone());
            let request = head.map(|()| Body::empty());
            let answer = async {
                match call(&mut service, request).await {
                    Ok(response) => decide(unanswered, dialect, response, &upgrade).await,
                    Err(error) => {
                        tracing::warn!(%remote, %error, "the service failed");
                        None
                    }
                }
            };
            tokio::select! {
                biased;
                handler = answer => handler,
                _ = state.closed() => None,
            }
        }
    }
}

/// Answers the handshake of a WebSocket, and waits for its end.
async fn tunnel<S>(
    mut head: Request<()>,
    recv: RequestBody,
    send: ResponseSender,
    mut service: S,
) -> Result<(), BoxError>
where
    S: HttpService,
{
    let Some((offer, on_upgrade)) = Offer::new().await else {
        send.send_head(&status(StatusCode::INTERNAL_SERVER_ERROR), true)?;
        return Ok(());
    };
    head.extensions_mut().insert(on_upgrade);
    let answer = async {
        let response = match call(&mut service, head.map(|()| Body::empty())).await {
            Ok(response) if response.status().is_success() => response,
            Ok(denial) => return respond(&send, denial, &Method::CONNECT).await.map(|()| false),
            Err(error) => {
                tracing::warn!(%error, "the service failed");
                return send
                    .send_head(&status(StatusCode::INTERNAL_SERVER_ERROR), true)
                    .map(|()| false);
            }
        };
        let mut head = response.map(drop);
        // Lengths and types describe a body that a CONNECT response does not have.
        head.headers_mut().remove(header::CONTENT_LENGTH);
        head.headers_mut().remove(header::CONTENT_TYPE);
        add_date(&mut head);
        send.send_head(&head, false).map(|()| true)
    };
    let is_accepted = tokio::select! {
        biased;
        is_accepted = answer => is_accepted?,
        () = send.cancelled() => return Ok(()),
    };
    if is_accepted {
        offer.accept(recv, send).await;
    }
    Ok(())
}

fn body_of(conn: Arc<Conn>, stream: StreamId, fields: &HeaderMap) -> RequestBody {
    RequestBody::new(conn, stream)
        .with_length(fields)
        .with_expectation(fields)
}

async fn call<S>(service: &mut S, request: Request<Body>) -> Result<S::Response, BoxError>
where
    S: HttpService,
{
    std::future::poll_fn(|cx| service.poll_ready(cx).map_err(Into::into)).await?;
    let response = service.call(request);
    let mut response = std::pin::pin!(response);
    std::future::poll_fn(|cx| response.as_mut().poll(cx).map_err(Into::into)).await
}

/// The next frame, with the body's own error made one that can be sent between threads.
async fn next_frame<B>(mut body: Pin<&mut B>) -> Option<Result<Frame<Bytes>, BoxError>>
where
    B: AnswerBody,
{
    std::future::poll_fn(|cx| body.as_mut().poll_frame(cx))
        .await
        .map(|frame| frame.map_err(Into::into))
}

pub(super) fn status(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

fn add_date(head: &mut Response<()>) {
    if !head.headers().contains_key(header::DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        head.headers_mut().insert(header::DATE, date);
    }
}

async fn respond<B>(sender: &ResponseSender, response: Response<B>, method: &Method) -> Result<(), RequestError>
where
    B: AnswerBody,
{
    let (parts, body) = response.into_parts();
    let mut body = std::pin::pin!(body);
    let mut head = Response::from_parts(parts, ());
    add_date(&mut head);
    let has_content = settle_content(method, &mut head, body.size_hint().exact());
    if !has_content || body.is_end_stream() {
        return sender.send_head(&head, true);
    }
    sender.send_head(&head, false)?;
    while let Some(frame) = next_frame(body.as_mut()).await {
        let frame = frame.map_err(|error| {
            tracing::warn!(%error, "the response's body failed");
            RequestError::Body
        })?;
        match frame.into_data() {
            Ok(data) => sender.send_data(data).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return sender.send_trailers(&trailers);
                }
            }
        }
    }
    // "After sending a final response, the server MUST close the stream for sending" (RFC 9114 section 4.1), here or
    // with the head or the trailers.
    sender.finish()
}

/// A session request whose handler is at work. Dropped without an answer, as where the handler failed or panicked, it is
/// rejected with 500.
struct Unanswered(Option<(Arc<Conn>, SessionId)>);

impl Unanswered {
    fn accept(mut self, dialect: Dialect, head: &Response<()>, protocol: Option<String>) -> Option<Session> {
        let (conn, id) = self.0.take()?;
        accept(&conn, id, dialect, head, protocol)
    }

    fn reject(mut self, head: &Response<()>, body: Bytes) {
        if let Some((conn, id)) = self.0.take() {
            reject(&conn, id, head, body);
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some((conn, id)) = self.0.take() {
            reject(&conn, id, &status(StatusCode::INTERNAL_SERVER_ERROR), Bytes::new());
        }
    }
}

/// Accepts or rejects as the service decided; what an accepted session runs.
async fn decide<B>(
    unanswered: Unanswered,
    dialect: Dialect,
    response: Response<B>,
    upgrade: &WebTransportUpgrade,
) -> Option<Handler>
where
    B: AnswerBody,
{
    let (parts, body) = response.into_parts();
    let mut head = Response::from_parts(parts, ());
    let decision = upgrade.take();
    if !head.status().is_success() {
        let body = rejection_body(body).await;
        unanswered.reject(&with_proper_length(head, &body), body);
        return None;
    }
    let Some(callback) = decision.callback else {
        // "If the target resource does not support WebTransport, the server SHOULD reply with status code 405"
        // (draft-16 section 3.2).
        unanswered.reject(&status(StatusCode::METHOD_NOT_ALLOWED), Bytes::new());
        return None;
    };
    // Lengths and types describe a body that a CONNECT response does not have.
    head.headers_mut().remove(header::CONTENT_LENGTH);
    head.headers_mut().remove(header::CONTENT_TYPE);
    head.headers_mut().extend(decision.headers);
    let session = unanswered.accept(dialect, &head, decision.protocol)?;
    let span = session.span().clone();
    Some(callback(session).instrument(span))
}

/// `None` if the session ended while the decision was made, or cannot be accepted with this head; it is then rejected with
/// 500.
pub(super) fn accept(
    conn: &Arc<Conn>,
    id: SessionId,
    dialect: Dialect,
    head: &Response<()>,
    protocol: Option<String>,
) -> Option<Session> {
    let state = conn.with(|quic, driver, wakes| {
        let state = driver.session_state(id)?;
        let accepted = driver.accept_session(Instant::now(), quic, wakes, id, head, protocol.as_deref());
        if let Err(error) = accepted {
            tracing::warn!(%error, "session could not be accepted");
            let failed = status(StatusCode::INTERNAL_SERVER_ERROR);
            driver.reject_session(Instant::now(), quic, wakes, id, &failed, Bytes::new());
            return None;
        }
        Some(state)
    })?;
    if protocol.is_some() {
        let response = None;
        state.set_answer(Answer { response, protocol });
    }
    Some(Session::new(conn.clone(), state, dialect))
}

pub(super) fn reject(conn: &Arc<Conn>, id: SessionId, head: &Response<()>, body: Bytes) {
    conn.with(|quic, driver, wakes| {
        driver.reject_session(Instant::now(), quic, wakes, id, head, body);
    });
}

/// Rejects with a response of the application's, whose body is cut where it is too long.
pub(super) fn reject_with(conn: &Arc<Conn>, id: SessionId, response: Response<Bytes>) {
    let (parts, mut body) = response.into_parts();
    body.truncate(MAX_REJECTION_BODY);
    reject(
        conn,
        id,
        &with_proper_length(Response::from_parts(parts, ()), &body),
        body,
    );
}

/// Without a length that is not the body's, which may have been cut.
fn with_proper_length(mut head: Response<()>, body: &Bytes) -> Response<()> {
    let length = head.headers().get(header::CONTENT_LENGTH);
    if length.is_some_and(|length| length.as_bytes() != body.len().to_string().as_bytes()) {
        head.headers_mut().remove(header::CONTENT_LENGTH);
    }
    head
}

/// Refuses what a server without a router has no answer for.
pub(super) fn refuse(conn: Arc<Conn>, stream: StreamId, head: &Request<()>) {
    // "an unknown or unsupported :protocol value" is answered 501 (RFC 9220 section 3).
    let is_unsupported = websocket::is_extended_connect(head);
    let refusal = if is_unsupported {
        StatusCode::NOT_IMPLEMENTED
    } else {
        StatusCode::NOT_FOUND
    };
    // Dropping the body stops the client from sending one.
    drop(RequestBody::new(conn.clone(), stream));
    let _ = ResponseSender::new(conn, stream).send_head(&status(refusal), true);
}

async fn rejection_body<B>(body: B) -> Bytes
where
    B: AnswerBody,
{
    let mut body = std::pin::pin!(body);
    let mut out = Vec::new();
    while let Some(Ok(frame)) = next_frame(body.as_mut()).await {
        if let Ok(data) = frame.into_data() {
            let room = MAX_REJECTION_BODY - out.len();
            out.extend_from_slice(&data[..data.len().min(room)]);
            if out.len() == MAX_REJECTION_BODY {
                break;
            }
        }
    }
    out.into()
}
