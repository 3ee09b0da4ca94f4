//! What carries and keeps the messages of topics.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::feed::Feed;
use super::message::TopicMessage;
use super::name::TopicName;
use super::options::Topic;
use super::position::Position;
use super::wire::Present;
use crate::data::Data;

/// Why a broker did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// It cannot be reached, or does not answer. A publication may have been accepted all the same: only one with a key can be
    /// repeated without care.
    #[error("the broker cannot be reached: {0}")]
    Unavailable(String),
    /// It has as much as it takes.
    #[error("the broker's limit is reached: {0}")]
    Limit(&'static str),
}

/// What is to be published.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Publication {
    /// The message.
    pub data: Data,
    /// Made up by the publisher for this message, so that it may repeat it; empty if it will not.
    pub key: String,
}

impl Publication {
    /// A message that will not be repeated.
    pub fn new(data: Data) -> Self {
        Self {
            data,
            key: String::new(),
        }
    }

    /// A message that may be repeated with the same key, within two minutes.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }
}

/// Which messages of the past are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryQuery {
    /// All that came after this, if all of them are there.
    pub since: Option<Position>,
    /// If they are not, or no position was given: the newest, at most this many and this old. `None`: none.
    pub recent: Option<Recent>,
}

/// The newest messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    /// At most so many.
    pub count: Option<usize>,
    /// Not older than this.
    pub age: Option<Duration>,
}

impl HistoryQuery {
    /// Nothing of the past, only where the topic is.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that came after this.
    #[must_use]
    pub fn since(mut self, position: Position) -> Self {
        self.since = Some(position);
        self
    }

    /// The newest.
    #[must_use]
    pub fn recent(mut self, recent: Recent) -> Self {
        self.recent = Some(recent);
        self
    }
}

/// A part of a topic's past.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct History {
    /// The newest message that there was.
    pub position: Position,
    /// The offset before the first of `messages`; the newest if there are none.
    pub from: u64,
    /// Whether `messages` are all that came after the position that was asked for.
    pub recovered: bool,
    /// In order, without a gap, up to `position`.
    pub messages: Vec<Arc<TopicMessage>>,
}

/// Who joins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Member {
    /// Public; several members may have the same.
    pub id: String,
    /// Unique among all members of a broker.
    pub key: MemberKey,
}

/// A server, and one of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberKey {
    /// Random for each server.
    pub server: u64,
    /// Of that server.
    pub connection: u64,
}

