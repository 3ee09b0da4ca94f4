//! One connection's subscription to one topic.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::broker::History;
use super::feed::LocalTopic;
use super::message::{self, Batch, Framing, PresenceBatch, presence_signals};
use super::options::{SlowSubscriber, Topic};
use super::wire::{PresenceSignal, Present};
use crate::codec::{Message, Name, Payload};
use crate::server::{Inner, TopicItem, TopicItemKind};
use crate::transport::Signals;

/// Something that all subscribers of a topic are told.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Messages(Arc<Batch>),
    Presence(Arc<PresenceBatch>),
    Reset,
}

impl Change {
    fn size(&self) -> usize {
        match self {
            Self::Messages(batch) => batch.size(),
            Self::Presence(presence) => presence.size(),
            Self::Reset => 100,
        }
    }
}

/// Bytes of the past that are queued together, unless one message is longer.
const PIECE: usize = 32 * 1024;

pub(crate) struct Subscription {
    pub(super) local: Arc<LocalTopic>,
    connection: Arc<Inner>,
    framing: Framing,
    /// Whether it is told of joins and leaves.
    presence: bool,
    /// Where it is among the topic's subscribers, under whose lock this is used.
    place: AtomicUsize,
    /// A reset waits in the connection's outbox, under whose lock this is used.
    reset: AtomicBool,
    state: Mutex<State>,
}

enum State {
    /// The past is being looked up: what happens meanwhile waits. `None`: too much of it.
    Waiting(Option<Vec<Change>>, usize),
    Live {
        /// What was queued or dropped last.
        last: u64,
    },
    Over,
}

