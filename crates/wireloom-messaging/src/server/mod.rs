//! The server: connections, their handlers, sessions, limits and shutdown.
//!
//! ```
//! use wireloom_messaging::server::{Handlers, Server};
//!
//! let handlers = Handlers::new().on_request("echo", async |data: wireloom_messaging::Data| data);
//! let server = Server::builder().concurrency(16).build(handlers);
//! ```
//! Then give it connections: [`Server::listen`] on a TCP port for WebSocket, [`Server::service`] in a router,
//! [`Server::run_webtransport`] without a router, [`Server::run`] for any [`Link`], [`Server::connect_memory`] within the process.

#[cfg(any(feature = "websocket", feature = "webtransport"))]
mod admit;
mod builder;
mod connection;
mod context;
mod driver;
mod extract;
mod flood;
mod handler;
mod handlers;
mod limits;
#[cfg(feature = "websocket")]
mod listen;
#[cfg(feature = "axum")]
mod mount;
mod origins;
mod outbox;
mod sweep;
mod tasks;
mod topic_queue;
mod topics;
mod values;
#[cfg(feature = "webtransport")]
mod webtransport;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub use self::builder::ServerBuilder;
pub use self::connection::{Connection, ConnectionSessionError, SignalError, SlowConsumer};
pub use self::context::Context;
pub use self::extract::{FromMessage, IntoReply, Json, MessageFn};
pub use self::handler::{
    Admission, ConnectionOptions, DEADLINE_EXCEEDED, Handler, INVALID_PAYLOAD, Refusal, ReplyError, UNKNOWN_REQUEST,
};
pub use self::handlers::Handlers;
#[cfg(feature = "axum")]
pub use self::mount::{MountBody, MountFuture, MountService};

pub(crate) use self::connection::Inner;
use self::driver::Driver;
use self::handler::DynHandler;
pub(crate) use self::handler::{Task, guarded, unknown};
use self::limits::{Limits, Permit};
use self::outbox::Command;
pub(crate) use self::topic_queue::{TopicItem, TopicItemKind};
use crate::codec::{Encoding, Message, Name, Payload};
use crate::data::Data;
use crate::engine::{CloseCode, ConnectionConfig};
use crate::session::{SessionKey, Sessions, StoreError};
use crate::topics::Hub;
use crate::transport::memory::{self, MemoryLink};
use crate::transport::{Delivery, Ended, Link};

/// A server. A cheap handle: clones are the same server. Its connections live in tasks of their own, and go on when the
/// last handle is dropped; [`shut_down`](Self::shut_down) ends them. Handlers reach theirs with [`Connection::server`], or take it as
/// an argument.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

/// What all connections of a server share.
struct Shared {
    config: Arc<ConnectionConfig>,
    handler: Arc<dyn DynHandler>,
    sessions: Option<Sessions>,
    limits: Arc<Limits>,
    #[cfg_attr(not(any(feature = "websocket", feature = "webtransport")), allow(dead_code))]
    origins: origins::Origins,
    topics: Option<Arc<Hub>>,
    slow_consumer: SlowConsumer,
    /// Bytes of signals that may wait for one client.
    pending_limit: usize,
    handler_timeout: Option<Duration>,
    cancel_grace: Duration,
    linger: Duration,
    connect_timeout: Duration,
    disconnect_timeout: Duration,
    last_id: AtomicU64,
    shutting_down: AtomicBool,
    shutdown: Notify,
    connections: Mutex<HashMap<u64, Arc<Inner>>>,
    /// Notified when a connection is over.
    over: Notify,
    sweep: sweep::Sweep,
    /// What the last client asked for.
    #[cfg_attr(not(any(feature = "websocket", feature = "webtransport")), allow(dead_code))]
    asked: Mutex<Option<Arc<Asked>>>,
}

impl Shared {
    fn message_buffer_size(&self) -> usize {
        self.config.message_buffer_size as usize
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Inner>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    fn encode_signal(&self, name: &str, data: &Data) -> Result<Bytes, SignalError> {
        let name = Name::new(name)?;
        // A UTF-16 signal needs a payload (section 4.3).
        let payload = match data.payload() {
            Payload {
                encoding: Encoding::Utf16,
                bytes: [],
            } => Payload::utf8(""),
            payload => payload,
        };
        let message = Message::Signal { name, payload };
        let (size, limit) = (message.encoded_len(), self.message_buffer_size());
        if size > limit {
            return Err(SignalError::TooLarge { size, limit });
        }
        Ok(message.to_vec()?.into())
    }
}

/// A connection in the server's list, and counted, until this is dropped.
struct Listed {
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    /// The application was told that it is connected, and not that it no longer is.
    owes_disconnected: bool,
    _permit: Permit,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.inner.end();
        let over = Over {
            shared: self.shared.clone(),
            inner: self.inner.clone(),
        };
        // The future that ran it was dropped. Without a runtime nothing runs any more.
        if self.owes_disconnected
            && let Ok(runtime) = Handle::try_current()
        {
            let reason = Ended::lost("cut off");
            runtime.spawn(async move { driver::say_disconnected(&over.shared, &over.inner, reason).await });
        }
    }
}

