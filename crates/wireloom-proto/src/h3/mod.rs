//! HTTP/3 (RFC 9114): frames, settings, stream types and messages.

pub mod frame;
pub mod headers;
pub mod priority;
pub mod reader;
pub mod settings;
pub mod stream_type;
