//! A subscription that lasts over connections: it knows what it has seen, and asks for what it has missed.

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::topics::Registered;
use super::{Backoff, RequestError, Status, backoff};
use crate::Data;
use crate::topics::wire::{PresenceSignal, SubscribeReply, SubscribeRequest};
use crate::topics::{Epoch, Position, Present, TOPIC_UNAVAILABLE};

/// Events that wait for the application. While there are so many, messages wait with the client, and then with the server.
const EVENTS: usize = 256;

/// Messages that came before those that they follow.
const MAX_HELD: usize = 4096;

/// What a subscription tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TopicEvent {
    /// A message, in the order of the offsets, each once.
    Message {
        /// Grows by 1 with each, but after [`Missed`](Self::Missed).
        offset: u64,
        /// What was published.
        data: Data,
    },
    /// A message that is not kept.
    Ephemeral(Data),
    /// Messages were missed that the server does not have any more: the next message is not the one after the last.
    Missed,
    /// Who is present, first of all and after each reconnection; with [`presence`](super::Subscribe::presence).
    Here(Vec<Present>),
    /// These are present now, or have other info.
    Joined(Vec<Present>),
    /// These are no longer present.
    Left(Vec<String>),
}

/// What the client's task hears of a topic.
pub(super) enum Heard {
    Message(u64, Data),
    Ephemeral(Data),
    Presence(PresenceSignal),
    Reset,
}

/// Where it puts that.
#[derive(Clone)]
pub(super) struct Incoming {
    queue: mpsc::Sender<Heard>,
    pub(super) overflown: Arc<AtomicBool>,
}

impl Incoming {
    pub(super) fn new(queue: mpsc::Sender<Heard>) -> Self {
        Self {
            queue,
            overflown: Arc::default(),
        }
    }

    pub(super) fn push(&self, heard: Heard) {
        let is_ephemeral = matches!(heard, Heard::Ephemeral(_));
        if self.queue.try_send(heard).is_err() && !is_ephemeral {
            self.overflown.store(true, Ordering::Release);
        }
    }
}

/// A subscription to a topic. It lasts over connections: after each reconnection, and wherever messages were dropped on the way, it asks
/// for what it has missed. Dropping it ends it.
///
/// About 1280 messages wait for an application that does not take them, and up to 4096 more that have overtaken one which is missing;
/// what comes then is fetched from the topic's history later.
#[derive(Debug)]
pub struct Subscription {
    events: mpsc::Receiver<TopicEvent>,
    position: watch::Receiver<Position>,
    ended: watch::Receiver<Option<RequestError>>,
    id: Option<String>,
}

impl Subscription {
    /// The next event; `None` at the end: the client is closed, another subscription to the topic has taken this one's place, or the
    /// server refuses to renew it ([`error`](Self::error)). Cancel safe.
    pub async fn next(&mut self) -> Option<TopicEvent> {
        self.events.recv().await
    }

    /// The next message, kept or ephemeral; other events are passed over. Cancel safe.
    pub async fn next_message(&mut self) -> Option<Data> {
        loop {
            match self.next().await? {
                TopicEvent::Message { data, .. } | TopicEvent::Ephemeral(data) => return Some(data),
                _ => {}
            }
        }
    }

    /// Up to where messages have been handed out or wait to be, for [`since`](super::Subscribe::since).
    pub fn position(&self) -> Position {
        self.position.borrow().clone()
    }

    /// Why it has ended, if the server or the client's end is to blame.
    pub fn error(&self) -> Option<RequestError> {
        self.ended.borrow().clone()
    }

    /// The identifier under which others see this client, if it [joined](super::Subscribe::join).
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

impl futures_util::Stream for Subscription {
    type Item = TopicEvent;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<TopicEvent>> {
        self.events.poll_recv(cx)
    }
}

/// Keeps one subscription alive.
pub(super) struct SubscriptionTask {
    place: Registered,
    request: SubscribeRequest,
    heard: mpsc::Receiver<Heard>,
    /// Some of what was heard was dropped. (Not the whole `Incoming`: the queue ends when another takes this one's place.)
    overflown: Arc<AtomicBool>,
    status: watch::Receiver<Status>,
    events: mpsc::Sender<TopicEvent>,
    position: watch::Sender<Position>,
    epoch: Epoch,
    sequence: Sequence,
    renewals: Renewals,
}

/// How often a subscription is renewed because something was missed: at once, but with growing pauses while that brings no message. A
/// server that cannot say what it is asked for would be asked without end.
struct Renewals {
    backoff: Backoff,
    in_vain: u32,
    /// Of the last one.
    begun: Instant,
}

impl Renewals {
    fn new() -> Self {
        Self {
            // Joins and leaves may be missed meanwhile.
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            in_vain: 0,
            begun: Instant::now(),
        }
    }

