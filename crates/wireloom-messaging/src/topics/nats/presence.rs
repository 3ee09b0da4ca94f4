//! Who is present, on all servers: a key-value bucket of members, and one of servers that are alive.
//!
//! Every server has all of it in memory, watches both buckets, and says every three seconds that it is there. The members of one that
//! has not said so for ten seconds are taken out by all others. While this server is cut off nobody is: it cannot tell who is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Entry, Operation, Store};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};

use super::{NatsOptions, PATIENCE, check_connected, subject, unavailable};
use crate::nats::open_bucket;
use crate::topics::broker::{BrokerError, Member, MemberKey};
use crate::topics::feed::Feed;
use crate::topics::name::TopicName;
use crate::topics::options::Topic;
use crate::topics::wire::Present;

/// After which members that could not be deleted are deleted again.
const DELETE_AGAIN: Duration = Duration::from_secs(1);

/// How often a server says that it is there.
const BEAT: Duration = Duration::from_secs(3);

/// A server that has not said so for this long is gone.
const SILENCE: Duration = Duration::from_secs(10);

/// How often it is looked for such servers.
const LOOK: Duration = Duration::from_secs(1);

/// Deleted keys leave marks behind; those and the entries go after this long, and members of servers that live are written again
/// three times as often.
const ENTRY_LIFETIME: Duration = Duration::from_secs(3600);

/// How long the first look at the bucket may take.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Entries of members that are written or deleted at once: one by one, those of a large server would take longer than others wait.
const IN_FLIGHT: usize = 64;

pub(super) struct Shared {
    state: Mutex<State>,
    members: Store,
    /// Random: of this broker.
    node: u64,
    /// Keys to be deleted.
    gone: mpsc::UnboundedSender<String>,
    /// Whether the bucket has been read.
    synced: watch::Receiver<bool>,
}

#[derive(Default)]
struct State {
    topics: HashMap<TopicName, HashMap<String, Vec<Place>>>,
    feeds: HashMap<TopicName, Vec<(u64, Feed)>>,
    /// By key: what this server has said.
    own: HashMap<String, Box<RawValue>>,
    nodes: HashMap<u64, Heard>,
}

/// When a server was last heard of.
struct Heard {
    at: Instant,
    /// Of its entry; 0 before one was seen.
    revision: u64,
}

impl Heard {
    fn now(revision: u64) -> Self {
        Self {
            at: Instant::now(),
            revision,
        }
    }

    /// Silent for as long as servers may be.
    fn long_ago(revision: u64) -> Self {
        let now = Instant::now();
        Self {
            at: now.checked_sub(SILENCE).unwrap_or(now),
            revision,
        }
    }
}

/// One member; several may share an identifier, of which the last one's info counts.
struct Place {
    node: u64,
    key: MemberKey,
    info: Box<RawValue>,
    /// When it was last seen in the bucket: the number of the look.
    seen: u64,
}

/// The parts of a key in the bucket.
struct Key {
    topic: TopicName,
    id: String,
    node: u64,
    key: MemberKey,
}

impl Key {
    fn text(topic: &TopicName, member: &Member, node: u64) -> String {
        let MemberKey { server, connection } = member.key;
        format!(
            "{}.{}.{node:x}-{server:x}-{connection:x}",
            subject::token(topic),
            member.id
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (topic, id, who) = (parts.next()?, parts.next()?, parts.next()?);
        let mut numbers = who.split('-').map(|number| u64::from_str_radix(number, 16).ok());
        let node = numbers.next()??;
        let (server, connection) = (numbers.next()??, numbers.next()??);
        Some(Self {
            topic: subject::topic(topic)?,
            id: id.to_owned(),
            node,
            key: MemberKey { server, connection },
        })
    }
}

impl State {
    fn tell(&self, topic: &TopicName, what: impl Fn(&Feed)) {
        if let Some(feeds) = self.feeds.get(topic) {
            feeds.iter().for_each(|(_, feed)| what(feed));
        }
    }

