//! Two ends of a connection on one thread, with an own clock; and endpoints in bad circumstances.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::FutureExt;
use quinn_proto as qp;
use wireloom_proto::Code;

use super::config::endpoint_config;
use super::{Application, Endpoint, NoAcceptor, QuicConfig, Rest, Transport, client_config, server_config};
use crate::identity::Identity;
use crate::threads::Home;
use crate::tls::{ClientAuth, ClientTls, ServerTrust, quic_server_config};
use crate::wake::WakeList;

/// One end.
struct End {
    endpoint: qp::Endpoint,
    connection: Option<(qp::ConnectionHandle, qp::Connection)>,
    address: SocketAddr,
    sent: usize,
    lost: Option<qp::ConnectionError>,
}

impl End {
    fn new(endpoint: qp::Endpoint, port: u16) -> Self {
        Self {
            endpoint,
            connection: None,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            sent: 0,
            lost: None,
        }
    }

    /// Sends what there is to the other end. Whether there was anything.
    fn transmit(&mut self, now: Instant, other: &mut Self) -> bool {
        let Some((handle, connection)) = &mut self.connection else {
            return false;
        };
        while let Some(event) = connection.poll() {
            if let qp::Event::ConnectionLost { reason } = event {
                self.lost = Some(reason);
            }
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        let mut datagram = Vec::new();
        let Some(transmit) = connection.poll_transmit(now, 1, &mut datagram) else {
            return false;
        };
        self.sent += 1;
        other.receive(now, self.address, BytesMut::from(&datagram[..transmit.size]));
        true
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, datagram: BytesMut) {
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, None, None, datagram, &mut answer) {
            Some(qp::DatagramEvent::ConnectionEvent(_, event)) => {
                let (_, connection) = self.connection.as_mut().expect("a connection");
                connection.handle_event(event);
            }
            Some(qp::DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut answer, None);
                self.connection = Some(accepted.expect("acceptable"));
            }
            Some(qp::DatagramEvent::Response(_)) | None => {}
        }
    }

    fn timeout(&mut self) -> Option<Instant> {
        self.connection.as_mut()?.1.poll_timeout()
    }
}

