//! What an application does with connections, signals and requests.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::values::Values;
use super::{Connection, Context};
use crate::data::{Data, IncomingMessage};
use crate::transport::{Ended, TransportKind};

/// The code of the error reply to a request whose name no handler has.
pub const UNKNOWN_REQUEST: &str = "UNKNOWN_REQUEST";

/// The code of the error reply to a request whose payload is not what its handler takes.
pub const INVALID_PAYLOAD: &str = "INVALID_PAYLOAD";

/// The code of the error reply to a request whose handler took longer than
/// [`handler_timeout`](super::ServerBuilder::handler_timeout).
pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";

/// What a request that failed is answered with.
///
/// [`new`](Self::new) is an error of the application that the client sees. Every error type converts into an internal
/// error, so that `?` works: the client learns that the handler failed, the log learns why.
pub struct ReplyError(pub(super) ErrorKind);

#[derive(Debug)]
pub(super) enum ErrorKind {
    Application { code: String, message: String },
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl ReplyError {
    /// An error that the client sees: a code of 1 to 255 printable ASCII characters, and a message for people. With any
    /// other code the client gets an internal error, and the log says so.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self(ErrorKind::Application {
            code: code.into(),
            message: message.into(),
        })
    }

    /// An error that is logged and of which the client learns nothing.
    pub fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(ErrorKind::Internal(error.into()))
    }

    /// The code that the client sees, if it sees one.
    pub fn code(&self) -> Option<&str> {
        match &self.0 {
            ErrorKind::Application { code, .. } => Some(code),
            ErrorKind::Internal(_) => None,
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for ReplyError {
    fn from(error: E) -> Self {
        Self::internal(error)
    }
}

impl std::fmt::Debug for ReplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A client that asks to be connected, before anything is answered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Admission {
    /// What the connection will be carried by.
    pub transport: TransportKind,
    /// Where the client is, where the server beneath says so.
    pub remote: Option<SocketAddr>,
    /// What was asked for; an authority only where the client named it here, as with HTTP/2 and HTTP/3.
    pub uri: http::Uri,
    /// The fields of the HTTP request. Browsers send cookies with WebSocket alone, and fields of a page's own with neither.
    pub headers: http::HeaderMap,
    /// What the server beneath and layers in front of a [service](super::Server::service) have put into the request, such as
    /// `wireloom::TlsInfo`, or the user that a middleware has found. Empty without a router.
    pub extensions: http::Extensions,
}

impl Admission {
    /// The URL's path.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The URL's query, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }
}

/// What a connection is given that others are not.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ConnectionOptions {
    /// Instead of [`ServerBuilder::concurrency`](super::ServerBuilder::concurrency).
    pub concurrency: Option<usize>,
    pub(super) values: Values,
}

impl ConnectionOptions {
    /// How many handlers of requests and signals run at once.
    #[must_use]
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.concurrency = Some(limit);
        self
    }

    /// Keeps a value with the connection from the beginning, in the place of the last one of its type: what was learnt about the
    /// client is found by handlers with [`Connection::get`].
    ///
    /// ```
    /// use wireloom_messaging::server::{Admission, Connection, ConnectionOptions, Handlers, Refusal};
    ///
    /// struct User(String);
    ///
    /// async fn admit(admission: Admission) -> Result<ConnectionOptions, Refusal> {
    ///     let token = admission.query().and_then(|query| query.strip_prefix("token="));
    ///     let user = match token {
    ///         Some("secret") => User("ann".to_owned()), // of a database, say
    ///         _ => return Err(Refusal::new(http::StatusCode::UNAUTHORIZED, "no token")),
    ///     };
    ///     Ok(ConnectionOptions::default().value(user))
    /// }
    ///
    /// let handlers = Handlers::new().admit(admit).on_request("who am I", async |connection: Connection| {
    ///     connection.get::<User>().map_or_else(String::new, |user| user.0.clone())
    /// });
    /// ```
    #[must_use]
    pub fn value<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.values.insert(value);
        self
    }
}

impl std::fmt::Debug for ConnectionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionOptions")
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// Why a client is not connected.
#[derive(Debug, Clone)]
#[cfg_attr(not(any(feature = "websocket", feature = "webtransport")), allow(dead_code))]
pub struct Refusal {
    pub(super) status: http::StatusCode,
    pub(super) reason: String,
}

impl Refusal {
    /// The client gets this status, and the reason as text. A status that refuses nothing becomes 403.
    pub fn new(status: http::StatusCode, reason: impl Into<String>) -> Self {
        let refuses = status.is_client_error() || status.is_server_error() || status.is_redirection();
        Self {
            status: if refuses { status } else { http::StatusCode::FORBIDDEN },
            reason: reason.into(),
        }
    }

    #[cfg(any(feature = "websocket", feature = "webtransport"))]
    pub(super) fn unavailable(reason: &str) -> Self {
        Self::new(http::StatusCode::SERVICE_UNAVAILABLE, reason)
    }
}

