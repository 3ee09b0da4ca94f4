//! The server's process: it serves, and says on demand what it has.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use wireloom::{Identity, Server, Session, WebTransportUpgrade};

use crate::{ALLOCATOR, Error, Result};

/// What the server has.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(crate) rss: u64,
    /// The most it ever had.
    pub(crate) peak_rss: u64,
    pub(crate) allocated: u64,
    pub(crate) connections: usize,
    pub(crate) sessions: usize,
    /// Of requests, streams and sessions.
    pub(crate) leftovers: usize,
    pub(crate) tasks: usize,
}

async fn echo(session: Session) {
    while let Ok((mut send, mut recv)) = session.accept_bi().await {
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX).await {
                if send.write_chunk(chunk).await.is_err() {
                    return;
                }
            }
            let _ = send.finish();
        });
    }
}

/// Keeps every stream, without a task for any.
async fn hold(session: Session) {
    let mut streams = Vec::new();
    while let Ok(stream) = session.accept_uni().await {
        streams.push(stream);
    }
}

/// Serves until standard input ends; each line of it is answered with [`Stats`].
pub(crate) async fn run() -> Result {
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/echo",
            any(|upgrade: WebTransportUpgrade| async move { upgrade.on_upgrade(echo) }),
        )
        .route(
            "/hold",
            any(|upgrade: WebTransportUpgrade| async move { upgrade.on_upgrade(hold) }),
        );
    let server = Server::builder()
        .bind("127.0.0.1:0")
        .identity(Identity::self_signed(["localhost"])?)
        .idle_timeout(Duration::from_secs(600))
        .listen()
        .await?;
    println!("{}", server.local_addrs()[0]);
    let monitor = server.monitor();
    let serving = tokio::spawn(server.serve(app).into_future());
    let mut requests = BufReader::new(tokio::io::stdin()).lines();
    while requests.next_line().await?.is_some() {
        let counts = monitor.stats();
        let stats = Stats {
            rss: memory("VmRSS:")?,
            peak_rss: memory("VmHWM:")?,
            allocated: ALLOCATOR.allocated() as u64,
            connections: counts.connections,
            sessions: counts.sessions,
            leftovers: monitor.leftovers(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        };
        println!("{}", serde_json::to_string(&stats)?);
    }
    serving.abort();
    std::process::exit(0)
}

/// A line of /proc/self/status, in bytes.
fn memory(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no such line in /proc/self/status")?.parse::<u64>()? * 1024)
}

/// The server's process, seen from the outside. It ends with this.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let address = output.next_line().await?.ok_or("the server did not start")?.parse()?;
        Ok(Self {
            address,
            _child: child,
            input,
            output,
        })
    }

    pub(crate) async fn stats(&mut self) -> Result<Stats> {
        self.input.write_all(b"\n").await?;
        let line = self.output.next_line().await?.ok_or("the server has ended")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits until no more than `connections` are left, and what they had is given back.
    pub(crate) async fn settled(&mut self, connections: usize) -> Result<Stats> {
        let waited = async {
            loop {
                let stats = self.stats().await?;
                if stats.connections <= connections {
                    // QUIC forgets a connection some round trips after its end.
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    return self.stats().await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), waited).await;
        waited.map_err(|_| Error::from("connections are left over"))?
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
