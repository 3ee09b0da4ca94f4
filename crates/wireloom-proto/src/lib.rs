//! The sans-IO core of Wireloom: HTTP/3 (RFC 9114), QPACK (RFC 9204), capsules and HTTP datagrams (RFC 9297), extended
//! CONNECT (RFC 9220) and WebTransport over HTTP/3 (drafts 02 to 16).
//!
//! Bytes, time and stream events go in; events, actions and deadlines come out. It opens no socket, reads no clock, draws
//! no random number and knows no QUIC library. [`Connection`] says how it is to be driven.
//!
//! ```text
//!            recv, handle_*                        poll_event
//!  QUIC  ─────────────────────▶  ┌────────────┐  ─────────────▶  requests, sessions
//!        ◀─────────────────────  │ Connection │  ◀─────────────
//!            poll_action         └────────────┘   commands
//! ```
#![forbid(unsafe_code)]

pub mod capsule;
pub mod codes;
pub mod connection;
pub mod datagram;
pub mod h3;
mod payload;
pub mod qpack;
mod stream_id;
#[cfg(feature = "__testing")]
pub mod testing;
mod tlv;
pub mod varint;
pub mod webtransport;

pub use codes::Code;
pub use connection::{Action, Config, Connection, Event, Recv};
pub use stream_id::{Dir, SessionId, Side, StreamId};