impl Subscription {
    pub(super) fn new(local: Arc<LocalTopic>, connection: Arc<Inner>, framing: Framing, presence: bool) -> Arc<Self> {
        Arc::new(Self {
            local,
            connection,
            framing,
            presence,
            place: AtomicUsize::new(usize::MAX),
            reset: AtomicBool::new(false),
            state: Mutex::new(State::Waiting(Some(Vec::new()), 0)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed)
    }

    pub(super) fn set_place(&self, place: usize) {
        self.place.store(place, Ordering::Relaxed);
    }

    pub(super) fn topic(&self) -> &Topic {
        &self.local.topic
    }

    pub(super) fn connection(&self) -> &Inner {
        &self.connection
    }

    pub(crate) fn policy(&self) -> SlowSubscriber {
        self.topic().options.slow_subscriber
    }

    /// Whether its client is told that it has missed something.
    pub(crate) fn can_reset(&self) -> bool {
        self.framing == Framing::Offset
    }

    /// For the outbox: whether its client will be told so already.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    pub(crate) fn set_reset(&self, reset: bool) {
        self.reset.store(reset, Ordering::Relaxed);
    }

    /// For the outbox, when it has dropped something that only this makes good.
    pub(crate) fn reset_item(self: &Arc<Self>) -> TopicItem {
        let name = format!("$reset/{}", self.topic().name);
        let message = Name::new(&name).and_then(|name| {
            let payload = Payload::utf8("");
            Message::Signal { name, payload }.to_vec()
        });
        // The name is one: a verb and the name of a topic.
        let signals: Signals = message.ok().map(Into::into).into_iter().collect();
        let range = 0..signals.messages().len();
        TopicItem::new(self.clone(), Arc::new(signals), range, TopicItemKind::Reset)
    }

    pub(super) fn push(self: &Arc<Self>, change: &Change) {
        let mut state = self.lock();
        match &mut *state {
            State::Live { last } => self.queue(change, last),
            State::Waiting(waiting, size) => {
                *size += change.size();
                if *size > self.connection.pending_limit() {
                    *waiting = None;
                }
                if let Some(waiting) = waiting {
                    waiting.push(change.clone());
                }
            }
            State::Over => {}
        }
    }

    /// The past is known: queues it, the others who are present, and what has happened since. `false` if the subscription is over.
    pub(super) fn go_live(self: &Arc<Self>, history: History, others: Vec<Present>) -> bool {
        let mut state = self.lock();
        let State::Waiting(waiting, _) = &mut *state else {
            return false;
        };
        let waiting = waiting.take();
        let mut last = history.from;
        let mut past = &history.messages[..];
        last = past.last().and_then(|last| last.offset()).unwrap_or(last);
        while !past.is_empty() {
            // The messages are everybody's. What a link makes of them, for this subscriber alone, it makes of a piece at a time.
            let mut size = 0;
            let fits = past.iter().take_while(|message| {
                size += message.size();
                size <= PIECE
            });
            let (piece, rest) = past.split_at(fits.count().max(1));
            let signals: Signals = piece.iter().map(|message| message.frame(self.framing)).collect();
            self.put(TopicItemKind::Past, &Arc::new(signals), 0..piece.len());
            past = rest;
        }
        if !others.is_empty() {
            let others = PresenceSignal {
                join: others,
                ..PresenceSignal::default()
            };
            let others = presence_signals(&others, &self.topic().name, self.connection.message_buffer());
            let range = 0..others.messages().len();
            // What was asked for: were it dropped, the client would ask for it again, and for ever.
            self.put(TopicItemKind::Past, &self.local.share_rest(others), range);
        }
        match waiting {
            Some(waiting) => waiting.iter().for_each(|change| self.queue(change, &mut last)),
            None if self.can_reset() => self.connection.outbox.push_topic(self.reset_item(), usize::MAX),
            None => {}
        }
        *state = State::Live { last };
        true
    }

    /// Nothing more is queued after this, and what is queued is dropped.
    pub(super) fn end(self: &Arc<Self>) {
        *self.lock() = State::Over;
        self.connection.outbox.drop_topic(self);
    }

    fn queue(self: &Arc<Self>, change: &Change, last: &mut u64) {
        match change {
            Change::Messages(batch) if batch.is_ephemeral() => {
                let kind = if self.topic().options.unreliable_ephemerals {
                    TopicItemKind::Unreliable
                } else {
                    TopicItemKind::Ephemeral
                };
                self.put_batch(kind, batch, 0..batch.messages().len());
            }
            Change::Messages(batch) => {
                let messages = batch.messages();
                let offset = |at: usize| messages[at].offset().unwrap_or_default();
                let new = messages.partition_point(|message| message.offset().unwrap_or_default() <= *last);
                if new < messages.len() {
                    *last = offset(messages.len() - 1);
                    self.put_batch(TopicItemKind::Messages, batch, new..messages.len());
                }
            }
            Change::Presence(presence) if self.presence => {
                let signals = presence.signals(&self.topic().name, self.connection.message_buffer());
                self.put(TopicItemKind::Presence, signals, 0..signals.messages().len());
            }
            Change::Presence(_) => {}
            Change::Reset if self.can_reset() => {
                // A new epoch may have lower offsets.
                *last = 0;
                self.connection.outbox.push_topic(self.reset_item(), usize::MAX);
            }
            Change::Reset => *last = 0,
        }
    }

    fn put_batch(self: &Arc<Self>, kind: TopicItemKind, batch: &Batch, range: Range<usize>) {
        let room = message::room(self.connection.message_buffer(), &self.topic().name);
        if batch.largest() <= room {
            self.put(kind, batch.signals(self.framing), range);
        } else {
            self.put_those_that_fit(kind, batch, range, room);
        }
    }

    /// Some are too large for this server's clients, as another server or an earlier start let them in: they are left out, so that no
    /// client closes for them. Who asks for them is told that they are missed.
    fn put_those_that_fit(self: &Arc<Self>, kind: TopicItemKind, batch: &Batch, range: Range<usize>, room: usize) {
        let fits = |at: usize| batch.messages()[at].data().bytes.len() <= room;
        let mut from = range.start;
        for at in range.clone().filter(|at| !fits(*at)) {
            self.put(kind, batch.signals(self.framing), from..at);
            from = at + 1;
        }
        self.put(kind, batch.signals(self.framing), from..range.end);
        // A later message shows the gap; there may be none.
        if kind == TopicItemKind::Messages && from == range.end && self.can_reset() {
            self.connection.outbox.push_topic(self.reset_item(), usize::MAX);
        }
    }

    fn put(self: &Arc<Self>, kind: TopicItemKind, signals: &Arc<Signals>, range: Range<usize>) {
        let item = TopicItem::new(self.clone(), signals.clone(), range, kind);
        self.connection.outbox.push_topic(item, self.connection.pending_limit());
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.topic().name)
            .field("connection", &self.connection.id)
            .finish_non_exhaustive()
    }
}
