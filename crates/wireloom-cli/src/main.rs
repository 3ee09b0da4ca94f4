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
mod stdout;
mod transport;
mod trust;

use std::io::ErrorKind;
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
    let ran = run(cli);
    let code = ran.as_ref().err().map(|failure| failure.report(json));
    stdout::finish(|| runtime().ok());
    match (code, output::loss()) {
        (Some(code), _) => code,
        // `wireloom ... | head -1` is no failure.
        (None, Some(error)) if error.kind() != ErrorKind::BrokenPipe => {
            Failure::new("system", format!("cannot write to standard output: {error}")).report(false)
        }
        (None, _) => ExitCode::SUCCESS,
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => runtime()?.block_on(serve::run(args)),
        Command::Connect(args) => runtime()?.block_on(connect::run(args)),
        Command::Call(args) => runtime()?.block_on(messages::call(args)),
        Command::Signal(args) => runtime()?.block_on(messages::signal(args)),
        Command::Listen(args) => runtime()?.block_on(messages::listen(args)),
        Command::Decode(args) => messages::decode(&args),
        Command::Probe(args) => runtime()?.block_on(probe::run(args)),
        Command::Cert(args) => cert::run(args),
        Command::Bench(args) => bench::run(args),
    }
}

/// What takes more than one thread starts those that it takes.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new("system", format!("cannot start the runtime: {e}")))
}
