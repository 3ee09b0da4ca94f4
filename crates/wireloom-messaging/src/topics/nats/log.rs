//! One topic: the task that reads and writes its records.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::{Client, HeaderMap, Message, Subscriber};
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot, watch};

use super::record::{Record, decode_ephemeral};
use super::{PATIENCE, check_connected, subject, unavailable};
use crate::data::Data;
use crate::topics::broker::{BrokerError, History, HistoryQuery, Publication};
use crate::topics::feed::Feed;
use crate::topics::log::{KeyLimits, TopicLog};
use crate::topics::message::TopicMessage;
use crate::topics::options::Topic;
use crate::topics::position::{Epoch, Position};

/// Publications in one record, and about how many bytes: NATS takes messages of 1 MiB by default.
const MAX_ENTRIES: usize = 256;
const MAX_RECORD: usize = 256 * 1024;

/// Bytes of a record's header fields and of what stands before its publications, with room to spare.
const AROUND: usize = 512;

/// Bytes that a publication takes in a record beside its data and its key.
const AROUND_EACH: usize = 8;

/// How often a topic with subscribers is compared with the stream: the last live message before a silence may have been lost.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A topic that nobody uses is forgotten after so many checks.
const IDLE_CHECKS: u32 = 6;

/// Attempts against others who publish to the same topic.
const MAX_CONFLICTS: usize = 100;

pub(super) enum Command {
    Publish(Publication, Reply<Position>),
    Subscribe(u64, Feed, Reply<()>),
    History(HistoryQuery, Reply<History>),
}

type Reply<T> = oneshot::Sender<Result<T, BrokerError>>;

/// Publications that wait, in order.
type Waiting = VecDeque<(Publication, Reply<Position>)>;

pub(super) struct LogTask {
    client: Client,
    context: Context,
    stream: Stream,
    shared: Weak<super::Shared>,
    topic: Topic,
    subject: String,
    live_subject: String,
    ephemeral_subject: String,
    commands: mpsc::Receiver<Command>,
    ended: mpsc::UnboundedReceiver<u64>,
    connects: watch::Receiver<u64>,
    /// What is known of the stream.
    log: Option<Known>,
    feeds: Vec<(u64, Feed)>,
    /// While there are feeds.
    live: Option<(Subscriber, Subscriber)>,
}

struct Known {
    /// Of the newest record.
    sequence: u64,
    log: TopicLog,
    /// Something may have been written of which nothing was heard.
    doubtful: bool,
}

enum Event {
    Command(Command),
    Ended(u64),
    Live(Message),
    Ephemeral(Message),
    Reconnected,
    Check,
    Over,
}

/// Why a record was not written.
enum Refused {
    /// Somebody else was faster.
    Conflict,
    /// This one is not wanted; others may be.
    Rejected(BrokerError),
    Failed(BrokerError),
}

/// Bytes in a record.
fn size(publication: &Publication) -> usize {
    publication.data.bytes.len() + publication.key.len() + AROUND_EACH
}

fn largest_record(client: &Client) -> usize {
    client.max_payload().saturating_sub(AROUND)
}

pub(super) fn check_size(client: &Client, publication: &Publication) -> Result<(), BrokerError> {
    if size(publication) > largest_record(client) {
        return Err(BrokerError::Limit("bytes of a message"));
    }
    Ok(())
}

