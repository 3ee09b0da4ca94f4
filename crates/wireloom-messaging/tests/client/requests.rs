//! Requests and signals: answered, repeated, given up, refused.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wireloom_messaging::Data;
use wireloom_messaging::client::{Client, RequestError};
use wireloom_messaging::codec::{AcceptConf, Encoding, Message, Name, Payload, RequestId};
use wireloom_messaging::engine::{CloseCode, SendError};
use wireloom_messaging::transport;

use crate::served::{Connections, PATIENCE, SHORT, accepted, client, next, spawn_request};
use crate::watched::watched;

#[tokio::test]
async fn requests_in_every_encoding() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    for data in [
        Data::from("жü"),
        Data::utf16("a😀"),
        Data::binary(&b"\0\xff"[..]),
        Data::from(""),
    ] {
        let echo = async {
            let (id, name, payload) = served.request().await;
            assert_eq!((name.as_str(), &payload), ("echo", &data));
            let payload = payload.payload();
            served.say(Message::Reply { id, payload }).await;
        };
        let (reply, ()) = tokio::join!(client.request("echo", data.clone()).into_future(), echo);
        assert_eq!(reply.expect("a reply"), data);
    }
}

#[tokio::test]
async fn every_error_reply_is_told_apart() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let mut ask = async |answer: fn(RequestId) -> Message<'static>| {
        let answering = async {
            let (id, ..) = served.request().await;
            served.say(answer(id)).await;
        };
        let (reply, ()) = tokio::join!(client.request("x", ()).into_future(), answering);
        let error = reply.expect_err("an error");
        (error.is_retryable(), error)
    };
    let (again, error) = ask(|id| Message::ReplyError {
        id,
        code: b"CODE",
        message: "é".as_bytes(),
    })
    .await;
    assert!(matches!(&error, RequestError::Application { code, message } if code == "CODE" && message == "é"));
    assert_eq!((again, error.to_string()), (false, "CODE: é".to_owned()));
    let (again, error) = ask(|id| Message::ReplyShutdown { id }).await;
    assert!(again && matches!(error, RequestError::Shutdown));
    let (again, error) = ask(|id| Message::ReplyInternalError { id }).await;
    assert!(!again && matches!(error, RequestError::Internal));
    let (again, error) = ask(|id| Message::ReplySessionNotFound { id }).await;
    assert!(!again && matches!(error, RequestError::SessionNotFound));
    let (again, error) = ask(|id| Message::ReplyMaxSessionConnections { id }).await;
    assert!(again && matches!(error, RequestError::MaxSessionConnections));
    let (again, error) = ask(|id| Message::ReplySessionsDisabled { id }).await;
    assert!(!again && matches!(error, RequestError::SessionsDisabled));
}

#[tokio::test]
async fn a_lost_connection_fails_what_waits_and_replays_what_may_be() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let fragile = spawn_request(&client, "fragile", false);
    served.request().await;
    let first = spawn_request(&client, "first", true);
    served.request().await;
    let second = spawn_request(&client, "second", true);
    served.request().await;
    drop(served);
    let error = fragile.await.expect("no panic").expect_err("lost");
    assert!(matches!(error, RequestError::Disconnected(_)), "{error:?}");
    assert!(error.is_retryable() && error.may_have_been_handled());
    let mut served = accepted(&mut connections).await;
    for expected in ["first", "second"] {
        let (id, name, data) = served.request().await;
        assert_eq!((name.as_str(), data), (expected, Data::from("payload")));
        served.reply(id, expected).await;
    }
    assert_eq!(first.await.expect("no panic").expect("a reply"), Data::from("first"));
    assert_eq!(second.await.expect("no panic").expect("a reply"), Data::from("second"));
}

/// More than a link takes that is not read.
const MANY: usize = 200;

