//! WebTransport for Rust.
