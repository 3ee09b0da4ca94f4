//! Handlers by name.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use super::extract::{MessageFn, Reply};
use super::handler::{Admission, ConnectionOptions, Handler, Refusal, ReplyError, unknown};
use super::{Connection, Context};
use crate::data::{Data, IncomingMessage};
use crate::transport::Ended;

type Function = Box<dyn Fn(&Context, &IncomingMessage) -> Reply + Send + Sync>;
type Hook<T> = Box<dyn Fn(T) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;
type Admitted = Pin<Box<dyn Future<Output = Result<ConnectionOptions, Refusal>> + Send>>;
type Admit = Box<dyn Fn(Admission) -> Admitted + Send + Sync>;

/// A [`Handler`] made of functions, each for the requests or signals of one name.
///
/// A function takes up to four arguments: [`Json`](super::Json), `String`, `Bytes`, [`Data`] or [`IncomingMessage`] for the
/// payload, [`Context`], [`Connection`] and [`Server`](super::Server). What it returns is the reply: `()`, text, bytes,
/// [`Json`](super::Json), [`Data`], or a `Result` of them.
///
/// ```
/// use wireloom_messaging::server::{Connection, Handlers, Json, ReplyError};
///
/// #[derive(serde::Deserialize)]
/// struct Login { user: String, password: String }
///
/// let handlers = Handlers::new()
///     .on_request("auth", async |connection: Connection, Json(login): Json<Login>| {
///         if login.password != "secret" {
///             return Err(ReplyError::new("DENIED", "wrong password"));
///         }
///         connection.create_session([("user".to_owned(), login.user.into())].into()).await?;
///         Ok("welcome")
///     })
///     .on_request("upper", async |text: String| text.to_uppercase())
///     .on_signal("eventA", async |text: String| println!("{text}"));
/// ```
#[derive(Default)]
pub struct Handlers {
    requests: HashMap<Vec<u8>, Function>,
    signals: HashMap<Vec<u8>, Function>,
    other_requests: Option<Function>,
    other_signals: Option<Function>,
    connected: Option<Hook<Connection>>,
    disconnected: Option<Hook<(Connection, Ended)>>,
    admit: Option<Admit>,
}

fn function<A>(f: impl MessageFn<A>) -> Function {
    Box::new(move |context, message| f.call(context, message))
}

impl Handlers {
    /// No handler: requests are answered with the code `UNKNOWN_REQUEST`, signals ignored.
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles the requests of this name, which may be empty. The last function of a name counts.
    #[must_use]
    pub fn on_request<A>(mut self, name: &str, f: impl MessageFn<A>) -> Self {
        self.requests.insert(name.into(), function(f));
        self
    }

    /// Handles the signals of this name, which may be empty. What the function returns is dropped, an error is logged.
    #[must_use]
    pub fn on_signal<A>(mut self, name: &str, f: impl MessageFn<A>) -> Self {
        self.signals.insert(name.into(), function(f));
        self
    }

    /// Handles the requests whose names have no function.
    #[must_use]
    pub fn on_other_requests<A>(mut self, f: impl MessageFn<A>) -> Self {
        self.other_requests = Some(function(f));
        self
    }

    /// Handles the signals whose names have no function.
    #[must_use]
    pub fn on_other_signals<A>(mut self, f: impl MessageFn<A>) -> Self {
        self.other_signals = Some(function(f));
        self
    }

    /// Called with each new connection, before its first message is read.
    #[must_use]
    pub fn on_connected<Fut>(mut self, f: impl Fn(Connection) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.connected = Some(Box::new(move |connection| Box::pin(f(connection))));
        self
    }

    /// Called once for each connection that is over, with the reason.
    #[must_use]
    pub fn on_disconnected<Fut>(mut self, f: impl Fn(Connection, Ended) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.disconnected = Some(Box::new(move |(connection, reason)| Box::pin(f(connection, reason))));
        self
    }

    /// Decides whether a client is connected, and how: see [`Handler::admit`], and [`ConnectionOptions::value`] for an example.
    #[must_use]
    pub fn admit<Fut>(mut self, f: impl Fn(Admission) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<ConnectionOptions, Refusal>> + Send + 'static,
    {
        self.admit = Some(Box::new(move |admission| Box::pin(f(admission))));
        self
    }
}

impl Handler for Handlers {
    async fn admit(&self, admission: Admission) -> Result<ConnectionOptions, Refusal> {
        match &self.admit {
            Some(admit) => admit(admission).await,
            None => Ok(ConnectionOptions::default()),
        }
    }

    async fn on_connected(&self, connection: Connection) {
        if let Some(hook) = &self.connected {
            hook(connection).await;
        }
    }

    async fn on_disconnected(&self, connection: Connection, reason: Ended) {
        if let Some(hook) = &self.disconnected {
            hook((connection, reason)).await;
        }
    }

    async fn on_signal(&self, context: Context, message: IncomingMessage) {
        let function = self.signals.get(message.name_bytes()).or(self.other_signals.as_ref());
        if let Some(function) = function
            && let Err(error) = function(&context, &message).await
        {
            let name = message.name_bytes().escape_ascii();
            tracing::warn!(%name, ?error, "the handler of a signal failed");
        }
    }

    async fn on_request(&self, context: Context, message: IncomingMessage) -> Result<Data, ReplyError> {
        let function = self.requests.get(message.name_bytes()).or(self.other_requests.as_ref());
        match function {
            Some(function) => function(&context, &message).await,
            None => Err(unknown(&message)),
        }
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |map: &HashMap<Vec<u8>, Function>| {
            let mut names: Vec<String> = map.keys().map(|name| name.escape_ascii().to_string()).collect();
            names.sort();
            names
        };
        f.debug_struct("Handlers")
            .field("requests", &names(&self.requests))
            .field("signals", &names(&self.signals))
            .finish_non_exhaustive()
    }
}