    fn add(&mut self, key: Key, info: &RawValue, look: u64) {
        let Key { topic, id, node, key } = key;
        let places = self
            .topics
            .entry(topic.clone())
            .or_default()
            .entry(id.clone())
            .or_default();
        let before = places.last().map(|place| place.info.get() == info.get());
        places.retain(|place| place.key != key);
        places.push(Place {
            node,
            key,
            info: info.to_owned(),
            seen: look,
        });
        if before != Some(true) {
            self.tell(&topic, |feed| feed.joined(Present::new(id.clone(), info.to_owned())));
        }
    }

    /// Takes members of a topic away.
    fn remove(&mut self, topic: &TopicName, is_gone: impl Fn(&str, &Place) -> bool) {
        let Some(present) = self.topics.get_mut(topic) else {
            return;
        };
        let mut left = Vec::new();
        present.retain(|id, places| {
            places.retain(|place| !is_gone(id, place));
            if places.is_empty() {
                left.push(id.clone());
            }
            !places.is_empty()
        });
        if present.is_empty() {
            self.topics.remove(topic);
        }
        for id in left {
            self.tell(topic, |feed| feed.left(id.clone()));
        }
    }

    fn remove_everywhere(&mut self, is_gone: impl Fn(&Place) -> bool) {
        let topics: Vec<TopicName> = self.topics.keys().cloned().collect();
        for topic in topics {
            self.remove(&topic, |_, place| is_gone(place));
        }
    }

    /// The keys of a server's members.
    fn keys_of(&self, node: u64) -> Vec<String> {
        let mut keys = Vec::new();
        for (topic, present) in &self.topics {
            for (id, places) in present {
                for place in places.iter().filter(|place| place.node == node) {
                    let member = Member {
                        id: id.clone(),
                        key: place.key,
                    };
                    keys.push(Key::text(topic, &member, node));
                }
            }
        }
        keys
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_feed(&self, topic: &TopicName, number: u64, feed: Feed) {
        self.lock().feeds.entry(topic.clone()).or_default().push((number, feed));
    }

    pub(super) fn remove_feed(&self, topic: &TopicName, number: u64) {
        let mut state = self.lock();
        if let Some(feeds) = state.feeds.get_mut(topic) {
            feeds.retain(|(other, _)| *other != number);
            if feeds.is_empty() {
                state.feeds.remove(topic);
            }
        }
    }

    pub(super) async fn join(&self, topic: &Topic, member: &Member, info: &RawValue) -> Result<(), BrokerError> {
        {
            let state = self.lock();
            let present = state.topics.get(&topic.name);
            let is_new = present.is_none_or(|present| !present.contains_key(&member.id));
            if is_new && present.map_or(0, HashMap::len) >= topic.options.max_present {
                return Err(BrokerError::Limit("members"));
            }
        }
        let text = Key::text(&topic.name, member, self.node);
        self.lock().own.insert(text.clone(), info.to_owned());
        // Dropped or failed, the caller says that the member has left.
        let put = self.members.put(&text, info.get().to_owned().into());
        let put = tokio::time::timeout(PATIENCE, put).await.map_err(unavailable)?;
        put.map_err(unavailable)?;
        let mut state = self.lock();
        if state.own.contains_key(&text)
            && let Some(key) = Key::parse(&text)
        {
            state.add(key, info, u64::MAX);
        }
        Ok(())
    }

    pub(super) fn leave(&self, topic: &TopicName, member: &Member) {
        let text = Key::text(topic, member, self.node);
        let mut state = self.lock();
        if state.own.remove(&text).is_some() {
            state.remove(topic, |id, place| id == member.id && place.key == member.key);
            drop(state);
            // The task lives as long as the broker.
            let _ = self.gone.send(text);
        }
    }

    /// As many as fit into so many bytes of JSON, and how many they all are.
    pub(super) async fn present(&self, topic: &TopicName, bytes: usize) -> Result<(Vec<Present>, usize), BrokerError> {
        let mut synced = self.synced.clone();
        let synced = tokio::time::timeout(PATIENCE, synced.wait_for(|synced| *synced)).await;
        synced.map_err(unavailable)?.map_err(unavailable)?;
        let state = self.lock();
        Ok(state.topics.get(topic).map_or((Vec::new(), 0), |members| {
            let present = members.iter();
            let present = present.filter_map(|(id, places)| Some((id, &*places.last()?.info)));
            (Present::first(present, bytes), members.len())
        }))
    }
}

pub(super) struct PresenceTask {
    shared: Weak<Shared>,
    client: Client,
    context: Context,
    buckets: [String; 2],
    replicas: usize,
    node: u64,
    gone: mpsc::UnboundedReceiver<String>,
    /// Taken from `gone`, and not deleted yet.
    deleting: Vec<String>,
    synced: watch::Sender<bool>,
    connects: watch::Receiver<u64>,
    looks: u64,
}

impl PresenceTask {
    pub(super) async fn start(
        client: &Client,
        context: &Context,
        options: &NatsOptions,
        connects: watch::Receiver<u64>,
    ) -> Result<Arc<Shared>, BrokerError> {
        let buckets = ["members", "servers"].map(|what| format!("{}-{what}", options.name));
        let members = open_bucket(context, &buckets[0], ENTRY_LIFETIME, options.replicas);
        let members = members.await.map_err(unavailable)?;
        let node = getrandom::u64().map_err(unavailable)?;
        let (gone, gone_out) = mpsc::unbounded_channel();
        let (synced_in, synced) = watch::channel(false);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            members,
            node,
            gone,
            synced,
        });
        let task = Self {
            shared: Arc::downgrade(&shared),
            client: client.clone(),
            context: context.clone(),
            buckets,
            replicas: options.replicas,
            node,
            gone: gone_out,
            deleting: Vec::new(),
            synced: synced_in,
            connects,
            looks: 0,
        };
        tokio::spawn(task.run());
        Ok(shared)
    }

