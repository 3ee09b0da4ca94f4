//! The implementations in Rust that are built with the workspace.

pub mod quinn;
pub mod web_transport_quinn;
pub mod wtransport;
