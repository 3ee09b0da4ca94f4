//! The serving side: a control stream on each connection, and what its workload asks for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use quinn::{Connection, Incoming, RecvStream, SendStream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::report::{Accepted, Request, Stats};
use crate::{Error, Result, process, transport};

/// One bulk chunk.
pub(crate) const CHUNK: usize = 64 << 10;

/// Of all connections together.
#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    streams: AtomicU64,
    datagrams: AtomicU64,
}

/// Serves until SIGTERM or the end of standard input.
pub(crate) async fn run(bind: SocketAddr, max_streams: u32) -> Result {
    let start = Instant::now();
    let (endpoint, hash) = transport::server(bind, max_streams)?;
    let address = endpoint.local_addr()?;
    println!(r#"{{"event":"listening","address":"{address}","certificate_sha256":"{hash}"}}"#);
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut input = tokio::io::stdin();
    let mut byte = [0];
    let counters = Arc::new(Counters::default());
    let accept = async {
        while let Some(incoming) = endpoint.accept().await {
            // A client that leaves is the ordinary end of a connection.
            let counters = counters.clone();
            tokio::spawn(async move { drop(serve(incoming, start, &counters).await) });
        }
    };
    tokio::select! {
        () = accept => {}
        _ = terminated.recv() => {}
        _ = input.read(&mut byte) => {}
    }
    // The runtime would wait for the thread that is blocked in reading standard input.
    std::process::exit(0);
}

async fn serve(incoming: Incoming, start: Instant, counters: &Arc<Counters>) -> Result {
    let connection = incoming.await?;
    let (mut send, recv) = connection.accept_bi().await?;
    let mut requests = BufReader::new(recv).lines();
    while let Some(line) = requests.next_line().await? {
        let mut answer = match serde_json::from_str(&line)? {
            Request::Workload(name) => {
                let ok = begin(&name, &connection, counters);
                serde_json::to_vec(&Accepted { ok })?
            }
            Request::Stats(_) => serde_json::to_vec(&Stats {
                clock_seconds: start.elapsed().as_secs_f64(),
                cpu_seconds: process::cpu_seconds()?,
                rss_bytes: process::rss_bytes()?,
                bytes: counters.bytes.load(Relaxed),
                streams: counters.streams.load(Relaxed),
                datagrams: counters.datagrams.load(Relaxed),
            })?,
        };
        answer.push(b'\n');
        send.write_all(&answer).await?;
    }
    // The control stream ends with the connection, unless the client leaves it half open.
    connection.closed().await;
    Ok(())
}

/// Starts what the workload needs; false if there is none of that name.
fn begin(workload: &str, connection: &Connection, counters: &Arc<Counters>) -> bool {
    let (connection, counters) = (connection.clone(), counters.clone());
    match workload {
        "upload-1" | "upload-16" => {
            tokio::spawn(async move {
                while let Ok(stream) = connection.accept_uni().await {
                    let counters = counters.clone();
                    tokio::spawn(async move { read_to_end(stream, &counters).await });
                }
            });
        }
        "uni-streams" => {
            tokio::spawn(async move {
                while let Ok(stream) = connection.accept_uni().await {
                    read_to_end(stream, &counters).await?;
                }
                Ok::<_, Error>(())
            });
        }
        "download-1" | "download-16" => {
            tokio::spawn(async move {
                while let Ok((send, _)) = connection.accept_bi().await {
                    tokio::spawn(write_without_end(send));
                }
            });
        }
        "echo-latency" | "echo-streams" => {
            tokio::spawn(async move {
                while let Ok((send, recv)) = connection.accept_bi().await {
                    let counters = counters.clone();
                    tokio::spawn(async move { echo(send, recv, &counters).await });
                }
            });
        }
        "datagrams-64" | "datagrams-1150" => {
            tokio::spawn(async move {
                while connection.read_datagram().await.is_ok() {
                    counters.datagrams.fetch_add(1, Relaxed);
                }
            });
        }
        _ => return false,
    }
    true
}

async fn read_to_end(mut stream: RecvStream, counters: &Counters) -> Result {
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        counters.bytes.fetch_add(chunk.bytes.len() as u64, Relaxed);
    }
    counters.streams.fetch_add(1, Relaxed);
    Ok(())
}

async fn echo(mut send: SendStream, mut recv: RecvStream, counters: &Counters) -> Result {
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        counters.bytes.fetch_add(chunk.bytes.len() as u64, Relaxed);
        send.write_chunk(chunk.bytes).await?;
    }
    counters.streams.fetch_add(1, Relaxed);
    Ok(send.finish()?)
}

/// Writes the same chunk until the stream is stopped or its connection lost.
pub(crate) async fn write_without_end(mut send: SendStream) {
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    while send.write_chunk(chunk.clone()).await.is_ok() {}
}
