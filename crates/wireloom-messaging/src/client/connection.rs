//! One connection of a client, from the server's first message to its end.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::driver::{Driver, End};
use super::hooks::Hooks;
use super::request::{Call, Command};
use super::{ConnectError, RequestError};
use crate::codec::{Message, Name, RequestId, kind};
use crate::engine::{ClientConfig, ClientEngine, ClientEvent, CloseCode, ReplyOutcome, SendError};
use crate::session::Session;
use crate::transport::{self, Delivery, Ended, Incoming, Link, Route, TransportKind};
use crate::{Data, IncomingMessage};

/// How long a good-bye may take.
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    link: Box<dyn Link>,
    engine: ClientEngine<u64>,
    /// Requests that wait for their replies, by token.
    calls: HashMap<u64, (RequestId, Call)>,
    /// Refused by this server, which is about to go: for the next connection.
    refused: Vec<Call>,
    /// A request about the session is under way: what comes after it waits for its reply, also where each request has a stream
    /// of its own and could overtake it.
    barrier: Option<Barrier>,
    /// When that is waited for no longer: which session the connection has is not known then.
    barrier_until: Option<Instant>,
    /// How long it is waited for.
    patience: Duration,
    /// The server asked us to go: nothing new is sent, and the connection ends with the last reply.
    draining: bool,
    timer: Pin<Box<Sleep>>,
    /// When to look whether the server is alive; `None` where the transport does.
    check_at: Option<Instant>,
    /// Receiving and sending take turns at being first.
    send_first: bool,
}

/// Who waits for a reply about the session.
enum Barrier {
    Restore(oneshot::Sender<Result<Session, RequestError>>),
    CloseSession(Option<oneshot::Sender<Result<(), RequestError>>>),
}

/// Signals that are kept where they overtake the server's first message.
const MAX_EARLY: usize = 100;

/// The token of a request about the session. Others count up from zero.
const BARRIER: u64 = u64::MAX;

/// What became of the session that was to be restored.
pub(super) enum Restored {
    Nothing,
    Session(Session),
    /// The server does not have it any more.
    Gone,
}

enum Step {
    Incoming(Incoming),
    Command(Command),
    Cancel(u64),
    Timer,
    End(End),
}

impl Connection {
    /// Waits for the server's first message, and restores the session.
    pub(super) async fn open(
        link: Box<dyn Link>,
        config: ClientConfig,
        hooks: Arc<Hooks>,
        session: Option<Session>,
        patience: Duration,
    ) -> Result<(Self, Restored), ConnectError> {
        let now = Instant::now();
        let mut this = Self {
            link,
            engine: ClientEngine::new(config, now),
            calls: HashMap::new(),
            refused: Vec::new(),
            barrier: None,
            barrier_until: None,
            patience,
            draining: false,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            check_at: None,
            send_first: false,
        };
        let mut early = Vec::new();
        match this.hear(&hooks, Some(&mut early)).await? {
            Heard::Accepted => {}
            Heard::Restored(_) => return Err(ConnectError::Rejected(crate::engine::Rejected::OutOfOrder)),
        }
        for bytes in early {
            this.understand(&bytes, &hooks).await?;
        }
        let mut out = Vec::new();
        let Some(session) = session else {
            // The server may tell us things as soon as it has heard of us.
            if this.link.kind() == TransportKind::WebSocket && Message::Heartbeat.encode(&mut out).is_ok() {
                transport::send(&mut *this.link, out.into()).await?;
            }
            return Ok((this, Restored::Nothing));
        };
        let request = this
            .engine
            .restore_session(now, session.key.as_str(), None, BARRIER, &mut out);
        request.map_err(|error| ConnectError::Unusable(error.to_string()))?;
        transport::send(&mut *this.link, out.into()).await?;
        loop {
            let Heard::Restored(outcome) = this.hear(&hooks, None).await? else {
                continue;
            };
            return match outcome {
                Ok(session) => Ok((this, Restored::Session(session))),
                Err(RequestError::SessionNotFound | RequestError::SessionsDisabled | RequestError::BadSession) => {
                    Ok((this, Restored::Gone))
                }
                Err(RequestError::MaxSessionConnections) => Err(ConnectError::Restore("it has too many connections")),
                Err(RequestError::Shutdown) => Err(ConnectError::Restore("the server is shutting down")),
                Err(_) => Err(ConnectError::Restore("the server failed to")),
            };
        }
    }

