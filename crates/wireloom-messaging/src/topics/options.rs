//! What an application says about its topics.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::broker::{Broker, DynBroker};
use super::memory::MemoryBroker;
use super::name::TopicName;
use crate::server::Connection;

/// What happens to a subscriber for whom more would wait than
/// [`pending_limit`](crate::server::ServerBuilder::pending_limit). Ephemeral messages are dropped before any of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SlowSubscriber {
    /// The oldest messages that wait are dropped: the client sees the gap in the offsets and asks for what it missed.
    #[default]
    DropOldest,
    /// The newest are dropped, and the client is told (`$reset`) when it has taken what waits: then it asks for what it missed.
    DropNewest,
    /// The connection is closed, with [`CloseCode::SlowConsumer`](crate::engine::CloseCode::SlowConsumer); the client connects
    /// again and asks for what it missed.
    Disconnect,
}

/// How a topic behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicOptions {
    /// How many messages are kept. Default: 100.
    pub history_count: usize,
    /// How many bytes of messages are kept. Default: 1 MiB.
    pub history_bytes: usize,
    /// How long they are kept. Default: an hour.
    pub history_age: Duration,
    /// Default: drop the oldest.
    pub slow_subscriber: SlowSubscriber,
    /// Whether it is known who is there. Default: yes.
    pub presence: bool,
    /// How many may be present. Default: 10 000.
    pub max_present: usize,
    /// Whether ephemeral messages travel in datagrams, where the transport has them. Default: yes.
    pub unreliable_ephemerals: bool,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            history_count: 100,
            history_bytes: 1 << 20,
            history_age: Duration::from_secs(3600),
            slow_subscriber: SlowSubscriber::default(),
            presence: true,
            max_present: 10_000,
            unreliable_ephemerals: true,
        }
    }
}

impl TopicOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps so many messages, for so long. Zero keeps none: then nothing can be recovered.
    #[must_use]
    pub fn history(mut self, count: usize, age: Duration) -> Self {
        (self.history_count, self.history_age) = (count, age);
        self
    }

    /// Keeps so many bytes of messages, each counted with what it takes besides its payload (some 150 bytes).
    #[must_use]
    pub fn history_bytes(mut self, bytes: usize) -> Self {
        self.history_bytes = bytes;
        self
    }

    /// What happens to slow subscribers.
    #[must_use]
    pub fn slow_subscriber(mut self, policy: SlowSubscriber) -> Self {
        self.slow_subscriber = policy;
        self
    }

    /// Whether clients may join, and see who is there.
    #[must_use]
    pub fn presence(mut self, on: bool) -> Self {
        self.presence = on;
        self
    }

    /// How many may be present; who comes then is answered `TOPIC_LIMIT`. With up to 1 KiB of info for each they bound what waits for a
    /// client that has asked who is there, beside [`pending_limit`](crate::server::ServerBuilder::pending_limit).
    #[must_use]
    pub fn max_present(mut self, members: usize) -> Self {
        self.max_present = members;
        self
    }

    /// Whether ephemeral messages travel in datagrams, where the transport has them.
    #[must_use]
    pub fn unreliable_ephemerals(mut self, on: bool) -> Self {
        self.unreliable_ephemerals = on;
        self
    }
}

/// A topic and how it behaves. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// How it behaves.
    pub options: Arc<TopicOptions>,
}

impl Topic {
    /// A topic.
    pub fn new(name: TopicName, options: TopicOptions) -> Self {
        Self {
            name,
            options: Arc::new(options),
        }
    }
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TopicAction {
    /// Get its messages, and see its history.
    Subscribe,
    /// Publish, kept or [ephemeral](TopicAccess::is_ephemeral).
    Publish,
    /// See who is there.
    Presence,
    /// Be present.
    Join,
}

/// A client wants something of a topic.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TopicAccess {
    /// Which client.
    pub connection: Connection,
    /// Of which topic.
    pub topic: TopicName,
    /// What.
    pub action: TopicAction,
    /// Whether what it publishes is ephemeral: for those who are subscribed now, and kept nowhere. A rule that lets clients say that they
    /// are typing, and has all that is kept go through a handler, refuses [`TopicAction::Publish`] without this.
    pub is_ephemeral: bool,
}