/// The first connection is lost with many requests that may be sent again.
async fn lost_with_many(client: &Client, connections: &mut Connections) -> JoinSet<Result<Data, RequestError>> {
    let mut served = accepted(connections).await;
    let mut waiting = JoinSet::new();
    for _ in 0..MANY {
        let client = client.clone();
        waiting.spawn(async move { client.request("again", "x".repeat(900)).idempotent().await });
    }
    for _ in 0..MANY {
        served.request().await;
    }
    waiting
}

/// A server that does not read before it is read from would wait for ever.
#[tokio::test]
async fn what_is_sent_again_holds_up_nothing() {
    let (builder, mut connections) = client();
    let (heard, mut signals) = mpsc::unbounded_channel();
    let client = builder
        .on_signal(move |signal| drop(heard.send(signal.name().map(str::to_owned))))
        .build();
    let mut waiting = lost_with_many(&client, &mut connections).await;
    let mut served = accepted(&mut connections).await;
    let (name, payload) = (Name::new("event").expect("a name"), Payload::EMPTY);
    served.say(Message::Signal { name, payload }).await;
    let signal = timeout(PATIENCE, signals.recv()).await.expect("heard in time");
    assert_eq!(signal.flatten().as_deref(), Some("event"));
    // What is new comes behind.
    let new = spawn_request(&client, "new", false);
    for _ in 0..MANY {
        let (id, name, _) = served.request().await;
        assert_eq!(name, "again");
        served.reply(id, "done").await;
    }
    let (id, name, _) = served.request().await;
    assert_eq!(name, "new");
    served.reply(id, "done").await;
    while let Some(reply) = waiting.join_next().await {
        assert_eq!(reply.expect("no panic").expect("a reply"), Data::from("done"));
    }
    new.await.expect("no panic").expect("a reply");
}

#[tokio::test]
async fn a_client_that_sends_again_can_be_closed() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut waiting = lost_with_many(&client, &mut connections).await;
    let mut served = accepted(&mut connections).await;
    // It has begun, and gets no further than the link has room.
    served.request().await;
    timeout(PATIENCE, client.close()).await.expect("closed in time");
    while let Some(reply) = waiting.join_next().await {
        let error = reply.expect("no panic").expect_err("closed");
        assert!(matches!(error, RequestError::Disconnected(_)), "{error:?}");
        assert!(error.may_have_been_handled(), "over the first connection");
    }
}

/// A server answered nothing and is not found again: what it was sent it may have handled, what waited behind it not.
#[tokio::test]
async fn what_was_sent_before_a_final_error_may_have_been_handled() {
    let (builder, mut connections) = client();
    let client = builder.message_buffer_size(1024).build();
    let mut served = accepted(&mut connections).await;
    let sent = spawn_request(&client, "sent", true);
    served.request().await;
    drop(served);
    let mut served = next(&mut connections).await;
    let waits = spawn_request(&client, "waits", true);
    served.say(Message::AcceptConf(AcceptConf::new(0, 64))).await;
    let error = sent.await.expect("no panic").expect_err("final");
    assert!(matches!(error, RequestError::Disconnected(_)), "{error:?}");
    assert!(error.may_have_been_handled());
    let error = waits.await.expect("no panic").expect_err("final");
    assert!(matches!(error, RequestError::Closed(_)), "{error:?}");
    assert!(!error.may_have_been_handled());
}

/// The next server takes less than the one before.
#[tokio::test]
async fn what_cannot_be_sent_again_may_have_been_handled() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.request("large", "x".repeat(900)).idempotent().await })
    };
    served.request().await;
    drop(served);
    let mut served = next(&mut connections).await;
    served.say(Message::AcceptConf(AcceptConf::new(0, 64))).await;
    let error = waiting.await.expect("no panic").expect_err("too large now");
    assert!(error.may_have_been_handled(), "{error:?}");
}

