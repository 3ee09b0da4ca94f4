//! `peer NAME server|client`: an implementation in Rust that runs beside Wireloom.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wireloom_benches::stacks::{quinn, web_transport_quinn, wtransport};
use wireloom_benches::{Side, ceiling, http3, run};

#[derive(Parser)]
#[command(about = "The workloads of WORKLOADS.md on other implementations")]
struct Arguments {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Subcommand)]
enum Peer {
    /// Plain QUIC on the quinn crate
    #[command(subcommand)]
    RawQuinn(Side),
    /// The crate wtransport
    #[command(subcommand)]
    Wtransport(Side),
    /// The crate web-transport-quinn
    #[command(subcommand)]
    WebTransportQuinn(Side),
    /// The crates h3 and h3-quinn; http3-requests only
    #[command(subcommand)]
    H3(Side),
    /// UDP packets sealed with AES-128-GCM, nothing else; upload-1 only
    #[command(subcommand)]
    SealedUdp(Side),
}

fn main() -> ExitCode {
    match Arguments::parse().peer {
        Peer::RawQuinn(side) => run::<quinn::Listener, quinn::Dialer>("raw-quinn", side),
        Peer::Wtransport(side) => run::<wtransport::Listener, wtransport::Dialer>("wtransport", side),
        Peer::WebTransportQuinn(side) => {
            run::<web_transport_quinn::Listener, web_transport_quinn::Dialer>("web-transport-quinn", side)
        }
        Peer::H3(side) => http3::run(side),
        Peer::SealedUdp(side) => ceiling::run(side),
    }
}
