//! What a server can be told before it begins.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::handler::Handler;
use super::limits::{Exempt, Limits};
use super::origins::Origins;
use super::sweep::Sweep;
use super::{Server, Shared, SlowConsumer};
use crate::engine::ConnectionConfig;
use crate::session::{MemoryStore, SessionStore, Sessions};
use crate::topics::{Hub, Topics};

/// Builds a [`Server`].
#[must_use]
pub struct ServerBuilder {
    config: ConnectionConfig,
    sessions: Option<Sessions>,
    topics: Option<Topics>,
    total: usize,
    per_address: usize,
    exempt: Option<Box<Exempt>>,
    origins: Origins,
    slow_consumer: SlowConsumer,
    pending_limit: usize,
    handler_timeout: Option<Duration>,
    cancel_grace: Duration,
    linger: Duration,
    connect_timeout: Duration,
    disconnect_timeout: Duration,
    sweep_interval: Duration,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            config: ConnectionConfig::default(),
            sessions: Some(Sessions::new(MemoryStore::default(), 0)),
            topics: None,
            total: 100_000,
            per_address: 1_000,
            exempt: None,
            origins: Origins::default(),
            slow_consumer: SlowConsumer::default(),
            pending_limit: 1 << 20,
            handler_timeout: None,
            cancel_grace: Duration::from_secs(5),
            linger: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(30),
            disconnect_timeout: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(3600),
        }
    }
}

