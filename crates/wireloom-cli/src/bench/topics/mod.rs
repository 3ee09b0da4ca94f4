//! `wireloom bench topics`: one publisher and many subscribers.
//!
//! The generator writes and reads the bytes of each protocol itself, on one thread, and does not decode what it only has to count:
//! what it measures is the server. It speaks WebSocket to Wireloom, and for comparisons Socket.IO's and NATS's protocols.

mod peer;
mod run;

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use self::peer::Protocol;
use super::failed;
use super::process::parse_pid;
use super::table::number;
use crate::failure::{Failure, chain};
use crate::output::{self, Paint};
use crate::trust::parse_seconds;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Args)]
#[command(after_help = "\
First memory: how much of the server an idle subscriber takes. Then latency, at --rate messages a second: from \
the moment at which each is due to be published to each delivery; latency_rate of --json is what was sent. Then throughput: as many messages as the subscribers take, with at most --ahead \
of them on their way.

  wireloom bench topics
  wireloom bench topics ws://127.0.0.1:8080/messages --subscribers 100")]
pub(super) struct TopicsArgs {
    /// ws:// without TLS; without it a `wireloom serve` is started
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// What the server speaks: for comparisons
    #[arg(long, hide = true, default_value = "wireloom")]
    protocol: Protocol,
    /// Where to publish, if not to the same server
    #[arg(long, hide = true, value_name = "URL")]
    publish_to: Option<String>,
    /// Connections that are subscribed
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    subscribers: u32,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = clap::value_parser!(u32).range(16..=4096))]
    payload: u32,
    /// Messages a second while latency is measured
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Messages that may be on their way while throughput is measured
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    ahead: u32,
    /// A server on this machine whose memory and CPU time are to be reported
    #[arg(long, value_name = "PID", value_parser = parse_pid)]
    server_pid: Option<u32>,
    /// Measure each for this long
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    seconds: Duration,
    /// Print a JSON line instead of the table
    #[arg(long)]
    json: bool,
}

/// One measurement, as it is printed in JSON.
#[derive(Serialize)]
struct Report {
    program: &'static str,
    protocol: String,
    subscribers: u32,
    payload_bytes: u32,
    deliveries: u64,
    deliveries_per_second: f64,
    server_cpu_ns_per_delivery: Option<f64>,
    client_cpu_ns_per_delivery: f64,
    /// What was sent in a second meanwhile: a server that takes less makes it smaller than --rate.
    latency_rate: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    server_kib_per_subscriber: Option<f64>,
}

pub(super) async fn run(args: &TopicsArgs) -> Result<(), Failure> {
    for url in args.url.iter().chain(&args.publish_to) {
        args.protocol.check(url).map_err(Failure::usage)?;
    }
    // Ended when this is dropped.
    let own = match args.url {
        None => Some(super::messages::Server::start()?),
        Some(_) => None,
    };
    let url = match (&args.url, &own) {
        (Some(url), _) => url.clone(),
        (None, Some(own)) => own.websocket_url(),
        (None, None) => return Err(failed("no server")),
    };
    let pid = args
        .server_pid
        .or_else(|| own.as_ref().map(super::messages::Server::pid));
    let report = run::measure(args, &url, pid)
        .await
        .map_err(|error| failed(chain(&*error)))?;
    if args.json {
        output::json(&serde_json::to_value(&report).map_err(failed)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(report: &Report) {
    let paint = Paint::stdout();
    let maybe = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    output::line(&paint.bold(&format!(
        "{:>11} {:>14} {:>9} {:>9} {:>16} {:>16} {:>15}",
        "subscribers", "deliveries/s", "p50 us", "p99 us", "server ns each", "client ns each", "KiB subscriber"
    )));
    output::line(&format!(
        "{:>11} {} {:>9} {:>9} {:>16} {:>16} {:>15}",
        report.subscribers,
        paint.green(&format!("{:>14}", number(report.deliveries_per_second))),
        number(report.p50_us),
        number(report.p99_us),
        maybe(report.server_cpu_ns_per_delivery),
        number(report.client_cpu_ns_per_delivery),
        maybe(report.server_kib_per_subscriber),
    ));
    output::line(&paint.dim("ns each: CPU time of server and generator for each delivery"));
}
