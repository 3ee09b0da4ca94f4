//! Topics on NATS: for servers on several machines.
//!
//! # How it works
//! Every topic is a subject of one JetStream stream, and that subject is the one truth: a log of records, each with publications that
//! were accepted together. A record is published with the sequence of the subject's last one
//! (`Nats-Expected-Last-Subject-Sequence`), so that whoever writes has seen everything before: offsets follow each other without a gap,
//! whoever writes them, and a key that was seen is not published again. Two servers that publish to one topic at once conflict; the
//! second reads what it has not seen and tries again. While a record is on its way, the publications that come are collected for the next.
//!
//! The stream republishes what it has accepted (`republish`), and servers with subscribers get that over core NATS, live. A gap in the
//! offsets, a reconnection, and the tenth second without news make them look at the stream. Each keeps the newest messages of the
//! topics that it uses in memory, as the topics' options say.
//!
//! The first record of a subject has no publication, only a random epoch. If a subject is gone from the stream, because of its limits
//! or because the store was lost, there is a new one, and subscribers are told to ask again.

mod log;
mod presence;
mod record;
mod subject;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::connection::State as Connection;
use async_nats::jetstream::stream::{self, DiscardPolicy, Republish, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, ToServerAddrs};
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::unconstrained;

use self::log::{Command, LogTask, check_size};
use self::presence::PresenceTask;
use crate::data::Data;
use crate::topics::broker::{Broker, BrokerError, History, HistoryQuery, Member, Publication};
use crate::topics::feed::Feed;
use crate::topics::name::TopicName;
use crate::topics::options::Topic;
use crate::topics::position::Position;
use crate::topics::wire::Present;

/// How long NATS may take for one thing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Publications and questions that wait for one topic; beside them as many may have been taken from the queue.
const QUEUE: usize = 1024;

/// How often it is looked whether the connection to NATS is another one.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// What can be said about a [`NatsBroker`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NatsOptions {
    /// The name of the stream, and what the names of buckets and subjects begin with. Default: `wireloom`.
    pub name: String,
    /// How many records of a topic are kept, each with at least one publication. Default: 1024. A topic's own options count beside
    /// it.
    pub max_per_topic: i64,
    /// How many bytes of all topics are kept. Default: 1 GiB; then the oldest go, and with its last record a topic's epoch.
    pub max_bytes: i64,
    /// How long records are kept. Default: a week.
    pub max_age: Duration,
    /// On how many servers of a NATS cluster. Default: 1.
    pub replicas: usize,
    /// Topics that one server uses at once. Default: 100 000.
    pub max_topics: usize,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            name: "wireloom".to_owned(),
            max_per_topic: 1024,
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(7 * 86_400),
            replicas: 1,
            max_topics: 100_000,
        }
    }
}

/// Carries and keeps topics on NATS (2.9 or newer, with JetStream). Clones are the same broker.
///
/// - **An acknowledged publication** is in the stream: on disk as JetStream writes it, on as many servers as
///   [`replicas`](NatsOptions::replicas) says.
/// - **While NATS cannot be reached** publications fail at once, or after 5 s if they were under way; those may turn out to be published.
///   Behind others on a connection that has fallen silent it takes about 15 s, after which that is given up.
///   Subscribers get nothing, and can still recover from what this server remembers. Once NATS is back they get what they missed from the
///   stream, in order, within seconds; if it is not there any more, they are told to ask again.
/// - **The largest message** is what the NATS server takes (`max_payload`, 1 MiB unless it is told otherwise) less 520 bytes and the key;
///   larger ones are refused (`TOPIC_LIMIT`).
/// - **Presence** is in a key-value bucket. Members of a server that is gone have left 12 s later; a server that was cut off shows what
///   it knew, and is back in the picture within 5 s of its reconnection.
/// - **Keys** are remembered as long as their records are kept, up to two minutes: at least the last
///   [`max_per_topic`](NatsOptions::max_per_topic) of a topic.
/// - **Memory**: for each topic that this server uses, what the topic's options keep, and at most 2048 publications that wait, also those
///   that were given up; whoever publishes beyond that waits. For all who are present anywhere, their info.
///
/// One server writes a topic's records one after the other, at one round trip each to NATS, and with as many publications in each as
/// have come meanwhile.
#[derive(Clone)]
pub struct NatsBroker(Arc<Shared>);

