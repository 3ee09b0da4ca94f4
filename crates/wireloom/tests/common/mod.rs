//! A server and a client of ours, over loopback.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod handmade;
pub mod raw;
pub mod raw_server;

use std::future::Future;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wireloom::{
    CertificateHash, Client, ConnectError, Connection, Identity, Server, ServerBuilder, ServerMonitor, Session,
};

/// Generous: a deadline here only tells a hang from a slow machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("hung")
}

pub struct Fixture {
    pub server: Server,
    pub client: Client,
    pub url: String,
    pub hash: CertificateHash,
}

pub async fn fixture() -> Fixture {
    fixture_with(|builder| builder).await
}

pub async fn fixture_with(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Fixture {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let server = configure(Server::builder().bind("127.0.0.1:0").identity(identity))
        .listen()
        .await
        .unwrap();
    let url = format!("https://{}/test?x=1", server.local_addrs()[0]);
    let client = Client::builder().server_certificate_hash(hash).build().unwrap();
    Fixture {
        server,
        client,
        url,
        hash,
    }
}

/// A server with a router, until `stop` is sent or dropped.
pub struct Running {
    pub client: Client,
    pub url: String,
    pub hash: CertificateHash,
    pub monitor: ServerMonitor,
    pub stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<()>,
}

pub async fn run(app: Router, configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Running {
    let Fixture {
        server, client, hash, ..
    } = fixture_with(configure).await;
    let url = format!("https://{}", server.local_addrs()[0]);
    let monitor = server.monitor();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = server.serve(app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let task = tokio::spawn(async move { serve.await.unwrap() });
    Running {
        client,
        url,
        hash,
        monitor,
        stop: Some(stop),
        task,
    }
}

impl Running {
    pub async fn connect(&self, path: &str) -> Result<Session, ConnectError> {
        within(self.client.connect(&format!("{}{path}", self.url))).await
    }

    pub async fn dial(&self) -> Connection {
        within(self.client.dial(&self.url)).await.unwrap()
    }

    pub fn request(&self, method: &str, path: &str, body: &'static [u8]) -> http::Request<Bytes> {
        http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .body(Bytes::from_static(body))
            .unwrap()
    }
}

/// A client that trusts `hash`, with small windows.
pub fn thrifty(hash: CertificateHash, stream: u32) -> Client {
    let builder = Client::builder().server_certificate_hash(hash);
    builder.receive_windows(stream, 1 << 20).build().unwrap()
}

impl Fixture {
    /// A session, seen from the server and from the client.
    pub async fn session(&self) -> (Session, Session) {
        let accept = async { self.server.accept().await.unwrap().accept().await.unwrap() };
        let (server, client) = within(async { tokio::join!(accept, self.client.connect(&self.url)) }).await;
        (server, client.unwrap())
    }
}
