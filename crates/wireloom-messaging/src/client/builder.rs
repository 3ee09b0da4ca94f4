//! Settings of a client.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

#[cfg(feature = "websocket")]
use super::attempt::Attempt;
use super::dial::Dial;
use super::driver::Driver;
use super::hooks::Hooks;
#[cfg(feature = "websocket")]
use super::url::UrlDialer;
use super::{Backoff, Client, ConnectError, Handle, QUEUE, Status};
use crate::IncomingMessage;
use crate::engine::ClientConfig;
use crate::session::Session;
use crate::transport::{Ended, TransportKind};

/// Settings of a [`Client`].
///
/// The hooks are called by the client's task, one after the other, in the order in which things happened: they must not block, and
/// nothing is received while one runs. What takes time goes through a channel.
#[must_use]
pub struct ClientBuilder {
    target: Target,
    config: ClientConfig,
    hooks: Hooks,
    backoff: Backoff,
    request_timeout: Duration,
    connect_timeout: Duration,
    liveness: Duration,
    session: Option<Session>,
}

enum Target {
    #[cfg(feature = "websocket")]
    Url(Box<UrlDialer>),
    Dial(Arc<dyn Dial>),
}

impl ClientBuilder {
    #[cfg(feature = "websocket")]
    pub(super) fn new_url(url: String) -> Self {
        Self::new(Target::Url(Box::new(UrlDialer::new(url))))
    }

    pub(super) fn new_dial(dial: Arc<dyn Dial>) -> Self {
        Self::new(Target::Dial(dial))
    }

    fn new(target: Target) -> Self {
        Self {
            target,
            config: ClientConfig::default(),
            hooks: Hooks::default(),
            backoff: Backoff::default(),
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            liveness: Duration::from_secs(20),
            session: None,
        }
    }

    /// Whom to trust, over WebTransport and over `wss://`. Default: those that the operating system trusts. Without effect on
    /// [`Client::over`].
    #[cfg(all(feature = "webtransport", feature = "websocket"))]
    pub fn trust(mut self, trust: wireloom::ServerTrust) -> Self {
        self.dialer(|dialer| dialer.trust = trust);
        self
    }

    /// Whether the secrets of each connection are written to the file that the environment variable `SSLKEYLOGFILE` names, so that
    /// Wireshark and the like can read what was recorded. Whoever has the file can, too. Default false. Without effect on
    /// [`Client::over`], and over `wss://` where [`tls`](Self::tls) was given.
    #[cfg(all(feature = "webtransport", feature = "websocket"))]
    pub fn key_log(mut self, write: bool) -> Self {
        self.dialer(|dialer| dialer.key_log = write);
        self
    }

    /// The TLS configuration for `wss://` instead of one that follows from the trust. Needed where the feature `webtransport` is off.
    #[cfg(feature = "websocket")]
    pub fn tls(mut self, config: Arc<tokio_rustls::rustls::ClientConfig>) -> Self {
        self.dialer(|dialer| dialer.tls = Some(config));
        self
    }

    /// How requests travel over WebTransport. Default: [`Profile::Multi`](crate::transport::webtransport::Profile::Multi), a stream for
    /// each, where the server speaks it.
    #[cfg(all(feature = "webtransport", feature = "websocket"))]
    pub fn profile(mut self, profile: crate::transport::webtransport::Profile) -> Self {
        self.dialer(|dialer| dialer.profile = profile);
        self
    }

    /// How long WebTransport may take before WebSocket is tried in its place: where UDP is blocked, nothing answers. Default 2.5 s.
    #[cfg(all(feature = "webtransport", feature = "websocket"))]
    pub fn fallback_after(mut self, patience: Duration) -> Self {
        self.dialer(|dialer| dialer.patience = patience);
        self
    }

    /// A field of the request that opens each connection, over both transports: `Authorization`, `Cookie`, `Origin`. A second one of the
    /// same name takes the place of the first. What cannot be a field, or is one of the handshake's own, makes each attempt fail with
    /// [`ConnectError::Unusable`]. Without effect on [`Client::over`].
    #[cfg(feature = "websocket")]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        http::HeaderName: TryFrom<N>,
        http::HeaderValue: TryFrom<V>,
    {
        self.dialer(|dialer| dialer.attempt = dialer.attempt.clone().header(name, value));
        self
    }

