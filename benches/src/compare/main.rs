//! Runs the workloads of WORKLOADS.md on Wireloom and on others, in turns, and prints the medians and their ratios.
//! `cargo xtask bench quinn`, `flow-control` and `peers` build what they need and start it.

mod document;
mod measure;
mod program;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::measure::Medians;
use crate::program::{Foreign, Peer};

type Error = Box<dyn std::error::Error>;
type Result<T = (), E = Error> = std::result::Result<T, E>;

const WORKLOADS: [&str; 12] = [
    "upload-1",
    "upload-16",
    "download-1",
    "download-16",
    "echo-latency",
    "echo-streams",
    "uni-streams",
    "datagrams-64",
    "datagrams-1150",
    "sessions",
    "idle-memory",
    "http3-requests",
];

#[derive(Parser)]
#[command(about = "Wireloom beside others: medians of interleaved rounds, and their ratios")]
struct Arguments {
    /// What Wireloom is compared with
    #[arg(long, value_enum, default_values_t = [Peer::RawQuinn])]
    against: Vec<Peer>,
    #[command(flatten)]
    foreign: Foreign,
    /// Rounds; each runs every program
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of each run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Writes the tables to this file, in Markdown
    #[arg(long)]
    write: Option<PathBuf>,
    /// NAME=VERSION of a peer, for that file
    #[arg(long)]
    version: Vec<String>,
    /// All unless named
    workloads: Vec<String>,
}

/// What all programs made of a workload.
struct Row {
    workload: &'static str,
    ours: Medians,
    /// In the order of the programs; why one has failed.
    others: Vec<(String, Result<Medians, String>)>,
}

fn run(arguments: &Arguments) -> Result {
    let wanted = &arguments.workloads;
    let chosen = |name: &&str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let workloads: Vec<&'static str> = WORKLOADS.into_iter().filter(chosen).collect();
    if workloads.len() < wanted.len() {
        return Err(format!("the workloads are {}", WORKLOADS.join(", ")).into());
    }
    let folder = std::env::current_exe()?.parent().ok_or("no folder")?.to_owned();
    let files = tempfile::tempdir()?;
    let programs = program::all(&arguments.against, &arguments.foreign, &folder, files.path())?;
    println!("{} rounds of {} s, medians", arguments.rounds, arguments.seconds);
    let mut rows = Vec::new();
    for workload in workloads {
        let able: Vec<_> = programs.iter().filter(|program| program.runs(workload)).collect();
        // Nobody to compare with.
        if able.len() < 2 {
            continue;
        }
        let mut medians = measure::interleaved(&able, workload, arguments.rounds, arguments.seconds).into_iter();
        let (_, ours) = medians.next().ok_or("no programs")?;
        let others = medians.collect();
        let ours = ours?;
        let row = Row { workload, ours, others };
        table::print(&row);
        rows.push(row);
    }
    if let Some(file) = &arguments.write {
        let settings = format!("{} rounds of {} s", arguments.rounds, arguments.seconds);
        std::fs::write(file, document::render(&rows, &settings, &arguments.version))?;
        println!("written to {}", file.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}
