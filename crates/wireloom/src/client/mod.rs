//! Dialling servers.

mod connection;
mod dial;
mod early;
mod error;
mod known;
mod priority;
mod request;
mod sockets;

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use tokio::time::Instant;
use wireloom_proto::webtransport::flow::FlowControl;

pub use connection::Connection;
pub use early::EarlySession;
pub use error::ConnectError;
pub use priority::RequestPriority;
pub use request::SessionBuilder;

use self::known::KnownServers;
use self::sockets::LocalSockets;
use crate::driver::{Driver, DriverConfig};
use crate::identity::{CertificateHash, Identity};
use crate::quic::{CongestionControl, Endpoint, NoAcceptor, QuicConfig};
use crate::resolve::{Resolve, SystemResolver};
use crate::session::Session;
use crate::threads::Home;
use crate::tls::{ClientTls, RootCertificates, ServerTrust};

/// Dials WebTransport servers over HTTP/3. A cheap handle; clones share sockets.
///
/// Its sockets belong to the Tokio runtime on which they are first needed: its connections end with that one. It can be used on
/// another one then.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let client = wireloom::Client::builder().build()?;
/// let session = client.connect("https://example.com:4433/live").await?;
/// session.send_datagram(b"hello")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    tls: ClientTls,
    /// The servers that are come back to with early data.
    known: Option<KnownServers>,
    resolver: Arc<dyn Resolve>,
    quic: QuicConfig,
    driver: Arc<DriverConfig>,
    connect_timeout: Duration,
    sockets: LocalSockets,
    /// IPv4 and IPv6, bound when first needed, and anew where the runtime of the last has ended.
    endpoints: [Mutex<Option<Arc<Endpoint<Driver>>>>; 2],
}

/// What comes of `future` until `deadline`, if there is one.
async fn until<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

/// Never, where the clock does not reach that far.
fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

impl Client {
    /// A client with the platform's roots unless the builder says otherwise.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Opens a session at `url` (`https://host[:port]/path`), without subprotocols or further fields.
    ///
    /// # Errors
    /// See [`ConnectError`]: each says what failed and whose fault it was.
    pub async fn connect(&self, url: &str) -> Result<Session, ConnectError> {
        self.session(url).connect().await
    }

    /// Prepares a session at `url` with subprotocols, fields or an origin.
    pub fn session(&self, url: &str) -> SessionBuilder {
        SessionBuilder::new(self.clone(), url)
    }

