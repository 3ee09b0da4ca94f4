//! A client's connection, as handlers hold it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use super::outbox::{Command, Outbox, Outgoing, OutgoingKind, PushError};
use super::values::Values;
use super::{Asked, Server, Shared};
use crate::codec::{EncodeError, Message};
use crate::data::Data;
use crate::engine::CloseCode;
use crate::session::{Session, SessionInfo, SessionKey, StoreError};
use crate::topics::Involved;
use crate::transport::{Delivery, Route, TransportKind};

/// What a server does with a client that does not take its signals fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// Its connection is closed with the code for policy.
    #[default]
    Disconnect,
    /// The signal is not sent, and [`Connection::signal`] says so.
    Refuse,
}

/// Why a signal was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// The client would refuse or misread it.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Larger than the message buffer, which the client's is too.
    #[error("the signal of {size} bytes is larger than the message buffer of {limit}")]
    TooLarge {
        /// With its header, in bytes.
        size: usize,
        /// The message buffer.
        limit: usize,
    },
    /// The client does not take signals fast enough: too many bytes wait for it.
    #[error("the client does not take signals fast enough")]
    SlowConsumer,
    /// The connection is over.
    #[error("the connection is over")]
    Disconnected,
}

/// Why a connection did not get a session, or did not lose it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionSessionError {
    /// The server has no sessions.
    #[error("the server has no sessions")]
    Disabled,
    /// The connection has a session.
    #[error("the connection has a session")]
    HasSession,
    /// The connection is over.
    #[error("the connection is over")]
    Disconnected,
    /// The session is larger than the message buffer: the client could not be told.
    #[error("the session is larger than the message buffer")]
    TooLarge,
    /// The store failed.
    #[error("the session store failed: {0}")]
    Store(#[source] StoreError),
}

/// A client's connection. A cheap handle: clone it, keep it, use it from any task. It keeps neither the connection open nor its task
/// alive, only the memory of both, and that of the [`Server`].
#[derive(Clone)]
pub struct Connection {
    pub(crate) inner: Arc<Inner>,
    /// Where session notifications go: before the reply, if that has a stream of its own.
    route: Route,
}

pub(crate) struct Inner {
    pub(crate) id: u64,
    pub(crate) outbox: Outbox,
    pub(super) server: Arc<Shared>,
    remote: Option<SocketAddr>,
    kind: TransportKind,
    created: SystemTime,
    asked: Option<Arc<Asked>>,
    state: Mutex<State>,
    topics: Mutex<Involved>,
    /// Where its task runs, once it does.
    runtime: OnceLock<Handle>,
    /// Its publications take turns until the broker has them, so that they keep their order.
    pub(crate) publishing: Semaphore,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// A session is being made or restored.
    changing: bool,
    over: bool,
    /// Somebody waits for that.
    closed: Option<Arc<Notify>>,
    values: Values,
}

/// What the request that a connection began with has said, and the application of it.
#[derive(Default)]
pub(super) struct Request {
    pub(super) asked: Option<Arc<Asked>>,
    pub(super) values: Values,
}

