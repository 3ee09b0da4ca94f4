//! `wireloom bench server`: does what the control stream of each session asks for.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncBufReadExt, BufReader};
use tower_service::Service;
use wireloom::{
    Body, FlowControl, Identity, RecvStream, SendStream, Server, Session, Threads, WebTransportUpgrade, WriteError,
};

use super::protocol::Request as Line;
use super::protocol::{Accepted, CHUNK, CONNECTION_WINDOW, Listening, SEND_WINDOW, STREAM_WINDOW, Stats};
use super::workload::Workload;
use super::{ServerArgs, failed, process};
use crate::failure::{Failure, chain};
use crate::output;
use crate::signals::{StopSignals, end_of_input};

/// The page of `http3-requests`.
pub(super) const HELLO_PATH: &str = "/hello";
pub(super) const HELLO: &[u8] = b"Hello, world!";

/// Taken at a time.
const DATAGRAMS: usize = 32;

/// What came in on all sessions.
#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    streams: AtomicU64,
    datagrams: AtomicU64,
}

#[derive(Clone)]
struct Bench {
    counters: Arc<Counters>,
    start: Instant,
}

pub(super) async fn run(args: &ServerArgs) -> Result<(), Failure> {
    let bench = Bench {
        counters: Arc::default(),
        start: Instant::now(),
    };
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).map_err(|e| failed(chain(&e)))?;
    let hash = identity.certificate_sha256().to_string();
    let everyone = usize::MAX >> 1;
    let mut server = Server::builder()
        .bind(args.bind)
        .identity(identity)
        .receive_windows(STREAM_WINDOW, CONNECTION_WINDOW)
        .send_window(SEND_WINDOW)
        .max_streams_per_connection(args.max_streams)
        .congestion_control(args.congestion.control())
        // One client on one machine: nothing is to be defended against, and Retry would be measured.
        .max_connections(everyone, everyone)
        .retry_above(everyone);
    if args.threads > 1 {
        server = server.threads(Threads::start(args.threads.into()).map_err(failed)?);
    }
    if args.no_flow_control {
        server = server.flow_control(FlowControl::OFF);
    }
    let server = server.listen().await.map_err(|e| failed(chain(&e)))?;
    let mut signals = StopSignals::new();
    let listening = Listening {
        event: "listening".to_owned(),
        address: server.local_addrs()[0].to_string(),
        certificate_sha256: hash,
    };
    output::json(&serde_json::to_value(listening).map_err(failed)?);
    tokio::select! {
        served = server.serve(bench) => served.map_err(|e| failed(chain(&e))),
        () = signals.next() => Ok(()),
        () = end_of_input() => Ok(()),
    }
}

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Sessions and a short page, without a router that would be measured too.
impl Service<Request<Body>> for Bench {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let response = if let Some(upgrade) = request.extensions_mut().remove::<WebTransportUpgrade>() {
            let bench = self.clone();
            // A client that leaves is the ordinary end of a session.
            let upgraded = upgrade.on_upgrade(async move |session| drop(bench.serve(session).await));
            upgraded.map(|_| Full::default())
        } else if request.uri().path() == HELLO_PATH {
            let mut page = Response::new(Full::new(Bytes::from_static(HELLO)));
            let headers = page.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            headers.insert(CONTENT_LENGTH, HELLO.len().into());
            page
        } else {
            let mut missing = Response::new(Full::default());
            *missing.status_mut() = StatusCode::NOT_FOUND;
            missing
        };
        ready(Ok(response))
    }
}

impl Bench {
    async fn serve(&self, session: Session) -> Result<()> {
        let (mut send, recv) = session.accept_bi().await?;
        let mut lines = BufReader::new(recv).lines();
        while let Some(line) = lines.next_line().await? {
            let mut answer = match serde_json::from_str(&line)? {
                Line::Workload(name) => {
                    let workload = Workload::parse(&name);
                    if let Some(workload) = workload {
                        self.begin(workload, &session);
                    }
                    serde_json::to_vec(&Accepted { ok: workload.is_some() })?
                }
                Line::Stats(_) => serde_json::to_vec(&self.stats())?,
            };
            answer.push(b'\n');
            send.write_all(&answer).await?;
        }
        Ok(())
    }

    fn stats(&self) -> Stats {
        Stats {
            clock_seconds: self.start.elapsed().as_secs_f64(),
            cpu_seconds: process::cpu_seconds(),
            rss_bytes: process::rss_bytes(),
            bytes: self.counters.bytes.load(Relaxed),
            streams: self.counters.streams.load(Relaxed),
            datagrams: self.counters.datagrams.load(Relaxed),
        }
    }

    fn begin(&self, workload: Workload, session: &Session) {
        let (session, counters) = (session.clone(), self.counters.clone());
        match workload {
            Workload::Upload1 | Workload::Upload16 => drop(tokio::spawn(async move {
                while let Ok(recv) = session.accept_uni().await {
                    let counters = counters.clone();
                    tokio::spawn(async move { counters.read(recv).await });
                }
            })),
            Workload::UniStreams => drop(tokio::spawn(async move {
                while let Ok(recv) = session.accept_uni().await {
                    let _ = counters.read(recv).await;
                }
            })),
            Workload::Download1 | Workload::Download16 => drop(tokio::spawn(async move {
                while let Ok((send, _)) = session.accept_bi().await {
                    tokio::spawn(write_without_end(send));
                }
            })),
            Workload::EchoLatency | Workload::EchoStreams => drop(tokio::spawn(async move {
                while let Ok((send, recv)) = session.accept_bi().await {
                    let counters = counters.clone();
                    tokio::spawn(async move { counters.echo(send, recv).await });
                }
            })),
            Workload::Datagrams64 | Workload::Datagrams1150 => drop(tokio::spawn(async move {
                let mut datagrams = Vec::new();
                while let Ok(count) = session.recv_datagrams(&mut datagrams, DATAGRAMS).await {
                    counters.datagrams.fetch_add(count as u64, Relaxed);
                    datagrams.clear();
                }
            })),
            // They have no load session.
            Workload::Sessions | Workload::IdleMemory | Workload::Http3Requests => {}
        }
    }
}

impl Counters {
    async fn read(&self, mut recv: RecvStream) -> Result<()> {
        while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
            self.bytes.fetch_add(chunk.len() as u64, Relaxed);
        }
        self.streams.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn echo(&self, mut send: SendStream, mut recv: RecvStream) -> Result<()> {
        while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
            self.bytes.fetch_add(chunk.len() as u64, Relaxed);
            send.write_chunk(chunk).await?;
        }
        self.streams.fetch_add(1, Relaxed);
        Ok(send.finish()?)
    }
}

/// The same bytes over and over, until the stream is stopped or its session over.
pub(super) async fn write_without_end(mut send: SendStream) -> Result<(), WriteError> {
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    loop {
        send.write_chunk(chunk.clone()).await?;
    }
}