    /// Dials the server of `url` and waits for its SETTINGS, for several sessions ([`Connection::session`]) and requests on one
    /// connection.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn dial(&self, url: &str) -> Result<Connection, ConnectError> {
        let mut target = dial::Target::parse(url)?;
        // Sessions wait for the server anyway, at whichever address it answers.
        target.early = true;
        dial::dial(self, &target, self.deadline()).await
    }

    /// Closes the connections that nobody uses, waits until the others are closed too and the closing words are out; dial no
    /// more after it.
    ///
    /// Without it, a program that ends right after `Session::close` may end before the peer hears of it.
    pub async fn shut_down(&self) {
        // Both at once: neither keeps what nobody uses as long as the other is in use.
        let bound = [0, 1].map(|family| self.bound(family).clone());
        let ends = bound.iter().flatten().map(|endpoint| endpoint.shut_down());
        futures_util::future::join_all(ends).await;
    }

    /// Moves the client's connections to new sockets, as when the network changed (RFC 9000 section 9). Sessions go on, except
    /// at servers that forbid migration: those hear nothing more, and the connection times out. Any thread may ask for it. The
    /// new sockets come from where the old ones came from ([`ClientBuilder::bind`], [`ClientBuilder::sockets`]).
    ///
    /// # Errors
    /// A socket cannot be bound, and no connection has moved, or the runtime has ended.
    pub fn rebind(&self) -> std::io::Result<()> {
        let bound = [0, 1].map(|family| (family, self.bound(family).clone()));
        let bound = bound
            .into_iter()
            .filter_map(|(family, endpoint)| Some((family, endpoint?)));
        // Of a runtime that has ended there is nothing to move.
        let (gone, alive): (Vec<_>, Vec<_>) = bound.partition(|(_, endpoint)| endpoint.is_gone());
        if alive.is_empty() && !gone.is_empty() {
            return Err(std::io::Error::other("the runtime has ended"));
        }
        let moves = alive
            .iter()
            .map(|(family, endpoint)| endpoint.rebind(self.0.sockets.bind(*family)?));
        let moves = moves.collect::<std::io::Result<Vec<_>>>()?;
        for go in moves {
            go();
        }
        Ok(())
    }

    /// The addresses of the client's sockets now, that of IPv4 first. Each is bound when the first server of its family is
    /// dialled.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let bound = [0, 1].map(|family| self.bound(family).clone());
        let bound = bound.iter().flatten().filter(|endpoint| !endpoint.is_gone());
        bound.map(|endpoint| endpoint.local_addr()).collect()
    }

    /// When a connection attempt that begins now is given up.
    fn deadline(&self) -> Option<Instant> {
        deadline(self.0.connect_timeout)
    }

    fn bound(&self, family: usize) -> MutexGuard<'_, Option<Arc<Endpoint<Driver>>>> {
        self.0.endpoints[family].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoint(&self, family: usize) -> std::io::Result<Arc<Endpoint<Driver>>> {
        let mut bound = self.bound(family);
        if let Some(endpoint) = bound.as_ref().filter(|endpoint| !endpoint.is_gone()) {
            return Ok(endpoint.clone());
        }
        let socket = self.0.sockets.bind(family)?;
        let endpoint = Endpoint::spawn(vec![(socket, Home::current(), NoAcceptor)], &self.0.quic, None)?;
        Ok(bound.insert(Arc::new(endpoint)).clone())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Settings of a [`Client`].
#[must_use]
pub struct ClientBuilder {
    trust: ServerTrust,
    identity: Option<Identity>,
    hashes: Vec<CertificateHash>,
    resolver: Arc<dyn Resolve>,
    sockets: LocalSockets,
    quic: QuicConfig,
    h3: wireloom_proto::Config,
    connect_timeout: Duration,
    datagram_queue: usize,
    early_data: bool,
    key_log: bool,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            trust: ServerTrust::Platform,
            identity: None,
            hashes: Vec::new(),
            resolver: Arc::new(SystemResolver),
            sockets: LocalSockets::default(),
            quic: QuicConfig {
                keep_alive: Some(Duration::from_secs(15)),
                ..QuicConfig::default()
            },
            h3: wireloom_proto::Config::default(),
            connect_timeout: Duration::from_secs(10),
            datagram_queue: 4 << 20,
            early_data: false,
            key_log: false,
        }
    }
}

impl ClientBuilder {
    /// Trusts a server whose certificate has this SHA-256, as browsers do (`serverCertificateHashes`): it must be ECDSA and
    /// valid for at most 14 days; its names do not matter. Call it again for each further hash. Replaces roots.
    pub fn server_certificate_hash(mut self, hash: CertificateHash) -> Self {
        self.hashes.push(hash);
        self
    }

    /// Trusts only servers whose certificate chain ends at one of these.
    pub fn root_certificates(mut self, roots: RootCertificates) -> Self {
        self.trust = ServerTrust::Roots(roots);
        self
    }

