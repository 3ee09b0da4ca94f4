//! Another session's latency while the server is flooded, what the server needs at most, and what is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::process::Command;

use crate::attack::Attack;
use crate::raw::{Raw, connect, read_status, wt_bi};
use crate::server::{Process, Stats, mib};
use crate::{Error, Result};

/// The target: other sessions' p99 within so many times its quiet value.
const FACTOR: f64 = 3.0;
/// The stated bound of the server's memory under these floods.
const BOUND: u64 = 128 << 20;

/// How often the other session asks. At a fixed rate, so that slow moments count by how long they last.
const EVERY: Duration = Duration::from_millis(1);

/// Echoes 64 bytes on one stream, at a fixed rate as far as the answers allow, until told to stop.
async fn measure(server: SocketAddr, stop: Arc<AtomicBool>) -> Result<Histogram<u64>> {
    let raw = Raw::connect(server).await;
    let (session, mut response) = raw.bi(&connect("/echo"), false).await;
    if read_status(&mut response).await != 200 {
        return Err("no session".into());
    }
    let (mut send, mut recv) = raw.bi(&wt_bi(u64::from(session.id()), b""), false).await;
    let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let mut answer = [0; 64];
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !stop.load(Relaxed) {
        ticks.tick().await;
        let start = Instant::now();
        send.write_all(&[0x5a; 64]).await?;
        recv.read_exact(&mut answer).await?;
        latency.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
    }
    Ok(latency)
}

/// The latency in a thread of its own while `work` goes on.
async fn beside<T>(server: SocketAddr, work: impl Future<Output = Result<T>>) -> Result<(T, Histogram<u64>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(measure(server, stopped))
    });
    let done = work.await;
    stop.store(true, Relaxed);
    let latency = tokio::task::spawn_blocking(move || thread.join()).await?;
    let latency = latency.map_err(|_| Error::from("the measuring thread panicked"))??;
    Ok((done?, latency))
}

fn row(name: &str, latency: &Histogram<u64>, quiet: f64, seconds: f64, stats: &Stats) -> f64 {
    let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let ratio = us(0.99) / quiet;
    println!(
        "{name:<12} {seconds:>6.1} s {:>9.0} us p50 {:>9.0} us p99 {ratio:>6.2} times quiet {:>8.1} MiB RSS {:>8.1} MiB peak {:>7} connections",
        us(0.5),
        us(0.99),
        mib(stats.rss),
        mib(stats.peak_rss),
        stats.connections
    );
    ratio
}

/// Runs an attacker to its end, at the lowest priority and with ordinary scheduling even where this process has real-time
/// priority (`chrt -f 10`): on a small machine it shall not take the processor from who is measured.
async fn attacked(attack: Attack, server: &mut Process, percent: usize) -> Result<Stats> {
    let name = clap::ValueEnum::to_possible_value(&attack).ok_or("an attack without a name")?;
    let status = Command::new("chrt")
        .args(["--other", "0", "nice", "-n", "19"])
        .arg(std::env::current_exe()?)
        .args([
            "attack",
            name.get_name(),
            &server.address.to_string(),
            &percent.to_string(),
        ])
        .kill_on_drop(true)
        .status()
        .await?;
    if !status.success() {
        return Err(Error::from(format!("the attacker failed: {status}")));
    }
    server.stats().await
}

pub(crate) async fn run(percent: usize) -> Result {
    let mut server = Process::start().await?;
    let mut other = Process::start().await?;
    let address = server.address;
    let before = server.stats().await?;
    let rest = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(())
    };
    let ((), quiet) = beside(address, rest).await?;
    let quiet_p99 = quiet.value_at_quantile(0.99) as f64 / 1000.0;
    row("quiet", &quiet, quiet_p99, 5.0, &server.stats().await?);
    let mut worst: f64 = 0.0;
    for attack in Attack::ALL {
        // The same flood against another server: what the processors alone cost, which attackers have of their own elsewhere.
        let (stats, latency) = beside(address, attacked(attack, &mut other, percent)).await?;
        row("  elsewhere", &latency, quiet_p99, 0.0, &stats);
        let start = Instant::now();
        let flood = attacked(attack, &mut server, percent);
        let (stats, latency) = beside(address, flood).await?;
        let seconds = start.elapsed().as_secs_f64();
        let name = format!("{attack:?}").to_lowercase();
        worst = worst.max(row(&name, &latency, quiet_p99, seconds, &stats));
    }
    let after = server.settled(0).await?;
    println!(
        "after: {} connections, {} sessions, {} left over, {} tasks (before {}), {:.1} MiB allocated (before {:.1}), {:.1} MiB RSS (before {:.1})",
        after.connections,
        after.sessions,
        after.leftovers,
        after.tasks,
        before.tasks,
        mib(after.allocated),
        mib(before.allocated),
        mib(after.rss),
        mib(before.rss)
    );
    println!(
        "p99 at most {FACTOR} times its quiet value: {}, {worst:.2}",
        worst <= FACTOR
    );
    println!("memory below {} MiB: {}", mib(BOUND), after.peak_rss < BOUND);
    if after.leftovers > 0 || after.tasks > before.tasks || after.peak_rss >= BOUND {
        return Err(format!("left over: {after:?}").into());
    }
    Ok(())
}
