//! `wireloom bench`: how fast this machine does it.
//!
//! `bench server` and `bench client` are one measurement over the wire; `bench` alone runs all of them, in processes of its
//! own on a core each.

mod all;
mod client;
mod load;
mod messages;
mod process;
mod protocol;
mod server;
mod spawn;
mod table;
mod topics;
mod websocket;
mod workload;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use wireloom::CertificateHash;

use self::workload::Workload;
use crate::failure::Failure;
use crate::transport::Congestion;
use crate::trust::{parse_hash, parse_seconds};

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Server and client run as processes of their own, each on one thread, and on one core each where
`taskset` is there. Build with --release: debug builds are many times slower."
)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    all: AllArgs,
}

#[derive(Args)]
struct AllArgs {
    /// Run this workload; may be repeated; all of them without it
    #[arg(long, value_name = "NAME")]
    workload: Vec<Workload>,
    #[command(flatten)]
    length: Length,
    /// Congestion control of both ends
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    congestion: Congestion,
    /// Print a JSON line for each result instead of the table
    #[arg(long)]
    json: bool,
}

/// How long and how much.
#[derive(Args)]
struct Length {
    /// Measure each workload for this long
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    seconds: Duration,
    /// Run it this long before that
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = parse_seconds)]
    warmup: Duration,
    /// Sessions that idle-memory holds
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    connections: u32,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Be measured: prints one JSON line with address and hash, and runs until SIGTERM or the end of standard input
    Server(ServerArgs),
    /// Measure one workload against a `bench server`, and print one JSON line
    Client(ClientArgs),
    /// Measure requests and replies over WebSocket and WebTransport
    Messages(messages::MessagesArgs),
    /// Measure a topic with many subscribers
    Topics(topics::TopicsArgs),
}

#[derive(Args)]
struct ServerArgs {
    /// Address to bind
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// Streams of each direction that a client may have open
    #[arg(long, value_name = "N", default_value = "1024")]
    max_streams: u32,
    /// Congestion control
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    congestion: Congestion,
    /// Offer no flow control of sessions
    #[arg(long)]
    no_flow_control: bool,
    /// Threads, with a socket each
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
}

#[derive(Args)]
struct ClientArgs {
    /// Address of the server
    #[arg(long, value_name = "ADDR")]
    server: SocketAddr,
    /// SHA-256 of its certificate
    #[arg(long, value_name = "HEX", value_parser = parse_hash)]
    certificate_sha256: CertificateHash,
    /// What to run
    #[arg(long, value_name = "NAME")]
    workload: Workload,
    #[command(flatten)]
    length: Length,
    /// Congestion control
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    congestion: Congestion,
    /// Taken for symmetry: the server of these workloads opens no streams
    #[arg(long, value_name = "N", default_value = "1024", hide = true)]
    max_streams: u32,
}

pub(crate) fn run(args: BenchArgs) -> Result<(), Failure> {
    match args.command {
        None => all::run(&args.all),
        Some(BenchCommand::Server(args)) => crate::runtime()?.block_on(server::run(&args)),
        Some(BenchCommand::Client(args)) => crate::runtime()?.block_on(client::run(&args)),
        Some(BenchCommand::Messages(args)) => crate::runtime()?.block_on(messages::run(&args)),
        Some(BenchCommand::Topics(args)) => crate::runtime()?.block_on(topics::run(&args)),
    }
}

/// A failure of a measurement.
fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new("bench", error.to_string())
}
