//! Runs the workloads of WORKLOADS.md on Wireloom and on something beside it, in turns, and prints the medians and their ratios.
//! `cargo xtask bench quinn` and `cargo xtask bench flow-control` build what they need and start it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

type Error = Box<dyn std::error::Error>;
type Result<T = (), E = Error> = std::result::Result<T, E>;

const WORKLOADS: [&str; 11] = [
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
];

#[derive(Parser)]
#[command(about = "Wireloom beside another: medians of interleaved rounds, and their ratios")]
struct Arguments {
    /// What Wireloom is compared with
    #[arg(long, value_enum, default_value_t = Against::RawQuinn)]
    against: Against,
    /// Rounds; each runs both programs
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of each run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// All unless named
    workloads: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Against {
    /// QUIC streams and datagrams on the quinn crate
    RawQuinn,
    /// Wireloom, with a server that offers no session flow control
    NoFlowControl,
}

/// One of the two programs.
struct Program {
    name: &'static str,
    path: PathBuf,
    /// What comes before `server` and `client`.
    prefix: &'static [&'static str],
    /// More options of the server.
    server: &'static [&'static str],
}

const WIRELOOM: Program = Program {
    name: "wireloom",
    path: PathBuf::new(),
    prefix: &["bench"],
    server: &[],
};

#[derive(Deserialize)]
struct Listening {
    address: String,
    certificate_sha256: String,
}

/// What a client prints, as far as it is compared.
#[derive(Clone, Deserialize)]
struct Measured {
    value: f64,
    unit: String,
    count: u64,
    client_cpu_seconds: f64,
    server_cpu_seconds: f64,
    p99_us: Option<f64>,
    delivery: Option<f64>,
}

/// Medians of one program.
#[derive(Serialize)]
struct Medians {
    program: &'static str,
    workload: String,
    unit: String,
    value: f64,
    /// Microseconds of CPU for each thing counted (for each byte: WORKLOADS.md says what counts).
    client_cpu_us: f64,
    server_cpu_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<f64>,
}

/// A server that ends when this is dropped, because its standard input does.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Should it ignore that, it must not outlive the run either.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Server and client have a core each, so that one's work is not the other's delay.
    fn pinned(&self, core: &str) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(&self.path).args(self.prefix);
        command
    }

    fn measure(&self, workload: &str, seconds: f64) -> Result<Measured> {
        // Stream slots cost memory and time at the handshake; only streams need many.
        let slots = if matches!(workload, "sessions" | "idle-memory") {
            "100"
        } else {
            "1024"
        };
        let mut server = self.pinned("0");
        server.args(["server", "--max-streams", slots]).args(self.server);
        let mut server = Server(server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
        let listening: Listening = serde_json::from_str(&line)?;
        let mut client = self.pinned("1");
        client.args([
            "client",
            "--server",
            &listening.address,
            "--certificate-sha256",
            &listening.certificate_sha256,
        ]);
        client.args([
            "--workload",
            workload,
            "--seconds",
            &seconds.to_string(),
            "--max-streams",
            slots,
        ]);
        let output = client.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{} client {workload}: {}", self.name, output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn medians(program: &'static str, workload: &str, runs: &[Measured]) -> Option<Medians> {
    let of = |figure: fn(&Measured) -> f64| median(runs.iter().map(figure).collect());
    let first = runs.first()?;
    Some(Medians {
        program,
        workload: workload.to_owned(),
        unit: first.unit.clone(),
        value: of(|run| run.value),
        client_cpu_us: of(|run| run.client_cpu_seconds * 1e6 / run.count as f64),
        server_cpu_us: of(|run| run.server_cpu_seconds * 1e6 / run.count as f64),
        p99_us: first.p99_us.map(|_| of(|run| run.p99_us.unwrap_or(f64::NAN))),
        delivery: first.delivery.map(|_| of(|run| run.delivery.unwrap_or(f64::NAN))),
    })
}

fn run(arguments: &Arguments) -> Result {
    let folder = std::env::current_exe()?.parent().ok_or("no folder")?.to_owned();
    let other = match arguments.against {
        Against::RawQuinn => Program {
            name: "raw-quinn",
            path: folder.join("raw-quinn"),
            prefix: &[],
            server: &[],
        },
        Against::NoFlowControl => Program {
            name: "no-flow-control",
            path: folder.join("wireloom"),
            server: &["--no-flow-control"],
            ..WIRELOOM
        },
    };
    let programs = [
        other,
        Program {
            path: folder.join("wireloom"),
            ..WIRELOOM
        },
    ];
    let chosen =
        |name: &&str| arguments.workloads.is_empty() || arguments.workloads.iter().any(|wanted| wanted == name);
    let workloads: Vec<&str> = WORKLOADS.into_iter().filter(chosen).collect();
    if workloads.len() < arguments.workloads.len() {
        return Err(format!("the workloads are {}", WORKLOADS.join(", ")).into());
    }
    let mut lines = String::new();
    println!(
        "{} rounds of {} s, medians; ratio = wireloom / {}",
        arguments.rounds, arguments.seconds, programs[0].name
    );
    println!(
        "{:<15} {:<15} {:>15} {:>12} {:>7} {:>13} {:>13}  notes",
        "workload", "unit", programs[0].name, "wireloom", "ratio", "server CPU x", "client CPU x"
    );
    for workload in workloads {
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..arguments.rounds {
            for (program, runs) in programs.iter().zip(&mut runs) {
                runs.push(program.measure(workload, arguments.seconds)?);
            }
        }
        let [other, wireloom] = [0, 1].map(|i| medians(programs[i].name, workload, &runs[i]));
        let (other, wireloom) = (other.ok_or("no rounds")?, wireloom.ok_or("no rounds")?);
        let note = |name, figure: fn(&Medians) -> Option<f64>| match (figure(&other), figure(&wireloom)) {
            (Some(theirs), Some(ours)) => format!("{name} {theirs:.2} / {ours:.2}"),
            _ => String::new(),
        };
        println!(
            "{:<15} {:<15} {:>15.2} {:>12.2} {:>7.3} {:>13.3} {:>13.3}  {}{}",
            workload,
            other.unit,
            other.value,
            wireloom.value,
            wireloom.value / other.value,
            wireloom.server_cpu_us / other.server_cpu_us,
            wireloom.client_cpu_us / other.client_cpu_us,
            note("p99", |medians| medians.p99_us),
            note("delivery", |medians| medians.delivery),
        );
        for medians in [&other, &wireloom] {
            lines += &serde_json::to_string(medians)?;
            lines += "\n";
        }
    }
    let file = folder.join(format!("bench-{}.jsonl", programs[0].name));
    std::fs::write(&file, lines)?;
    println!("{}", relative(&file).display());
    Ok(())
}

fn relative(file: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    file.strip_prefix(here).unwrap_or(file).to_owned()
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
