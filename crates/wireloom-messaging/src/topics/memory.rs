//! Topics within one process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::broker::{Broker, BrokerError, History, HistoryQuery, Member, MemberKey, Publication};
use super::feed::Feed;
use super::message::TopicMessage;
use super::name::TopicName;
use super::options::{Topic, TopicOptions};
use super::position::{Epoch, Position};
use super::wire::Present;
use crate::data::Data;

/// How long a key is remembered.
pub(crate) const KEY_LIFETIME: Duration = Duration::from_secs(120);

/// What a remembered key takes besides its characters, about, in bytes.
const KEY_OVERHEAD: usize = 96;

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
/// Of each topic the keys of the last two minutes are remembered, at most 100 000.
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
    keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            topics: 100_000,
            bytes: 256 << 20,
            keys: 100_000,
        }
    }
}

#[derive(Default)]
struct State {
    topics: HashMap<TopicName, TopicState>,
    /// Of all topics, about.
    bytes: usize,
    last_feed: u64,
}

struct TopicState {
    epoch: Epoch,
    offset: u64,
    /// Ends with the newest message, if it is not empty.
    history: VecDeque<(Instant, Arc<TopicMessage>)>,
    history_bytes: usize,
    keys: HashMap<Box<str>, u64>,
    key_ages: VecDeque<(Instant, Box<str>)>,
    feeds: Vec<(u64, Feed)>,
    present: HashMap<String, Somebody>,
    used: Instant,
}

struct Somebody {
    info: Box<RawValue>,
    members: Vec<MemberKey>,
}

impl TopicState {
    fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            epoch,
            offset: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            keys: HashMap::new(),
            key_ages: VecDeque::new(),
            feeds: Vec::new(),
            present: HashMap::new(),
            used: now,
        }
    }

    fn position(&self, offset: u64) -> Position {
        Position::new(self.epoch.clone(), offset)
    }

    fn is_idle(&self) -> bool {
        self.feeds.is_empty() && self.present.is_empty()
    }

    fn bytes(&self) -> usize {
        let keys: usize = self.key_ages.iter().map(|(_, key)| key.len() + KEY_OVERHEAD).sum();
        TOPIC_OVERHEAD + self.history_bytes + keys
    }

    /// Forgets what is too old or too much. Answers how many bytes that were.
    fn trim(&mut self, options: &TopicOptions, max_keys: usize, now: Instant) -> usize {
        let mut freed = 0;
        while let Some((published, message)) = self.history.front()
            && (self.history.len() > options.history_count
                || self.history_bytes > options.history_bytes
                || now.duration_since(*published) > options.history_age)
        {
            freed += message.size();
            self.history_bytes -= message.size();
            self.history.pop_front();
        }
        while let Some((seen, key)) = self.key_ages.front()
            && (self.key_ages.len() > max_keys || now.duration_since(*seen) > KEY_LIFETIME)
        {
            freed += key.len() + KEY_OVERHEAD;
            self.keys.remove(key);
            self.key_ages.pop_front();
        }
        freed
    }

    fn look(&self, query: &HistoryQuery, now: Instant) -> History {
        let oldest = self.offset - self.history.len() as u64;
        let since = query
            .since
            .as_ref()
            .filter(|since| since.epoch == self.epoch && (oldest..=self.offset).contains(&since.offset));
        let from = match (since, query.recent) {
            (Some(since), _) => since.offset,
            (None, None) => self.offset,
            (None, Some(recent)) => {
                let count = recent.count.map_or(u64::MAX, |count| count as u64);
                let young = recent.age.map_or(self.history.len(), |age| {
                    let is_old = |(published, _): &(Instant, _)| now.duration_since(*published) > age;
                    self.history.len() - self.history.partition_point(is_old)
                });
                self.offset - count.min(young as u64)
            }
        };
        let skipped = usize::try_from(from - oldest).unwrap_or(usize::MAX);
        History {
            position: self.position(self.offset),
            from,
            recovered: since.is_some(),
            messages: self
                .history
                .iter()
                .skip(skipped)
                .map(|(_, message)| message.clone())
                .collect(),
        }
    }
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
            let mut this = TopicState::new(topic.epoch, now);
            this.offset = topic.offset;
            this.history_bytes = topic.messages.iter().map(|(_, message)| message.size()).sum();
            this.history = topic
                .messages
                .into_iter()
                .map(|(age, message)| (at(age), message))
                .collect();
            for (age, key, offset) in topic.keys {
                let key: Box<str> = key.into();
                this.key_ages.push_back((at(age), key.clone()));
                this.keys.insert(key, offset);
            }
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
                self.forget_idle(limits.topics - limits.topics / 8 - 1, usize::MAX);
                if self.topics.len() >= limits.topics {
                    return Err(BrokerError::Limit("topics"));
                }
            }
            let epoch = Epoch::random().map_err(|error| BrokerError::Unavailable(error.to_string()))?;
            let state = TopicState::new(epoch, now);
            self.bytes += TOPIC_OVERHEAD;
            self.topics.insert(topic.name.clone(), state);
        }
        // Not an entry: it may have been there, and the map cannot be borrowed twice.
        let state = self.topics.get_mut(&topic.name).ok_or(BrokerError::Limit("topics"))?;
        state.used = now;
        let freed = state.trim(&topic.options, limits.keys, now);
        self.bytes -= freed;
        Ok(state)
    }

    /// Forgets topics that nobody uses until at most so many, with so many bytes, are left. Goes through all of them: callers ask
    /// for more than they need, so that they have to do so rarely.
    fn forget_idle(&mut self, topics: usize, bytes: usize) {
        let mut idle: Vec<_> = self
            .topics
            .iter()
            .filter(|(_, state)| state.is_idle())
            .map(|(name, state)| (state.used, name.clone()))
            .collect();
        idle.sort_unstable();
        for (_, name) in idle {
            if self.topics.len() <= topics && self.bytes <= bytes {
                break;
            }
            if let Some(state) = self.topics.remove(&name) {
                self.bytes -= state.bytes();
            }
        }
    }
}

