//! What happens at a topic, on its way to the subscribers of one server.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell};

use super::message::{Batch, PresenceBatch, TopicMessage};
use super::options::Topic;
use super::subscription::{Change, Subscription};
use super::wire::{PresenceSignal, Present};
use crate::transport::Signals;

/// Bytes of messages, joins and leaves that wait to be handed to the subscribers. Those who publish or join on this server wait beyond
/// that, and brokers should.
const MAX_WAITING: usize = 1 << 20;

/// Messages, or joins and leaves, that are handed to the subscribers together.
const MAX_BATCH: usize = 256;

/// Where a broker puts what happens at a topic, for the subscribers of one server. A cheap handle; it does nothing once the server
/// has no subscriber left.
///
/// What is put here, from wherever, is handed to the subscribers in the order in which it was put, by a task that runs while there is
/// something, on the runtime of a subscriber's connection: messages that come while it is busy are encoded, queued and woken for together.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Outlet>);

impl Feed {
    /// A message, kept or ephemeral. Kept ones come in order, without a gap, and each once.
    pub fn message(&self, message: Arc<TopicMessage>) {
        self.0.put(Event::Message(message));
    }

    /// Somebody has joined, or has new info: it takes the place of the last, where subscribers have not been told that yet.
    pub fn joined(&self, who: Present) {
        self.0.put(Event::Joined(who));
    }

    /// Somebody has left.
    pub fn left(&self, id: String) {
        self.0.put(Event::Left(id));
    }

    /// Nobody can say what the subscribers have missed: they have to ask for it, and who is present.
    pub fn reset(&self) {
        self.0.put(Event::Reset);
    }

    /// Waits until there is room for more. Cancel safe. Whoever puts what nobody on this server has waited to publish or to join with
    /// should wait for this first.
    pub async fn room(&self) {
        self.0.room().await;
    }
}

#[derive(Debug)]
enum Event {
    Message(Arc<TopicMessage>),
    Joined(Present),
    Left(String),
    Reset,
}

impl Event {
    /// About how much memory it takes, in bytes.
    fn size(&self) -> usize {
        match self {
            Self::Message(message) => message.size(),
            Self::Joined(who) => size_of::<Self>() + who.size(),
            Self::Left(id) => size_of::<Self>() + id.len(),
            Self::Reset => size_of::<Self>(),
        }
    }
}

/// A topic, as long as one server has subscribers.
pub(crate) struct LocalTopic {
    pub(super) topic: Topic,
    outlet: Arc<Outlet>,
    /// The feed's place at the broker. Not within what the feed holds, or it would never be dropped.
    pub(super) source: OnceCell<Box<dyn Any + Send + Sync>>,
    /// What the last subscriber was told of those who had no room in its reply.
    rest: Mutex<Weak<Signals>>,
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
    /// Which of those that wait is the join of whom, unless they have left since.
    joins: HashMap<String, usize>,
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
            rest: Mutex::default(),
        })
    }

    /// Subscribers who are told of the same share it.
    pub(super) fn share_rest(&self, rest: Signals) -> Arc<Signals> {
        let mut last = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.upgrade()
            && last.messages() == rest.messages()
        {
            return last;
        }
        let rest = Arc::new(rest);
        *last = Arc::downgrade(&rest);
        rest
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
        subscription.set_place(state.subscribers.len());
        Arc::make_mut(&mut state.subscribers).push(subscription);
        true
    }

    /// Answers whether it was the last.
    pub(super) fn remove(&self, subscription: &Arc<Subscription>) -> bool {
        let mut state = self.outlet.lock();
        let subscribers = Arc::make_mut(&mut state.subscribers);
        // Not looked for: many may go at once, each of which would go through all.
        let at = subscription.place();
        if !subscribers
            .get(at)
            .is_some_and(|other| Arc::ptr_eq(other, subscription))
        {
            return false;
        }
        subscribers.swap_remove(at);
        if let Some(moved) = subscribers.get(at) {
            moved.set_place(at);
        }
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

    async fn room(self: &Arc<Self>) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let state = self.lock();
                if state.waiting_bytes < MAX_WAITING {
                    return;
                }
                // The last task may have been dropped.
                self.begin(state);
            }
            room.await;
        }
    }

    fn put(self: &Arc<Self>, event: Event) {
        let mut state = self.lock();
        if state.subscribers.is_empty() {
            return;
        }
        match &event {
            Event::Message(message) if message.offset().is_none() && state.waiting_bytes >= MAX_WAITING => return,
            Event::Joined(who) => {
                if let Some(at) = state.joins.get(&who.id).copied() {
                    // Who has new info again and again waits once.
                    let before = state.waiting[at].size();
                    state.waiting_bytes = state.waiting_bytes + event.size() - before;
                    state.waiting[at] = event;
                    return;
                }
                let (id, at) = (who.id.clone(), state.waiting.len());
                state.joins.insert(id, at);
            }
            Event::Left(id) => {
                state.joins.remove(id);
            }
            Event::Message(_) | Event::Reset => {}
        }
        state.waiting_bytes += event.size();
        state.waiting.push(event);
        self.begin(state);
    }

    /// Sees to it that there is a task. Not on the runtime of whoever puts something, which may be about to end.
    fn begin(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.handing_out {
            return;
        }
        let mut subscribers = state.subscribers.iter();
        let runtime = subscribers.find_map(|subscription| subscription.connection().runtime());
        let Some(runtime) = runtime.cloned().or_else(|| Handle::try_current().ok()) else {
            return;
        };
        state.handing_out = true;
        drop(state);
        let task = HandingOut {
            outlet: self.clone(),
            is_done: false,
        };
        runtime.spawn(task.run());
    }
}

