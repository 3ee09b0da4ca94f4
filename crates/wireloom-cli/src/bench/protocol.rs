//! What the two sides say to each other, and the line that is printed.

use serde::{Deserialize, Serialize};

/// A line of the control stream, client to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    /// What the streams and datagrams of this session are for.
    Workload(String),
    /// Always true.
    Stats(bool),
}

/// The answer to `Request::Workload`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) ok: bool,
}

/// The answer to `Request::Stats`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Stats {
    /// Monotonic, since the server's start.
    pub(super) clock_seconds: f64,
    /// User and system time of the server.
    pub(super) cpu_seconds: f64,
    pub(super) rss_bytes: u64,
    /// Received on all sessions, without control streams.
    pub(super) bytes: u64,
    /// Read to their end.
    pub(super) streams: u64,
    pub(super) datagrams: u64,
}

/// The first line of a server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listening {
    pub(super) event: String,
    pub(super) address: String,
    pub(super) certificate_sha256: String,
}

/// The result, as a client prints it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) program: String,
    pub(super) workload: String,
    pub(super) value: f64,
    pub(super) unit: String,
    pub(super) better: String,
    pub(super) seconds: f64,
    pub(super) count: u64,
    pub(super) client_cpu_seconds: f64,
    pub(super) server_cpu_seconds: f64,
    pub(super) rss_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p999_us: Option<f64>,
    /// Datagrams sent, and received over sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<f64>,
}

/// Bytes that a stream or a connection may be ahead, on both sides.
pub(super) const STREAM_WINDOW: u32 = 4 << 20;
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;
pub(super) const SEND_WINDOW: u64 = 16 << 20;

/// One bulk write.
pub(super) const CHUNK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_look_as_agreed() {
        let json = |request| serde_json::to_string(&request).expect("serializable");
        assert_eq!(json(Request::Workload("sessions".into())), r#"{"workload":"sessions"}"#);
        assert_eq!(json(Request::Stats(true)), r#"{"stats":true}"#);
    }
}
