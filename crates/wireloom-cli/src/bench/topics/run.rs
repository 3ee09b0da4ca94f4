//! One measurement.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::peer::{Frame, Peer, Protocol};
use super::{Error, Report, TopicsArgs};
use crate::bench::process;

/// Connections that are opened at once.
const OPENING: usize = 64;

/// Deliveries that have to come, or the measurement is over.
const STUCK: Duration = Duration::from_secs(20);

/// One thread's counts.
struct Counts {
    begun: Instant,
    deliveries: Cell<u64>,
    /// In nanoseconds; while latency is measured.
    latency: RefCell<Option<Histogram<u64>>>,
    changed: Notify,
    failure: RefCell<Option<Error>>,
}

pub(super) async fn measure(args: &TopicsArgs, url: &str, server: Option<u32>) -> Result<Report, Error> {
    let counts = Rc::new(Counts {
        begun: Instant::now(),
        deliveries: Cell::new(0),
        latency: RefCell::new(None),
        changed: Notify::new(),
        failure: RefCell::new(None),
    });
    LocalSet::new().run_until(run(args, url, server, counts)).await
}

async fn run(args: &TopicsArgs, url: &str, server: Option<u32>, counts: Rc<Counts>) -> Result<Report, Error> {
    let protocol = args.protocol;
    let rss_before = server.map(process::rss_bytes_of);
    let mut left = args.subscribers as usize;
    while left > 0 {
        let batch = (0..OPENING.min(left)).map(|_| async {
            let mut peer = protocol.connect(url).await?;
            peer.send(&protocol.subscribe()).await?;
            Ok::<_, Error>(peer)
        });
        for peer in futures_util::future::try_join_all(batch).await? {
            left -= 1;
            let counts = counts.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = subscriber(peer, protocol, &counts).await {
                    counts.failure.borrow_mut().get_or_insert(error);
                    counts.changed.notify_one();
                }
            });
        }
    }
    let publisher = protocol.connect(args.publish_to.as_deref().unwrap_or(url)).await?;
    let (mut answers, mut publisher) = publisher.tcp.into_split();
    tokio::task::spawn_local(async move {
        // Acknowledgements, which nobody counts: what is delivered was accepted.
        let mut scratch = vec![0; 64 * 1024];
        while answers.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
    });
    // Subscriptions take effect, and the server comes to rest.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let rss_idle = server.map(process::rss_bytes_of);

    let each = u64::from(args.subscribers);
    let mut sent = 0;
    // Each reaches everybody, or nothing is measured.
    send(&mut publisher, args, &counts, 1, Instant::now()).await?;
    sent += 1;
    wait_for(&counts, sent * each).await?;

    // A publication waits for no delivery, and counts from when it was due: a slow server does not make its own figures better.
    *counts.latency.borrow_mut() = Some(Histogram::new_with_bounds(1, 60_000_000_000, 3)?);
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / f64::from(args.rate)));
    let (start, before) = (Instant::now(), sent);
    let mut woken = start;
    while start.elapsed() < args.seconds {
        let asked = Instant::now();
        let due = ticks.tick().await.into_std();
        // That the timer is late is nothing of the server's; that a publication has held up the next is.
        if due > asked {
            woken = Instant::now();
        }
        send(&mut publisher, args, &counts, 1, due.max(woken)).await?;
        sent += 1;
    }
    let latency_rate = (sent - before) as f64 / start.elapsed().as_secs_f64();
    wait_for(&counts, sent * each).await?;
    let latency = counts.latency.borrow_mut().take().ok_or("no latency")?;

    let cpu = || (process::cpu_seconds(), server.map(process::cpu_seconds_of));
    let (start, before, (client_before, server_before)) = (Instant::now(), counts.deliveries.get(), cpu());
    let ahead = u64::from(args.ahead);
    while start.elapsed() < args.seconds {
        // A quarter of what may be on its way at once: neither each by itself nor all in one piece.
        let room = (counts.deliveries.get() / each + ahead).saturating_sub(sent);
        if room < ahead.div_ceil(4) {
            wait_for(&counts, (sent + ahead.div_ceil(4)).saturating_sub(ahead) * each).await?;
            continue;
        }
        send(&mut publisher, args, &counts, room, Instant::now()).await?;
        sent += room;
    }
    let (deliveries, seconds) = (counts.deliveries.get() - before, start.elapsed().as_secs_f64());
    let (client_after, server_after) = cpu();
    wait_for(&counts, sent * each).await?;
    let nanos = |seconds: f64| seconds * 1e9 / deliveries.max(1) as f64;
    let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Report {
        program: "wireloom",
        protocol: format!("{protocol:?}"),
        subscribers: args.subscribers,
        payload_bytes: args.payload,
        deliveries,
        deliveries_per_second: deliveries as f64 / seconds,
        server_cpu_ns_per_delivery: server_after
            .zip(server_before)
            .map(|(after, before)| nanos(after - before)),
        client_cpu_ns_per_delivery: nanos(client_after - client_before),
        latency_rate: (latency_rate * 10.0).round() / 10.0,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        max_us: latency.max() as f64 / 1000.0,
        server_kib_per_subscriber: rss_idle
            .zip(rss_before)
            .map(|(after, before)| after.saturating_sub(before) as f64 / 1024.0 / each as f64),
    })
}

