//! One connection to a server, for several sessions and requests.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use wireloom_proto::connection::{CommandError, SessionRequest};
use wireloom_proto::h3::settings::Settings;
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{Code, SessionId};

use super::ConnectError;
use super::dial::close;
use super::priority::RequestPriority;
use crate::body::Body;
use crate::driver::{Conn, Established, MessageEvent, RequestBody, RequestError, ResponseSender};
use crate::error::{ConnectionError, SessionError};
use crate::quic::TransportStats;
use crate::session::{Session, SessionState};
use crate::tls::CertificateObserver;
use crate::wake::Topic;

/// A connection to a server. It is closed when it has carried no session and no request for a second, or by
/// [`close`](Self::close).
#[derive(Clone)]
pub struct Connection {
    conn: Arc<Conn>,
    presented: Arc<CertificateObserver>,
}

/// Gives the session up if the caller stops waiting for the answer.
struct Pending<'a> {
    conn: &'a Arc<Conn>,
    session: Option<SessionId>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.conn.with(|quic, driver, wakes| {
                driver.abandon_session(Instant::now(), quic, wakes, session);
            });
        }
    }
}

impl Connection {
    pub(super) fn new(conn: Arc<Conn>, presented: Arc<CertificateObserver>) -> Self {
        Self { conn, presented }
    }

    /// Opens a session for `request`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(&self, request: SessionRequest) -> Result<Session, ConnectError> {
        let conn = &self.conn;
        let signals = conn.with(|_, driver, _| driver.signals.clone());
        let session = loop {
            let mut room = pin!(signals.notified(Topic::Bi));
            room.as_mut().enable();
            let connected = conn.with(|quic, driver, wakes| match driver.lost() {
                Some(lost) => Err(ConnectError::Connection(lost.clone())),
                None => driver
                    .connect(Instant::now(), quic, wakes, &request)
                    .map_err(command_error),
            });
            match connected {
                Ok(None) => room.await,
                // There may be room for the next in line too.
                done => {
                    signals.one(Topic::Bi);
                    match done? {
                        Some(session) => break session,
                        None => continue,
                    }
                }
            }
        };
        let mut pending = Pending {
            conn,
            session: Some(session),
        };
        loop {
            let mut changed = pin!(signals.notified(Topic::State));
            changed.as_mut().enable();
            let state = Arc::new(SessionState::new(session));
            let answer = conn.with(|quic, driver, wakes| {
                let answer = driver.take_answer(Instant::now(), quic, wakes, session);
                let attached = matches!(answer, Some(Established::Accepted { .. })) && driver.attach(&state);
                (answer, attached, driver.h3().dialect(), driver.lost().cloned())
            });
            match answer {
                (Some(Established::Accepted { head, protocol }), true, Some(dialect), _) => {
                    pending.session = None;
                    return Ok(Session::new(conn.clone(), state, protocol, dialect, Some(head)));
                }
                (Some(Established::Rejected { head }), ..) => {
                    pending.session = None;
                    return Err(ConnectError::Rejected(head));
                }
                (Some(Established::Failed(error)), ..) => {
                    pending.session = None;
                    return Err(error.into());
                }
                (.., Some(lost)) => {
                    pending.session = None;
                    return Err(lost.into());
                }
                (Some(Established::Accepted { .. }), ..) => {
                    pending.session = None;
                    return Err(SessionError::from(ConnectionError::LocallyClosed).into());
                }
                (None, ..) => changed.await,
            }
        }
    }

    /// Sends an HTTP/3 request and waits for the final response's head; its body is read as it comes.
    ///
    /// The request's body is sent whole before the response is waited for. A [`RequestPriority`] among the request's extensions
    /// sets its priority.
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
        let conn = &self.conn;
        let signals = conn.with(|_, driver, _| driver.signals.clone());
        let stream = loop {
            let mut room = pin!(signals.notified(Topic::Bi));
            room.as_mut().enable();
            let sent = conn
                .with(|quic, driver, wakes| driver.send_request(Instant::now(), quic, wakes, &head, body.is_empty()));
            match sent {
                Ok(None) => room.await,
                done => {
                    signals.one(Topic::Bi);
                    match done? {
                        Some(stream) => break stream,
                        None => continue,
                    }
                }
            }
        };
        if let Some(priority) = &priority {
            priority.begin(conn, stream);
        }
        let mut incoming = RequestBody::new(conn.clone(), stream);
        let outgoing = ResponseSender::new(conn.clone(), stream);
        if !body.is_empty() {
            outgoing.send_data(body).await?;
            outgoing.finish()?;
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

    /// [`request`](Self::request), with the response's body read to its end, at most `limit` bytes of it.
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
            if let Ok(data) = frame.map_err(|_| RequestError::Body)?.into_data() {
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
        self.presented.certificate().map(|certificate| certificate.to_vec())
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

    /// Closes the connection with everything on it, at once. Close sessions first if their codes have to arrive.
    pub fn close(&self) {
        close(&self.conn, Code::H3_NO_ERROR);
    }
}

fn command_error(error: CommandError) -> ConnectError {
    match error {
        CommandError::Unsupported | CommandError::NotReady => ConnectError::NotWebTransport,
        CommandError::InvalidMessage(what) => ConnectError::InvalidRequest(what),
        _ => ConnectError::NoMoreSessions,
    }
}
