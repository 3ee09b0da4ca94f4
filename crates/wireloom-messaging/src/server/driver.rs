//! The task of one connection: everything that happens on it happens here.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::Sleep;
use tokio::time::error::Elapsed;

use super::flood::Flood;
use super::handler::{ErrorKind, Panicked};
use super::outbox::{Command, Outgoing, OutgoingKind};
use super::tasks::{Done, Outcome, Running, Tasks};
use super::topic_queue::{TopicItem, TopicItemKind};
use super::{Connection, Context, Inner, Listed, Shared};
use crate::codec::{Payload, RequestId, kind};
use crate::data::IncomingMessage;
use crate::engine::{Answer, CloseCode, ConnectionConfig, Received, ServerEngine, Violation};
use crate::session::{RestoreError, Session, StoreError};
use crate::transport::{Delivery, Ended, Incoming, Link, Route};

/// Messages between two flushes of a connection whose client sends without pause, so that others get their turn.
const BUDGET: usize = 256;

/// Bytes that a client whose link is full takes before one more message of it is read: more than a Pong has, with which that may be
/// answered.
const TAKEN_FOR_ONE: u64 = 512;

/// A handler that takes so long in one step has held its connection's thread up: what was read behind it came meanwhile, and was not
/// heard when the step began.
const HELD_UP: Duration = Duration::from_millis(100);

/// Something that keeps all further messages waiting.
type Inline = Pin<Box<dyn Future<Output = InlineDone> + Send>>;

enum InlineDone {
    Connected(Result<Result<(), Panicked>, Elapsed>),
    Restored(RequestId, Route, Result<Session, RestoreError>),
    Closed(RequestId, Route, Result<bool, StoreError>),
}

/// Why the connection is over.
struct End {
    reason: Ended,
    /// Whether the client is to be told, and has not gone already.
    say: bool,
}

pub(super) struct Driver {
    link: Box<dyn Link>,
    engine: ServerEngine,
    listed: Listed,
    connection: Connection,
    tasks: Tasks,
    inline: Option<Inline>,
    /// Messages that were read ahead while as many handlers run as may.
    held: VecDeque<(Route, Bytes)>,
    held_bytes: usize,
    out: VecDeque<Outgoing>,
    /// How many of them are replies.
    replies: usize,
    /// The link has taken all of `out`, and takes these next.
    topics_out: VecDeque<TopicItem>,
    /// The link takes no more, and wakes the task when it does.
    full: bool,
    /// When the client stopped taking what it is sent.
    blocked: Option<Instant>,
    /// What the link had [taken](Link::taken) then.
    taken: u64,
    /// And when a message was read last though it did not take all.
    taken_at_read: u64,
    command: Option<Command>,
    flood: Flood,
    timer: Option<Pin<Box<Sleep>>>,
    /// Something was read, or has ended, since it was last looked what time it is.
    lively: bool,
}

impl Driver {
    pub(super) fn new(link: Box<dyn Link>, listed: Listed, config: Arc<ConnectionConfig>) -> Self {
        let connection = Connection::new(listed.inner.clone());
        Self {
            link,
            engine: ServerEngine::new(config, Instant::now()),
            listed,
            connection,
            tasks: Tasks::default(),
            inline: None,
            held: VecDeque::new(),
            held_bytes: 0,
            out: VecDeque::new(),
            replies: 0,
            topics_out: VecDeque::new(),
            full: false,
            blocked: None,
            taken: 0,
            taken_at_read: 0,
            command: None,
            flood: Flood::default(),
            timer: None,
            lively: false,
        }
    }

    pub(super) async fn run(mut self) {
        if self.begin().is_err() {
            // Gone before anybody knew of it.
            return;
        }
        let end = poll_fn(|cx| self.poll(cx)).await;
        // Boxed, so that no idle connection holds room for it.
        Box::pin(self.finish(end)).await;
    }

    fn begin(&mut self) -> Result<(), Ended> {
        let mut first = Vec::new();
        self.engine.first_message(&mut first);
        // A fresh link has room.
        self.link.send(Route::CONTROL, first.into())?;
        self.listed.owes_disconnected = true;
        self.listed.inner.runs();
        let shared = &self.listed.shared;
        let hook = shared.handler.clone().connected(self.connection.clone());
        let patience = shared.connect_timeout;
        self.inline = Some(Box::pin(async move {
            InlineDone::Connected(tokio::time::timeout(patience, hook).await)
        }));
        Ok(())
    }