/// Takes a connection out of the server's list when it is dropped.
struct Over {
    shared: Arc<Shared>,
    inner: Arc<Inner>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.inner.id);
        self.shared.over.notify_waiters();
    }
}

/// A place for one more connection, before its handshake.
struct Place {
    permit: Permit,
    concurrency: Option<usize>,
    request: connection::Request,
}

/// What a client asked for, and with what. Many ask for the same, and share it.
#[derive(PartialEq)]
struct Asked {
    path: Box<str>,
    query: Option<Box<str>>,
    user_agent: Option<Box<str>>,
}

impl Server {
    /// A server with the defaults of [`ServerBuilder`].
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Runs a connection to its end: hooks, messages, sessions. Spawn it; dropping the future cuts the connection off, and
    /// [`on_disconnected`](Handler::on_disconnected) then runs in a task of its own.
    ///
    /// A link beyond the limits, or during a shutdown, is closed at once. Neither [`admit`](Handler::admit) nor
    /// [`allow_origin`](ServerBuilder::allow_origin) applies, whatever carries the link: who may connect is for the caller to ask before.
    pub async fn run(&self, link: impl Link + 'static) {
        match self.place(link.remote_address().map(|address| address.ip())) {
            Some(permit) => {
                let place = Place {
                    permit,
                    concurrency: None,
                    request: connection::Request::default(),
                };
                self.run_in(Box::new(link), place).await;
            }
            None => self.turn_away(Box::new(link)).await,
        }
    }

    async fn turn_away(&self, mut link: Box<dyn Link>) {
        let code = if self.0.is_shutting_down() {
            CloseCode::Shutdown
        } else {
            CloseCode::Policy
        };
        let closed = crate::transport::close(&mut *link, code, "");
        let _ = tokio::time::timeout(self.0.linger, closed).await;
    }

    /// Room for one more connection from this address.
    fn place(&self, address: Option<IpAddr>) -> Option<Permit> {
        if self.0.is_shutting_down() {
            return None;
        }
        self.0.limits.acquire(address)
    }

    fn run_in(&self, link: Box<dyn Link>, place: Place) -> impl Future<Output = ()> + Send + use<> {
        self.keep_sweeping();
        let shared = self.0.clone();
        let id = shared.last_id.fetch_add(1, Ordering::Relaxed);
        let (remote, kind) = (link.remote_address(), link.kind());
        let inner = Arc::new(Inner::new(id, shared.clone(), remote, kind, place.request));
        shared.connections().insert(id, inner.clone());
        let listed = Listed {
            shared: shared.clone(),
            inner,
            owes_disconnected: false,
            _permit: place.permit,
        };
        // It may have begun, and be over, while this one was not in the list yet.
        let is_late = shared.is_shutting_down();
        let config = match place.concurrency {
            None => shared.config.clone(),
            Some(concurrency) => {
                let config = ConnectionConfig {
                    concurrency,
                    ..(*shared.config).clone()
                };
                Arc::new(config.normalised())
            }
        };
        let this = self.clone();
        async move {
            if is_late {
                this.turn_away(link).await;
                drop(listed);
            } else {
                Driver::new(link, listed, config).run().await;
            }
        }
    }

    /// Connects a client within the process. The server's end runs in a task of its own, so a tokio runtime is needed.
    pub fn connect_memory(&self) -> MemoryLink {
        let (client, mut server) = memory::pair();
        server.set_message_limit(self.0.message_buffer_size());
        let this = self.clone();
        tokio::spawn(async move { this.run(server).await });
        client
    }

    /// Sends a signal to all connections; answers how many took it. The policy for slow clients applies to each.
    ///
    /// # Errors
    /// It cannot be sent to anybody.
    pub fn broadcast(&self, name: &str, data: impl Into<Data>) -> Result<usize, SignalError> {
        self.broadcast_to(&self.connections(), name, data)
    }

    /// As [`broadcast`](Self::broadcast), to the connections for which `to` answers true: everybody but the sender, say.
    ///
    /// ```
    /// use wireloom_messaging::server::{Connection, Handlers, ReplyError, Server};
    ///
    /// let handlers = Handlers::new().on_signal("cursor", async |server: Server, from: Connection, at: String| {
    ///     server.broadcast_if("cursor", at, |other| *other != from)?;
    ///     Ok::<_, ReplyError>(())
    /// });
    /// ```
    ///
    /// # Errors
    /// As of [`broadcast`](Self::broadcast).
    pub fn broadcast_if(
        &self,
        name: &str,
        data: impl Into<Data>,
        to: impl Fn(&Connection) -> bool,
    ) -> Result<usize, SignalError> {
        self.broadcast_to(
            self.connections().iter().filter(|connection| to(connection)),
            name,
            data,
        )
    }

