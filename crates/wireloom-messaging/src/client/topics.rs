//! Topics, as a client uses them.

use std::collections::HashMap;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, mpsc, oneshot};

use super::subscription::{Heard, Incoming, Subscription, SubscriptionTask};
use super::{Client, RequestError};
use crate::topics::wire::{HistoryRequest, PresenceReply, PresenceRequest, SubscribeRequest};
use crate::topics::{About, InvalidTopicName, Position, Present, TopicName, is_key, parse_offset};
use crate::{Data, IncomingMessage};

/// Messages that wait for a subscription's task. Those beyond are fetched from the history.
const QUEUE: usize = 1024;

/// Subscriptions of a client: where the signals of each go.
#[derive(Default)]
pub(super) struct Registry {
    places: Mutex<HashMap<TopicName, Place>>,
    /// How many connections there were, counted before anything is sent on one.
    pub(super) connections: AtomicU64,
}

/// A topic with somebody who has subscribed to it, or wants to, or does not want to any more.
#[derive(Default)]
struct Place {
    subscription: Option<(u64, Incoming)>,
    turn: Turn,
}

/// Requests about one subscription go one after the other, each when the last is answered: over streams of their own, and among the
/// server's handlers, they may overtake each other.
type Turn = Arc<AsyncMutex<()>>;

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicName, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a signal if it is of a topic with a subscription; gives it back otherwise.
    pub(super) fn take(&self, signal: IncomingMessage) -> Option<IncomingMessage> {
        let Some(about) = About::parse(signal.name_bytes()) else {
            return Some(signal);
        };
        let (About::Message { topic, .. } | About::Presence(topic) | About::Reset(topic)) = about else {
            return Some(signal);
        };
        let places = self.lock();
        let place = std::str::from_utf8(topic).ok().and_then(|topic| places.get(topic));
        let Some((_, incoming)) = place.and_then(|place| place.subscription.as_ref()) else {
            return Some(signal);
        };
        let heard = match about {
            About::Message { offset: [], .. } => Some(Heard::Ephemeral(signal.into_data())),
            About::Message { offset, .. } => {
                parse_offset(offset).map(|offset| Heard::Message(offset, signal.into_data()))
            }
            About::Presence(_) => signal.data().parse_json().ok().map(Heard::Presence),
            _ => Some(Heard::Reset),
        };
        if let Some(heard) = heard {
            incoming.push(heard);
        }
        None
    }
}

impl Client {
    /// A topic of the server. Nothing is asked before it is used.
    ///
    /// ```no_run
    /// use wireloom_messaging::client::{Client, TopicEvent};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let room = client.topic("rooms/kitchen")?;
    /// let mut subscription = room.subscribe().history(50).await?;
    /// room.publish("tea is ready").await?;
    /// while let Some(event) = subscription.next().await {
    ///     if let TopicEvent::Message { offset, data } = event {
    ///         println!("{offset}: {}", data.text()?);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// It is no name of a topic: 1 to 200 printable ASCII characters.
    pub fn topic(&self, name: &str) -> Result<Topic, InvalidTopicName> {
        Ok(Topic {
            client: self.clone(),
            name: TopicName::new(name)?,
        })
    }
}

/// A topic of a server. A cheap handle.
#[derive(Debug, Clone)]
pub struct Topic {
    client: Client,
    name: TopicName,
}

