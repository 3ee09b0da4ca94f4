//! Settings of a server.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use tower_service::Service;
use wireloom_proto::webtransport::flow::FlowControl;
use wireloom_proto::webtransport::negotiate::Dialects;

use super::admission::{Connections, ServerAcceptor};
use super::bind::{Sockets, bind};
use super::origin::OriginPolicy;
use super::serve::Serve;
use super::{Server, TcpSide};
use crate::admit::{Admit, Filter};
use crate::body::Body;
use crate::driver::{DriverConfig, IncomingQueue};
use crate::identity::Identity;
use crate::limits::ConnectionLimits;
use crate::quic::{CongestionControl, Endpoint, QuicConfig, server_config};
use crate::service::BoxError;
use crate::threads::{Home, Threads};
use crate::tls::ClientAuth;
use crate::{tcp, tls};

/// HTTP/3's own unidirectional streams and one more: "the transport parameters sent by both clients and servers MUST
/// allow the peer to create at least three unidirectional streams" (RFC 9114 section 6.2). Clients allow a hundred.
const MIN_STREAMS: u32 = 4;

/// Unless the builder is told otherwise.
const MAX_SHARDS: usize = 16;

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// `bind` was not called, or its argument is no address.
    #[error("no address to bind: {0}")]
    Address(String),
    /// No identity was given.
    #[error("no identity: call ServerBuilder::identity")]
    NoIdentity,
    /// The address cannot be bound.
    #[error("cannot bind {address}: {source}")]
    Bind {
        /// UDP and TCP of this address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// TLS cannot be set up with the identity.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] rustls::Error),
    /// The socket cannot be used, or the service panicked where it was cloned for a request or connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// QUIC ended before the server did: its task panicked, or the runtime that it ran on is gone.
    #[error("a UDP socket is no longer served")]
    EndpointLost,
}

/// Settings of a [`Server`]. An address and an identity are needed; everything else has a default.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, routing::get};
/// use wireloom::{Identity, Server};
///
/// let app = Router::new().route("/", get(|| async { "hello over HTTP/1.1, 2 and 3" }));
/// Server::builder()
///     .bind("[::]:4433")
///     .identity(Identity::self_signed(["localhost", "127.0.0.1", "::1"])?)
///     .serve(app)
///     .await?;
/// # Ok(()) }
/// ```
#[must_use]
pub struct ServerBuilder {
    addresses: Vec<Result<Vec<SocketAddr>, String>>,
    sockets: Vec<Sockets>,
    shards: Option<usize>,
    threads: Option<Threads>,
    identity: Option<Identity>,
    clients: ClientAuth,
    origins: OriginPolicy,
    quic: QuicConfig,
    driver: DriverConfig,
    filter: Option<Filter>,
    limits: ConnectionLimits,
    retry_above: usize,
    alt_svc: bool,
    early_data: bool,
    key_log: bool,
    shutdown_deadline: Duration,
    tcp: tcp::Options,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        let mut h3 = wireloom_proto::Config::default();
        h3.websocket = true;
        Self {
            addresses: Vec::new(),
            sockets: Vec::new(),
            shards: None,
            threads: None,
            identity: None,
            clients: ClientAuth::None,
            origins: OriginPolicy::default(),
            quic: QuicConfig::default(),
            driver: DriverConfig {
                h3: Arc::new(h3),
                handshake_timeout: Duration::from_secs(10),
                unused_timeout: Some(Duration::from_secs(30)),
                max_streams: 1024,
                initial_streams: 100,
                datagram_queue: 4 << 20,
                send_window: QuicConfig::default().send_window,
            },
            filter: None,
            limits: ConnectionLimits::default(),
            retry_above: 512,
            alt_svc: true,
            early_data: false,
            key_log: false,
            shutdown_deadline: Duration::from_secs(10),
            tcp: tcp::Options::default(),
        }
    }
}

impl ServerBuilder {
    /// Binds UDP and TCP of `address`; call it again for each further one. Port 0 finds a free one, the same for every
    /// address that asks for it. `[::]` takes IPv4 too.
    pub fn bind(mut self, address: impl ToSocketAddrs) -> Self {
        self.addresses.push(
            address
                .to_socket_addrs()
                .map(Iterator::collect)
                .map_err(|e| e.to_string()),
        );
        self
    }

