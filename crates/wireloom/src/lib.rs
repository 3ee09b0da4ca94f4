//! WebTransport for Rust, beside HTTP/1.1, HTTP/2 and HTTP/3 on the same port.
//!
//! - [`Server`] serves one tower service (an axum `Router` as it is) over every version of HTTP, with WebTransport sessions
//!   through [`WebTransportUpgrade`], or hands out sessions one by one with [`Server::accept`].
//! - [`Client`] dials any WebTransport server, in every draft that is deployed.
//! - [`Session`], [`SendStream`] and [`RecvStream`] are the same on both ends.
//! - [`Identity`] is the server's certificate: PEM with reload, DER, replaced at run time, SNI, self-signed, or rotating within
//!   the fourteen days that browsers allow for certificate hashes.
//!
//! # Examples
//! A server with axum, which needs Tokio's multi-threaded runtime to use more than one core:
//!
//! ```no_run
//! use axum::{Router, routing::{any, get}};
//! use wireloom::{Identity, Server, Session, WebTransportUpgrade};
//! # async fn echo(_: Session) {}
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//!
//! let app = Router::new()
//!     .route("/", get(|| async { "hello over HTTP/1.1, 2 and 3" }))
//!     .route("/echo", any(|wt: WebTransportUpgrade| async move { wt.protocols(["echo.v1"]).on_upgrade(echo) }));
//!
//! Server::builder()
//!     .bind("[::]:4433") // UDP and TCP
//!     .identity(Identity::self_signed(["localhost", "127.0.0.1", "::1"])?)
//!     .serve(app)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A session's streams and datagrams are the same on both ends:
//!
//! ```no_run
//! # use wireloom::Session;
//! async fn echo(session: Session) {
//!     while let Ok((mut send, mut recv)) = session.accept_bi().await {
//!         tokio::spawn(async move {
//!             if tokio::io::copy(&mut recv, &mut send).await.is_ok() {
//!                 let _ = send.finish(); // dropped without it, the stream is reset
//!             }
//!         });
//!     }
//! }
//! ```
//!
//! A server without a router:
//!
//! ```no_run
//! # use http::StatusCode;
//! # use wireloom::{Identity, Server, Session};
//! # async fn chat(_: Session) {}
//! # async fn serve(identity: Identity) -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().bind("[::]:4433").identity(identity).listen().await?;
//! while let Some(request) = server.accept().await {
//!     match request.path() {
//!         "/chat" => tokio::spawn(async move {
//!             // An error: the client has given up meanwhile.
//!             if let Ok(session) = request.accept().await { chat(session).await }
//!         }),
//!         _ => { request.reject(StatusCode::NOT_FOUND); continue }
//!     };
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A client:
//!
//! ```no_run
//! # use wireloom::{CertificateHash, Client};
//! # async fn talk(hash: CertificateHash) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().server_certificate_hash(hash).build()?; // or the platform's roots
//! let session = client.connect("https://127.0.0.1:4433/echo").await?;
//! let (mut send, mut recv) = session.open_bi().await?;
//! send.write_all(b"hello").await?;
//! send.finish()?;
//! let answer = recv.read_to_end(64 * 1024).await?;
//! session.close(0, "done");
//! # Ok(())
//! # }
//! ```
//!
//! # What drop does
//! | dropped | on the wire |
//! |---|---|
//! | unfinished [`SendStream`] | RESET_STREAM, code 0: never a clean end |
//! | unread [`RecvStream`] | STOP_SENDING, code 0 |
//! | last [`Session`] and stream of a session | WT_CLOSE_SESSION, code 0 |
//! | [`EarlySession`] and its streams, unanswered | the request is reset (H3_REQUEST_CANCELLED) |
//! | [`SessionRequest`] without an answer | 503 |
//! | [`Server`], [`Serve`] | every connection is closed |
//!
//! # Errors
//! Each operation has its own type of error, which says whose fault it was. `?` makes an [`std::io::Error`] of any of them, of a
//! fitting kind and with the original inside.
//!
//! # Features
//! - `axum` (default): [`WebTransportUpgrade`], [`RemoteAddr`], [`TlsInfo`] and [`EarlyHints`] are extractors, and axum's
//!   `ConnectInfo<SocketAddr>` has the peer's address.
//! - `qlog`: both builders take a directory for traces of connections (`qlog_dir`).
//! - `metrics`: servers count through the facade [`metrics`](https://docs.rs/metrics), to whichever exporter the application has installed:
//!
//! | name | labels | |
//! |---|---|---|
//! | `wireloom_connections` | | open now, of all listeners: a gauge |
//! | `wireloom_connections_total` | `carrier`: `quic`, `tcp` | that were let in |
//! | `wireloom_connections_refused_total` | `carrier`, `by`: `total`, `address`, `application` | by [`ConnectionLimits`], or [`admit`](ServerBuilder::admit) |
//! | `wireloom_handshakes_failed_total` | `carrier` | over TCP those of TLS; over QUIC those that were let in and never stood |
//! | `wireloom_requests_total` | `version`: `1.1`, `2`, `3` | sessions aside |
//! | `wireloom_sessions` | | open now: a gauge |
//! | `wireloom_sessions_total` | `draft`: `02`, `07`, `13`, `15` | that were accepted |
//! | `wireloom_sessions_rejected_total` | `status` | by the application, or for their origin |
//! | `wireloom_sessions_ended_total` | `how`: `client`, `server`, `reset`, `misbehaved`, `connection` | of those accepted |
//! | `wireloom_quic_bytes_total` | `direction`: `sent`, `received` | UDP payload, counted when a connection ends |
//! | `wireloom_quic_packets_total` | `fate`: `sent`, `lost` | the same |
#![forbid(unsafe_code)]

