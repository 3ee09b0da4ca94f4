//! The server under attack, the bystander whose session must not suffer, and the counts that must come back.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get as route, post};
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard};
use wireloom::{ReadError, ServerBuilder, ServerMonitor, Session, WebTransportUpgrade};

use crate::common::raw::Raw;
use crate::common::{Running, run, within};
use crate::{ALLOCATOR, websocket};

/// Bytes that may be allocated afterwards beyond what was before: tables that grew and keep their size, the path's own
/// measurements. One connection that is forgotten costs more.
const SLACK: usize = 64 << 10;

/// One test at a time: they count the allocations of the whole process.
static ONE: Mutex<()> = Mutex::const_new(());

/// Echoes streams and datagrams.
async fn echo(session: Session) {
    loop {
        tokio::select! {
            Ok((mut send, mut recv)) = session.accept_bi() => {
                tokio::spawn(async move {
                    while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX).await {
                        if send.write_chunk(chunk).await.is_err() {
                            return;
                        }
                    }
                    let _ = send.finish();
                });
            }
            Ok(datagram) = session.recv_datagram() => {
                let _ = session.send_datagram(&datagram);
            }
            _ = session.closed() => return,
        }
    }
}

/// Says in a datagram how each unidirectional stream ended.
async fn tell_ends(session: Session) {
    while let Ok(mut stream) = session.accept_uni().await {
        let end = match stream.read_to_end(1000).await {
            Err(wireloom::ReadToEndError::Read(ReadError::Reset(code))) => format!("reset {code:?}"),
            other => format!("{other:?}"),
        };
        let _ = session.send_datagram(end.as_bytes());
    }
}

/// Says in a datagram how many datagrams were there when the first had come.
async fn count_datagrams(session: Session) {
    let mut count = 0_u32;
    while let Ok(datagram) = session.recv_datagram().await {
        count += 1;
        if &*datagram == b"how many" {
            let _ = session.send_datagram(count.to_string().as_bytes());
        }
    }
}

/// 64 MiB, made as they are sent.
async fn large() -> axum::body::Body {
    let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::convert::Infallible>(vec![b'x'; 64 << 10]));
    axum::body::Body::from_stream(futures_util::StreamExt::take(chunks, 1024))
}

/// Takes a body, and polls it for more not only when it is woken but whenever a client asks for "/poll". Answers with the
/// status that the trailers name.
async fn polled(mut body: axum::body::Body) -> Response {
    let mut status = StatusCode::BAD_REQUEST;
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let named = trailers.get("x").and_then(|value| value.to_str().ok()?.parse().ok());
                    status = named.unwrap_or(status);
                }
                Some(Err(_)) => return StatusCode::BAD_REQUEST.into_response(),
                None => return status.into_response(),
            },
            () = POLL.notified() => {}
        }
    }
}

fn app() -> Router {
    Router::new()
        .route("/", route(|| async { "hello" }))
        .route("/body", post(|body: axum::body::Bytes| async move { body }))
        .route("/large", route(large))
        .route("/slow", route(|| async { std::future::pending::<()>().await }))
        .route(
            "/wt",
            any(|upgrade: WebTransportUpgrade| async move { upgrade.on_upgrade(echo) }),
        )
        .route(
            "/ends",
            any(|upgrade: WebTransportUpgrade| async move { upgrade.on_upgrade(tell_ends) }),
        )
        .route(
            "/count",
            any(|upgrade: WebTransportUpgrade| async move { upgrade.on_upgrade(count_datagrams) }),
        )
        // Accepts nothing that the client opens.
        .route(
            "/idle",
            any(|upgrade: WebTransportUpgrade| async move {
                upgrade.on_upgrade(|session| async move {
                    session.closed().await;
                })
            }),
        )
        // Answers when a client has asked for "/go".
        .route(
            "/later",
            any(|upgrade: WebTransportUpgrade| async move {
                GO.notified().await;
                upgrade.protocols(["b", "a"]).on_upgrade(echo)
            }),
        )
        .route("/go", route(|| async { GO.notify_one() }))
        .route("/polled", post(polled))
        .route("/poll", route(|| async { POLL.notify_one() }))
        .route(
            "/ws",
            any(|upgrade: WebSocketUpgrade| async move { websocket::limits(upgrade).on_upgrade(websocket::echo) }),
        )
}

