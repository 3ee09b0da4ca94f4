//! One connection to a server, for several sessions and requests.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use wireloom_proto::connection::{CommandError, SessionRequest};
use wireloom_proto::h3::settings::Settings;
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{Code, StreamId};

use super::priority::RequestPriority;
use super::{ConnectError, EarlySession, SessionBuilder};
use crate::body::{Body, BodyError};
use crate::driver::{Conn, Driver, MessageEvent, RequestBody, RequestError, ResponseSender};
use crate::quic::TransportStats;
use crate::session::Session;
use crate::tls::TlsInfo;
use crate::wake::Topic;

/// A connection to a server. It is closed when it has carried no session and no request for a second, or by
/// [`close`](Self::close). A cheap handle; dropping it does nothing.
///
/// ```no_run
/// # async fn f(client: wireloom::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let connection = client.dial("https://example.com:4433/").await?;
/// let chat = connection.session("/chat").protocols(["chat.v1"]).connect().await?;
/// let files = connection.session("/files?volume=1").connect().await?;
/// # drop((chat, files));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Connection {
    conn: Arc<Conn>,
    /// As the URL had it that was dialled.
    authority: Arc<str>,
    connect_timeout: Duration,
}

impl Connection {
    pub(super) fn new(conn: Arc<Conn>, authority: &str, connect_timeout: Duration) -> Self {
        Self {
            conn,
            authority: authority.into(),
            connect_timeout,
        }
    }

