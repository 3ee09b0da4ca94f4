//! Sessions: made, restored, closed.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::timeout;
use wireloom_messaging::Data;
use wireloom_messaging::client::RequestError;
use wireloom_messaging::codec::{Message, Payload};
use wireloom_messaging::session::{Session, SessionInfo, SessionKey};

use crate::served::{PATIENCE, Served, accepted, client, spawn_request};

fn session(key: &str) -> Session {
    let key = SessionKey::parse(key.as_bytes()).expect("a key");
    Session::new(key, SessionInfo::new(), SystemTime::UNIX_EPOCH)
}

/// The session first, then what waited.
#[tokio::test]
async fn the_session_is_restored_before_queued_requests_are_sent() {
    let (builder, mut connections) = client();
    let client = builder.session(session("secret")).build();
    let waiting = spawn_request(&client, "queued", false);
    for round in 0..2 {
        let mut served = accepted(&mut connections).await;
        let bytes = served.hear().await.expect("a message");
        let Ok(Message::RestoreSession { id, key }) = Message::decode(&bytes) else {
            panic!("{bytes:?}");
        };
        assert_eq!(key, b"secret");
        if round == 0 {
            // Lost before it is restored: nothing else was sent, and the session is not forgotten.
            drop(served);
            continue;
        }
        served.reply(id, &session("secret").to_json()).await;
        let (id, name, _) = served.request().await;
        assert_eq!(name, "queued");
        served.reply(id, "done").await;
        assert_eq!(waiting.await.expect("no panic").expect("a reply"), Data::from("done"));
        assert_eq!(client.session(), Some(session("secret")));
        break;
    }
}

#[tokio::test]
async fn a_session_that_is_gone_is_forgotten() {
    let (builder, mut connections) = client();
    let (closed, mut told) = mpsc::unbounded_channel();
    let client = builder
        .session(session("old"))
        .on_session_closed(move || closed.send(()).expect("the test listens"))
        .build();
    let waiting = spawn_request(&client, "x", false);
    let mut served = accepted(&mut connections).await;
    let bytes = served.hear().await.expect("a message");
    let id = Message::decode(&bytes).expect("a message").id().expect("an id");
    served.say(Message::ReplySessionNotFound { id }).await;
    let (id, ..) = served.request().await;
    served.reply(id, "").await;
    assert!(waiting.await.expect("no panic").is_ok());
    assert_eq!((client.session(), told.recv().await), (None, Some(())));
}

/// What another attempt may change is not taken for the end of the session.
#[tokio::test]
async fn a_session_that_cannot_be_restored_now_is_tried_again() {
    let (builder, mut connections) = client();
    let client = builder.session(session("kept")).build();
    for answer in [
        |id| Message::ReplyInternalError { id },
        |id| Message::ReplyShutdown { id },
        |id| Message::ReplyMaxSessionConnections { id },
    ] {
        let mut served = accepted(&mut connections).await;
        let bytes = served.hear().await.expect("a message");
        let id = Message::decode(&bytes).expect("a message").id().expect("an id");
        served.say(answer(id)).await;
        served.end().await;
    }
    assert_eq!(client.session(), Some(session("kept")));
}

