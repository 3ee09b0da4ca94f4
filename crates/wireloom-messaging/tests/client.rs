//! The client against servers that the tests play, byte by byte, in memory.
#![cfg(feature = "client")]

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wireloom_messaging::Data;
use wireloom_messaging::client::{Backoff, Client, ClientBuilder, ConnectError, RequestError, Status, Subscription};
use wireloom_messaging::codec::{AcceptConf, Encoding, Message, Name, Payload, RequestId};
use wireloom_messaging::engine::{CloseCode, Rejected, SendError};
use wireloom_messaging::session::{Session, SessionInfo, SessionKey};
use wireloom_messaging::transport::memory::{self, MemoryLink};
use wireloom_messaging::transport::{self, Delivery, Ended, Incoming, Link, Route, TransportKind};

const PATIENCE: Duration = Duration::from_secs(60);
/// A deadline that is to pass, after the request was sent.
const SHORT: Duration = Duration::from_secs(2);

/// The server's end of a connection.
struct Served(MemoryLink);

impl Served {
    async fn say(&mut self, message: Message<'_>) {
        let bytes = message.to_vec().expect("a message");
        transport::send(&mut self.0, bytes.into())
            .await
            .expect("the client listens");
    }

    async fn accept(&mut self) {
        self.say(Message::AcceptConf(AcceptConf::new(60_000, 1024))).await;
    }

