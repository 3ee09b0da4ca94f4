//! `raw-quinn`: the workloads of WORKLOADS.md on plain QUIC, as the yardstick for what a WebTransport layer costs.

mod client;
mod load;
mod process;
mod report;
mod server;
mod transport;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// What goes wrong is told to a person, never matched on.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T = (), E = Error> = std::result::Result<T, E>;

#[derive(Parser)]
#[command(about = "The benchmark workloads on plain QUIC; see WORKLOADS.md")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM, or until standard input ends
    Server {
        /// The UDP address
        #[arg(long, default_value = "127.0.0.1:0")]
        bind: SocketAddr,
        /// Concurrent incoming streams, of each kind
        #[arg(long, default_value_t = 1024)]
        max_streams: u32,
    },
    /// Runs one workload and prints one line of JSON
    Client(client::Options),
}

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::from)
        .and_then(|runtime| match Arguments::parse().command {
            Command::Server { bind, max_streams } => runtime.block_on(server::run(bind, max_streams)),
            Command::Client(options) => {
                let deadline = Duration::from_secs_f64(options.warmup + options.seconds + 30.0);
                runtime.block_on(async {
                    let result = tokio::time::timeout(deadline, client::run(&options)).await??;
                    println!("{}", serde_json::to_string(&result)?);
                    Ok(())
                })
            }
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raw-quinn: {error}");
            ExitCode::FAILURE
        }
    }
}
