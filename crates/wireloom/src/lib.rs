//! WebTransport for Rust, beside HTTP/1.1, HTTP/2 and HTTP/3 on the same port.
//!
//! - [`Server`] serves one tower service (an axum `Router` as it is) over every version of HTTP, with WebTransport sessions
//!   through [`WebTransportUpgrade`], or hands out sessions one by one with [`Server::accept`].
//! - [`Client`] dials any WebTransport server, in every draft that is deployed.
//! - [`Session`], [`SendStream`] and [`RecvStream`] are the same on both ends.
//! - [`Identity`] is the server's certificate: PEM with reload, SNI, self-signed, or rotating within the fourteen days that
//!   browsers allow for certificate hashes.
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
//! # Features
//! - `axum` (default): [`WebTransportUpgrade`] is an extractor.
//! - `qlog`: both builders take a directory for traces of connections (`qlog_dir`).
#![forbid(unsafe_code)]

mod body;
mod client;
mod datagrams;
mod driver;
mod early_hints;
mod error;
mod identity;
mod limits;
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

pub use body::{Body, BodyError, EarlyData, RemoteAddr};
pub use client::{
    Client, ClientBuilder, ConnectError, Connection, DangerousClientBuilder, EarlySession, RequestPriority,
    SessionBuilder,
};
pub use datagrams::{DatagramCounts, DatagramPolicy};
pub use driver::RequestError;
pub use early_hints::{EarlyHints, EarlyHintsError};
pub use error::{ConnectionError, DatagramError, ReadError, ReadToEndError, SessionError, WriteError};
pub use identity::{CertificateHash, CertificateHashes, Identity, IdentityError, ParseHashError, PemPair};
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
