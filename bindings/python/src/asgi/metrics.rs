//! The counters, in the text format of Prometheus: the sum over all workers.
//!
//! Workers are processes. They share a file in memory in which each has a place: it writes its counters there every half second and
//! when they are asked for, so that whichever worker is asked knows those of the others, half a second old at most.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::body::ResponseBody;
use super::site::{Counts, Site};

/// Name, kind, help, label.
const METRICS: [(&str, &str, &str, &str); COUNTERS] = [
    (
        "wireloom_calls_active",
        "gauge",
        "Calls of the application that have not ended.",
        "",
    ),
    (
        "wireloom_calls_total",
        "counter",
        "Calls of the application: requests, WebSockets and sessions.",
        "",
    ),
    (
        "wireloom_calls_refused_total",
        "counter",
        "Answered 503 because of the limit of concurrency.",
        "",
    ),
    (
        "wireloom_websockets_total",
        "counter",
        "WebSockets that were accepted.",
        "",
    ),
    (
        "wireloom_webtransport_sessions_total",
        "counter",
        "WebTransport sessions that were accepted.",
        "",
    ),
    (
        "wireloom_response_body_bytes_total",
        "counter",
        "Bytes of response bodies.",
        "",
    ),
    (
        "wireloom_responses_total",
        "counter",
        "Responses by the class of their status.",
        "{class=\"1xx\"}",
    ),
    ("wireloom_responses_total", "", "", "{class=\"2xx\"}"),
    ("wireloom_responses_total", "", "", "{class=\"3xx\"}"),
    ("wireloom_responses_total", "", "", "{class=\"4xx\"}"),
    ("wireloom_responses_total", "", "", "{class=\"5xx\"}"),
];

const COUNTERS: usize = 11;

/// Bytes of one worker's place, as python/wireloom/supervisor.py has it. The last eight are the turns of its event loop, which
/// Python writes and reads.
const PLACE: usize = 128;
const _: () = assert!(8 * COUNTERS + 8 <= PLACE);

/// The counters of one moment, in the order of [`METRICS`].
type Snapshot = [u64; COUNTERS];

fn snapshot(counts: &Counts) -> Snapshot {
    let status = |class: usize| counts.statuses[class].load(Relaxed);
    [
        counts.active.load(Relaxed) as u64,
        counts.requests.load(Relaxed),
        counts.refused.load(Relaxed),
        counts.websockets.load(Relaxed),
        counts.sessions.load(Relaxed),
        counts.body_bytes_sent.load(Relaxed),
        status(1),
        status(2),
        status(3),
        status(4),
        status(5),
    ]
}

/// What workers tell each other.
pub(crate) struct Board {
    file: File,
    worker: usize,
    workers: usize,
    /// Of those who had this place before: counters never go back.
    before: Snapshot,
}

impl Board {
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn new(file: File, worker: u8, workers: u8) -> io::Result<Self> {
        let mut board = Self {
            file,
            worker: worker.into(),
            workers: workers.into(),
            before: [0; COUNTERS],
        };
        board.before = board.read(board.worker)?;
        // Whatever ran there runs no more.
        board.before[0] = 0;
        Ok(board)
    }

    fn read(&self, worker: usize) -> io::Result<Snapshot> {
        let mut bytes = [0; 8 * COUNTERS];
        self.file.read_exact_at(&mut bytes, (worker * PLACE) as u64)?;
        let mut snapshot = [0; COUNTERS];
        for (value, bytes) in snapshot.iter_mut().zip(bytes.as_chunks().0) {
            *value = u64::from_le_bytes(*bytes);
        }
        Ok(snapshot)
    }

    fn own(&self, counts: &Counts) -> Snapshot {
        let mut own = snapshot(counts);
        add(&mut own, &self.before);
        own
    }

    /// Tells the others.
    pub(crate) fn write(&self, counts: &Counts) {
        let bytes: Vec<u8> = self.own(counts).into_iter().flat_map(u64::to_le_bytes).collect();
        // In memory: it fails with the machine.
        let _ = self.file.write_all_at(&bytes, (self.worker * PLACE) as u64);
    }

    fn sum(&self, counts: &Counts) -> Snapshot {
        let mut sum = self.own(counts);
        for other in (0..self.workers).filter(|worker| *worker != self.worker) {
            if let Ok(other) = self.read(other) {
                add(&mut sum, &other);
            }
        }
        sum
    }
}

fn add(sum: &mut Snapshot, other: &Snapshot) {
    for (sum, other) in sum.iter_mut().zip(other) {
        *sum = sum.wrapping_add(*other);
    }
}

/// The counters of this moment.
pub(crate) fn text(site: &Site) -> String {
    let values = match &site.board {
        Some(board) => board.sum(&site.counts),
        None => snapshot(&site.counts),
    };
    let mut out = String::new();
    for ((name, kind, help, label), value) in METRICS.iter().zip(values) {
        // Writing to a string does not fail.
        if !kind.is_empty() {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let _ = writeln!(out, "{name}{label} {value}");
    }
    out
}

pub(crate) fn response(site: &Site) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Bytes::from(text(site))));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
