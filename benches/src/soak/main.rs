//! `soak`: many idle sessions, and floods beside a session that must not notice. The server runs in a process of its own, so
//! that its memory is its own; so does each attacker.

mod attack;
mod flood;
mod idle;
#[allow(dead_code, clippy::unwrap_used, unreachable_pub)]
#[path = "../../../crates/wireloom/tests/common/raw.rs"]
mod raw;
mod server;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What goes wrong is told to a person, never matched on.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Counts what the server has allocated, beside what the kernel says it has.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

#[derive(Parser)]
#[command(about = "Idle sessions by the thousand, and floods; without a command both")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Memory of idle sessions and streams
    Idle {
        #[arg(long, default_value_t = 10_000)]
        sessions: usize,
        /// Idle streams on each session
        #[arg(long, default_value_t = 10)]
        streams: usize,
    },
    /// Floods, and the latency of another session meanwhile
    Flood {
        /// Per cent of the full number of streams, datagrams and sessions
        #[arg(long, default_value_t = 100)]
        percent: usize,
    },
    #[command(hide = true)]
    Server,
    #[command(hide = true)]
    Attack {
        attack: attack::Attack,
        server: SocketAddr,
        percent: usize,
    },
}

async fn run(command: Option<Command>) -> Result {
    match command {
        None => {
            idle::run(10_000, 10).await?;
            flood::run(100).await
        }
        Some(Command::Idle { sessions, streams }) => idle::run(sessions, streams).await,
        Some(Command::Flood { percent }) => flood::run(percent).await,
        Some(Command::Server) => server::run().await,
        Some(Command::Attack {
            attack,
            server,
            percent,
        }) => attack::run(attack, server, percent).await,
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(run(Arguments::parse().command)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}
