//! One measurement.

use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::LocalSet;

use super::dial::{Opened, Target};
use super::meter::{Meter, Schedule};
use super::report::Report;
use super::{Error, Load, MessagesArgs};
use crate::bench::process;

/// Connections that are opened at once.
const OPENING: usize = 64;
/// How often the bar tells how many replies there are.
const TICK: Duration = Duration::from_millis(200);

pub(super) async fn measure(
    args: &MessagesArgs,
    transport: &'static str,
    target: &Target,
    load: &Rc<Load>,
    server: Option<u32>,
) -> Result<Report, Error> {
    // Nothing is drawn where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // A constant template: it cannot be wrong on one machine only.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let rss_before = server.map(process::rss_bytes_of);
    let opened = open(args.connections as usize, target, &bar, transport).await?;
    let connections = opened.len();
    let meter = Meter::new()?;
    let local = LocalSet::new();
    let sample = local
        .run_until(async {
            if args.idle {
                for connection in opened {
                    spawn(connection.hold(), &meter);
                }
            } else {
                start(opened, args.rate, load, &meter);
            }
            watch(args.warmup, &meter, &bar, transport).await?;
            meter.begin();
            let before = Sample::take(server, &meter);
            watch(args.seconds, &meter, &bar, transport).await?;
            let after = Sample::take(server, &meter);
            meter.end();
            Ok::<_, Error>((before, after))
        })
        .await?;
    bar.finish_and_clear();
    let (before, after) = sample;
    let seconds = (after.at - before.at).as_secs_f64();
    let replies = after.replies - before.replies;
    if replies == 0 && !args.idle {
        return Err(match meter.errors() {
            0 => "no request was answered".into(),
            errors => format!("every request was answered with an error: {errors}").into(),
        });
    }
    let latency = |quantile| (replies > 0).then(|| meter.quantile(quantile));
    Ok(Report {
        program: "wireloom",
        transport,
        connections,
        in_flight: if args.idle { 0 } else { load.in_flight },
        payload_bytes: load.payload.len(),
        rate: args.rate,
        seconds,
        replies,
        replies_per_second: replies as f64 / seconds,
        errors: meter.errors(),
        p50_us: latency(0.5),
        p90_us: latency(0.9),
        p99_us: latency(0.99),
        p999_us: latency(0.999),
        max_us: (replies > 0).then(|| meter.max()),
        client_cpu_seconds: after.client_cpu - before.client_cpu,
        server_cpu_seconds: after
            .server_cpu
            .zip(before.server_cpu)
            .map(|(after, before)| after - before),
        server_rss_bytes: after.server_rss,
        server_kib_per_connection: after
            .server_rss
            .zip(rss_before)
            .map(|(after, before)| after.saturating_sub(before) as f64 / 1024.0 / connections as f64),
    })
}

async fn open(count: usize, target: &Target, bar: &ProgressBar, transport: &str) -> Result<Vec<Opened>, Error> {
    let mut opened = Vec::with_capacity(count);
    while opened.len() < count {
        bar.set_message(format!("{transport}: {} of {count} connections", opened.len()));
        bar.tick();
        let batch = (0..OPENING.min(count - opened.len())).map(|_| target.open());
        opened.extend(futures_util::future::try_join_all(batch).await?);
    }
    Ok(opened)
}

/// Has each connection send until the measurement ends.
fn start(opened: Vec<Opened>, rate: Option<f64>, load: &Rc<Load>, meter: &Rc<Meter>) {
    let now = Instant::now();
    let connections = opened.len() as f64;
    for (i, connection) in opened.into_iter().enumerate() {
        let interval = rate.map(|rate| Duration::from_secs_f64(connections / rate));
        let schedule = Schedule {
            next: interval.map_or(now, |interval| now + interval.mul_f64(i as f64 / connections)),
            interval,
        };
        spawn(connection.run(load.clone(), schedule, meter.clone()), meter);
    }
}

/// Has one connection do something that the measurement fails with.
fn spawn(connection: impl Future<Output = Result<(), Error>> + 'static, meter: &Rc<Meter>) {
    let meter = meter.clone();
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            meter.fail(error);
        }
    });
}

/// Waits, and fails as soon as a connection does.
async fn watch(length: Duration, meter: &Meter, bar: &ProgressBar, transport: &str) -> Result<(), Error> {
    let end = Instant::now() + length;
    loop {
        if let Some(error) = meter.take_failure() {
            return Err(error);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        bar.set_message(format!(
            "{transport}: {} replies, {:.1} s left",
            meter.replies(),
            left.as_secs_f64()
        ));
        bar.tick();
        tokio::time::sleep(left.min(TICK)).await;
    }
}

/// Figures of one moment.
struct Sample {
    at: Instant,
    replies: u64,
    client_cpu: f64,
    server_cpu: Option<f64>,
    server_rss: Option<u64>,
}

impl Sample {
    fn take(server: Option<u32>, meter: &Meter) -> Self {
        Self {
            at: Instant::now(),
            replies: meter.replies(),
            client_cpu: process::cpu_seconds(),
            server_cpu: server.map(process::cpu_seconds_of),
            server_rss: server.map(process::rss_bytes_of),
        }
    }
}
