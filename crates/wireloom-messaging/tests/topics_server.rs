//! Topics on the server where there is much of something: what waits is bounded, and nobody waits for ever.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

#[path = "conformance/peer.rs"]
mod peer;
#[path = "conformance/rig.rs"]
mod rig;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use wireloom_messaging::Data;
use wireloom_messaging::codec::{Message, Name, Payload, RequestId};
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::{Connection, Handlers, Server};
use wireloom_messaging::topics::{
    Broker, BrokerError, Feed, History, HistoryQuery, Member, MemoryBroker, MemorySubscription, Position, Present,
    Publication, Recent, Topic, TopicAction, TopicMessage, TopicOptions, Topics,
};
use wireloom_messaging::transport::{Ended, Incoming, Link, Route, TransportKind, websocket};

use peer::Peer;
use rig::{Memory, Rig as _};

/// More than may wait in a feed, in members with the longest info.
const MANY: usize = 1100;

fn info(text: &str) -> Box<RawValue> {
    to_raw_value(text).unwrap()
}

/// The longest.
fn long_info() -> Box<RawValue> {
    info(&"i".repeat(1022))
}

fn server(topics: Topics) -> Server {
    Server::builder().topics(topics).build(Handlers::new())
}

async fn connect(server: &Server) -> Peer {
    Peer::connect(&Memory::start(server).await).await
}

/// Asks and waits for the reply, before which nothing else comes.
async fn ask(peer: &mut Peer, name: &str, json: &Value) -> Value {
    peer.text(1, name, &json.to_string()).await;
    reply(peer).await
}

