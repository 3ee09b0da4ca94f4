//! The laboratory: real browsers and other implementations of WebTransport, and what tests need to drive them.
//!
//! The tests are in `tests/`; `cargo xtask interop tests` sets up what they need and runs them.
//! `cargo xtask interop` pairs the endpoints of the QUIC Interop Runner's cases.

pub mod browser;
pub mod certificate;
pub mod endpoint;
pub mod journal;
pub mod page;
pub mod peers;
pub mod program;
pub mod webwire;

/// What goes wrong in the laboratory is told to a person, never matched on.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result , with the laboratory's [`Error`] where nothing else is said.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;