/// Publishes so many messages, each with the moment in it at which it was due.
async fn send(
    publisher: &mut tokio::net::tcp::OwnedWriteHalf,
    args: &TopicsArgs,
    counts: &Counts,
    messages: u64,
    due: Instant,
) -> Result<(), Error> {
    let mut out = Vec::new();
    let due = u64::try_from(due.saturating_duration_since(counts.begun).as_nanos()).unwrap_or(u64::MAX);
    for _ in 0..messages {
        let mut payload = format!("{due:016x}").into_bytes();
        payload.resize(args.payload as usize, b'.');
        args.protocol.publish(&payload, &mut out);
    }
    Ok(publisher.write_all(&out).await?)
}

async fn wait_for(counts: &Counts, deliveries: u64) -> Result<(), Error> {
    while counts.deliveries.get() < deliveries {
        if let Some(error) = counts.failure.borrow_mut().take() {
            return Err(error);
        }
        let waited = tokio::time::timeout(STUCK, counts.changed.notified()).await;
        waited.map_err(|_| format!("{} of {deliveries} messages were delivered", counts.deliveries.get()))?;
    }
    Ok(())
}

async fn subscriber(peer: Peer, protocol: Protocol, counts: &Counts) -> Result<(), Error> {
    let Peer { mut tcp, read } = peer;
    // What is left of a message that has come in part; the rest is read on the way.
    let mut part = read;
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    loop {
        let mut at = 0;
        let (mut delivered, mut pongs) = (0, 0);
        while let Some(frame) = protocol.next(&part[at..])? {
            at += match frame {
                Frame::Delivery { end, payload } => {
                    delivered += 1;
                    if let Some(latency) = &mut *counts.latency.borrow_mut()
                        && let Some(sent) = part.get(at + payload..at + payload + 16)
                    {
                        let sent = u64::from_str_radix(std::str::from_utf8(sent)?, 16)?;
                        let now = u64::try_from(counts.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        latency.saturating_record(now.saturating_sub(sent));
                    }
                    end
                }
                Frame::Ping { end } => {
                    pongs += 1;
                    end
                }
                Frame::Other { end } => end,
            };
        }
        part.advance(at);
        if delivered > 0 {
            counts.deliveries.set(counts.deliveries.get() + delivered);
            counts.changed.notify_one();
        }
        for _ in 0..pongs {
            tcp.write_all(&protocol.pong()).await?;
        }
        tcp.readable().await?;
        buffer.clear();
        match tcp.try_read_buf(&mut buffer) {
            Ok(0) => return Err("the server ended a connection".into()),
            Ok(_) => part.extend_from_slice(&buffer),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}
