//! One connection, as its server sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CloseCode, ConnectionConfig};
use crate::codec::{DecodeError, EncodeError, Message, Name, Payload, RequestId, kind};

/// How long a client that has not said anything yet is not told anything: clients in browsers mistake what arrives too
/// early for the first message (section 7.3).
const QUIET: Duration = Duration::from_millis(100);

/// The code of the error reply in place of one that would be larger than the message buffer.
pub(crate) const REPLY_TOO_LARGE: &str = "REPLY_TOO_LARGE";

/// What a server knows about a connection: what its handlers do, how alive it is, whether it is being closed.
///
/// The order of calls: send [`first_message`](Self::first_message); give each message to [`receive`](Self::receive) if
/// [`admits`](Self::admits) it, and keep it back until it does; call [`finished`](Self::finished) for each handler; close
/// the connection when [`is_done`](Self::is_done), or when [`handle_timeout`](Self::handle_timeout) says so after
/// [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct ServerEngine {
    config: Arc<ConnectionConfig>,
    running: usize,
    phase: Phase,
    opened: Instant,
    /// The last whole message, or the end of a pause in reading.
    heard: Instant,
    /// When the message that has arrived in part began.
    begun: Option<Instant>,
    spoke: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No new work; what runs is awaited.
    Ending,
}

/// What a message asks the server to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// Nothing: a heartbeat, a message that only servers send, or a signal while the connection is being closed.
    Nothing,
    /// Run a handler and send its reply. Counts as running until [`ServerEngine::finished`].
    Request {
        /// Goes into the reply.
        id: RequestId,
        /// As received: any bytes.
        name: Name<'a>,
        /// As received: of the declared encoding or not.
        payload: Payload<'a>,
    },
    /// Run a handler. Counts as running until [`ServerEngine::finished`].
    Signal {
        /// As received: any bytes.
        name: Name<'a>,
        /// As received: of the declared encoding or not.
        payload: Payload<'a>,
    },
    /// Take up the session with this key, and reply.
    RestoreSession {
        /// Goes into the reply.
        id: RequestId,
        /// Any bytes.
        key: &'a [u8],
    },
    /// Close the connection's session, and reply.
    CloseSession {
        /// Goes into the reply.
        id: RequestId,
    },
    /// Send this: the connection is being closed, and the request is not handled.
    Refused(Message<'static>),
}

/// What a client did that ends its connection (section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// No message of version 2.0.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// Larger than the message buffer.
    #[error("a message of {0} bytes is larger than the message buffer")]
    TooBig(usize),
    /// Nothing was heard for the read timeout, or a message took longer to arrive.
    #[error("nothing was heard for the read timeout")]
    ReadTimeout,
}

impl Violation {
    /// What the client is told.
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Undecodable(_) => CloseCode::Malformed,
            Self::TooBig(_) => CloseCode::TooBig,
            Self::ReadTimeout => CloseCode::Policy,
        }
    }
}

/// What a handler answers a request with (section 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer<'a> {
    /// A reply, maybe empty.
    Payload(Payload<'a>),
    /// An error of the application.
    Error {
        /// 1 to 255 printable ASCII characters.
        code: &'a str,
        /// For people.
        message: &'a str,
    },
    /// The handler failed, and why is nobody's business.
    InternalError,
    /// There is no session with that key.
    SessionNotFound,
    /// The session has as many connections as it may have.
    MaxSessionConnections,
    /// The server has no sessions.
    SessionsDisabled,
    /// The server shuts down.
    Shutdown,
}

/// Why a reply was replaced by another; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyProblem {
    /// The client would refuse or misread it. An internal error was put in its place.
    #[error("the reply cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    /// It is larger than the message buffer. An error with the code `REPLY_TOO_LARGE` was put in its place.
    #[error("the reply of {size} bytes is larger than the message buffer of {limit}")]
    TooLarge {
        /// With its header, in bytes.
        size: usize,
        /// The message buffer.
        limit: usize,
    },
}

impl ServerEngine {
    /// A connection that begins now.
    pub fn new(config: Arc<ConnectionConfig>, now: Instant) -> Self {
        Self {
            config,
            running: 0,
            phase: Phase::Open,
            opened: now,
            heard: now,
            begun: None,
            spoke: false,
        }
    }

    /// Appends the first message, to be sent before anything else and without waiting for the client.
    pub fn first_message(&self, out: &mut Vec<u8>) {
        // An AcceptConf can always be encoded.
        let _ = Message::AcceptConf(self.config.accept_conf()).encode(out);
    }

    /// Whether `message` may be given to [`receive`](Self::receive) now. It may not while as many handlers run as may, and
    /// it needs one: then it and all behind it wait. Heartbeats never do.
    pub fn admits(&self, message: &[u8]) -> bool {
        let needs_handler = matches!(message.first(), Some(kind::SIGNAL..=65 | kind::REQUEST..=129));
        !needs_handler || self.has_slot()
    }