    /// Called for each attempt to connect, the first included, with what is to be dialled: answers what is. For tokens that expire,
    /// which a client that reconnects after hours needs anew.
    ///
    /// The answer counts towards the [time for an attempt](Self::connect_timeout); the future is dropped when that has passed. An error is
    /// the attempt's: a [final](ConnectError::is_final) one closes the client. Without effect on [`Client::over`].
    ///
    /// ```no_run
    /// use wireloom_messaging::client::{Client, ConnectError};
    ///
    /// # async fn fetch_token() -> std::io::Result<String> { Ok(String::new()) }
    /// let client = Client::builder("https://example.com/chat").each_attempt(async |attempt| {
    ///     let token = fetch_token().await.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    ///     Ok(attempt.header("authorization", format!("Bearer {token}")))
    /// });
    /// ```
    #[cfg(feature = "websocket")]
    pub fn each_attempt<Fut>(mut self, f: impl Fn(Attempt) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<Attempt, ConnectError>> + Send + 'static,
    {
        self.dialer(|dialer| dialer.prepare = Some(Box::new(move |attempt| Box::pin(f(attempt)))));
        self
    }

    #[cfg(feature = "websocket")]
    fn dialer(&mut self, change: impl FnOnce(&mut UrlDialer)) {
        if let Target::Url(dialer) = &mut self.target {
            change(dialer);
        }
    }

    /// What is spoken on top: the server must name the same. Default none.
    pub fn sub_protocol(mut self, name: impl Into<String>) -> Self {
        self.config.sub_protocol = name.into();
        self
    }

    /// The message buffer size that the server must have. Default: any.
    pub fn message_buffer_size(mut self, bytes: u32) -> Self {
        self.config.message_buffer_size = Some(bytes);
        self
    }

    /// How long a request may take that does not say so itself, waiting for a connection included. Default 60 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long one attempt to connect may take, from dialling to the restored session. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often a server over WebSocket is looked after. One that was silent from one look to the next is sent a Ping, and when it is
    /// silent up to the look after, the connection is lost: TCP alone tells after a quarter of an hour that the network is gone, and a
    /// router that forgot the connection may never tell. Default 20 s, so that it takes 40 to 60 s; zero: never. Over WebTransport QUIC's
    /// idle timeout does that, 30 s by default.
    pub fn liveness(mut self, interval: Duration) -> Self {
        self.liveness = interval;
        self
    }

    /// The pauses between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// A session of an earlier run, restored before anything else is sent.
    pub fn session(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }

    /// Called for each signal that is none of a subscription. [`Client::signals`] has those of one name.
    pub fn on_signal(mut self, hook: impl Fn(IncomingMessage) + Send + Sync + 'static) -> Self {
        self.hooks.signal = Some(Box::new(hook));
        self
    }

    /// Called when the server made a session for this connection, and when one was restored.
    pub fn on_session_created(mut self, hook: impl Fn(&Session) + Send + Sync + 'static) -> Self {
        self.hooks.session_created = Some(Box::new(hook));
        self
    }

    /// Called when there is no session any more: the server or this client closed it, or the server does not know it when it is to
    /// be restored.
    pub fn on_session_closed(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks.session_closed = Some(Box::new(hook));
        self
    }

    /// Called for each connection, when requests may be sent.
    pub fn on_connected(mut self, hook: impl Fn(TransportKind) + Send + Sync + 'static) -> Self {
        self.hooks.connected = Some(Box::new(hook));
        self
    }

    /// Called for each connection that is over.
    pub fn on_disconnected(mut self, hook: impl Fn(&Ended) + Send + Sync + 'static) -> Self {
        self.hooks.disconnected = Some(Box::new(hook));
        self
    }

    /// The client, which begins to connect. Requests may be made at once: they wait.
    ///
    /// # Panics
    /// Outside of a tokio runtime, on which its task lives.
    pub fn build(self) -> Client {
        #[cfg_attr(
            not(feature = "websocket"),
            allow(clippy::infallible_destructuring_match, reason = "there is one without")
        )]
        let dial: Arc<dyn Dial> = match self.target {
            #[cfg(feature = "websocket")]
            Target::Url(dialer) => Arc::from(dialer as Box<dyn Dial>),
            Target::Dial(dial) => dial,
        };
        let (commands, commands_out) = mpsc::channel(QUEUE);
        let (closes, closes_out) = mpsc::channel(1);
        let (cancels, cancels_out) = mpsc::unbounded_channel();
        let (status_in, status) = watch::channel(Status::Connecting {
            failures: 0,
            last_error: None,
        });
        let session = Arc::new(Mutex::new(self.session));
        let hooks = Arc::new(self.hooks);
        let topics = hooks.topics.clone();
        let driver = Driver {
            dial,
            config: self.config,
            hooks: hooks.clone(),
            backoff: self.backoff,
            attempt_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            liveness: self.liveness,
            session: session.clone(),
            status: status_in,
            commands: commands_out,
            closes: closes_out,
            cancels: cancels_out,
            replay: Default::default(),
        };
        tokio::spawn(driver.run());
        Client(Arc::new(Handle {
            commands,
            closes,
            cancels,
            status,
            session,
            topics,
            hooks,
            next: Default::default(),
            request_timeout: self.request_timeout,
        }))
    }

    /// The client, connected: with the first attempt.
    ///
    /// # Errors
    /// The first attempt failed; the client is closed then. To have it go on trying, [`build`](Self::build) it.
    ///
    /// # Panics
    /// Outside of a tokio runtime, on which its task lives.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let client = self.build();
        let mut status = client.0.status.clone();
        let first = status
            .wait_for(|status| !matches!(status, Status::Connecting { last_error: None, .. }))
            .await;
        let error = match first.as_deref() {
            Ok(Status::Connected(_)) => None,
            Ok(
                Status::Connecting {
                    last_error: Some(error),
                    ..
                }
                | Status::Closed(error),
            ) => Some(error.clone()),
            _ => Some(ConnectError::Closed),
        };
        drop(first);
        match error {
            None => Ok(client),
            Some(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