    /// As [`broadcast`](Self::broadcast), to these connections, such as those of a [session](Self::session_connections). It is
    /// encoded once for all of them. Connections of other servers take nothing.
    ///
    /// # Errors
    /// As of [`broadcast`](Self::broadcast).
    pub fn broadcast_to<'a>(
        &self,
        connections: impl IntoIterator<Item = &'a Connection>,
        name: &str,
        data: impl Into<Data>,
    ) -> Result<usize, SignalError> {
        let bytes = self.0.encode_signal(name, &data.into())?;
        let sent = connections.into_iter().filter(|connection| {
            let is_ours = Arc::ptr_eq(&connection.inner.server, &self.0);
            let push = || connection.push_signal(bytes.clone(), Delivery::Ordered, self.0.slow_consumer);
            is_ours && push().is_ok()
        });
        Ok(sent.count())
    }

    /// The connections of this moment, in no order.
    pub fn connections(&self) -> Vec<Connection> {
        self.0.connections().values().cloned().map(Connection::new).collect()
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.0.connections().len()
    }

    /// How many sessions are in use.
    pub fn active_sessions(&self) -> usize {
        self.0.sessions.as_ref().map_or(0, Sessions::active)
    }

    /// The connections of a session; none if nobody uses it.
    pub fn session_connections(&self, key: &SessionKey) -> Vec<Connection> {
        let ids = self.0.sessions.as_ref().map(|sessions| sessions.connections(key));
        let connections = self.0.connections();
        let ids = ids.unwrap_or_default();
        let found = ids.iter().filter_map(|id| connections.get(id).cloned());
        let mut found: Vec<_> = found.map(Connection::new).collect();
        drop(connections);
        // Some only ask for it.
        found.retain(|connection| connection.session_key().as_ref() == Some(key));
        found
    }

    /// Closes a session on all of its connections and destroys it, also if nobody uses it. Answers the connections that had
    /// it.
    ///
    /// # Errors
    /// The store failed: no connection has the session any more, but it may be restored.
    pub async fn close_session(&self, key: &SessionKey) -> Result<Vec<Connection>, StoreError> {
        let mut had = Vec::new();
        let Some(sessions) = &self.0.sessions else {
            return Ok(had);
        };
        let tell = |ids: Vec<u64>| {
            let connections = self.0.connections();
            had = ids
                .iter()
                .filter_map(|id| connections.get(id).cloned().map(Connection::new))
                .collect();
            drop(connections);
            // Some only ask for it, or have taken up another one by now.
            had.retain(|connection| connection.lose_session(|its| its == key).is_some());
        };
        sessions.destroy_and_tell(key, tell).await?;
        Ok(had)
    }

    /// Waits until [`shut_down`](Self::shut_down) is called.
    pub async fn shutting_down(&self) {
        loop {
            let mut shutdown = std::pin::pin!(self.0.shutdown.notified());
            shutdown.as_mut().enable();
            if self.0.is_shutting_down() {
                return;
            }
            shutdown.await;
        }
    }

    /// Shuts down (section 10). From this call on newcomers are refused, new requests are answered with ReplyShutdown,
    /// signals are ignored and clients are told to go elsewhere (WT_DRAIN_SESSION). Messages of topics that wait are sent, and no
    /// others. It returns when all handlers have ended, the last reply is written and every connection is closed with the code for
    /// shutdown. A client that does not answer the closing is waited for [a moment](ServerBuilder::linger).
    ///
    /// There is no deadline: put a timeout around it, and call [`abort`](Self::abort) after. Cancel safe: the shutdown goes
    /// on without it.
    pub async fn shut_down(&self) {
        self.begin_shutdown();
        let end = Command::End {
            code: CloseCode::Shutdown,
            reason: String::new(),
            drain: true,
        };
        let open: Vec<_> = self.0.connections().values().cloned().collect();
        open.iter().for_each(|inner| inner.outbox.command(end.clone()));
        loop {
            let mut over = std::pin::pin!(self.0.over.notified());
            over.as_mut().enable();
            if self.0.connections().is_empty() {
                return;
            }
            over.await;
        }
    }

    fn begin_shutdown(&self) {
        self.0.shutting_down.store(true, Ordering::Release);
        self.0.shutdown.notify_waiters();
        self.0.sweep.end();
    }

    /// Closes every connection at once, with the code for shutdown. Handlers are cancelled.
    pub fn abort(&self) {
        self.begin_shutdown();
        for inner in self.0.connections().values() {
            inner.outbox.command(Command::Abort {
                code: CloseCode::Shutdown,
                reason: String::new(),
            });
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("connections", &self.connection_count())
            .field("shutting_down", &self.0.is_shutting_down())
            .finish_non_exhaustive()
    }
}