    async fn run(mut self) {
        while self.shared.strong_count() > 0 {
            if let Err(error) = self.watch().await {
                tracing::debug!(%error, "presence cannot be watched");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Until the connection is another one, or something fails: then everything is looked at again. Nothing waits for anything else: a
    /// server that is busy still says that it is there.
    async fn watch(&mut self) -> Result<(), BrokerError> {
        self.connects.borrow_and_update();
        check_connected(&self.client)?;
        self.looks += 1;
        let members = self.open(0).await?;
        let servers = self.open(1).await?;
        let Self {
            shared,
            client,
            node,
            gone,
            deleting,
            synced,
            connects,
            looks,
            ..
        } = self;
        let this = Watch {
            shared,
            client,
            node: *node,
            members,
            servers,
            synced,
            look: *looks,
        };
        this.say_that_it_is_there().await?;
        if let Some(shared) = this.shared.upgrade() {
            // Nobody could be heard while this server was cut off.
            let now = Instant::now();
            shared.lock().nodes.values_mut().for_each(|heard| heard.at = now);
        }
        tokio::select! {
            ended = this.beat() => ended,
            ended = this.listen() => ended,
            ended = this.look_around() => ended,
            ended = this.delete(gone, deleting) => ended,
            changed = connects.changed() => changed.map_err(unavailable),
        }
    }

    async fn open(&self, bucket: usize) -> Result<Store, BrokerError> {
        let opened = open_bucket(&self.context, &self.buckets[bucket], ENTRY_LIFETIME, self.replicas);
        opened.await.map_err(unavailable)
    }
}

/// One look at the buckets, and what follows it, over one connection.
struct Watch<'a> {
    shared: &'a Weak<Shared>,
    client: &'a Client,
    node: u64,
    members: Store,
    servers: Store,
    synced: &'a watch::Sender<bool>,
    look: u64,
}

impl Watch<'_> {
    async fn say_that_it_is_there(&self) -> Result<(), BrokerError> {
        let put = self.servers.put(server_key(self.node), "".into());
        let put = tokio::time::timeout(PATIENCE, put).await.map_err(unavailable)?;
        put.map(drop).map_err(unavailable)
    }

    async fn beat(&self) -> Result<(), BrokerError> {
        let mut beat = tokio::time::interval(BEAT);
        loop {
            beat.tick().await;
            if self.shared.strong_count() == 0 {
                let _ = tokio::time::timeout(PATIENCE, self.servers.delete(server_key(self.node))).await;
                return Ok(());
            }
            self.say_that_it_is_there().await?;
        }
    }

    async fn listen(&self) -> Result<(), BrokerError> {
        let mut members_changed = self.members.watch_with_history(">").await.map_err(unavailable)?;
        let mut servers_changed = self.servers.watch_with_history(">").await.map_err(unavailable)?;
        let first_look = tokio::time::sleep(FIRST_LOOK);
        tokio::pin!(first_look);
        let mut looked = false;
        loop {
            tokio::select! {
                entry = members_changed.next() => {
                    let entry = entry.ok_or_else(|| unavailable("the watch has ended"))?.map_err(unavailable)?;
                    let all_seen = entry.seen_current;
                    self.take_member(&entry);
                    if all_seen && !looked {
                        looked = true;
                        self.looked();
                    }
                }
                entry = servers_changed.next() => {
                    let entry = entry.ok_or_else(|| unavailable("the watch has ended"))?.map_err(unavailable)?;
                    self.take_server(&entry);
                }
                // An empty bucket says nothing.
                () = &mut first_look, if !looked => {
                    looked = true;
                    self.looked();
                }
            }
        }
    }

    async fn look_around(&self) -> Result<(), BrokerError> {
        self.write_own().await?;
        let mut timer = tokio::time::interval(LOOK);
        let mut rewrite = tokio::time::interval(ENTRY_LIFETIME / 3);
        rewrite.reset();
        loop {
            tokio::select! {
                _ = timer.tick() => self.look_for_the_dead().await?,
                _ = rewrite.tick() => self.write_own().await?,
            }
        }
    }

    fn is_own(&self, key: &str) -> bool {
        let shared = self.shared.upgrade();
        shared.is_some_and(|shared| shared.lock().own.contains_key(key))
    }

    async fn delete(
        &self,
        gone: &mut mpsc::UnboundedReceiver<String>,
        deleting: &mut Vec<String>,
    ) -> Result<(), BrokerError> {
        // There are some if the connection was lost meanwhile.
        while !deleting.is_empty() || gone.recv_many(deleting, IN_FLIGHT).await > 0 {
            let failed = Mutex::new(Vec::new());
            let deleted = stream::iter(&*deleting).for_each_concurrent(None, async |key| {
                if self.is_own(key) {
                    // It has come back.
                    return;
                }
                let deleted = tokio::time::timeout(PATIENCE, self.members.delete(key)).await;
                if !matches!(deleted, Ok(Ok(()))) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
                }
            });
            deleted.await;
            // Others would believe that they are there for as long as this server is.
            *deleting = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
            if !deleting.is_empty() {
                tokio::time::sleep(DELETE_AGAIN).await;
            }
        }
        // The broker is gone; others are told with the next beat.
        std::future::pending().await
    }

