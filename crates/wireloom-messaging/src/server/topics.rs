//! Topics, as an application uses them on its server.

use super::{Connection, Server};
use crate::data::Data;
use crate::session::SessionKey;
use crate::topics::{History, HistoryQuery, Hub, Position, Present, TopicError, TopicName};

impl Server {
    fn hub(&self) -> Result<&Hub, TopicError> {
        self.0.topics.as_deref().ok_or(TopicError::Disabled)
    }

    /// Publishes a message of a topic: to all its subscribers, on this server and on all others that share its broker, and into its
    /// history. Answers where it is when the broker has accepted it. Waits while subscribers are being told of earlier ones.
    ///
    /// # Errors
    /// There is no such topic, the message does not fit into the message buffer, or the broker cannot be reached.
    ///
    /// # Cancel safety
    /// Dropped, the message was published or was not.
    pub async fn publish(&self, topic: &str, data: impl Into<Data>) -> Result<Position, TopicError> {
        self.publish_once(topic, "", data).await
    }

    /// As [`publish`](Self::publish), and not again if the topic has seen this key within two minutes: the answer is that of the first
    /// time then. So a publication that failed, or that was cut short, can be repeated. A key is at most 64 of `A-Z a-z 0-9 _ -`.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), or it is no key.
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    pub async fn publish_once(&self, topic: &str, key: &str, data: impl Into<Data>) -> Result<Position, TopicError> {
        let hub = self.hub()?;
        let topic = hub.topic(&TopicName::new(topic)?)?;
        hub.publish(&topic, data.into(), key).await
    }

    /// Publishes a message that is not kept: to those who are there, who get it or do not.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_ephemeral(&self, topic: &str, data: impl Into<Data>) -> Result<(), TopicError> {
        let hub = self.hub()?;
        let topic = hub.topic(&TopicName::new(topic)?)?;
        hub.publish_ephemeral(&topic, data.into()).await
    }

    /// Messages of the past, and where the topic is now.
    ///
    /// # Errors
    /// There is no such topic, or the broker cannot be reached.
    pub async fn topic_history(&self, topic: &str, query: &HistoryQuery) -> Result<History, TopicError> {
        let hub = self.hub()?;
        let topic = hub.topic(&TopicName::new(topic)?)?;
        Ok(hub.broker().history(&topic, query).await?)
    }

    /// Who is present at a topic, on all servers.
    ///
    /// # Errors
    /// There is no such topic, or the broker cannot be reached.
    pub async fn presence(&self, topic: &str) -> Result<Vec<Present>, TopicError> {
        let hub = self.hub()?;
        let topic = hub.topic(&TopicName::new(topic)?)?;
        Ok(hub.broker().present(&topic).await?)
    }

    /// [Subscribes](Connection::subscribe) the connections that a session has on this server now; later ones it does not. Answers how
    /// many that were.
    ///
    /// # Errors
    /// As [`Connection::subscribe`]; those before are subscribed.
    pub async fn subscribe_session(&self, session: &SessionKey, topic: &str) -> Result<usize, TopicError> {
        let mut count = 0;
        for connection in self.session_connections(session) {
            match connection.subscribe(topic).await {
                Ok(_) => count += 1,
                Err(TopicError::Disconnected) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// [Unsubscribes](Connection::unsubscribe) the connections that a session has on this server. Answers how many were subscribed.
    ///
    /// # Errors
    /// The server has no topics, or it is no name of one.
    pub fn unsubscribe_session(&self, session: &SessionKey, topic: &str) -> Result<usize, TopicError> {
        let (hub, topic) = (self.hub()?, TopicName::new(topic)?);
        let connections = self.session_connections(session);
        let ended = connections
            .iter()
            .filter(|connection| hub.unsubscribe(&connection.inner, &topic).is_ok());
        Ok(ended.count())
    }
}

impl Connection {
    /// Subscribes the client to a topic: from now on its messages come as ordinary signals named after the topic, which every client
    /// knows. (A client that knows topics subscribes by itself, and gets offsets, history and presence.) Replaces a subscription to
    /// the same topic. Answers the position after which messages come.
    ///
    /// Nobody is asked whether it may, and a client is not told.
    ///
    /// # Errors
    /// There is no such topic, the connection is over or has as many as it may have, or the broker cannot be reached.
    ///
    /// # Cancel safety
    /// Dropped, the client is not subscribed.
    pub async fn subscribe(&self, topic: &str) -> Result<Position, TopicError> {
        let hub = self.inner.server.topics.clone().ok_or(TopicError::Disabled)?;
        hub.subscribe_plain(self, topic).await
    }

    /// Ends a subscription, and presence at the topic, whoever began them. What waits to be sent is not sent.
    ///
    /// # Errors
    /// The client is neither subscribed nor present.
    pub fn unsubscribe(&self, topic: &str) -> Result<(), TopicError> {
        let hub = self.inner.server.topics.as_ref().ok_or(TopicError::Disabled)?;
        hub.unsubscribe(&self.inner, &TopicName::new(topic)?)
    }
}
