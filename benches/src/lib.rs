//! The programs that the benchmarks run beside Wireloom, and the workloads of WORKLOADS.md that they run.

pub mod ceiling;
pub mod certificate;
mod client;
pub mod http3;
mod load;
mod process;
mod quic;
mod report;
mod server;
pub mod stack;
pub mod stacks;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

pub use crate::client::Options;
use crate::report::Report;
use crate::stack::{Client, Server};

/// What goes wrong is told to a person, never matched on.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// With that error.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// What a program is asked to do.
#[derive(Subcommand)]
pub enum Side {
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
    Client(Options),
}

/// Runs one side of an implementation under the name that its results are given.
pub fn run<S: Server, C: Client>(program: &str, side: Side) -> ExitCode {
    exit(program, async {
        match side {
            Side::Server { bind, max_streams } => server::run::<S>(bind, max_streams).await,
            Side::Client(options) => print(&options, client::run::<C>(program, &options)).await,
        }
    })
}

/// Runs on one thread and says what went wrong.
fn exit(program: &str, work: impl Future<Output = Result>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the result, if it comes in time.
async fn print(options: &Options, measurement: impl Future<Output = Result<Report>>) -> Result {
    let deadline = Duration::from_secs_f64(options.warmup + options.seconds + 30.0);
    let report = tokio::time::timeout(deadline, measurement).await??;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