impl Inner {
    pub(super) fn new(
        id: u64,
        server: Arc<Shared>,
        remote: Option<SocketAddr>,
        kind: TransportKind,
        request: Request,
    ) -> Self {
        Self {
            id,
            outbox: Outbox::default(),
            server,
            remote,
            kind,
            created: SystemTime::now(),
            asked: request.asked,
            state: Mutex::new(State {
                values: request.values,
                ..State::default()
            }),
            topics: Mutex::default(),
            runtime: OnceLock::new(),
            publishing: Semaphore::const_new(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is over: nothing is sent any more, and its session is let go.
    pub(super) fn end(&self) {
        self.outbox.close();
        let session = {
            let mut state = self.lock();
            state.over = true;
            if let Some(closed) = state.closed.take() {
                closed.notify_waiters();
            }
            state.session.take()
        };
        if let (Some(sessions), Some(session)) = (&self.server.sessions, session) {
            sessions.detach(self.id, &session.key);
        }
        if let Some(hub) = &self.server.topics {
            hub.disconnected(self);
        }
    }

    /// The task runs here.
    pub(super) fn runs(&self) {
        if let Ok(runtime) = Handle::try_current() {
            self.runtime.get_or_init(|| runtime);
        }
    }

    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }

    pub(crate) fn topics(&self) -> MutexGuard<'_, Involved> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of messages of topics that may wait.
    pub(crate) fn pending_limit(&self) -> usize {
        self.server.pending_limit
    }

    pub(crate) fn message_buffer(&self) -> usize {
        self.server.message_buffer_size()
    }

    /// Who the client is to others: the same for all connections of a session, otherwise the connection's own. It tells nothing
    /// of the session's key, nor of how many connections there are.
    pub(crate) fn public_id(&self, server: u64) -> String {
        let mut hash = Sha256::new();
        match &self.lock().session {
            Some(session) => {
                hash.update(b"session ");
                hash.update(session.key.as_str());
            }
            None => {
                hash.update(b"connection ");
                hash.update(server.to_be_bytes());
                hash.update(self.id.to_be_bytes());
            }
        }
        hash.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Puts a restored session in the place of the one that the connection had. `false`: it was destroyed meanwhile, by somebody who
    /// did not find it here.
    pub(super) fn adopt(&self, session: Session) -> bool {
        let Some(sessions) = &self.server.sessions else {
            return false;
        };
        let mut state = self.lock();
        // Under the lock: whoever destroys it from now on waits for it, and finds it.
        if !sessions.has(self.id, &session.key) {
            return false;
        }
        let key = session.key.clone();
        let old = state.session.replace(session);
        let over = state.over.then(|| state.session.take()).flatten();
        drop(state);
        for gone in [old.filter(|old| old.key != key), over].into_iter().flatten() {
            sessions.detach(self.id, &gone.key);
        }
        true
    }

    pub(super) fn take_session(&self) -> Option<Session> {
        self.lock().session.take()
    }
}

/// The connection's session is being changed, by one at a time.
struct Changing<'a>(&'a Inner);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.lock().changing = false;
    }
}

