//! HTTP/1.1 and HTTP/2 over TCP, with TLS or without, answered by one tower service.
//!
//! The same service answers HTTP/3 in a `Server`; this module alone is for what has no QUIC side, such as a page on
//! plain `http://`. Bodies stream both ways, trailers included. `Expect: 100-continue` is answered when the service
//! begins to read the body, over HTTP/1.1 and HTTP/3; hyper has no interim responses over HTTP/2. Bodies have no deadline, either
//! way: how slow a client may be is for the service to say (tower-http's `RequestBodyTimeoutLayer` is one way). Only a client whose
//! TCP acknowledges nothing, or has no room for anything, for 60 s loses its connection (Linux).
//!
//! Requests that do not name one host (RFC 9112 section 3.2, RFC 9113 section 8.3.1) are answered 400. Answers to HEAD and
//! those with 204 or 304 have no body, whatever the service returns; a Content-Length that is not that of the body makes it 500
//! (over HTTP/3 the stream is reset).
//!
//! HTTP/1.1 upgrades and the extended CONNECT of HTTP/2 (RFC 8441), and of HTTP/3 (RFC 9220) in a `Server`, reach the service
//! through [`hyper::upgrade::OnUpgrade`] in the request's extensions, which is where axum's `WebSocketUpgrade` looks for it. A
//! WebSocket handshake of another version than 13 is answered 426, one without a proper key 400 (RFC 6455 section 4.2), and one of a
//! foreign origin 403: in a `Server`, and here after [`Options::allow_origin`].

mod accept;
mod connection;
mod header_timer;
mod host;
mod interim;
mod options;
mod service;
mod stream;
mod tasks;

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;
use tracing::Instrument as _;

pub(crate) use interim::InterimLine;
pub use options::{HttpVersions, Options};

use crate::body::Body;
use crate::identity::Identity;
use crate::metrics::{self, Carrier};
use crate::service::HttpService;
use crate::threads::Threads;
use crate::tls::{key_log, tcp_server_config};
use accept::Listen;
use connection::Shared;
use tasks::Tasks;

/// Serves every connection of `listener` until `shutdown` completes and the connections have ended.
///
/// With an identity the connections are TLS 1.2 or 1.3, and ALPN chooses between HTTP/2 and HTTP/1.1; without one they
/// are plaintext HTTP/1.1. The address of the peer is in the extensions of each request as
/// [`RemoteAddr`](crate::RemoteAddr). An error of the service breaks the connection (HTTP/1.1) or the stream (HTTP/2) off.
///
/// When `shutdown` completes, the listener is closed, idle connections end and requests that have begun are answered.
/// Whatever still runs after [`Options::shutdown_deadline`], upgraded connections among it, is cut off.
///
/// Cancel safe in the sense that nothing goes on without it: dropping the future cuts every connection off at once.
///
/// # Errors
/// Only before anything was accepted, when TLS cannot be configured. Failures of peers are logged at debug level, a
/// lack of file descriptors or memory at warn level, and neither ends the serving.
pub async fn serve<S, B>(
    listener: TcpListener,
    identity: Option<&Identity>,
    service: S,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let tls = identity
        .map(|identity| tcp_server_config(identity, &options.clients, options.versions))
        .transpose()
        .map_err(io::Error::other)?;
    let tls = tls.map(|mut config| {
        config.key_log = key_log(options.key_log);
        TlsAcceptor::from(Arc::new(config))
    });
    run(listener, tls, service, options, shutdown).await;
    Ok(())
}

/// The same for a Unix socket, in plaintext, as behind a proxy on the same machine. Requests have no
/// [`RemoteAddr`](crate::RemoteAddr), and of [`ConnectionLimits`](crate::ConnectionLimits) only the total holds.
///
/// Cancel safe as [`serve`].
#[cfg(unix)]
pub async fn serve_unix<S, B>(
    listener: tokio::net::UnixListener,
    service: S,
    mut options: Options,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    options.limits = options.limits.exempt(|_| true);
    run(listener, None, service, options, shutdown).await;
}

async fn run<L, S>(
    listener: L,
    tls: Option<TlsAcceptor>,
    service: S,
    options: Options,
    shutdown: impl Future<Output = ()>,
) where
    L: Listen,
    S: HttpService,
{
    let tasks = Tasks::default();
    let threads = options.threads.clone();
    let (draining, drain) = watch::channel(false);
    let shared = Arc::new(Shared {
        tls,
        spawner: tasks.spawner(),
        options,
        drain,
    });
    let mut shutdown = pin!(shutdown);
    let mut backoff = accept::Backoff::default();
    loop {
        let (tcp, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept::accept(&listener, &mut backoff) => accepted,
        };
        let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        if !shared.options.admits(peer) {
            tracing::debug!(%address, "connection refused by the application");
            metrics::connection_refused(Carrier::Tcp, None);
            continue;
        }
        match shared.options.limits.acquire(address) {
            Ok(permit) => {
                metrics::connection_began(Carrier::Tcp);
                L::prepare(&tcp);
                let span = tracing::debug_span!("tcp", %address, port = peer.map(|peer| peer.port()));
                let (shared, service) = (Arc::clone(&shared), service.clone());
                if let Some(home) = threads.as_ref().map(Threads::next) {
                    let moving = L::leave(tcp);
                    let arrive = || moving.and_then(L::arrive);
                    let connection = connection::run(shared, service, arrive, peer, permit);
                    tasks.spawn(connection.instrument(span), &home.handle);
                } else {
                    let connection = connection::run(shared, service, || Ok(tcp), peer, permit);
                    tasks.spawn(connection.instrument(span), &Handle::current());
                }
            }
            Err(refused) => {
                tracing::debug!(%address, %refused, "connection refused");
                metrics::connection_refused(Carrier::Tcp, Some(refused));
            }
        }
    }
    drop(listener);
    draining.send_replace(true);
    if tokio::time::timeout(shared.options.shutdown_deadline, tasks.join())
        .await
        .is_err()
    {
        tracing::info!("connections are cut off, the deadline of the shutdown has passed");
        tasks.abort();
        tasks.join().await;
    }
}
