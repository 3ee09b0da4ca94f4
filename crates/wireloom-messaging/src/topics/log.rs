//! What a topic remembers: its newest messages, and the keys of the last two minutes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::broker::{History, HistoryQuery};
use super::feed::Feed;
use super::message::TopicMessage;
use super::name::TopicName;
use super::options::TopicOptions;
use super::position::{Epoch, Position};
use crate::data::Data;

/// How long a key is remembered, if nothing else was said.
pub(super) const KEY_LIFETIME: Duration = Duration::from_secs(120);

/// How many keys of a topic are remembered.
const MAX_KEYS: usize = 100_000;

/// Which keys of a topic are remembered.
#[derive(Clone, Copy)]
pub(super) struct KeyLimits {
    pub(super) count: usize,
    pub(super) age: Duration,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self {
            count: MAX_KEYS,
            age: KEY_LIFETIME,
        }
    }
}

/// What a remembered key takes besides its characters, about, in bytes.
const KEY_OVERHEAD: usize = 96;

/// A topic's past, and who hears of what is added.
pub(super) struct TopicLog {
    pub(super) epoch: Epoch,
    /// The newest.
    pub(super) offset: u64,
    /// Ends with the newest message, if it is not empty.
    history: VecDeque<(Instant, Arc<TopicMessage>)>,
    history_bytes: usize,
    keys: HashMap<Box<str>, u64>,
    key_ages: VecDeque<(Instant, Box<str>)>,
    key_bytes: usize,
    pub(super) feeds: Vec<(u64, Feed)>,
}

impl TopicLog {
    /// Nothing is known of what came up to and including `offset`.
    pub(super) fn new(epoch: Epoch, offset: u64) -> Self {
        Self {
            epoch,
            offset,
            history: VecDeque::new(),
            history_bytes: 0,
            keys: HashMap::new(),
            key_ages: VecDeque::new(),
            key_bytes: 0,
            feeds: Vec::new(),
        }
    }

    pub(super) fn position(&self, offset: u64) -> Position {
        Position::new(self.epoch.clone(), offset)
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.history_bytes + self.key_bytes
    }

    pub(super) fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    /// Where the message with this key is.
    pub(super) fn known(&self, key: &str) -> Option<u64> {
        self.keys.get(key).copied()
    }

    /// Adds the next message, which the feeds are given.
    pub(super) fn add(&mut self, topic: &TopicName, key: &str, data: Data, published: Instant) -> Arc<TopicMessage> {
        self.offset += 1;
        let message = TopicMessage::kept(topic.clone(), self.offset, data);
        self.remember(key, self.offset, published);
        self.history_bytes += message.size();
        self.history.push_back((published, message.clone()));
        for (_, feed) in &self.feeds {
            feed.message(message.clone());
        }
        message
    }

    /// Remembers the key of a message, if it has one.
    pub(super) fn remember(&mut self, key: &str, offset: u64, published: Instant) {
        if !key.is_empty() {
            let key: Box<str> = key.into();
            self.key_bytes += key.len() + KEY_OVERHEAD;
            self.key_ages.push_back((published, key.clone()));
            self.keys.insert(key, offset);
        }
    }

    /// Forgets what is too old or too much.
    pub(super) fn trim(&mut self, options: &TopicOptions, keys: KeyLimits, now: Instant) {
        while let Some((published, message)) = self.history.front()
            && (self.history.len() > options.history_count
                || self.history_bytes > options.history_bytes
                || now.duration_since(*published) > options.history_age)
        {
            self.history_bytes -= message.size();
            self.history.pop_front();
        }
        while let Some((seen, key)) = self.key_ages.front()
            && (self.key_ages.len() > keys.count || now.duration_since(*seen) > keys.age)
        {
            self.key_bytes -= key.len() + KEY_OVERHEAD;
            self.keys.remove(key);
            self.key_ages.pop_front();
        }
    }

    pub(super) fn look(&self, query: &HistoryQuery, now: Instant) -> History {
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
        let messages = self.history.iter().skip(skipped);
        History {
            position: self.position(self.offset),
            from,
            recovered: since.is_some(),
            messages: messages.map(|(_, message)| message.clone()).collect(),
        }
    }
}