impl LogTask {
    pub(super) fn new(
        shared: &Arc<super::Shared>,
        topic: Topic,
        commands: mpsc::Receiver<Command>,
        ended: mpsc::UnboundedReceiver<u64>,
    ) -> Self {
        let (name, token) = (&shared.options.name, subject::token(&topic.name));
        Self {
            client: shared.client.clone(),
            context: shared.context.clone(),
            stream: shared.stream.clone(),
            shared: Arc::downgrade(shared),
            subject: format!("{name}.t.{token}"),
            live_subject: format!("{name}.l.{token}"),
            ephemeral_subject: format!("{name}.e.{token}"),
            topic,
            commands,
            ended,
            connects: shared.connects.clone(),
            log: None,
            feeds: Vec::new(),
            live: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut idle = 0;
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        check.reset();
        loop {
            let event = self.next(&mut check).await;
            match event {
                Event::Command(command) => {
                    idle = 0;
                    self.obey(command).await;
                }
                Event::Ended(number) => {
                    self.feeds.retain(|(other, _)| *other != number);
                    self.share_feeds();
                    if self.feeds.is_empty() {
                        self.live = None;
                    }
                }
                Event::Live(message) => self.hear(message).await,
                Event::Ephemeral(message) => {
                    if let Some(data) = decode_ephemeral(message.payload) {
                        let message = TopicMessage::ephemeral(self.topic.name.clone(), data);
                        self.feeds.iter().for_each(|(_, feed)| feed.message(message.clone()));
                    }
                }
                Event::Reconnected | Event::Check if !self.feeds.is_empty() => {
                    if let Err(error) = self.catch_up().await {
                        tracing::debug!(topic = %self.topic.name, %error, "the stream cannot be read");
                    }
                }
                Event::Reconnected => {
                    if let Some(known) = &mut self.log {
                        known.doubtful = true;
                    }
                }
                Event::Check => {
                    idle += 1;
                    if idle >= IDLE_CHECKS && self.rests() {
                        return;
                    }
                }
                Event::Over => return,
            }
        }
    }

    async fn next(&mut self, check: &mut tokio::time::Interval) -> Event {
        let (live, ephemeral) = match &mut self.live {
            Some((live, ephemeral)) => (Some(live), Some(ephemeral)),
            None => (None, None),
        };
        tokio::select! {
            Some(number) = self.ended.recv() => Event::Ended(number),
            command = self.commands.recv() => command.map_or(Event::Over, Event::Command),
            Some(message) = next_of(live) => Event::Live(message),
            Some(message) = next_of(ephemeral) => Event::Ephemeral(message),
            Ok(()) = self.connects.changed() => Event::Reconnected,
            _ = check.tick() => Event::Check,
        }
    }

    /// Whether the task may end: nobody has asked it anything meanwhile.
    fn rests(&mut self) -> bool {
        let Some(shared) = self.shared.upgrade() else {
            return true;
        };
        let mut topics = shared.topics.lock().unwrap_or_else(PoisonError::into_inner);
        self.commands.close();
        topics.remove(&self.topic.name);
        // Whoever has sent something between finds no answer, and asks the next task.
        true
    }

    fn share_feeds(&mut self) {
        if let Some(known) = &mut self.log {
            known.log.feeds.clone_from(&self.feeds);
        }
    }

    fn reset_feeds(&self) {
        self.feeds.iter().for_each(|(_, feed)| feed.reset());
    }

    /// Does what is asked, and with it what else waits: one look at the stream is enough for all.
    async fn obey(&mut self, first: Command) {
        let (mut publications, mut questions) = (Waiting::new(), Vec::new());
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Publish(publication, reply) => publications.push_back((publication, reply)),
                Command::History(query, reply) => questions.push((query, reply)),
                Command::Subscribe(number, feed, reply) => {
                    let subscribed = self.subscribe(number, feed).await;
                    if reply.send(subscribed).is_err() {
                        // Whoever asked is gone.
                        self.feeds.retain(|(other, _)| *other != number);
                        self.share_feeds();
                    }
                }
            }
            let full = publications.len() + questions.len() >= super::QUEUE;
            next = if full { None } else { self.commands.try_recv().ok() };
        }
        if !publications.is_empty() {
            self.publish(publications).await;
        }
        if !questions.is_empty() {
            self.answer(questions).await;
        }
    }

    async fn subscribe(&mut self, number: u64, feed: Feed) -> Result<(), BrokerError> {
        check_connected(&self.client)?;
        if self.live.is_none() {
            let live = self
                .client
                .subscribe(self.live_subject.clone())
                .await
                .map_err(unavailable)?;
            let ephemeral = self.client.subscribe(self.ephemeral_subject.clone());
            self.live = Some((live, ephemeral.await.map_err(unavailable)?));
        }
        // Asked behind the subscription on the same connection: what is not in the answer comes live.
        self.catch_up().await?;
        self.feeds.push((number, feed));
        self.share_feeds();
        Ok(())
    }

    async fn answer(&mut self, questions: Vec<(HistoryQuery, Reply<History>)>) {
        let caught_up = match check_connected(&self.client) {
            Ok(()) => self.catch_up().await,
            Err(error) => Err(error),
        };
        // Cut off, what is known is still true, and what comes later reaches the feeds.
        let may_look = caught_up.is_ok() || !self.feeds.is_empty();
        let now = Instant::now();
        for (query, reply) in questions {
            let answer = match (&mut self.log, &caught_up) {
                (Some(known), _) if may_look => {
                    known.log.trim(&self.topic.options, KeyLimits::default(), now);
                    Ok(known.log.look(&query, now))
                }
                (_, Err(error)) => Err(error.clone()),
                (_, Ok(())) => Err(BrokerError::Unavailable("the stream was not read".to_owned())),
            };
            // Nobody may wait any more.
            let _ = reply.send(answer);
        }
    }

    async fn publish(&mut self, mut waiting: Waiting) {
        let mut conflicts = 0;
        while !waiting.is_empty() {
            if let Err(error) = self.publish_some(&mut waiting, &mut conflicts).await {
                for (_, reply) in waiting.drain(..) {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Writes one record, if any of what waits is new. An error is everybody's who waits; those in the record are told.
    async fn publish_some(&mut self, waiting: &mut Waiting, conflicts: &mut usize) -> Result<(), BrokerError> {
        check_connected(&self.client)?;
        if self.log.as_ref().is_none_or(|known| known.doubtful) {
            self.catch_up().await?;
        }
        let Some(known) = &mut self.log else {
            return Err(BrokerError::Unavailable("the stream was not read".to_owned()));
        };
        known
            .log
            .trim(&self.topic.options, KeyLimits::default(), Instant::now());
        let (mut entries, mut replies, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let mut new_keys = HashMap::new();
        let (first, mut bytes) = (known.log.offset + 1, 0);
        let limit = MAX_RECORD.min(largest_record(&self.client));
        let fits = |bytes: usize, (publication, _): &(Publication, _)| bytes == 0 || bytes + size(publication) <= limit;
        while entries.len() < MAX_ENTRIES
            && waiting.front().is_some_and(|next| fits(bytes, next))
            && let Some((publication, reply)) = waiting.pop_front()
        {
            let size = size(&publication);
            let Publication { data, key } = publication;
            if let Some(offset) = known.log.known(&key) {
                let _ = reply.send(Ok(known.log.position(offset)));
            } else if let Some(offset) = new_keys.get(&key) {
                again.push((*offset, reply));
            } else {
                if !key.is_empty() {
                    new_keys.insert(key.clone(), first + entries.len() as u64);
                }
                bytes += size;
                entries.push((key, data));
                replies.push(reply);
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let epoch = known.log.epoch.clone();
        let record = Record { epoch, first, entries };
        match self.write(&record, known_sequence(&self.log)).await {
            Ok(sequence) => {
                let epoch = record.epoch.clone();
                self.accept(sequence, record, Instant::now());
                let position = |offset| Ok(Position::new(epoch.clone(), offset));
                for (offset, reply) in (first..).zip(replies) {
                    let _ = reply.send(position(offset));
                }
                for (offset, reply) in again {
                    let _ = reply.send(position(offset));
                }
                Ok(())
            }
            Err(Refused::Conflict) if *conflicts < MAX_CONFLICTS => {
                *conflicts += 1;
                for ((offset, reply), key) in again.into_iter().map(|again| {
                    let at = usize::try_from(again.0 - first).unwrap_or(usize::MAX);
                    let key = record.entries.get(at).map(|entry| entry.0.clone());
                    (again, key.unwrap_or_default())
                }) {
                    let at = usize::try_from(offset - first).unwrap_or(usize::MAX);
                    let data = record.entries.get(at).map_or(Data::EMPTY, |entry| entry.1.clone());
                    waiting.push_front((Publication::new(data).key(key), reply));
                }
                for ((key, data), reply) in record.entries.into_iter().zip(replies).rev() {
                    waiting.push_front((Publication::new(data).key(key), reply));
                }
                self.catch_up().await
            }
            Err(refused) => {
                let (error, is_everybodys) = match refused {
                    Refused::Conflict => (BrokerError::Unavailable("others publish all the time".to_owned()), true),
                    Refused::Rejected(error) => (error, false),
                    Refused::Failed(error) => (error, true),
                };
                let replies = replies.into_iter().chain(again.into_iter().map(|(_, reply)| reply));
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
                if is_everybodys { Err(error) } else { Ok(()) }
            }
        }
    }

    /// Writes a record behind that with the given sequence. Answers its own.
    async fn write(&mut self, record: &Record, after: u64) -> Result<u64, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, after.to_string().as_str());
        let sent = self
            .context
            .publish_with_headers(self.subject.clone(), headers, record.encode())
            .await;
        let acknowledged = match sent {
            Ok(acknowledgement) => tokio::time::timeout(PATIENCE, acknowledgement.into_future())
                .await
                .map_err(|_| Refused::Failed(unavailable("no acknowledgement in time"))),
            Err(error) => Ok(Err(error)),
        };
        let refused = match acknowledged {
            Ok(Ok(acknowledgement)) => return Ok(acknowledgement.sequence),
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => Refused::Conflict,
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::Other
                ) =>
            {
                Refused::Rejected(unavailable(error))
            }
            Ok(Err(error)) => Refused::Failed(unavailable(error)),
            Err(refused) => refused,
        };
        if let Some(known) = &mut self.log {
            // It may have been written, or may yet be: the next record says what it comes after, and one of the two is refused.
            known.doubtful = true;
        }
        Err(refused)
    }

    /// Something was accepted by the stream, and comes live.
    async fn hear(&mut self, message: Message) {
        let sequence = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Sequence"));
        let sequence = sequence.and_then(|sequence| sequence.as_str().parse::<u64>().ok());
        let (Some(sequence), Some(record)) = (sequence, Record::decode(message.payload)) else {
            return;
        };
        let follows = self.log.as_ref().is_some_and(|known| {
            known.log.epoch == record.epoch && record.first <= known.log.offset + 1 && !known.doubtful
        });
        if follows {
            self.room().await;
            self.accept(sequence, record, Instant::now());
        } else if let Err(error) = self.catch_up().await {
            tracing::debug!(topic = %self.topic.name, %error, "the stream cannot be read");
        }
    }

    async fn room(&self) {
        for (_, feed) in &self.feeds {
            feed.room().await;
        }
    }

    /// Adds what is new of a record, which is the next one, or the first that is known.
    fn accept(&mut self, sequence: u64, record: Record, published: Instant) {
        let before = record.first - 1;
        let follows = |known: &Known| known.log.epoch == record.epoch && before <= known.log.offset;
        if !self.log.as_ref().is_some_and(follows) {
            if self.log.is_some() {
                // What is between is gone from the stream.
                self.reset_feeds();
            }
            self.log = Some(Known {
                sequence,
                log: TopicLog::new(record.epoch.clone(), before),
                doubtful: false,
            });
            self.share_feeds();
        }
        let Some(known) = &mut self.log else { return };
        let seen = usize::try_from(known.log.offset - before).unwrap_or(usize::MAX);
        for (key, data) in record.entries.into_iter().skip(seen) {
            known.log.add(&self.topic.name, &key, data, published);
        }
        known.sequence = known.sequence.max(sequence);
        known.log.trim(&self.topic.options, KeyLimits::default(), published);
    }

    /// Reads what the stream has and is not known. Begins an epoch if there is nothing.
    async fn catch_up(&mut self) -> Result<(), BrokerError> {
        for _ in 0..MAX_CONFLICTS {
            let last = match self.stream.get_last_raw_message_by_subject(&self.subject).await {
                Ok(last) => last.sequence,
                Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
                    if self.begin_epoch().await? {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(unavailable(error)),
            };
            if known_sequence(&self.log) > last {
                // Another stream of the same name.
                self.forget();
            }
            let from = known_sequence(&self.log) + 1;
            if from <= last {
                self.read(from, last).await?;
            }
            if let Some(known) = &mut self.log {
                known.doubtful = false;
                return Ok(());
            }
            // What was there has gone meanwhile.
        }
        Err(BrokerError::Unavailable("others publish all the time".to_owned()))
    }

    fn forget(&mut self) {
        if self.log.take().is_some() {
            self.reset_feeds();
        }
    }

    /// Writes the first record of a subject that has none. `false`: somebody else has.
    async fn begin_epoch(&mut self) -> Result<bool, BrokerError> {
        self.forget();
        let record = Record {
            epoch: Epoch::random().map_err(unavailable)?,
            first: 1,
            entries: Vec::new(),
        };
        match self.write(&record, 0).await {
            Ok(sequence) => {
                self.accept(sequence, record, Instant::now());
                Ok(true)
            }
            Err(Refused::Conflict) => Ok(false),
            Err(Refused::Rejected(error) | Refused::Failed(error)) => Err(error),
        }
    }

    /// Reads records from one sequence up to another, which is there.
    async fn read(&mut self, from: u64, last: u64) -> Result<(), BrokerError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ack_policy: AckPolicy::None,
            filter_subject: self.subject.clone(),
            inactive_threshold: Duration::from_secs(10),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(unavailable)?;
        let name = consumer.cached_info().name.clone();
        let read = async {
            let mut done = false;
            while !done {
                let mut some = consumer
                    .fetch()
                    .max_messages(256)
                    .messages()
                    .await
                    .map_err(unavailable)?;
                done = true;
                while let Some(message) = some.next().await {
                    let message = message.map_err(unavailable)?;
                    let info = message.info().map_err(unavailable)?;
                    let (sequence, pending) = (info.stream_sequence, info.pending);
                    let age = SystemTime::now()
                        .duration_since(info.published.into())
                        .unwrap_or_default();
                    let now = Instant::now();
                    if let Some(record) = Record::decode(message.payload.clone()) {
                        self.room().await;
                        self.accept(sequence, record, now.checked_sub(age).unwrap_or(now));
                    }
                    done = pending == 0 || sequence >= last;
                }
            }
            Ok(())
        };
        let read = tokio::time::timeout(2 * PATIENCE, read).await;
        // It would go by itself, some seconds later.
        let _ = tokio::time::timeout(PATIENCE, self.stream.delete_consumer(&name)).await;
        read.unwrap_or_else(|_| Err(unavailable("the stream is too slow")))
    }
}

/// The sequence of the newest record that is known.
fn known_sequence(log: &Option<Known>) -> u64 {
    log.as_ref().map_or(0, |known| known.sequence)
}

async fn next_of(subscriber: Option<&mut Subscriber>) -> Option<Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => None,
    }
}