    /// Shows this certificate to servers that ask for one (mutual TLS,
    /// [`ServerBuilder::client_auth`](crate::ServerBuilder::client_auth)). Default none. What the identity presents is looked
    /// at for each connection, so that files that are replaced count from the next on; of [`Identity::sni`] it is the default.
    /// Servers want certificates that were issued for clients, which [`Identity::self_signed`] ones are not.
    ///
    /// ```no_run
    /// # fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let device = wireloom::Identity::pem_files("device.pem", "device.key")?;
    /// let client = wireloom::Client::builder().identity(device).build()?;
    /// # Ok(()) }
    /// ```
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Asks this instead of the system for addresses.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Dials servers of this address family from `address`; call it once for each family. Default: any address, and a port that
    /// is free. A port that is named here is taken for as long as the client lives, so that [`Client::rebind`] fails.
    ///
    /// ```no_run
    /// # fn f() -> Result<(), wireloom::ConnectError> {
    /// let client = wireloom::Client::builder()
    ///     .bind(([192, 0, 2, 7], 0).into()) // the address of one of two networks
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.sockets.set_address(address);
        self
    }

    /// Has `make` bind the client's sockets, as to set options that bind them to a network interface or mark them for a VPN. It
    /// is given the address to bind ([`bind`](Self::bind)), and may bind another one of that family. It is called when the
    /// first server of a family is dialled, at [`Client::rebind`], and with port 0 for a short-lived socket that asks whether a
    /// silent server's port is closed.
    ///
    /// ```no_run
    /// # fn f() -> Result<(), wireloom::ConnectError> {
    /// use std::net::UdpSocket;
    ///
    /// let client = wireloom::Client::builder()
    ///     .sockets(|address| {
    ///         let socket = UdpSocket::bind(address)?;
    ///         socket.set_ttl(64)?;
    ///         Ok(socket)
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn sockets(mut self, make: impl Fn(SocketAddr) -> std::io::Result<UdpSocket> + Send + Sync + 'static) -> Self {
        self.sockets.set_make(make);
        self
    }

    /// How long a connection attempt may take, from name resolution to the server's answer. Default 10 s; with
    /// [`Duration::MAX`] only the idle timeout ends one.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the connection is kept without a word from the server. Default 30 s; the smaller of both ends' counts.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.quic.idle_timeout = timeout;
        self
    }

    /// How often a quiet connection is kept alive (a PING that the server answers), `None` never. Default 15 s. To be below half
    /// of both ends' idle timeouts, lest one lost packet ends the connection.
    pub fn keep_alive(mut self, interval: Option<Duration>) -> Self {
        self.quic.keep_alive = interval;
        self
    }

    /// How fast is sent when the network is the limit. Default [`CongestionControl::Cubic`].
    pub fn congestion_control(mut self, control: CongestionControl) -> Self {
        self.quic.congestion = control;
        self
    }

    /// Writes a trace of each connection into `dir`, which must exist, for tools such as qvis: JSON-SEQ, named after the
    /// connection's first id, `<id>_client.sqlog`, complete when the connection is over. Traces hold packet numbers, sizes and
    /// recovery metrics, no payload and no keys; they cost a few hundred bytes a packet. Where a file cannot be created the
    /// connection goes on without. Default none.
    #[cfg(feature = "qlog")]
    pub fn qlog_dir(mut self, dir: impl Into<std::path::PathBuf>) -> Self {
        self.quic.qlog_dir = Some(dir.into());
        self
    }

    /// QUIC flow control: bytes that the server may send ahead of the application's reading, on one stream (default 2 MiB)
    /// and on the whole connection (default 16 MiB). Each connection may cost that much memory.
    pub fn receive_windows(mut self, stream: u32, connection: u32) -> Self {
        self.quic.stream_window = stream;
        self.quic.connection_window = connection;
        self
    }

    /// What the server may use in each session of this client. Default 1024 streams of each direction and 8 MiB; browsers'
    /// drafts have no such limits. Sessions that share a connection share all of its window but an eighth, or 2 MiB where that
    /// is less.
    pub fn flow_control(mut self, limits: FlowControl) -> Self {
        self.h3.flow_control = limits;
        self
    }

    /// Bytes of received datagrams that a session keeps until they are taken, 32 more for each than its payload. Default
    /// 4 MiB; the oldest are dropped first.
    pub fn datagram_queue(mut self, bytes: usize) -> Self {
        self.datagram_queue = bytes;
        self
    }

    /// The WebTransport drafts that are offered. Default all; the newest in common is spoken.
    pub fn dialects(mut self, dialects: wireloom_proto::webtransport::negotiate::Dialects) -> Self {
        self.h3.dialects = dialects;
        self
    }

    /// Whether connections resume earlier ones, and send requests with their first packet where the server lets them (0-RTT).
    /// Default false: whoever records such a packet can send it again, and servers have to see to it.
    ///
    /// Only requests with a safe method (GET, HEAD, OPTIONS, TRACE) and without a body leave early; where the server does not take
    /// them, or answers 425, they are sent again. Sessions always wait for the end of the handshake. [`Client::dial`] then returns
    /// before the server has answered, if it answered at its first address the last time. Where nobody does any more, the requests fail,
    /// and the next [`Client::dial`] tries every address. The last 64 addresses of servers are remembered,
    /// each until its certificate is over.
    pub fn early_data(mut self, send: bool) -> Self {
        self.early_data = send;
        self
    }

    /// Whether the secrets of each connection are written to the file that the environment variable `SSLKEYLOGFILE` names, so
    /// that Wireshark and the like can read what was recorded. Whoever has the file can, too. Default false.
    pub fn key_log(mut self, write: bool) -> Self {
        self.key_log = write;
        self
    }

    /// Settings that weaken security.
    pub fn dangerous(self) -> DangerousClientBuilder {
        DangerousClientBuilder(self)
    }

    /// The client. Sockets are bound when they are first needed.
    ///
    /// # Errors
    /// TLS cannot be set up, as where the platform has no roots.
    pub fn build(mut self) -> Result<Client, ConnectError> {
        self.h3.shared_data = self.quic.window_of_sessions();
        let trust = if self.hashes.is_empty() {
            self.trust
        } else {
            ServerTrust::Hashes(self.hashes)
        };
        let tls = ClientTls::new(&trust, self.identity.as_ref())?.with_key_log(self.key_log);
        let driver = DriverConfig {
            h3: Arc::new(self.h3),
            handshake_timeout: self.connect_timeout,
            unused_timeout: Some(Duration::from_secs(1)),
            max_streams: 1024,
            initial_streams: self.quic.streams,
            datagram_queue: self.datagram_queue,
            send_window: self.quic.send_window,
        };
        Ok(Client(Arc::new(Inner {
            tls,
            known: self.early_data.then(KnownServers::default),
            resolver: self.resolver,
            quic: self.quic,
            driver: Arc::new(driver),
            connect_timeout: self.connect_timeout,
            sockets: self.sockets,
            endpoints: Default::default(),
        })))
    }
}

