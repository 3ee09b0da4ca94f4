//! A client: requests, signals and a session over a connection that is made again whenever it is lost.
//!
//! ```no_run
//! use wireloom_messaging::client::Client;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("ws://127.0.0.1:8080/messages")
//!     .on_signal(|signal| println!("{signal:?}"))
//!     .connect()
//!     .await?;
//! let reply = client.request("upper", "hello").await?;
//! assert_eq!(reply.text()?, "HELLO");
//! # Ok(())
//! # }
//! ```
//!
//! # Connections
//! One task owns the connection. It dials, waits for the server's first message, restores the session if there is one, and only then
//! sends what waits. When the connection is lost, requests that wait for replies fail at once with
//! [`RequestError::Disconnected`], or are sent again over the next connection if they are
//! [idempotent](Request::idempotent), and the client reconnects after a pause ([`Backoff`]). It stops for good at a final
//! error ([`ConnectError::is_final`]), which a server's [dismissal](ConnectError::Dismissed) is, at [`close`](Client::close), and when the
//! last clone of the handle is dropped: [`Topic`]s and [`Subscription`]s have one each.
//!
//! # Limits
//! At most [`QUEUE`] requests and signals wait to be sent; whoever comes then waits for room, up to its deadline. A link takes
//! 64 KiB that the server has not read. Received messages are at most as large as the server says that they are.

#[cfg(feature = "websocket")]
mod attempt;
mod backoff;
mod builder;
mod connection;
mod dial;
mod driver;
mod error;
mod hooks;
mod request;
mod signals;
mod subscription;
mod topics;
#[cfg(feature = "websocket")]
mod url;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

#[cfg(feature = "websocket")]
pub use self::attempt::Attempt;
pub use self::backoff::Backoff;
pub use self::builder::ClientBuilder;
pub use self::dial::{Dial, DialFuture};
pub use self::error::{ConnectError, RequestError};
use self::hooks::Hooks;
use self::request::Command;
pub use self::request::{Request, Signal};
pub use self::signals::Signals;
#[cfg(all(feature = "__testing", feature = "server"))]
pub(crate) use self::subscription::Sequence;
pub use self::subscription::{Subscription, TopicEvent};
use self::topics::Registry;
pub use self::topics::{Publish, Subscribe, Topic};
use crate::Data;
use crate::session::{Session, SessionKey};
use crate::transport::{Ended, TransportKind};

/// Requests and signals that wait to be sent, while the server does not read or there is no connection.
pub const QUEUE: usize = 1024;

/// A client. Clones share one connection; it is closed when the last one is dropped, [`Topic`]s and [`Subscription`]s, which have one
/// each, included.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    commands: mpsc::Sender<Command>,
    closes: mpsc::Sender<driver::Closing>,
    /// No more than there are requests that wait.
    cancels: mpsc::UnboundedSender<u64>,
    status: watch::Receiver<Status>,
    session: SharedSession,
    topics: Arc<Registry>,
    hooks: Arc<Hooks>,
    next: AtomicU64,
    request_timeout: Duration,
}

type SharedSession = Arc<Mutex<Option<Session>>>;

/// What a client is at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Status {
    /// It dials, or waits before it does so again.
    Connecting {
        /// Attempts that failed since the last connection.
        failures: u32,
        /// Why the last of them failed.
        last_error: Option<ConnectError>,
    },
    /// Requests are sent as they come.
    Connected(TransportKind),
    /// Nothing will be sent any more.
    Closed(ConnectError),
}

