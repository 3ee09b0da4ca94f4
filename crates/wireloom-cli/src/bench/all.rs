//! `wireloom bench`: every workload with a server and a client process of its own.

use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::protocol::{Listening, Report};
use super::spawn::Server;
use super::workload::Workload;
use super::{AllArgs, failed, process, table};
use crate::failure::Failure;
use crate::output::{self, Paint};

pub(super) fn run(args: &AllArgs) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        let note = Paint::stderr().yellow("note:");
        output::note(&format!(
            "{note} this is a debug build, many times slower; `cargo run --release -- bench` is the real thing"
        ));
    }
    let workloads = if args.workload.is_empty() {
        Workload::all()
    } else {
        &args.workload
    };
    let processors = pinning();
    // Nothing is drawn where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(workloads.len() as u64), ProgressDrawTarget::stderr());
    // A constant template: it cannot be wrong on one machine only.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len}  {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut reports = Vec::new();
    let mut failures = 0;
    for workload in workloads {
        bar.set_message(workload.name());
        match measure(*workload, args, processors) {
            Ok(report) if args.json => {
                let line = serde_json::to_string(&report).map_err(failed)?;
                bar.suspend(|| output::line(&line));
            }
            Ok(report) => reports.push(report),
            Err(failure) => {
                failures += 1;
                bar.suspend(|| output::error_line(&format!("{}: {}", workload.name(), failure.message)));
            }
        }
        bar.inc(1);
        if output::loss().is_some() {
            return Ok(());
        }
    }
    bar.finish_and_clear();
    if !args.json && !reports.is_empty() {
        table::print(&reports);
    }
    match failures {
        0 => Ok(()),
        1 => Err(failed("one workload failed")),
        n => Err(failed(format!("{n} workloads failed"))),
    }
}

/// A processor for the server and one for the client, if `taskset` is there to pin them.
fn pinning() -> Option<[usize; 2]> {
    let runs = Command::new("taskset")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if runs.is_ok_and(|status| status.success()) {
        process::two_processors()
    } else {
        None
    }
}

/// This program again.
fn wireloom(processor: Option<usize>) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(failed)?;
    Ok(match processor {
        Some(processor) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(processor.to_string()).arg(program);
            command
        }
        None => Command::new(program),
    })
}

fn measure(workload: Workload, args: &AllArgs, processors: Option<[usize; 2]>) -> Result<Report, Failure> {
    let mut server = wireloom(processors.map(|[server, _]| server))?;
    server
        .args(["bench", "server", "--max-streams", &workload.max_streams().to_string()])
        .args(["--congestion", args.congestion.name()]);
    let (_server, listening): (_, Listening) = Server::start(&mut server)?;
    let length = &args.length;
    let output = wireloom(processors.map(|[_, client]| client))?
        .args(["bench", "client", "--workload", &workload.name()])
        .args(["--server", &listening.address])
        .args(["--certificate-sha256", &listening.certificate_sha256])
        .args(["--seconds", &length.seconds.as_secs_f64().to_string()])
        .args(["--warmup", &length.warmup.as_secs_f64().to_string()])
        .args(["--connections", &length.connections.to_string()])
        .args(["--congestion", args.congestion.name()])
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        let reason = reason
            .lines()
            .find_map(|line| line.split_once("error: "))
            .map_or("it gave no reason", |(_, why)| why);
        return Err(failed(reason));
    }
    serde_json::from_slice(&output.stdout).map_err(failed)
}