    /// Others may have taken this server for dead.
    async fn write_own(&self) -> Result<(), BrokerError> {
        let Some(shared) = self.shared.upgrade() else {
            return Ok(());
        };
        let own: Vec<(String, Box<RawValue>)> = shared.lock().own.clone().into_iter().collect();
        let written = stream::iter(own.into_iter().map(Ok)).try_for_each_concurrent(IN_FLIGHT, async |(key, info)| {
            let put = tokio::time::timeout(PATIENCE, self.members.put(&key, info.get().to_owned().into()));
            put.await.map_err(unavailable)?.map_err(unavailable)?;
            if !shared.lock().own.contains_key(&key) {
                let _ = shared.gone.send(key);
            }
            Ok(())
        });
        written.await
    }

    fn take_member(&self, entry: &Entry) {
        let (Some(shared), Some(key)) = (self.shared.upgrade(), Key::parse(&entry.key)) else {
            return;
        };
        let mut state = shared.lock();
        if entry.operation != Operation::Put {
            if key.node != self.node {
                state.remove(&key.topic, |id, place| id == key.id && place.key == key.key);
            } else if state.own.contains_key(&entry.key) {
                // Others took this server for dead. It writes again when it looks for the dead.
                state.nodes.insert(self.node, Heard::long_ago(0));
            }
            return;
        }
        if key.node == self.node {
            // It knows better.
            return;
        }
        state.nodes.entry(key.node).or_insert_with(|| Heard::now(0));
        if let Ok(info) = serde_json::from_slice::<Box<RawValue>>(&entry.value) {
            state.add(key, &info, self.look);
        }
    }