impl Broker for MemoryBroker {
    type Subscription = MemorySubscription;

    async fn publish(&self, topic: &Topic, publication: Publication) -> Result<Position, BrokerError> {
        let (now, limits) = (Instant::now(), self.0.limits);
        let mut state = self.lock();
        let Publication { data, key } = publication;
        let this = state.topic(topic, limits, now)?;
        if let Some(offset) = this.keys.get(key.as_str()) {
            return Ok(this.position(*offset));
        }
        if let Some(journal) = &self.0.journal {
            journal.append(&topic.name, &this.epoch, this.offset + 1, &key, &data)?;
        }
        this.offset += 1;
        let message = TopicMessage::kept(topic.name.clone(), this.offset, data);
        let mut added = 0;
        if !key.is_empty() {
            let key: Box<str> = key.into();
            added += key.len() + KEY_OVERHEAD;
            this.key_ages.push_back((now, key.clone()));
            this.keys.insert(key, this.offset);
        }
        added += message.size();
        this.history_bytes += message.size();
        this.history.push_back((now, message.clone()));
        for (_, feed) in &this.feeds {
            feed.message(message.clone());
        }
        let freed = this.trim(&topic.options, limits.keys, now);
        let position = this.position(this.offset);
        state.bytes = state.bytes + added - freed;
        if state.bytes > limits.bytes {
            state.forget_idle(usize::MAX, limits.bytes - limits.bytes / 8);
            let over = state.bytes.saturating_sub(limits.bytes);
            if over > 0
                && let Some(this) = state.topics.get_mut(&topic.name)
            {
                let less = TopicOptions {
                    history_bytes: this.history_bytes.saturating_sub(over),
                    ..(*topic.options).clone()
                };
                let freed = this.trim(&less, limits.keys, now);
                state.bytes -= freed;
            }
        }
        Ok(position)
    }

    async fn publish_ephemeral(&self, topic: &Topic, data: Data) -> Result<(), BrokerError> {
        let state = self.lock();
        if let Some(this) = state.topics.get(&topic.name)
            && !this.feeds.is_empty()
        {
            let message = TopicMessage::ephemeral(topic.name.clone(), data);
            this.feeds.iter().for_each(|(_, feed)| feed.message(message.clone()));
        }
        Ok(())
    }

    async fn subscribe(&self, topic: &Topic, feed: Feed) -> Result<MemorySubscription, BrokerError> {
        let mut state = self.lock();
        state.last_feed += 1;
        let number = state.last_feed;
        let this = state.topic(topic, self.0.limits, Instant::now())?;
        this.feeds.push((number, feed));
        Ok(MemorySubscription {
            broker: self.clone(),
            topic: topic.name.clone(),
            number,
        })
    }

    async fn history(&self, topic: &Topic, query: &HistoryQuery) -> Result<History, BrokerError> {
        let now = Instant::now();
        let mut state = self.lock();
        Ok(state.topic(topic, self.0.limits, now)?.look(query, now))
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
            for (_, feed) in &this.feeds {
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
            this.feeds.iter().for_each(|(_, feed)| feed.left(member.id.clone()));
        }
    }

    async fn present(&self, topic: &Topic) -> Result<Vec<Present>, BrokerError> {
        let state = self.lock();
        Ok(state.topics.get(&topic.name).map_or_else(Vec::new, |this| {
            let present = this.present.iter();
            present
                .map(|(id, somebody)| Present::new(id.clone(), somebody.info.clone()))
                .collect()
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
            this.feeds.retain(|(number, _)| *number != self.number);
            this.used = Instant::now();
        }
    }
}
