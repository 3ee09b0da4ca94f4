//! What an idle connection costs the server in memory, over each transport: `cargo bench --bench idle [CONNECTIONS] [TRANSPORT...]`.
//! Transports: `ws`, `wss`, `webtransport` (profile S), `webtransport-multi` (profile M); all of them unless told.
//!
//! The server is a process of its own, this program again; its resident memory is read before and after.
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::poll_fn;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::stream::{StreamExt as _, iter};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use wireloom::{Identity, ServerTrust};
use wireloom_messaging::Data;
use wireloom_messaging::server::{Handlers, Server};
use wireloom_messaging::transport::webtransport::{self, PROTOCOL_M, PROTOCOL_S, Profile};
use wireloom_messaging::transport::{self, Incoming, Link, websocket};

const TRANSPORTS: [&str; 4] = ["ws", "wss", "webtransport", "webtransport-multi"];
/// Of the server's, at most.
const MESSAGE: usize = 1 << 20;
/// What the first connections allocate once is not counted.
const FIRST: usize = 50;
/// Handshakes at a time.
const AT_ONCE: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if let [serve, transport] = arguments.as_slice()
        && serve == "serve"
    {
        return runtime.block_on(serve_over(transport));
    }
    let (counts, named): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.parse::<usize>().is_ok());
    let count = counts.first().map_or(5_000, |count| count.parse().unwrap());
    for transport in TRANSPORTS {
        if named.is_empty() || named.iter().any(|name| *name == transport) {
            runtime.block_on(measure(transport, count));
        }
    }
}

async fn serve_over(transport: &str) {
    let handlers = Handlers::new().on_request("echo", async |data: Data| data);
    let server = Server::builder().max_connections(100_000, 100_000).build(handlers);
    if transport == "ws" {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        return server.listen(listener).await.unwrap();
    }
    let port = wireloom::Server::builder()
        .bind("127.0.0.1:0")
        .identity(Identity::self_signed(["127.0.0.1"]).unwrap())
        .max_connections(100_000, 100_000)
        .idle_timeout(Duration::from_secs(600))
        .listen()
        .await
        .unwrap();
    println!("{}", port.local_addrs()[0]);
    let app = Router::new().route_service("/", server.service());
    port.serve(app).await.unwrap();
}

/// The server's process.
struct Served {
    process: Child,
    address: SocketAddr,
}

impl Served {
    fn start(transport: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["serve", transport])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().parse().unwrap();
        Self { process, address }
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a client needs to connect.
struct Dialer {
    transport: &'static str,
    address: SocketAddr,
    tls: TlsConnector,
    client: wireloom::Client,
}

impl Dialer {
    fn new(transport: &'static str, address: SocketAddr) -> Self {
        let trust = ServerTrust::Insecure;
        let tls = Arc::new(trust.tcp_client_config().unwrap());
        Self {
            transport,
            address,
            tls: TlsConnector::from(tls),
            client: wireloom::Client::builder()
                .trust(trust)
                .idle_timeout(Duration::from_secs(600))
                .keep_alive(None)
                .build()
                .unwrap(),
        }
    }

    /// A connection that has read the server's first message.
    async fn connect(&self) -> Box<dyn Link> {
        let mut link: Box<dyn Link> = match self.transport {
            "ws" => {
                let stream = TcpStream::connect(self.address).await.unwrap();
                let url = format!("ws://{}/", self.address);
                Box::new(websocket::connect(stream, url, MESSAGE).await.unwrap())
            }
            "wss" => {
                let stream = TcpStream::connect(self.address).await.unwrap();
                let name = self.address.ip().into();
                let stream = self.tls.connect(name, stream).await.unwrap();
                let url = format!("wss://{}/", self.address);
                Box::new(websocket::connect(stream, url, MESSAGE).await.unwrap())
            }
            transport => {
                let protocol = if transport == "webtransport" {
                    PROTOCOL_S
                } else {
                    PROTOCOL_M
                };
                let url = format!("https://{}/", self.address);
                let session = self.client.session(url).protocols([protocol]).connect().await.unwrap();
                assert_eq!(session.protocol(), Some(protocol));
                let profile = Profile::of(session.protocol(), None);
                Box::new(webtransport::connect(session, profile, MESSAGE).await.unwrap())
            }
        };
        let first = transport::recv(&mut *link).await;
        assert!(matches!(first, Ok(Incoming::Message { .. })));
        // What is to be written for that is.
        poll_fn(|cx| link.poll_flush(cx)).await.unwrap();
        link
    }

    async fn connect_many(&self, count: usize) -> Vec<Box<dyn Link>> {
        let connecting = iter(0..count).map(|_| self.connect());
        connecting.buffer_unordered(AT_ONCE).collect().await
    }
}

async fn measure(transport: &'static str, count: usize) {
    let server = Served::start(transport);
    let dialer = Dialer::new(transport, server.address);
    drop(dialer.connect_many(FIRST).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.resident_kib();
    let connections = dialer.connect_many(count).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = server.resident_kib();
    let each = (after - before) as f64 / count as f64;
    println!("{transport}: {count} idle connections, {before} -> {after} KiB, {each:.2} KiB each");
    drop(connections);
}