    fn take_server(&self, entry: &Entry) {
        let (Some(shared), Ok(node)) = (self.shared.upgrade(), u64::from_str_radix(&entry.key, 16)) else {
            return;
        };
        if node == self.node {
            return;
        }
        let age = std::time::SystemTime::now()
            .duration_since(entry.created.into())
            .unwrap_or_default();
        // Of old entries nobody knows whether their server lives; clocks may differ, so that they get the usual time.
        let stale = entry.operation != Operation::Put || age > ENTRY_LIFETIME / 2;
        let heard = if stale {
            Heard::long_ago(entry.revision)
        } else {
            Heard::now(entry.revision)
        };
        shared.lock().nodes.insert(node, heard);
    }

    /// Everything in the bucket has been seen: what was not is gone.
    fn looked(&self) {
        if let Some(shared) = self.shared.upgrade() {
            let (own, look) = (self.node, self.look);
            shared
                .lock()
                .remove_everywhere(|place| place.node != own && place.seen < look);
        }
        self.synced.send_replace(true);
    }

    async fn look_for_the_dead(&self) -> Result<(), BrokerError> {
        let Some(shared) = self.shared.upgrade() else {
            return Ok(());
        };
        let silent: Vec<(u64, u64)> = {
            let mut state = shared.lock();
            let now = Instant::now();
            if check_connected(self.client).is_err() {
                state.nodes.values_mut().for_each(|heard| heard.at = now);
                return Ok(());
            }
            let nodes = state.nodes.iter();
            nodes
                .filter(|(_, heard)| now.duration_since(heard.at) >= SILENCE)
                .map(|(node, heard)| (*node, heard.revision))
                .collect()
        };
        let mut write_own = false;
        for (node, revision) in silent {
            if node == self.node {
                shared.lock().nodes.remove(&node);
                write_own = true;
                continue;
            }
            // It may have said so, and not been heard because of all that is told besides.
            let entry = tokio::time::timeout(PATIENCE, self.servers.entry(server_key(node))).await;
            let entry = entry.map_err(unavailable)?.map_err(unavailable)?;
            let mut state = shared.lock();
            match entry {
                Some(entry) if entry.operation == Operation::Put && entry.revision != revision => {
                    state.nodes.insert(node, Heard::now(entry.revision));
                }
                _ => {
                    state.nodes.remove(&node);
                    for key in state.keys_of(node) {
                        // Every server that lives does it; what is left goes by itself.
                        let _ = shared.gone.send(key);
                    }
                    state.remove_everywhere(|place| place.node == node);
                }
            }
        }
        if write_own {
            self.write_own().await?;
        }
        Ok(())
    }
}

/// The key of a server in the bucket.
fn server_key(node: u64) -> String {
    format!("{node:x}")
}
