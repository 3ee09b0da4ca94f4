//! The topics of one server: who is subscribed to what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

use super::broker::{BrokerError, DynBroker, History, HistoryQuery, Member, MemberKey, Publication};
use super::feed::LocalTopic;
use super::message::{self, Framing, TopicMessage};
use super::name::{InvalidTopicName, TopicName, is_key};
use super::options::{Topic, TopicAccess, TopicAction, Topics};
use super::position::{MAX_OFFSET, Position};
use super::subscription::Subscription;
use super::wire::{MAX_INFO, Present};
use super::{TOPIC_FORBIDDEN, TOPIC_INVALID, TOPIC_LIMIT, TOPIC_NOT_SUBSCRIBED, TOPIC_UNAVAILABLE};
use crate::codec::Encoding;
use crate::data::Data;
use crate::server::{Connection, Inner};

/// Why something about a topic was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// There is no such topic, or the application refuses.
    #[error("there is no such topic, or it may not be used")]
    Forbidden,
    /// Name, key or payload are not as they have to be.
    #[error("{0}")]
    Invalid(&'static str),
    /// Too many, or too large.
    #[error("too much: {0}")]
    Limit(&'static str),
    /// The broker cannot be reached. A publication may have been accepted all the same.
    #[error("the broker cannot be reached: {0}")]
    Unavailable(String),
    /// There is no such subscription.
    #[error("there is no such subscription")]
    NotSubscribed,
    /// The connection is over.
    #[error("the connection is over")]
    Disconnected,
    /// The server has no topics.
    #[error("the server has no topics")]
    Disabled,
}

impl TopicError {
    /// The code that a client is answered with.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden => TOPIC_FORBIDDEN,
            Self::Invalid(_) => TOPIC_INVALID,
            Self::Limit(_) => TOPIC_LIMIT,
            Self::Unavailable(_) | Self::Disconnected | Self::Disabled => TOPIC_UNAVAILABLE,
            Self::NotSubscribed => TOPIC_NOT_SUBSCRIBED,
        }
    }
}

impl From<BrokerError> for TopicError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Unavailable(why) => Self::Unavailable(why),
            BrokerError::Limit(what) => Self::Limit(what),
        }
    }
}

impl From<InvalidTopicName> for TopicError {
    fn from(_: InvalidTopicName) -> Self {
        Self::Invalid("the name of a topic is 1 to 200 printable ASCII characters")
    }
}

/// The topics of one server.
pub(crate) struct Hub {
    topics: Topics,
    broker: Arc<dyn DynBroker>,
    /// Those that have subscribers here.
    live: Mutex<HashMap<TopicName, Arc<LocalTopic>>>,
    /// Random.
    server: u64,
    message_buffer: usize,
}

/// What a connection has to do with topics.
#[derive(Default)]
pub(crate) struct Involved {
    topics: HashMap<TopicName, Involvement>,
    over: bool,
}

#[derive(Default)]
struct Involvement {
    subscription: Option<Arc<Subscription>>,
    joined: Option<Joined>,
}

/// Presence of a connection.
struct Joined {
    topic: Topic,
    member: Member,
    /// The broker has said so, and not only been asked.
    is_present: bool,
}

/// How a connection is to be subscribed.
pub(super) struct Subscribe {
    pub(super) framing: Framing,
    pub(super) query: HistoryQuery,
    pub(super) presence: bool,
    /// `None`: as it was.
    pub(super) join: Option<Option<Box<RawValue>>>,
}

/// What became of it.
pub(super) struct Subscribed {
    pub(super) position: Position,
    pub(super) from: u64,
    pub(super) recovered: bool,
    pub(super) here: Option<Vec<Present>>,
    pub(super) id: Option<String>,
}

impl Hub {
    pub(crate) fn new(mut topics: Topics, message_buffer: usize) -> Arc<Self> {
        let broker = topics.take_broker();
        broker.configure(&|name| topics.find_topic(name));
        Arc::new(Self {
            broker,
            topics,
            live: Mutex::default(),
            // Without randomness nothing else works either.
            server: getrandom::u64().unwrap_or_default(),
            message_buffer,
        })
    }