/// Settings that weaken security; see each.
#[must_use]
pub struct DangerousClientBuilder(ClientBuilder);

impl DangerousClientBuilder {
    /// Accepts the servers whose certificate `verifier` accepts, instead of those with roots: for pinned public keys, trust on
    /// first use, or SPIFFE. It has to check the signatures of the handshake, too. A [`rustls::Error::InvalidCertificate`] of
    /// it is told as [`ConnectError::Certificate`]. [`server_certificate_hash`](ClientBuilder::server_certificate_hash)
    /// replaces it.
    pub fn verifier(mut self, verifier: Arc<dyn ServerCertVerifier>) -> ClientBuilder {
        self.0.trust = ServerTrust::Verifier(verifier);
        self.0
    }

    /// Accepts any certificate: whoever answers can read and change everything. For tests and for looking at a server.
    pub fn accept_any_certificate(mut self) -> ClientBuilder {
        self.0.trust = ServerTrust::Insecure;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test]
    async fn all_sockets_move_or_none() {
        let made = Arc::new(Mutex::new(Vec::new()));
        let making = made.clone();
        let client = Client::builder().dangerous().accept_any_certificate();
        let client = client.sockets(move |address| {
            let mut made = making.lock().expect("no panic");
            if made.len() == 3 {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            let socket = UdpSocket::bind(address)?;
            made.push(socket.local_addr()?);
            Ok(socket)
        });
        let client = client.build().expect("a client");
        for family in 0..2 {
            client.endpoint(family).expect("a socket");
        }
        let before = client.local_addrs();
        let moving = client.rebind();
        assert_eq!(moving.expect_err("no IPv6").kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(client.local_addrs(), before);
        let made = made.lock().expect("no panic");
        assert_eq!((&made[..2], made[2].is_ipv4()), (&before[..], true));
        UdpSocket::bind(made[2]).expect("nobody uses it");
    }

    #[tokio::test]
    async fn what_nobody_uses_is_closed_whatever_the_other_family_does() {
        let identity = Identity::self_signed(["localhost"]).expect("a name");
        let hash = identity.certificate_hashes().current;
        let server = crate::Server::builder().bind("127.0.0.1:0").identity(identity);
        let server = server.listen().await.expect("a free port");
        let client = Client::builder().server_certificate_hash(hash);
        let client = client.build().expect("a client");
        let url = format!("https://{}/", server.local_addrs()[0]);
        let accept = async { server.accept().await.expect("a session").accept().await };
        let (accepted, session) = tokio::join!(accept, client.connect(&url));
        let (_accepted, _session) = (accepted.expect("accepted"), session.expect("a session"));
        let v6 = client.endpoint(1).expect("a socket");
        tokio::select! {
            () = client.shut_down() => panic!("a session is open"),
            ended = tokio::time::timeout(Duration::from_secs(60), v6.lost()) => ended.expect("in time"),
        }
    }

    #[test]
    fn sockets_of_a_runtime_that_has_ended_hold_up_no_others() {
        let client = Client::builder().dangerous().accept_any_certificate();
        let client = client.build().expect("a client");
        let runtimes = [(); 2].map(|()| tokio::runtime::Runtime::new().expect("a runtime"));
        for (family, runtime) in runtimes.iter().enumerate() {
            let _entered = runtime.enter();
            client.endpoint(family).expect("a socket");
        }
        let [v4, v6] = runtimes;
        drop(v6);
        client.rebind().expect("IPv4 moves");
        drop(v4);
        client.rebind().expect_err("nothing is left to move");
    }
}