impl Topic {
    /// Its name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// A message for all subscribers, and for the history; to be awaited. It is not sent before. Awaiting it answers where it is, when
    /// the server's broker has accepted it.
    ///
    /// It has a random key unless it is [given one](Publish::key), so that it is sent again over the next connection when this one is
    /// lost, and is there once all the same: as long as the topic remembers the key, two minutes with the brokers here. With a
    /// [timeout](Publish::timeout) beyond that it may be there twice. Over a stream for each request (WebTransport's profile M) publications that are not awaited
    /// one after the other may overtake each other.
    pub fn publish(&self, data: impl Into<Data>) -> Publish<'_> {
        Publish {
            topic: self,
            data: data.into(),
            key: None,
            timeout: None,
        }
    }

    /// A message for those who are there, which is not kept, and may get lost: in a datagram where there are any. Answers when it was
    /// handed to the transport.
    ///
    /// # Errors
    /// It cannot be sent.
    pub async fn publish_ephemeral(&self, data: impl Into<Data>) -> Result<(), RequestError> {
        let name = format!("$publish//{}", self.name);
        self.client.signal(name, data).unreliable().await
    }

    /// A subscription, to be awaited.
    pub fn subscribe(&self) -> Subscribe<'_> {
        Subscribe {
            topic: self,
            request: SubscribeRequest::default(),
        }
    }

    /// Who is present: as many as fit into a message.
    ///
    /// # Errors
    /// The server refuses, or the request fails.
    pub async fn presence(&self) -> Result<Vec<Present>, RequestError> {
        Ok(self.ask_presence(&PresenceRequest::default()).await?.here)
    }

    /// Is present from now on, or has other info: any JSON of at most 1 KiB, but not null. Answers the identifier that others see. It lasts
    /// as long as the connection: to be present again after a reconnection, [join with a subscription](Subscribe::join).
    ///
    /// # Errors
    /// The server refuses, the request fails, or the info cannot be written as JSON.
    pub async fn join<T: Serialize + ?Sized>(&self, info: &T) -> Result<String, RequestError> {
        let join = Some(raw(info)?);
        let reply = self.ask_presence(&PresenceRequest { join }).await?;
        reply.id.ok_or(RequestError::BadReply)
    }

    /// Is no longer present.
    ///
    /// # Errors
    /// The server refuses, or the request fails.
    pub async fn leave(&self) -> Result<(), RequestError> {
        let join = Some(raw(&())?);
        self.ask_presence(&PresenceRequest { join }).await.map(drop)
    }

    async fn ask_presence(&self, request: &PresenceRequest) -> Result<PresenceReply, RequestError> {
        let name = format!("$presence/{}", self.name);
        let payload = Data::json(request).map_err(|_| RequestError::BadJson)?;
        let reply = self.client.request(name, payload).idempotent().await?;
        reply.parse_json().map_err(|_| RequestError::BadReply)
    }
}

fn raw<T: Serialize + ?Sized>(info: &T) -> Result<Box<RawValue>, RequestError> {
    serde_json::value::to_raw_value(info).map_err(|_| RequestError::BadJson)
}

/// A message that is published when it is awaited. See [`Topic::publish`].
#[must_use = "a message is published when it is awaited"]
pub struct Publish<'a> {
    topic: &'a Topic,
    data: Data,
    key: Option<String>,
    timeout: Option<Duration>,
}

impl Publish<'_> {
    /// Made up for this message, so that it can be repeated, also by another client: within two minutes it is not published again, and
    /// the answer is that of the first time. At most 64 of `A-Z a-z 0-9 _ -`; empty, it may be there twice after a lost connection, and
    /// is not repeated.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How long it may take, waiting for a connection included. Default: the client's, 60 s. Topics remember keys for two minutes:
    /// what is sent again later may be there twice.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn send(self) -> Result<Position, RequestError> {
        let key = match self.key {
            Some(key) => key,
            None => random_key(),
        };
        if !is_key(key.as_bytes()) {
            // With a slash it would be read as something else.
            return Err(RequestError::Invalid(crate::codec::EncodeError::NameCharacters.into()));
        }
        let name = format!("$publish/{key}/{}", self.topic.name);
        let mut request = self.topic.client.request(name, self.data);
        if !key.is_empty() {
            request = request.idempotent();
        }
        if let Some(timeout) = self.timeout {
            request = request.timeout(timeout);
        }
        request.await?.parse_json().map_err(|_| RequestError::BadReply)
    }
}

/// Empty where the operating system has no randomness.
fn random_key() -> String {
    let mut bytes = [0; 12];
    match getrandom::fill(&mut bytes) {
        Ok(()) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(_) => String::new(),
    }
}

