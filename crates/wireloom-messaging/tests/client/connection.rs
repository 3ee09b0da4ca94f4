//! How connections begin and end, and the client with them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wireloom_messaging::Data;
use wireloom_messaging::client::{Backoff, Client, ConnectError, RequestError, Status};
use wireloom_messaging::codec::{AcceptConf, Message, Name, Payload};
use wireloom_messaging::engine::{CloseCode, Rejected};
use wireloom_messaging::transport::memory::{self, MemoryLink};
use wireloom_messaging::transport::{self, TransportKind};

use crate::served::{PATIENCE, Served, accepted, client, next, spawn_request};
use crate::watched::{Watched, watched};

/// Beside a stream that waits for a lost packet, datagrams come.
#[tokio::test]
async fn signals_may_overtake_the_first_message() {
    let (connections, mut served) = mpsc::unbounded_channel();
    let (heard, mut told) = mpsc::unbounded_channel();
    let client = Client::over(move || {
        let (link, theirs) = memory::pair();
        let _ = connections.send(Served(theirs));
        let watched = Watched {
            link,
            cancelled: mpsc::unbounded_channel().0,
            draining: Arc::default(),
        };
        async { Ok(watched) }
    });
    let client = client
        .on_signal(move |signal| drop(heard.send(signal.data().clone())))
        .build();
    let mut served = next(&mut served).await;
    // More than are kept.
    for _ in 0..200 {
        let (name, payload) = (Name::new("early").expect("a name"), Payload::utf8("x"));
        served.say(Message::Signal { name, payload }).await;
    }
    served.accept().await;
    let connected = timeout(PATIENCE, client.connected()).await.expect("in time");
    assert_eq!(connected.expect("connected"), TransportKind::WebTransportMulti);
    assert_eq!(told.recv().await, Some(Data::from("x")));
}

#[tokio::test]
async fn a_hook_that_panics_closes_the_client() {
    let (builder, mut connections) = client();
    let client = builder.on_signal(|_| panic!("as the test wants it")).build();
    let mut served = accepted(&mut connections).await;
    let (name, payload) = (Name::new("event").expect("a name"), Payload::utf8("x"));
    served.say(Message::Signal { name, payload }).await;
    let why = timeout(PATIENCE, client.closed()).await.expect("closed in time");
    assert!(matches!(why, ConnectError::Closed), "{why}");
    assert!(matches!(client.status(), Status::Closed(_)));
}

#[tokio::test]
async fn a_server_that_drains_is_left_after_the_last_reply() {
    let (client, mut connections, _, draining) = watched();
    let mut served = accepted(&mut connections).await;
    let waiting = spawn_request(&client, "old", false);
    let (id, ..) = served.request().await;
    *draining.lock().expect("no panic") = true;
    // Read, and replaced by the wish of the server.
    served.say(Message::SessionClosed).await;
    let late = spawn_request(&client, "new", false);
    served.reply(id, "done").await;
    assert_eq!(waiting.await.expect("no panic").expect("a reply"), Data::from("done"));
    served.end().await;
    let mut served = accepted(&mut connections).await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "new");
    served.reply(id, "").await;
    late.await.expect("no panic").expect("a reply");
}

/// Section 6.3: the original's client is wedged for ever by this.
#[tokio::test]
async fn garbage_costs_one_connection() {
    let (builder, mut connections) = client();
    let client = builder.build();
    for (garbage, code) in [
        (&b"\xff"[..], CloseCode::Malformed),
        (b"\x15", CloseCode::Malformed),
        (b"\x17\x02\x00\x60\xea\x00\x00\x00\x20\x00\x00", CloseCode::Malformed),
        (&[0xbf; 1025], CloseCode::TooBig),
    ] {
        let mut served = accepted(&mut connections).await;
        transport::send(&mut served.0, Bytes::from_static(b"\x05\0\0\0\0\0\0\0\0"))
            .await
            .expect("sent");
        transport::send(&mut served.0, Bytes::copy_from_slice(garbage))
            .await
            .expect("sent");
        assert_eq!(served.end().await.code, code, "{garbage:.12?}");
    }
    let mut served = accepted(&mut connections).await;
    let waiting = spawn_request(&client, "x", false);
    let (id, ..) = served.request().await;
    served.reply(id, "").await;
    waiting.await.expect("no panic").expect("a reply");
}