#[tokio::test]
async fn the_server_makes_and_closes_sessions() {
    let (builder, mut connections) = client();
    let (events, mut told) = mpsc::unbounded_channel();
    let closed = events.clone();
    let client = builder
        .on_session_created(move |session| drop(events.send(Some(session.key.clone()))))
        .on_session_closed(move || drop(closed.send(None)))
        .build();
    let mut served = accepted(&mut connections).await;
    let made = session("made");
    let json = made.to_json();
    served
        .say(Message::SessionCreated {
            session: json.as_bytes(),
        })
        .await;
    assert_eq!(told.recv().await, Some(Some(made.key.clone())));
    assert_eq!(client.session(), Some(made));
    served.say(Message::SessionClosed).await;
    assert_eq!(told.recv().await, Some(None));
    assert_eq!(client.session(), None);

    // The client's own requests about it: what comes after waits for the reply.
    let restoring = {
        let client = client.clone();
        let key = session("other").key;
        tokio::spawn(async move { client.restore_session(key).await })
    };
    let bytes = served.hear().await.expect("a message");
    let Ok(Message::RestoreSession { id, key: b"other" }) = Message::decode(&bytes) else {
        panic!("{bytes:?}");
    };
    let behind = spawn_request(&client, "behind", false);
    served.reply(id, &session("other").to_json()).await;
    let (id, ..) = served.request().await;
    served.reply(id, "").await;
    assert_eq!(restoring.await.expect("no panic").expect("restored"), session("other"));
    behind.await.expect("no panic").expect("a reply");
    let closing = {
        let client = client.clone();
        tokio::spawn(async move { client.close_session().await })
    };
    let bytes = served.hear().await.expect("a message");
    let Ok(Message::CloseSession { id }) = Message::decode(&bytes) else {
        panic!("{bytes:?}");
    };
    served
        .say(Message::Reply {
            id,
            payload: Payload::EMPTY,
        })
        .await;
    closing.await.expect("no panic").expect("closed");
    assert_eq!(client.session(), None);
}

/// A server that answers everything but that.
#[tokio::test]
async fn a_reply_about_the_session_that_never_comes_costs_the_connection() {
    let (builder, mut connections) = client();
    let client = builder
        .request_timeout(Duration::from_millis(200))
        .session(session("a"))
        .build();
    let mut served = accepted(&mut connections).await;
    let restored = async |served: &mut Served| {
        let bytes = served.hear().await.expect("a message");
        let Ok(Message::RestoreSession { id, .. }) = Message::decode(&bytes) else {
            panic!("{bytes:?}");
        };
        served.reply(id, &session("a").to_json()).await;
    };
    restored(&mut served).await;
    client.connected().await.expect("connected");
    let error = client.close_session().await.expect_err("no answer");
    assert!(
        matches!(error, RequestError::TimedOut | RequestError::Disconnected(_)),
        "{error:?}"
    );
    let mut served = accepted(&mut connections).await;
    restored(&mut served).await;
    let behind = spawn_request(&client, "behind", true);
    let (id, ..) = served.request().await;
    served.reply(id, "here").await;
    assert_eq!(behind.await.expect("no panic").expect("a reply"), Data::from("here"));
}

#[tokio::test]
async fn logging_out_without_a_connection_is_told() {
    let (builder, _connections) = client();
    let (closed, mut told) = mpsc::unbounded_channel();
    let client = builder
        .session(session("a"))
        .on_session_closed(move || closed.send(()).unwrap_or_default())
        .build();
    client.close_session().await.expect("forgotten");
    assert_eq!(told.recv().await, Some(()));
    assert_eq!(client.session(), None);
    client.close_session().await.expect("nothing to do");
    assert!(told.try_recv().is_err(), "once");
}

/// When the session is restored and the client not connected yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logging_out_at_the_last_moment_reaches_the_server() {
    let (builder, mut connections) = client();
    let (restored, mut told) = mpsc::unbounded_channel();
    let (go_on, gone_on) = std::sync::mpsc::channel();
    let gone_on = Mutex::new(gone_on);
    let client = builder
        .session(session("a"))
        .on_session_created(move |_| {
            let _ = restored.send(());
            let _ = gone_on.lock().expect("no panic").recv_timeout(PATIENCE);
        })
        .build();
    let mut served = accepted(&mut connections).await;
    let bytes = served.hear().await.expect("a message");
    let Ok(Message::RestoreSession { id, .. }) = Message::decode(&bytes) else {
        panic!("{bytes:?}");
    };
    served.reply(id, &session("a").to_json()).await;
    assert_eq!(timeout(PATIENCE, told.recv()).await.expect("in time"), Some(()));
    client.close_session().await.expect("logged out");
    assert_eq!(client.session(), None);
    go_on.send(()).expect("the hook waits");
    let bytes = served.hear().await.expect("a message");
    assert!(
        matches!(Message::decode(&bytes), Ok(Message::CloseSession { .. })),
        "{bytes:?}"
    );
}