#[tokio::test]
async fn what_a_client_had_that_is_gone_may_have_been_handled() {
    let (builder, mut connections) = client();
    let client = builder.on_signal(|_| panic!("as the test wants it")).build();
    let mut served = accepted(&mut connections).await;
    let waiting = spawn_request(&client, "x", false);
    served.request().await;
    let (name, payload) = (Name::new("event").expect("a name"), Payload::EMPTY);
    served.say(Message::Signal { name, payload }).await;
    let error = waiting.await.expect("no panic").expect_err("gone");
    assert!(error.may_have_been_handled(), "{error:?}");
    let late = client.request("x", ()).await.expect_err("closed");
    assert!(!late.may_have_been_handled(), "{late:?}");
}

#[tokio::test]
async fn what_a_server_that_shuts_down_refuses_goes_to_the_next() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let waiting = spawn_request(&client, "x", true);
    let (id, ..) = served.request().await;
    served.say(Message::ReplyShutdown { id }).await;
    // That server is not asked again.
    client.signal("meanwhile", "x").await.expect("sent");
    let bytes = served.hear().await.expect("a message");
    assert!(
        matches!(Message::decode(&bytes), Ok(Message::Signal { .. })),
        "{bytes:?}"
    );
    transport::close(&mut served.0, CloseCode::Shutdown, "").await;
    let mut served = accepted(&mut connections).await;
    let (id, ..) = served.request().await;
    served.reply(id, "done").await;
    assert_eq!(waiting.await.expect("no panic").expect("a reply"), Data::from("done"));
}

#[tokio::test]
async fn a_late_reply_is_nobodys() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let late = client.request("late", ()).timeout(SHORT);
    let (error, (id, ..)) = tokio::join!(late.into_future(), served.request());
    let error = error.expect_err("too late");
    assert!(matches!(error, RequestError::TimedOut), "{error:?}");
    served.reply(id, "late").await;
    served.reply(id, "twice").await;
    let answering = async {
        let (id, ..) = served.request().await;
        served.reply(id, "mine").await;
    };
    let (reply, ()) = tokio::join!(client.request("x", ()).into_future(), answering);
    assert_eq!(reply.expect("a reply"), Data::from("mine"));
}

#[tokio::test]
async fn dropping_a_request_cancels_it() {
    let (client, mut connections, mut cancels, _) = watched();
    let mut served = accepted(&mut connections).await;
    let waiting = spawn_request(&client, "x", false);
    let (id, ..) = served.request().await;
    waiting.abort();
    assert_eq!(timeout(PATIENCE, cancels.recv()).await.expect("in time"), Some(id));
    // A deadline does the same.
    let short = client.request("x", ()).timeout(SHORT).into_future();
    let (_, (id, ..)) = tokio::join!(short, served.request());
    assert_eq!(timeout(PATIENCE, cancels.recv()).await.expect("in time"), Some(id));
    // One that was answered is not cancelled.
    let answering = async {
        let (id, ..) = served.request().await;
        served.reply(id, "").await;
    };
    let (reply, ()) = tokio::join!(client.request("x", ()).into_future(), answering);
    reply.expect("a reply");
    client.close().await;
    assert!(cancels.try_recv().is_err());
}

/// One that was never sent is not sent any more.
#[tokio::test]
async fn a_queued_request_that_nobody_waits_for_is_not_sent() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = next(&mut connections).await;
    let given_up = client.request("given up", ()).timeout(Duration::from_millis(1)).await;
    assert!(matches!(given_up, Err(RequestError::TimedOut)));
    let waiting = spawn_request(&client, "wanted", false);
    served.accept().await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "wanted");
    served.reply(id, "").await;
    waiting.await.expect("no panic").expect("a reply");
}