/// What became of a connection on which nobody said anything for `quiet`: packets that the client sent, and when and why the
/// connection ended at the client.
fn be_quiet(
    client: &QuicConfig,
    server: &QuicConfig,
    quiet: Duration,
) -> (usize, Option<(Duration, qp::ConnectionError)>) {
    let identity = Identity::self_signed(["localhost"]).expect("a valid name");
    let tls = quic_server_config(&identity, &ClientAuth::None, false).expect("a configuration");
    let tls = server_config(server, Arc::new(tls)).expect("a suite for QUIC");
    let endpoint = qp::Endpoint::new(Arc::new(endpoint_config(server)), Some(tls.config), true, None);
    let mut server = End::new(endpoint, 2);
    let mut client_end = End::new(
        qp::Endpoint::new(Arc::new(endpoint_config(client)), None, true, None),
        1,
    );
    let start = Instant::now();
    let tls = ClientTls::new(&ServerTrust::Insecure, None)
        .expect("a configuration")
        .observed()
        .0;
    let config = client_config(client, Arc::new(tls)).expect("a suite for QUIC");
    let connected = client_end.endpoint.connect(start, config, server.address, "localhost");
    client_end.connection = Some(connected.expect("can be dialled"));
    let mut now = start;
    let mut client = client_end;
    while now < start + quiet {
        while client.transmit(now, &mut server) | server.transmit(now, &mut client) {}
        if let Some(lost) = client.lost.take() {
            return (client.sent, Some((now - start, lost)));
        }
        let next = client.timeout().into_iter().chain(server.timeout()).min();
        // Nothing is left to happen.
        let Some(next) = next else { break };
        now = next.max(now);
        for end in [&mut client, &mut server] {
            if end.timeout().is_some_and(|at| at <= now) {
                let (_, connection) = end.connection.as_mut().expect("a connection");
                connection.handle_timeout(now);
            }
        }
    }
    (client.sent, None)
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_quiet_connection_ends_when_it_is_not_kept_alive() {
    let config = QuicConfig::default();
    let (_, end) = be_quiet(&config, &config, HOUR);
    let (at, reason) = end.expect("an end");
    assert_eq!(reason, qp::ConnectionError::TimedOut);
    assert!((30..40).contains(&at.as_secs()), "{at:?}");
    // The smaller of both ends' timeouts counts.
    let short = QuicConfig {
        idle_timeout: Duration::from_secs(5),
        ..QuicConfig::default()
    };
    let (at, _) = be_quiet(&config, &short, HOUR).1.expect("an end");
    assert!((5..15).contains(&at.as_secs()), "{at:?}");
}

#[test]
fn either_end_can_keep_a_quiet_connection_alive() {
    let (quiet, alive) = (
        QuicConfig::default(),
        QuicConfig {
            keep_alive: Some(Duration::from_secs(15)),
            ..QuicConfig::default()
        },
    );
    for (client, server) in [(&alive, &quiet), (&quiet, &alive), (&alive, &alive)] {
        let (sent, end) = be_quiet(client, server, HOUR);
        assert_eq!(end, None);
        // A packet or two in fifteen seconds, PING or acknowledgement, and the handshake.
        assert!((200..600).contains(&sent), "{sent}");
    }
}

/// Counts what happens to the connection that it is for.
struct Counted {
    begun: Arc<AtomicUsize>,
    wound_down: Arc<AtomicUsize>,
}

impl Application for Counted {
    fn process(&mut self, _: Instant, _: &mut Transport, _: &mut WakeList) -> bool {
        self.begun.fetch_add(1, Ordering::SeqCst);
        false
    }
    fn sent_all(&mut self, _: &mut Transport, _: &mut WakeList) -> Rest {
        Rest::Nothing
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    fn handle_timeout(&mut self, _: Instant, _: &mut Transport, _: &mut WakeList) {}
    fn wind_down(&mut self, _: Instant, _: &mut Transport, _: &mut WakeList) {
        self.wound_down.fetch_add(1, Ordering::SeqCst);
    }
    fn forgotten(&mut self) {}

    fn endpoint_lost(&mut self, _: &mut WakeList) {}
}

fn any_client() -> qp::ClientConfig {
    let tls = ClientTls::new(&ServerTrust::Insecure, None).expect("a configuration");
    client_config(&QuicConfig::default(), Arc::new(tls.observed().0)).expect("a suite for QUIC")
}

fn loopback() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").expect("a port")
}

fn dialler<A: Application>() -> Endpoint<A> {
    let sockets = vec![(loopback(), Home::current(), NoAcceptor)];
    Endpoint::spawn(sockets, &QuicConfig::default(), None).expect("an endpoint")
}

#[tokio::test]
async fn a_dial_that_is_given_up_leaves_no_connection() {
    let endpoint = dialler();
    // Nobody answers.
    let nobody = loopback();
    let remote = nobody.local_addr().expect("bound");
    let dial = || {
        let (begun, wound_down) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let app = Counted {
            begun: begun.clone(),
            wound_down: wound_down.clone(),
        };
        (
            endpoint.connect(any_client(), remote, "localhost", app),
            begun,
            wound_down,
        )
    };
    // Before the endpoint's task has heard of it.
    let (given_up, begun, _) = dial();
    assert!(given_up.now_or_never().is_none());
    let (kept, kept_begun, kept_wound_down) = dial();
    let slot = kept.await.expect("it can be dialled");
    assert!(kept_begun.load(Ordering::SeqCst) > 0);
    assert_eq!((begun.load(Ordering::SeqCst), Arc::strong_count(&begun)), (0, 1));
    // After it has made the connection, and before the caller has it.
    let (given_up, begun, wound_down) = dial();
    let mut given_up = Box::pin(given_up);
    assert!(given_up.as_mut().now_or_never().is_none());
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    drop(given_up);
    assert_eq!(wound_down.load(Ordering::SeqCst), 1);
    assert_eq!(kept_wound_down.load(Ordering::SeqCst), 0);
    drop(slot);
}

/// Closes its connection when that has just been asked for what it has to send, as another thread may.
struct ClosesLate {
    winds_down: bool,
    is_closed: bool,
}

impl Application for ClosesLate {
    fn process(&mut self, _: Instant, _: &mut Transport, _: &mut WakeList) -> bool {
        false
    }
    fn sent_all(&mut self, quic: &mut Transport, _: &mut WakeList) -> Rest {
        if self.winds_down && !std::mem::replace(&mut self.is_closed, true) {
            quic.close(Instant::now(), Code::H3_NO_ERROR, b"");
        }
        Rest::Nothing
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    fn handle_timeout(&mut self, _: Instant, _: &mut Transport, _: &mut WakeList) {}
    fn wind_down(&mut self, _: Instant, _: &mut Transport, _: &mut WakeList) {
        self.winds_down = true;
    }
    fn forgotten(&mut self) {}
    fn endpoint_lost(&mut self, _: &mut WakeList) {}
}

#[tokio::test]
async fn the_last_close_is_sent_however_late_it_comes() {
    let endpoint = dialler();
    let nobody = loopback();
    nobody.set_nonblocking(true).expect("a socket");
    let remote = nobody.local_addr().expect("bound");
    let app = ClosesLate {
        winds_down: false,
        is_closed: false,
    };
    let dialled = endpoint.connect(any_client(), remote, "localhost", app).await;
    let _slot = dialled.expect("it can be dialled");
    let mut received = [0; 2000];
    while nobody.recv(&mut received).is_err() {
        tokio::task::yield_now().await;
    }
    // The task is on this thread, and has sent all of it.
    while nobody.recv(&mut received).is_ok() {}
    endpoint.shut_down().await;
    nobody.recv(&mut received).expect("CONNECTION_CLOSE");
}

#[tokio::test]
async fn an_endpoint_that_cannot_have_all_its_sockets_has_none() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let ended = runtime.spawn(async { Home::current() }).await.expect("no panic");
    std::thread::spawn(|| drop(runtime)).join().expect("no panic");
    let first = loopback();
    let address = first.local_addr().expect("bound");
    let sockets = vec![(first, Home::current(), NoAcceptor), (loopback(), ended, NoAcceptor)];
    let spawned = Endpoint::<Counted>::spawn(sockets, &QuicConfig::default(), None);
    assert!(spawned.is_err());
    std::net::UdpSocket::bind(address).expect("the port is free again");
}
