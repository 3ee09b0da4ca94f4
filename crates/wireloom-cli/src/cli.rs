//! The command line: what there is, and one line for each mistake.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use crate::failure::Failure;
use crate::{bench, cert, connect, messages, probe, serve};

/// WebTransport from the command line: a server with a demo page, a client, a probe, certificates and benchmarks.
#[derive(Parser)]
#[command(name = "wireloom", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 wrong usage. Start with `wireloom serve --open`.")]
pub(crate) struct Cli {
    /// Log to standard error; -vv and -vvv say more. RUST_LOG is obeyed instead if it is set
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 900)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve the demo page, an echo and files over WebTransport and HTTP/1.1, 2 and 3
    Serve(serve::ServeArgs),
    /// Open a session: lines of standard input go out, what comes back is printed
    Connect(connect::ConnectArgs),
    /// Send a WebWire request, and print the reply
    Call(messages::CallArgs),
    /// Send a WebWire signal
    Signal(messages::SignalArgs),
    /// Print WebWire signals and session events as they come
    Listen(messages::ListenArgs),
    /// Explain a captured WebWire message field by field
    Decode(messages::DecodeArgs),
    /// Report what a server speaks, and what would keep a browser from using it
    Probe(probe::ProbeArgs),
    /// Make certificates and compute their hashes
    Cert(cert::CertArgs),
    /// Measure throughput, latency, streams, datagrams, sessions and memory on this machine
    Bench(bench::BenchArgs),
}

impl Command {
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Serve(args) => args.json,
            Self::Connect(args) => args.json,
            Self::Call(args) => args.json,
            Self::Signal(args) => args.json,
            Self::Listen(args) => args.json,
            Self::Decode(args) => args.json,
            Self::Probe(args) => args.json,
            Self::Cert(args) => args.wants_json(),
            // Nothing but results on standard output: a script that reads it takes every line for one.
            Self::Bench(_) => false,
        }
    }
}

/// Help and version go to standard output with code 0; a mistake is one line on standard error, with code 2, and for programs that ask for
/// JSON one on standard output, too.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    Cli::try_parse_from(&args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody reads it: there is nothing left to do.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let command = command(&args);
            let wants_json = args.iter().any(|arg| arg == "--json") && !command.starts_with("wireloom bench");
            Failure::usage(one_line(&error.to_string(), &command)).report(wants_json)
        }
    })
}

/// The command that the arguments begin with, as far as there is one.
fn command(args: &[OsString]) -> String {
    let mut command = Cli::command();
    let mut path = "wireloom".to_owned();
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        if arg == "--verbose" || arg.strip_prefix('-').is_some_and(|v| v.bytes().all(|b| b == b'v')) {
            continue;
        }
        let Some(next) = command.find_subcommand(arg) else {
            break;
        };
        path = format!("{path} {arg}");
        command = next.clone();
    }
    path
}

/// Clap's paragraphs (the mistake, tips, usage) as one line that ends with where to read on.
fn one_line(error: &str, command: &str) -> String {
    let mut message = Vec::new();
    for line in error.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        message.push(line.strip_prefix("error: ").unwrap_or(line));
    }
    let message = message.join(" ").replace(" tip: ", "; ").replace(": ; ", "; ");
    format!("{message} (see `{command} --help`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(args: &[&str]) -> String {
        let error = Cli::try_parse_from(args).err().expect("a mistake");
        let args: Vec<OsString> = args.iter().map(Into::into).collect();
        one_line(&error.to_string(), &command(&args))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistake_is_one_line_that_says_what_to_do() {
        for (args, parts) in [
            (
                &["wireloom", "serv"][..],
                &["unrecognized subcommand 'serv'", "'serve'", "`wireloom --help`"][..],
            ),
            (
                &["wireloom", "serve", "--bnd", "x"],
                &["unexpected argument '--bnd'", "'--bind'", "`wireloom serve --help`"],
            ),
            (
                &["wireloom", "serve", "--bind", "x"],
                &["--bind", "ADDRESS:PORT", "`wireloom serve --help`"],
            ),
            (
                &["wireloom", "-vv", "cert", "generate", "--days", "0"],
                &["--days", "`wireloom cert generate --help`"],
            ),
            (
                &["wireloom", "bench", "--workload", "server"],
                &["--workload", "`wireloom bench --help`"],
            ),
            (&["wireloom", "serve", "--cert", "x"], &["--key"]),
            (&["wireloom", "connect"], &["<URL>", "`wireloom connect --help`"]),
            (&["wireloom", "connect", "http://x/"], &["https://"]),
            (
                &["wireloom", "connect", "https://x/", "--cert-hash", "12"],
                &["64 hex digits"],
            ),
            (
                &["wireloom", "connect", "https://x/", "--header", "x"],
                &["Name: value"],
            ),
            (
                &["wireloom", "connect", "https://x/", "--insecure", "--ca", "y"],
                &["--insecure", "--ca"],
            ),
            (
                &["wireloom", "cert", "hash"],
                &["<FILE>", "`wireloom cert hash --help`"],
            ),
        ] {
            let line = mistake(args);
            assert_eq!(line.lines().count(), 1, "{line}");
            for part in parts {
                assert!(line.contains(part), "{args:?}: {line}");
            }
        }
    }
}
