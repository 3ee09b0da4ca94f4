//! The client's load for each workload that runs on one connection.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::write_without_end;
use crate::stack::{Client, RecvHalf, SendHalf, Session};
use crate::{Error, Result};

/// Tasks of `echo-streams`.
const ECHOES: usize = 64;
/// Requests in flight of `http3-requests`.
pub(crate) const REQUESTS: usize = 32;
/// Tasks of `sessions`.
pub(crate) const HANDSHAKES: usize = 16;

/// What the client itself counts: bytes, round-trips, streams, datagrams or connections, as the workload says.
pub(crate) struct Tally {
    pub(crate) count: AtomicU64,
    /// Round-trips in nanoseconds.
    pub(crate) latency: Mutex<Histogram<u64>>,
    /// Why the load ended early, if it did.
    failed: Mutex<Option<Error>>,
}

impl Tally {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let latency = Mutex::new(Histogram::new_with_bounds(1, 60_000_000_000, 3)?);
        Ok(Arc::new(Self {
            count: AtomicU64::new(0),
            latency,
            failed: Mutex::default(),
        }))
    }

    pub(crate) fn add(&self, count: u64) {
        self.count.fetch_add(count, Relaxed);
    }

    /// The first error that ended a task of the load.
    pub(crate) fn take_failure(&self) -> Result {
        self.failed.lock().map_err(|_| "poisoned")?.take().map_or(Ok(()), Err)
    }

    /// Runs one task of the load; its error is for [`take_failure`](Self::take_failure).
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = Result> + Send + 'static) {
        let tally = self.clone();
        tokio::spawn(async move {
            if let Err(error) = task.await
                && let Ok(mut failed) = tally.failed.lock()
            {
                failed.get_or_insert(error);
            }
        });
    }
}

/// Starts the load, which runs until the session closes.
pub(crate) async fn start<S: Session>(workload: &str, session: &S, tally: &Arc<Tally>) -> Result {
    let payload = Bytes::from_static(&[0x5a; 1150]);
    match workload {
        "upload-1" | "upload-16" => {
            for _ in 0..streams(workload) {
                tokio::spawn(write_without_end(session.open_uni().await?));
            }
        }
        "download-1" | "download-16" => {
            for _ in 0..streams(workload) {
                let (mut send, recv) = session.open_bi().await?;
                send.finish().await?;
                tally.spawn(download(recv, tally.clone()));
            }
        }
        "echo-latency" => tally.spawn(echo_latency(session.clone(), tally.clone())),
        "echo-streams" => {
            for _ in 0..ECHOES {
                tally.spawn(echo_streams(session.clone(), tally.clone()));
            }
        }
        "uni-streams" => {
            let session = session.clone();
            tally.spawn(async move {
                loop {
                    let mut send = session.open_uni().await?;
                    send.write_all(&[0x5a; 64]).await?;
                    send.finish().await?;
                }
            });
        }
        "datagrams-64" | "datagrams-1150" => {
            let payload = if workload == "datagrams-64" {
                payload.slice(..64)
            } else {
                payload
            };
            let (session, counted) = (session.clone(), tally.clone());
            tally.spawn(async move {
                loop {
                    session.send_datagram(payload.clone()).await?;
                    counted.add(1);
                }
            });
        }
        _ => return Err(format!("no workload is called {workload}").into()),
    }
    Ok(())
}

/// Starts the load of `sessions`.
pub(crate) fn start_sessions<C: Client>(client: &C, tally: &Arc<Tally>) {
    for _ in 0..HANDSHAKES {
        let (client, counted) = (client.clone(), tally.clone());
        tally.spawn(async move {
            loop {
                client.connect().await?.close();
                counted.add(1);
            }
        });
    }
}

fn streams(workload: &str) -> usize {
    if workload.ends_with("-16") { 16 } else { 1 }
}

async fn download(mut recv: impl RecvHalf, tally: Arc<Tally>) -> Result {
    while let Some(chunk) = recv.read_chunk().await? {
        tally.add(chunk.len() as u64);
    }
    Err("the server has ended its stream".into())
}

async fn echo_latency(session: impl Session, tally: Arc<Tally>) -> Result {
    let (mut send, mut recv) = session.open_bi().await?;
    let mut answer = [0; 64];
    loop {
        let start = Instant::now();
        send.write_all(&[0x5a; 64]).await?;
        recv.read_exact(&mut answer).await?;
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        tally
            .latency
            .lock()
            .map_err(|_| "poisoned")?
            .saturating_record(nanoseconds);
        tally.add(1);
    }
}

async fn echo_streams(session: impl Session, tally: Arc<Tally>) -> Result {
    loop {
        let (mut send, mut recv) = session.open_bi().await?;
        send.write_all(&[0x5a; 64]).await?;
        send.finish().await?;
        let mut length = 0;
        while let Some(chunk) = recv.read_chunk().await? {
            length += chunk.len();
        }
        if length != 64 {
            return Err(format!("64 bytes came back as {length}").into());
        }
        tally.add(1);
    }
}