struct Shared {
    client: Client,
    context: Context,
    stream: Stream,
    options: NatsOptions,
    topics: Mutex<HashMap<TopicName, LogHandle>>,
    /// Counts connections to NATS.
    connects: watch::Receiver<u64>,
    presence: Arc<presence::Shared>,
    /// Where everything runs, whoever asks first.
    runtime: Handle,
    last_feed: AtomicU64,
}

#[derive(Clone)]
struct LogHandle {
    commands: mpsc::Sender<Command>,
    /// Feeds that are over.
    ended: mpsc::UnboundedSender<u64>,
}

impl NatsBroker {
    /// Connects, with the default options; makes the stream and the buckets if they are not there.
    ///
    /// # Errors
    /// NATS cannot be reached, has no JetStream, or has a stream of that name that is another.
    pub async fn connect(addresses: impl ToServerAddrs) -> Result<Self, BrokerError> {
        let options = ConnectOptions::new()
            .subscription_capacity(4096)
            // A connection that carries nothing any more is noticed within two of these.
            .ping_interval(Duration::from_secs(5))
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay);
        let client = options.connect(addresses).await.map_err(unavailable)?;
        Self::new(client, NatsOptions::default()).await
    }

    /// As [`connect`](Self::connect), over a connection of the application's. A small `subscription_capacity` bounds memory: what does not
    /// fit is read from the stream.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn new(client: Client, options: NatsOptions) -> Result<Self, BrokerError> {
        let mut context = jetstream::new(client.clone());
        context.set_timeout(PATIENCE);
        let name = &options.name;
        let config = stream::Config {
            name: name.clone(),
            subjects: vec![format!("{name}.t.>")],
            max_messages_per_subject: options.max_per_topic,
            max_bytes: options.max_bytes,
            max_age: options.max_age,
            discard: DiscardPolicy::Old,
            num_replicas: options.replicas,
            republish: Some(Republish {
                source: format!("{name}.t.>"),
                destination: format!("{name}.l.>"),
                headers_only: false,
            }),
            ..stream::Config::default()
        };
        let stream = context.get_or_create_stream(config).await.map_err(unavailable)?;
        let (connects_in, connects) = watch::channel(0);
        tokio::spawn(watch_connection(client.clone(), connects_in));
        let presence = PresenceTask::start(&client, &context, &options, connects.clone()).await?;
        Ok(Self(Arc::new(Shared {
            client,
            context,
            stream,
            options,
            topics: Mutex::default(),
            connects,
            presence,
            runtime: Handle::current(),
            last_feed: AtomicU64::new(0),
        })))
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<TopicName, LogHandle>> {
        self.0.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, topic: &Topic) -> Result<LogHandle, BrokerError> {
        let mut topics = self.topics();
        if let Some(handle) = topics.get(&topic.name).filter(|handle| !handle.commands.is_closed()) {
            return Ok(handle.clone());
        }
        if topics.len() >= self.0.options.max_topics {
            return Err(BrokerError::Limit("topics"));
        }
        let (commands, commands_out) = mpsc::channel(QUEUE);
        let (ended, ended_out) = mpsc::unbounded_channel();
        let handle = LogHandle { commands, ended };
        let task = LogTask::new(&self.0, topic.clone(), commands_out, ended_out);
        self.0.runtime.spawn(task.run());
        topics.insert(topic.name.clone(), handle.clone());
        Ok(handle)
    }

    /// Asks a topic's task, which may have gone to rest just now.
    async fn ask<T>(
        &self,
        topic: &Topic,
        command: impl Fn(oneshot::Sender<Result<T, BrokerError>>) -> Command,
    ) -> Result<T, BrokerError> {
        for _ in 0..3 {
            let (reply, answer) = oneshot::channel();
            let handle = self.handle(topic)?;
            // Unconstrained, so that it takes its place in the queue when it is polled first.
            if unconstrained(handle.commands.send(command(reply))).await.is_err() {
                continue;
            }
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(BrokerError::Unavailable("the topic's task has ended".to_owned()))
    }

    fn check_connected(&self) -> Result<(), BrokerError> {
        check_connected(&self.0.client)
    }
}

