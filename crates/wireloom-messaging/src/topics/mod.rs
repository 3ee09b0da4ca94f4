//! Topics: messages to everybody who is subscribed, with history, recovery and presence.
//!
//! A topic's kept messages are numbered without a gap. A client that was away names the last one that it has seen and gets
//! exactly what it missed, or is told that this is not possible any more; [`docs/topics.md`](https://github.com/wireloom/wireloom/blob/main/docs/topics.md)
//! says how that looks on the wire. On the server, [`Topics`] says which topics there are and who may use them, and
//! [`Server::publish`](crate::server::Server::publish) publishes. What carries and keeps the messages is a [`Broker`].

#[cfg(feature = "server")]
mod broker;
#[cfg(feature = "server")]
mod feed;
#[cfg(feature = "server")]
mod hub;
#[cfg(feature = "server")]
mod journal;
#[cfg(feature = "server")]
mod log;
#[cfg(feature = "server")]
mod memory;
#[cfg(feature = "server")]
mod message;
mod name;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "server")]
mod options;
mod position;
#[cfg(feature = "server")]
mod requests;
#[cfg(feature = "server")]
mod subscription;
pub(crate) mod wire;

#[cfg(feature = "server")]
pub use self::broker::{Broker, BrokerError, History, HistoryQuery, Member, MemberKey, Publication, Recent};
#[cfg(feature = "server")]
pub use self::feed::Feed;
#[cfg(feature = "server")]
pub use self::hub::TopicError;
#[cfg(feature = "server")]
pub(crate) use self::hub::{Hub, Involved};
#[cfg(feature = "server")]
pub use self::memory::{MemoryBroker, MemorySubscription};
#[cfg(feature = "server")]
pub use self::message::TopicMessage;
#[cfg(feature = "client")]
pub(crate) use self::name::{About, is_key, parse_offset};
pub use self::name::{InvalidTopicName, MAX_KEY, MAX_TOPIC_NAME, TopicName};
#[cfg(feature = "nats")]
pub use self::nats::{NatsBroker, NatsOptions, NatsSubscription};
#[cfg(feature = "server")]
pub use self::options::{SlowSubscriber, Topic, TopicAccess, TopicAction, TopicOptions, Topics};
pub use self::position::{Epoch, InvalidEpoch, MAX_OFFSET, Position};
#[cfg(feature = "server")]
pub(crate) use self::subscription::Subscription;
pub use self::wire::{
    MAX_INFO, Present, TOPIC_FORBIDDEN, TOPIC_INVALID, TOPIC_LIMIT, TOPIC_NOT_SUBSCRIBED, TOPIC_UNAVAILABLE,
};