    /// Host and port as the URL had them that was dialled.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn deadline(&self) -> Option<tokio::time::Instant> {
        super::deadline(self.connect_timeout)
    }

    /// Prepares a session at `path` (`/path?query`) of the server, with subprotocols, fields or an origin. Several can be open
    /// at once where both ends have session flow control (drafts 13 and later) or the server speaks draft 02 or 07; beyond that
    /// it is [`ConnectError::NoMoreSessions`].
    pub fn session(&self, path: &str) -> SessionBuilder {
        SessionBuilder::on(self.clone(), path)
    }

    /// Opens a session for `request`, in the words of the core, and waits for the server's answer. [`session`](Self::session) is
    /// simpler, and has the client's deadline.
    ///
    /// Dropping the future gives the session up; the server may have accepted it.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(&self, request: SessionRequest) -> Result<Session, ConnectError> {
        self.open_early(request).await?.ready().await
    }

    /// Opens a session for `request` without waiting for the server's answer. Waits only while the server's limit on open
    /// streams is reached, or for its SETTINGS where early data was sent. Cancel safe: until it resolves nothing was asked.
    ///
    /// # Errors
    /// See [`ConnectError`]; a rejection is told by [`EarlySession::ready`].
    pub async fn open_early(&self, request: SessionRequest) -> Result<EarlySession, ConnectError> {
        let conn = &self.conn;
        let signals = conn.with(|_, driver, _| driver.signals.clone());
        loop {
            let mut room = pin!(signals.notified(Topic::Bi));
            room.as_mut().enable();
            let connected = conn.with(|quic, driver, wakes| {
                if let Some(lost) = driver.unusable() {
                    return Err(ConnectError::Connection(lost));
                }
                // "the client MUST wait for receipt of the server's SETTINGS frame before establishing any WebTransport
                // sessions" (draft-ietf-webtrans-http3-16 section 4.6): they come after early data.
                if !driver.is_ready() {
                    return Ok(None);
                }
                let dialect = driver.h3().dialect().ok_or(ConnectError::NotWebTransport)?;
                let state = driver.connect(Instant::now(), quic, wakes, &request);
                let state = state.map_err(command_error)?;
                Ok(state.map(|state| Session::new(conn.clone(), state, dialect)))
            });
            match connected {
                Ok(None) => room.await,
                // There may be room for the next in line too.
                done => {
                    signals.one(Topic::Bi);
                    match done? {
                        Some(session) => return Ok(EarlySession::new(session)),
                        None => continue,
                    }
                }
            }
        }
    }

    /// Sends an HTTP/3 request and waits for the final response's head; its body is read as it comes.
    ///
    /// The request's body is sent whole before the response is waited for: "clients MUST NOT make stream closure
    /// dependent on receiving a response to their request" (RFC 9114 section 4.1). A [`RequestPriority`] among the request's
    /// extensions sets its priority.
    ///
    /// A request that fails is not tried again, unless the server said that it did nothing of it: "clients MUST assume
    /// that any request that was sent, whether in whole or in part, might have been processed" (RFC 9114 section 5.4).
    ///
    /// Dropping the future gives the request up (H3_REQUEST_CANCELLED): the server may have handled it, or a part of it.
    ///
    /// # Errors
    /// The connection or the request failed.
    pub async fn request(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>, RequestError> {
        let (head, body) = request.into_parts();
        let mut head = http::Request::from_parts(head, ());
        let priority = head.extensions().get::<RequestPriority>().cloned();
        if let Some(priority) = &priority {
            priority.prepare(&mut head);
        }
        let begin = |stream| {
            if let Some(priority) = &priority {
                priority.begin(&self.conn, stream);
            }
        };
        let (stream, was_early) = self.send_head(&head, body.is_empty()).await?;
        begin(stream);
        let response = self.response(stream, body).await?;
        if was_early && response.status() == http::StatusCode::TOO_EARLY {
            // "A client that receives a 425 (Too Early) [...] SHOULD [...] retry" once the handshake is complete (RFC 8470
            // section 5.2), as it is now that there is a response.
            drop(response);
            let (stream, _) = self.send_head(&head, true).await?;
            begin(stream);
            return self.response(stream, Bytes::new()).await;
        }
        Ok(response)
    }

    /// Opens a request stream. Whether the request left before the handshake was complete.
    async fn send_head(&self, head: &http::Request<()>, fin: bool) -> Result<(StreamId, bool), RequestError> {
        let conn = &self.conn;
        let signals = conn.with(|_, driver, _| driver.signals.clone());
        loop {
            let mut room = pin!(signals.notified(Topic::Bi));
            room.as_mut().enable();
            let sent = conn.with(|quic, driver, wakes| {
                let sent = driver.send_request(Instant::now(), quic, wakes, head, fin);
                sent.map(|stream| stream.map(|stream| (stream, driver.is_early())))
            });
            match sent {
                Ok(None) => room.await,
                done => {
                    signals.one(Topic::Bi);
                    match done? {
                        Some(sent) => return Ok(sent),
                        None => continue,
                    }
                }
            }
        }
    }

    async fn response(&self, stream: StreamId, body: Bytes) -> Result<http::Response<Body>, RequestError> {
        let conn = &self.conn;
        let mut incoming = RequestBody::new(conn.clone(), stream);
        let outgoing = ResponseSender::new(conn.clone(), stream);
        if !body.is_empty() {
            let sent = match outgoing.send_data(body).await {
                // "After sending a request, a client MUST close the stream for sending" (RFC 9114 section 4.1).
                Ok(()) => outgoing.finish(),
                failed => failed,
            };
            match sent {
                // The server wants no more of it, perhaps since it has answered: "Clients MUST NOT discard complete responses as a
                // result of having their request terminated abruptly" (section 4.1).
                Err(RequestError::Cancelled(_) | RequestError::Invalid(CommandError::InvalidState)) => {}
                sent => sent?,
            }
        }
        loop {
            match std::future::poll_fn(|cx| incoming.poll_next(cx)).await {
                MessageEvent::Response(head) if head.status().is_informational() => {}
                MessageEvent::Response(head) => {
                    let incoming = incoming.with_length(head.headers());
                    return Ok(head.map(|()| Body::h3(incoming)));
                }
                MessageEvent::Failed(error) => return Err(error),
                MessageEvent::Data(_) | MessageEvent::Trailers(_) | MessageEvent::Finished => {
                    return Err(RequestError::Malformed(Code::H3_MESSAGE_ERROR));
                }
            }
        }
    }

    /// [`request`](Self::request), with the response's body read to its end, at most `limit` bytes of it. Dropping the future
    /// gives the request up in the same way, and what was read of the body is lost.
    ///
    /// # Errors
    /// As [`request`](Self::request); a longer body is malformed.
    pub async fn request_whole(
        &self,
        request: http::Request<Bytes>,
        limit: usize,
    ) -> Result<http::Response<Bytes>, RequestError> {
        let (head, mut body) = self.request(request).await?.into_parts();
        let mut out = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(request_error)?.into_data() {
                if out.len() + data.len() > limit {
                    return Err(RequestError::Malformed(Code::H3_EXCESSIVE_LOAD));
                }
                out.extend_from_slice(&data);
            }
        }
        Ok(http::Response::from_parts(head, out.into()))
    }

    /// The server's SETTINGS, unknown ones included.
    pub fn peer_settings(&self) -> Settings {
        self.conn
            .with(|_, driver, _| driver.h3().peer_settings().cloned().unwrap_or_default())
    }

    /// The WebTransport dialect that both ends speak.
    pub fn dialect(&self) -> Option<Dialect> {
        self.conn.with(|_, driver, _| driver.h3().dialect())
    }

    /// The server's certificate, in DER.
    pub fn server_certificate(&self) -> Option<Vec<u8>> {
        self.conn.with(|quic, _, _| quic.peer_certificate())
    }

    /// What TLS has agreed on, and the server's certificates. Before the handshake is complete, as with early data, there are
    /// none yet.
    pub fn tls_info(&self) -> TlsInfo {
        self.conn.with(|quic, driver, _| driver.tls_info(quic))
    }

    /// The server's QUIC transport parameters, encoded as in RFC 9000 section 18 (those that the QUIC library knows).
    pub fn peer_transport_parameters(&self) -> Option<Bytes> {
        self.conn.with(|quic, _, _| quic.peer_transport_parameters())
    }

    /// The largest QUIC datagram that fits now, in bytes; a session's payload is one to eight bytes smaller.
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.conn.with(|quic, _, _| quic.max_datagram_size())
    }

    /// The server's address.
    pub fn remote_address(&self) -> SocketAddr {
        self.conn.with(|quic, _, _| quic.remote_address())
    }

    /// Counters and estimates.
    pub fn stats(&self) -> TransportStats {
        self.conn.with(|quic, _, _| quic.stats())
    }

    /// Tells the server that nothing more will be asked on this connection (GOAWAY) and asks it to end the sessions soon
    /// (WT_DRAIN_SESSION). Sessions and requests go on; new sessions are refused with [`ConnectError::NoMoreSessions`], new
    /// requests with [`RequestError::Invalid`].
    pub fn drain(&self) {
        self.conn.with(|quic, driver, wakes| {
            driver.go_away(Instant::now(), quic, wakes);
        });
    }

    /// Waits until the server says that it takes no more sessions and requests on this connection (GOAWAY), or it is over.
    /// Dial again for the next.
    pub async fn draining(&self) {
        let signals = self.conn.with(|_, driver, _| driver.signals.clone());
        loop {
            let mut changed = pin!(signals.notified(Topic::State));
            changed.as_mut().enable();
            let is_over = |driver: &Driver| driver.lost().is_some() || driver.h3().peer_is_going_away();
            if self.conn.with(|_, driver, _| is_over(driver)) {
                return;
            }
            changed.await;
        }
    }

    /// Closes the connection with everything on it. Sessions that are open are closed with code 0; they, and those that were
    /// closed just before, get a second for their codes to arrive. Nothing else is waited for, and nothing new is possible.
    ///
    /// Returns at once; [`Client::shut_down`](super::Client::shut_down) waits.
    pub fn close(&self) {
        self.conn.with(|quic, driver, wakes| {
            driver.close_soon(Instant::now(), quic, wakes);
        });
    }
}

