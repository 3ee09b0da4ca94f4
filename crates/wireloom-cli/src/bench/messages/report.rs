//! The results.

use serde::Serialize;

use crate::bench::table::number;
use crate::output::{self, Paint};

/// One measurement, as it is printed in JSON. Times are in microseconds.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) program: &'static str,
    pub(super) transport: &'static str,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) payload_bytes: usize,
    pub(super) rate: Option<f64>,
    pub(super) seconds: f64,
    pub(super) replies: u64,
    pub(super) replies_per_second: f64,
    pub(super) errors: u64,
    pub(super) p50_us: Option<f64>,
    pub(super) p90_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) p999_us: Option<f64>,
    pub(super) max_us: Option<f64>,
    pub(super) client_cpu_seconds: f64,
    pub(super) server_cpu_seconds: Option<f64>,
    pub(super) server_rss_bytes: Option<u64>,
    pub(super) server_kib_per_connection: Option<f64>,
}

pub(super) fn print(reports: &[Report]) {
    let paint = Paint::stdout();
    output::line(&paint.bold(&format!(
        "{:<16} {:>11} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9}",
        "transport", "connections", "in flight", "replies/s", "p50 us", "p99 us", "p99.9 us", "server"
    )));
    for report in reports {
        let micros = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let cpu = report.server_cpu_seconds.map_or_else(
            || "-".to_owned(),
            |cpu| format!("{:.0} %", cpu / report.seconds.max(1e-9) * 100.0),
        );
        let mut detail = String::new();
        if report.errors > 0 {
            detail = format!("   {} errors", report.errors);
        }
        if let Some(kib) = report.server_kib_per_connection.filter(|_| report.in_flight == 0) {
            detail.push_str(&format!("   {kib:.1} KiB of the server for each connection"));
        }
        output::line(&format!(
            "{:<16} {:>11} {:>9} {} {:>9} {:>9} {:>9} {:>9}{detail}",
            report.transport,
            report.connections,
            report.in_flight,
            paint.green(&format!("{:>11}", number(report.replies_per_second))),
            micros(report.p50_us),
            micros(report.p99_us),
            micros(report.p999_us),
            cpu,
        ));
    }
}
