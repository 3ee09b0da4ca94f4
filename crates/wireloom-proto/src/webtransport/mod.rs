//! WebTransport over HTTP/3 (draft-ietf-webtrans-http3-02 to -16).

pub mod flow;
pub mod negotiate;
pub(crate) mod parked;
pub(crate) mod protocols;
pub(crate) mod session;
pub(crate) mod stream_header;