/// Before each attempt to reconnect: from 50 ms to 2 s.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).saturating_sub(1).min(6);
    Duration::from_millis(50)
        .saturating_mul(1 << doublings)
        .min(Duration::from_secs(2))
}

fn check_connected(client: &Client) -> Result<(), BrokerError> {
    match client.connection_state() {
        Connection::Connected => Ok(()),
        _ => Err(BrokerError::Unavailable("not connected to NATS".to_owned())),
    }
}

fn unavailable(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Unavailable(error.to_string())
}

/// NATS's client has no notice of its reconnections but for who has made it.
async fn watch_connection(client: Client, connects: watch::Sender<u64>) {
    while !connects.is_closed() {
        let now = client.statistics().connects.load(Ordering::Relaxed);
        connects.send_if_modified(|seen| std::mem::replace(seen, now) != now);
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

impl Broker for NatsBroker {
    type Subscription = NatsSubscription;

    async fn publish(&self, topic: &Topic, publication: Publication) -> Result<Position, BrokerError> {
        self.check_connected()?;
        check_size(&self.0.client, &publication)?;
        let ask = |reply| Command::Publish(publication.clone(), reply);
        self.ask(topic, ask).await
    }

    async fn publish_ephemeral(&self, topic: &Topic, data: Data) -> Result<(), BrokerError> {
        self.check_connected()?;
        let publication = Publication::new(data);
        check_size(&self.0.client, &publication)?;
        let subject = format!("{}.e.{}", self.0.options.name, subject::token(&topic.name));
        let sent = self
            .0
            .client
            .publish(subject, record::encode_ephemeral(&publication.data));
        sent.await.map_err(unavailable)
    }

    async fn subscribe(&self, topic: &Topic, feed: Feed) -> Result<NatsSubscription, BrokerError> {
        let number = self.0.last_feed.fetch_add(1, Ordering::Relaxed);
        let ask = |reply| Command::Subscribe(number, feed.clone(), reply);
        // Before it is asked: whoever drops this future meanwhile undoes it.
        let subscription = NatsSubscription {
            broker: Arc::downgrade(&self.0),
            topic: topic.name.clone(),
            number,
        };
        self.ask(topic, ask).await?;
        self.0.presence.add_feed(&topic.name, number, feed);
        Ok(subscription)
    }

    async fn history(&self, topic: &Topic, query: &HistoryQuery) -> Result<History, BrokerError> {
        let ask = |reply| Command::History(query.clone(), reply);
        self.ask(topic, ask).await
    }

    async fn join(&self, topic: &Topic, member: &Member, info: &RawValue) -> Result<(), BrokerError> {
        self.check_connected()?;
        self.0.presence.join(topic, member, info).await
    }

    fn leave(&self, topic: &Topic, member: &Member) {
        self.0.presence.leave(&topic.name, member);
    }

    async fn present(&self, topic: &Topic) -> Result<Vec<Present>, BrokerError> {
        Ok(self.some_present(topic, usize::MAX).await?.0)
    }

    async fn some_present(&self, topic: &Topic, bytes: usize) -> Result<(Vec<Present>, usize), BrokerError> {
        self.0.presence.present(&topic.name, bytes).await
    }
}

impl std::fmt::Debug for NatsBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsBroker")
            .field("options", &self.0.options)
            .field("state", &self.0.client.connection_state())
            .finish_non_exhaustive()
    }
}

/// A feed's place at a topic of a [`NatsBroker`]. Dropping it ends the feed.
#[derive(Debug)]
pub struct NatsSubscription {
    broker: Weak<Shared>,
    topic: TopicName,
    number: u64,
}

impl Drop for NatsSubscription {
    fn drop(&mut self) {
        let Some(shared) = self.broker.upgrade() else { return };
        shared.presence.remove_feed(&self.topic, self.number);
        let topics = shared.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = topics.get(&self.topic) {
            // Fails if the task has ended, and with it the feed.
            let _ = handle.ended.send(self.number);
        }
    }
}
