//! Sessions for servers without a router.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::select_all;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use wireloom_proto::SessionId;
use wireloom_proto::webtransport::negotiate::Dialect;

use super::admission::Connections;
use super::dispatch;
use super::origin::OriginPolicy;
use crate::driver::{Conn, Incoming, IncomingKind, IncomingQueue};
use crate::error::SessionError;
use crate::session::{Session, SessionState};
use crate::threads::Home;
use crate::tls::TlsInfo;

/// A session that a client asks for. Dropping it rejects it with 503.
#[must_use]
pub struct SessionRequest {
    conn: Option<Arc<Conn>>,
    id: SessionId,
    head: http::Request<()>,
    offered: Vec<String>,
    protocol: Option<String>,
    headers: HeaderMap,
    dialect: Dialect,
    remote: SocketAddr,
    tls: TlsInfo,
    /// It knows why the session has ended, if it has.
    state: Arc<SessionState>,
}

pub(super) async fn accept(
    queues: &[(Home, Arc<IncomingQueue>)],
    origins: &OriginPolicy,
    connections: &Connections,
    lost: impl Future<Output = ()>,
) -> Option<SessionRequest> {
    let mut lost = pin!(lost);
    loop {
        let mut stop = pin!(connections.stop.notified());
        stop.as_mut().enable();
        if connections.is_stopped() {
            return None;
        }
        let Incoming { conn, head, kind } = tokio::select! {
            incoming = next(queues, connections.turn()) => incoming,
            () = stop => return None,
            () = &mut lost => return None,
        };
        match kind {
            IncomingKind::Request(stream) => dispatch::refuse(conn, stream, &head),
            IncomingKind::Session { id, .. } if !origins.allows(&head) => {
                dispatch::reject(&conn, id, &dispatch::status(StatusCode::FORBIDDEN), Bytes::new());
            }
            IncomingKind::Session { id, protocols, dialect } => {
                let (remote, tls, state) = conn
                    .with(|quic, driver, _| (quic.remote_address(), driver.tls_info(quic), driver.session_state(id)));
                // The client has given up already.
                let Some(state) = state else { continue };
                return Some(SessionRequest {
                    conn: Some(conn),
                    id,
                    head,
                    offered: protocols,
                    protocol: None,
                    headers: HeaderMap::new(),
                    dialect,
                    remote,
                    tls,
                    state,
                });
            }
        }
    }
}

/// Looks first into the queue whose `turn` it is, so that none is favoured. Cancel safe: nothing is taken before it resolves.
async fn next(queues: &[(Home, Arc<IncomingQueue>)], turn: usize) -> Incoming {
    let (last, first) = queues.split_at(turn % queues.len());
    let queues = first.iter().chain(last);
    let (incoming, ..) = select_all(queues.map(|(_, queue)| Box::pin(queue.pop()))).await;
    incoming
}

/// Refuses what nobody will accept any more, until this is dropped.
pub(super) async fn refuse_all(queues: &[(Home, Arc<IncomingQueue>)]) -> Infallible {
    let mut turn = 0;
    loop {
        let Incoming { conn, head, kind } = next(queues, turn).await;
        turn = turn.wrapping_add(1);
        match kind {
            IncomingKind::Request(stream) => dispatch::refuse(conn, stream, &head),
            IncomingKind::Session { id, .. } => {
                dispatch::reject(
                    &conn,
                    id,
                    &dispatch::status(StatusCode::SERVICE_UNAVAILABLE),
                    Bytes::new(),
                );
            }
        }
    }
}

impl SessionRequest {
    /// `https://authority/path?query`.
    pub fn uri(&self) -> &Uri {
        self.head.uri()
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.head.uri().path()
    }

    /// Host and port as the client named them.
    pub fn authority(&self) -> &str {
        self.head.uri().authority().map_or("", |a| a.as_str())
    }

    /// The web page's origin; programs send none.
    pub fn origin(&self) -> Option<&str> {
        self.head.headers().get(http::header::ORIGIN)?.to_str().ok()
    }

    /// The request's fields.
    pub fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }

    /// What the client offered, most preferred first (WT-Available-Protocols).
    pub fn offered_protocols(&self) -> &[String] {
        &self.offered
    }

    /// Offers subprotocols: the client's first that is among them is agreed on.
    pub fn protocols<P: AsRef<str>>(mut self, supported: impl IntoIterator<Item = P>) -> Self {
        let supported: Vec<P> = supported.into_iter().collect();
        self.protocol = self
            .offered
            .iter()
            .find(|o| supported.iter().any(|s| s.as_ref() == *o))
            .cloned();
        self
    }

    /// Adds a field to the response that accepts the session.
    pub fn response_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The draft in which the client speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Where the client is.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// What TLS has agreed on, and the client's certificates where it has shown some
    /// ([`client_auth`](crate::ServerBuilder::client_auth)).
    ///
    /// ```no_run
    /// # async fn f(request: wireloom::SessionRequest) -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = request.tls_info();
    /// println!("{:?} asks {:?}", tls.peer_subject(), tls.server_name());
    /// # request.accept().await?;
    /// # Ok(()) }
    /// ```
    pub fn tls_info(&self) -> TlsInfo {
        self.tls.clone()
    }

    /// Accepts the session with 200.
    ///
    /// # Errors
    /// The client gave up meanwhile; the error says how. Or the fields are more than it accepts: it is then answered 500, and the
    /// error is [`SessionError::LocallyClosed`].
    pub async fn accept(mut self) -> Result<Session, SessionError> {
        let refused = SessionError::LocallyClosed {
            code: 0,
            reason: String::new(),
        };
        let Some(conn) = self.conn.take() else {
            return Err(refused);
        };
        let mut head = dispatch::status(StatusCode::OK);
        *head.headers_mut() = std::mem::take(&mut self.headers);
        dispatch::accept(&conn, self.id, self.dialect, &head, self.protocol.take())
            .ok_or_else(|| self.state.ended().cloned().unwrap_or(refused))
    }

    /// Rejects the session with `code`. A code that rejects nothing (1xx, 2xx) becomes 500.
    pub fn reject(mut self, code: StatusCode) {
        if let Some(conn) = self.conn.take() {
            dispatch::reject(&conn, self.id, &dispatch::status(code), Bytes::new());
        }
    }

    /// Rejects the session with a response of one's own, for fields such as `retry-after` or `www-authenticate` and a body that
    /// says more, of at most 16 KiB: what is longer is cut. A response that rejects nothing, or that the client does not take,
    /// becomes 500.
    ///
    /// ```no_run
    /// # fn f(request: wireloom::SessionRequest) -> Result<(), http::Error> {
    /// let busy = http::Response::builder().status(503).header("retry-after", "30");
    /// request.reject_with(busy.body("try again in half a minute".into())?);
    /// # Ok(()) }
    /// ```
    pub fn reject_with(mut self, response: http::Response<Bytes>) {
        if let Some(conn) = self.conn.take() {
            dispatch::reject_with(&conn, self.id, response);
        }
    }
}

impl Drop for SessionRequest {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            dispatch::reject(
                &conn,
                self.id,
                &dispatch::status(StatusCode::SERVICE_UNAVAILABLE),
                Bytes::new(),
            );
        }
    }
}

impl std::fmt::Debug for SessionRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionRequest")
            .field("uri", self.uri())
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
