//! Topics within one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::broker::{Broker, BrokerError, History, HistoryQuery, Member, MemberKey, Publication};
use super::feed::Feed;
use super::log::{KeyLimits, TopicLog};
use super::message::TopicMessage;
use super::name::TopicName;
use super::options::{Topic, TopicOptions};
use super::position::{Epoch, Position};
use super::wire::Present;
use crate::data::Data;

/// What a topic takes at least, about, in bytes.
const TOPIC_OVERHEAD: usize = 512;

/// Carries and keeps topics in the memory of one process. Clones are the same broker: servers that share one share their topics.
///
/// An acknowledged publication is in memory, and was handed to the feeds; nothing survives the process, so each has epochs of its
/// own, unless there is a [journal](Self::with_journal). Memory is bounded: by each topic's options, by [`max_bytes`](Self::max_bytes) for the histories and keys of all topics, and by
/// [`max_topics`](Self::max_topics). A topic that nobody uses is kept until either is reached; then those that have not been used
/// for longest are forgotten, and with them their epochs. Presence is bounded by
/// [`TopicOptions::max_present`](super::TopicOptions::max_present), 1 KiB of info for each.
///
/// Of each topic the keys of the last two minutes are remembered ([`key_lifetime`](Self::key_lifetime)), at most 100 000.
#[derive(Clone, Default)]
pub struct MemoryBroker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    limits: Limits,
    journal: Option<Box<dyn Journal>>,
}

/// Where every kept message is written before anybody sees it.
pub(super) trait Journal: Send + Sync {
    /// Called under the broker's lock, in the order of a topic's offsets. An error refuses the publication.
    fn append(&self, topic: &TopicName, epoch: &Epoch, offset: u64, key: &str, data: &Data) -> Result<(), BrokerError>;
}

/// A topic as it was written down earlier.
pub(super) struct RestoredTopic {
    pub(super) name: TopicName,
    pub(super) epoch: Epoch,
    /// The newest.
    pub(super) offset: u64,
    /// How long ago, and what; in order, without a gap, up to `offset`.
    pub(super) messages: Vec<(Duration, Arc<TopicMessage>)>,
    /// How long ago, which key, and the offset; oldest first.
    pub(super) keys: Vec<(Duration, String, u64)>,
}

#[derive(Clone, Copy)]
struct Limits {
    topics: usize,
    bytes: usize,
    keys: KeyLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            topics: 100_000,
            bytes: 256 << 20,
            keys: KeyLimits::default(),
        }
    }
}

#[derive(Default)]
struct State {
    topics: HashMap<TopicName, TopicState>,
    /// Of all topics, about.
    bytes: usize,
    /// None was idle when that was looked for, nor has become so: there is no use in looking again.
    all_busy: bool,
    last_feed: u64,
}

struct TopicState {
    log: TopicLog,
    present: HashMap<String, Somebody>,
    used: Instant,
}

impl TopicState {
    fn new(log: TopicLog, now: Instant) -> Self {
        Self {
            log,
            present: HashMap::new(),
            used: now,
        }
    }

    fn is_idle(&self) -> bool {
        self.log.feeds.is_empty() && self.present.is_empty()
    }

    fn bytes(&self) -> usize {
        TOPIC_OVERHEAD + self.log.bytes()
    }
}

struct Somebody {
    info: Box<RawValue>,
    members: Vec<MemberKey>,
}

impl MemoryBroker {
    /// A broker of its own, without topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many topics are kept. Default: 100 000. While all are in use, no other can be. Of no effect once there are clones.
    #[must_use]
    pub fn max_topics(self, topics: usize) -> Self {
        self.with(|limits| limits.topics = topics)
    }

    /// How many bytes of messages and keys are kept, of all topics. Default: 256 MiB. Beyond, topics that nobody uses are forgotten,
    /// those first that have not been used for longest; if that is not enough, the oldest messages of the topic that is being
    /// published to. Of no effect once there are clones.
    #[must_use]
    pub fn max_bytes(self, bytes: usize) -> Self {
        self.with(|limits| limits.bytes = bytes)
    }

    /// How long the key of a publication is remembered. Default: two minutes. Clients repeat what may have been lost for nearly those:
    /// with less it may be published twice. A [journal](Self::with_journal) knows those of the last two minutes at most when it is
    /// read. Of no effect once there are clones.
    #[must_use]
    pub fn key_lifetime(self, lifetime: Duration) -> Self {
        self.with(|limits| limits.keys.age = lifetime)
    }

