//! A message of a topic, encoded once for all of its subscribers.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::name::TopicName;
use super::wire::{PresenceSignal, Present};
use crate::codec::{Encoding, Message, Name, Payload};
use crate::data::Data;
use crate::transport::Signals;

/// What precedes the payload of a message in its signal at most, beside the topic's name: type, length, `$message/`, the longest
/// offset, a slash, and the padding of UTF-16.
const HEADER: usize = 2 + "$message/9007199254740991/".len() + 1;

/// How much a message may hold where a message buffer is so large.
pub(crate) fn room(buffer: usize, topic: &TopicName) -> usize {
    buffer.saturating_sub(HEADER + topic.as_str().len())
}

/// A message of a topic, as brokers keep and deliver it. Shared: what it is encoded to, it is encoded to once.
#[derive(Debug)]
pub struct TopicMessage {
    topic: TopicName,
    /// 0: ephemeral.
    offset: u64,
    data: Data,
    frames: [OnceLock<Bytes>; 2],
}

/// What a subscriber's client knows of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `$message/OFFSET/TOPIC`.
    Offset,
    /// A signal named after the topic: for clients that know only signals.
    Plain,
}

impl TopicMessage {
    /// A message that has its place in the history of a topic. Its data is copied: it would keep all of what it was received in.
    pub fn kept(topic: TopicName, offset: u64, data: Data) -> Arc<Self> {
        debug_assert!(offset > 0, "offsets begin at 1");
        let mut this = Self::new(topic, offset, data);
        match this.encode(Framing::Offset) {
            // Once in memory: as what subscribers are sent.
            Some(frame) => {
                this.data.bytes = frame.slice(frame.len() - this.data.bytes.len()..);
                this.frames[Framing::Offset as usize] = frame.into();
            }
            None => this.data.bytes = Bytes::copy_from_slice(&this.data.bytes),
        }
        Arc::new(this)
    }

    /// A message that whoever is there gets, or does not get.
    pub fn ephemeral(topic: TopicName, data: Data) -> Arc<Self> {
        Arc::new(Self::new(topic, 0, data))
    }

    fn new(topic: TopicName, offset: u64, data: Data) -> Self {
        Self {
            topic,
            offset,
            data,
            frames: Default::default(),
        }
    }

    /// The topic.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Where it is in the history; `None` if it is ephemeral.
    pub fn offset(&self) -> Option<u64> {
        (self.offset > 0).then_some(self.offset)
    }

    /// What was published.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// About how much memory it takes, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.data.bytes.len()
    }

    /// Its signal.
    pub(crate) fn frame(&self, framing: Framing) -> Bytes {
        self.frames[framing as usize]
            .get_or_init(|| self.encode(framing).unwrap_or_default())
            .clone()
    }

    fn encode(&self, framing: Framing) -> Option<Bytes> {
        let name = match (framing, self.offset) {
            (Framing::Plain, _) => self.topic.as_str().to_owned(),
            (Framing::Offset, 0) => format!("$message//{}", self.topic),
            (Framing::Offset, offset) => format!("$message/{offset}/{}", self.topic),
        };
        // A UTF-16 signal needs a payload (section 4.3).
        let payload = match self.data.payload() {
            Payload {
                encoding: Encoding::Utf16,
                bytes: [],
            } => Payload::utf8(""),
            payload => payload,
        };
        let signal = Message::Signal {
            name: Name::new(&name).ok()?,
            payload,
        };
        // What is published was checked: this fails for nothing that a server has let in.
        signal.to_vec().ok().map(Bytes::from)
    }
}

/// Messages that go to all subscribers together.
#[derive(Debug)]
pub(crate) struct Batch {
    messages: Vec<Arc<TopicMessage>>,
    /// Bytes of the largest one's data.
    largest: usize,
    signals: [OnceLock<Arc<Signals>>; 2],
}

impl Batch {
    /// In the order of their offsets, or ephemeral all of them.
    pub(crate) fn new(messages: Vec<Arc<TopicMessage>>) -> Arc<Self> {
        Arc::new(Self {
            largest: messages
                .iter()
                .map(|message| message.data.bytes.len())
                .max()
                .unwrap_or(0),
            messages,
            signals: Default::default(),
        })
    }

    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    pub(crate) fn messages(&self) -> &[Arc<TopicMessage>] {
        &self.messages
    }

    pub(crate) fn signals(&self, framing: Framing) -> &Arc<Signals> {
        self.signals[framing as usize]
            .get_or_init(|| Arc::new(self.messages.iter().map(|message| message.frame(framing)).collect()))
    }

    pub(crate) fn size(&self) -> usize {
        self.messages.iter().map(|message| message.size()).sum()
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.messages.first().is_some_and(|message| message.offset == 0)
    }
}

/// Joins and leaves that all subscribers of a topic are told together.
#[derive(Debug)]
pub(crate) struct PresenceBatch {
    presence: PresenceSignal,
    signals: OnceLock<Arc<Signals>>,
}

impl PresenceBatch {
    pub(crate) fn new(presence: PresenceSignal) -> Arc<Self> {
        Arc::new(Self {
            presence,
            signals: OnceLock::new(),
        })
    }

    pub(crate) fn size(&self) -> usize {
        self.presence.join.iter().map(Present::size).sum::<usize>() + 100
    }

    /// In messages that fit into a buffer of this size, which is the same for all connections of a server.
    pub(crate) fn signals(&self, topic: &TopicName, buffer: usize) -> &Arc<Signals> {
        self.signals
            .get_or_init(|| Arc::new(presence_signals(&self.presence, topic, buffer)))
    }
}

/// Joins and leaves, in messages that fit into a buffer of this size.
pub(crate) fn presence_signals(presence: &PresenceSignal, topic: &TopicName, buffer: usize) -> Signals {
    let name = format!("$presence/{topic}");
    let room = buffer.saturating_sub(3 + name.len());
    let signal = |json: String| {
        let name = Name::new(&name).ok()?;
        let payload = Payload::utf8(&json);
        Message::Signal { name, payload }.to_vec().ok().map(Bytes::from)
    };
    presence.pieces(room).into_iter().filter_map(signal).collect()
}