    fn has_begun(&mut self) {
        self.begun = Instant::now();
    }

    fn was_of_use(&mut self) {
        self.in_vain = 0;
    }

    /// How long to wait before the next.
    fn pause(&mut self) -> Duration {
        if self.begun.elapsed() >= self.backoff.stable {
            self.in_vain = 0;
        }
        let failures = self.in_vain.checked_sub(1);
        self.in_vain = self.in_vain.saturating_add(1);
        failures.map_or(Duration::ZERO, |failures| {
            self.backoff.pause(failures, backoff::random())
        })
    }
}

/// Puts messages into the order of their offsets.
pub(crate) struct Sequence {
    /// The last that was handed out.
    last: u64,
    /// Up to here everything is on its way.
    promised: u64,
    held: BTreeMap<u64, Data>,
}

impl Sequence {
    pub(crate) fn new(from: u64, promised: u64) -> Self {
        Self {
            last: from,
            promised,
            held: BTreeMap::new(),
        }
    }

    /// The server begins after `from`, which is where this had ended if it `recovered`.
    pub(crate) fn begin(&mut self, from: u64, promised: u64, recovered: bool) {
        if recovered {
            // It may have been handed out meanwhile.
            self.last = self.last.max(from);
            self.held.retain(|offset, _| *offset > self.last);
        } else {
            *self = Self::new(from, promised);
        }
        self.promised = promised;
    }

    /// Holds a message until it is its turn.
    pub(crate) fn hold(&mut self, offset: u64, data: Data) {
        if offset > self.last {
            self.held.insert(offset, data);
        }
    }

    /// The next message, if it is here.
    pub(crate) fn next(&mut self) -> Option<(u64, Data)> {
        let entry = self.held.first_entry()?;
        if entry.key() - 1 != self.last {
            return None;
        }
        self.last = *entry.key();
        Some(entry.remove_entry())
    }

