//! What idle sessions and streams cost.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Result;
use crate::raw::{config, connect, int, read_status, settings, wt_uni};
use crate::server::{Process, Stats, mib};

/// Connections of one client address: below the server's limit of one.
const PER_ADDRESS: usize = 500;
/// Bytes of tables that may stay allocated for each session that there was.
const KEPT: u64 = 2 << 10;
/// Handshakes at once.
const AT_ONCE: usize = 32;

struct Held {
    connection: Connection,
    session: u64,
    _streams: (SendStream, SendStream, RecvStream),
}

async fn dial(endpoint: Endpoint, server: std::net::SocketAddr) -> Result<Held> {
    let connection = endpoint.connect(server, "localhost")?.await?;
    let mut control = connection.open_uni().await?;
    control
        .write_all(&[&[0][..], &settings().encode_frame()].concat())
        .await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&connect("/hold")).await?;
    let status = read_status(&mut recv).await;
    if status != 200 {
        return Err(format!("status {status}").into());
    }
    Ok(Held {
        session: u64::from(send.id()),
        connection,
        _streams: (control, send, recv),
    })
}

fn row(name: &str, stats: &Stats, before: &Stats, sessions: usize) {
    let each = |now: u64, then: u64| now.saturating_sub(then) as f64 / 1024.0 / sessions as f64;
    println!(
        "{name:<28} {:>9.1} MiB RSS {:>9.1} MiB allocated {:>7.1} KiB RSS {:>7.1} KiB allocated per session {:>7} tasks",
        mib(stats.rss),
        mib(stats.allocated),
        each(stats.rss, before.rss),
        each(stats.allocated, before.allocated),
        stats.tasks - before.tasks
    );
}

pub(crate) async fn run(sessions: usize, streams: usize) -> Result {
    let mut server = Process::start().await?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(None)
        .max_concurrent_bidi_streams(0u32.into());
    let config = config(transport, None);
    let mut endpoints = Vec::new();
    for index in 0..sessions.div_ceil(PER_ADDRESS) {
        let mut endpoint = Endpoint::client(format!("127.0.{}.{}:0", 1 + index / 250, 1 + index % 250).parse()?)?;
        endpoint.set_default_client_config(config.clone());
        endpoints.push(endpoint);
    }
    let before = server.stats().await?;
    println!(
        "{sessions} idle sessions, each on a connection of its own, from {} addresses",
        endpoints.len()
    );
    row("before", &before, &before, sessions);

    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut dialling = JoinSet::new();
    for index in 0..sessions {
        let place = places.clone().acquire_owned().await?;
        let (endpoint, address) = (endpoints[index / PER_ADDRESS].clone(), server.address);
        dialling.spawn(async move {
            let held = dial(endpoint, address).await;
            drop(place);
            held
        });
    }
    let mut held = Vec::with_capacity(sessions);
    while let Some(done) = dialling.join_next().await {
        held.push(done??);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = server.stats().await?;
    if idle.sessions != sessions {
        return Err(format!("{} sessions", idle.sessions).into());
    }
    row("sessions", &idle, &before, sessions);

    let mut open = Vec::new();
    for Held {
        connection, session, ..
    } in &held
    {
        for _ in 0..streams {
            let mut stream = connection.open_uni().await?;
            stream.write_all(&wt_uni(*session, b"")).await?;
            open.push(stream);
        }
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let busy = server.stats().await?;
    row(&format!("and {streams} idle streams on each"), &busy, &before, sessions);
    println!(
        "one more handler task per session: {}",
        idle.tasks - before.tasks == sessions
    );
    println!("no task per idle stream: {}", busy.tasks == idle.tasks);

    drop(open);
    for Held { connection, .. } in &held {
        connection.close(0u32.into(), &int(0));
    }
    drop((held, endpoints));
    let after = server.settled(0).await?;
    row("after", &after, &before, sessions);
    // Tables keep their largest size. What the allocator has kept for the next sessions is in the RSS.
    let kept = after.allocated.saturating_sub(before.allocated);
    let is_back = after.leftovers == 0 && after.tasks <= before.tasks && kept < KEPT * sessions as u64;
    if !is_back || busy.tasks != idle.tasks {
        return Err(format!("left over: {after:?}").into());
    }
    Ok(())
}