impl Connection {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            route: Route::CONTROL,
        }
    }

    pub(super) fn with_route(&self, route: Route) -> Self {
        Self {
            inner: self.inner.clone(),
            route,
        }
    }

    /// The server, to which it is connected: also an argument of handler functions. Keeping it is keeping a
    /// [handle](Server), which holds nothing open; a [`Handler`](super::Handler) that keeps one in itself is never dropped.
    ///
    /// ```
    /// use wireloom_messaging::server::{Handlers, ReplyError, Server};
    ///
    /// let handlers = Handlers::new().on_request("shout", async |server: Server, text: String| {
    ///     server.broadcast("shouted", text)?;
    ///     Ok::<_, ReplyError>(())
    /// });
    /// ```
    pub fn server(&self) -> Server {
        Server(self.inner.server.clone())
    }

    /// A number that no other connection of the server has or had.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Where the client is; `None` within the process.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.inner.remote
    }

    /// What carries the connection.
    pub fn transport(&self) -> TransportKind {
        self.inner.kind
    }

    /// When it was accepted.
    pub fn created(&self) -> SystemTime {
        self.inner.created
    }

    /// What the client calls itself, if it said so (the field User-Agent).
    pub fn user_agent(&self) -> Option<&str> {
        self.inner.asked.as_ref().and_then(|asked| asked.user_agent.as_deref())
    }

    /// The path that the client asked for; `None` for a link that was given to [`Server::run`].
    pub fn path(&self) -> Option<&str> {
        self.inner.asked.as_ref().map(|asked| &*asked.path)
    }

    /// The query that the client asked for, without the question mark. It is kept as long as the connection, also if there is a
    /// secret in it.
    pub fn query(&self) -> Option<&str> {
        self.inner.asked.as_ref().and_then(|asked| asked.query.as_deref())
    }

    /// Whether it is not over.
    pub fn is_active(&self) -> bool {
        !self.inner.outbox.is_closed()
    }

    /// Waits until the connection is over: nothing is sent any more, and [`on_disconnected`](super::Handler::on_disconnected) is about to
    /// be told why. Returns at once where it is over already. Cancel safe.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use wireloom_messaging::server::{Connection, Handlers};
    ///
    /// let handlers = Handlers::new().on_connected(async |connection: Connection| {
    ///     tokio::spawn(async move {
    ///         let ticking = async {
    ///             while connection.signal("tick", ()).is_ok() {
    ///                 tokio::time::sleep(Duration::from_secs(1)).await;
    ///             }
    ///         };
    ///         tokio::select! {
    ///             () = ticking => {}
    ///             () = connection.closed() => {}
    ///         }
    ///     });
    /// });
    /// ```
    pub async fn closed(&self) {
        let closed = {
            let mut state = self.inner.lock();
            if state.over {
                return;
            }
            // Woken from now on, not only once it is polled: nobody can end the connection in between.
            let closed = state.closed.get_or_insert_default().clone();
            closed.notified_owned()
        };
        closed.await;
    }

    /// How many bytes of signals wait for the client to take them.
    pub fn pending_bytes(&self) -> usize {
        self.inner.outbox.pending()
    }

    /// Sends a signal: reliably, in order, at most once, without an answer. Returns at once; what the client has not taken
    /// waits, up to [`pending_limit`](super::ServerBuilder::pending_limit).
    ///
    /// A client that has not said anything yet is sent nothing for its first 100 ms: some would lose it.
    ///
    /// # Errors
    /// It cannot be sent, the client is too slow, or the connection is over.
    pub fn signal(&self, name: &str, data: impl Into<Data>) -> Result<(), SignalError> {
        self.signal_with(name, data, Delivery::Ordered)
    }

    /// As [`signal`](Self::signal), unordered or unreliable where the transport can.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub fn signal_with(&self, name: &str, data: impl Into<Data>, delivery: Delivery) -> Result<(), SignalError> {
        let bytes = self.inner.server.encode_signal(name, &data.into())?;
        self.push_signal(bytes, delivery, self.inner.server.slow_consumer)
    }

    /// As [`signal`](Self::signal), waiting for a slow client instead of applying the policy. Cancel safe: dropped, nothing
    /// was sent.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn signal_wait(&self, name: &str, data: impl Into<Data>) -> Result<(), SignalError> {
        let bytes = self.inner.server.encode_signal(name, &data.into())?;
        loop {
            let mut room = pin!(self.inner.outbox.room());
            room.as_mut().enable();
            match self.push_signal(bytes.clone(), Delivery::Ordered, SlowConsumer::Refuse) {
                Err(SignalError::SlowConsumer) => room.await,
                done => return done,
            }
        }
    }

    /// Sends a signal that was encoded once for many connections of one server.
    pub(super) fn push_signal(
        &self,
        bytes: Bytes,
        delivery: Delivery,
        policy: SlowConsumer,
    ) -> Result<(), SignalError> {
        let outgoing = Outgoing {
            bytes,
            route: Route::CONTROL,
            kind: OutgoingKind::Signal(delivery),
        };
        match self.inner.outbox.push_signal(outgoing, self.inner.server.pending_limit) {
            Ok(()) => Ok(()),
            Err(PushError::Closed) => Err(SignalError::Disconnected),
            Err(PushError::Full) => {
                if policy == SlowConsumer::Disconnect {
                    self.inner.outbox.command(Command::Abort {
                        code: CloseCode::Policy,
                        reason: "signals are not taken fast enough".to_owned(),
                    });
                }
                Err(SignalError::SlowConsumer)
            }
        }
    }

    fn notify(&self, message: Message<'_>) -> bool {
        let Ok(bytes) = message.to_vec() else { return false };
        self.inner.outbox.push(Outgoing {
            bytes: bytes.into(),
            route: self.route,
            kind: OutgoingKind::Session,
        })
    }

    /// Gives the connection a session: makes a key, stores the session, tells the client. The client learns `info`. It takes the place
    /// of one that the client restores meanwhile.
    ///
    /// # Errors
    /// The connection has one already or is over, the server has none, or the store failed: the client is told nothing then.
    pub async fn create_session(&self, info: SessionInfo) -> Result<Session, ConnectionSessionError> {
        let inner = &*self.inner;
        let sessions = inner.server.sessions.as_ref().ok_or(ConnectionSessionError::Disabled)?;
        {
            let mut state = inner.lock();
            if state.over {
                return Err(ConnectionSessionError::Disconnected);
            }
            if state.changing || state.session.is_some() {
                return Err(ConnectionSessionError::HasSession);
            }
            state.changing = true;
        }
        let _changing = Changing(inner);
        let session = sessions.create(inner.id, info, SystemTime::now()).await;
        let session = session.map_err(ConnectionSessionError::Store)?;
        let json = session.to_json();
        let fits = json.len() < inner.server.message_buffer_size();
        let (over, restored) = {
            let mut state = inner.lock();
            let mut restored = None;
            if !state.over && fits {
                // The client may have restored one while the store was busy. The last one counts, and the client is told in the same
                // order: under the lock.
                restored = state.session.replace(session.clone());
                self.notify(Message::SessionCreated {
                    session: json.as_bytes(),
                });
            }
            (state.over, restored)
        };
        if let Some(restored) = restored {
            sessions.detach(inner.id, &restored.key);
        }
        if over || !fits {
            // Nobody learned the key.
            if let Err(error) = sessions.close(inner.id, &session.key).await {
                tracing::warn!(%error, "a session that nobody has could not be removed");
            }
            return Err(if over {
                ConnectionSessionError::Disconnected
            } else {
                ConnectionSessionError::TooLarge
            });
        }
        Ok(session)
    }

    /// Closes the connection's session and tells the client. If this was its last connection the session is destroyed.
    /// Does nothing without a session.
    ///
    /// # Errors
    /// The store failed: the connection has no session any more, but it may be restored.
    pub async fn close_session(&self) -> Result<(), ConnectionSessionError> {
        let Some(session) = self.lose_session(|_| true) else {
            return Ok(());
        };
        if let Some(sessions) = &self.inner.server.sessions {
            let closed = sessions.close(self.inner.id, &session.key).await;
            closed.map_err(ConnectionSessionError::Store)?;
        }
        Ok(())
    }

    /// Takes the session away if it is the one that is meant, and tells the client: under the lock, so that it is told in order.
    pub(super) fn lose_session(&self, is_meant: impl Fn(&SessionKey) -> bool) -> Option<Session> {
        let mut state = self.inner.lock();
        let session = state.session.take_if(|session| is_meant(&session.key))?;
        self.notify(Message::SessionClosed);
        Some(session)
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<Session> {
        self.inner.lock().session.clone()
    }

    /// The session's key, if there is one.
    pub fn session_key(&self) -> Option<SessionKey> {
        self.inner.lock().session.as_ref().map(|session| session.key.clone())
    }

    /// Keeps a value with the connection, in the place of the last one of its type.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) {
        self.inner.lock().values.insert(value);
    }

    /// The value of this type that was kept with the connection, here or when it was
    /// [admitted](super::ConnectionOptions::value).
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.inner.lock().values.get()
    }

    /// Closes the connection in good order: new requests are refused, running handlers finish and their replies are sent, and what
    /// waits of topics, then it is closed. Returns at once; the second call does nothing.
    pub fn close(&self) {
        self.inner.outbox.command(Command::End {
            code: CloseCode::Normal,
            reason: String::new(),
            drain: false,
        });
    }

    /// Closes the connection in good order, as [`close`](Self::close) does and also after it, and tells the client not to come back
    /// by itself (appendix A.5): for a ban, a log-in that is no longer valid, a version that is too old. The client is closed then and
    /// hands the reason to its application, as the Rust client does with
    /// [`ConnectError::Dismissed`](crate::client::ConnectError::Dismissed). Of the reason 123 bytes reach it over WebSocket, 1024 over
    /// WebTransport.
    ///
    /// A request, not a wall: clients of the original know nothing of it and come back at once, and an application may connect anew, so
    /// that who may not is to be refused as well, by [`admit`](super::Handler::admit) or here, from
    /// [`on_connected`](super::Handler::on_connected): of a refusal pages learn no reason. The session stays;
    /// [`close_session`](Self::close_session) closes it. [`abort`](Self::abort) with [`CloseCode::Dismissed`] does the same at once.
    pub fn dismiss(&self, reason: &str) {
        self.inner.outbox.command(Command::End {
            code: CloseCode::Dismissed,
            reason: reason.to_owned(),
            drain: false,
        });
    }

    /// Closes the connection at once, with a code and a reason that the client is told. Handlers are cancelled.
    pub fn abort(&self, code: CloseCode, reason: &str) {
        self.inner.outbox.command(Command::Abort {
            code,
            reason: reason.to_owned(),
        });
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.inner.id)
            .field("remote", &self.inner.remote)
            .field("transport", &self.inner.kind)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Connection {}