    fn live(&self) -> MutexGuard<'_, HashMap<TopicName, Arc<LocalTopic>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_topic(&self, name: &TopicName) -> Option<Arc<LocalTopic>> {
        self.live().get(name).cloned()
    }

    pub(crate) fn broker(&self) -> &dyn DynBroker {
        &*self.broker
    }

    pub(crate) fn topic(&self, name: &TopicName) -> Result<Topic, TopicError> {
        if let Some(local) = self.live_topic(name) {
            return Ok(local.topic.clone());
        }
        self.topics.find_topic(name).ok_or(TopicError::Forbidden)
    }

    /// The topic, if the client may do that.
    pub(super) async fn authorised(
        &self,
        connection: &Connection,
        name: &TopicName,
        action: TopicAction,
    ) -> Result<Topic, TopicError> {
        self.may(connection, name, action, false).await
    }

    /// The topic, if the client may publish an ephemeral message to it.
    pub(super) async fn authorised_ephemeral(
        &self,
        connection: &Connection,
        name: &TopicName,
    ) -> Result<Topic, TopicError> {
        self.may(connection, name, TopicAction::Publish, true).await
    }

    async fn may(
        &self,
        connection: &Connection,
        name: &TopicName,
        action: TopicAction,
        is_ephemeral: bool,
    ) -> Result<Topic, TopicError> {
        let topic = self.topic(name)?;
        let about_presence = matches!(action, TopicAction::Presence | TopicAction::Join);
        if about_presence && !topic.options.presence {
            return Err(TopicError::Forbidden);
        }
        if let Some(authorise) = &self.topics.authorise {
            let access = TopicAccess {
                connection: connection.clone(),
                topic: name.clone(),
                action,
                is_ephemeral,
            };
            if !authorise(access).await {
                return Err(TopicError::Forbidden);
            }
        }
        Ok(topic)
    }

    pub(super) fn check(&self, topic: &Topic, data: &Data) -> Result<(), TopicError> {
        if data.encoding == Encoding::Utf16 && !data.bytes.len().is_multiple_of(2) {
            return Err(TopicError::Invalid("a payload in UTF-16 has an even number of bytes"));
        }
        if data.bytes.len() > message::room(self.message_buffer, &topic.name) {
            return Err(TopicError::Limit(
                "the message does not fit into the message buffer of subscribers",
            ));
        }
        Ok(())
    }

    pub(crate) async fn publish(&self, topic: &Topic, data: Data, key: &str) -> Result<Position, TopicError> {
        self.room(topic).await;
        self.publish_now(topic, data, key).await
    }

    /// Those who publish or join do not outrun the feed.
    pub(super) async fn room(&self, topic: &Topic) {
        if let Some(local) = self.live_topic(&topic.name) {
            local.room().await;
        }
    }

    pub(super) async fn publish_now(&self, topic: &Topic, data: Data, key: &str) -> Result<Position, TopicError> {
        self.check(topic, &data)?;
        if !is_key(key.as_bytes()) {
            return Err(TopicError::Invalid("a key is at most 64 of A-Z a-z 0-9 _ -"));
        }
        let position = self.broker.publish(topic, Publication::new(data).key(key)).await?;
        debug_assert!(position.offset <= MAX_OFFSET);
        Ok(position)
    }

    pub(crate) async fn publish_ephemeral(&self, topic: &Topic, data: Data) -> Result<(), TopicError> {
        self.check(topic, &data)?;
        Ok(self.broker.publish_ephemeral(topic, data).await?)
    }

    /// The topic with its place at the broker, made if need be.
    async fn attach(&self, topic: &Topic) -> Result<Arc<LocalTopic>, TopicError> {
        let local = {
            let mut live = self.live();
            let local = live.entry(topic.name.clone());
            local.or_insert_with(|| LocalTopic::new(topic.clone())).clone()
        };
        let unused = Unused { hub: self, local };
        let source = unused.local.source.get_or_try_init(|| async {
            let feed = unused.local.feed();
            self.broker.subscribe(topic, feed).await
        });
        source.await?;
        Ok(unused.local.clone())
    }

    /// Subscribes a connection, in the place of what it was subscribed to of this topic.
    pub(super) async fn subscribe(
        &self,
        connection: &Connection,
        topic: &Topic,
        how: Subscribe,
    ) -> Result<Subscribed, TopicError> {
        let inner = &connection.inner;
        let subscription = loop {
            let local = self.attach(topic).await?;
            let subscription = Subscription::new(local.clone(), inner.clone(), how.framing, how.presence);
            // Before it is entered, or the last one's end would retire the topic.
            if local.add(subscription.clone()) {
                break subscription;
            }
            // Retired between the two: it is not in the map any more.
        };
        let mut entered = Entered {
            hub: self,
            subscription,
            keep: false,
        };
        let subscription = &entered.subscription;
        self.enter(inner, topic, |involvement| {
            involvement.subscription.replace(subscription.clone())
        })?
        .inspect(|old| self.drop_subscription(old));
        let mut history = self.broker.history(topic, &how.query).await?;
        self.leave_out_too_large(topic, &mut history);
        if let Some(join) = how.join {
            self.set_presence(connection, topic, join).await?;
        }
        let mut here = match how.presence {
            true => Some(self.broker.present(topic).await?),
            false => None,
        };
        // Those that have no room in the reply are told as joins.
        let rest = here
            .as_mut()
            .map(|here| here.split_off(Present::fitting(here, self.reply_room())))
            .unwrap_or_default();
        let subscribed = Subscribed {
            position: history.position.clone(),
            from: history.from,
            recovered: history.recovered,
            here,
            id: self.joined_id(inner, topic),
        };
        if !subscription.go_live(history, rest) {
            return Err(TopicError::Disconnected);
        }
        entered.keep = true;
        Ok(subscribed)
    }

    /// Another server, or an earlier start of this one, may have let in what no client here may be sent: the past begins behind it.
    fn leave_out_too_large(&self, topic: &Topic, history: &mut History) {
        let room = message::room(self.message_buffer, &topic.name);
        let is_too_large = |message: &Arc<TopicMessage>| message.data().bytes.len() > room;
        if let Some(last) = history.messages.iter().rposition(is_too_large) {
            tracing::warn!(topic = %topic.name, "messages are larger than the message buffer, and left out");
            history.from = history.messages[last].offset().unwrap_or(history.from);
            history.recovered = false;
            history.messages.drain(..=last);
        }
    }

    /// How many bytes those who are present may take in a reply.
    pub(super) fn reply_room(&self) -> usize {
        // Less than a tenth of the default buffer goes to everything else.
        self.message_buffer.saturating_sub(512)
    }

    /// Changes what a connection has to do with a topic, which may be new to it.
    fn enter<T>(
        &self,
        inner: &Inner,
        topic: &Topic,
        change: impl FnOnce(&mut Involvement) -> T,
    ) -> Result<T, TopicError> {
        let mut involved = inner.topics();
        if involved.over {
            return Err(TopicError::Disconnected);
        }
        let count = involved.topics.len();
        if !involved.topics.contains_key(&topic.name) && count >= self.topics.max_per_connection {
            return Err(TopicError::Limit("topics of one connection"));
        }
        Ok(change(involved.topics.entry(topic.name.clone()).or_default()))
    }

    fn drop_subscription(&self, subscription: &Arc<Subscription>) {
        subscription.end();
        self.detach(&subscription.local, |local| local.remove(subscription));
    }

    fn detach(&self, local: &Arc<LocalTopic>, is_last: impl FnOnce(&LocalTopic) -> bool) {
        let mut live = self.live();
        if is_last(local)
            && live
                .get(&local.topic.name)
                .is_some_and(|other| Arc::ptr_eq(other, local))
        {
            let removed = live.remove(&local.topic.name);
            drop(live);
            drop(removed);
        }
    }

    /// Joins, has other info, or leaves. Answers the identifier of who is present then.
    pub(super) async fn set_presence(
        &self,
        connection: &Connection,
        topic: &Topic,
        info: Option<Box<RawValue>>,
    ) -> Result<Option<String>, TopicError> {
        let inner = &connection.inner;
        let Some(info) = info else {
            let left = {
                let mut involved = inner.topics();
                let left = involved
                    .topics
                    .get_mut(&topic.name)
                    .and_then(|involvement| involvement.joined.take());
                involved.tidy(&topic.name);
                left
            };
            if let Some(left) = left {
                self.broker.leave(&left.topic, &left.member);
            }
            return Ok(None);
        };
        if info.get().len() > MAX_INFO {
            return Err(TopicError::Limit("the info is longer than 1024 bytes"));
        }
        self.room(topic).await;
        let member = Member {
            id: inner.public_id(self.server),
            key: MemberKey {
                server: self.server,
                connection: inner.id,
            },
        };
        // Entered first: whoever ends the connection meanwhile lets it leave.
        let old = self.enter(inner, topic, |involvement| match &involvement.joined {
            Some(joined) if joined.member == member => None,
            _ => involvement.joined.replace(Joined {
                topic: topic.clone(),
                member: member.clone(),
                is_present: false,
            }),
        })?;
        if let Some(old) = old {
            self.broker.leave(&old.topic, &old.member);
        }
        let mut joining = Joining {
            hub: self,
            inner,
            topic,
            member,
            is_ok: false,
        };
        let joined = self.broker.join(topic, &joining.member, &info).await;
        joining.is_ok = joined.is_ok();
        let id = joining.member.id.clone();
        drop(joining);
        joined?;
        Ok(Some(id))
    }

    pub(super) fn joined_id(&self, inner: &Inner, topic: &Topic) -> Option<String> {
        let involved = inner.topics();
        let joined = involved.topics.get(&topic.name)?.joined.as_ref();
        joined.map(|joined| joined.member.id.clone())
    }

    /// Ends a subscription and presence.
    pub(crate) fn unsubscribe(&self, inner: &Inner, name: &TopicName) -> Result<(), TopicError> {
        let involvement = inner.topics().topics.remove(name);
        let involvement = involvement.ok_or(TopicError::NotSubscribed)?;
        self.end(involvement);
        Ok(())
    }

    fn end(&self, involvement: Involvement) {
        if let Some(subscription) = &involvement.subscription {
            self.drop_subscription(subscription);
        }
        if let Some(joined) = &involvement.joined {
            self.broker.leave(&joined.topic, &joined.member);
        }
    }

    /// The connection is over.
    pub(crate) fn disconnected(&self, inner: &Inner) {
        let topics = {
            let mut involved = inner.topics();
            involved.over = true;
            std::mem::take(&mut involved.topics)
        };
        topics.into_values().for_each(|involvement| self.end(involvement));
    }

    /// Subscribes a connection for its application, with signals that every client knows.
    pub(crate) async fn subscribe_plain(&self, connection: &Connection, name: &str) -> Result<Position, TopicError> {
        let topic = self.topic(&TopicName::new(name)?)?;
        let how = Subscribe {
            framing: Framing::Plain,
            query: HistoryQuery::new(),
            presence: false,
            join: None,
        };
        let subscribed = self.subscribe(connection, &topic, how).await?;
        Ok(Position::new(subscribed.position.epoch, subscribed.from))
    }
}

