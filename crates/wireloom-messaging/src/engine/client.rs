//! One connection, as its client sees it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use super::CloseCode;
use crate::codec::{AcceptConf, DecodeError, EncodeError, Message, Name, Payload, RequestId};

/// What a client expects of its server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The name of what is spoken on top; the server must have the same. Default: none.
    pub sub_protocol: String,
    /// The message buffer size that the server must have. Default: any.
    pub message_buffer_size: Option<u32>,
}

/// What a client knows about a connection: the requests that wait for replies, each with a token of the caller's, and when
/// to say that it is still there.
///
/// Identifiers go on counting over [`reset`](Self::reset), so that a reply can never be taken for another connection's.
#[derive(Debug)]
pub struct ClientEngine<T> {
    config: ClientConfig,
    granted: Option<Granted>,
    pending: HashMap<RequestId, T>,
    /// May name requests that are over.
    deadlines: BinaryHeap<Reverse<(Instant, RequestId)>>,
    last_id: u64,
    sent: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Granted {
    heartbeat: Duration,
    message_buffer_size: usize,
}

/// What a message means to the client.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientEvent<'a, T> {
    /// The connection is accepted: everything may be sent now.
    Accepted(AcceptConf<'a>),
    /// The reply to a request.
    Reply {
        /// What the caller gave with the request.
        token: T,
        /// What the server says.
        outcome: ReplyOutcome<'a>,
    },
    /// A signal.
    Signal {
        /// As received: any bytes.
        name: Name<'a>,
        /// As received: of the declared encoding or not.
        payload: Payload<'a>,
    },
    /// The connection has a session now: an object in JSON.
    SessionCreated {
        /// Section 9.2.
        session: &'a [u8],
    },
    /// The connection has no session any more.
    SessionClosed,
    /// Nothing: a reply to a request that is no longer waited for, or a message that only clients send.
    Ignored,
}

/// What a server replies (section 8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyOutcome<'a> {
    /// The handler's payload.
    Payload(Payload<'a>),
    /// An error of the application.
    Error {
        /// Any bytes.
        code: &'a [u8],
        /// Any bytes.
        message: &'a [u8],
    },
    /// The server shuts down and did not handle the request.
    Shutdown,
    /// The handler failed.
    Internal,
    /// There is no session with that key.
    SessionNotFound,
    /// The session has as many connections as it may have.
    MaxSessionConnections,
    /// The server has no sessions.
    SessionsDisabled,
}

/// Why a connection is not to be used: close it with [`close_code`](Self::close_code).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// No message of version 2.0.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// A message larger than the message buffer.
    #[error("a message of {0} bytes is larger than the message buffer")]
    TooBig(usize),
    /// The first message was not the server's AcceptConf, or a later one was.
    #[error("the server's messages are out of order")]
    OutOfOrder,
    /// The server speaks another version. Final: it will not change by trying again.
    #[error("the server speaks version {major} of the protocol")]
    Version {
        /// Ours is 2.
        major: u8,
    },
    /// The server speaks something else on top. Final.
    #[error("the server's sub-protocol is {0:?}")]
    SubProtocol(String),
    /// The server has another message buffer size than was asked for. Final.
    #[error("the server's message buffer is {0} bytes")]
    MessageBufferSize(u32),
}

impl Rejected {
    /// What the server is told.
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::TooBig(_) => CloseCode::TooBig,
            Self::Undecodable(_) | Self::OutOfOrder => CloseCode::Malformed,
            Self::Version { .. } | Self::SubProtocol(_) | Self::MessageBufferSize(_) => CloseCode::NotAcceptable,
        }
    }

    /// Whether trying again is of no use.
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::OutOfOrder | Self::Version { .. } | Self::SubProtocol(_) | Self::MessageBufferSize(_)
        )
    }
}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The server would refuse or misread it.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Larger than the server's message buffer.
    #[error("the message of {size} bytes is larger than the server's message buffer of {limit}")]
    TooLarge {
        /// With its header, in bytes.
        size: usize,
        /// The message buffer.
        limit: usize,
    },
    /// The server has not accepted the connection yet.
    #[error("the server has not accepted the connection yet")]
    NotAccepted,
}