async fn reply(peer: &mut Peer) -> Value {
    loop {
        match Message::decode(&peer.recv().await).unwrap() {
            Message::Reply { payload, .. } => return Data::from(payload).parse_json().unwrap(),
            Message::Signal { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The next signal, as it was sent, and what it says.
async fn signal(peer: &mut Peer, expected: &str) -> (Bytes, Data) {
    loop {
        let bytes = peer.recv().await;
        match Message::decode(&bytes).unwrap() {
            Message::Signal { name, payload } if name.as_str() == Some(expected) => {
                let data = payload.into();
                return (bytes, data);
            }
            Message::Reply { .. } | Message::Signal { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A broker in memory whose feed the test has too.
#[derive(Clone, Default)]
struct Opened {
    broker: MemoryBroker,
    feed: Arc<Mutex<Option<Feed>>>,
    /// Whoever joins leaves the feed full.
    fills: bool,
    /// Somebody joined though it was.
    was_full: Arc<AtomicBool>,
    /// Nobody can join.
    is_away: Arc<AtomicBool>,
    /// Joining never ends.
    hangs: bool,
    /// Somebody has left.
    left: Arc<AtomicBool>,
}

impl Opened {
    fn feed(&self) -> Feed {
        self.feed.lock().unwrap().clone().expect("a subscriber")
    }
}

impl Broker for Opened {
    type Subscription = MemorySubscription;

    async fn publish(&self, topic: &Topic, publication: Publication) -> Result<Position, BrokerError> {
        self.broker.publish(topic, publication).await
    }

    async fn publish_ephemeral(&self, topic: &Topic, data: Data) -> Result<(), BrokerError> {
        self.broker.publish_ephemeral(topic, data).await
    }

    async fn subscribe(&self, topic: &Topic, feed: Feed) -> Result<MemorySubscription, BrokerError> {
        *self.feed.lock().unwrap() = Some(feed.clone());
        self.broker.subscribe(topic, feed).await
    }

    async fn history(&self, topic: &Topic, query: &HistoryQuery) -> Result<History, BrokerError> {
        self.broker.history(topic, query).await
    }

    async fn join(&self, topic: &Topic, member: &Member, info: &RawValue) -> Result<(), BrokerError> {
        if self.fills {
            let feed = self.feed();
            let is_full = feed.room().now_or_never().is_none();
            self.was_full.fetch_or(is_full, Ordering::Relaxed);
            feed.message(TopicMessage::ephemeral(
                topic.name.clone(),
                Data::binary(vec![0; 1 << 20]),
            ));
        }
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if self.is_away.load(Ordering::Relaxed) {
            return Err(BrokerError::Unavailable("away".to_owned()));
        }
        self.broker.join(topic, member, info).await
    }

    fn leave(&self, topic: &Topic, member: &Member) {
        self.left.store(true, Ordering::Relaxed);
        self.broker.leave(topic, member);
    }

    async fn present(&self, topic: &Topic) -> Result<Vec<Present>, BrokerError> {
        // As a broker that is elsewhere.
        tokio::task::yield_now().await;
        self.broker.present(topic).await
    }
}

fn opened(broker: &Opened) -> Server {
    server(Topics::open(TopicOptions::new()).broker(broker.clone()))
}

#[tokio::test]
async fn a_rule_can_tell_ephemeral_messages_from_those_that_are_kept() {
    let topics = Topics::open(TopicOptions::new())
        .authorise(async |access| access.action != TopicAction::Publish || access.is_ephemeral);
    let server = server(topics);
    let mut peer = connect(&server).await;
    ask(&mut peer, "$subscribe/t", &json!({})).await;
    peer.text(1, "$publish//t", "forged").await;
    match Message::decode(&peer.recv().await).unwrap() {
        Message::ReplyError { code, .. } => assert_eq!(code, b"TOPIC_FORBIDDEN"),
        other => panic!("{other:?}"),
    }
    peer.signal("$publish//t", Payload::utf8("typing")).await;
    assert_eq!(signal(&mut peer, "$message//t").await.1, Data::from("typing"));
    let history = ask(&mut peer, "$subscribe/t", &json!({"history": {"count": 9}})).await;
    assert_eq!(history["offset"], json!(0), "nothing is kept: {history}");
}

#[tokio::test]
async fn joins_and_leaves_take_room_in_a_feed() {
    let broker = Opened::default();
    let server = opened(&broker);
    let mut subscriber = connect(&server).await;
    ask(&mut subscriber, "$subscribe/t", &json!({"presence": true})).await;
    let feed = broker.feed();
    for number in 0..MANY {
        feed.joined(Present::new(format!("somebody {number}"), long_info()));
    }
    assert!(feed.room().now_or_never().is_none(), "more than may wait");
    peer::within(feed.room()).await;
    for number in 0..100_000 {
        feed.left(format!("somebody {number}"));
    }
    assert!(feed.room().now_or_never().is_none(), "more than may wait");
}

#[tokio::test]
async fn who_joins_waits_for_room_in_the_feed() {
    let broker = Opened {
        fills: true,
        ..Opened::default()
    };
    let server = opened(&broker);
    let mut subscriber = connect(&server).await;
    ask(&mut subscriber, "$subscribe/t", &json!({"presence": true})).await;
    let mut peer = connect(&server).await;
    // Read by the server in one turn.
    for id in 1..=3 {
        peer.text(id, "$presence/t", r#"{"join": 1}"#).await;
    }
    for _ in 1..=3 {
        assert_eq!(reply(&mut peer).await["count"], json!(1));
    }
    assert!(!broker.was_full.load(Ordering::Relaxed));
}

#[tokio::test]
async fn only_the_newest_info_is_told() {
    let broker = Opened::default();
    let server = opened(&broker);
    let mut subscriber = connect(&server).await;
    ask(&mut subscriber, "$subscribe/t", &json!({"presence": true})).await;
    let feed = broker.feed();
    for number in 1..=10 * MANY {
        feed.joined(Present::new("a", info(&format!("{number:01000}"))));
    }
    assert!(feed.room().now_or_never().is_some(), "one waits");
    // Who has left and comes back is told of anew.
    feed.left("a".to_owned());
    feed.joined(Present::new("a", info("back")));
    let (_, said) = signal(&mut subscriber, "$presence/t").await;
    let newest = format!("{:01000}", 10 * MANY);
    let said: Value = said.parse_json().unwrap();
    assert_eq!(said, json!({"join": [{"id": "a", "info": newest}], "leave": ["a"]}));
    let (_, said) = signal(&mut subscriber, "$presence/t").await;
    let said: Value = said.parse_json().unwrap();
    assert_eq!(said, json!({"join": [{"id": "a", "info": "back"}]}));
}

#[tokio::test]
async fn joins_are_encoded_once_for_all_subscribers() {
    let server = server(Topics::open(TopicOptions::new()));
    let (mut a, mut b) = (connect(&server).await, connect(&server).await);
    for peer in [&mut a, &mut b] {
        ask(peer, "$subscribe/t", &json!({"presence": true})).await;
    }
    ask(&mut connect(&server).await, "$presence/t", &json!({"join": "c"})).await;
    let (in_a, said) = signal(&mut a, "$presence/t").await;
    assert_eq!(said.parse_json::<Value>().unwrap()["join"][0]["info"], json!("c"));
    let (in_b, _) = signal(&mut b, "$presence/t").await;
    assert_eq!(in_a, in_b);
    assert_eq!(in_a.as_ptr(), in_b.as_ptr(), "the same bytes");
}

/// What the server's end of a link takes is sent, whatever happens then: no more than it buffers.
#[tokio::test]
async fn a_link_takes_no_more_than_it_buffers() {
    for past in [true, false] {
        let server = server(Topics::open(TopicOptions::new()));
        let mut subscriber = connect(&server).await;
        if !past {
            ask(&mut subscriber, "$subscribe/t", &json!({})).await;
        }
        for _ in 0..100 {
            server.publish("t", vec![0; 8000]).await.unwrap();
        }
        if past {
            subscriber.text(1, "$subscribe/t", r#"{"history": {}}"#).await;
        }
        signal(&mut subscriber, "$message/1/t").await;
        // What waits is dropped.
        let connection = server.connections().pop().unwrap();
        connection.unsubscribe("t").unwrap();
        connection.close();
        let mut more = 0;
        while subscriber.try_recv().await.is_ok() {
            more += 1;
        }
        // 64 KiB in the link with what it took last, what it takes next, a reply.
        assert!(more < 20, "{more} messages, past: {past}");
    }
}

/// Ends the first connection; the names of all that it is still sent.
async fn names(server: &Server, peer: &mut Peer) -> Vec<String> {
    let connections = server.connections();
    let first = connections.iter().min_by_key(|connection| connection.id());
    first.unwrap().close();
    let mut names = Vec::new();
    while let Ok(bytes) = peer.try_recv().await {
        if let Message::Signal { name, .. } = Message::decode(&bytes).unwrap() {
            names.push(name.as_str().unwrap().to_owned());
        }
    }
    names
}

/// A server, somebody subscribed to both topics who reads nothing and for whom a link is full with the second's messages, and
/// somebody who is told after that one.
async fn full(broker: &Opened) -> (Server, Peer, Peer) {
    let server = Server::builder()
        .topics(Topics::open(TopicOptions::new()).broker(broker.clone()))
        .pending_limit(2000)
        .build(Handlers::new());
    let (mut slow, mut fast) = (connect(&server).await, connect(&server).await);
    for topic in ["busy", "rare"] {
        for peer in [&mut slow, &mut fast] {
            let name = format!("$subscribe/{topic}");
            ask(peer, &name, &json!({"presence": true})).await;
        }
    }
    for offset in 1..=200 {
        publish(&server, &mut fast, "busy", offset, 900).await;
    }
    (server, slow, fast)
}

/// Publishes, and waits until it was handed out.
async fn publish(server: &Server, told: &mut Peer, topic: &str, offset: u64, size: usize) {
    server.publish(topic, vec![0; size]).await.unwrap();
    signal(told, &format!("$message/{offset}/{topic}")).await;
}

#[tokio::test]
async fn whose_last_message_is_dropped_for_another_topic_is_told() {
    let (server, mut slow, mut fast) = full(&Opened::default()).await;
    publish(&server, &mut fast, "rare", 1, 10).await;
    for offset in 201..=220 {
        publish(&server, &mut fast, "busy", offset, 900).await;
    }
    let names = names(&server, &mut slow).await;
    let told = |name: &String| name == "$message/1/rare" || name == "$reset/rare";
    assert_eq!(names.iter().filter(|name| told(name)).count(), 1, "{names:?}");
    assert!(
        !names.contains(&"$reset/busy".to_owned()),
        "the gap tells it: {names:?}"
    );
}

#[tokio::test]
async fn who_gets_no_message_because_of_what_may_not_go_is_told() {
    let broker = Opened::default();
    let (server, mut slow, mut fast) = full(&broker).await;
    // Of the topic that was subscribed to last.
    broker.feed().joined(Present::new("somebody", long_info()));
    signal(&mut fast, "$presence/rare").await;
    publish(&server, &mut fast, "rare", 1, 1500).await;
    let names = names(&server, &mut slow).await;
    let told = |name: &String| name == "$message/1/rare" || name == "$reset/rare";
    assert_eq!(names.iter().filter(|name| told(name)).count(), 1, "{names:?}");
}

/// So many are present at each topic, as long as they are not dropped.
async fn present(server: &Server, count: usize, topics: &[&str]) -> Vec<Peer> {
    let mut peers = Vec::new();
    for _ in 0..count {
        let mut peer = connect(server).await;
        for topic in topics {
            let name = format!("$presence/{topic}");
            ask(&mut peer, &name, &json!({"join": long_info()})).await;
        }
        peers.push(peer);
    }
    peers
}

#[tokio::test]
async fn everybody_who_is_present_is_told_of_whatever_the_limit() {
    let server = Server::builder()
        .topics(Topics::open(TopicOptions::new()).broker(Opened::default()))
        .pending_limit(100_000)
        .concurrency(8)
        .build(Handlers::new());
    let topics = ["a", "b", "c"];
    let here = present(&server, 100, &topics).await;
    let mut subscriber = connect(&server).await;
    // At once, so that what is said of one topic waits when that of the next is known.
    for (id, topic) in (0..).zip(topics) {
        let name = format!("$subscribe/{topic}");
        subscriber.text(id, &name, r#"{"presence": true}"#).await;
    }
    let mut missing = [here.len(); 3];
    while missing != [0; 3] {
        let bytes = subscriber.recv().await;
        let (topic, said, list) = match Message::decode(&bytes).unwrap() {
            Message::Reply { id, payload } => (usize::try_from(id.to_u64()).unwrap(), payload, "here"),
            Message::Signal { name, payload } => {
                let name = name.as_str().unwrap();
                let topic = name.strip_prefix("$presence/");
                let topic = topic.unwrap_or_else(|| panic!("{name}, {missing:?} are missing"));
                let topic = topics.iter().position(|other| *other == topic);
                (topic.unwrap(), payload, "join")
            }
            other => panic!("{other:?}"),
        };
        let said: Value = Data::from(said).parse_json().unwrap();
        missing[topic] -= said[list].as_array().unwrap().len();
    }
}

#[tokio::test]
async fn those_who_do_not_fit_into_a_reply_are_encoded_once() {
    let server = server(Topics::open(TopicOptions::new()));
    // More than a link takes, so that some of it waits for the first when the second comes.
    let _here = present(&server, 200, &["t"]).await;
    let (mut a, mut b) = (connect(&server).await, connect(&server).await);
    for peer in [&mut a, &mut b] {
        peer.text(1, "$subscribe/t", r#"{"presence": true}"#).await;
    }
    let (in_a, _) = signal(&mut a, "$presence/t").await;
    let (in_b, _) = signal(&mut b, "$presence/t").await;
    assert_eq!(in_a, in_b);
    assert_eq!(in_a.as_ptr(), in_b.as_ptr(), "the same bytes");
}

/// Topics that are never silent, with a subscriber that takes its time.
#[tokio::test]
async fn connections_end_though_their_topics_are_busy() {
    for shuts_down in [true, false] {
        let server = server(Topics::open(TopicOptions::new()));
        let mut subscriber = connect(&server).await;
        ask(&mut subscriber, "$subscribe/t", &json!({})).await;
        for _ in 0..20 {
            server.publish("t", vec![0; 8000]).await.unwrap();
        }
        signal(&mut subscriber, "$message/1/t").await;
        let ending = server.clone();
        let ended = tokio::spawn(async move {
            match shuts_down {
                true => ending.shut_down().await,
                false => ending.connections()[0].close(),
            }
        });
        let mut taken = 0;
        while let Ok(bytes) = subscriber.try_recv().await {
            if matches!(Message::decode(&bytes), Ok(Message::Signal { .. })) {
                taken += 1;
                assert!(taken < 1000, "it does not end");
                // As much as is taken.
                server.publish("t", vec![0; 8000]).await.unwrap();
            }
        }
        // What waited was sent.
        assert!(taken >= 19, "{taken}");
        peer::within(ended).await.unwrap();
    }
}

/// Where a topic is, and how many messages of it are kept.
async fn kept(server: &Server, topic: &str) -> (Position, usize) {
    let all = HistoryQuery::new().recent(Recent::default());
    let history = server.topic_history(topic, &all).await.unwrap();
    (history.position, history.messages.len())
}

#[tokio::test]
async fn a_topic_is_not_forgotten_by_a_publication_to_it() {
    let options = TopicOptions::new()
        .history(100_000, Duration::from_secs(3600))
        .history_bytes(8 << 20);
    let broker = MemoryBroker::new().max_bytes(100_000);
    let server = server(Topics::open(options).broker(broker));
    server.publish("other", vec![0; 1000]).await.unwrap();
    let first = server.publish("t", vec![0; 1000]).await.unwrap();
    // Nobody has subscribed.
    for offset in 2..=200 {
        let position = server.publish("t", vec![0; 1000]).await.unwrap();
        assert_eq!((&position.epoch, position.offset), (&first.epoch, offset));
        let (at, count) = kept(&server, "t").await;
        assert_eq!(at, position);
        assert!(count >= usize::try_from(offset).unwrap().min(80), "{count} of {offset}");
    }
}

#[tokio::test]
async fn a_journal_is_cut_to_what_is_kept() {
    const TOPICS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let start = |max_bytes: usize| {
        let broker = MemoryBroker::with_journal(folder.path().join("journal"), 100 << 20).unwrap();
        let options = TopicOptions::new().history(10, Duration::from_secs(3600));
        server(Topics::open(options).broker(broker.max_bytes(max_bytes)))
    };
    let running = start(300_000);
    let mut last = Vec::new();
    for _ in 0..50 {
        last.clear();
        for topic in 0..TOPICS {
            last.push(running.publish(&format!("t{topic}"), "x".repeat(1000)).await.unwrap());
        }
    }
    drop(running);

    // All that was kept before, and not four times as much as may be.
    let running = start(300_000);
    last[0] = running.publish("t0", "more").await.unwrap();
    for (topic, position) in last.iter().enumerate() {
        assert_eq!(kept(&running, &format!("t{topic}")).await, (position.clone(), 10));
    }
    drop(running);

    // Less than that: what there is of the past is not all, but nothing begins anew.
    let running = start(120_000);
    last[0] = running.publish("t0", "more").await.unwrap();
    let mut count = 0;
    for (topic, position) in last.iter().enumerate() {
        let (at, messages) = kept(&running, &format!("t{topic}")).await;
        assert_eq!(at, *position);
        count += messages;
    }
    assert!((60..100).contains(&count), "{count} messages");
}

/// Reads a hundred signals, asks and goes on reading until there is a reply.
async fn ask_amid_signals(peer: &mut Peer, name: &str) {
    for _ in 0..100 {
        peer.recv().await;
    }
    peer.text(2, name, "").await;
    peer::within(async { while !matches!(Message::decode(&peer.recv().await), Ok(Message::Reply { .. })) {} }).await;
}

#[tokio::test]
async fn who_takes_less_than_is_signalled_is_heard() {
    let handlers = Handlers::new()
        .on_request("go", async |connection: Connection| {
            tokio::spawn(async move { while connection.signal_wait("s", vec![0; 1000]).await.is_ok() {} });
        })
        .on_request("stop", async || ());
    let server = Server::builder().build(handlers);
    let mut peer = connect(&server).await;
    peer.text(1, "go", "").await;
    ask_amid_signals(&mut peer, "stop").await;
}

#[tokio::test]
async fn a_join_that_is_given_up_is_a_leave() {
    let broker = Opened {
        hangs: true,
        ..Opened::default()
    };
    let server = Server::builder()
        .topics(Topics::open(TopicOptions::new()).broker(broker.clone()))
        .handler_timeout(Duration::from_millis(100))
        .build(Handlers::new());
    let mut peer = connect(&server).await;
    peer.text(1, "$presence/t", r#"{"join": 1}"#).await;
    peer.expect_error(1).await;
    assert!(broker.left.load(Ordering::Relaxed), "it may have arrived");
}

#[tokio::test]
async fn who_may_join_and_not_look_may_leave() {
    let topics = Topics::open(TopicOptions::new()).authorise(async |access| access.action != TopicAction::Presence);
    let server = server(topics);
    let mut peer = connect(&server).await;
    ask(&mut peer, "$subscribe/t", &json!({"join": 1})).await;
    assert_eq!(server.presence("t").await.unwrap().len(), 1);
    let reply = ask(&mut peer, "$presence/t", &json!({"join": null})).await;
    assert_eq!(reply, json!({"here": [], "count": 0}));
    assert_eq!(server.presence("t").await.unwrap(), []);
    peer.text(2, "$presence/t", "").await;
    assert_eq!(peer.expect_error(2).await.0, "TOPIC_FORBIDDEN");
}

/// Another server has a larger message buffer, or this one had it when it was started before.
#[tokio::test]
async fn messages_that_are_too_large_for_a_server_are_left_out() {
    let broker = MemoryBroker::new();
    let server = |buffer| {
        let topics = Topics::open(TopicOptions::new()).broker(broker.clone());
        Server::builder()
            .message_buffer_size(buffer)
            .topics(topics)
            .build(Handlers::new())
    };
    let (large, small) = (server(8192), server(1024));
    large.publish("t", vec![0; 4000]).await.unwrap();
    large.publish("t", "two").await.unwrap();
    let mut peer = connect(&small).await;
    let first = ask(&mut peer, "$subscribe/t", &json!({"history": {}})).await;
    assert_eq!((&first["from"], &first["recovered"]), (&json!(1), &json!(false)));
    assert_eq!(signal(&mut peer, "$message/2/t").await.1, Data::from("two"));
    large.publish("t", vec![0; 4000]).await.unwrap();
    signal(&mut peer, "$reset/t").await;
    let since = json!({"since": {"epoch": first["epoch"], "offset": 2}});
    let again = ask(&mut peer, "$subscribe/t", &since).await;
    assert_eq!((&again["from"], &again["recovered"]), (&json!(3), &json!(false)));
    // Between others, the gap tells it.
    for data in [vec![4], vec![0; 4000], vec![6]] {
        large.publish("t", data).await.unwrap();
    }
    signal(&mut peer, "$message/4/t").await;
    signal(&mut peer, "$message/6/t").await;
}

/// Heartbeats that came while a handler held the connection's thread up were sent in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_is_not_the_clients_silence() {
    let handlers = Handlers::new()
        .on_request("block", async || std::thread::sleep(Duration::from_millis(1500)))
        .on_request("echo", async || "here");
    let server = Server::builder()
        .read_timeout(Duration::from_secs(1))
        .concurrency(2)
        .build(handlers);
    let mut peer = connect(&server).await;
    for id in 0..3 {
        peer.text(id, "block", "").await;
        peer.send(&Message::Heartbeat).await;
        peer.expect_reply(id, Payload::EMPTY).await;
        peer.text(10, "echo", "").await;
        peer.expect_text(10, "here").await;
    }
}

#[tokio::test]
async fn subscribers_leave_in_any_order() {
    let server = server(Topics::open(TopicOptions::new()));
    let mut peers = Vec::new();
    for _ in 0..20 {
        let mut peer = connect(&server).await;
        ask(&mut peer, "$subscribe/t", &json!({})).await;
        peers.push(peer);
    }
    let mut offset = 0;
    for at in [0, 18, 7, 7, 0, 3] {
        let mut gone = peers.remove(at);
        gone.text(1, "$unsubscribe/t", "").await;
        gone.expect_reply(1, Payload::EMPTY).await;
        offset += 1;
        server.publish("t", "x").await.unwrap();
        for peer in &mut peers {
            signal(peer, &format!("$message/{offset}/t")).await;
        }
        assert!(gone.try_recv().now_or_never().is_none(), "it has unsubscribed");
    }
}

/// As synchronous code does it.
#[tokio::test]
async fn it_does_not_matter_where_one_publishes_from() {
    let server = server(Topics::open(TopicOptions::new()));
    let mut peer = connect(&server).await;
    ask(&mut peer, "$subscribe/t", &json!({})).await;
    let publisher = server.clone();
    let passing = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(publisher.publish("t", "1")).unwrap();
    });
    passing.join().unwrap();
    server.publish("t", "2").await.unwrap();
    signal(&mut peer, "$message/1/t").await;
    signal(&mut peer, "$message/2/t").await;
}

/// A client who takes replies bit by bit on streams of their own, and says that it is alive: all is flushed, and the link full.
struct Replies {
    asked: bool,
    replied: Option<tokio::sync::oneshot::Sender<CloseCode>>,
    taken: u64,
    tick: tokio::time::Interval,
    heard: bool,
}

/// How many ticks a reply takes.
const TICKS: u64 = 30;

impl Link for Replies {
    fn poll_recv(&mut self, cx: &mut Context<'_>, want: bool) -> Poll<Result<Incoming, Ended>> {
        let ticked = self.tick.poll_tick(cx).is_ready();
        if ticked {
            self.taken += 1000;
            self.heard = true;
            cx.waker().wake_by_ref();
        }
        if !want || (self.asked && !self.heard) {
            return Poll::Pending;
        }
        let (id, name) = (RequestId::from_u64(1), Name::new("echo").unwrap());
        let payload = Payload::EMPTY;
        let request = Message::Request { id, name, payload };
        let message = if self.asked { Message::Heartbeat } else { request };
        self.heard = false;
        self.asked = true;
        let bytes = message.to_vec().unwrap().into();
        let route = Route::CONTROL;
        Poll::Ready(Ok(Incoming::Message { route, bytes }))
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let is_full = self.asked && self.taken < TICKS * 1000;
        if is_full { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn send(&mut self, _: Route, message: Bytes) -> Result<(), Ended> {
        if matches!(Message::decode(&message), Ok(Message::Reply { .. }))
            && let Some(replied) = self.replied.take()
        {
            replied.send(CloseCode::Normal).unwrap();
        }
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>, code: CloseCode, _: &str) -> Poll<()> {
        if let Some(replied) = self.replied.take() {
            replied.send(code).unwrap();
        }
        Poll::Ready(())
    }

    fn set_message_limit(&mut self, _: usize) {}

    fn taken(&self) -> u64 {
        self.taken
    }

    fn kind(&self) -> TransportKind {
        TransportKind::WebTransportMulti
    }
}

#[tokio::test]
async fn who_takes_replies_slowly_is_alive() {
    let handlers = Handlers::new().on_request("echo", async || ());
    let server = Server::builder()
        .read_timeout(Duration::from_secs(1))
        .concurrency(9)
        .build(handlers);
    let (replied, ended) = tokio::sync::oneshot::channel();
    let link = Replies {
        asked: false,
        replied: Some(replied),
        taken: 0,
        tick: tokio::time::interval(Duration::from_millis(100)),
        heard: false,
    };
    tokio::spawn(async move { server.run(link).await });
    assert_eq!(
        peer::within(ended).await,
        Ok(CloseCode::Normal),
        "a reply before the end"
    );
}

#[tokio::test]
async fn who_takes_less_than_is_published_can_unsubscribe() {
    let server = server(Topics::open(TopicOptions::new()));
    let (ours, theirs) = tokio::io::duplex(1024);
    let accepting = server.clone();
    tokio::spawn(async move { accepting.accept_websocket(theirs, None).await });
    let link = websocket::connect(ours, "ws://x/", 1 << 20).await.unwrap();
    let mut peer = Peer {
        link: Box::new(link),
        accepted: Bytes::new(),
    };
    peer.text(1, "$subscribe/t", "").await;
    let publisher = tokio::spawn(async move {
        loop {
            for _ in 0..100 {
                server.publish("t", vec![0; 1000]).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    });
    ask_amid_signals(&mut peer, "$unsubscribe/t").await;
    publisher.abort();
}

#[tokio::test]
async fn who_is_present_stays_so_when_new_info_fails() {
    let broker = Opened::default();
    let server = opened(&broker);
    let mut peer = connect(&server).await;
    ask(&mut peer, "$presence/t", &json!({"join": 1})).await;
    for is_away in [true, false] {
        broker.is_away.store(is_away, Ordering::Relaxed);
        peer.text(1, "$presence/t", r#"{"join": 2}"#).await;
        if is_away {
            assert_eq!(peer.expect_error(1).await.0, "TOPIC_UNAVAILABLE");
        } else {
            reply(&mut peer).await;
        }
        let present = server.presence("t").await.unwrap();
        assert_eq!(present.len(), 1);
        assert_eq!(present[0].info.get(), if is_away { "1" } else { "2" });
    }
    // One that was not is not, and counts for nothing.
    broker.is_away.store(true, Ordering::Relaxed);
    peer.text(1, "$presence/other", r#"{"join": 1}"#).await;
    assert_eq!(peer.expect_error(1).await.0, "TOPIC_UNAVAILABLE");
    assert_eq!(server.presence("other").await.unwrap(), []);
    // And it still leaves.
    peer.close().await;
    peer::within(async {
        while !server.presence("t").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
