//! Chaos as in `chaos`, with the client that people use and a network that cuts its connections: every request that was
//! acknowledged was handled exactly once, what failed was handled at most once, what may be sent again is until it is answered;
//! each of them finds its session, which survives; nothing is left over.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use wireloom::{Identity, ServerTrust};
use wireloom_messaging::Data;
use wireloom_messaging::client::{Backoff, Client, ClientBuilder, RequestError};
use wireloom_messaging::server::{Connection, Handlers, ReplyError, Server};
use wireloom_messaging::session::{FileStore, Session};
use wireloom_messaging::transport::TransportKind;
use wireloom_messaging::transport::webtransport::Profile;

use crate::network::Network;
use crate::peer::within;

/// Of one client.
const REQUESTS: u64 = 60;
/// So many of them at a time.
const AT_ONCE: usize = 4;
/// Cuts for each client, on average.
const CUTS: u64 = 3;
/// How soon either end notices that nothing comes any more.
const SILENCE: Duration = Duration::from_secs(3);
/// Generous: it only tells a hang from a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often each number was handled.
type Handled = Arc<Mutex<HashMap<u64, u32>>>;

fn service(handled: Handled) -> Handlers {
    Handlers::new()
        .on_request(
            "login",
            async |connection: Connection, user: String| -> Result<_, ReplyError> {
                connection
                    .create_session([("user".to_owned(), user.into())].into())
                    .await?;
                Ok(())
            },
        )
        .on_request("count", move |connection: Connection, number: String| {
            let handled = handled.clone();
            async move {
                let number: u64 = number.parse()?;
                let session = connection.session().expect("restored before anything is sent");
                assert_eq!(session.info["user"], (number / REQUESTS).to_string());
                if number.is_multiple_of(3) {
                    tokio::task::yield_now().await;
                }
                *handled.lock().unwrap().entry(number).or_default() += 1;
                Ok::<_, ReplyError>(())
            }
        })
}

/// How clients reach the server, in each of the transports.
trait Reach: Send + Sync + 'static {
    async fn start(server: &Server) -> Self;

    fn address(&self) -> SocketAddr;

    /// A client through whatever is at this address.
    fn client(&self, address: SocketAddr) -> ClientBuilder;

    fn is_expected(kind: TransportKind) -> bool;
}

struct WebSocket(SocketAddr);

impl Reach for WebSocket {
    async fn start(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = server.clone();
        tokio::spawn(async move { server.listen(listener).await });
        Self(address)
    }

    fn address(&self) -> SocketAddr {
        self.0
    }

    fn client(&self, address: SocketAddr) -> ClientBuilder {
        Client::builder(format!("ws://{address}/"))
    }

    fn is_expected(kind: TransportKind) -> bool {
        kind == TransportKind::WebSocket
    }
}

/// In profile M, or in S.
struct WebTransport<const MULTI: bool> {
    address: SocketAddr,
    trust: ServerTrust,
}

impl<const MULTI: bool> Reach for WebTransport<MULTI> {
    async fn start(server: &Server) -> Self {
        let identity = Identity::self_signed(["127.0.0.1"]).unwrap();
        let trust = ServerTrust::Hashes(vec![identity.certificate_hashes().current]);
        let app = Router::new().route_service("/chat", server.service());
        let http = wireloom::Server::builder()
            .bind("127.0.0.1:0")
            .identity(identity)
            .idle_timeout(SILENCE)
            .max_connections(100_000, 100_000)
            .listen()
            .await
            .unwrap();
        let address = http.local_addrs()[0];
        tokio::spawn(async move { http.serve(app).await });
        Self { address, trust }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn client(&self, address: SocketAddr) -> ClientBuilder {
        let profile = if MULTI { Profile::Multi } else { Profile::Single };
        Client::builder(format!("https://{address}/chat"))
            .trust(self.trust.clone())
            .profile(profile)
            // What is cut during its handshake waits until datagrams pass again.
            .fallback_after(Duration::from_secs(30))
            .connect_timeout(Duration::from_secs(60))
    }

    fn is_expected(kind: TransportKind) -> bool {
        kind == if MULTI {
            TransportKind::WebTransportMulti
        } else {
            TransportKind::WebTransport
        }
    }
}

/// What became of the requests of one client, or of all.
#[derive(Default)]
struct Outcome {
    acknowledged: Vec<u64>,
    /// Marked as harmless to repeat.
    repeated: Vec<u64>,
    doubtful: Vec<u64>,
    not_sent: Vec<u64>,
}

/// A session, made over a connection that is not cut: otherwise nobody might learn its key.
async fn log_in(reach: &impl Reach, user: u64) -> Session {
    let client = reach.client(reach.address()).build();
    within(client.request("login", user.to_string()).into_future())
        .await
        .unwrap();
    let session = client.session().expect("the server made one");
    client.close().await;
    session
}

/// One client, in the network.
async fn client<R: Reach>(
    reach: Arc<R>,
    network: SocketAddr,
    user: u64,
    session: Session,
    expected: Arc<AtomicU64>,
) -> Outcome {
    let closed = Arc::new(AtomicU64::new(0));
    let client = reach
        .client(network)
        .session(session)
        .backoff(Backoff::new(Duration::from_millis(5), Duration::from_millis(100)))
        .liveness(SILENCE / 2)
        .request_timeout(PATIENCE)
        .on_session_closed({
            let closed = closed.clone();
            move || {
                let _ = closed.fetch_add(1, Ordering::Relaxed);
            }
        })
        .on_connected(move |kind| {
            let _ = expected.fetch_add(R::is_expected(kind).into(), Ordering::Relaxed);
        })
        .build();
    let mut outcome = Outcome::default();
    let mut numbers = user * REQUESTS..(user + 1) * REQUESTS;
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(number) = numbers.next()
        {
            let client = client.clone();
            running.spawn(async move {
                let request = client.request("count", number.to_string());
                let harmless = number.is_multiple_of(2);
                let answer = if harmless {
                    request.idempotent().await
                } else {
                    request.await
                };
                (number, harmless, answer)
            });
        }
        let Some(done) = running.join_next().await else { break };
        match done.unwrap() {
            (number, true, answer) => {
                assert_eq!(answer.expect("sent until it is answered"), Data::EMPTY);
                outcome.repeated.push(number);
            }
            (number, false, Ok(_)) => outcome.acknowledged.push(number),
            (number, false, Err(error @ RequestError::Disconnected(_))) => {
                assert!(error.is_retryable() && error.may_have_been_handled());
                outcome.doubtful.push(number);
            }
            (number, false, Err(error)) => {
                assert!(!error.may_have_been_handled(), "{number}: {error}");
                outcome.not_sent.push(number);
            }
        }
    }
    assert_eq!(closed.load(Ordering::Relaxed), 0, "the session of {user} survives");
    client.close().await;
    outcome
}