impl ServerBuilder {
    /// A connection without a message for this long is closed; a message may take as long again to arrive. Default: 60 s,
    /// which also stands for anything below one second.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.config.read_timeout = timeout;
        self
    }

    /// The largest message of either direction, header included, in bytes. Default: 8192; at least 32. Clients of the
    /// original need exactly the size that they are configured for. A client can make the server hold that much for each
    /// connection; over WebTransport with a stream for each request up to two hundred times as much: 32 messages that arrive, 64 that have
    /// arrived, 64 replies that it does not take, and what waits for a handler's place. There a large buffer wants few
    /// [connections for each address](Self::max_connections).
    pub fn message_buffer_size(mut self, bytes: u32) -> Self {
        self.config.message_buffer_size = bytes;
        self
    }

    /// The name of what is spoken on top; clients of the original need exactly theirs. Default: none.
    pub fn sub_protocol(mut self, name: &str) -> Self {
        name.clone_into(&mut self.config.sub_protocol);
        self
    }

    /// How many handlers of one connection's requests and signals run at once; beyond, its messages wait in the transport.
    /// Default: 1, which keeps them in order. [`UNLIMITED`](crate::engine::UNLIMITED): as many as the client sends, a danger
    /// to memory.
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.config.concurrency = limit;
        self
    }

    /// How often the session store is [swept](Server::sweep). Default: an hour. Sessions in use count as looked up with each sweep: it has
    /// to come several times within the lifetime that the store gives them.
    pub fn sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = interval;
        self
    }

    /// Keeps sessions in `store`, each with at most `max_connections` connections at once; 0 is no limit. Default: in
    /// memory, without a limit. From the first connection on the store is [swept](Server::sweep) once an hour
    /// ([`sweep_interval`](Self::sweep_interval)).
    pub fn sessions(mut self, store: impl SessionStore, max_connections: usize) -> Self {
        self.sessions = Some(Sessions::new(store, max_connections));
        self
    }

    /// No sessions.
    pub fn without_sessions(mut self) -> Self {
        self.sessions = None;
        self
    }

    /// Has topics. Names of signals and requests that begin with `$` belong to them then, and reach no handler. Default: none.
    pub fn topics(mut self, topics: Topics) -> Self {
        self.topics = Some(topics);
        self
    }

    /// How many connections there may be, in total and from one address (of an IPv6 network of 64 bits). Default: 100 000
    /// and 1 000. Behind a proxy all clients have one address: [exempt](Self::exempt) it.
    pub fn max_connections(mut self, total: usize, per_address: usize) -> Self {
        self.total = total;
        self.per_address = per_address;
        self
    }

    /// For addresses of which `exempt` is true, as for proxies, only the limit of connections in total holds. An IPv4 address in its
    /// IPv6 form, which sockets for both have, is shown to it as the IPv4 address. Default: none.
    ///
    /// ```
    /// let server = wireloom_messaging::server::Server::builder().exempt(|address| address.is_loopback());
    /// ```
    pub fn exempt(mut self, exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.exempt = Some(Box::new(exempt));
        self
    }

    /// Lets pages of `origin` (`https://host[:port]`) connect, besides those of the host and port that they connect to; `*` lets all.
    /// Once one is allowed all others get 403, before [`admit`](Handler::admit) is asked. Programs other than browsers send no origin and
    /// are not concerned.
    ///
    /// Default: pages are not told apart. Browsers send cookies with WebSockets of any page, so that whoever trusts those has to say
    /// whose pages may connect: here, where the server beneath does not ask (`axum::serve`, [`Server::listen`]). `wireloom`'s does.
    ///
    /// ```
    /// let server = wireloom_messaging::server::Server::builder().allow_origin("https://app.example.com");
    /// ```
    pub fn allow_origin(mut self, origin: impl AsRef<str>) -> Self {
        self.origins.allow(origin.as_ref());
        self
    }

    /// How many bytes of signals may wait for a client that does not take them, and as many again of messages of topics. Default:
    /// 1 MiB.
    pub fn pending_limit(mut self, bytes: usize) -> Self {
        self.pending_limit = bytes;
        self
    }

    /// What happens to a client for which more signals than [`pending_limit`](Self::pending_limit) would wait (messages of topics have
    /// [policies of their own](crate::topics::SlowSubscriber)). Default: it is
    /// disconnected. One that takes nothing at all for the read timeout is disconnected in any case.
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.slow_consumer = policy;
        self
    }

    /// How long a handler may take: then it is dropped, and a request is answered with the code
    /// [`DEADLINE_EXCEEDED`](super::DEADLINE_EXCEEDED). Default: for ever.
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.handler_timeout = Some(timeout);
        self
    }

    /// How long a handler may go on after its context was cancelled, before it is dropped. Default: 5 s.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// How long a client may have to wait before anything of it is read: for [`admit`](Handler::admit), which is dropped then and the
    /// client refused (503), for [`on_connected`](Handler::on_connected), which is dropped then and the connection closed, and for the
    /// session store when it restores or closes its session, which is answered with an internal error then. Default: 30 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long [`on_disconnected`](Handler::on_disconnected) may take, before it is dropped and the connection forgotten. Default:
    /// 30 s.
    pub fn disconnect_timeout(mut self, timeout: Duration) -> Self {
        self.disconnect_timeout = timeout;
        self
    }

    /// How long a client may take to answer the closing of its connection. Default: 5 s.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// The server, which then waits for connections.
    pub fn build(self, handler: impl Handler) -> Server {
        let config = self.config.normalised();
        let buffer = config.message_buffer_size as usize;
        Server(Arc::new(Shared {
            config: Arc::new(config),
            topics: self.topics.map(|topics| Hub::new(topics, buffer)),
            handler: Arc::new(handler),
            sessions: self.sessions,
            limits: Arc::new(Limits::new(self.total, self.per_address, self.exempt)),
            origins: self.origins,
            slow_consumer: self.slow_consumer,
            pending_limit: self.pending_limit,
            handler_timeout: self.handler_timeout,
            cancel_grace: self.cancel_grace,
            linger: self.linger,
            connect_timeout: self.connect_timeout,
            disconnect_timeout: self.disconnect_timeout,
            last_id: Default::default(),
            shutting_down: Default::default(),
            shutdown: Default::default(),
            connections: Default::default(),
            over: Default::default(),
            sweep: Sweep::every(self.sweep_interval),
            asked: Default::default(),
        }))
    }
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
