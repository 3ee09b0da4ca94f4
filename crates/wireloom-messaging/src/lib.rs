//! Requests, replies, signals and sessions between clients and servers, over WebTransport, WebSocket and memory.
//!
//! The protocol is WebWire 2.0, byte for byte over WebSocket; over WebTransport the same messages travel on streams and
//! datagrams. Sections and appendices that the documentation names are those of
//! [docs/webwire.md](https://github.com/wireloom/wireloom/blob/main/docs/webwire.md).
//!
//! # Features
//! - `server`, `client`, `websocket` (default).
//! - `webtransport`: the transport of the crate `wireloom`.
//! - `nats`: topics, presence and sessions on NATS, for servers on several machines.
//! - `axum`: the server as a tower service, to be mounted in a router.
//!
//! Without any, only [`codec`] is left: no runtime, nothing allocated to decode.
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub mod codec;
#[cfg(any(feature = "server", feature = "client"))]
mod data;
#[cfg(any(feature = "server", feature = "client"))]
pub mod engine;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "server", feature = "client"))]
pub mod session;
#[cfg(feature = "__testing")]
pub mod testing;
#[cfg(any(feature = "server", feature = "client"))]
pub mod topics;
#[cfg(any(feature = "server", feature = "client"))]
pub mod transport;

#[cfg(any(feature = "server", feature = "client"))]
pub use data::{Data, IncomingMessage};