#[tokio::test]
async fn what_will_not_change_is_final() {
    type Expected = fn(&ConnectError) -> bool;
    let cases: [(Message<'_>, Expected); 4] = [
        (
            Message::AcceptConf(AcceptConf {
                major: 3,
                ..AcceptConf::new(0, 64)
            }),
            |error| matches!(error, ConnectError::Rejected(Rejected::Version { major: 3 })),
        ),
        (
            Message::AcceptConf(AcceptConf::new(0, 64).with_sub_protocol(b"chat")),
            |error| matches!(error, ConnectError::Rejected(Rejected::SubProtocol(_))),
        ),
        (Message::AcceptConf(AcceptConf::new(0, 65)), |error| {
            matches!(error, ConnectError::Rejected(Rejected::MessageBufferSize(65)))
        }),
        (Message::SessionClosed, |error| {
            matches!(error, ConnectError::Rejected(Rejected::OutOfOrder))
        }),
    ];
    for (first, expected) in cases {
        let (builder, mut connections) = client();
        let client = builder.message_buffer_size(64).build();
        let waiting = spawn_request(&client, "x", true);
        let mut served = next(&mut connections).await;
        served.say(first).await;
        let error = waiting.await.expect("no panic").expect_err("final");
        assert!(
            matches!(&error, RequestError::Closed(error) if expected(error)),
            "{error:?}"
        );
        let error = client.connected().await.expect_err("closed");
        assert!(error.is_final() && expected(&error), "{error:?}");
        assert!(matches!(client.status(), Status::Closed(_)));
        let late = client.request("x", ()).await.expect_err("closed");
        assert!(matches!(late, RequestError::Closed(_)) && !late.is_retryable());
        assert!(connections.recv().await.is_none(), "no other attempt");
    }
}

/// Appendix A.5.
#[tokio::test]
async fn a_dismissed_client_does_not_come_back() {
    let (builder, mut connections) = client();
    let (told, mut heard) = mpsc::unbounded_channel();
    let client = builder
        .on_disconnected(move |why| told.send(why.code).expect("heard"))
        .build();
    let mut served = accepted(&mut connections).await;
    let sent = spawn_request(&client, "sent", true);
    served.request().await;
    transport::close(&mut served.0, CloseCode::Dismissed, "no more of that").await;
    let is_dismissed =
        |error: &ConnectError| matches!(error, ConnectError::Dismissed { reason } if reason == "no more of that");
    let why = timeout(PATIENCE, client.closed()).await.expect("closed in time");
    assert!(why.is_final() && is_dismissed(&why), "{why}");
    assert!(matches!(client.status(), Status::Closed(why) if is_dismissed(&why)));
    assert_eq!(heard.recv().await, Some(CloseCode::Dismissed));
    let error = sent.await.expect("no panic").expect_err("lost");
    assert!(error.may_have_been_handled(), "{error}");
    let late = client.request("x", ()).await.expect_err("closed");
    assert!(
        matches!(&late, RequestError::Closed(why) if is_dismissed(why)),
        "{late}"
    );
    assert!(connections.recv().await.is_none(), "no other attempt");
}

#[tokio::test]
async fn a_client_may_be_dismissed_before_it_is_accepted() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = next(&mut connections).await;
    transport::close(&mut served.0, CloseCode::Dismissed, "").await;
    let why = timeout(PATIENCE, client.closed()).await.expect("closed in time");
    assert_eq!(why.to_string(), "dismissed by the server");
    assert!(connections.recv().await.is_none(), "no other attempt");
}

#[tokio::test]
async fn what_may_change_is_tried_again() {
    let attempts = Arc::<Mutex<u32>>::default();
    let (connections, mut served) = mpsc::unbounded_channel();
    let count = attempts.clone();
    let builder = Client::over(move || {
        let mut attempts = count.lock().expect("no panic");
        *attempts += 1;
        let (ours, theirs) = memory::pair();
        let answer = match *attempts {
            1..=3 => Err(ConnectError::Unreachable("nobody there".to_owned())),
            _ => {
                let _ = connections.send(Served(theirs));
                Ok(ours)
            }
        };
        async { answer }
    });
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
    let client = builder.backoff(backoff).build();
    let mut lost = accepted(&mut served).await;
    client.connected().await.expect("connected");
    transport::close(&mut lost.0, CloseCode::Internal, "").await;
    accepted(&mut served).await;
    assert_eq!(*attempts.lock().expect("no panic"), 5);
}

#[tokio::test]
async fn connecting_tells_the_first_failure() {
    let builder = Client::over(|| async { Err::<MemoryLink, _>(ConnectError::Refused("403 Forbidden".to_owned())) });
    let error = builder.connect().await.expect_err("refused");
    assert!(error.is_final() && error.to_string().contains("403"), "{error}");
    let builder = Client::over(|| async { Err::<MemoryLink, _>(ConnectError::Unreachable("no route".to_owned())) });
    let error = builder.connect().await.expect_err("unreachable");
    assert!(!error.is_final(), "{error}");
    let silent = Client::over(std::future::pending::<Result<MemoryLink, ConnectError>>);
    let error = silent
        .connect_timeout(Duration::from_millis(5))
        .connect()
        .await
        .expect_err("silent");
    assert!(matches!(error, ConnectError::TimedOut), "{error}");
}

#[tokio::test]
async fn closing_says_good_bye() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let waiting = spawn_request(&client, "x", true);
    served.request().await;
    client.signal("last", "words").await.expect("sent");
    client.close().await;
    served.hear().await.expect("what was sent before");
    assert_eq!(served.end().await.code, CloseCode::Normal);
    let error = waiting.await.expect("no panic").expect_err("closed");
    assert!(error.may_have_been_handled(), "{error:?}");
    client.close().await;
    assert!(client.signal("x", "y").await.is_err());
}

#[tokio::test]
async fn the_last_handle_closes_it() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    client.connected().await.expect("connected");
    let clone = client.clone();
    drop(client);
    clone.signal("still", "here").await.expect("sent");
    served.hear().await.expect("the signal");
    drop(clone);
    assert_eq!(served.end().await.code, CloseCode::Normal);
    assert!(connections.recv().await.is_none(), "no other attempt");
}

#[tokio::test]
async fn heartbeats_keep_a_quiet_connection() {
    let (builder, mut connections) = client();
    let _client = builder.build();
    let mut served = next(&mut connections).await;
    served.say(Message::AcceptConf(AcceptConf::new(40, 1024))).await;
    for _ in 0..3 {
        assert_eq!(served.hear().await.expect("a heartbeat"), &b"\x21"[..]);
    }
}
