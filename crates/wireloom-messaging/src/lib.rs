//! Requests, replies, signals and sessions between clients and servers, over WebTransport, WebSocket and memory.
//!
//! The protocol is WebWire 2.0, byte for byte over WebSocket; over WebTransport the same messages travel on streams and
//! datagrams. Sections and appendices that the documentation names are those of
//! [docs/webwire.md](https://github.com/wireloom/wireloom/blob/main/docs/webwire.md).
//!
//! # Examples
//! A server in an axum router (features `axum` and `webtransport`), and a client of it:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use axum::Router;
//! # use wireloom_messaging::server::Handlers;
//! # use wireloom_messaging::session::FileStore;
//! # async fn talk() -> Result<(), Box<dyn std::error::Error>> {
//! let server = wireloom_messaging::server::Server::builder()
//!     .sessions(FileStore::open("sessions")?, 0) // any number of connections with the same session
//!     .build(Handlers::new().on_request("upper", async |text: String| text.to_uppercase()));
//! let app = Router::new().route_service("/chat", server.service());
//!
//! let client = wireloom_messaging::client::Client::builder("https://example.com/chat").connect().await?;
//! let reply = client.request("upper", "hello").timeout(Duration::from_secs(1)).await?;
//! # let _: (Router, wireloom_messaging::Data) = (app, reply);
//! # Ok(())
//! # }
//! ```
//!
//! Topics, with history, presence and recovery: see [`topics`].
//!
//! ```no_run
//! # use wireloom_messaging::client::Client;
//! # use wireloom_messaging::server::Handlers;
//! # use wireloom_messaging::topics::{TopicOptions, Topics};
//! # async fn talk(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let server = wireloom_messaging::server::Server::builder().topics(Topics::open(TopicOptions::new())).build(Handlers::new());
//! server.publish("rooms/kitchen", "tea is ready").await?;
//!
//! let mut room = client.topic("rooms/kitchen")?.subscribe().history(50).await?;
//! while let Some(event) = room.next().await { /* messages in order, each once, over every reconnection */ }
//! # Ok(())
//! # }
//! ```
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