    /// Handlers finish or are cancelled, the application is told, the client too.
    async fn finish(mut self, end: End) {
        let shared = self.listed.shared.clone();
        tracing::debug!(id = self.connection.id(), reason = ?end.reason.to_string(), "disconnected");
        // What it was about has no taker: dropped, it undoes itself.
        self.inline = None;
        self.listed.inner.end();
        self.tasks.cancel_all();
        let reason = end.reason.clone();
        self.listed.owes_disconnected = false;
        let handlers = async {
            say_disconnected(&shared, &self.listed.inner, reason).await;
            // Replies of handlers that end now have nowhere to go.
            while poll_fn(|cx| self.tasks.poll_next(cx)).await.is_some() {}
        };
        let link = &mut self.link;
        let goodbye = async {
            if end.say {
                let closed = poll_fn(|cx| link.poll_close(cx, end.reason.code, &end.reason.reason));
                let _ = tokio::time::timeout(shared.linger, closed).await;
            } else if end.reason.code != CloseCode::Lost {
                // The client's Close is answered.
                let closed = poll_fn(|cx| link.poll_close(cx, CloseCode::Normal, ""));
                let _ = tokio::time::timeout(shared.linger, closed).await;
            }
        };
        tokio::join!(handlers, goodbye);
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<End> {
        let mut now = Instant::now();
        let mut budget = BUDGET;
        loop {
            let command = self.listed.inner.outbox.take(&mut self.out, &mut self.topics_out);
            if command != self.command {
                self.command = command;
                if let Some(end) = self.obey() {
                    return Poll::Ready(end);
                }
            }
            match self.step(cx, now) {
                Ok(true) => {
                    budget -= 1;
                    if budget > 0 {
                        continue;
                    }
                    cx.waker().wake_by_ref();
                }
                Ok(false) => {}
                Err(end) => return Poll::Ready(end),
            }
            let flushed = match self.link.poll_flush(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(reason)) => return Poll::Ready(gone(reason)),
                Poll::Pending => false,
            };
            let was_blocked = self.is_behind();
            // What has a stream of its own, or goes to a client within the process, may wait although all else is flushed.
            let free = flushed && (!self.full || self.link.poll_ready(cx).is_ready());
            let taken = std::mem::replace(&mut self.taken, self.link.taken());
            self.blocked = match self.blocked {
                _ if free => None,
                // It takes something, if slowly.
                Some(since) if self.taken == taken => Some(since),
                _ => Some(now),
            };
            if flushed && self.is_done() {
                return Poll::Ready(self.done());
            }
            if budget == 0 {
                return Poll::Pending;
            }
            if was_blocked && free {
                // What was not written or read meanwhile.
                continue;
            }
            let blocked = self.is_behind();
            let quiet = !self.engine.may_notify(now);
            if !self.listed.inner.outbox.park(cx, self.command.as_ref(), blocked, quiet) {
                continue;
            }
            if std::mem::take(&mut self.lively) {
                let begun = std::mem::replace(&mut now, Instant::now());
                if now.duration_since(begun) > HELD_UP {
                    self.engine.heard(now);
                }
            }
            match self.poll_timers(cx, &mut now) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(violation) => return Poll::Ready(broke(&violation)),
            }
        }
    }

    /// Does one thing, if there is anything to do.
    fn step(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> Result<bool, End> {
        let blocked = self.write(cx, now)?;
        self.full = blocked;
        let mut progress = false;
        if let Some(inline) = &mut self.inline
            && let Poll::Ready(done) = inline.as_mut().poll(cx)
        {
            self.inline = None;
            self.finish_inline(done)?;
            progress = true;
        }
        while let Poll::Ready(Some(done)) = self.tasks.poll_next(cx) {
            self.finish_task(done, now);
            progress = true;
        }
        if progress {
            self.lively = true;
            // Replies first: a handler's place is free when its reply is on its way.
            return Ok(true);
        }
        let reading = self.inline.is_none() && self.may_read();
        if reading
            && self.held.front().is_some_and(|(_, bytes)| self.engine.admits(bytes))
            && let Some((route, bytes)) = self.held.pop_front()
        {
            self.held_bytes -= bytes.len();
            self.note_read();
            self.receive(cx, now, route, bytes)?;
            return Ok(true);
        }
        if self.flood.paused(now).is_some() {
            return Ok(false);
        }
        let room = self.held_bytes < self.engine.config().message_buffer_size as usize;
        match self.link.poll_recv(cx, reading && room) {
            Poll::Pending => {
                if self.link.is_receiving() {
                    self.engine.receiving(now);
                }
                return Ok(false);
            }
            Poll::Ready(Err(reason)) => return Err(gone(reason)),
            Poll::Ready(Ok(Incoming::Message { route, bytes })) => {
                let heartbeat = *bytes == [kind::HEARTBEAT];
                if heartbeat {
                    self.flood.heartbeat(now);
                } else {
                    self.flood.other();
                }
                let passes = heartbeat || (self.held.is_empty() && self.engine.admits(&bytes));
                if passes && reading {
                    self.receive(cx, now, route, bytes)?;
                } else {
                    self.held_bytes += bytes.len();
                    self.held.push_back((route, bytes));
                }
            }
            Poll::Ready(Ok(Incoming::Cancelled(route))) => {
                self.tasks.cancel(route);
                self.held.retain(|(of, _)| *of != route);
                self.held_bytes = self.held.iter().map(|(_, bytes)| bytes.len()).sum();
            }
            Poll::Ready(Ok(Incoming::Activity)) => self.engine.heard(now),
            Poll::Ready(Ok(Incoming::Draining)) => {}
        }
        self.lively = true;
        self.note_read();
        Ok(true)
    }

    /// Who does not read is not read from, or its pings would be answered into memory. Who reads more slowly than there is something to
    /// send is heard now and then, as long as no reply waits: it may want less of it.
    fn may_read(&self) -> bool {
        if !self.is_behind() {
            return true;
        }
        self.replies == 0 && self.link.taken() - self.taken_at_read >= TAKEN_FOR_ONE
    }

    fn is_behind(&self) -> bool {
        self.full || self.blocked.is_some()
    }

    fn note_read(&mut self) {
        if self.is_behind() {
            self.taken_at_read = self.link.taken();
        }
    }

    fn receive(&mut self, cx: &mut TaskContext<'_>, now: Instant, route: Route, bytes: Bytes) -> Result<(), End> {
        let shared = &self.listed.shared;
        let received = self
            .engine
            .receive(now, &bytes)
            .map_err(|violation| broke(&violation))?;
        let mut running = match received {
            Received::Nothing => return Ok(()),
            Received::Refused(reply) => {
                if let Ok(bytes) = reply.to_vec() {
                    self.send_reply(route, bytes);
                }
                return Ok(());
            }
            Received::Request { id, name, payload } => {
                let message = IncomingMessage::new(&bytes, name, payload);
                let context = self.context(route, now);
                let task = match shared
                    .topics
                    .as_ref()
                    .filter(|_| message.name_bytes().starts_with(b"$"))
                {
                    Some(topics) => topics.clone().request(context.clone(), message),
                    None => shared.handler.clone().request(context.clone(), message),
                };
                Running::request(id, route, task, context)
            }
            Received::Signal { name, payload } => {
                let message = IncomingMessage::new(&bytes, name, payload);
                let context = self.context(Route::CONTROL, now);
                let task = match shared
                    .topics
                    .as_ref()
                    .filter(|_| message.name_bytes().starts_with(b"$"))
                {
                    Some(topics) => topics.clone().signal(context.clone(), message),
                    None => shared.handler.clone().signal(context.clone(), message),
                };
                Running::signal(task, context)
            }
            Received::RestoreSession { id, key } => {
                self.restore_session(id, route, bytes.slice_ref(key));
                return Ok(());
            }
            Received::CloseSession { id } => {
                self.close_session(id, route);
                return Ok(());
            }
        };
        match running.start(cx) {
            Poll::Ready(done) => self.finish_task(done, now),
            Poll::Pending => self.tasks.push(running, shared.cancel_grace),
        }
        Ok(())
    }

    fn context(&self, route: Route, now: Instant) -> Context {
        // Beyond what the clock can say there is none.
        let deadline = self.listed.shared.handler_timeout;
        let deadline = deadline.and_then(|timeout| now.checked_add(timeout));
        Context::new(self.connection.with_route(route), deadline)
    }

    /// Section 9.4. Replaces the session that the connection has.
    fn restore_session(&mut self, id: RequestId, route: Route, key: Bytes) {
        let shared = self.listed.shared.clone();
        if shared.sessions.is_none() {
            return self.reply(id, route, Answer::SessionsDisabled);
        }
        let connection = self.connection.id();
        self.inline = Some(Box::pin(async move {
            let restored = match &shared.sessions {
                Some(sessions) => tokio::time::timeout(shared.connect_timeout, sessions.restore(connection, &key))
                    .await
                    .unwrap_or_else(|elapsed| Err(RestoreError::Store(elapsed.into()))),
                None => Err(RestoreError::NotFound),
            };
            InlineDone::Restored(id, route, restored)
        }));
    }

    /// Section 9.5.
    fn close_session(&mut self, id: RequestId, route: Route) {
        let shared = self.listed.shared.clone();
        if shared.sessions.is_none() {
            return self.reply(id, route, Answer::SessionsDisabled);
        }
        let Some(session) = self.listed.inner.take_session() else {
            return self.reply(id, route, Answer::Payload(Payload::EMPTY));
        };
        let connection = self.connection.id();
        self.inline = Some(Box::pin(async move {
            let closed = match &shared.sessions {
                Some(sessions) => {
                    tokio::time::timeout(shared.connect_timeout, sessions.close(connection, &session.key))
                        .await
                        .unwrap_or_else(|elapsed| Err(elapsed.into()))
                }
                None => Ok(false),
            };
            InlineDone::Closed(id, route, closed)
        }));
    }

    fn finish_inline(&mut self, done: InlineDone) -> Result<(), End> {
        match done {
            InlineDone::Connected(Ok(Ok(()))) => {}
            InlineDone::Connected(failed) => {
                match failed {
                    Err(_) => tracing::error!("on_connected took too long, and was dropped"),
                    Ok(_) => tracing::error!("on_connected panicked"),
                }
                return Err(told(CloseCode::Internal, ""));
            }
            InlineDone::Restored(id, route, Ok(session)) => {
                let json = session.to_json();
                let answer = if self.listed.inner.adopt(session) {
                    Answer::Payload(Payload::utf8(&json))
                } else {
                    Answer::SessionNotFound
                };
                // That the one before was created, if it was, precedes the reply that replaces it.
                let _ = self.listed.inner.outbox.take(&mut self.out, &mut self.topics_out);
                self.reply(id, route, answer);
            }
            InlineDone::Restored(id, route, Err(error)) => {
                let answer = match &error {
                    RestoreError::NotFound => Answer::SessionNotFound,
                    RestoreError::LimitReached => Answer::MaxSessionConnections,
                    RestoreError::Store(error) => {
                        tracing::error!(%error, "a session could not be looked up");
                        Answer::InternalError
                    }
                };
                self.reply(id, route, answer);
            }
            InlineDone::Closed(id, route, Ok(_)) => {
                self.reply(id, route, Answer::Payload(Payload::EMPTY));
            }
            InlineDone::Closed(id, route, Err(error)) => {
                tracing::error!(%error, "a session could not be removed");
                self.reply(id, route, Answer::InternalError);
            }
        }
        Ok(())
    }

    fn finish_task(&mut self, done: Done, now: Instant) {
        self.engine.finished(now);
        let Done::Request(id, route, outcome) = done else {
            return;
        };
        // What the handler has sent precedes its reply (section 8.3).
        let _ = self.listed.inner.outbox.take(&mut self.out, &mut self.topics_out);
        self.reply_outcome(id, route, &outcome);
    }

    fn reply_outcome(&mut self, id: RequestId, route: Route, outcome: &Outcome) {
        let answer = match outcome {
            Ok(Ok(data)) => Answer::Payload(data.payload()),
            Ok(Err(error)) => match &error.0 {
                ErrorKind::Application { code, message } => Answer::Error { code, message },
                ErrorKind::Internal(error) => {
                    tracing::error!(%error, "a request's handler failed");
                    Answer::InternalError
                }
            },
            Err(Panicked) => {
                tracing::error!("a request's handler panicked");
                Answer::InternalError
            }
        };
        self.reply(id, route, answer);
    }

    fn reply(&mut self, id: RequestId, route: Route, answer: Answer<'_>) {
        let mut bytes = Vec::new();
        if let Err(problem) = self.engine.reply(id, answer, &mut bytes) {
            tracing::error!(%problem, "a reply was replaced");
        }
        self.send_reply(route, bytes);
    }

    fn send_reply(&mut self, route: Route, bytes: Vec<u8>) {
        self.replies += 1;
        self.out.push_back(Outgoing {
            bytes: bytes.into(),
            route,
            kind: OutgoingKind::Reply,
        });
    }

    /// Gives the link what it takes. Answers whether it takes no more.
    fn write(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> Result<bool, End> {
        let (mut signals, mut any) = (0, false);
        let mut blocked = false;
        let result = loop {
            // Replies come only after the client has spoken, so that this holds back nothing else.
            if !self.engine.may_notify(now) || (self.out.is_empty() && self.topics_out.is_empty()) {
                break Ok(());
            }
            match self.link.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(reason)) => break Err(gone(reason)),
                Poll::Pending => {
                    blocked = true;
                    break Ok(());
                }
            }
            any = true;
            let Some(Outgoing { bytes, route, kind }) = self.out.pop_front() else {
                match self.send_topics() {
                    Ok(()) => continue,
                    Err(reason) => break Err(gone(reason)),
                }
            };
            let sent = match kind {
                OutgoingKind::Signal(delivery) => {
                    signals += bytes.len();
                    self.link.send_signal(bytes, delivery)
                }
                OutgoingKind::Reply => {
                    self.replies -= 1;
                    self.link.send(route, bytes)
                }
                OutgoingKind::Session => self.link.send(route, bytes),
            };
            if let Err(reason) = sent {
                break Err(gone(reason));
            }
        };
        if signals > 0 {
            self.listed.inner.outbox.sent(signals);
        }
        if any && self.blocked.is_some() {
            // It takes something, if slowly.
            self.blocked = Some(now);
        }
        result.map(|()| blocked)
    }

    fn send_topics(&mut self) -> Result<(), Ended> {
        let Some(TopicItem {
            signals, range, kind, ..
        }) = self.topics_out.pop_front()
        else {
            return Ok(());
        };
        if kind != TopicItemKind::Unreliable {
            return self.link.send_signals(&signals, range);
        }
        let messages = signals.messages()[range].iter();
        messages
            .cloned()
            .try_for_each(|message| self.link.send_signal(message, Delivery::Unreliable))
    }

    fn obey(&mut self) -> Option<End> {
        match self.command.clone()? {
            Command::End { drain, .. } => {
                self.engine.end();
                if drain {
                    self.link.drain();
                }
                None
            }
            Command::Abort { code, reason } => Some(told(code, reason)),
        }
    }

    fn is_done(&self) -> bool {
        let sent = self.out.is_empty() && self.topics_out.is_empty() && !self.listed.inner.outbox.has_topics();
        self.engine.is_done() && self.inline.is_none() && sent && self.held.is_empty()
    }

    fn done(&self) -> End {
        match &self.command {
            Some(Command::End { code, reason, .. }) => told(*code, reason.as_str()),
            _ => told(CloseCode::Normal, ""),
        }
    }

    /// Whether a timer has gone off, so that there may be something to do.
    fn poll_timers(&mut self, cx: &mut TaskContext<'_>, now: &mut Instant) -> Result<bool, Violation> {
        let timeout = self.engine.config().read_timeout;
        loop {
            let reading = self.inline.is_none() && self.blocked.is_none();
            let silence = if reading { self.engine.deadline() } else { None };
            let waits = !self.out.is_empty() || !self.topics_out.is_empty();
            let quiet = (waits && !self.engine.may_notify(*now)).then(|| self.engine.quiet_until());
            let stuck = self.blocked.map(|since| since + timeout);
            let paused = self.flood.paused(*now);
            let Some(next) = [silence, quiet, stuck, paused].into_iter().flatten().min() else {
                return Ok(false);
            };
            let next = tokio::time::Instant::from_std(next);
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            // A timer that is early finds the next deadline when it goes off: it is not moved with every message.
            if timer.deadline() > next || timer.is_elapsed() {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
            *now = Instant::now();
            if stuck.is_some_and(|at| at <= *now) {
                return Err(Violation::ReadTimeout);
            }
            if reading {
                self.engine.handle_timeout(*now)?;
            }
            if quiet.is_some_and(|at| at <= *now) || paused.is_some_and(|at| at <= *now) {
                return Ok(true);
            }
        }
    }
}

pub(super) async fn say_disconnected(shared: &Shared, inner: &Arc<Inner>, reason: Ended) {
    let connection = Connection::new(inner.clone());
    let hook = shared.handler.clone().disconnected(connection, reason);
    match tokio::time::timeout(shared.disconnect_timeout, hook).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::error!("on_disconnected panicked"),
        Err(_) => tracing::error!("on_disconnected took too long, and was dropped"),
    }
}

/// The client is gone, or has broken a rule of the transport.
fn gone(reason: Ended) -> End {
    End {
        say: reason.violation,
        reason,
    }
}

/// The client is told.
fn told(code: CloseCode, reason: impl Into<String>) -> End {
    End {
        reason: Ended::new(code, reason),
        say: true,
    }
}

fn broke(violation: &Violation) -> End {
    tracing::debug!(%violation, "a client broke the protocol");
    End {
        reason: Ended::violation(violation.close_code(), violation.to_string()),
        say: true,
    }
}
