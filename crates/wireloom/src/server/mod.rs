//! Serving: UDP and TCP on the same port, one service for HTTP/1.1, HTTP/2, HTTP/3 and WebTransport.

mod accept;
mod admission;
mod bind;
mod builder;
mod dispatch;
mod origin;
mod serve;
mod tunnel;
mod upgrade;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::select_all;
use http::Request;
use http_body::Body as HttpBody;
use tower_service::Service;

pub use accept::SessionRequest;
pub use builder::{ServeError, ServerBuilder};
pub use serve::Serve;
#[cfg(feature = "axum")]
pub use upgrade::NotWebTransport;
pub use upgrade::WebTransportUpgrade;

use self::admission::Connections;
pub(crate) use self::origin::OriginPolicy;
use crate::body::Body;
use crate::driver::{CLOSE_GRACE, Driver, IncomingQueue};
use crate::error::ConnectionError;
use crate::identity::Identity;
use crate::limits::ConnectionLimits;
use crate::quic::Endpoint;
use crate::service::BoxError;
use crate::threads::Home;
use crate::wake::Topic;

/// A bound server: its sockets receive, and it waits to be told what to do with requests, by [`serve`](Self::serve) or
/// [`accept`](Self::accept).
///
/// Dropping it closes every connection.
pub struct Server {
    endpoints: Vec<Endpoint<Driver>>,
    /// Until [`serve`](Self::serve) takes them, or [`accept`](Self::accept) closes them.
    tcp: Mutex<Vec<TcpSide>>,
    /// What has been asked for, by where it is answered.
    queues: Vec<(Home, Arc<IncomingQueue>)>,
    connections: Arc<Connections>,
    limits: ConnectionLimits,
    identity: Identity,
    origins: Arc<OriginPolicy>,
    alt_svc: bool,
    handshake_timeout: Duration,
    shutdown_deadline: Duration,
    tcp_options: crate::tcp::Options,
}

/// A TCP socket.
struct TcpSide {
    listener: tokio::net::TcpListener,
    /// The port of the UDP socket beside it.
    http3: Option<u16>,
}

/// A count of what a server holds, for monitoring and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerStats {
    /// QUIC connections that are not over.
    pub connections: usize,
    /// WebTransport sessions that are open or waiting for an answer.
    pub sessions: usize,
    /// QUIC handshakes whose client's address nothing has proven ([`ServerBuilder::retry_above`]): those under way, which count
    /// as connections too, and those that were given up and QUIC has not forgotten yet.
    pub unproven: usize,
}

/// Counts what a [`Server`] holds, also after it was given to [`Server::serve`].
#[derive(Clone)]
pub struct ServerMonitor(Arc<Connections>);

impl ServerMonitor {
    /// The counts of this moment.
    pub fn stats(&self) -> ServerStats {
        let mut stats = ServerStats {
            unproven: self.0.unproven(),
            ..ServerStats::default()
        };
        for conn in self.0.list() {
            conn.with(|_, driver, _| {
                if driver.lost().is_none() {
                    stats.connections += 1;
                    stats.sessions += driver.session_count();
                }
            });
        }
        stats
    }
}

impl ServerMonitor {
    /// What the connections still keep for requests and sessions.
    #[doc(hidden)]
    pub fn leftovers(&self) -> usize {
        let connections = self.0.list().into_iter();
        connections
            .map(|conn| conn.with(|quic, driver, _| driver.leftovers(quic)))
            .sum()
    }
}

impl std::fmt::Debug for ServerMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServerMonitor").field(&self.stats()).finish()
    }
}

impl Server {
    /// A server with the defaults of [`ServerBuilder`].
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The bound addresses, UDP and TCP alike, in the order of the builder's `bind` calls; those of
    /// [`sockets`](ServerBuilder::sockets) come first, and where one has no UDP, its TCP address.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = self.endpoints.iter().map(Endpoint::local_addr).collect();
        for address in self.tcp().iter().filter_map(|side| side.listener.local_addr().ok()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    fn tcp(&self) -> MutexGuard<'_, Vec<TcpSide>> {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A monitor that outlives the server.
    pub fn monitor(&self) -> ServerMonitor {
        ServerMonitor(self.connections.clone())
    }

    /// Serves every request, of HTTP/1.1, HTTP/2 and HTTP/3, with `service`; an axum `Router` fits as it is. WebTransport
    /// requests reach it as CONNECT with a [`WebTransportUpgrade`] among their extensions, WebSockets of every version as
    /// [`tcp`](crate::tcp) says it: axum's `WebSocketUpgrade` takes them all. The service's future, and then the
    /// response's body, is dropped when the client gives the request up.
    ///
    /// An error of the service is 500 over HTTP/3 and for sessions; over TCP it breaks the connection (HTTP/1.1) or the stream
    /// (HTTP/2) off.
    ///
    /// Await it to run it. Dropping it closes every connection at once.
    pub fn serve<S, B>(self, service: S) -> Serve<S>
    where
        S: Service<Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Serve::new(self, service)
    }