/// What made a response's body end.
fn request_error(error: BodyError) -> RequestError {
    let (BodyError::Incomplete(source) | BodyError::Malformed(source)) = error;
    // Over HTTP/3 there is no other.
    source.downcast().map_or(RequestError::Body, |error| *error)
}

fn command_error(error: CommandError) -> ConnectError {
    match error {
        CommandError::Unsupported | CommandError::NotReady => ConnectError::NotWebTransport,
        CommandError::InvalidMessage(what) => ConnectError::InvalidRequest(what),
        CommandError::InvalidHeaders(_) => ConnectError::InvalidRequest("a field or an authority that may not be sent"),
        _ => ConnectError::NoMoreSessions,
    }
}

#[cfg(test)]
mod tests {
    use std::future::IntoFuture as _;
    use std::mem::ManuallyDrop;

    use axum::Router;
    use axum::routing::post;
    use http::StatusCode;

    use super::*;
    use crate::{Client, Identity, Server};

    /// "Clients MUST NOT discard complete responses as a result of having their request terminated abruptly" (RFC 9114 section
    /// 4.1), not even where the server does not wait for the first byte of the body.
    #[tokio::test]
    async fn an_answer_to_the_head_alone_is_heard() {
        let identity = Identity::self_signed(["localhost"]).expect("a name");
        let hash = identity.certificate_hashes().current;
        let server = Server::builder().bind("127.0.0.1:0").identity(identity).listen();
        let server = server.await.expect("a free port");
        let url = format!("https://{}/", server.local_addrs()[0]);
        let refuse = post(async || (StatusCode::PAYLOAD_TOO_LARGE, "too much"));
        let serving = tokio::spawn(server.serve(Router::new().route("/", refuse)).into_future());
        let client = Client::builder()
            .server_certificate_hash(hash)
            .build()
            .expect("a client");
        let asking = async {
            let connection = client.dial(&url).await.expect("a server");
            let head = http::Request::post(&url).body(()).expect("a request");
            let (stream, _) = connection.send_head(&head, false).await.expect("room");
            // Dropped, it would give the request up.
            let watcher = ManuallyDrop::new(ResponseSender::new(connection.conn.clone(), stream));
            watcher.cancelled().await;
            let response = connection.response(stream, Bytes::from_static(b"body")).await;
            let (head, body) = response.expect("the answer").into_parts();
            let body = body.collect().await.expect("the body").to_bytes();
            assert_eq!(
                (head.status, &body[..]),
                (StatusCode::PAYLOAD_TOO_LARGE, &b"too much"[..])
            );
        };
        let asked = tokio::time::timeout(Duration::from_secs(60), asking);
        asked.await.expect("in time");
        serving.abort();
    }
}