mod admit;
mod body;
mod client;
mod datagrams;
mod driver;
mod early_hints;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod identity;
mod io_error;
mod limits;
mod metrics;
mod quic;
mod resolve;
mod send_group;
mod server;
mod service;
mod session;
mod statistics;
mod stream;
pub mod tcp;
mod threads;
mod tls;
mod wake;
mod websocket;

pub use admit::Admit;
pub use body::{Body, BodyError, EarlyData, RemoteAddr};
pub use client::{
    Client, ClientBuilder, ConnectError, Connection, DangerousClientBuilder, EarlySession, RequestPriority,
    SessionBuilder,
};
pub use datagrams::{DatagramCounts, DatagramPolicy};
pub use driver::RequestError;
pub use early_hints::{EarlyHints, EarlyHintsError};
pub use error::{ConnectionError, DatagramError, ReadError, ReadToEndError, SessionError, WriteError};
pub use identity::{
    CertificateHash, CertificateHashes, Identity, IdentityError, ParseHashError, PemPair, ReplaceableIdentity,
};
pub use limits::{ConnectionLimits, ConnectionPermit, Refused};
pub use quic::{CongestionControl, TransportStats};
pub use resolve::{LookupFuture, Resolve, SystemResolver};
pub use send_group::{ForeignSendGroup, SendGroup};
#[cfg(feature = "axum")]
pub use server::NotWebTransport;
pub use server::{
    Serve, ServeError, Server, ServerBuilder, ServerMonitor, ServerStats, SessionRequest, WebTransportUpgrade,
};
pub use session::Session;
pub use statistics::{DatagramStats, RecvStreamStats, SendStreamStats, SessionStats};
pub use stream::{RecvStream, SendStream};
pub use threads::Threads;
pub use tls::{CertificateRejection, ClientAuth, RootCertificates, ServerTrust, TlsInfo, TrustError};
/// The sans-IO core: wire codes, SETTINGS, dialects.
pub use wireloom_proto as proto;
pub use wireloom_proto::h3::priority::Priority;
pub use wireloom_proto::webtransport::flow::FlowControl;
