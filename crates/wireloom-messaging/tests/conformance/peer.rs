//! A client that says exactly what it is told to, one message at a time.

use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::Bytes;
use wireloom_messaging::codec::{Message, Name, Payload, RequestId};
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::Server;
use wireloom_messaging::transport::{self, Ended, Incoming, Link};

use crate::rig::Rig;

/// Generous: it only tells a hang from a slow machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("hung")
}

pub struct Peer {
    pub link: Box<dyn Link>,
    pub accepted: Bytes,
}

/// A server with its rig and a first client.
pub async fn start<R: Rig>(server: &Server) -> (R, Peer) {
    let rig = R::start(server).await;
    let peer = Peer::connect(&rig).await;
    (rig, peer)
}

impl Peer {
    /// Connects, reads the first message and says something, so that signals may come.
    pub async fn connect(rig: &impl Rig) -> Self {
        let mut peer = Self::silent(rig).await;
        peer.send(&Message::Heartbeat).await;
        peer
    }

    pub async fn silent(rig: &impl Rig) -> Self {
        let link = within(rig.connect()).await.expect("a connection");
        let mut peer = Self {
            link,
            accepted: Bytes::new(),
        };
        peer.accepted = peer.recv().await;
        assert!(matches!(Message::decode(&peer.accepted), Ok(Message::AcceptConf(_))));
        peer
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).await.expect("open");
    }

    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        within(transport::send(&mut *self.link, Bytes::copy_from_slice(bytes))).await
    }

    pub async fn send(&mut self, message: &Message<'_>) {
        self.send_bytes(&message.to_vec().expect("a message")).await;
    }

    pub async fn request(&mut self, id: u64, name: &str, payload: Payload<'_>) {
        let (id, name) = (RequestId::from_u64(id), Name::new(name).unwrap());
        self.send(&Message::Request { id, name, payload }).await;
    }

    pub async fn text(&mut self, id: u64, name: &str, text: &str) {
        self.request(id, name, Payload::utf8(text)).await;
    }

    pub async fn signal(&mut self, name: &str, payload: Payload<'_>) {
        let name = Name::new(name).unwrap();
        self.send(&Message::Signal { name, payload }).await;
    }

    pub async fn try_recv(&mut self) -> Result<Bytes, Ended> {
        loop {
            let flushed_and_received = poll_fn(|cx| {
                // Streams of their own are written while the link is polled.
                let _ = self.link.poll_flush(cx);
                self.link.poll_recv(cx, true)
            });
            if let Incoming::Message { bytes, .. } = within(flushed_and_received).await? {
                return Ok(bytes);
            }
        }
    }

    pub async fn recv(&mut self) -> Bytes {
        self.try_recv().await.expect("a message")
    }

    /// Expects exactly this message.
    #[track_caller]
    pub fn expect<'a>(&'a mut self, message: Message<'a>) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let bytes = self.try_recv().await;
            match &bytes {
                Ok(bytes) => assert_eq!(Message::decode(bytes), Ok(message), "at {caller}"),
                Err(ended) => panic!("{ended} instead of {message:?} at {caller}"),
            }
        }
    }

    #[track_caller]
    pub fn expect_reply<'a>(&'a mut self, id: u64, payload: Payload<'a>) -> impl Future<Output = ()> + 'a {
        let id = RequestId::from_u64(id);
        self.expect(Message::Reply { id, payload })
    }

    #[track_caller]
    pub fn expect_text<'a>(&'a mut self, id: u64, text: &'a str) -> impl Future<Output = ()> + 'a {
        self.expect_reply(id, Payload::utf8(text))
    }

    /// Expects an error reply, and gives back its code and message.
    pub async fn expect_error(&mut self, expected: u64) -> (String, String) {
        let bytes = self.recv().await;
        let Ok(Message::ReplyError { id, code, message }) = Message::decode(&bytes) else {
            panic!("{:?}", Message::decode(&bytes));
        };
        assert_eq!(id.to_u64(), expected);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(code), text(message))
    }

    /// Expects that nothing more comes but the end.
    pub async fn expect_end(&mut self, code: CloseCode) {
        match self.try_recv().await {
            Err(ended) => assert_eq!(ended.code, code, "{ended}"),
            Ok(bytes) => panic!("{:?}", Message::decode(&bytes)),
        }
        self.close().await;
    }

    pub async fn close(&mut self) {
        within(transport::close(&mut *self.link, CloseCode::Normal, "")).await;
    }

    /// Whether the connection works: nothing else is on its way.
    pub async fn ping(&mut self) {
        const ID: u64 = 0x7070_7070;
        self.text(ID, "echo", "ping").await;
        self.expect_text(ID, "ping").await;
    }
}
