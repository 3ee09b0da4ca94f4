//! What clients ask about topics.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::task::unconstrained;

use super::broker::{HistoryQuery, Recent};
use super::hub::{Hub, Subscribe, TopicError};
use super::message::Framing;
use super::name::{About, TopicName, is_key};
use super::options::TopicAction;
use super::wire::{HistoryRequest, PresenceReply, PresenceRequest, SubscribeReply, SubscribeRequest, parse};
use crate::data::{Data, IncomingMessage};
use crate::server::{Connection, Context, ReplyError, Task, guarded, unknown};

const INVALID_JSON: TopicError = TopicError::Invalid("the payload is not the JSON that it has to be");

impl Hub {
    /// A request whose name begins with `$`.
    pub(crate) fn request(
        self: Arc<Self>,
        context: Context,
        message: IncomingMessage,
    ) -> Task<Result<Data, ReplyError>> {
        guarded(async move {
            let connection = context.connection();
            let answer = match About::parse(message.name_bytes()) {
                Some(About::Subscribe(topic)) => self.client_subscribes(connection, topic, message.data()).await,
                Some(About::Unsubscribe(topic)) => self.client_unsubscribes(connection, topic),
                Some(About::Publish { key, topic }) => {
                    self.client_publishes(connection, key, topic, message.data()).await
                }
                Some(About::Presence(topic)) => self.client_asks_who(connection, topic, message.data()).await,
                Some(About::Message { .. } | About::Reset(_)) | None => return Err(unknown(&message)),
            };
            answer.map_err(|error| {
                if let TopicError::Unavailable(why) = &error {
                    tracing::warn!(%why, "the broker cannot be reached");
                }
                ReplyError::new(error.code(), error.to_string())
            })
        })
    }

    /// A signal whose name begins with `$`. There is nobody to tell if it is not as it has to be.
    pub(crate) fn signal(self: Arc<Self>, context: Context, message: IncomingMessage) -> Task<()> {
        guarded(async move {
            let Some(About::Publish { key: [], topic }) = About::parse(message.name_bytes()) else {
                return;
            };
            let published = async {
                let name = TopicName::from_bytes(topic)?;
                let connection = context.connection();
                let topic = self.authorised_ephemeral(connection, &name).await?;
                self.publish_ephemeral(&topic, message.data().clone()).await
            };
            if let Err(error) = published.await {
                tracing::debug!(%error, "an ephemeral message was not published");
            }
        })
    }

    async fn client_subscribes(&self, connection: &Connection, topic: &[u8], data: &Data) -> Result<Data, TopicError> {
        let name = TopicName::from_bytes(topic)?;
        let request: SubscribeRequest = parse(data).ok_or(INVALID_JSON)?;
        let topic = self.authorised(connection, &name, TopicAction::Subscribe).await?;
        if request.presence {
            self.authorised(connection, &name, TopicAction::Presence).await?;
        }
        let join = request.join.map(not_null);
        if let Some(Some(_)) = join {
            self.authorised(connection, &name, TopicAction::Join).await?;
        }
        let how = Subscribe {
            framing: Framing::Offset,
            query: HistoryQuery {
                since: request.since,
                recent: request.history.map(recent),
            },
            presence: request.presence,
            join,
        };
        let subscribed = self.subscribe(connection, &topic, how).await?;
        json(&SubscribeReply {
            epoch: subscribed.position.epoch,
            offset: subscribed.position.offset,
            from: subscribed.from,
            recovered: subscribed.recovered,
            here: subscribed.here,
            id: subscribed.id,
        })
    }

    fn client_unsubscribes(&self, connection: &Connection, topic: &[u8]) -> Result<Data, TopicError> {
        self.unsubscribe(&connection.inner, &TopicName::from_bytes(topic)?)?;
        Ok(Data::EMPTY)
    }

    async fn client_publishes(
        &self,
        connection: &Connection,
        key: &[u8],
        topic: &[u8],
        data: &Data,
    ) -> Result<Data, TopicError> {
        let name = TopicName::from_bytes(topic)?;
        let key = std::str::from_utf8(key).ok().filter(|key| is_key(key.as_bytes()));
        let key = key.ok_or(TopicError::Invalid("a key is at most 64 of A-Z a-z 0-9 _ -"))?;
        // Unconstrained: a task that has done much may not make one step back in the queue.
        let turn = unconstrained(connection.inner.publishing.acquire()).await;
        let topic = self.authorised(connection, &name, TopicAction::Publish).await?;
        self.room(&topic).await;
        // The next one's turn begins when this future waits, which is when the broker has the publication.
        drop(turn);
        json(&self.publish_now(&topic, data.clone(), key).await?)
    }

    async fn client_asks_who(&self, connection: &Connection, topic: &[u8], data: &Data) -> Result<Data, TopicError> {
        let name = TopicName::from_bytes(topic)?;
        let request: PresenceRequest = parse(data).ok_or(INVALID_JSON)?;
        let leaves = request.join.as_ref().is_some_and(|join| join.get() == "null");
        let topic = match self.authorised(connection, &name, TopicAction::Presence).await {
            // Who may not look, or no longer, may leave.
            Err(TopicError::Forbidden) if leaves => {
                let topic = self.topic(&name)?;
                self.set_presence(connection, &topic, None).await?;
                return json(&PresenceReply {
                    here: Vec::new(),
                    count: 0,
                    id: None,
                });
            }
            topic => topic?,
        };
        if let Some(join) = request.join.map(not_null) {
            if join.is_some() {
                self.authorised(connection, &name, TopicAction::Join).await?;
            }
            self.set_presence(connection, &topic, join).await?;
        }
        let (here, count) = self.broker().some_present(&topic, self.reply_room()).await?;
        json(&PresenceReply {
            here,
            count,
            id: self.joined_id(&connection.inner, &topic),
        })
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Data, TopicError> {
    Data::json(value).map_err(|_| INVALID_JSON)
}

fn not_null(join: Box<RawValue>) -> Option<Box<RawValue>> {
    (join.get() != "null").then_some(join)
}

fn recent(request: HistoryRequest) -> Recent {
    Recent {
        count: request.count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
        age: request.age_ms.map(Duration::from_millis),
    }
}
