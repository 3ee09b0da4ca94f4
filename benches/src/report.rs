//! The JSON of WORKLOADS.md.

use serde::{Deserialize, Serialize};

/// What a client asks on the control stream.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    /// Sets what the connection's streams and datagrams do.
    Workload(String),
    /// Asks for [`Stats`]; always `true`.
    Stats(bool),
}

/// The answer to `workload`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Accepted {
    pub(crate) ok: bool,
}

/// The answer to `stats`.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(crate) clock_seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) streams: u64,
    pub(crate) datagrams: u64,
}

/// The line that a client prints.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    pub(crate) program: String,
    pub(crate) workload: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) better: &'static str,
    pub(crate) seconds: f64,
    pub(crate) count: u64,
    pub(crate) client_cpu_seconds: f64,
    pub(crate) server_cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
    #[serde(flatten)]
    pub(crate) latency: Option<Latency>,
    #[serde(flatten)]
    pub(crate) delivery: Option<Delivery>,
}

/// Of `echo-latency` only.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
}

/// Of the datagram workloads only.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Delivery {
    pub(crate) sent: u64,
    pub(crate) delivery: f64,
}