impl<T> ClientEngine<T> {
    /// Before the server's first message.
    pub fn new(config: ClientConfig, now: Instant) -> Self {
        Self {
            config,
            granted: None,
            pending: HashMap::new(),
            deadlines: BinaryHeap::new(),
            last_id: 0,
            sent: now,
        }
    }

    /// What `message` means.
    ///
    /// # Errors
    /// The connection is not to be used.
    pub fn receive<'a>(&mut self, message: &'a [u8]) -> Result<ClientEvent<'a, T>, Rejected> {
        if let Some(granted) = &self.granted
            && message.len() > granted.message_buffer_size
        {
            return Err(Rejected::TooBig(message.len()));
        }
        let decoded = Message::decode(message)?;
        let reply = |this: &mut Self, id, outcome| match this.pending.remove(&id) {
            Some(token) => ClientEvent::Reply { token, outcome },
            // Normal after a deadline or a cancellation.
            None => ClientEvent::Ignored,
        };
        match (decoded, self.granted.is_some()) {
            (Message::AcceptConf(conf), false) => {
                self.accept(&conf)?;
                return Ok(ClientEvent::Accepted(conf));
            }
            (Message::AcceptConf(_), true) | (_, false) => return Err(Rejected::OutOfOrder),
            (_, true) => {}
        }
        Ok(match decoded {
            Message::Reply { id, payload } => reply(self, id, ReplyOutcome::Payload(payload)),
            Message::ReplyError { id, code, message } => reply(self, id, ReplyOutcome::Error { code, message }),
            Message::ReplyShutdown { id } => reply(self, id, ReplyOutcome::Shutdown),
            Message::ReplyInternalError { id } => reply(self, id, ReplyOutcome::Internal),
            Message::ReplySessionNotFound { id } => reply(self, id, ReplyOutcome::SessionNotFound),
            Message::ReplyMaxSessionConnections { id } => reply(self, id, ReplyOutcome::MaxSessionConnections),
            Message::ReplySessionsDisabled { id } => reply(self, id, ReplyOutcome::SessionsDisabled),
            Message::Signal { name, payload } => ClientEvent::Signal { name, payload },
            Message::SessionCreated { session } => ClientEvent::SessionCreated { session },
            Message::SessionClosed => ClientEvent::SessionClosed,
            _ => ClientEvent::Ignored,
        })
    }

    fn accept(&mut self, conf: &AcceptConf<'_>) -> Result<(), Rejected> {
        if conf.major != 2 {
            return Err(Rejected::Version { major: conf.major });
        }
        if conf.sub_protocol != self.config.sub_protocol.as_bytes() {
            let theirs = String::from_utf8_lossy(conf.sub_protocol).into_owned();
            return Err(Rejected::SubProtocol(theirs));
        }
        if self
            .config
            .message_buffer_size
            .is_some_and(|ours| ours != conf.message_buffer_size)
        {
            return Err(Rejected::MessageBufferSize(conf.message_buffer_size));
        }
        self.granted = Some(Granted {
            // Section 7.5.
            heartbeat: Duration::from_millis(u64::from(conf.read_timeout_ms)) * 3 / 4,
            message_buffer_size: conf.message_buffer_size as usize,
        });
        Ok(())
    }

    /// Appends a request. Its reply comes with `token`, unless `deadline` passes first or it is cancelled.
    ///
    /// # Errors
    /// It cannot be sent; nothing was appended.
    pub fn request(
        &mut self,
        now: Instant,
        name: Name<'_>,
        payload: Payload<'_>,
        deadline: Option<Instant>,
        token: T,
        out: &mut Vec<u8>,
    ) -> Result<RequestId, SendError> {
        self.ask(now, deadline, token, out, |id| Message::Request { id, name, payload })
    }

    /// Appends a request to take up the session with `key`. As [`request`](Self::request).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn restore_session(
        &mut self,
        now: Instant,
        key: &str,
        deadline: Option<Instant>,
        token: T,
        out: &mut Vec<u8>,
    ) -> Result<RequestId, SendError> {
        let key = key.as_bytes();
        self.ask(now, deadline, token, out, |id| Message::RestoreSession { id, key })
    }

    /// Appends a request to close the connection's session. As [`request`](Self::request).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn close_session(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        token: T,
        out: &mut Vec<u8>,
    ) -> Result<RequestId, SendError> {
        self.ask(now, deadline, token, out, |id| Message::CloseSession { id })
    }

    fn ask<'a>(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        token: T,
        out: &mut Vec<u8>,
        message: impl FnOnce(RequestId) -> Message<'a>,
    ) -> Result<RequestId, SendError> {
        let id = RequestId::from_u64(self.last_id.wrapping_add(1));
        self.send(now, &message(id), out)?;
        self.last_id = self.last_id.wrapping_add(1);
        self.pending.insert(id, token);
        if let Some(deadline) = deadline {
            self.deadlines.push(Reverse((deadline, id)));
            self.forget_old_deadlines();
        }
        Ok(id)
    }

    /// Appends a signal.
    ///
    /// # Errors
    /// It cannot be sent; nothing was appended.
    pub fn signal(
        &mut self,
        now: Instant,
        name: Name<'_>,
        payload: Payload<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.send(now, &Message::Signal { name, payload }, out)
    }

    fn send(&mut self, now: Instant, message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), SendError> {
        let limit = self.granted.ok_or(SendError::NotAccepted)?.message_buffer_size;
        let size = message.encoded_len();
        if size > limit {
            return Err(SendError::TooLarge { size, limit });
        }
        message.encode(out)?;
        self.sent = now;
        Ok(())
    }

    /// Waits no longer for a reply. The server is told only by transports that can (`Link::cancel`).
    pub fn cancel(&mut self, id: RequestId) -> Option<T> {
        self.pending.remove(&id)
    }

    /// A request whose deadline has passed. Call it until there is none.
    pub fn next_expired(&mut self, now: Instant) -> Option<(RequestId, T)> {
        while let Some(&Reverse((deadline, id))) = self.deadlines.peek() {
            if deadline > now {
                return None;
            }
            self.deadlines.pop();
            if let Some(token) = self.pending.remove(&id) {
                return Some((id, token));
            }
        }
        None
    }

    /// Appends a heartbeat if nothing was sent for three quarters of the server's read timeout.
    pub fn heartbeat(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.heartbeat_at().is_some_and(|at| at <= now) && Message::Heartbeat.encode(out).is_ok() {
            self.sent = now;
        }
    }

    /// When to call [`heartbeat`](Self::heartbeat) or [`next_expired`](Self::next_expired).
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.deadlines.peek().map(|Reverse((deadline, _))| *deadline);
        match (self.heartbeat_at(), first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn heartbeat_at(&self) -> Option<Instant> {
        let heartbeat = self.granted?.heartbeat;
        // A server without a timeout wants none.
        (heartbeat > Duration::ZERO).then(|| self.sent + heartbeat)
    }

    /// Keeps the heap within twice what is pending, however many requests were answered long before their deadlines.
    fn forget_old_deadlines(&mut self) {
        if self.deadlines.len() > 64 && self.deadlines.len() > 2 * self.pending.len() {
            let pending = &self.pending;
            self.deadlines.retain(|Reverse((_, id))| pending.contains_key(id));
        }
    }

    /// How many requests wait for a reply.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The largest message that may be sent, in bytes; `None` before the server has accepted the connection.
    pub fn message_buffer_size(&self) -> Option<usize> {
        Some(self.granted?.message_buffer_size)
    }

    /// The connection is over: gives back the tokens of all that waited, and is ready for the next connection.
    pub fn reset(&mut self, now: Instant) -> impl Iterator<Item = T> + use<T> {
        self.granted = None;
        self.deadlines.clear();
        self.sent = now;
        std::mem::take(&mut self.pending).into_values()
    }
}
