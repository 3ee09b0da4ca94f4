//! Settings of a client.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use wireloom_proto::webtransport::flow::FlowControl;

use super::known::KnownServers;
use super::sockets::LocalSockets;
use super::{Client, ConnectError, Inner};
use crate::driver::DriverConfig;
use crate::identity::{CertificateHash, Identity};
use crate::quic::{CongestionControl, QuicConfig};
use crate::resolve::{Resolve, SystemResolver};
use crate::tls::{ClientTls, RootCertificates, ServerTrust};

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
