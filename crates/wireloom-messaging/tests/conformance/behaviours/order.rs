//! How many handlers run at once (section 8.3).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use wireloom_messaging::codec::{Message, Payload};
use wireloom_messaging::engine::UNLIMITED;
use wireloom_messaging::server::{Handlers, Server};

use super::echo;
use crate::peer::{start, within};
use crate::rig::Rig;

/// `wait` tells that it has begun, and waits for a permit; `fast` does not wait.
fn waiting() -> (Handlers, mpsc::UnboundedReceiver<String>, Arc<Semaphore>) {
    let (begun, begins) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let door = gate.clone();
    let handlers = echo()
        .on_request("wait", move |text: String| {
            let (begun, door) = (begun.clone(), door.clone());
            async move {
                begun.send(text.clone()).unwrap();
                door.acquire().await.unwrap().forget();
                text
            }
        })
        .on_request("fast", async |text: String| text);
    (handlers, begins, gate)
}

pub async fn one_handler_at_a_time<R: Rig>() {
    for limit in [0, 1] {
        let (handlers, mut begins, gate) = waiting();
        let server = Server::builder().concurrency(limit).build(handlers);
        let (_rig, mut peer) = start::<R>(&server).await;
        peer.text(1, "wait", "one").await;
        assert_eq!(within(begins.recv()).await.unwrap(), "one");
        peer.text(2, "wait", "two").await;
        peer.text(3, "fast", "three").await;
        gate.add_permits(1);
        peer.expect_text(1, "one").await;
        if R::HAS_ORDER {
            assert_eq!(within(begins.recv()).await.unwrap(), "two");
            gate.add_permits(1);
            peer.expect_text(2, "two").await;
            peer.expect_text(3, "three").await;
        } else {
            gate.add_permits(1);
            let mut replies = [peer.recv().await, peer.recv().await].map(|bytes| bytes[1]);
            replies.sort_unstable();
            assert_eq!(replies, [2, 3]);
        }
    }
}

pub async fn two_handlers_overtake_and_the_third_waits<R: Rig>() {
    let (handlers, mut begins, gate) = waiting();
    let server = Server::builder().concurrency(2).build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "wait", "one").await;
    within(begins.recv()).await.unwrap();
    peer.text(2, "fast", "two").await;
    peer.expect_text(2, "two").await;
    peer.text(3, "wait", "three").await;
    within(begins.recv()).await.unwrap();
    peer.text(4, "wait", "four").await;
    // Time to begin, which it must not use; a machine that is slow makes the check weaker, not wrong.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(begins.try_recv().is_err(), "two run already");
    gate.add_permits(1);
    peer.expect_text(1, "one").await;
    assert_eq!(within(begins.recv()).await.unwrap(), "four");
    gate.add_permits(2);
    let mut replies = [peer.recv().await, peer.recv().await].map(|bytes| bytes[1]);
    replies.sort_unstable();
    assert_eq!(replies, [3, 4]);
}

pub async fn unlimited_handlers<R: Rig>() {
    const MANY: u64 = 50;
    let (handlers, mut begins, gate) = waiting();
    let server = Server::builder().concurrency(UNLIMITED).build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    for id in 1..=MANY {
        peer.text(id, "wait", "x").await;
    }
    for _ in 1..=MANY {
        within(begins.recv()).await.unwrap();
    }
    gate.add_permits(MANY as usize);
    let mut ids = Vec::new();
    for _ in 1..=MANY {
        ids.push(u64::from(peer.recv().await[1]));
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=MANY));
}

/// Section 7.5: clients in browsers may send a thousand a second.
pub async fn heartbeats_bypass_handlers<R: Rig>() {
    let (handlers, mut begins, gate) = waiting();
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "wait", "one").await;
    within(begins.recv()).await.unwrap();
    for _ in 0..5_000 {
        peer.send(&Message::Heartbeat).await;
    }
    gate.add_permits(1);
    peer.expect_text(1, "one").await;
    peer.request(2, "echo", Payload::EMPTY).await;
    peer.expect_reply(2, Payload::EMPTY).await;
}