impl Client {
    /// Settings of a client of this server: `ws://`, `wss://`, or `https://` for WebTransport with `wss://` as the fallback.
    #[cfg(feature = "websocket")]
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new_url(url.into())
    }

    /// Settings of a client that gets its connections from `dial`, such as a closure that answers a link.
    ///
    /// ```
    /// use wireloom_messaging::client::Client;
    /// use wireloom_messaging::transport::memory;
    ///
    /// let builder = Client::over(|| async {
    ///     let (ours, theirs) = memory::pair();
    ///     // A server gets the other end.
    ///     drop(theirs);
    ///     Ok(ours)
    /// });
    /// ```
    pub fn over(dial: impl Dial) -> ClientBuilder {
        ClientBuilder::new_dial(Arc::new(dial))
    }

    /// A request, to be awaited. It is not sent before.
    ///
    /// Awaiting it answers the reply's payload, an error of the server, or one of this client, all of which [`RequestError`] tells
    /// apart. Dropping that future, or its [timeout](Request::timeout), cancels the request: over a stream of its own
    /// (WebTransport's profile M) that reaches the handler; elsewhere the late reply is thrown away.
    pub fn request(&self, name: impl Into<String>, data: impl Into<Data>) -> Request<'_> {
        Request::new(self, name.into(), data.into())
    }

    /// A signal, to be awaited. It is not sent before. Awaiting it answers when it was handed to the transport, which says
    /// nothing of its arrival.
    pub fn signal(&self, name: impl Into<String>, data: impl Into<Data>) -> Signal<'_> {
        Signal::new(self, name.into(), data.into())
    }

    /// The signals of this name from now on, over all connections, also for several who ask for the same ones. At most 1024 wait for each
    /// of them; what comes then it [misses](Signals::missed). [`on_signal`](ClientBuilder::on_signal) hears of all signals, of these
    /// too, and of those that came before.
    ///
    /// ```no_run
    /// # async fn example(client: wireloom_messaging::client::Client) {
    /// let mut news = client.signals("news");
    /// while let Some(signal) = news.next().await {
    ///     println!("{signal:?}");
    /// }
    /// # }
    /// ```
    pub fn signals(&self, name: impl AsRef<str>) -> Signals {
        self.0.hooks.listeners.listen(name.as_ref().as_bytes())
    }

    /// Takes up the session with this key, now and after each reconnection. Waits for a connection.
    ///
    /// # Errors
    /// Those of a request. The client then has the session that it had before, if any.
    ///
    /// # Cancel safety
    /// Dropped, the session may be restored all the same.
    pub async fn restore_session(&self, key: SessionKey) -> Result<Session, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Restore(key, reply), answer).await
    }

    /// Logs out: the server closes the session, and destroys it if no other connection has it. Without a connection the client
    /// only forgets it.
    ///
    /// # Errors
    /// Those of a request; the client still has its session then.
    ///
    /// # Cancel safety
    /// Dropped, the session may be closed all the same.
    pub async fn close_session(&self) -> Result<(), RequestError> {
        let is_connected = || matches!(*self.0.status.borrow(), Status::Connected(_));
        let was_taken = !is_connected();
        if was_taken {
            let taken = self.0.session.lock().unwrap_or_else(PoisonError::into_inner).take();
            if taken.is_none() {
                return Ok(());
            }
            self.0.hooks.session_closed();
            // Nobody is there to be told; or since a moment ago, and the connection that was being made has it.
            if !is_connected() {
                return Ok(());
            }
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Command::CloseSession { was_taken, reply }, answer).await
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        let done = async {
            if self.0.commands.send(command).await.is_err() {
                return Err(self.closed_error());
            }
            answer.await.unwrap_or_else(|_| Err(self.vanished()))
        };
        tokio::time::timeout(self.0.request_timeout, done)
            .await
            .unwrap_or(Err(RequestError::TimedOut))
    }

    /// The session, as the server last told it.
    pub fn session(&self) -> Option<Session> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the client is at.
    pub fn status(&self) -> Status {
        self.0.status.borrow().clone()
    }

    /// Waits until the client is connected. Cancel safe.
    ///
    /// # Errors
    /// The client is closed, by a final error or by its application.
    pub async fn connected(&self) -> Result<TransportKind, ConnectError> {
        let mut status = self.0.status.clone();
        let found = status
            .wait_for(|status| !matches!(status, Status::Connecting { .. }))
            .await;
        match found.as_deref() {
            Ok(Status::Connected(kind)) => Ok(*kind),
            Ok(Status::Closed(error)) => Err(error.clone()),
            _ => Err(ConnectError::Closed),
        }
    }

    /// Waits until nothing will be sent any more, and answers why. Cancel safe.
    pub async fn closed(&self) -> ConnectError {
        let mut status = self.0.status.clone();
        let found = status.wait_for(|status| matches!(status, Status::Closed(_))).await;
        match found.as_deref() {
            Ok(Status::Closed(error)) => error.clone(),
            _ => ConnectError::Closed,
        }
    }

    /// Closes the connection in good order, for all clones: what was handed to the transport is sent first, requests that wait fail.
    ///
    /// That it was sent does not say that it is handled: a server whose client has gone cancels the handlers that run, and drops what
    /// waits behind them, signals too. What must not be lost is sent in requests, whose replies are awaited first.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.closes.send(done).await.is_ok() {
            // Dropped without a word if the client has ended meanwhile.
            let _ = closed.await;
        }
    }

    /// The client's task took it and is gone, because a hook panicked or the runtime ends: it may have been sent.
    fn vanished(&self) -> RequestError {
        RequestError::Disconnected(Ended::lost("the client's task has ended"))
    }

    fn closed_error(&self) -> RequestError {
        RequestError::Closed(match &*self.0.status.borrow() {
            Status::Closed(error) => error.clone(),
            _ => ConnectError::Closed,
        })
    }

    fn next_token(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
