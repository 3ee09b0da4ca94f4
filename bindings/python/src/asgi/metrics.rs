//! The counters of one worker in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::body::ResponseBody;
use super::site::Site;

/// The counters of this moment.
pub(crate) fn text(site: &Site) -> String {
    let counts = &site.counts;
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let plain = |value: u64| [(String::new(), value)];
    metric(
        "wireloom_calls_total",
        "counter",
        "Calls of the application: requests, WebSockets and sessions.",
        &plain(counts.requests.load(Relaxed)),
    );
    metric(
        "wireloom_calls_active",
        "gauge",
        "Calls of the application that have not ended.",
        &plain(counts.active.load(Relaxed) as u64),
    );
    metric(
        "wireloom_calls_refused_total",
        "counter",
        "Answered 503 because of the limit of concurrency.",
        &plain(counts.refused.load(Relaxed)),
    );
    metric(
        "wireloom_websockets_total",
        "counter",
        "WebSockets that were accepted.",
        &plain(counts.websockets.load(Relaxed)),
    );
    metric(
        "wireloom_webtransport_sessions_total",
        "counter",
        "WebTransport sessions that were accepted.",
        &plain(counts.sessions.load(Relaxed)),
    );
    metric(
        "wireloom_response_body_bytes_total",
        "counter",
        "Bytes of response bodies.",
        &plain(counts.body_bytes_sent.load(Relaxed)),
    );
    let statuses: Vec<(String, u64)> = (1..6)
        .map(|class| (format!("{{class=\"{class}xx\"}}"), counts.statuses[class].load(Relaxed)))
        .collect();
    metric(
        "wireloom_responses_total",
        "counter",
        "Responses by the class of their status.",
        &statuses,
    );
    out
}

pub(crate) fn response(site: &Site) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Bytes::from(text(site))));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