async fn chaos<R: Reach>(clients: u64) {
    let folder = tempfile::tempdir().unwrap();
    let handled = Handled::default();
    let server = Server::builder()
        .concurrency(4)
        .max_connections(100_000, 100_000)
        .cancel_grace(Duration::from_millis(100))
        .read_timeout(SILENCE)
        .sessions(FileStore::open(folder.path()).unwrap(), 0)
        .build(service(handled.clone()));
    let reach = Arc::new(R::start(&server).await);
    let network = Network::before(reach.address(), clients * CUTS).await;
    let expected = Arc::new(AtomicU64::new(0));
    let mut sessions = Vec::new();
    for user in 0..clients {
        sessions.push(log_in(&*reach, user).await);
    }
    let mut running = JoinSet::new();
    for (user, session) in (0..).zip(&sessions) {
        let client = client(reach.clone(), network.address, user, session.clone(), expected.clone());
        running.spawn(client);
    }
    let mut all = Outcome::default();
    while let Some(outcome) = running.join_next().await {
        let outcome = outcome.unwrap();
        all.acknowledged.extend(outcome.acknowledged);
        all.repeated.extend(outcome.repeated);
        all.doubtful.extend(outcome.doubtful);
        all.not_sent.extend(outcome.not_sent);
    }
    // Those that were cut silently, too.
    within(async {
        while server.connection_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for session in sessions {
        let client = reach.client(reach.address()).session(session).connect().await.unwrap();
        assert!(client.session().is_some(), "it was restored");
        client.close_session().await.unwrap();
        client.close().await;
    }
    within(server.shut_down()).await;

    let handled = handled.lock().unwrap();
    let times = |number: &u64| handled.get(number).copied().unwrap_or_default();
    println!(
        "{} cuts, {} connections over the first transport; {} acknowledged, {} doubtful, {} not sent, {} repeatable; {} handled",
        network.cuts(),
        expected.load(Ordering::Relaxed),
        all.acknowledged.len(),
        all.doubtful.len(),
        all.not_sent.len(),
        all.repeated.len(),
        handled.values().sum::<u32>()
    );
    assert!(network.cuts() >= clients, "{} cuts", network.cuts());
    assert!(expected.load(Ordering::Relaxed) >= clients);
    assert_eq!(all.repeated.len() as u64, clients * REQUESTS / 2);
    assert!(all.acknowledged.len() as u64 > clients * REQUESTS / 4);
    assert!(all.acknowledged.iter().all(|number| times(number) == 1));
    assert!(all.repeated.iter().all(|number| times(number) >= 1));
    assert!(all.doubtful.iter().all(|number| times(number) <= 1));
    assert!(all.not_sent.iter().all(|number| times(number) == 0));
    assert_eq!((server.connection_count(), server.active_sessions()), (0, 0));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "sessions were closed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket() {
    chaos::<WebSocket>(1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webtransport() {
    chaos::<WebTransport<false>>(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webtransport_multi() {
    chaos::<WebTransport<true>>(100).await;
}
