//! Requests, replies, signals and liveness of one connection, without I/O: messages and time go in, what is to be done and
//! deadlines come out.
//!
//! [`ServerEngine`] and [`ClientEngine`] are the two ends. Neither reads a clock, draws a random number, nor keeps a
//! payload: what a message says is borrowed from it. Whoever drives them owns the transport and runs the handlers.

mod client;
mod close;
mod config;
mod server;

pub use client::{ClientConfig, ClientEngine, ClientEvent, Rejected, ReplyOutcome, SendError};
pub use close::CloseCode;
pub use config::{ConnectionConfig, DEFAULT_MESSAGE_BUFFER, DEFAULT_READ_TIMEOUT, MIN_MESSAGE_BUFFER, UNLIMITED};
pub use server::{Answer, Received, ReplyProblem, ServerEngine, Violation};
