//! Servers that listen, and clients that connect, over each transport.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use wireloom::{Client, Identity};
use wireloom_messaging::server::Server;
use wireloom_messaging::topics::Topics;
use wireloom_messaging::transport::webtransport::{self, PROTOCOL_M, PROTOCOL_S, Profile};
use wireloom_messaging::transport::{Link, websocket};

/// More than any message of the suite.
const LIMIT: usize = 1 << 20;

/// A server that listens for as long as this lives.
pub trait Rig: Sized + Send + Sync {
    async fn start(server: &Server) -> Self;

    /// `None` if the server refuses.
    async fn connect(&self) -> Option<Box<dyn Link>>;

    /// On which broker the topics are.
    async fn topics(topics: Topics) -> Topics {
        topics
    }

    /// Whether all messages are on one stream.
    const HAS_ORDER: bool = true;
}

pub struct Memory(Server);

impl Rig for Memory {
    async fn start(server: &Server) -> Self {
        Self(server.clone())
    }

    async fn connect(&self) -> Option<Box<dyn Link>> {
        Some(Box::new(self.0.connect_memory()))
    }
}

pub struct WebSocket {
    pub address: SocketAddr,
}

impl Rig for WebSocket {
    async fn start(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = server.clone();
        tokio::spawn(async move { server.listen(listener).await });
        Self { address }
    }

    async fn connect(&self) -> Option<Box<dyn Link>> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        let url = format!("ws://{}/any/path?at=all", self.address);
        Some(Box::new(websocket::connect(stream, url, LIMIT).await.ok()?))
    }
}

struct WebTransport {
    client: Client,
    url: String,
}

impl WebTransport {
    async fn start(server: &Server) -> Self {
        Self::start_with(server, None).await
    }

    /// With so many bytes on their way from the server to a client, at most.
    async fn start_with(server: &Server, window: Option<u32>) -> Self {
        let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
        let hash = identity.certificate_hashes().current;
        let app = Router::new().route_service("/chat", server.service());
        let mut http = wireloom::Server::builder().bind("127.0.0.1:0").identity(identity);
        let mut client = Client::builder().server_certificate_hash(hash);
        if let Some(window) = window {
            http = http.send_window(window.into());
            client = client.receive_windows(window, 16 << 20);
        }
        let http = http.listen().await.unwrap();
        let url = format!("https://{}/chat", http.local_addrs()[0]);
        tokio::spawn(async move { http.serve(app).await });
        let client = client.build().unwrap();
        Self { client, url }
    }

    /// A bare session.
    async fn session(&self, protocol: &str) -> wireloom::Session {
        let session = self.client.session(&self.url).protocols([protocol]);
        session.connect().await.unwrap()
    }

    async fn connect(&self, protocol: &str) -> Option<Box<dyn Link>> {
        let session = self
            .client
            .session(&self.url)
            .protocols([protocol])
            .connect()
            .await
            .ok()?;
        let profile = Profile::of(session.protocol(), None);
        assert_eq!(session.protocol(), Some(protocol));
        Some(Box::new(webtransport::connect(session, profile, LIMIT).await.ok()?))
    }
}

pub struct Single(WebTransport);

impl Single {
    pub async fn session(&self) -> wireloom::Session {
        self.0.session(PROTOCOL_S).await
    }
}

impl Rig for Single {
    async fn start(server: &Server) -> Self {
        Self(WebTransport::start(server).await)
    }

    async fn connect(&self) -> Option<Box<dyn Link>> {
        self.0.connect(PROTOCOL_S).await
    }
}

pub struct Multi(WebTransport);

impl Multi {
    /// With so many bytes on their way from the server to a client, at most.
    pub async fn start_with(server: &Server, window: u32) -> Self {
        Self(WebTransport::start_with(server, Some(window)).await)
    }

    pub async fn session(&self) -> wireloom::Session {
        self.0.session(PROTOCOL_M).await
    }
}

impl Rig for Multi {
    async fn start(server: &Server) -> Self {
        Self(WebTransport::start(server).await)
    }

    async fn connect(&self) -> Option<Box<dyn Link>> {
        self.0.connect(PROTOCOL_M).await
    }

    // Each request has a stream of its own.
    const HAS_ORDER: bool = false;
}
