//! The measuring side: warms up, asks the server for its figures, measures, asks again, and reports.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};

use crate::load::{self, HANDSHAKES, Tally};
use crate::report::{Accepted, Delivery, Latency, Report, Request, Stats};
use crate::stack::{Client, Session};
use crate::{Result, process};

/// See WORKLOADS.md.
#[derive(clap::Args)]
pub struct Options {
    /// The server's address
    #[arg(long)]
    pub(crate) server: SocketAddr,
    /// The SHA-256 of the server's certificate
    #[arg(long)]
    pub(crate) certificate_sha256: String,
    /// Which workload
    #[arg(long)]
    pub(crate) workload: String,
    /// How long to measure
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// How long to run before that
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
    /// Connections of idle-memory
    #[arg(long, default_value_t = 1000)]
    connections: u32,
    /// Concurrent incoming streams, of each kind
    #[arg(long, default_value_t = 1024)]
    pub(crate) max_streams: u32,
}

/// Runs the workload.
pub(crate) async fn run<C: Client>(program: &str, options: &Options) -> Result<Report> {
    let client = C::new(options.server, &options.certificate_sha256, options.max_streams)?;
    let session = client.connect().await?;
    let mut control = Control::open(&session).await?;
    let report = if options.workload == "idle-memory" {
        idle_memory(program, options, &client, &mut control).await
    } else {
        measure(program, options, &client, &mut control).await
    };
    // Ends every connection and its load, and refuses the ones that `sessions` would still open.
    client.close().await;
    report
}

struct Control<S: Session> {
    send: S::Send,
    answers: Lines<BufReader<S::Recv>>,
}

impl<S: Session> Control<S> {
    async fn open(session: &S) -> Result<Self> {
        let (send, recv) = session.open_bi().await?;
        Ok(Self {
            send,
            answers: BufReader::new(recv).lines(),
        })
    }

    async fn workload(&mut self, name: &str) -> Result {
        let Accepted { ok } = self.ask(&Request::Workload(name.to_owned())).await?;
        if ok {
            Ok(())
        } else {
            Err(format!("the server knows no workload {name}").into())
        }
    }

    async fn stats(&mut self) -> Result<Stats> {
        self.ask(&Request::Stats(true)).await
    }

    async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.send.write_all(&line).await?;
        let answer = self
            .answers
            .next_line()
            .await?
            .ok_or("the server has ended the control stream")?;
        Ok(serde_json::from_str(&answer)?)
    }
}

/// Both sides' figures at a moment.
pub(crate) struct Sample {
    server: Stats,
    at: Instant,
    cpu_seconds: f64,
    count: u64,
}

impl Sample {
    /// With what the server has just said of itself.
    pub(crate) fn new(server: Stats, tally: &Tally) -> Result<Self> {
        Ok(Self {
            server,
            at: Instant::now(),
            cpu_seconds: process::cpu_seconds()?,
            count: tally.count.load(Relaxed),
        })
    }
}

async fn measure<C: Client>(
    program: &str,
    options: &Options,
    client: &C,
    control: &mut Control<C::Session>,
) -> Result<Report> {
    let workload = options.workload.as_str();
    let tally = Tally::new()?;
    let _load; // the session and its control stream stay open as long as the load runs
    if workload == "sessions" {
        load::start_sessions(client, &tally);
    } else {
        let session = client.connect().await?;
        let mut stream = Control::open(&session).await?;
        stream.workload(workload).await?;
        load::start(workload, &session, &tally).await?;
        _load = (session, stream);
    }
    tokio::time::sleep(Duration::from_secs_f64(options.warmup)).await;
    let a = Sample::new(control.stats().await?, &tally)?;
    tally.latency.lock().map_err(|_| "poisoned")?.reset();
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    let b = Sample::new(control.stats().await?, &tally)?;
    report(program, workload, &a, &b, &tally)
}

/// What lies between two moments.
pub(crate) fn report(program: &str, workload: &str, a: &Sample, b: &Sample, tally: &Tally) -> Result<Report> {
    tally.take_failure()?;
    let by_client = (b.count - a.count, (b.at - a.at).as_secs_f64());
    let server_seconds = b.server.clock_seconds - a.server.clock_seconds;
    let (count, seconds) = match workload {
        "upload-1" | "upload-16" => (b.server.bytes - a.server.bytes, server_seconds),
        "uni-streams" => (b.server.streams - a.server.streams, server_seconds),
        "datagrams-64" | "datagrams-1150" => (b.server.datagrams - a.server.datagrams, server_seconds),
        _ => by_client,
    };
    let rate = count as f64 / seconds;
    let mut report = Report {
        program: program.to_owned(),
        workload: workload.to_owned(),
        value: rate,
        better: "higher",
        seconds,
        count,
        client_cpu_seconds: b.cpu_seconds - a.cpu_seconds,
        server_cpu_seconds: b.server.cpu_seconds - a.server.cpu_seconds,
        rss_bytes: b.server.rss_bytes,
        ..Report::default()
    };
    match workload {
        "echo-latency" => {
            let latency = tally.latency.lock().map_err(|_| "poisoned")?;
            let quantile = |q: f64| latency.value_at_quantile(q) as f64 / 1000.0;
            report.latency = Some(Latency {
                p50_us: quantile(0.5),
                p99_us: quantile(0.99),
                p999_us: quantile(0.999),
            });
            (report.value, report.unit, report.better) = (quantile(0.5), "us", "lower");
        }
        "datagrams-64" | "datagrams-1150" => {
            report.unit = "datagrams/s";
            let sent = by_client.0;
            report.delivery = Some(Delivery {
                sent,
                delivery: (count as f64 / sent as f64).min(1.0),
            });
        }
        "sessions" => report.unit = "connections/s",
        "echo-streams" | "uni-streams" => report.unit = "streams/s",
        "http3-requests" => report.unit = "requests/s",
        _ => (report.value, report.unit) = (rate * 8.0 / 1e9, "Gbit/s"),
    }
    Ok(report)
}

async fn idle_memory<C: Client>(
    program: &str,
    options: &Options,
    client: &C,
    control: &mut Control<C::Session>,
) -> Result<Report> {
    let start = Instant::now();
    let cpu_seconds = process::cpu_seconds()?;
    let a = control.stats().await?;
    let mut connecting = tokio::task::JoinSet::new();
    let mut held = Vec::new();
    for opened in 0..options.connections {
        if opened as usize >= HANDSHAKES {
            held.push(connecting.join_next().await.ok_or("nothing is under way")???);
        }
        let client = client.clone();
        connecting.spawn(async move { client.connect().await });
    }
    while let Some(session) = connecting.join_next().await {
        held.push(session??);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let b = control.stats().await?;
    let per_connection = (b.rss_bytes as f64 - a.rss_bytes as f64) / 1024.0 / f64::from(options.connections);
    Ok(Report {
        program: program.to_owned(),
        workload: options.workload.clone(),
        value: per_connection,
        unit: "KiB/connection",
        better: "lower",
        seconds: start.elapsed().as_secs_f64(),
        count: held.len() as u64,
        client_cpu_seconds: process::cpu_seconds()? - cpu_seconds,
        server_cpu_seconds: b.cpu_seconds - a.cpu_seconds,
        rss_bytes: b.rss_bytes,
        ..Report::default()
    })
}