pub(crate) type Authorise =
    Box<dyn Fn(TopicAccess) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync + 'static>;
type Find = Box<dyn Fn(&str) -> Option<TopicOptions> + Send + Sync>;

/// Which topics a server has, who may do what with them, and what carries and keeps their messages. Give it to
/// [`ServerBuilder::topics`](crate::server::ServerBuilder::topics).
///
/// ```
/// use std::time::Duration;
/// use wireloom_messaging::server::{Handlers, Server};
/// use wireloom_messaging::topics::{SlowSubscriber, TopicAction, TopicOptions, Topics};
///
/// let topics = Topics::new()
///     .topic("news", TopicOptions::new().history(1000, Duration::from_secs(86_400)))
///     .find(|name| name.strip_prefix("rooms/").map(|_| TopicOptions::new()))
///     .authorise(async |access| access.action != TopicAction::Publish || access.connection.session().is_some());
/// let server = Server::builder().topics(topics).build(Handlers::new());
/// ```
#[must_use]
pub struct Topics {
    pub(crate) named: HashMap<TopicName, Arc<TopicOptions>>,
    find: Option<Find>,
    pub(crate) authorise: Option<Authorise>,
    pub(crate) broker: Option<Arc<dyn DynBroker>>,
    pub(crate) max_per_connection: usize,
}

impl Default for Topics {
    fn default() -> Self {
        Self::new()
    }
}

impl Topics {
    /// No topic: add some.
    pub fn new() -> Self {
        Self {
            named: HashMap::new(),
            find: None,
            authorise: None,
            broker: None,
            max_per_connection: 128,
        }
    }

    /// Every name is a topic, with these options, for everybody.
    pub fn open(options: TopicOptions) -> Self {
        Self::new().find(move |_| Some(options.clone()))
    }

    /// There is a topic of this name.
    ///
    /// # Panics
    /// It is no name of a topic: 1 to 200 printable ASCII characters.
    pub fn topic(mut self, name: &str, options: TopicOptions) -> Self {
        let name = TopicName::new(name).expect("a topic's name is 1 to 200 printable ASCII characters");
        self.named.insert(name, Arc::new(options));
        self
    }

    /// Finds the topics that were not [named](Self::topic). It is asked often: it should not take long. `None`: there is no
    /// such topic. Clients cannot tell that from one that they may not use.
    pub fn find(mut self, find: impl Fn(&str) -> Option<TopicOptions> + Send + Sync + 'static) -> Self {
        self.find = Some(Box::new(find));
        self
    }

    /// Decides whether a client may do what it asks for. Asked for each request, and each ephemeral message; what a client
    /// [is subscribed to](Connection::subscribe) by the application, and what the server publishes, is not asked about.
    /// Default: everybody may do everything.
    pub fn authorise<Fut>(mut self, may: impl Fn(TopicAccess) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = bool> + Send + 'static,
    {
        self.authorise = Some(Box::new(move |access| Box::pin(may(access))));
        self
    }

    /// What carries and keeps the messages. Default: a [`MemoryBroker`] of the server's own.
    pub fn broker(mut self, broker: impl Broker) -> Self {
        self.broker = Some(Arc::new(broker));
        self
    }

    /// How many topics a client may be subscribed to or present in at once. Default: 128. Each costs the server about 400 bytes.
    pub fn max_per_connection(mut self, topics: usize) -> Self {
        self.max_per_connection = topics;
        self
    }

    pub(crate) fn find_topic(&self, name: &TopicName) -> Option<Topic> {
        let options = match self.named.get(name) {
            Some(options) => options.clone(),
            None => Arc::new(self.find.as_ref()?(name.as_str())?),
        };
        Some(Topic {
            name: name.clone(),
            options,
        })
    }

    pub(crate) fn take_broker(&mut self) -> Arc<dyn DynBroker> {
        self.broker.take().unwrap_or_else(|| Arc::new(MemoryBroker::new()))
    }
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics")
            .field("named", &self.named)
            .finish_non_exhaustive()
    }
}