impl<'a> IntoFuture for Publish<'a> {
    type Output = Result<Position, RequestError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A subscription that begins when it is awaited. See [`Topic::subscribe`].
#[must_use = "a subscription begins when it is awaited"]
pub struct Subscribe<'a> {
    topic: &'a Topic,
    request: SubscribeRequest,
}

impl<'a> Subscribe<'a> {
    /// With the newest messages of the past, at most so many. Default: none.
    pub fn history(mut self, count: usize) -> Self {
        self.recent().count = Some(count as u64);
        self
    }

    /// With the messages of the past that are not older than this. Default: none.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.recent().age_ms = Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        self
    }

    fn recent(&mut self) -> &mut HistoryRequest {
        self.request.history.get_or_insert_default()
    }

    /// With everything after this position, which an earlier subscription [had reached](Subscription::position). Where that is gone,
    /// the first event is [`Missed`](super::TopicEvent::Missed), and what `history` and `max_age` say follows.
    pub fn since(mut self, position: Position) -> Self {
        self.request.since = Some(position);
        self
    }

    /// Tells who is present, and who comes and goes.
    pub fn presence(mut self) -> Self {
        self.request.presence = true;
        self
    }

    /// Is present, on each connection anew, with this info: any JSON of at most 1 KiB, but not null.
    ///
    /// # Errors
    /// The info cannot be written as JSON.
    pub fn join<T: Serialize + ?Sized>(mut self, info: &T) -> Result<Self, RequestError> {
        self.request.join = Some(raw(info)?);
        Ok(self)
    }

    async fn send(self) -> Result<Subscription, RequestError> {
        let client = &self.topic.client;
        let place = Registered::new(client.clone(), self.topic.name.clone());
        let (begun, answer) = oneshot::channel();
        // A task of its own: what the server was asked for has to be taken back if nobody waits for the answer any more.
        tokio::spawn(SubscriptionTask::run(place, self.request, begun));
        match tokio::time::timeout(client.0.request_timeout, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(client.closed_error())),
            Err(_) => Err(RequestError::TimedOut),
        }
    }
}

impl<'a> IntoFuture for Subscribe<'a> {
    type Output = Result<Subscription, RequestError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A subscription's place in the registry, until this is dropped.
pub(super) struct Registered {
    pub(super) client: Client,
    pub(super) name: TopicName,
    number: u64,
    turn: Turn,
}

impl Registered {
    fn new(client: Client, name: TopicName) -> Self {
        let turn = client.0.topics.lock().entry(name.clone()).or_default().turn.clone();
        Self {
            number: client.next_token(),
            client,
            name,
            turn,
        }
    }

    /// Waits until nothing else is asked about this topic.
    pub(super) async fn turn(&self) -> AsyncMutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Takes the place, in its turn. One that was there gets nothing more, and ends.
    pub(super) fn enter(&self) -> (Arc<AtomicBool>, mpsc::Receiver<Heard>) {
        let (incoming, heard) = mpsc::channel(QUEUE);
        let incoming = Incoming::new(incoming);
        let overflown = incoming.overflown.clone();
        let mut places = self.client.0.topics.lock();
        places.entry(self.name.clone()).or_default().subscription = Some((self.number, incoming));
        (overflown, heard)
    }

    /// Whether no other has taken the place. Within a turn it stays so.
    pub(super) fn is_current(&self) -> bool {
        self.client
            .0
            .topics
            .lock()
            .get(&self.name)
            .is_some_and(|place| self.has(place))
    }

    fn has(&self, place: &Place) -> bool {
        place.subscription.as_ref().is_some_and(|(of, _)| *of == self.number)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut places = self.client.0.topics.lock();
        let Some(place) = places.get_mut(&self.name) else {
            return;
        };
        if self.has(place) {
            place.subscription = None;
        }
        // The place's own and this one: nobody else wants it.
        if place.subscription.is_none() && Arc::strong_count(&place.turn) <= 2 {
            places.remove(&self.name);
        }
    }
}