/// The task that hands out what waits.
struct HandingOut {
    outlet: Arc<Outlet>,
    is_done: bool,
}

impl HandingOut {
    async fn run(mut self) {
        let mut told = 0;
        loop {
            let (events, subscribers) = {
                let mut state = self.outlet.lock();
                if state.waiting.is_empty() {
                    state.handing_out = false;
                    self.is_done = true;
                    return;
                }
                state.waiting_bytes = 0;
                state.joins = HashMap::new();
                (std::mem::take(&mut state.waiting), state.subscribers.clone())
            };
            self.outlet.room.notify_waiters();
            let mut changes = Changes::default();
            events.into_iter().for_each(|event| changes.add(event));
            for change in changes.finish() {
                tell(&subscribers, &change, &mut told).await;
            }
            drop(subscribers);
            // The subscribers write, and publishers publish, before the next are handed out: more of them at once.
            tokio::task::yield_now().await;
            told = 0;
        }
    }
}

impl Drop for HandingOut {
    fn drop(&mut self) {
        if !self.is_done {
            // With its runtime, or by a panic. Whoever puts something next, or waits for room, begins another.
            self.outlet.lock().handing_out = false;
            self.outlet.room.notify_waiters();
        }
    }
}

/// How often subscribers are told something without a pause.
const AT_ONCE: usize = 4096;

/// `told`: how often since the last pause.
async fn tell(mut subscribers: &[Arc<Subscription>], change: &Change, told: &mut usize) {
    while !subscribers.is_empty() {
        let (some, rest) = subscribers.split_at(subscribers.len().min(AT_ONCE - *told));
        some.iter().for_each(|subscription| subscription.push(change));
        subscribers = rest;
        *told += some.len();
        if *told == AT_ONCE {
            tokio::task::yield_now().await;
            *told = 0;
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
            Event::Joined(who) => {
                // In one signal joins come before leaves: who leaves and comes again does so in two.
                let again = self.presence.leave.contains(&who.id);
                self.begin_presence(again);
                self.presence.join.push(who);
            }
            Event::Left(id) => {
                self.begin_presence(false);
                self.presence.leave.push(id);
            }
            Event::Reset => {
                self.end();
                self.done.push(Change::Reset);
            }
        }
    }

    fn begin_presence(&mut self, again: bool) {
        let full = self.presence.join.len() + self.presence.leave.len() >= MAX_BATCH;
        if again || full || !self.messages.is_empty() {
            self.end();
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
            self.done.push(Change::Presence(PresenceBatch::new(presence)));
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