    /// Whether some will not come; then those that follow them are forgotten.
    pub(crate) fn is_broken(&mut self) -> bool {
        // What is promised may still be behind what came with the subscription before.
        let is_gap = !self.held.is_empty() && self.last >= self.promised;
        let is_broken = is_gap || self.held.len() > MAX_HELD;
        if is_broken {
            self.held.clear();
        }
        is_broken
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }
}

/// Why the task does not go on as it was.
enum Change {
    /// Something was missed.
    Again,
    /// There is another connection.
    Connected,
    End(Option<RequestError>),
}

impl SubscriptionTask {
    /// Subscribes, answers that, and goes on until the end.
    pub(super) async fn run(
        place: Registered,
        request: SubscribeRequest,
        mut answer: oneshot::Sender<Result<Subscription, RequestError>>,
    ) {
        let mut status = place.client.0.status.clone();
        let turn = place.turn().await;
        if answer.is_closed() {
            // Given up before anything was asked.
            return;
        }
        let (overflown, mut heard) = place.enter();
        // Waited for longer than by the application: an answer that is too late for it tells what there is to be taken back.
        let patience = place.client.0.request_timeout.saturating_mul(2);
        let mut given_up = status.clone();
        let begun = tokio::select! {
            begun = ask(&place, &mut status, &request, patience, &mut heard) => begun,
            // Without a connection there is nothing to take back, and the client's last handle may be this one.
            () = async {
                answer.closed().await;
                let _ = given_up.wait_for(|status| !matches!(status, Status::Connected(_))).await;
            } => Err(RequestError::TimedOut),
        };
        drop(turn);
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // There may be a connection again on which it was sent.
                let is_connected = matches!(*status.borrow(), Status::Connected(_));
                if is_connected && matches!(error, RequestError::TimedOut) {
                    unsubscribe(&place).await;
                }
                // Nobody may wait any more.
                let _ = answer.send(Err(error));
                return;
            }
        };
        let reply = &begun.reply;
        let (events, events_out) = mpsc::channel(EVENTS);
        let position = Position::new(reply.epoch.clone(), reply.from);
        let (position_in, position) = watch::channel(position);
        let (ended_in, ended) = watch::channel(None);
        let id = reply.id.clone();
        let task = Self {
            place,
            heard,
            overflown,
            status,
            events,
            position: position_in,
            epoch: reply.epoch.clone(),
            sequence: Sequence::new(reply.from, reply.offset),
            renewals: Renewals::new(),
            request,
        };
        // If nobody waits any more it is dropped, which ends it.
        let _ = answer.send(Ok(Subscription {
            events: events_out,
            position,
            ended,
            id,
        }));
        task.go_on(begun, ended_in).await;
    }

    async fn go_on(mut self, first: Begun, ended: watch::Sender<Option<RequestError>>) {
        let mut wanted = self.request.since.is_some();
        let mut begun = Some(first);
        let error = loop {
            let begun = match begun.take() {
                Some(begun) => begun,
                None => match self.renew().await {
                    Ok(begun) => begun,
                    Err(error) => break error,
                },
            };
            self.renewals.has_begun();
            let is_current = begun.is_current;
            let mut change = match self.begin(begun, wanted).await {
                Ok(()) if is_current => self.listen(None).await,
                Ok(()) => Change::Connected,
                Err(change) => change,
            };
            wanted = true;
            if let Change::Again = change {
                change = self.pause().await;
            }
            match change {
                Change::End(error) => break error,
                Change::Connected => self.renewals.was_of_use(),
                Change::Again => {}
            }
        };
        // Before the events end, so that whoever hears of the end finds the reason.
        ended.send_replace(error);
        if self.events.is_closed() {
            unsubscribe(&self.place).await;
        }
    }

    /// Asks for what came after the last message, until there is an answer that will not change.
    async fn renew(&mut self) -> Result<Begun, Option<RequestError>> {
        let mut failures = 0;
        loop {
            self.overflown.store(false, Ordering::Release);
            let mut request = SubscribeRequest {
                since: Some(Position::new(self.epoch.clone(), self.sequence.last())),
                presence: self.request.presence,
                history: self.request.history,
                join: self.request.join.clone(),
            };
            // What does not follow the last message is of no use.
            request.history.get_or_insert_default();
            let turn = self.place.turn().await;
            if !self.place.is_current() {
                return Err(None);
            }
            let patience = self.place.client.0.request_timeout;
            match ask(&self.place, &mut self.status, &request, patience, &mut self.heard).await {
                Ok(begun) => return Ok(begun),
                Err(error) if !may_pass(&error) => return Err(Some(error)),
                Err(_) => {}
            }
            drop(turn);
            let pause = Backoff::default().pause(failures, backoff::random());
            failures = failures.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.events.closed() => return Err(None),
            }
        }
    }

    /// Takes up the answer, and what came before it.
    async fn begin(&mut self, begun: Begun, wanted: bool) -> Result<(), Change> {
        let Begun { reply, early, .. } = begun;
        self.sequence.begin(reply.from, reply.offset, reply.recovered);
        if wanted && !reply.recovered {
            self.tell(TopicEvent::Missed).await?;
        }
        self.epoch = reply.epoch;
        self.told();
        if let Some(here) = reply.here {
            self.tell(TopicEvent::Here(here)).await?;
        }
        for heard in early {
            self.hear(heard).await?;
        }
        Ok(())
    }

    /// Waits until it may be renewed. What comes meanwhile is of use all the same.
    async fn pause(&mut self) -> Change {
        let pause = self.renewals.pause();
        if pause.is_zero() {
            return Change::Again;
        }
        let over = Instant::now() + pause;
        while Instant::now() < over {
            let change = self.listen(Some(over)).await;
            if !matches!(change, Change::Again) {
                return change;
            }
        }
        Change::Again
    }

    /// Not to be dropped: what it has taken up would be missing. It returns when `until` is over, between two of them.
    async fn listen(&mut self, until: Option<Instant>) -> Change {
        let over = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let mut over = std::pin::pin!(over);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut over => return Change::Again,
                next = self.heard.recv() => next,
                changed = self.status.changed() => {
                    if changed.is_err() {
                        return Change::End(None);
                    }
                    match self.status.borrow_and_update().clone() {
                        Status::Connecting { .. } => continue,
                        Status::Connected(_) => return Change::Connected,
                        Status::Closed(error) => return Change::End(Some(RequestError::Closed(error))),
                    }
                }
                () = self.events.closed() => return Change::End(None),
            };
            let Some(heard) = next else {
                return Change::End(None);
            };
            if let Err(change) = self.hear(heard).await {
                return change;
            }
            if self.heard.is_empty() && self.overflown.load(Ordering::Acquire) {
                return Change::Again;
            }
        }
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), Change> {
        match heard {
            Heard::Message(offset, data) => self.message(offset, data).await,
            Heard::Ephemeral(data) => self.tell(TopicEvent::Ephemeral(data)).await,
            Heard::Presence(PresenceSignal { join, leave }) => {
                if !join.is_empty() {
                    self.tell(TopicEvent::Joined(join)).await?;
                }
                if !leave.is_empty() {
                    self.tell(TopicEvent::Left(leave)).await?;
                }
                Ok(())
            }
            Heard::Reset => Err(Change::Again),
        }
    }

    async fn message(&mut self, offset: u64, data: Data) -> Result<(), Change> {
        self.sequence.hold(offset, data);
        while let Some((offset, data)) = self.sequence.next() {
            self.renewals.was_of_use();
            self.tell(TopicEvent::Message { offset, data }).await?;
            self.told();
        }
        if self.sequence.is_broken() {
            return Err(Change::Again);
        }
        Ok(())
    }

    fn told(&self) {
        let position = Position::new(self.epoch.clone(), self.sequence.last());
        self.position.send_replace(position);
    }

    async fn tell(&mut self, event: TopicEvent) -> Result<(), Change> {
        self.events.send(event).await.map_err(|_| Change::End(None))
    }
}

