//! `wireloom bench client`: one workload, one JSON line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use wireloom::{Client, RecvStream, SendStream, Session};

use super::load::{self, Error, SESSION_TASKS, Tally};
use super::protocol::{Accepted, CONNECTION_WINDOW, Report, Request, STREAM_WINDOW, Stats};
use super::workload::{CountedBy, Workload};
use super::{ClientArgs, failed, process};
use crate::failure::Failure;
use crate::output;

/// What a run may take beside warm-up and measuring.
const SLACK: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &ClientArgs) -> Result<(), Failure> {
    let deadline = args.length.warmup + args.length.seconds + SLACK;
    let report = tokio::time::timeout(deadline, measure(args)).await;
    let report = report
        .map_err(|_| failed(format!("{} was not done in time", args.workload.name())))?
        .map_err(failed)?;
    output::json(&serde_json::to_value(report).map_err(failed)?);
    Ok(())
}

async fn measure(args: &ClientArgs) -> Result<Report, Error> {
    let client = Client::builder()
        .server_certificate_hash(args.certificate_sha256)
        .receive_windows(STREAM_WINDOW, CONNECTION_WINDOW)
        .keep_alive(None)
        .congestion_control(args.congestion.control())
        .build()?;
    let authority = args.server.to_string();
    let url = format!("https://{authority}/bench");
    // On a connection of its own, where the load cannot starve it.
    let control_session = client.connect(&url).await?;
    let mut control = Control::open(&control_session).await?;
    if args.workload == Workload::IdleMemory {
        return idle_memory(args, &client, &url, &mut control).await;
    }
    let tally = Arc::<Tally>::default();
    // The load's session and its control stream live as long as the measurement.
    let mut _load = None;
    match args.workload {
        Workload::Sessions => load::start_sessions(&client, &authority, &tally),
        Workload::Http3Requests => load::start_requests(&client, &authority, &tally).await?,
        workload => {
            let session = client.connect(&url).await?;
            let mut stream = Control::open(&session).await?;
            stream.begin(workload).await?;
            load::start(workload, &session, &tally).await?;
            _load = Some((session, stream));
        }
    }
    tokio::time::sleep(args.length.warmup).await;
    let a = Sample::take(&mut control, &tally).await?;
    tally.take_latency();
    tokio::time::sleep(args.length.seconds).await;
    let b = Sample::take(&mut control, &tally).await?;
    if let Some(failure) = tally.take_failure() {
        return Err(failure);
    }
    report(args.workload, &a, &b, &tally)
}

/// Both sides' figures of one moment.
struct Sample {
    server: Stats,
    at: Instant,
    cpu_seconds: f64,
    count: u64,
}

impl Sample {
    async fn take(control: &mut Control, tally: &Tally) -> Result<Self, Error> {
        let server = control.stats().await?;
        Ok(Self {
            server,
            at: Instant::now(),
            cpu_seconds: process::cpu_seconds(),
            count: tally.count(),
        })
    }
}

fn report(workload: Workload, a: &Sample, b: &Sample, tally: &Tally) -> Result<Report, Error> {
    let by_client = b.count - a.count;
    let (count, seconds) = match workload.counted_by() {
        CountedBy::Client => (by_client, (b.at - a.at).as_secs_f64()),
        by => {
            let count = |stats: &Stats| match by {
                CountedBy::ServerBytes => stats.bytes,
                CountedBy::ServerStreams => stats.streams,
                _ => stats.datagrams,
            };
            (
                count(&b.server) - count(&a.server),
                b.server.clock_seconds - a.server.clock_seconds,
            )
        }
    };
    let rate = count as f64 / seconds;
    let mut report = Report {
        program: "wireloom".to_owned(),
        workload: workload.name(),
        value: if workload.unit() == "Gbit/s" {
            rate * 8.0 / 1e9
        } else {
            rate
        },
        unit: workload.unit().to_owned(),
        better: workload.better().to_owned(),
        seconds,
        count,
        client_cpu_seconds: b.cpu_seconds - a.cpu_seconds,
        server_cpu_seconds: b.server.cpu_seconds - a.server.cpu_seconds,
        rss_bytes: b.server.rss_bytes,
        p50_us: None,
        p99_us: None,
        p999_us: None,
        sent: None,
        delivery: None,
    };
    match workload {
        Workload::EchoLatency => {
            let latency = tally.take_latency().ok_or("no round trip was measured")?;
            let quantile = |q| latency.value_at_quantile(q) as f64 / 1000.0;
            report.value = quantile(0.5);
            report.p50_us = Some(quantile(0.5));
            report.p99_us = Some(quantile(0.99));
            report.p999_us = Some(quantile(0.999));
        }
        Workload::Datagrams64 | Workload::Datagrams1150 => {
            report.sent = Some(by_client);
            report.delivery = Some((count as f64 / by_client.max(1) as f64).min(1.0));
        }
        _ => {}
    }
    Ok(report)
}

async fn idle_memory(args: &ClientArgs, client: &Client, url: &str, control: &mut Control) -> Result<Report, Error> {
    /// For both ends to come to rest after the handshakes.
    const REST: Duration = Duration::from_secs(1);
    let started = Instant::now();
    let cpu_seconds = process::cpu_seconds();
    let a = control.stats().await?;
    let mut opening = tokio::task::JoinSet::new();
    let mut held: Vec<Session> = Vec::new();
    for _ in 0..args.length.connections {
        if opening.len() >= SESSION_TASKS
            && let Some(session) = opening.join_next().await
        {
            held.push(session??);
        }
        let (client, url) = (client.clone(), url.to_owned());
        opening.spawn(async move { client.connect(&url).await });
    }
    while let Some(session) = opening.join_next().await {
        held.push(session??);
    }
    tokio::time::sleep(REST).await;
    let b = control.stats().await?;
    let grown = b.rss_bytes as f64 - a.rss_bytes as f64;
    Ok(Report {
        program: "wireloom".to_owned(),
        workload: args.workload.name(),
        value: grown / 1024.0 / f64::from(args.length.connections),
        unit: args.workload.unit().to_owned(),
        better: args.workload.better().to_owned(),
        seconds: started.elapsed().as_secs_f64(),
        count: held.len() as u64,
        client_cpu_seconds: process::cpu_seconds() - cpu_seconds,
        server_cpu_seconds: b.cpu_seconds - a.cpu_seconds,
        rss_bytes: b.rss_bytes,
        p50_us: None,
        p99_us: None,
        p999_us: None,
        sent: None,
        delivery: None,
    })
}

/// The client's end of a control stream.
struct Control {
    send: SendStream,
    answers: Lines<BufReader<RecvStream>>,
}

impl Control {
    async fn open(session: &Session) -> Result<Self, Error> {
        let (send, recv) = session.open_bi().await?;
        Ok(Self {
            send,
            answers: BufReader::new(recv).lines(),
        })
    }

    async fn begin(&mut self, workload: Workload) -> Result<(), Error> {
        let Accepted { ok } = self.ask(&Request::Workload(workload.name())).await?;
        if ok {
            Ok(())
        } else {
            Err(format!("the server does not know {}", workload.name()).into())
        }
    }

    async fn stats(&mut self) -> Result<Stats, Error> {
        self.ask(&Request::Stats(true)).await
    }

    async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Error> {
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
