//! What happens at a topic, on its way to the subscribers of one server.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OnceCell};

use super::message::{Batch, TopicMessage};
use super::options::Topic;
use super::subscription::{Change, Subscription};
use super::wire::{PresenceSignal, Present};

/// Bytes of messages that wait to be handed to the subscribers. Publishers on this server wait beyond that, and brokers should.
const MAX_WAITING: usize = 1 << 20;

/// Messages that are handed to the subscribers together.
const MAX_BATCH: usize = 256;

/// Where a broker puts what happens at a topic, for the subscribers of one server. A cheap handle; it does nothing once the server
/// has no subscriber left.
///
/// What is put here is handed to the subscribers in the order in which it was put, by a task that runs while there is something:
/// messages that come while it is busy are encoded, queued and woken for together.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Outlet>);

impl Feed {
    /// A message, kept or ephemeral. Kept ones come in order, without a gap, and each once.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn message(&self, message: Arc<TopicMessage>) {
        self.0.put(Event::Message(message));
    }

    /// Somebody has joined, or has new info.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn joined(&self, who: Present) {
        let join = vec![who];
        self.0.put(Event::Presence(PresenceSignal {
            join,
            ..PresenceSignal::default()
        }));
    }

    /// Somebody has left.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn left(&self, id: String) {
        let leave = vec![id];
        self.0.put(Event::Presence(PresenceSignal {
            leave,
            ..PresenceSignal::default()
        }));
    }

    /// Nobody can say what the subscribers have missed: they have to ask for it, and who is present.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn reset(&self) {
        self.0.put(Event::Reset);
    }

    /// Waits until there is room for more messages. Cancel safe. Whoever puts messages that a publisher does not wait for should
    /// wait for this first.
    pub async fn room(&self) {
        self.0.room().await;
    }
}

#[derive(Debug)]
enum Event {
    Message(Arc<TopicMessage>),
    Presence(PresenceSignal),
    Reset,
}

/// A topic, as long as one server has subscribers.
pub(crate) struct LocalTopic {
    pub(super) topic: Topic,
    outlet: Arc<Outlet>,
    /// The feed's place at the broker. Not within what the feed holds, or it would never be dropped.
    pub(super) source: OnceCell<Box<dyn Any + Send + Sync>>,
}

/// The subscribers, and what they have not been told yet.
#[derive(Debug, Default)]
struct Outlet {
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Copied when it changes while it is being gone through.
    subscribers: Arc<Vec<Arc<Subscription>>>,
    waiting: Vec<Event>,
    waiting_bytes: usize,
    /// There is a task that hands out what waits.
    handing_out: bool,
    /// The last subscriber is gone.
    retired: bool,
}

impl LocalTopic {
    pub(super) fn new(topic: Topic) -> Arc<Self> {
        Arc::new(Self {
            topic,
            outlet: Arc::default(),
            source: OnceCell::new(),
        })
    }

    pub(super) fn feed(&self) -> Feed {
        Feed(self.outlet.clone())
    }

    /// `false` if the topic is not live any more.
    pub(super) fn add(&self, subscription: Arc<Subscription>) -> bool {
        let mut state = self.outlet.lock();
        if state.retired {
            return false;
        }
        Arc::make_mut(&mut state.subscribers).push(subscription);
        true
    }

    /// Answers whether it was the last.
    pub(super) fn remove(&self, subscription: &Arc<Subscription>) -> bool {
        let mut state = self.outlet.lock();
        let subscribers = Arc::make_mut(&mut state.subscribers);
        let Some(at) = subscribers.iter().position(|other| Arc::ptr_eq(other, subscription)) else {
            return false;
        };
        subscribers.swap_remove(at);
        state.retired |= state.subscribers.is_empty();
        state.retired
    }

    /// Answers whether nobody has subscribed, and nobody will any more.
    pub(super) fn retire_if_empty(&self) -> bool {
        let mut state = self.outlet.lock();
        state.retired |= state.subscribers.is_empty();
        state.retired
    }

    pub(super) async fn room(&self) {
        self.outlet.room().await;
    }
}

impl Outlet {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.lock().waiting_bytes < MAX_WAITING {
                return;
            }
            room.await;
        }
    }

    fn put(self: &Arc<Self>, event: Event) {
        let mut state = self.lock();
        if state.subscribers.is_empty() {
            return;
        }
        if let Event::Message(message) = &event {
            if message.offset().is_none() && state.waiting_bytes >= MAX_WAITING {
                return;
            }
            state.waiting_bytes += message.size();
        }
        state.waiting.push(event);
        if !state.handing_out {
            state.handing_out = true;
            drop(state);
            tokio::spawn(self.clone().hand_out());
        }
    }

    async fn hand_out(self: Arc<Self>) {
        loop {
            let (events, subscribers) = {
                let mut state = self.lock();
                if state.waiting.is_empty() {
                    state.handing_out = false;
                    return;
                }
                state.waiting_bytes = 0;
                (std::mem::take(&mut state.waiting), state.subscribers.clone())
            };
            self.room.notify_waiters();
            let mut changes = Changes::default();
            events.into_iter().for_each(|event| changes.add(event));
            for change in changes.finish() {
                tell(&subscribers, &change).await;
            }
            drop(subscribers);
            // The subscribers write, and publishers publish, before the next are handed out: more of them at once.
            tokio::task::yield_now().await;
        }
    }
}

/// Subscribers that are told something without a pause.
const AT_ONCE: usize = 4096;

async fn tell(subscribers: &[Arc<Subscription>], change: &Change) {
    for some in subscribers.chunks(AT_ONCE) {
        some.iter().for_each(|subscription| subscription.push(change));
        if some.len() == AT_ONCE {
            tokio::task::yield_now().await;
        }
    }
}

/// Puts events of a kind together that follow each other.
#[derive(Default)]
struct Changes {
    done: Vec<Change>,
    messages: Vec<Arc<TopicMessage>>,
    presence: PresenceSignal,
}

impl Changes {
    fn add(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                let is_kept = message.offset().is_some();
                let fits = |last: &Arc<TopicMessage>| last.offset().is_some() == is_kept;
                if !self.presence.is_empty()
                    || self.messages.len() >= MAX_BATCH
                    || !self.messages.last().is_none_or(fits)
                {
                    self.end();
                }
                self.messages.push(message);
            }
            Event::Presence(PresenceSignal { join, leave }) => {
                // In one signal joins come before leaves: who leaves and comes again does so in two.
                let again = join.iter().any(|who| self.presence.leave.contains(&who.id));
                let full = self.presence.join.len() + self.presence.leave.len() >= MAX_BATCH;
                if again || full || !self.messages.is_empty() {
                    self.end();
                }
                self.presence.join.extend(join);
                self.presence.leave.extend(leave);
            }
            Event::Reset => {
                self.end();
                self.done.push(Change::Reset);
            }
        }
    }

    /// What is said next goes into another change.
    fn end(&mut self) {
        if !self.messages.is_empty() {
            let messages = std::mem::take(&mut self.messages);
            self.done.push(Change::Messages(Batch::new(messages)));
        }
        let presence = std::mem::take(&mut self.presence);
        if !presence.is_empty() {
            self.done.push(Change::Presence(Arc::new(presence)));
        }
    }

    fn finish(mut self) -> Vec<Change> {
        self.end();
        self.done
    }
}

impl std::fmt::Debug for LocalTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalTopic")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}
