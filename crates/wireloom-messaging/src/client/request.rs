//! Requests and signals before they are sent.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Client, RequestError};
use crate::Data;
use crate::codec::Name;
use crate::session::{Session, SessionKey};
use crate::transport::Delivery;

/// What the client's task is to send.
pub(super) enum Command {
    Request(Call),
    Signal {
        name: String,
        data: Data,
        delivery: Delivery,
        sent: oneshot::Sender<Result<(), RequestError>>,
    },
    Restore(SessionKey, oneshot::Sender<Result<Session, RequestError>>),
    CloseSession {
        /// The application has taken the session from the client already; the connection may have it.
        was_taken: bool,
        reply: oneshot::Sender<Result<(), RequestError>>,
    },
}

impl Command {
    pub(super) fn fail(self, error: RequestError) {
        // Nobody may wait any more.
        match self {
            Self::Request(call) => drop(call.reply.send(Err(error))),
            Self::Signal { sent, .. } => drop(sent.send(Err(error))),
            Self::Restore(_, reply) => drop(reply.send(Err(error))),
            Self::CloseSession { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// A request on its way. Nobody waits for its reply if the receiver is gone.
pub(super) struct Call {
    /// Unique within the client, and growing.
    pub(super) token: u64,
    pub(super) name: String,
    pub(super) data: Data,
    /// Sent again over the next connection when this one is lost.
    pub(super) idempotent: bool,
    /// A connection was lost on which it had been sent, and not answered.
    pub(super) was_sent: bool,
    pub(super) reply: oneshot::Sender<Result<Data, RequestError>>,
}

/// A request that is sent when it is awaited. See [`Client::request`].
#[must_use = "a request is sent when it is awaited"]
pub struct Request<'a> {
    client: &'a Client,
    name: String,
    data: Data,
    timeout: Duration,
    idempotent: bool,
}

impl<'a> Request<'a> {
    pub(super) fn new(client: &'a Client, name: String, data: Data) -> Self {
        Self {
            client,
            name,
            data,
            timeout: client.0.request_timeout,
            idempotent: false,
        }
    }

    /// How long it may take, from now to the reply, waiting for a connection included. Default: the client's, 60 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// It does no harm if it is handled twice: when the connection is lost before the reply, or the server shuts down, it is sent again
    /// over the next connection. If there is none any more, because the client is closed, it fails with
    /// [`RequestError::Disconnected`]: it may have been handled.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    async fn send(self) -> Result<Data, RequestError> {
        Name::new(&self.name)?;
        let client = self.client;
        let token = client.next_token();
        let (reply, answer) = oneshot::channel();
        let call = Command::Request(Call {
            token,
            name: self.name,
            data: self.data,
            idempotent: self.idempotent,
            was_sent: false,
            reply,
        });
        let mut cancel = CancelOnDrop {
            client,
            token,
            waits: false,
        };
        let done = async {
            if client.0.commands.send(call).await.is_err() {
                return Err(client.closed_error());
            }
            cancel.waits = true;
            let answer = answer.await;
            cancel.waits = false;
            answer.unwrap_or_else(|_| Err(client.vanished()))
        };
        tokio::time::timeout(self.timeout, done)
            .await
            .unwrap_or(Err(RequestError::TimedOut))
    }
}

impl<'a> IntoFuture for Request<'a> {
    type Output = Result<Data, RequestError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Tells the client's task that nobody waits any more.
struct CancelOnDrop<'a> {
    client: &'a Client,
    token: u64,
    waits: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.waits {
            // Fails if the client has ended, and its requests with it.
            let _ = self.client.0.cancels.send(self.token);
        }
    }
}

/// A signal that is sent when it is awaited. See [`Client::signal`].
#[must_use = "a signal is sent when it is awaited"]
pub struct Signal<'a> {
    client: &'a Client,
    name: String,
    data: Data,
    delivery: Delivery,
}

impl<'a> Signal<'a> {
    pub(super) fn new(client: &'a Client, name: String, data: Data) -> Self {
        Self {
            client,
            name,
            data,
            delivery: Delivery::Ordered,
        }
    }

    /// May overtake other signals and be overtaken, over WebTransport in profile M: a lost packet holds up no more than it must.
    pub fn unordered(mut self) -> Self {
        self.delivery = Delivery::Unordered;
        self
    }

    /// May be lost, over WebTransport in profile M: a datagram, if it fits into one.
    pub fn unreliable(mut self) -> Self {
        self.delivery = Delivery::Unreliable;
        self
    }

    async fn send(self) -> Result<(), RequestError> {
        Name::new(&self.name)?;
        let client = self.client;
        let (sent, answer) = oneshot::channel();
        let command = Command::Signal {
            name: self.name,
            data: self.data,
            delivery: self.delivery,
            sent,
        };
        let done = async {
            if client.0.commands.send(command).await.is_err() {
                return Err(client.closed_error());
            }
            answer.await.unwrap_or_else(|_| Err(client.vanished()))
        };
        tokio::time::timeout(client.0.request_timeout, done)
            .await
            .unwrap_or(Err(RequestError::TimedOut))
    }
}

impl<'a> IntoFuture for Signal<'a> {
    type Output = Result<(), RequestError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