    /// The next WebTransport session that a client asks for, for servers without a router. Requests of foreign origins are
    /// answered 403, other HTTP/3 requests 404; TCP is not served, and closed at the first call. `None` once the server is shut
    /// down, or where nothing will come any more: it has no UDP socket, or has lost one, as when the runtime of its task has ended.
    ///
    /// Cancel safe.
    pub async fn accept(&self) -> Option<SessionRequest> {
        // Clients that fall back to TCP are to learn at once that there is nobody.
        self.tcp().clear();
        if self.endpoints.is_empty() {
            return None;
        }
        accept::accept(&self.queues, &self.origins, &self.connections, self.endpoint_lost()).await
    }

    /// Ends in good order: refuses newcomers and, with 503, sessions that were not accepted yet, sends GOAWAY and
    /// WT_DRAIN_SESSION, waits for requests and sessions to end until the deadline, then closes what is left, with `code` and
    /// `reason` for sessions.
    pub async fn shut_down(&self, code: u32, reason: &str) {
        self.start_draining();
        let idle = async {
            tokio::select! {
                () = self.connections.wait_idle() => {}
                never = accept::refuse_all(&self.queues) => match never {},
            }
        };
        if tokio::time::timeout(self.shutdown_deadline, idle).await.is_err() {
            tracing::debug!("shutdown deadline passed with sessions or requests open");
        }
        self.finish(code, reason).await;
    }

    /// Resolves when a socket's task has ended before its time.
    async fn endpoint_lost(&self) {
        if self.endpoints.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.endpoints.iter().map(|endpoint| Box::pin(endpoint.lost()))).await;
    }

    fn start_draining(&self) {
        self.connections.stop();
        for endpoint in &self.endpoints {
            endpoint.stop_accepting();
        }
        for conn in self.connections.list() {
            conn.with(|quic, driver, wakes| {
                driver.go_away(Instant::now(), quic, wakes);
            });
        }
    }

    /// Closes sessions, gives the peers a moment to confirm, closes connections, waits until QUIC is done with them.
    async fn finish(&self, code: u32, reason: &str) {
        for conn in self.connections.list() {
            conn.with(|quic, driver, wakes| {
                driver.close_all_sessions(Instant::now(), quic, wakes, code, reason);
            });
        }
        // "the endpoint SHOULD wait until all CONNECT streams have been closed by the peer before sending the
        // CONNECTION_CLOSE" (draft-16 section 6).
        let _ = tokio::time::timeout(CLOSE_GRACE, self.connections.wait_idle()).await;
        for conn in self.connections.list() {
            conn.with(|quic, driver, wakes| {
                let code = wireloom_proto::Code::H3_NO_ERROR;
                driver.close(Instant::now(), quic, wakes, code, b"", ConnectionError::LocallyClosed);
            });
        }
        let ends = self.endpoints.iter().map(Endpoint::shut_down);
        let _ = tokio::time::timeout(CLOSE_GRACE, futures_util::future::join_all(ends)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.connections.stop();
        for conn in self.connections.list() {
            conn.with(|quic, driver, wakes| {
                let code = wireloom_proto::Code::H3_NO_ERROR;
                driver.close(Instant::now(), quic, wakes, code, b"", ConnectionError::LocallyClosed);
            });
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.local_addrs())
            .finish_non_exhaustive()
    }
}

impl Connections {
    /// Resolves when no connection carries a request or a session.
    async fn wait_idle(&self) {
        for conn in self.list() {
            let signals = conn.with(|_, driver, _| driver.signals.clone());
            loop {
                let mut changed = std::pin::pin!(signals.notified(Topic::State));
                changed.as_mut().enable();
                if conn.with(|quic, driver, _| driver.lost().is_some() || driver.is_idle(quic)) {
                    break;
                }
                changed.await;
            }
        }
    }
}