#[tokio::test]
async fn signals_both_ways() {
    let (builder, mut connections) = client();
    let (signals, mut received) = mpsc::unbounded_channel();
    let client = builder.on_signal(move |signal| drop(signals.send(signal))).build();
    let mut served = accepted(&mut connections).await;
    client.signal("eventA", "something").await.expect("sent");
    client
        .signal("", Data::binary(&b"\0"[..]))
        .unordered()
        .await
        .expect("sent");
    let bytes = served.hear().await.expect("a signal");
    assert_eq!(bytes, &b"\x40\x06eventAsomething"[..]);
    assert_eq!(served.hear().await.expect("a signal"), &b"\x3f\0\0"[..]);
    served.say(Message::decode(&bytes).expect("a signal")).await;
    let signal = received.recv().await.expect("a signal");
    assert_eq!((signal.name(), signal.encoding()), (Some("eventA"), Encoding::Utf8));
    assert_eq!(signal.text().expect("text"), "something");
}

#[tokio::test]
async fn what_cannot_be_sent_fails_and_harms_nothing() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let error = client.request("x", vec![0; 1014]).await.expect_err("1025 bytes");
    assert!(
        matches!(
            error,
            RequestError::Invalid(SendError::TooLarge {
                size: 1025,
                limit: 1024
            })
        ),
        "{error:?}"
    );
    for error in [
        client.request("é", ()).await.expect_err("no ASCII"),
        client.request("n".repeat(256), ()).await.expect_err("too long"),
        client.request("", ()).await.expect_err("nothing"),
        client
            .request(
                "x",
                Data {
                    encoding: Encoding::Utf16,
                    bytes: "abc".into(),
                },
            )
            .await
            .expect_err("odd"),
        client.signal("x", Data::utf16("")).await.expect_err("empty UTF-16"),
    ] {
        assert!(
            matches!(error, RequestError::Invalid(SendError::Encode(_))),
            "{error:?}"
        );
        assert!(!error.is_retryable() && !error.may_have_been_handled());
    }
    let answering = async {
        let (id, _, data) = served.request().await;
        assert_eq!(data.bytes.len(), 1013);
        served.reply(id, "").await;
    };
    let (reply, ()) = tokio::join!(client.request("x", vec![0; 1013]).into_future(), answering);
    reply.expect("1024 bytes pass");
}

#[tokio::test]
async fn signals_by_name() {
    let (heard, mut all) = mpsc::unbounded_channel();
    let (builder, mut connections) = client();
    let client = builder
        .on_signal(move |signal| heard.send(signal.data().clone()).expect("heard"))
        .build();
    let (mut first, mut second) = (client.signals("news"), client.signals("news"));
    drop(client.signals("news"));
    let mut other = client.signals("other");
    for round in ["one", "two"] {
        // Over all connections.
        let mut served = accepted(&mut connections).await;
        for name in ["news", "nobody's"] {
            let (name, payload) = (Name::new(name).expect("a name"), Payload::utf8(round));
            served.say(Message::Signal { name, payload }).await;
        }
        for signals in [&mut first, &mut second] {
            let signal = timeout(PATIENCE, signals.next())
                .await
                .expect("in time")
                .expect("a signal");
            assert_eq!((signal.name(), signal.data()), (Some("news"), &Data::from(round)));
        }
        for _ in 0..2 {
            assert_eq!(all.recv().await, Some(Data::from(round)));
        }
    }
    client.close().await;
    assert!(timeout(PATIENCE, other.next()).await.expect("in time").is_none());
    assert!(client.signals("late").next().await.is_none());
    assert_eq!((first.missed(), other.missed()), (0, 0));
}

#[tokio::test]
async fn signals_that_nobody_takes_are_missed() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut slow = client.signals("news");
    let mut served = accepted(&mut connections).await;
    for count in 0..1030 {
        let (name, text) = (Name::new("news").expect("a name"), count.to_string());
        let payload = Payload::utf8(&text);
        served.say(Message::Signal { name, payload }).await;
    }
    // Behind them.
    let waiting = spawn_request(&client, "x", false);
    let (id, ..) = served.request().await;
    served.reply(id, "").await;
    waiting.await.expect("no panic").expect("a reply");
    assert_eq!(slow.missed(), 6);
    for count in 0..1024 {
        let signal = slow.next().await.expect("a signal");
        assert_eq!(signal.data(), &Data::from(count.to_string()));
    }
}