    fn with(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            change(&mut shared.limits);
        }
        self
    }

    /// A broker that goes on where another ended.
    pub(super) fn restored(journal: impl Journal + 'static, topics: Vec<RestoredTopic>) -> Self {
        let now = Instant::now();
        let mut state = State::default();
        for topic in topics {
            // What is older than the clock goes back is as old as it goes.
            let at = |age: Duration| now.checked_sub(age).unwrap_or(now);
            let before = topic.offset.saturating_sub(topic.messages.len() as u64);
            let mut log = TopicLog::new(topic.epoch, before);
            let used = topic.messages.last().map_or(now, |(age, _)| at(*age));
            for (age, message) in topic.messages {
                log.add(&topic.name, "", message.data().clone(), at(age));
            }
            for (age, key, offset) in topic.keys {
                log.remember(&key, offset, at(age));
            }
            let this = TopicState::new(log, used);
            state.bytes += this.bytes();
            state.topics.insert(topic.name, this);
        }
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            limits: Limits::default(),
            journal: Some(Box::new(journal)),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A topic, which is made if there is room.
    fn topic(&mut self, topic: &Topic, limits: Limits, now: Instant) -> Result<&mut TopicState, BrokerError> {
        if !self.topics.contains_key(&topic.name) {
            if self.topics.len() >= limits.topics {
                self.forget_idle(limits.topics - limits.topics / 8 - 1, usize::MAX, &topic.name);
                if self.topics.len() >= limits.topics {
                    return Err(BrokerError::Limit("topics"));
                }
            }
            let epoch = Epoch::random().map_err(|error| BrokerError::Unavailable(error.to_string()))?;
            let state = TopicState::new(TopicLog::new(epoch, 0), now);
            self.bytes += TOPIC_OVERHEAD;
            self.all_busy = false;
            self.topics.insert(topic.name.clone(), state);
        }
        // Not an entry: it may have been there, and the map cannot be borrowed twice.
        let state = self.topics.get_mut(&topic.name).ok_or(BrokerError::Limit("topics"))?;
        state.used = now;
        let before = state.log.bytes();
        state.log.trim(&topic.options, limits.keys, now);
        self.bytes = self.bytes + state.log.bytes() - before;
        Ok(state)
    }

    /// Drops messages of topics that nobody uses, whole histories, until so many bytes are left. The topics go on where they are.
    fn drop_idle_messages(&mut self, bytes: usize, keys: KeyLimits, now: Instant) {
        let mut idle: Vec<_> = self.topics.values_mut().filter(|state| state.is_idle()).collect();
        idle.sort_unstable_by_key(|state| state.used);
        let nothing = TopicOptions {
            history_count: 0,
            ..TopicOptions::default()
        };
        for state in idle {
            if self.bytes <= bytes {
                break;
            }
            let before = state.log.bytes();
            state.log.trim(&nothing, keys, now);
            self.bytes = self.bytes + state.log.bytes() - before;
        }
    }

    /// Forgets topics that nobody uses, but not the one in hand, until at most so many, with so many bytes, are left. Goes through all
    /// of them: callers ask for more than they need, so that they have to do so rarely.
    fn forget_idle(&mut self, topics: usize, bytes: usize, in_hand: &TopicName) {
        if self.all_busy {
            return;
        }
        let mut idle: Vec<_> = self
            .topics
            .iter()
            .filter(|(name, state)| state.is_idle() && *name != in_hand)
            .map(|(name, state)| (state.used, name.clone()))
            .collect();
        idle.sort_unstable();
        for (_, name) in idle {
            if self.topics.len() <= topics && self.bytes <= bytes {
                return;
            }
            if let Some(state) = self.topics.remove(&name) {
                self.bytes -= state.bytes();
            }
        }
        self.all_busy = self.topics.get(in_hand).is_none_or(|state| !state.is_idle());
    }
}

impl Broker for MemoryBroker {
    type Subscription = MemorySubscription;

    /// A journal knows nothing of options, and holds what had been dropped and forgotten. Were all of that kept, the first publication
    /// would make room by forgetting topics, of which none has been used yet.
    fn configure(&self, find: &dyn Fn(&TopicName) -> Option<Topic>) {
        let (now, limits) = (Instant::now(), self.0.limits);
        let names: Vec<TopicName> = self.lock().topics.keys().cloned().collect();
        // The application's: not under the lock.
        let topics: Vec<Topic> = names.iter().filter_map(find).collect();
        let mut state = self.lock();
        for topic in topics {
            if let Some(this) = state.topics.get_mut(&topic.name) {
                let before = this.log.bytes();
                this.log.trim(&topic.options, limits.keys, now);
                let after = this.log.bytes();
                state.bytes = state.bytes + after - before;
            }
        }
        if state.bytes > limits.bytes {
            state.drop_idle_messages(limits.bytes - limits.bytes / 8, limits.keys, now);
        }
    }