/// Carries and keeps the messages of topics, for one server or many.
///
/// # What an implementation promises
/// - **Order.** A topic's kept messages have offsets 1, 2, 3 and so on. All subscribers on all servers are given the same messages
///   with the same offsets, in that order.
/// - **In the order of the calls.** Of two publications to one topic through one broker value, that whose future was polled first
///   has the lower offset, if both are accepted.
/// - **At most once, live.** A [`Feed`] is given each message at most once, and none is left out: where the broker cannot say what
///   a feed has missed, it says [`Feed::reset`] first, and goes on wherever it can.
/// - **What is acknowledged is kept.** Once [`publish`](Self::publish) has answered `Ok` with an offset, the message is in the history,
///   as far as the topic's options keep it, and every live feed gets it. How much of that survives a crash is the broker's to say.
///   What was not acknowledged may have been published or not.
/// - **Epochs.** While an epoch lasts, an offset means one message. When the broker has lost offsets it begins a new epoch.
/// - **No gap between past and live.** A feed that was subscribed before [`history`](Self::history) was asked gets everything after
///   [`History::position`], and maybe some before.
/// - **Keys.** A publication with a key that the topic has seen within two minutes is not published again, and is answered with the
///   position of the first. A bounded number of keys is kept; each implementation says how many.
/// - **Ephemeral messages** go to the feeds of the moment, or get lost; between servers also their order.
/// - **Presence.** A member is present from [`join`](Self::join) until [`leave`](Self::leave), or until its server has been gone for a
///   time that the implementation states. Feeds learn of both. An identifier with several members leaves with the last.
/// - **Memory** is bounded; each implementation says by what.
///
/// The futures may be dropped at any point: then the operation happened or did not, whole.
pub trait Broker: Send + Sync + 'static {
    /// A feed's place at a topic. Dropping it ends the feed.
    type Subscription: Send + Sync + 'static;

    /// A server begins to use it, which knows the options of its topics: for a broker that already keeps some of them.
    fn configure(&self, find: &dyn Fn(&TopicName) -> Option<Topic>) {
        let _ = find;
    }

    /// Publishes a message; answers where it is.
    fn publish(
        &self,
        topic: &Topic,
        publication: Publication,
    ) -> impl Future<Output = Result<Position, BrokerError>> + Send;

    /// Publishes a message that is not kept.
    fn publish_ephemeral(&self, topic: &Topic, data: Data) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Gives the feed all that happens at a topic from when this answers.
    fn subscribe(
        &self,
        topic: &Topic,
        feed: Feed,
    ) -> impl Future<Output = Result<Self::Subscription, BrokerError>> + Send;

    /// Looks into the past, and says where the topic is now.
    fn history(&self, topic: &Topic, query: &HistoryQuery)
    -> impl Future<Output = Result<History, BrokerError>> + Send;

    /// A member is present from now on, or has new info. One that was present still is if this fails.
    fn join(
        &self,
        topic: &Topic,
        member: &Member,
        info: &RawValue,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// A member is no longer present; nothing if it was not. Returns at once.
    fn leave(&self, topic: &Topic, member: &Member);

    /// Who is present.
    fn present(&self, topic: &Topic) -> impl Future<Output = Result<Vec<Present>, BrokerError>> + Send;

    /// As many of those who are present as fit into so many bytes of JSON, and how many they all are. By default everybody is asked
    /// for; a broker that has them at hand should not copy more than fits.
    fn some_present(
        &self,
        topic: &Topic,
        bytes: usize,
    ) -> impl Future<Output = Result<(Vec<Present>, usize), BrokerError>> + Send {
        async move {
            let mut present = self.present(topic).await?;
            let count = present.len();
            present.truncate(Present::fitting(&present, bytes));
            Ok((present, count))
        }
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BrokerError>> + Send + 'a>>;

/// [`Broker`] behind a pointer, so that a server's type does not name it.
pub(crate) trait DynBroker: Send + Sync {
    fn configure(&self, find: &dyn Fn(&TopicName) -> Option<Topic>);
    fn publish<'a>(&'a self, topic: &'a Topic, publication: Publication) -> BoxFuture<'a, Position>;
    fn publish_ephemeral<'a>(&'a self, topic: &'a Topic, data: Data) -> BoxFuture<'a, ()>;
    fn subscribe<'a>(&'a self, topic: &'a Topic, feed: Feed) -> BoxFuture<'a, Box<dyn Any + Send + Sync>>;
    fn history<'a>(&'a self, topic: &'a Topic, query: &'a HistoryQuery) -> BoxFuture<'a, History>;
    fn join<'a>(&'a self, topic: &'a Topic, member: &'a Member, info: &'a RawValue) -> BoxFuture<'a, ()>;
    fn leave(&self, topic: &Topic, member: &Member);
    fn present<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Vec<Present>>;
    fn some_present<'a>(&'a self, topic: &'a Topic, bytes: usize) -> BoxFuture<'a, (Vec<Present>, usize)>;
}

impl<B: Broker> DynBroker for B {
    fn configure(&self, find: &dyn Fn(&TopicName) -> Option<Topic>) {
        Broker::configure(self, find);
    }

    fn publish<'a>(&'a self, topic: &'a Topic, publication: Publication) -> BoxFuture<'a, Position> {
        Box::pin(Broker::publish(self, topic, publication))
    }

    fn publish_ephemeral<'a>(&'a self, topic: &'a Topic, data: Data) -> BoxFuture<'a, ()> {
        Box::pin(Broker::publish_ephemeral(self, topic, data))
    }

    fn subscribe<'a>(&'a self, topic: &'a Topic, feed: Feed) -> BoxFuture<'a, Box<dyn Any + Send + Sync>> {
        Box::pin(async move {
            let subscription = Broker::subscribe(self, topic, feed).await?;
            Ok(Box::new(subscription) as Box<dyn Any + Send + Sync>)
        })
    }

    fn history<'a>(&'a self, topic: &'a Topic, query: &'a HistoryQuery) -> BoxFuture<'a, History> {
        Box::pin(Broker::history(self, topic, query))
    }

    fn join<'a>(&'a self, topic: &'a Topic, member: &'a Member, info: &'a RawValue) -> BoxFuture<'a, ()> {
        Box::pin(Broker::join(self, topic, member, info))
    }

    fn leave(&self, topic: &Topic, member: &Member) {
        Broker::leave(self, topic, member);
    }

    fn present<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Vec<Present>> {
        Box::pin(Broker::present(self, topic))
    }

    fn some_present<'a>(&'a self, topic: &'a Topic, bytes: usize) -> BoxFuture<'a, (Vec<Present>, usize)> {
        Box::pin(Broker::some_present(self, topic, bytes))
    }
}