/// What an application does with connections, signals and requests. Every method has a default.
///
/// [`Handlers`](super::Handlers) is one made of functions by name. A method that panics harms nobody else: a request gets
/// an internal error, a new connection is closed.
///
/// Handlers of one connection run in its task: at most as many at once as the concurrency limit says, and not in parallel.
/// One that computes for long should do it in [`tokio::task::spawn_blocking`].
///
/// When the client has gone away or given the request up, [`Context::cancelled`] resolves; a handler that does not end by
/// itself is dropped [some time](super::ServerBuilder::cancel_grace) later. Over WebSocket, whose one stream keeps its
/// order, the end of a client that has more than a message buffer of further requests waiting is seen when those are read.
///
/// A shutdown waits for [`on_disconnected`](Self::on_disconnected) as it waits for handlers, but not for
/// [ever](super::ServerBuilder::disconnect_timeout).
pub trait Handler: Send + Sync + 'static {
    /// A client asks to be connected. Called before anything is answered; the default admits everybody whose
    /// [origin](super::ServerBuilder::allow_origin) is not refused.
    ///
    /// It may ask a database or another server, but not for [ever](super::ServerBuilder::connect_timeout): beyond that it is dropped, and
    /// the client told to try later (503). It is dropped, too, when a shutdown begins, and may be when the client gives up. One that
    /// panics refuses with 500. Connections under way count towards [`max_connections`](super::ServerBuilder::max_connections).
    ///
    /// Links that are given to [`Server::run`](super::Server::run), memory among them, have no request: nobody is asked about them.
    ///
    /// # Errors
    /// The client is refused.
    fn admit(&self, admission: Admission) -> impl Future<Output = Result<ConnectionOptions, Refusal>> + Send {
        let _ = admission;
        ready(Ok(ConnectionOptions::default()))
    }

    /// A client is connected. No message of its is read before this returns, which may not take for
    /// [ever](super::ServerBuilder::connect_timeout).
    fn on_connected(&self, connection: Connection) -> impl Future<Output = ()> + Send {
        let _ = connection;
        ready(())
    }

    /// A client is no longer connected, for this reason. Handlers of its messages may still run. Called exactly once for
    /// each that was connected, as long as the runtime runs.
    fn on_disconnected(&self, connection: Connection, reason: Ended) -> impl Future<Output = ()> + Send {
        let _ = (connection, reason);
        ready(())
    }

    /// A signal. The default ignores it.
    fn on_signal(&self, context: Context, message: IncomingMessage) -> impl Future<Output = ()> + Send {
        let _ = (context, message);
        ready(())
    }

    /// A request, which gets exactly one reply: what this returns. The default answers with the code
    /// [`UNKNOWN_REQUEST`].
    ///
    /// # Errors
    /// The reply is an error.
    fn on_request(
        &self,
        context: Context,
        message: IncomingMessage,
    ) -> impl Future<Output = Result<Data, ReplyError>> + Send {
        let _ = context;
        ready(Err(unknown(&message)))
    }
}

pub(crate) fn unknown(message: &IncomingMessage) -> ReplyError {
    ReplyError::new(
        UNKNOWN_REQUEST,
        format!("no handler for \"{}\"", message.name_bytes().escape_ascii()),
    )
}

/// The handler panicked.
pub(crate) struct Panicked;

pub(crate) type Task<T> = Pin<Box<dyn Future<Output = Result<T, Panicked>> + Send>>;

/// [`Handler`] behind a pointer.
pub(super) trait DynHandler: Send + Sync {
    #[cfg_attr(not(any(feature = "websocket", feature = "webtransport")), allow(dead_code))]
    fn admit(self: Arc<Self>, admission: Admission) -> Task<Result<ConnectionOptions, Refusal>>;
    fn connected(self: Arc<Self>, connection: Connection) -> Task<()>;
    fn disconnected(self: Arc<Self>, connection: Connection, reason: Ended) -> Task<()>;
    fn signal(self: Arc<Self>, context: Context, message: IncomingMessage) -> Task<()>;
    fn request(self: Arc<Self>, context: Context, message: IncomingMessage) -> Task<Result<Data, ReplyError>>;
}

/// A panic leaves nothing half done that anybody else sees: what the handler shares, it has made safe itself.
pub(crate) fn guarded<T>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Box::pin(
        AssertUnwindSafe(task)
            .catch_unwind()
            .map(|done| done.map_err(|_| Panicked)),
    )
}

impl<H: Handler> DynHandler for H {
    fn admit(self: Arc<Self>, admission: Admission) -> Task<Result<ConnectionOptions, Refusal>> {
        guarded(async move { Handler::admit(&*self, admission).await })
    }

    fn connected(self: Arc<Self>, connection: Connection) -> Task<()> {
        guarded(async move { self.on_connected(connection).await })
    }

    fn disconnected(self: Arc<Self>, connection: Connection, reason: Ended) -> Task<()> {
        guarded(async move { self.on_disconnected(connection, reason).await })
    }

    fn signal(self: Arc<Self>, context: Context, message: IncomingMessage) -> Task<()> {
        guarded(async move { self.on_signal(context, message).await })
    }

    fn request(self: Arc<Self>, context: Context, message: IncomingMessage) -> Task<Result<Data, ReplyError>> {
        guarded(async move { self.on_request(context, message).await })
    }
}
