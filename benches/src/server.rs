//! The serving side: a control stream on each connection, and what its workload asks for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::certificate::Certificate;
use crate::report::{Accepted, Request, Stats};
use crate::stack::{RecvHalf, SendHalf, Server, Session};
use crate::{Error, Result, process};

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
pub(crate) async fn run<S: Server>(bind: SocketAddr, max_streams: u32) -> Result {
    let start = Instant::now();
    let certificate = Certificate::generate()?;
    let mut server = S::bind(bind, &certificate, max_streams)?;
    announce(server.local_addr()?, &certificate.sha256);
    let counters = Arc::new(Counters::default());
    let accept = async {
        while let Some(incoming) = server.accept().await {
            // A client that leaves is the ordinary end of a session.
            let counters = counters.clone();
            tokio::spawn(async move { serve(S::establish(incoming).await?, start, &counters).await });
        }
        Ok(())
    };
    until_told(accept).await
}

/// The line that says that the server can be dialled.
pub(crate) fn announce(address: SocketAddr, certificate_sha256: &str) {
    println!(r#"{{"event":"listening","address":"{address}","certificate_sha256":"{certificate_sha256}"}}"#);
}

/// Serves until SIGTERM or the end of standard input.
pub(crate) async fn until_told(serve: impl Future<Output = Result>) -> Result {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut input = tokio::io::stdin();
    let mut byte = [0];
    tokio::select! {
        done = serve => done?,
        _ = terminated.recv() => {}
        _ = input.read(&mut byte) => {}
    }
    // The runtime would wait for the thread that is blocked in reading standard input.
    std::process::exit(0);
}

/// This process since `start`, and what it has counted.
pub(crate) fn stats(start: Instant, bytes: u64, streams: u64, datagrams: u64) -> Result<Stats> {
    Ok(Stats {
        clock_seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: process::cpu_seconds()?,
        rss_bytes: process::rss_bytes()?,
        bytes,
        streams,
        datagrams,
    })
}

async fn serve<S: Session>(session: S, start: Instant, counters: &Arc<Counters>) -> Result {
    let (mut send, recv) = session.accept_bi().await?;
    let mut requests = BufReader::new(recv).lines();
    while let Some(line) = requests.next_line().await? {
        let mut answer = match serde_json::from_str(&line)? {
            Request::Workload(name) => {
                let ok = begin(&name, &session, counters);
                serde_json::to_vec(&Accepted { ok })?
            }
            Request::Stats(_) => {
                let [bytes, streams, datagrams] =
                    [&counters.bytes, &counters.streams, &counters.datagrams].map(|counter| counter.load(Relaxed));
                serde_json::to_vec(&stats(start, bytes, streams, datagrams)?)?
            }
        };
        answer.push(b'\n');
        send.write_all(&answer).await?;
    }
    // The control stream ends with the session, unless the client leaves it half open.
    session.closed().await;
    Ok(())
}

/// Starts what the workload needs; false if there is none of that name.
fn begin<S: Session>(workload: &str, session: &S, counters: &Arc<Counters>) -> bool {
    let (session, counters) = (session.clone(), counters.clone());
    match workload {
        "upload-1" | "upload-16" => {
            tokio::spawn(async move {
                while let Ok(stream) = session.accept_uni().await {
                    let counters = counters.clone();
                    tokio::spawn(async move { read_to_end(stream, &counters).await });
                }
            });
        }
        "uni-streams" => {
            tokio::spawn(async move {
                while let Ok(stream) = session.accept_uni().await {
                    read_to_end(stream, &counters).await?;
                }
                Ok::<_, Error>(())
            });
        }
        "download-1" | "download-16" => {
            tokio::spawn(async move {
                while let Ok((send, recv)) = session.accept_bi().await {
                    tokio::spawn(async move {
                        write_without_end(send).await;
                        // Dropped before, it would stop a stream whose FIN is not in yet.
                        drop(recv);
                    });
                }
            });
        }
        "echo-latency" | "echo-streams" => {
            tokio::spawn(async move {
                while let Ok((send, recv)) = session.accept_bi().await {
                    let counters = counters.clone();
                    tokio::spawn(async move { echo(send, recv, &counters).await });
                }
            });
        }
        "datagrams-64" | "datagrams-1150" => {
            tokio::spawn(async move {
                while session.recv_datagram().await.is_ok() {
                    counters.datagrams.fetch_add(1, Relaxed);
                }
            });
        }
        _ => return false,
    }
    true
}

async fn read_to_end(mut stream: impl RecvHalf, counters: &Counters) -> Result {
    while let Some(chunk) = stream.read_chunk().await? {
        counters.bytes.fetch_add(chunk.len() as u64, Relaxed);
    }
    counters.streams.fetch_add(1, Relaxed);
    Ok(())
}

async fn echo(mut send: impl SendHalf, mut recv: impl RecvHalf, counters: &Counters) -> Result {
    while let Some(chunk) = recv.read_chunk().await? {
        counters.bytes.fetch_add(chunk.len() as u64, Relaxed);
        send.write_chunk(chunk).await?;
    }
    counters.streams.fetch_add(1, Relaxed);
    send.finish().await
}

/// Writes the same chunk until the stream is stopped or its session lost.
pub(crate) async fn write_without_end(mut send: impl SendHalf) {
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    while send.write_chunk(chunk.clone()).await.is_ok() {}
}