impl Involved {
    /// The broker has answered. `false`: the member is not to be present, as it has left or failed to join. One that was present
    /// already is so after a failure, too.
    fn has_joined(&mut self, name: &TopicName, member: &Member, is_ok: bool) -> bool {
        let Some(involvement) = self.topics.get_mut(name) else {
            return false;
        };
        let Some(joined) = involvement.joined.as_mut().filter(|joined| joined.member == *member) else {
            return false;
        };
        joined.is_present |= is_ok;
        let is_present = joined.is_present;
        if !is_present {
            involvement.joined = None;
            self.tidy(name);
        }
        is_present
    }

    fn tidy(&mut self, name: &TopicName) {
        let is_nothing = |involvement: &Involvement| involvement.subscription.is_none() && involvement.joined.is_none();
        if self.topics.get(name).is_some_and(is_nothing) {
            self.topics.remove(name);
        }
    }
}

/// A topic that may have come to life for nothing.
struct Unused<'a> {
    hub: &'a Hub,
    local: Arc<LocalTopic>,
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        if self.local.source.get().is_none() {
            self.hub.detach(&self.local, LocalTopic::retire_if_empty);
        }
    }
}

/// A member that the broker is being told of. Dropped before it has answered, it may have heard all the same.
struct Joining<'a> {
    hub: &'a Hub,
    inner: &'a Inner,
    topic: &'a Topic,
    member: Member,
    is_ok: bool,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        let is_present = self
            .inner
            .topics()
            .has_joined(&self.topic.name, &self.member, self.is_ok);
        if !is_present {
            self.hub.broker.leave(self.topic, &self.member);
        }
    }
}

/// A subscription that is undone unless it is kept.
struct Entered<'a> {
    hub: &'a Hub,
    subscription: Arc<Subscription>,
    keep: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        self.hub.drop_subscription(&self.subscription);
        let name = &self.subscription.local.topic.name;
        let mut involved = self.subscription.connection().topics();
        if let Some(involvement) = involved.topics.get_mut(name)
            && involvement
                .subscription
                .as_ref()
                .is_some_and(|other| Arc::ptr_eq(other, &self.subscription))
        {
            involvement.subscription = None;
            involved.tidy(name);
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("live", &self.live().len())
            .finish_non_exhaustive()
    }
}