    /// Serves sockets that are bound already, such as those that a supervisor passes to each of its workers; call it again for
    /// further ones. Either may be missing: without UDP there is no HTTP/3, without TCP nothing else. The TCP socket has to
    /// listen.
    ///
    /// Where several processes or servers share one UDP port (`SO_REUSEPORT`), each of them says which of how many it is with
    /// [`connection_id_route`](Self::connection_id_route).
    pub fn sockets(mut self, udp: Option<UdpSocket>, tcp: Option<TcpListener>) -> Self {
        self.sockets.push(Sockets {
            udp: udp.into_iter().collect(),
            tcp,
        });
        self
    }

    /// Makes every connection id of this server begin with a byte that leaves the remainder `index` when it is divided by
    /// `servers`: whoever distributes the packets of one UDP port among so many servers by that byte, at offset 1 of short
    /// headers and 6 of long ones, keeps each connection with its server when the client's address changes. What a client
    /// chooses for its first packets is distributed the same way, and stays where it came. Default: ids are random.
    pub fn connection_id_route(mut self, index: u8, servers: u8) -> Self {
        self.quic.route = (servers > 1).then_some((index, servers));
        self
    }

    /// How many UDP sockets share each address that is bound here, each with a task that drives the connections of its clients, so
    /// that several cores do. The kernel distributes clients by their address (`SO_REUSEPORT`); a client whose address changes
    /// stays with its connection's task. Default: as many as there are [`threads`](Self::threads), or worker threads of the
    /// tokio runtime, 16 at most. Linux only: elsewhere there is always one.
    pub fn shards(mut self, count: usize) -> Self {
        self.shards = Some(count);
        self
    }

    /// Drives connections on threads of their own instead of the runtime that the server is started on: each UDP socket, with
    /// everything that its packets wake, has one of them, and TCP connections have them by turns. The requests of a connection are
    /// answered on its thread. Default: none. Where there is one UDP socket only (see [`shards`](Self::shards)) QUIC has one
    /// thread. With [`Server::accept`] sessions are wherever they are taken, their connections on these threads.
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The certificate and key, for TCP and UDP alike.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Whether clients prove who they are with certificates, over TCP and UDP alike; requests tell in [`TlsInfo`](crate::TlsInfo).
    /// Default: they need not. Browsers have certificates for HTTP, but none for WebTransport.
    pub fn client_auth(mut self, clients: ClientAuth) -> Self {
        self.clients = clients;
        self
    }

    /// Lets pages of `origin` (`https://host[:port]`) open sessions and WebSockets; `*` lets all. Without it only pages of the
    /// same origin may; others get 403. Programs other than browsers send no origin and are not concerned.
    pub fn allow_origin(mut self, origin: impl AsRef<str>) -> Self {
        self.origins.allow(origin.as_ref());
        self
    }

    /// Asks `check` about origins that are neither the same nor listed.
    pub fn check_origin(mut self, check: impl Fn(&str, &Request<()>) -> bool + Send + Sync + 'static) -> Self {
        self.origins.check(Arc::new(check));
        self
    }

    /// The WebTransport drafts that are announced. Default all; the newest in common is spoken.
    pub fn dialects(mut self, dialects: Dialects) -> Self {
        Arc::make_mut(&mut self.driver.h3).dialects = dialects;
        self
    }

