//! `wireloom bench messages`: requests per second and how long they take, over every transport.
//!
//! The generator writes and reads the bytes of each transport itself, on one thread: what it measures is the server.

mod dial;
mod framing;
mod meter;
mod report;
mod run;
mod server;
mod stream;
mod streams;

use std::rc::Rc;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub(super) use self::server::Server;
use self::server::Transport;
use super::failed;
use super::process::parse_pid;
use crate::failure::{Failure, chain};
use crate::output;
use crate::trust::{TrustArgs, parse_seconds};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Args)]
#[command(after_help = "\
Each connection keeps --in-flight requests open; with --rate they are sent at fixed moments, and a request \
that had to wait counts from its moment. Any server of the protocol can be measured: it must answer the \
request `echo`.

  wireloom bench messages
  wireloom bench messages ws://127.0.0.1:8080/messages --connections 50 --in-flight 32")]
pub(super) struct MessagesArgs {
    /// ws://, wss:// or https:// (WebTransport); without it a `wireloom serve` is started, and measured over each
    #[arg(value_name = "URL", value_parser = server::parse_url)]
    url: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Requests of a WebTransport session on one stream (s) or on one each (m)
    #[arg(long, default_value = "s")]
    profile: Profile,
    /// Connections at once
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Requests that each connection has open at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Bytes of each request's payload
    #[arg(long, value_name = "BYTES", default_value = "16", value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    payload: u32,
    /// Requests a second of all connections together; as many as are answered without it
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Name of the requests
    #[arg(long, value_name = "NAME", default_value = "echo")]
    request: String,
    /// Send nothing: how much memory of the server an idle connection takes
    #[arg(long, conflicts_with_all = ["in_flight", "payload", "rate", "request"])]
    idle: bool,
    /// A server on this machine whose memory and CPU time are to be reported
    #[arg(long, value_name = "PID", value_parser = parse_pid)]
    server_pid: Option<u32>,
    /// Measure for this long
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    seconds: Duration,
    /// Run this long before that
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = parse_seconds)]
    warmup: Duration,
    /// Print a JSON line for each result instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    S,
    M,
}

/// What every connection does.
struct Load {
    request: String,
    payload: Vec<u8>,
    in_flight: usize,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("a number of requests from 0.001 to 1000000000 is needed".to_owned()),
    }
}

pub(super) async fn run(args: &MessagesArgs) -> Result<(), Failure> {
    let load = Rc::new(Load {
        request: args.request.clone(),
        payload: vec![0x5a; args.payload as usize],
        in_flight: args.in_flight as usize,
    });
    let mut reports = Vec::new();
    let transports = match &args.url {
        Some(url) => vec![Transport::of(url, args.profile)],
        None => Transport::ALL.to_vec(),
    };
    for transport in transports {
        // A server for each, ended when this is dropped: what one transport leaves in memory would hide what the next needs.
        let mut own = None;
        let target = match &args.url {
            Some(url) => server::target(url, args.profile, &args.trust)?,
            None => own.insert(Server::start()?).target(transport)?,
        };
        let pid = args.server_pid.or_else(|| own.as_ref().map(Server::pid));
        let report = run::measure(args, transport.name(), &target, &load, pid)
            .await
            .map_err(|error| failed(chain(&*error)))?;
        if args.json {
            output::json(&serde_json::to_value(&report).map_err(failed)?);
            if output::loss().is_some() {
                return Ok(());
            }
        }
        reports.push(report);
    }
    if !args.json {
        report::print(&reports);
    }
    Ok(())
}
