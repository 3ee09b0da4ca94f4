//! The server's end, which the tests play.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wireloom_messaging::Data;
use wireloom_messaging::client::{Backoff, Client, ClientBuilder, RequestError};
use wireloom_messaging::codec::{AcceptConf, Message, Payload, RequestId};
use wireloom_messaging::transport::memory::{self, MemoryLink};
use wireloom_messaging::transport::{self, Ended, Incoming};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A deadline that is to pass, after the request was sent.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

/// The server's end of a connection.
pub(crate) struct Served(pub(crate) MemoryLink);

impl Served {
    pub(crate) async fn say(&mut self, message: Message<'_>) {
        let bytes = message.to_vec().expect("a message");
        transport::send(&mut self.0, bytes.into())
            .await
            .expect("the client listens");
    }

    pub(crate) async fn accept(&mut self) {
        self.say(Message::AcceptConf(AcceptConf::new(60_000, 1024))).await;
    }

    /// The client's next message, as bytes.
    pub(crate) async fn hear(&mut self) -> Result<Bytes, Ended> {
        let heard = timeout(PATIENCE, transport::recv(&mut self.0))
            .await
            .expect("a message in time");
        match heard? {
            Incoming::Message { bytes, .. } => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    /// The next request: its identifier, name and payload.
    pub(crate) async fn request(&mut self) -> (RequestId, String, Data) {
        let bytes = self.hear().await.expect("a request");
        match Message::decode(&bytes).expect("a message") {
            Message::Request { id, name, payload } => (id, name.to_string(), payload.into()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn reply(&mut self, id: RequestId, text: &str) {
        let payload = Payload::utf8(text);
        self.say(Message::Reply { id, payload }).await;
    }

    pub(crate) async fn end(&mut self) -> Ended {
        self.hear().await.expect_err("the end")
    }
}

pub(crate) type Connections = mpsc::UnboundedReceiver<Served>;

/// A client whose connections the test serves.
pub(crate) fn client() -> (ClientBuilder, Connections) {
    let (connections, served) = mpsc::unbounded_channel();
    let builder = Client::over(move || {
        let (ours, theirs) = memory::pair();
        let _ = connections.send(Served(theirs));
        async { Ok(ours) }
    });
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
    (builder.backoff(backoff), served)
}

pub(crate) async fn next(connections: &mut Connections) -> Served {
    timeout(PATIENCE, connections.recv())
        .await
        .expect("a connection in time")
        .expect("a connection")
}

pub(crate) async fn accepted(connections: &mut Connections) -> Served {
    let mut served = next(connections).await;
    served.accept().await;
    served
}

pub(crate) fn spawn_request(
    client: &Client,
    name: &'static str,
    idempotent: bool,
) -> tokio::task::JoinHandle<Result<Data, RequestError>> {
    let client = client.clone();
    tokio::spawn(async move {
        let request = client.request(name, "payload");
        if idempotent {
            request.idempotent().await
        } else {
            request.await
        }
    })
}