    async fn publish(&self, topic: &Topic, publication: Publication) -> Result<Position, BrokerError> {
        let (now, limits) = (Instant::now(), self.0.limits);
        let mut state = self.lock();
        let Publication { data, key } = publication;
        let log = &mut state.topic(topic, limits, now)?.log;
        if let Some(offset) = log.known(&key) {
            return Ok(log.position(offset));
        }
        if let Some(journal) = &self.0.journal {
            journal.append(&topic.name, &log.epoch, log.offset + 1, &key, &data)?;
        }
        let before = log.bytes();
        log.add(&topic.name, &key, data, now);
        log.trim(&topic.options, limits.keys, now);
        let (position, after) = (log.position(log.offset), log.bytes());
        state.bytes = state.bytes + after - before;
        if state.bytes > limits.bytes {
            state.forget_idle(usize::MAX, limits.bytes - limits.bytes / 8, &topic.name);
            let over = state.bytes.saturating_sub(limits.bytes);
            if over > 0
                && let Some(this) = state.topics.get_mut(&topic.name)
            {
                let less = TopicOptions {
                    history_bytes: this.log.history_bytes().saturating_sub(over),
                    ..(*topic.options).clone()
                };
                let before = this.log.bytes();
                this.log.trim(&less, limits.keys, now);
                let after = this.log.bytes();
                state.bytes = state.bytes + after - before;
            }
        }
        Ok(position)
    }

    async fn publish_ephemeral(&self, topic: &Topic, data: Data) -> Result<(), BrokerError> {
        let state = self.lock();
        if let Some(this) = state.topics.get(&topic.name)
            && !this.log.feeds.is_empty()
        {
            let message = TopicMessage::ephemeral(topic.name.clone(), data);
            this.log
                .feeds
                .iter()
                .for_each(|(_, feed)| feed.message(message.clone()));
        }
        Ok(())
    }

    async fn subscribe(&self, topic: &Topic, feed: Feed) -> Result<MemorySubscription, BrokerError> {
        let mut state = self.lock();
        state.last_feed += 1;
        let number = state.last_feed;
        let this = state.topic(topic, self.0.limits, Instant::now())?;
        this.log.feeds.push((number, feed));
        Ok(MemorySubscription {
            broker: self.clone(),
            topic: topic.name.clone(),
            number,
        })
    }

    async fn history(&self, topic: &Topic, query: &HistoryQuery) -> Result<History, BrokerError> {
        let now = Instant::now();
        let mut state = self.lock();
        Ok(state.topic(topic, self.0.limits, now)?.log.look(query, now))
    }

    async fn join(&self, topic: &Topic, member: &Member, info: &RawValue) -> Result<(), BrokerError> {
        let mut state = self.lock();
        let this = state.topic(topic, self.0.limits, Instant::now())?;
        let count = this.present.len();
        let is_news = match this.present.get_mut(&member.id) {
            Some(somebody) => {
                if !somebody.members.contains(&member.key) {
                    somebody.members.push(member.key);
                }
                let is_news = somebody.info.get() != info.get();
                if is_news {
                    somebody.info = info.to_owned();
                }
                is_news
            }
            None if count >= topic.options.max_present => return Err(BrokerError::Limit("members")),
            None => {
                let members = vec![member.key];
                let info = info.to_owned();
                this.present.insert(member.id.clone(), Somebody { info, members });
                true
            }
        };
        if is_news {
            for (_, feed) in &this.log.feeds {
                feed.joined(Present::new(member.id.clone(), info.to_owned()));
            }
        }
        Ok(())
    }

    fn leave(&self, topic: &Topic, member: &Member) {
        let mut state = self.lock();
        let Some(this) = state.topics.get_mut(&topic.name) else {
            return;
        };
        let Some(somebody) = this.present.get_mut(&member.id) else {
            return;
        };
        somebody.members.retain(|other| *other != member.key);
        if somebody.members.is_empty() {
            this.present.remove(&member.id);
            this.used = Instant::now();
            this.log.feeds.iter().for_each(|(_, feed)| feed.left(member.id.clone()));
            state.all_busy = false;
        }
    }

    async fn present(&self, topic: &Topic) -> Result<Vec<Present>, BrokerError> {
        Ok(self.some_present(topic, usize::MAX).await?.0)
    }

    async fn some_present(&self, topic: &Topic, bytes: usize) -> Result<(Vec<Present>, usize), BrokerError> {
        let state = self.lock();
        Ok(state.topics.get(&topic.name).map_or((Vec::new(), 0), |this| {
            let present = this.present.iter().map(|(id, somebody)| (id, &*somebody.info));
            (Present::first(present, bytes), this.present.len())
        }))
    }
}

impl std::fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryBroker")
            .field("topics", &state.topics.len())
            .field("bytes", &state.bytes)
            .finish()
    }
}

/// A feed's place at a topic of a [`MemoryBroker`]. Dropping it ends the feed.
#[derive(Debug)]
pub struct MemorySubscription {
    broker: MemoryBroker,
    topic: TopicName,
    number: u64,
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        let mut state = self.broker.lock();
        if let Some(this) = state.topics.get_mut(&self.topic) {
            this.log.feeds.retain(|(number, _)| *number != self.number);
            this.used = Instant::now();
            state.all_busy = false;
        }
    }
}