    /// How long a handshake may take, TLS and SETTINGS included. Default 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.driver.handshake_timeout = timeout;
        self
    }

    /// How long a peer may take to complete the header of a stream, or of a request over HTTP/3. Default 10 s. Over TCP:
    /// [`tcp::Options::header_timeout`], 30 s.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.driver.h3).header_timeout = timeout;
        self
    }

    /// Bytes of the largest header section that is taken over HTTP/3, with 32 more for each field (RFC 9114 section 4.2.2):
    /// clients are told, and requests and sessions beyond it are answered 431. Default 65 536; held in memory while it is read.
    /// Over TCP: [`tcp::Options::max_header_size`].
    pub fn max_header_size(mut self, bytes: u32) -> Self {
        Arc::make_mut(&mut self.driver.h3).max_field_section_size = bytes.into();
        self
    }

    /// What each connection keeps for sessions that are not accepted yet ([`EarlySession`](crate::EarlySession)): so many
    /// streams, as many datagrams, and so many bytes of both, for so long. What is more is refused, streams with
    /// WT_BUFFERED_STREAM_REJECTED. Default 64, 256 KiB and 5 s.
    pub fn early_streams(mut self, count: usize, bytes: usize, wait: Duration) -> Self {
        let h3 = Arc::make_mut(&mut self.driver.h3);
        (h3.max_parked_streams, h3.max_parked_datagrams) = (count, count);
        (h3.max_parked_bytes, h3.parked_timeout) = (bytes, wait);
        self
    }

    /// How long a connection is kept without a word from the peer. Default 30 s; the smaller of both ends' counts.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.quic.idle_timeout = timeout;
        self
    }

    /// How long a QUIC connection without sessions and requests is kept, once its last answer has arrived or gets on no more.
    /// Default 30 s. Chromium never closes them itself.
    pub fn unused_timeout(mut self, timeout: Duration) -> Self {
        self.driver.unused_timeout = Some(timeout);
        self
    }

    /// How often a quiet connection is kept alive by the server (a PING that the peer answers), `None` (the default) never:
    /// browsers do it themselves. To be below half of both ends' idle timeouts, lest one lost packet ends the connection.
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
    /// connection's first id, `<id>_server.sqlog`, complete when the connection is over. Traces hold packet numbers, sizes and
    /// recovery metrics, no payload and no keys; they cost a few hundred bytes a packet. Where a file cannot be created the
    /// connection goes on without. Default none.
    #[cfg(feature = "qlog")]
    pub fn qlog_dir(mut self, dir: impl Into<std::path::PathBuf>) -> Self {
        self.quic.qlog_dir = Some(dir.into());
        self
    }

    /// Whether clients may move to another address (RFC 9000 section 9), as telephones do. Default true. Where not, a client
    /// whose address changes, though only by its NAT, is heard no more and its connection times out.
    pub fn migration(mut self, allow: bool) -> Self {
        self.quic.migration = allow;
        self
    }

    /// Whether clients that come back may send HTTP/3 requests with their first packet (0-RTT). Default false: whoever records
    /// such a packet can send it again.
    ///
    /// With it, each ticket is good for one connection, so that this server takes no early data twice; several servers behind
    /// one address know nothing of each other's. Only safe methods (GET, HEAD, OPTIONS, TRACE) reach the application early, marked
    /// with [`EarlyData`](crate::EarlyData); others are answered 425, and sessions wait for the end of the handshake. The last
    /// 4096 clients can come back, at about a kilobyte of memory each.
    pub fn early_data(mut self, accept: bool) -> Self {
        self.early_data = accept;
        self
    }

    /// Connections, of UDP and TCP together, in all (default 100 000) and of one address, which is a /64 of IPv6
    /// (default 1 000). The surplus is refused.
    pub fn max_connections(self, total: usize, per_address: usize) -> Self {
        self.connection_limits(ConnectionLimits::new(total, per_address))
    }

    /// The same with limits whose count other servers share, or from which some addresses are
    /// [exempt](ConnectionLimits::exempt).
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Asks `decide` about the address of each client that begins a handshake, over QUIC and TCP, before anything is kept for
    /// it: for deny lists, maintenance, or addresses by country. IPv4 addresses come as such, also where the socket takes both
    /// families. Over QUIC the address is the client's claim as long as nothing has proven it ([`Admit::Retry`]), and one that
    /// changes later is not asked about. It is called on the sockets' tasks, for every attempt: it must be quick, and must not
    /// block; where it panics the client is refused. Default: everybody.
    ///
    /// ```
    /// use wireloom::{Admit, Server};
    ///
    /// let builder = Server::builder().admit(|client| match client.ip() {
    ///     ip if ip.is_loopback() => Admit::Yes,
    ///     _ => Admit::Refuse,
    /// });
    /// ```
    pub fn admit(mut self, decide: impl Fn(SocketAddr) -> Admit + Send + Sync + 'static) -> Self {
        self.filter = Some(Filter::new(decide));
        self
    }

    /// While this many handshakes wait for clients whose address nothing has proven, further QUIC clients prove theirs before
    /// they get a place (Retry, RFC 9000 section 8.1.2), which costs them a round trip. Default 512; 0 for always; never more than
    /// half of what the [limits of connections](Self::max_connections) allow. A handshake
    /// that stays unfinished costs some 45 KiB until [`handshake_timeout`](Self::handshake_timeout), so spoofed addresses
    /// cost at most this many times that.
    pub fn retry_above(mut self, handshakes: usize) -> Self {
        self.retry_above = handshakes;
        self
    }

    /// WebTransport sessions that are open or requested at once on one connection. Default 16. Drafts 13 and later allow
    /// one without flow control, whatever is set here.
    pub fn max_sessions_per_connection(mut self, sessions: usize) -> Self {
        Arc::make_mut(&mut self.driver.h3).max_sessions = sessions;
        self
    }

    /// What a client may use in each session (draft-ietf-webtrans-http3 section 5). Default 1024 streams of each direction and
    /// 8 MiB of data that the application has not read. It counts with clients that have such limits too, in drafts 12 and
    /// later: not with browsers. [`FlowControl::OFF`] also limits drafts 13 and later to one session on a connection. Where
    /// several sessions share a connection, they share all of its window ([`receive_windows`](Self::receive_windows)) but an
    /// eighth, or 2 MiB where that is less: a session that is not read never takes the part of the others.
    pub fn flow_control(mut self, limits: FlowControl) -> Self {
        Arc::make_mut(&mut self.driver.h3).flow_control = limits;
        self
    }

    /// Streams of each direction that a peer may have open at once on one connection. Default 1024: the limit starts at
    /// 100, which keeps idle connections small, and grows when a peer uses half of it. At least 4: HTTP/3 itself takes three.
    pub fn max_streams_per_connection(mut self, streams: u32) -> Self {
        self.driver.max_streams = streams;
        self
    }

    /// QUIC flow control: bytes that a peer may send ahead of the application's reading, on one stream (default 2 MiB) and
    /// on its whole connection (default 16 MiB). Each connection may cost that much memory, and the buffers of each socket 2 MiB.
    pub fn receive_windows(mut self, stream: u32, connection: u32) -> Self {
        self.quic.stream_window = stream;
        self.quic.connection_window = connection;
        self
    }

    /// Bytes that the application may write ahead of the peer's acknowledgements, per connection. Default 8 MiB.
    pub fn send_window(mut self, bytes: u64) -> Self {
        self.quic.send_window = bytes;
        self.driver.send_window = bytes;
        self
    }

    /// Bytes of received datagrams that a session keeps until they are taken, 32 more for each than its payload. Default
    /// 4 MiB; the oldest are dropped first.
    pub fn datagram_queue(mut self, bytes: usize) -> Self {
        self.driver.datagram_queue = bytes;
        self
    }

    /// Whether responses over TCP point to HTTP/3 (Alt-Svc, RFC 7838): on the same port, or on that which
    /// [`tcp::Options::http3_port`] names, as where clients see another one. Default true.
    pub fn alt_svc(mut self, announce: bool) -> Self {
        self.alt_svc = announce;
        self
    }

    /// How long a graceful shutdown waits for requests and sessions to end. Default 10 s.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.shutdown_deadline = deadline;
        self
    }

    /// Whether the secrets of each connection, over QUIC and TCP, are written to the file that the environment variable
    /// `SSLKEYLOGFILE` names, so that Wireshark and the like can read what was recorded. Whoever has the file can, too. Default
    /// false.
    pub fn key_log(mut self, write: bool) -> Self {
        self.key_log = write;
        self
    }

    /// Limits and deadlines of the TCP side. Those that this builder has too are the builder's: connections, the handshake's
    /// time-out, the shutdown's deadline, whether there is Alt-Svc, certificates of clients, the key log, and threads and
    /// [`admit`](Self::admit) where it has some.
    pub fn tcp_options(mut self, options: tcp::Options) -> Self {
        self.tcp = options;
        self
    }

    /// Binds. From now on clients can connect; their requests wait for [`Server::serve`] or [`Server::accept`].
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn listen(mut self) -> Result<Server, ServeError> {
        let identity = self.identity.take().ok_or(ServeError::NoIdentity)?;
        let mut addresses = Vec::new();
        for list in std::mem::take(&mut self.addresses) {
            addresses.extend(list.map_err(ServeError::Address)?);
        }
        if addresses.is_empty() && self.sockets.is_empty() {
            return Err(ServeError::Address("call bind".into()));
        }
        self.driver.max_streams = self.driver.max_streams.max(MIN_STREAMS);
        self.quic.streams = self.driver.initial_streams.min(self.driver.max_streams);
        self.driver.initial_streams = self.quic.streams;
        let mut tls = tls::quic_server_config(&identity, &self.clients, self.early_data).map_err(ServeError::Tls)?;
        tls.key_log = tls::key_log(self.key_log);
        let tls = server_config(&self.quic, Arc::new(tls))
            .ok_or_else(|| ServeError::Tls(rustls::Error::General("no cipher suite for QUIC".into())))?;
        Arc::make_mut(&mut self.driver.h3).shared_data = self.quic.window_of_sessions();
        let connections = Arc::new(Connections::default());
        let limits = self.limits;
        let driver = Arc::new(self.driver);
        let (homes, workers) = match &self.threads {
            Some(threads) => (threads.homes().to_vec(), threads.count()),
            None => {
                let home = Home::current();
                let workers = home.handle.metrics().num_workers();
                (vec![home], workers)
            }
        };
        let shards = self.shards.unwrap_or_else(|| workers.min(MAX_SHARDS));
        let queues: Vec<_> = homes
            .into_iter()
            .map(|home| (home, Arc::new(IncomingQueue::default())))
            .collect();
        let mut turns = queues.iter().cycle();
        let shards = self.quic.possible_shards(shards);
        let (mut endpoints, mut tcp) = (Vec::new(), Vec::new());
        let mut free_port = None;
        for mut address in addresses {
            // localhost's two addresses are one server: one URL for both.
            if let (0, Some(port)) = (address.port(), free_port) {
                address.set_port(port);
            }
            let sockets = bind(address, shards).map_err(|source| ServeError::Bind { address, source })?;
            if address.port() == 0 {
                free_port = sockets.port();
            }
            self.sockets.push(sockets);
        }
        for Sockets { udp, tcp: listener } in self.sockets {
            if let Some(listener) = listener {
                listener.set_nonblocking(true)?;
                let udp = udp.first().map(UdpSocket::local_addr).transpose()?;
                tcp.push(TcpSide {
                    listener: tokio::net::TcpListener::from_std(listener)?,
                    http3: udp.map(|address| address.port()),
                });
            }
            if udp.is_empty() {
                continue;
            }
            let shards = udp.into_iter().zip(&mut turns).map(|(socket, (home, queue))| {
                let acceptor = ServerAcceptor {
                    driver: driver.clone(),
                    queue: queue.clone(),
                    connections: connections.clone(),
                    filter: self.filter.clone(),
                    limits: limits.clone(),
                    retry_above: self.retry_above.min(limits.smallest() / 2),
                    admitted: 0,
                };
                (socket, home.clone(), acceptor)
            });
            endpoints.push(Endpoint::spawn(shards.collect(), &self.quic, Some(&tls))?);
        }
        let mut tcp_options = self.tcp;
        if let Some(threads) = self.threads {
            tcp_options = tcp_options.threads(threads);
        }
        if let Some(filter) = self.filter {
            tcp_options = tcp_options.filter(filter);
        }
        Ok(Server {
            endpoints,
            tcp: Mutex::new(tcp),
            queues,
            connections,
            limits,
            identity,
            origins: Arc::new(self.origins),
            alt_svc: self.alt_svc,
            handshake_timeout: driver.handshake_timeout,
            shutdown_deadline: self.shutdown_deadline,
            tcp_options: tcp_options.client_auth(self.clients).key_log(self.key_log),
        })
    }

    /// [`listen`](Self::listen) and [`Server::serve`] in one.
    pub fn serve<S, B>(self, service: S) -> Serve<S>
    where
        S: Service<Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Serve::from_builder(self, service)
    }
}
