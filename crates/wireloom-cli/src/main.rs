//! The `wireloom` command: serves, dials, probes and benches WebTransport.
//!
//! Exit codes: 0 ok, 1 failed, 2 wrong usage.
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments are clap's help texts, where [] means optional"
)]
#![forbid(unsafe_code)]

mod bench;
mod cert;
mod cli;
mod connect;
mod explain;
mod failure;
mod messages;
mod output;
mod probe;
mod serve;
mod signals;
mod transport;
mod trust;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    output::start_logging(cli.verbose, matches!(cli.command, Command::Serve(_)));
    let json = cli.command.wants_json();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => runtime(Threads::Many)?.block_on(serve::run(args)),
        Command::Connect(args) => runtime(Threads::One)?.block_on(connect::run(args)),
        Command::Call(args) => runtime(Threads::One)?.block_on(messages::run_call(args)),
        Command::Signal(args) => runtime(Threads::One)?.block_on(messages::run_signal(args)),
        Command::Listen(args) => runtime(Threads::One)?.block_on(messages::run_listen(args)),
        Command::Decode(args) => messages::run_decode(&args),
        Command::Probe(args) => runtime(Threads::One)?.block_on(probe::run(args)),
        Command::Cert(args) => cert::run(args),
        Command::Bench(args) => bench::run(args),
    }
}

enum Threads {
    One,
    /// As many as there are processors.
    Many,
    Exactly(usize),
}

fn runtime(threads: Threads) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many | Threads::Exactly(_) => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Threads::Exactly(count) = threads {
        builder.worker_threads(count);
    }
    builder
        .enable_all()
        .build()
        .map_err(|e| Failure::new("system", format!("cannot start the runtime: {e}")))
}