    /// The client's next message, as bytes.
    async fn hear(&mut self) -> Result<Bytes, Ended> {
        let heard = timeout(PATIENCE, transport::recv(&mut self.0))
            .await
            .expect("a message in time");
        match heard? {
            Incoming::Message { bytes, .. } => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    /// The next request: its identifier, name and payload.
    async fn request(&mut self) -> (RequestId, String, Data) {
        let bytes = self.hear().await.expect("a request");
        match Message::decode(&bytes).expect("a message") {
            Message::Request { id, name, payload } => (id, name.to_string(), payload.into()),
            other => panic!("{other:?}"),
        }
    }

    async fn reply(&mut self, id: RequestId, text: &str) {
        let payload = Payload::utf8(text);
        self.say(Message::Reply { id, payload }).await;
    }

    async fn end(&mut self) -> Ended {
        self.hear().await.expect_err("the end")
    }
}

type Connections = mpsc::UnboundedReceiver<Served>;

/// A client whose connections the test serves.
fn client() -> (ClientBuilder, Connections) {
    let (connections, served) = mpsc::unbounded_channel();
    let builder = Client::over(move || {
        let (ours, theirs) = memory::pair();
        let _ = connections.send(Served(theirs));
        async { Ok(ours) }
    });
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
    (builder.backoff(backoff), served)
}

async fn next(connections: &mut Connections) -> Served {
    timeout(PATIENCE, connections.recv())
        .await
        .expect("a connection in time")
        .expect("a connection")
}

async fn accepted(connections: &mut Connections) -> Served {
    let mut served = next(connections).await;
    served.accept().await;
    served
}

fn session(key: &str) -> Session {
    let key = SessionKey::parse(key.as_bytes()).expect("a key");
    Session::new(key, SessionInfo::new(), SystemTime::UNIX_EPOCH)
}

fn spawn_request(
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
        assert!(matches!(error, RequestError::Closed(_)), "{error:?}");
    }
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

/// A link that tells what it was asked to cancel, and can be made to say that the server wants us to go.
struct Watched {
    link: MemoryLink,
    cancelled: mpsc::UnboundedSender<RequestId>,
    draining: Arc<Mutex<bool>>,
}

impl Link for Watched {
    fn poll_recv(&mut self, cx: &mut Context<'_>, want: bool) -> Poll<Result<Incoming, Ended>> {
        let received = self.link.poll_recv(cx, want);
        let mut draining = self.draining.lock().expect("no panic");
        // After the next message.
        if received.is_ready() && std::mem::take(&mut *draining) {
            return Poll::Ready(Ok(Incoming::Draining));
        }
        received
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.link.poll_ready(cx)
    }

    fn send(&mut self, route: Route, message: Bytes) -> Result<(), Ended> {
        self.link.send(route, message)
    }

    fn send_signal(&mut self, message: Bytes, delivery: Delivery) -> Result<(), Ended> {
        self.link.send_signal(message, delivery)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.link.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode, reason: &str) -> Poll<()> {
        self.link.poll_close(cx, code, reason)
    }

    fn cancel(&mut self, id: RequestId) {
        let _ = self.cancelled.send(id);
    }

    fn set_message_limit(&mut self, limit: usize) {
        self.link.set_message_limit(limit);
    }

    fn kind(&self) -> TransportKind {
        TransportKind::WebTransportMulti
    }
}

fn watched() -> (
    Client,
    Connections,
    mpsc::UnboundedReceiver<RequestId>,
    Arc<Mutex<bool>>,
) {
    let (connections, served) = mpsc::unbounded_channel();
    let (cancelled, cancels) = mpsc::unbounded_channel();
    let draining = Arc::<Mutex<bool>>::default();
    let flag = draining.clone();
    let client = Client::over(move || {
        let (link, theirs) = memory::pair();
        let _ = connections.send(Served(theirs));
        let watched = Watched {
            link,
            cancelled: cancelled.clone(),
            draining: flag.clone(),
        };
        async { Ok(watched) }
    });
    (client.build(), served, cancels, draining)
}

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

const SUBSCRIBED: &str = r#"{"epoch":"e","offset":0,"from":0}"#;

fn spawn_subscribe(client: &Client, name: &str) -> tokio::task::JoinHandle<Result<Subscription, RequestError>> {
    let topic = client.topic(name).expect("a name");
    tokio::spawn(async move { topic.subscribe().await })
}

/// Nobody has a subscription whose future was dropped, so that the server must not have it either.
#[tokio::test]
async fn a_subscription_given_up_early_is_taken_back() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let subscribing = spawn_subscribe(&client, "t");
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$subscribe/t");
    subscribing.abort();
    let _ = subscribing.await;
    served.reply(id, SUBSCRIBED).await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$unsubscribe/t");
    served.reply(id, "").await;
}

#[tokio::test]
async fn a_subscription_that_comes_too_late_is_taken_back() {
    let (builder, mut connections) = client();
    let client = builder.request_timeout(SHORT).build();
    let mut served = accepted(&mut connections).await;
    let subscribing = spawn_subscribe(&client, "t");
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$subscribe/t");
    let error = subscribing.await.expect("no panic").expect_err("too late");
    assert!(matches!(error, RequestError::TimedOut), "{error:?}");
    served.reply(id, SUBSCRIBED).await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$unsubscribe/t");
    served.reply(id, "").await;
}

/// Nor does one that is given up hold the client where there is no connection.
#[tokio::test]
async fn a_subscription_given_up_without_a_connection_is_forgotten() {
    let (builder, mut connections) = client();
    let client = builder.build();
    // Not accepted yet.
    let mut served = next(&mut connections).await;
    let subscribing = spawn_subscribe(&client, "t");
    tokio::task::yield_now().await;
    subscribing.abort();
    let _ = subscribing.await;
    drop(client);
    served.accept().await;
    // The last handle is gone.
    let ended = served.hear().await.expect_err("the end");
    assert_eq!(ended.code, CloseCode::Normal);
}

/// The younger subscription to a topic is the one that the server has in the end, whichever way its requests go: over streams of
/// their own they may overtake each other, so that one is sent when the one before is answered.
#[tokio::test]
async fn a_subscription_waits_for_the_end_of_the_last() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let first = spawn_subscribe(&client, "t");
    let (id, ..) = served.request().await;
    served.reply(id, SUBSCRIBED).await;
    drop(first.await.expect("no panic").expect("subscribed"));
    let (unsubscribing, name, _) = served.request().await;
    assert_eq!(name, "$unsubscribe/t");
    let second = spawn_subscribe(&client, "t");
    // All is in memory and on one thread: what is not sent within so many turns is not sent.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let other = spawn_request(&client, "other", false);
    let (id, name, _) = served.request().await;
    assert_eq!(name, "other");
    served.reply(id, "").await;
    other.await.expect("no panic").expect("a reply");
    served.reply(unsubscribing, "").await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$subscribe/t");
    // It takes the place of what is being asked for: that is not taken back any more.
    second.abort();
    let _ = second.await;
    let third = spawn_subscribe(&client, "t");
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    served.reply(id, SUBSCRIBED).await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$subscribe/t");
    served.reply(id, SUBSCRIBED).await;
    let mut third = third.await.expect("no panic").expect("subscribed");
    let (name, payload) = (Name::new("$message/1/t").expect("a name"), Payload::utf8("hello"));
    served.say(Message::Signal { name, payload }).await;
    let heard = timeout(PATIENCE, third.next_message()).await.expect("heard in time");
    assert_eq!(heard, Some(Data::from("hello")));
    drop(third);
    assert_eq!(served.request().await.1, "$unsubscribe/t");
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
    assert!(matches!(error, RequestError::Closed(ConnectError::Closed)), "{error:?}");
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