static GO: tokio::sync::Notify = tokio::sync::Notify::const_new();
static POLL: tokio::sync::Notify = tokio::sync::Notify::const_new();

/// What must come back to where it was.
#[derive(Debug, Clone, Copy)]
struct Counts {
    connections: usize,
    sessions: usize,
    /// Of requests, streams and sessions, on all connections.
    leftovers: usize,
    tasks: usize,
    bytes: usize,
}

impl Counts {
    fn now(monitor: &ServerMonitor) -> Self {
        let stats = monitor.stats();
        Self {
            connections: stats.connections,
            sessions: stats.sessions,
            leftovers: monitor.leftovers(),
            tasks: Handle::current().metrics().num_alive_tasks(),
            bytes: ALLOCATOR.allocated(),
        }
    }

    fn is_back(&self, before: &Self) -> bool {
        self.connections <= before.connections
            && self.sessions <= before.sessions
            && self.leftovers <= before.leftovers
            && self.tasks <= before.tasks
            && self.bytes <= before.bytes + SLACK
    }
}

pub struct Hostile {
    /// UDP and TCP.
    pub server: SocketAddr,
    pub running: Running,
    bystander: Session,
    before: Counts,
    _one: MutexGuard<'static, ()>,
}

/// Runs `test` against a server.
pub async fn hostile(test: impl AsyncFnOnce(&Hostile)) {
    hostile_with(|builder| builder, test).await;
}

/// Runs `test` against a server with other settings.
pub async fn hostile_with(configure: impl FnOnce(ServerBuilder) -> ServerBuilder, test: impl AsyncFnOnce(&Hostile)) {
    let f = Hostile::new(configure).await;
    test(&f).await;
    f.assert_undisturbed().await;
    f.assert_nothing_left().await;
}

impl Hostile {
    async fn new(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let one = ONE.lock().await;
        let running = run(app(), configure).await;
        let bystander = running.connect("/wt").await.unwrap();
        let server = running.url.strip_prefix("https://").unwrap().parse().unwrap();
        let mut f = Self {
            server,
            before: Counts::now(&running.monitor),
            running,
            bystander,
            _one: one,
        };
        f.assert_undisturbed().await;
        f.before = Counts::now(&f.running.monitor);
        // Tables that every connection needs grow once.
        f.before.bytes = usize::MAX - SLACK;
        {
            let raw = f.raw().await;
            within(raw.session("/wt")).await;
            within(raw.assert_alive()).await;
        }
        f.assert_nothing_left().await;
        f.before.bytes = ALLOCATOR.allocated();
        f
    }

    /// The other session still works.
    pub async fn assert_undisturbed(&self) {
        let (mut send, mut recv) = within(self.bystander.open_bi()).await.unwrap();
        send.write_all(b"still here").await.unwrap();
        send.finish().unwrap();
        assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"still here");
    }

    /// All that the hostile peer made the server keep is given back: connections, sessions, streams, tasks and memory.
    async fn assert_nothing_left(&self) {
        let back = async {
            while !Counts::now(&self.running.monitor).is_back(&self.before) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(crate::common::DEADLINE, back).await.is_err() {
            panic!("before {:?}, now {:?}", self.before, Counts::now(&self.running.monitor));
        }
    }

    /// Bytes that are allocated now beyond what was before.
    pub fn memory(&self) -> usize {
        ALLOCATOR.allocated().saturating_sub(self.before.bytes)
    }

    /// A peer with the handshake and SETTINGS behind it.
    pub async fn raw(&self) -> Raw {
        within(Raw::connect(self.server)).await
    }

    /// A peer with the handshake behind it.
    pub async fn silent(&self) -> Raw {
        within(Raw::silent(self.server)).await
    }

    /// A peer that announces these settings.
    pub async fn raw_with(&self, settings: &[(u64, u64)]) -> Raw {
        let mut raw = self.silent().await;
        raw.announce(settings).await;
        raw
    }
}