    /// Whether one more handler may run, or none will any more.
    pub fn has_slot(&self) -> bool {
        self.running < self.config.concurrency || self.phase != Phase::Open
    }

    /// What `message` asks for.
    ///
    /// # Errors
    /// The connection is to be closed with the violation's code.
    pub fn receive<'a>(&mut self, now: Instant, message: &'a [u8]) -> Result<Received<'a>, Violation> {
        self.heard = now;
        self.begun = None;
        self.spoke = true;
        if message.len() > self.config.message_buffer_size as usize {
            return Err(Violation::TooBig(message.len()));
        }
        let decoded = Message::decode(message)?;
        if self.phase != Phase::Open {
            // Section 10: new requests, those about sessions among them, are refused, and signals ignored.
            return Ok(match (decoded, decoded.id()) {
                (Message::Request { .. } | Message::CloseSession { .. } | Message::RestoreSession { .. }, Some(id)) => {
                    Received::Refused(Message::ReplyShutdown { id })
                }
                _ => Received::Nothing,
            });
        }
        Ok(match decoded {
            Message::Request { id, name, payload } => {
                self.running += 1;
                Received::Request { id, name, payload }
            }
            Message::Signal { name, payload } => {
                self.running += 1;
                Received::Signal { name, payload }
            }
            Message::RestoreSession { id, key } => Received::RestoreSession { id, key },
            Message::CloseSession { id } => Received::CloseSession { id },
            // Section 6.3: what only servers send is ignored.
            _ => Received::Nothing,
        })
    }

    /// A message has arrived in part. Its rest may take the read timeout.
    pub fn receiving(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// Something was heard that is no message, such as a Ping.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A handler has ended.
    pub fn finished(&mut self, now: Instant) {
        if !self.has_slot() {
            // Reading goes on, and with it the read timeout (section 7.4), also that of a message that has begun.
            self.heard = now;
            self.begun = self.begun.map(|_| now);
        }
        self.running = self.running.saturating_sub(1);
    }

    /// Appends the reply to a request: exactly one, whatever the handler answered.
    ///
    /// # Errors
    /// Another reply had to be put in the place of the answer; it was appended all the same.
    pub fn reply(&self, id: RequestId, answer: Answer<'_>, out: &mut Vec<u8>) -> Result<(), ReplyProblem> {
        let message = match answer {
            Answer::Payload(payload) => Message::Reply { id, payload },
            Answer::Error { code, message } => Message::ReplyError {
                id,
                code: code.as_bytes(),
                message: message.as_bytes(),
            },
            Answer::InternalError => Message::ReplyInternalError { id },
            Answer::SessionNotFound => Message::ReplySessionNotFound { id },
            Answer::MaxSessionConnections => Message::ReplyMaxSessionConnections { id },
            Answer::SessionsDisabled => Message::ReplySessionsDisabled { id },
            Answer::Shutdown => Message::ReplyShutdown { id },
        };
        let (size, limit) = (message.encoded_len(), self.config.message_buffer_size as usize);
        let (replacement, problem) = if size > limit {
            let code = REPLY_TOO_LARGE.as_bytes();
            let message = Message::ReplyError { id, code, message: &[] };
            (message, ReplyProblem::TooLarge { size, limit })
        } else {
            match message.encode(out) {
                Ok(()) => return Ok(()),
                Err(error) => (Message::ReplyInternalError { id }, error.into()),
            }
        };
        // Both replacements can always be encoded.
        let _ = replacement.encode(out);
        Err(problem)
    }

    /// Whether the client may be told something that it did not ask for. Not before it has said something, or a tenth of a
    /// second has passed.
    pub fn may_notify(&self, now: Instant) -> bool {
        self.spoke || now >= self.opened + QUIET
    }

    /// When [`may_notify`](Self::may_notify) becomes true by itself.
    pub fn quiet_until(&self) -> Instant {
        self.opened + QUIET
    }

    /// Takes no more work: new requests are refused, signals ignored, what runs is awaited.
    pub fn end(&mut self) {
        self.phase = Phase::Ending;
    }

    /// Whether [`end`](Self::end) was called.
    pub fn is_ending(&self) -> bool {
        self.phase == Phase::Ending
    }

    /// Whether the connection is being closed and no handler runs any more.
    pub fn is_done(&self) -> bool {
        self.is_ending() && self.running == 0
    }

    /// How many handlers run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). `None` while nothing is read because as many handlers run as
    /// may.
    pub fn deadline(&self) -> Option<Instant> {
        // Pings give a message that has begun no more time.
        self.has_slot()
            .then(|| self.begun.unwrap_or(self.heard) + self.config.read_timeout)
    }

    /// # Errors
    /// The client was silent for too long.
    pub fn handle_timeout(&self, now: Instant) -> Result<(), Violation> {
        match self.deadline() {
            Some(deadline) if deadline <= now => Err(Violation::ReadTimeout),
            _ => Ok(()),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<ConnectionConfig> {
        &self.config
    }
}