    /// The next message while the connection is being opened. Where signals may overtake the server's first message, they go to `early`
    /// before that: a lost packet is nobody's fault.
    async fn hear(&mut self, hooks: &Hooks, mut early: Option<&mut Vec<Bytes>>) -> Result<Heard, ConnectError> {
        loop {
            let bytes = match transport::recv(&mut *self.link).await {
                Ok(Incoming::Message { bytes, .. }) => bytes,
                Ok(_) => continue,
                Err(ended) => {
                    if ended.violation {
                        self.end(&ended).await;
                    }
                    return Err(ended.into());
                }
            };
            if let Some(early) = &mut early
                && self.link.kind() == TransportKind::WebTransportMulti
                && (kind::SIGNAL..=kind::SIGNAL_UTF16).contains(bytes.first().unwrap_or(&0))
            {
                if early.len() < MAX_EARLY {
                    early.push(bytes);
                }
                continue;
            }
            if let Some(heard) = self.understand(&bytes, hooks).await? {
                return Ok(heard);
            }
        }
    }

    async fn understand(&mut self, bytes: &Bytes, hooks: &Hooks) -> Result<Option<Heard>, ConnectError> {
        let event = match self.engine.receive(bytes) {
            Ok(event) => event,
            Err(rejected) => {
                let ended = Ended::violation(rejected.close_code(), rejected.to_string());
                self.end(&ended).await;
                return Err(rejected.into());
            }
        };
        Ok(match event {
            ClientEvent::Accepted(conf) => {
                let limit = usize::try_from(conf.message_buffer_size).unwrap_or(usize::MAX);
                self.link.set_message_limit(limit);
                Some(Heard::Accepted)
            }
            ClientEvent::Reply { outcome, .. } => Some(Heard::Restored(session_of(outcome))),
            ClientEvent::Signal { name, payload } => {
                hooks.signal(IncomingMessage::new(bytes, name, payload));
                None
            }
            ClientEvent::SessionCreated { .. } | ClientEvent::SessionClosed | ClientEvent::Ignored => None,
        })
    }

    pub(super) fn kind(&self) -> TransportKind {
        self.link.kind()
    }

    /// Sends and receives until the connection or the client is over.
    pub(super) async fn serve(&mut self, driver: &mut Driver) -> End {
        if self.link.kind() == TransportKind::WebSocket && !driver.liveness.is_zero() {
            self.check_at = Some(Instant::now() + driver.liveness);
        }
        loop {
            let step = poll_fn(|cx| self.poll_step(driver, cx)).await;
            let done = match step {
                Step::Incoming(incoming) => self.incoming(driver, incoming),
                Step::Command(command) => self.command(driver, command),
                Step::Cancel(token) => {
                    if let Some((id, _)) = self.calls.remove(&token) {
                        self.engine.cancel(id);
                        self.link.cancel(id);
                    }
                    Ok(())
                }
                Step::Timer => self.tick(driver),
                Step::End(end) => Err(end),
            };
            if let Err(end) = done {
                return end;
            }
            if self.draining && self.engine.pending() == 0 {
                return End::Lost(Ended::new(CloseCode::Shutdown, "the server asked us to go"));
            }
        }
    }

