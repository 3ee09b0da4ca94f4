//! ASGI servers side by side: the CPU time that one process of each spends on a request, or on an echo of a session.
//!
//! Every round runs every server once on the same workload, so that what else the machine does meets all of them; the table has
//! the median of the rounds. Servers are processes on one core and the load comes from another, where `taskset` is there.

mod http;
mod server;
mod webtransport;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use server::{Kind, Server};

/// What goes wrong is told to a person.
pub(crate) type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Workload {
    /// GET, a plain application, 32 connections of HTTP/1.1
    Get,
    /// POST of 1 KiB, sent back
    Post,
    /// GET, FastAPI
    Fastapi,
    /// WebTransport: 64 bytes to and fro on one stream
    Echo,
    /// 64 bytes to and fro on 32 streams at once
    Streams,
    /// 64 KiB to and fro on one stream
    Bulk,
    /// Datagrams of 64 bytes to and fro, 16 under way
    Datagrams,
    /// Resident memory of a session that does nothing, in KiB
    Idle,
}

#[derive(Parser)]
struct Arguments {
    /// The folder of the Python programs
    #[arg(long)]
    python: PathBuf,
    /// The folder that holds the package `wireloom`
    #[arg(long)]
    package: PathBuf,
    /// Another folder with the package: a build from before, in the same rounds
    #[arg(long)]
    before: Option<PathBuf>,
    /// Only these servers
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Kind>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long, default_value_t = 32)]
    connections: usize,
    #[arg(value_enum)]
    workloads: Vec<Workload>,
}

impl Workload {
    const ALL: [Self; 8] = [
        Self::Get,
        Self::Post,
        Self::Fastapi,
        Self::Echo,
        Self::Streams,
        Self::Bulk,
        Self::Datagrams,
        Self::Idle,
    ];

    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Get | Self::Post | Self::Fastapi => &[
                Kind::Wireloom,
                Kind::Before,
                Kind::WireloomUvloop,
                Kind::Uvicorn,
                Kind::Granian,
                Kind::Peregrine,
            ],
            _ => &[Kind::Wireloom, Kind::Before, Kind::WireloomUvloop, Kind::Peregrine],
        }
    }

    fn app(self) -> &'static str {
        if self == Self::Fastapi {
            "framework:app"
        } else {
            "app:app"
        }
    }

    fn unit(self) -> &'static str {
        if self == Self::Idle {
            "KiB per idle session"
        } else {
            "us of server CPU"
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    let mut arguments = Arguments::parse();
    // The servers run in another folder.
    arguments.python = arguments.python.canonicalize()?;
    arguments.package = arguments.package.canonicalize()?;
    if let Some(before) = &mut arguments.before {
        *before = before.canonicalize()?;
    }
    let duration = Duration::from_secs_f64(arguments.seconds);
    let workloads = if arguments.workloads.is_empty() {
        Workload::ALL.to_vec()
    } else {
        arguments.workloads.clone()
    };
    println!(
        "{:<12} {:<18} {:>10} {:>22}   unit",
        "workload", "server", "median", "lowest .. highest"
    );
    for workload in workloads {
        let kinds = workload.kinds().iter().filter(|kind| arguments.wants(**kind));
        let mut figures: Vec<(Kind, Vec<f64>)> = kinds.map(|kind| (*kind, Vec::new())).collect();
        for _ in 0..arguments.rounds {
            for (kind, figures) in &mut figures {
                match measure(&arguments, workload, *kind, duration).await {
                    Ok(figure) => figures.push(figure),
                    Err(error) => eprintln!("{workload:?} {kind:?}: {error}"),
                }
            }
        }
        for (kind, mut figures) in figures {
            figures.sort_by(f64::total_cmp);
            let (Some(lowest), Some(highest)) = (figures.first(), figures.last()) else {
                continue;
            };
            println!(
                "{:<12} {:<18} {:>10.1} {:>10.1} .. {:>8.1}   {}",
                format!("{workload:?}").to_lowercase(),
                kind.name(),
                figures[figures.len() / 2],
                lowest,
                highest,
                workload.unit()
            );
        }
    }
    Ok(())
}

impl Arguments {
    fn wants(&self, kind: Kind) -> bool {
        (self.servers.is_empty() || self.servers.contains(&kind)) && (kind != Kind::Before || self.before.is_some())
    }
}

async fn measure(arguments: &Arguments, workload: Workload, kind: Kind, duration: Duration) -> Result<f64> {
    let is_http = matches!(workload, Workload::Get | Workload::Post | Workload::Fastapi);
    let package = match &arguments.before {
        Some(before) if kind == Kind::Before => before,
        _ => &arguments.package,
    };
    let server = Server::start(kind, workload.app(), &arguments.python, package, !is_http).await?;
    let warm = Duration::from_millis(500);
    if is_http {
        let request = http::request(workload == Workload::Post);
        http::load(server.port, arguments.connections, &request, warm).await?;
        let before = server.cpu_seconds()?;
        let count = http::load(server.port, arguments.connections, &request, duration).await?;
        return Ok((server.cpu_seconds()? - before) * 1e6 / count as f64);
    }
    if workload == Workload::Idle {
        let before = server.resident_bytes()?;
        let (sessions, held) = webtransport::idle(&server, 500).await?;
        let after = server.resident_bytes()?;
        drop(held);
        return Ok((after as f64 - before as f64) / 1024.0 / sessions as f64);
    }
    let (streams, size) = match workload {
        Workload::Streams => (32, 64),
        Workload::Bulk => (1, 64 * 1024),
        _ => (1, 64),
    };
    let session = webtransport::connect(&server).await?;
    let run = async |duration| {
        if workload == Workload::Datagrams {
            webtransport::datagrams(&session, 16, size, duration).await
        } else {
            webtransport::echo(&session, streams, size, duration).await
        }
    };
    run(warm).await?;
    let before = server.cpu_seconds()?;
    let count = run(duration).await?;
    Ok((server.cpu_seconds()? - before) * 1e6 / count as f64)
}
