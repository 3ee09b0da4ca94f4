//! How connections end (sections 6.3, 7 and 10).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use wireloom_messaging::codec::{Message, Payload, RequestId};
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::{Connection, Server};
use wireloom_messaging::transport::TransportKind;

use super::{TellDrop, echo};
use crate::peer::{Peer, start, within};
use crate::rig::Rig;

pub async fn malformed_messages_close<R: Rig>() {
    let server = Server::builder().build(echo());
    let (rig, mut healthy) = start::<R>(&server).await;
    for bytes in [
        &[0xff][..],
        &[6, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0x21, 0],
        &[0x40, 0],
        &[0x1f, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        b"\x41\x04name",
    ] {
        let mut peer = Peer::connect(&rig).await;
        peer.send_bytes(bytes).await;
        peer.expect_end(CloseCode::Malformed).await;
    }
    // A request without name and payload has no stream of its own that could be answered.
    let mut peer = Peer::connect(&rig).await;
    peer.send_bytes(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    peer.expect_end(CloseCode::Malformed).await;
    healthy.ping().await;
    while server.connection_count() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn one_byte_too_many_closes<R: Rig>() {
    let server = Server::builder().message_buffer_size(1024).build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.request(1, "echo", Payload::binary(&[b'x'; 1011])).await;
    peer.expect_end(CloseCode::TooBig).await;
}

pub async fn silence_closes<R: Rig>() {
    let server = Server::builder().read_timeout(Duration::from_secs(1)).build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.expect_end(CloseCode::Policy).await;
}

pub async fn heartbeats_keep_alive<R: Rig>() {
    let server = Server::builder().read_timeout(Duration::from_secs(2)).build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        peer.send(&Message::Heartbeat).await;
    }
    peer.ping().await;
}

/// A request whose handler closes the connection gets its reply; those behind it are refused.
pub async fn a_closed_connection_answers_first<R: Rig>() {
    let gate = Arc::new(Semaphore::new(0));
    let door = gate.clone();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let handlers = echo().on_request("bye", move |connection: Connection| {
        let (door, begun) = (door.clone(), begun.clone());
        async move {
            connection.close();
            connection.close();
            begun.send(()).unwrap();
            door.acquire().await.unwrap().forget();
            "bye"
        }
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "bye", "x").await;
    within(begins.recv()).await.unwrap();
    for (id, message) in [
        (
            2,
            Message::Request {
                id: RequestId::from_u64(2),
                name: wireloom_messaging::codec::Name::new("echo").unwrap(),
                payload: Payload::utf8("late"),
            },
        ),
        (
            3,
            Message::CloseSession {
                id: RequestId::from_u64(3),
            },
        ),
        (
            4,
            Message::RestoreSession {
                id: RequestId::from_u64(4),
                key: b"k",
            },
        ),
    ] {
        peer.send(&message).await;
        let id = RequestId::from_u64(id);
        peer.expect(Message::ReplyShutdown { id }).await;
    }
    gate.add_permits(1);
    peer.expect_text(1, "bye").await;
    peer.expect_end(CloseCode::Normal).await;
}

/// After its reply, also where it was being closed already.
pub async fn a_dismissed_client_is_told<R: Rig>() {
    let handlers = echo().on_request("ban me", async |connection: Connection| {
        connection.close();
        connection.dismiss("as you wish");
        connection.dismiss("twice");
        "banned"
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "ban me", "x").await;
    peer.expect_text(1, "banned").await;
    let ended = peer.try_recv().await.expect_err("the end");
    assert_eq!((ended.code, &ended.reason[..]), (CloseCode::Dismissed, "as you wish"));
}

pub async fn an_aborted_connection_says_why<R: Rig>() {
    let server = Server::builder().build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.ping().await;
    server.connections()[0].abort(CloseCode::Policy, "spoke out of turn");
    let ended = peer.try_recv().await.expect_err("the end");
    assert_eq!(
        (ended.code, &ended.reason[..]),
        (CloseCode::Policy, "spoke out of turn")
    );
}

pub async fn a_hook_that_hangs_holds_up_nothing<R: Rig>() {
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let handlers = echo().on_disconnected(move |_, _| {
        let tell = TellDrop(dropped.clone());
        async move {
            std::future::pending::<()>().await;
            drop(tell);
        }
    });
    let server = Server::builder()
        .disconnect_timeout(Duration::from_millis(50))
        .build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.ping().await;
    drop(peer);
    within(server.shut_down()).await;
    assert_eq!(server.connection_count(), 0);
    assert_eq!(within(drops.recv()).await, Some("dropped"));
}

pub async fn shutdown<R: Rig>() {
    let gate = Arc::new(Semaphore::new(0));
    let door = gate.clone();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let signals = Arc::new(AtomicUsize::new(0));
    let heard = signals.clone();
    let handlers = echo()
        .on_request("slow", move |text: String| {
            let (door, begun) = (door.clone(), begun.clone());
            async move {
                begun.send(()).unwrap();
                door.acquire().await.unwrap().forget();
                text
            }
        })
        .on_signal("event", move || {
            heard.fetch_add(1, Ordering::Relaxed);
            async {}
        });
    let server = Server::builder().concurrency(2).build(handlers);
    let (rig, mut peer) = start::<R>(&server).await;
    let mut idle = Peer::connect(&rig).await;
    peer.text(1, "slow", "one").await;
    peer.text(2, "slow", "two").await;
    within(begins.recv()).await.unwrap();
    within(begins.recv()).await.unwrap();
    let shutdown = tokio::spawn({
        let server = server.clone();
        async move { server.shut_down().await }
    });
    idle.expect_end(CloseCode::Shutdown).await;
    // Late signals are ignored, late requests refused, newcomers turned away.
    peer.signal("event", Payload::utf8("late")).await;
    peer.text(3, "echo", "late").await;
    let id = RequestId::from_u64(3);
    peer.expect(Message::ReplyShutdown { id }).await;
    if let Some(link) = within(rig.connect()).await {
        let mut newcomer = Peer {
            link,
            accepted: Default::default(),
        };
        assert_eq!(
            newcomer.try_recv().await.expect_err("turned away").code,
            CloseCode::Shutdown
        );
    }
    gate.add_permits(1);
    peer.recv().await;
    assert!(!shutdown.is_finished(), "a handler runs");
    gate.add_permits(1);
    peer.recv().await;
    peer.expect_end(CloseCode::Shutdown).await;
    within(shutdown).await.unwrap();
    assert_eq!((server.connection_count(), signals.load(Ordering::Relaxed)), (0, 0));
}

pub async fn shutdown_without_connections<R: Rig>() {
    let server = Server::builder().build(echo());
    let rig = R::start(&server).await;
    within(server.shut_down()).await;
    if let Some(link) = within(rig.connect()).await {
        let mut newcomer = Peer {
            link,
            accepted: Default::default(),
        };
        assert!(newcomer.try_recv().await.is_err());
    }
}

pub async fn limits_of_connections<R: Rig>() {
    let server = Server::builder().max_connections(2, 2).build(echo());
    let (rig, mut first) = start::<R>(&server).await;
    let mut second = Peer::connect(&rig).await;
    first.ping().await;
    second.ping().await;
    if let Some(link) = within(rig.connect()).await {
        let mut third = Peer {
            link,
            accepted: Default::default(),
        };
        assert_eq!(
            third.try_recv().await.expect_err("one too many").code,
            CloseCode::Policy
        );
    }
    second.close().await;
    while server.connection_count() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Peer::connect(&rig).await.ping().await;
}

pub async fn hooks_are_called_once<R: Rig>() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let told_too = tell.clone();
    let (close_tell, mut closed) = mpsc::unbounded_channel();
    let handlers = echo()
        .on_connected(move |connection: Connection| {
            tell.send((connection.id(), connection.transport(), None)).unwrap();
            tokio::spawn({
                let close_tell = close_tell.clone();
                async move {
                    connection.closed().await;
                    connection.closed().await;
                    close_tell.send(connection.id()).unwrap();
                }
            });
            async {}
        })
        .on_disconnected(move |connection: Connection, reason| {
            assert!(!connection.is_active());
            told_too
                .send((connection.id(), connection.transport(), Some(reason.code)))
                .unwrap();
            async {}
        });
    let server = Server::builder().build(handlers);
    let (rig, mut peer) = start::<R>(&server).await;
    let (id, kind, None) = within(told.recv()).await.unwrap() else {
        panic!("connected first");
    };
    if kind != TransportKind::Memory {
        assert!(server.connections()[0].remote_address().is_some());
    }
    peer.ping().await;
    peer.close().await;
    assert_eq!(within(told.recv()).await.unwrap(), (id, kind, Some(CloseCode::Normal)));
    assert_eq!(within(closed.recv()).await, Some(id));
    let cut = Peer::connect(&rig).await;
    let (other, ..) = within(told.recv()).await.unwrap();
    assert_ne!(other, id);
    drop(cut);
    let (ended, _, Some(_)) = within(told.recv()).await.unwrap() else {
        panic!("disconnected");
    };
    assert_eq!(ended, other);
    assert_eq!(within(closed.recv()).await, Some(other));
    within(server.shut_down()).await;
    assert!(told.try_recv().is_err());
}

/// Nothing of the client is read before it returns, not even that it has gone.
pub async fn a_hook_that_never_connects<R: Rig>() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_connected(move |_| {
        let held = TellDrop(tell.clone());
        async move {
            let _held = held;
            std::future::pending().await
        }
    });
    let server = Server::builder()
        .connect_timeout(Duration::from_millis(50))
        .build(handlers);
    let rig = R::start(&server).await;
    let mut peer = Peer::silent(&rig).await;
    peer.expect_end(CloseCode::Internal).await;
    assert_eq!(within(told.recv()).await, Some("dropped"));
    within(server.shut_down()).await;
}

/// As with every connection, and a shutdown waits for it.
#[tokio::test]
async fn a_connection_that_is_cut_off_is_disconnected() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let door = gate.clone();
    let handlers = echo().on_disconnected(move |_, reason| {
        let (tell, door) = (tell.clone(), door.clone());
        async move {
            tell.send(reason.code).unwrap();
            door.acquire().await.unwrap().forget();
            tell.send(reason.code).unwrap();
        }
    });
    let server = Server::builder().build(handlers);
    let (_client, link) = wireloom_messaging::transport::memory::pair();
    let mut running = Box::pin(server.run(link));
    assert!(futures_util::future::poll_immediate(&mut running).await.is_none());
    assert_eq!(server.connection_count(), 1);
    drop(running);
    assert_eq!(within(told.recv()).await, Some(CloseCode::Lost));
    let mut shutdown = Box::pin(server.shut_down());
    assert!(futures_util::future::poll_immediate(&mut shutdown).await.is_none());
    gate.add_permits(1);
    within(shutdown).await;
    assert_eq!(told.try_recv(), Ok(CloseCode::Lost));
    assert!(told.try_recv().is_err());
}
