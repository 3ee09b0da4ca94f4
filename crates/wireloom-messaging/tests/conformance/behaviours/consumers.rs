//! Clients that do not read.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wireloom_messaging::codec::{Message, Payload};
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::{Server, SignalError, SlowConsumer};

use super::echo;
use crate::peer::{start, within};
use crate::rig::Rig;

/// Much more than any transport buffers.
const FLOOD: usize = 16 << 20;

pub async fn a_slow_consumer_is_disconnected<R: Rig>() {
    let server = Server::builder().pending_limit(100_000).build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.ping().await;
    let connection = server.connections().pop().unwrap();
    let mut sent = 0;
    let error = loop {
        match connection.signal("flood", vec![0; 8000]) {
            Ok(()) => sent += 8000,
            Err(error) => break error,
        }
        assert!(sent < FLOOD, "memory is bounded");
        assert!(connection.pending_bytes() <= 100_000);
        tokio::task::yield_now().await;
    };
    assert_eq!(error, SignalError::SlowConsumer);
    let code = loop {
        if let Err(ended) = peer.try_recv().await {
            break ended.code;
        }
    };
    // A peer that reads on may hear why.
    assert!(matches!(code, CloseCode::Policy | CloseCode::Lost), "{code}");
    while server.connection_count() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn a_slow_consumer_is_refused<R: Rig>() {
    let server = Server::builder()
        .pending_limit(100_000)
        .slow_consumer(SlowConsumer::Refuse)
        .build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.ping().await;
    let connection = server.connections().pop().unwrap();
    let mut sent = 0;
    while connection.signal("flood", vec![0; 8000]).is_ok() {
        sent += 1;
        assert!(sent * 8000 < FLOOD, "memory is bounded");
        tokio::task::yield_now().await;
    }
    // Everything that was taken arrives.
    for _ in 0..sent {
        assert!(matches!(
            Message::decode(&peer.recv().await),
            Ok(Message::Signal { .. })
        ));
    }
    peer.ping().await;
    connection.signal("again", "x").unwrap();
}

pub async fn waiting_for_a_slow_consumer<R: Rig>() {
    const SIGNALS: usize = 1_000;
    let server = Server::builder().pending_limit(50_000).build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.ping().await;
    let connection = server.connections().pop().unwrap();
    let sender = tokio::spawn(async move {
        for number in 0..SIGNALS {
            let mut payload = vec![0; 8000];
            payload[..8].copy_from_slice(&number.to_le_bytes());
            connection.signal_wait("flood", payload).await.unwrap();
            assert!(connection.pending_bytes() <= 50_000);
        }
    });
    for number in 0..SIGNALS {
        let bytes = peer.recv().await;
        let Ok(Message::Signal { payload, .. }) = Message::decode(&bytes) else {
            panic!("no signal");
        };
        assert_eq!(payload.bytes[..8], number.to_le_bytes(), "in order");
    }
    within(sender).await.unwrap();
}

/// A client that sends requests and reads no replies is not read from, so that its replies do not pile up.
pub async fn who_does_not_read_is_not_read_from<R: Rig>() {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let handlers = echo().on_request("big", move || {
        count.fetch_add(1, Ordering::Relaxed);
        async { vec![0; 8000] }
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    let message = Message::Request {
        id: wireloom_messaging::codec::RequestId::from_u64(1),
        name: wireloom_messaging::codec::Name::new("big").unwrap(),
        payload: Payload::binary(&[0; 4000]),
    };
    let request: bytes::Bytes = message.to_vec().unwrap().into();
    let mut sent = 0;
    // Sends until nothing goes any more for a while; only time can tell that.
    while tokio::time::timeout(
        Duration::from_millis(500),
        poll_fn(|cx| {
            let _ = peer.link.poll_flush(cx);
            peer.link.poll_ready(cx)
        }),
    )
    .await
    .is_ok_and(|ready| ready.is_ok())
        && sent * 4000 < FLOOD
    {
        peer.link
            .send(wireloom_messaging::transport::Route::CONTROL, request.clone())
            .unwrap();
        sent += 1;
        let _ = tokio::time::timeout(Duration::from_millis(500), poll_fn(|cx| peer.link.poll_flush(cx))).await;
    }
    let bytes = handled.load(Ordering::Relaxed) * 8000;
    assert!(
        bytes < FLOOD,
        "{bytes} bytes of replies for a client that does not read"
    );
    // Once it reads, all is answered.
    for _ in 0..sent {
        assert_eq!(peer.recv().await.len(), 8009);
    }
}