/// The server's answer.
struct Begun {
    reply: SubscribeReply,
    /// What came before it.
    early: Vec<Heard>,
    /// Whether it came over the connection that there is now, or none has come since.
    is_current: bool,
}

/// Tells the server that nobody is interested any more, unless another subscription has taken the place.
async fn unsubscribe(place: &Registered) {
    let _turn = place.turn().await;
    if !place.is_current() {
        return;
    }
    let name = format!("$unsubscribe/{}", place.name);
    // Without a connection the server has forgotten it.
    let _ = place.client.request(name, ()).timeout(Duration::from_secs(5)).await;
}

/// Subscribes, in the place's turn; what is heard meanwhile waits, up to a limit beyond which it will be asked for again.
async fn ask(
    place: &Registered,
    status: &mut watch::Receiver<Status>,
    request: &SubscribeRequest,
    patience: Duration,
    heard: &mut mpsc::Receiver<Heard>,
) -> Result<Begun, RequestError> {
    let connections = &place.client.0.topics.connections;
    let was_connected = matches!(*status.borrow_and_update(), Status::Connected(_));
    let before = connections.load(Ordering::Relaxed);
    let payload = Data::json(request).map_err(|_| RequestError::BadJson)?;
    let name = format!("$subscribe/{}", place.name);
    let mut early = Vec::new();
    let mut asked = std::pin::pin!(place.client.request(name, payload).timeout(patience).into_future());
    let reply = loop {
        tokio::select! {
            reply = &mut asked => break reply?,
            Some(next) = heard.recv(), if early.len() < MAX_HELD => early.push(next),
        }
    };
    let reply = reply.parse_json().map_err(|_| RequestError::BadReply)?;
    // Later connections are noticed from here on; earlier ones are counted already.
    status.borrow_and_update();
    let since = connections.load(Ordering::Relaxed) - before;
    Ok(Begun {
        reply,
        early,
        is_current: since == u64::from(!was_connected),
    })
}

/// Whether the answer may be another one later.
fn may_pass(error: &RequestError) -> bool {
    match error {
        RequestError::Application { code, .. } => code == TOPIC_UNAVAILABLE,
        RequestError::Internal => true,
        error => error.is_retryable(),
    }
}