    /// What is to be done next. Queued messages are written when there is nothing else to do, all at once.
    fn poll_step(&mut self, driver: &mut Driver, cx: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(closing) = driver.closes.poll_recv(cx) {
            return Poll::Ready(Step::End(End::Closed(closing)));
        }
        if let Poll::Ready(Some(token)) = driver.cancels.poll_recv(cx) {
            return Poll::Ready(Step::Cancel(token));
        }
        self.send_first = !self.send_first;
        for receive in [!self.send_first, self.send_first] {
            let step = if receive {
                self.poll_incoming(cx)
            } else {
                self.poll_command(driver, cx)
            };
            if step.is_ready() {
                return step;
            }
        }
        if let Poll::Ready(Err(ended)) = self.link.poll_flush(cx) {
            return Poll::Ready(Step::End(End::Lost(ended)));
        }
        match self.timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Step::Timer),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.link.poll_recv(cx, true).map(|received| match received {
            Ok(incoming) => Step::Incoming(incoming),
            Err(ended) => Step::End(End::Lost(ended)),
        })
    }

    fn poll_command(&mut self, driver: &mut Driver, cx: &mut Context<'_>) -> Poll<Step> {
        if self.barrier.is_some() || self.draining {
            return Poll::Pending;
        }
        match self.link.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(ended)) => return Poll::Ready(Step::End(End::Lost(ended))),
            Poll::Pending => return Poll::Pending,
        }
        // Among everything else: a server may have to be read from before it reads.
        if let Some(call) = driver.replay.pop_front() {
            return Poll::Ready(Step::Command(Command::Request(call)));
        }
        driver.commands.poll_recv(cx).map(|command| match command {
            Some(command) => Step::Command(command),
            // The last handle is gone.
            None => Step::End(End::Closed(None)),
        })
    }

    fn incoming(&mut self, driver: &mut Driver, incoming: Incoming) -> Result<(), End> {
        let bytes = match incoming {
            Incoming::Message { bytes, .. } => bytes,
            Incoming::Draining => {
                self.draining = true;
                return Ok(());
            }
            Incoming::Cancelled(route) => {
                self.unanswered(route);
                return Ok(());
            }
            Incoming::Activity => return Ok(()),
        };
        let event = self.engine.receive(&bytes).map_err(|rejected| {
            let reason = rejected.to_string();
            End::Lost(Ended::violation(rejected.close_code(), reason))
        })?;
        match event {
            ClientEvent::Reply { token, outcome } => self.reply(driver, token, outcome, &bytes),
            ClientEvent::Signal { name, payload } => driver.hooks.signal(IncomingMessage::new(&bytes, name, payload)),
            ClientEvent::SessionCreated { session } => match Session::from_json(session) {
                Ok(session) => driver.set_session(session),
                Err(error) => tracing::warn!(%error, "the server sent a session that is none"),
            },
            ClientEvent::SessionClosed => driver.forget_session(),
            ClientEvent::Accepted(_) | ClientEvent::Ignored => {}
        }
        Ok(())
    }

    /// The stream of a request has failed.
    fn unanswered(&mut self, route: Route) {
        let token = self.engine.cancel(route.request());
        if let Some((_, call)) = token.and_then(|token| self.calls.remove(&token)) {
            let why = Ended::lost("the server has dropped the request's stream");
            let _ = call.reply.send(Err(RequestError::Disconnected(why)));
        }
    }

    fn reply(&mut self, driver: &mut Driver, token: u64, outcome: ReplyOutcome<'_>, bytes: &Bytes) {
        if token == BARRIER {
            return self.session_reply(driver, outcome);
        }
        let Some((_, call)) = self.calls.remove(&token) else {
            return;
        };
        let answer = match outcome {
            ReplyOutcome::Payload(payload) => Ok(Data {
                encoding: payload.encoding,
                bytes: bytes.slice_ref(payload.bytes),
            }),
            // Again, from a server that has time.
            ReplyOutcome::Shutdown if call.idempotent => return self.refused.push(call),
            outcome => Err(error_of(outcome)),
        };
        // Nobody may wait any more.
        let _ = call.reply.send(answer);
    }

    fn session_reply(&mut self, driver: &mut Driver, outcome: ReplyOutcome<'_>) {
        self.barrier_until = None;
        match self.barrier.take() {
            Some(Barrier::Restore(reply)) => {
                let answer = session_of(outcome);
                if let Ok(session) = &answer {
                    driver.set_session(session.clone());
                }
                let _ = reply.send(answer);
            }
            Some(Barrier::CloseSession(Some(reply))) => {
                let answer = match outcome {
                    ReplyOutcome::Payload(_) => Ok(()),
                    outcome => Err(error_of(outcome)),
                };
                if answer.is_ok() {
                    driver.forget_session();
                }
                let _ = reply.send(answer);
            }
            Some(Barrier::CloseSession(None)) | None => {}
        }
    }

    fn command(&mut self, driver: &mut Driver, command: Command) -> Result<(), End> {
        match command {
            Command::Request(call) => return self.call(call),
            Command::Signal {
                name,
                data,
                delivery,
                sent,
            } => {
                let answer = self.signal(&name, &data, delivery);
                let lost = answer.as_ref().err().and_then(|error| match error {
                    RequestError::Disconnected(ended) => Some(ended.clone()),
                    _ => None,
                });
                let _ = sent.send(answer);
                return lost.map_or(Ok(()), |ended| Err(End::Lost(ended)));
            }
            Command::Restore(key, reply) => {
                let mut out = Vec::new();
                let (now, key) = (Instant::now(), key.as_str());
                return match self.engine.restore_session(now, key, None, BARRIER, &mut out) {
                    Ok(_) => self.ask(Barrier::Restore(reply), out),
                    Err(error) => {
                        let _ = reply.send(Err(error.into()));
                        Ok(())
                    }
                };
            }
            Command::CloseSession { was_taken, reply } => {
                if was_taken || driver.current_session().is_some() {
                    return self.close_session(Some(reply));
                }
                let _ = reply.send(Ok(()));
            }
        }
        Ok(())
    }

    fn close_session(&mut self, reply: Option<oneshot::Sender<Result<(), RequestError>>>) -> Result<(), End> {
        let mut out = Vec::new();
        match self.engine.close_session(Instant::now(), None, BARRIER, &mut out) {
            Ok(_) => self.ask(Barrier::CloseSession(reply), out),
            Err(error) => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(error.into()));
                }
                Ok(())
            }
        }
    }

    /// The application has logged out while the session was being restored.
    pub(super) fn close_forgotten_session(&mut self) {
        // If the link is over, so is what it had.
        let _ = self.close_session(None);
    }

    /// The application may have done so when the session was restored and this was not connected yet.
    pub(super) fn close_if_forgotten(&mut self, driver: &Driver, had: bool) {
        if had && self.barrier.is_none() && driver.current_session().is_none() {
            self.close_forgotten_session();
        }
    }

    fn ask(&mut self, barrier: Barrier, out: Vec<u8>) -> Result<(), End> {
        self.barrier = Some(barrier);
        self.barrier_until = Instant::now().checked_add(self.patience);
        // The timer learns of that.
        self.timer.as_mut().reset(tokio::time::Instant::now());
        self.link.send(Route::CONTROL, out.into()).map_err(End::Lost)
    }

    fn call(&mut self, mut call: Call) -> Result<(), End> {
        if call.reply.is_closed() {
            return Ok(());
        }
        let mut out = Vec::with_capacity(11 + call.name.len() + call.data.bytes.len());
        let asked = Name::new(&call.name).map_err(SendError::from).and_then(|name| {
            let (now, payload) = (Instant::now(), call.data.payload());
            self.engine.request(now, name, payload, None, call.token, &mut out)
        });
        match asked {
            Ok(id) => {
                if !call.idempotent {
                    // Never needed again.
                    (call.name, call.data) = (String::new(), Data::EMPTY);
                }
                self.calls.insert(call.token, (id, call));
                self.link.send(Route::CONTROL, out.into()).map_err(End::Lost)
            }
            Err(error) => {
                // This server does not take it; one before may have.
                let error = if call.was_sent {
                    RequestError::Disconnected(Ended::lost(error))
                } else {
                    error.into()
                };
                let _ = call.reply.send(Err(error));
                Ok(())
            }
        }
    }

    fn signal(&mut self, name: &str, data: &Data, delivery: Delivery) -> Result<(), RequestError> {
        let mut out = Vec::with_capacity(2 + name.len() + 1 + data.bytes.len());
        self.engine
            .signal(Instant::now(), Name::new(name)?, data.payload(), &mut out)?;
        self.link
            .send_signal(out.into(), delivery)
            .map_err(RequestError::Disconnected)
    }

    /// Says that the client is alive, and asks whether the server is.
    fn tick(&mut self, driver: &Driver) -> Result<(), End> {
        let now = Instant::now();
        if self.check_at.is_some_and(|at| at <= now) {
            if !self.link.check_alive() {
                return Err(End::Lost(Ended::lost("the server gives no sign of life")));
            }
            self.check_at = Some(now + driver.liveness);
        }
        if self.barrier_until.is_some_and(|at| at <= now) {
            return Err(End::Lost(Ended::lost("the server does not answer about the session")));
        }
        let mut out = Vec::new();
        self.engine.heartbeat(now, &mut out);
        if !out.is_empty() {
            self.link.send(Route::CONTROL, out.into()).map_err(End::Lost)?;
        }
        // A server without a read timeout wants no heartbeat.
        let next = [self.engine.deadline(), self.check_at, self.barrier_until];
        let next = next.into_iter().flatten().min();
        let next = next.unwrap_or(now + Duration::from_secs(3600));
        self.timer.as_mut().reset(next.into());
        Ok(())
    }

    /// Requests that wait fail, or are to be sent again.
    pub(super) fn give_up(&mut self, driver: &mut Driver, why: &Ended) {
        // Their tokens; who waits is in `calls`.
        drop(self.engine.reset(Instant::now()));
        let error = RequestError::Disconnected(why.clone());
        match self.barrier.take() {
            Some(Barrier::Restore(reply)) => drop(reply.send(Err(error.clone()))),
            Some(Barrier::CloseSession(Some(reply))) => drop(reply.send(Err(error.clone()))),
            Some(Barrier::CloseSession(None)) | None => {}
        }
        let mut again = std::mem::take(&mut self.refused);
        for (_, mut call) in std::mem::take(&mut self.calls).into_values() {
            if call.idempotent {
                call.was_sent = true;
                again.push(call);
            } else {
                let _ = call.reply.send(Err(error.clone()));
            }
        }
        again.extend(driver.replay.drain(..));
        again.sort_by_key(|call| call.token);
        driver.replay.extend(again);
    }

    /// Says good-bye if there is anybody to hear it.
    pub(super) async fn end(&mut self, ended: &Ended) {
        if ended.code == CloseCode::Lost {
            return;
        }
        let closing = transport::close(&mut *self.link, ended.code, &ended.reason);
        // A server that does not answer is cut off.
        let _ = tokio::time::timeout(GOODBYE, closing).await;
    }
}

enum Heard {
    Accepted,
    Restored(Result<Session, RequestError>),
}

fn session_of(outcome: ReplyOutcome<'_>) -> Result<Session, RequestError> {
    match outcome {
        ReplyOutcome::Payload(payload) => Session::from_json(payload.bytes).map_err(|_| RequestError::BadSession),
        outcome => Err(error_of(outcome)),
    }
}

fn error_of(outcome: ReplyOutcome<'_>) -> RequestError {
    match outcome {
        ReplyOutcome::Error { code, message } => RequestError::Application {
            code: String::from_utf8_lossy(code).into_owned(),
            message: String::from_utf8_lossy(message).into_owned(),
        },
        ReplyOutcome::Shutdown => RequestError::Shutdown,
        ReplyOutcome::SessionNotFound => RequestError::SessionNotFound,
        ReplyOutcome::MaxSessionConnections => RequestError::MaxSessionConnections,
        ReplyOutcome::SessionsDisabled => RequestError::SessionsDisabled,
        ReplyOutcome::Internal | ReplyOutcome::Payload(_) => RequestError::Internal,
    }
}
