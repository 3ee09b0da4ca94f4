//! Connections that are cut at random points while many clients send numbered requests: every request that was acknowledged
//! was handled exactly once and every other at most once; sessions survive; nothing is left over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use wireloom_messaging::codec::{Message, Payload, RequestId};
use wireloom_messaging::server::{Connection, Handlers, ReplyError, Server};
use wireloom_messaging::session::{FileStore, Session};

use crate::peer::{Peer, within};
use crate::rig::{Memory, Multi, Rig, Single, WebSocket};

/// Seeded, so that a failure can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

type Handled = Arc<Mutex<HashMap<u64, u32>>>;

fn service(handled: Handled) -> Handlers {
    Handlers::new()
        .on_request("login", async |connection: Connection| -> Result<_, ReplyError> {
            connection
                .create_session([("user".to_owned(), 1.into())].into())
                .await?;
            Ok(())
        })
        .on_request("count", move |number: String| {
            let handled = handled.clone();
            async move {
                let number: u64 = number.parse()?;
                if number.is_multiple_of(3) {
                    tokio::task::yield_now().await;
                }
                *handled.lock().unwrap().entry(number).or_default() += 1;
                Ok::<_, ReplyError>(())
            }
        })
}

/// One client through several connections; answers the numbers that were acknowledged.
async fn client<R: Rig>(rig: Arc<R>, seed: u64) -> Vec<u64> {
    const CONNECTIONS: u64 = 5;
    let mut random = Random(seed);
    let mut acknowledged = Vec::new();
    let mut peer = Peer::connect(&*rig).await;
    peer.text(1, "login", "x").await;
    let created = peer.recv().await;
    let Ok(Message::SessionCreated { session }) = Message::decode(&created) else {
        panic!("{:?}", Message::decode(&created));
    };
    let key = Session::from_json(session).unwrap().key;
    peer.expect_reply(1, Payload::EMPTY).await;
    for connection in 0..CONNECTIONS {
        let first = (seed * CONNECTIONS + connection) * 100;
        let sent = 1 + random.below(20);
        let read = random.below(sent + 1);
        for number in first..first + sent {
            peer.text(number + 2, "count", &number.to_string()).await;
        }
        for _ in 0..read {
            let bytes = peer.recv().await;
            let Ok(Message::Reply { id, .. }) = Message::decode(&bytes) else {
                panic!("{:?}", Message::decode(&bytes));
            };
            acknowledged.push(id.to_u64() - 2);
        }
        // Half of them in the middle of a message.
        if random.below(2) == 0 {
            let _ = peer.try_send_bytes(b"\x80\x01\x02\x03").await;
        }
        drop(peer);
        peer = Peer::connect(&*rig).await;
        let id = RequestId::from_u64(1);
        let key = key.as_str().as_bytes();
        peer.send(&Message::RestoreSession { id, key }).await;
        let bytes = peer.recv().await;
        assert_eq!(bytes[0], 192, "{:?}", Message::decode(&bytes));
    }
    let id = RequestId::from_u64(2);
    peer.send(&Message::CloseSession { id }).await;
    peer.expect_reply(2, Payload::EMPTY).await;
    peer.close().await;
    acknowledged
}

async fn chaos<R: Rig + 'static>(clients: u64, fits: impl Fn(Arc<R>, u64, &mut JoinSet<Vec<u64>>)) {
    let folder = tempfile::tempdir().unwrap();
    let handled = Handled::default();
    let server = Server::builder()
        .concurrency(4)
        .max_connections(100_000, 100_000)
        .cancel_grace(Duration::from_millis(100))
        .sessions(FileStore::open(folder.path()).unwrap(), 0)
        .build(service(handled.clone()));
    let rig = Arc::new(R::start(&server).await);
    let mut running = JoinSet::new();
    for seed in 0..clients {
        fits(rig.clone(), seed, &mut running);
    }
    let mut acknowledged = Vec::new();
    while let Some(numbers) = running.join_next().await {
        acknowledged.extend(numbers.unwrap());
    }
    within(server.shut_down()).await;
    let handled = handled.lock().unwrap();
    assert!(acknowledged.len() as u64 > clients * 20, "{}", acknowledged.len());
    for number in &acknowledged {
        assert_eq!(handled.get(number), Some(&1), "{number} was acknowledged");
    }
    assert!(handled.values().all(|times| *times == 1));
    assert_eq!((server.connection_count(), server.active_sessions()), (0, 0));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "sessions were closed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    chaos::<Memory>(1000, |rig, seed, running| drop(running.spawn(client(rig, seed)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket() {
    chaos::<WebSocket>(200, |rig, seed, running| drop(running.spawn(client(rig, seed)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webtransport() {
    chaos::<Single>(50, |rig, seed, running| drop(running.spawn(client(rig, seed)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webtransport_multi() {
    chaos::<Multi>(50, |rig, seed, running| drop(running.spawn(client(rig, seed)))).await;
}
