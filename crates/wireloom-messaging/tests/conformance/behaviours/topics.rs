//! Topics, as `docs/topics.md` says.

use serde_json::{Value, json};
use wireloom_messaging::codec::{Encoding, Message, Payload};
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::Server;
use wireloom_messaging::session::SessionInfo;
use wireloom_messaging::topics::{HistoryQuery, Position, SlowSubscriber, TopicAction, TopicOptions, Topics};
use wireloom_messaging::{Data, server::Connection};

use super::echo;
use crate::peer::{Peer, within};
use crate::rig::Rig;

/// A client of topics. Replies and signals may overtake each other, so that it keeps what it is not asked for yet.
pub struct Fan {
    pub peer: Peer,
    last_id: u64,
    replies: Vec<(u64, Result<Value, String>)>,
    signals: Vec<(String, Data)>,
}

impl Fan {
    pub async fn connect(rig: &impl Rig) -> Self {
        Self {
            peer: Peer::connect(rig).await,
            last_id: 0,
            replies: Vec::new(),
            signals: Vec::new(),
        }
    }

    async fn hear(&mut self) {
        let bytes = self.peer.recv().await;
        match Message::decode(&bytes).unwrap() {
            Message::Reply { id, payload } => {
                let value = match payload.bytes {
                    [] => Value::Null,
                    bytes => serde_json::from_slice(bytes).unwrap_or(Value::Null),
                };
                self.replies.push((id.to_u64(), Ok(value)));
            }
            Message::ReplyError { id, code, .. } => {
                let code = String::from_utf8(code.to_vec()).unwrap();
                self.replies.push((id.to_u64(), Err(code)));
            }
            Message::Signal { name, payload } => {
                let name = name.as_str().unwrap().to_owned();
                self.signals.push((name, payload.into()));
            }
            Message::SessionCreated { .. } | Message::SessionClosed => {}
            other => panic!("{other:?}"),
        }
    }

    /// Sends a request and waits for its reply.
    pub async fn ask(&mut self, name: &str, payload: Payload<'_>) -> Result<Value, String> {
        let id = self.send(name, payload).await;
        self.reply(id).await
    }

    pub async fn send(&mut self, name: &str, payload: Payload<'_>) -> u64 {
        self.last_id += 1;
        self.peer.request(self.last_id, name, payload).await;
        self.last_id
    }

    pub async fn reply(&mut self, id: u64) -> Result<Value, String> {
        loop {
            if let Some(at) = self.replies.iter().position(|(of, _)| *of == id) {
                return self.replies.remove(at).1;
            }
            self.hear().await;
        }
    }

    pub async fn ask_json(&mut self, name: &str, payload: Value) -> Result<Value, String> {
        self.ask(name, Payload::utf8(&payload.to_string())).await
    }

    pub async fn subscribe(&mut self, topic: &str, how: Value) -> Value {
        self.ask_json(&format!("$subscribe/{topic}"), how).await.unwrap()
    }

    pub async fn publish(&mut self, topic: &str, text: &str) -> Value {
        let name = format!("$publish//{topic}");
        self.ask(&name, Payload::utf8(text)).await.unwrap()
    }

    pub async fn signal(&mut self, prefix: &str) -> (String, Data) {
        loop {
            if let Some(at) = self.signals.iter().position(|(name, _)| name.starts_with(prefix)) {
                return self.signals.remove(at);
            }
            self.hear().await;
        }
    }

    pub async fn json(&mut self, prefix: &str) -> Value {
        self.signal(prefix).await.1.parse_json().unwrap()
    }

    /// The next kept message, which has to be this one.
    #[track_caller]
    pub fn expect<'a>(&'a mut self, topic: &'a str, offset: u64, text: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let (name, data) = self.signal("$message/").await;
            let expected = format!("$message/{offset}/{topic}");
            assert_eq!((name, &*data.text().unwrap()), (expected, text), "at {caller}");
        }
    }

    /// What else has come when everything before this has: nothing of that beginning.
    pub async fn expect_no(&mut self, prefix: &str) {
        // On the stream of the signals, and behind them.
        self.peer.signal("$publish//nobody's", Payload::EMPTY).await;
        let _ = self.ask("echo", Payload::utf8("1")).await;
        let found = self.signals.iter().find(|(name, _)| name.starts_with(prefix));
        assert!(found.is_none(), "{found:?}");
    }
}

pub async fn server<R: Rig>() -> Server {
    server_with::<R>(TopicOptions::new()).await
}

pub async fn server_with<R: Rig>(options: TopicOptions) -> Server {
    let topics = R::topics(Topics::open(options)).await;
    Server::builder().topics(topics).build(echo())
}

pub async fn messages_reach_all_subscribers<R: Rig>() {
    let server = server::<R>().await;
    let rig = R::start(&server).await;
    let (mut a, mut b) = (Fan::connect(&rig).await, Fan::connect(&rig).await);
    let reply = a.subscribe("rooms/one", json!({})).await;
    assert_eq!(
        (&reply["offset"], &reply["from"], &reply["recovered"]),
        (&json!(0), &json!(0), &json!(false))
    );
    assert!(reply["epoch"].is_string() && reply.get("here").is_none());
    // Without a payload.
    b.ask("$subscribe/rooms/one", Payload::EMPTY).await.unwrap();
    let published = a.publish("rooms/one", "first").await;
    assert_eq!(published, json!({"epoch": reply["epoch"], "offset": 1}));
    b.publish("rooms/one", "second").await;
    b.publish("elsewhere", "not here").await;
    for fan in [&mut a, &mut b] {
        fan.expect("rooms/one", 1, "first").await;
        fan.expect("rooms/one", 2, "second").await;
        fan.expect_no("$message/").await;
    }
    let position = server.publish("rooms/one", vec![0, 255]).await.unwrap();
    assert_eq!(
        (position.epoch.as_str(), position.offset),
        (reply["epoch"].as_str().unwrap(), 3)
    );
    let (name, data) = a.signal("$message/").await;
    assert_eq!(
        (name.as_str(), data),
        ("$message/3/rooms/one", Data::binary(vec![0, 255]))
    );
    assert_eq!(b.signal("$message/").await.1.encoding, Encoding::Binary);
    // In the encoding of the publisher, and UTF-16 without a payload as well.
    a.ask("$publish//rooms/one", Data::utf16("a😀").payload())
        .await
        .unwrap();
    assert_eq!(b.signal("$message/4/").await.1, Data::utf16("a😀"));
    a.ask("$publish//rooms/one", Payload::utf16(b"")).await.unwrap();
    assert_eq!(b.signal("$message/5/").await.1.bytes.len(), 0);
    // Unsubscribed.
    assert_eq!(b.ask("$unsubscribe/rooms/one", Payload::EMPTY).await, Ok(Value::Null));
    a.publish("rooms/one", "sixth").await;
    b.expect_no("$message/").await;
    let again = b.ask("$unsubscribe/rooms/one", Payload::EMPTY).await;
    assert_eq!(again, Err("TOPIC_NOT_SUBSCRIBED".to_owned()));
}

pub async fn history_and_recovery<R: Rig>() {
    let server = server_with::<R>(TopicOptions::new().history(5, std::time::Duration::from_secs(3600))).await;
    let rig = R::start(&server).await;
    let mut fan = Fan::connect(&rig).await;
    let mut epoch = Value::Null;
    for number in 1..=7 {
        epoch = fan.publish("t", &format!("m{number}")).await["epoch"].clone();
    }
    let expect = async |fan: &mut Fan, how: Value, from: u64, recovered: bool| {
        let reply = fan.subscribe("t", how).await;
        let expected = json!({"epoch": epoch, "offset": 7, "from": from, "recovered": recovered});
        assert_eq!(reply, expected);
        for offset in from + 1..=7 {
            fan.expect("t", offset, &format!("m{offset}")).await;
        }
        fan.expect_no("$message/").await;
    };
    expect(&mut fan, json!({}), 7, false).await;
    expect(&mut fan, json!({"history": {"count": 2}}), 5, false).await;
    expect(&mut fan, json!({"history": {}}), 2, false).await;
    expect(
        &mut fan,
        json!({"history": {"count": 100, "ageMs": 3_600_000}}),
        2,
        false,
    )
    .await;
    expect(&mut fan, json!({"history": {"count": 0}}), 7, false).await;
    let since = |offset: u64| json!({"epoch": epoch, "offset": offset});
    expect(&mut fan, json!({"since": since(5)}), 5, true).await;
    expect(&mut fan, json!({"since": since(7), "history": {}}), 7, true).await;
    expect(&mut fan, json!({"since": since(2)}), 2, true).await;
    // The second is gone.
    expect(&mut fan, json!({"since": since(1)}), 7, false).await;
    expect(&mut fan, json!({"since": since(1), "history": {"count": 3}}), 4, false).await;
    // Another epoch, and an offset that was not yet.
    expect(&mut fan, json!({"since": {"epoch": "other", "offset": 7}}), 7, false).await;
    expect(&mut fan, json!({"since": since(8)}), 7, false).await;

    let query = HistoryQuery::new().since(Position::new(epoch.as_str().unwrap().to_owned().try_into().unwrap(), 6));
    let history = server.topic_history("t", &query).await.unwrap();
    assert!(history.recovered && history.from == 6 && history.messages.len() == 1);
    assert_eq!(history.messages[0].data().text().unwrap(), "m7");
}

pub async fn publications_are_not_repeated<R: Rig>() {
    let server = server::<R>().await;
    let rig = R::start(&server).await;
    let mut fan = Fan::connect(&rig).await;
    fan.subscribe("t", json!({})).await;
    let first = fan.ask("$publish/key-1_A/t", Payload::utf8("once")).await.unwrap();
    fan.publish("t", "between").await;
    let again = fan.ask("$publish/key-1_A/t", Payload::utf8("once")).await.unwrap();
    assert_eq!(first, again);
    let other_topic = fan.ask("$publish/key-1_A/other", Payload::utf8("once")).await.unwrap();
    assert_eq!(other_topic["offset"], json!(1));
    assert_eq!(server.publish_once("t", "key-1_A", "once").await.unwrap().offset, 1);
    assert_eq!(server.publish("t", "last").await.unwrap().offset, 3);
    fan.expect("t", 1, "once").await;
    fan.expect("t", 2, "between").await;
    fan.expect("t", 3, "last").await;
    fan.expect_no("$message/").await;
}

pub async fn ephemeral_messages<R: Rig>() {
    let server = server_with::<R>(TopicOptions::new().unreliable_ephemerals(false)).await;
    let rig = R::start(&server).await;
    let (mut a, mut b) = (Fan::connect(&rig).await, Fan::connect(&rig).await);
    a.subscribe("t", json!({})).await;
    b.subscribe("t", json!({})).await;
    a.peer.signal("$publish//t", Payload::utf8("typing")).await;
    let (name, data) = b.signal("$message//").await;
    assert_eq!((name.as_str(), &*data.text().unwrap()), ("$message//t", "typing"));
    server.publish_ephemeral("t", "from the server").await.unwrap();
    let (_, data) = b.signal("$message//").await;
    assert_eq!(data.text().unwrap(), "from the server");
    // Not kept.
    let reply = b.subscribe("t", json!({"history": {}})).await;
    assert_eq!(reply["offset"], json!(0));
}

pub async fn presence<R: Rig>() {
    let server = server::<R>().await;
    let rig = R::start(&server).await;
    let (mut a, mut b) = (Fan::connect(&rig).await, Fan::connect(&rig).await);
    let reply = a.subscribe("t", json!({"presence": true, "join": {"name": "a"}})).await;
    let id = reply["id"].clone();
    assert_eq!(reply["here"], json!([{"id": id, "info": {"name": "a"}}]));
    // Its own join may be told too, before anything else.
    let joined = async |fan: &mut Fan, name: &str| {
        loop {
            let (_, data) = fan.signal("$presence/t").await;
            let signal: Value = data.parse_json().unwrap();
            let found = signal["join"]
                .as_array()
                .and_then(|join| join.iter().find(|who| who["info"]["name"] == name));
            if let Some(who) = found {
                return who["id"].clone();
            }
        }
    };
    // Only present, not subscribed.
    let reply = b.ask_json("$presence/t", json!({"join": {"name": "b"}})).await.unwrap();
    let b_id = reply["id"].clone();
    assert_eq!(
        (reply["count"].clone(), reply["here"].as_array().unwrap().len()),
        (json!(2), 2)
    );
    assert_eq!(joined(&mut a, "b").await, b_id);
    assert_ne!(b_id, id);
    b.ask_json("$presence/t", json!({"join": {"name": "b2"}}))
        .await
        .unwrap();
    assert_eq!(joined(&mut a, "b2").await, b_id);
    assert_eq!(server.presence("t").await.unwrap().len(), 2);
    let left = async |fan: &mut Fan| -> Value {
        loop {
            let (_, data) = fan.signal("$presence/t").await;
            let signal: Value = data.parse_json().unwrap();
            if signal.get("leave").is_some() {
                return signal;
            }
        }
    };
    let reply = b.ask_json("$presence/t", json!({"join": null})).await.unwrap();
    assert_eq!((reply.get("id"), &reply["count"]), (None, &json!(1)));
    assert_eq!(left(&mut a).await, json!({"leave": [b_id]}));
    // Who goes away leaves.
    b.ask_json("$presence/t", json!({"join": "back"})).await.unwrap();
    b.peer.close().await;
    assert_eq!(left(&mut a).await, json!({"leave": [b_id]}));
    // And who unsubscribes.
    a.ask("$unsubscribe/t", Payload::EMPTY).await.unwrap();
    assert_eq!(server.presence("t").await.unwrap(), []);
}

/// All connections of a session are one, which leaves with the last of them.
pub async fn a_session_is_present_once<R: Rig>() {
    let handlers = echo().on_request("login", async |connection: Connection| {
        connection
            .create_session(SessionInfo::new())
            .await
            .map(|session| session.key.as_str().to_owned())
    });
    let topics = R::topics(Topics::open(TopicOptions::new())).await;
    let server = Server::builder().topics(topics).build(handlers);
    let rig = R::start(&server).await;
    let (mut a, mut b) = (Fan::connect(&rig).await, Fan::connect(&rig).await);
    a.ask("login", Payload::EMPTY).await.unwrap();
    let key = within(async {
        loop {
            if let Some(key) = server.connections().iter().find_map(Connection::session_key) {
                break key;
            }
            tokio::task::yield_now().await;
        }
    });
    let key = key.await;
    b.peer
        .send(&Message::RestoreSession {
            id: wireloom_messaging::codec::RequestId::from_u64(1000),
            key: key.as_str().as_bytes(),
        })
        .await;
    b.reply(1000).await.unwrap();
    let first = a.subscribe("t", json!({"join": 1})).await["id"].clone();
    let second = b.subscribe("t", json!({"join": 2, "presence": true})).await;
    assert_eq!((&second["id"], second["here"].as_array().unwrap().len()), (&first, 1));
    assert!(!key.as_str().contains(first.as_str().unwrap()));
    a.peer.close().await;
    within(async {
        while server.connection_count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.presence("t").await.unwrap().len(), 1);
    // All of its connections.
    assert_eq!(server.unsubscribe_session(&key, "t"), Ok(1));
    assert_eq!(server.subscribe_session(&key, "t").await, Ok(1));
    server.publish("t", "plain").await.unwrap();
    assert_eq!(b.signal("t").await.1.text().unwrap(), "plain");
}

/// To clients that know nothing of topics: signals named after them.
pub async fn ordinary_signals<R: Rig>() {
    let server = server::<R>().await;
    let rig = R::start(&server).await;
    let mut peer = Peer::connect(&rig).await;
    peer.ping().await;
    let connection = server.connections().pop().unwrap();
    let position = connection.subscribe("news").await.unwrap();
    assert_eq!(position.offset, 0);
    server.publish("news", "one").await.unwrap();
    server.publish("news", "two").await.unwrap();
    for text in ["one", "two"] {
        let name = wireloom_messaging::codec::Name::new("news").unwrap();
        let payload = Payload::utf8(text);
        peer.expect(Message::Signal { name, payload }).await;
    }
    connection.unsubscribe("news").unwrap();
    assert!(connection.unsubscribe("news").is_err());
    server.publish("news", "three").await.unwrap();
    peer.ping().await;
}

pub async fn what_is_refused<R: Rig>() {
    let topics = Topics::new()
        .topic("news", TopicOptions::new().presence(false))
        .find(|name| name.strip_prefix("rooms/").map(|_| TopicOptions::new()))
        .authorise(async |access| access.topic.as_str() != "rooms/secret" || access.action == TopicAction::Subscribe)
        .max_per_connection(2);
    let server = Server::builder().topics(R::topics(topics).await).build(echo());
    let rig = R::start(&server).await;
    let mut fan = Fan::connect(&rig).await;
    let long = "x".repeat(201);
    let big = "x".repeat(8192 - 20 - "rooms/a".len());
    let info = format!(r#"{{"join":"{}"}}"#, "x".repeat(1023));
    let (forbidden, invalid, limit) = ("TOPIC_FORBIDDEN", "TOPIC_INVALID", "TOPIC_LIMIT");
    for (name, payload, code) in [
        ("$subscribe/nowhere", "", forbidden),
        ("$subscribe/", "", invalid),
        (&*format!("$subscribe/{long}"), "", invalid),
        ("$subscribe/news", "[]", invalid),
        ("$subscribe/news", "{", invalid),
        ("$subscribe/news", r#"{"since":{"epoch":"","offset":1}}"#, invalid),
        ("$subscribe/news", r#"{"since":{"epoch":"e","offset":-1}}"#, invalid),
        ("$subscribe/news", r#"{"history":{"count":"x"}}"#, invalid),
        ("$subscribe/news", &"[".repeat(4000), invalid),
        ("$subscribe/news", r#"{"presence":true}"#, forbidden),
        ("$presence/news", "", forbidden),
        ("$publish/a.b/news", "x", invalid),
        (&*format!("$publish/{}/news", "k".repeat(65)), "x", invalid),
        ("$publish//rooms/secret", "x", forbidden),
        ("$publish//rooms/a", &big, limit),
        ("$presence/rooms/a", &info, limit),
        ("$unsubscribe/news", "", "TOPIC_NOT_SUBSCRIBED"),
        ("$publish/news", "x", "UNKNOWN_REQUEST"),
        ("$nothing/news", "x", "UNKNOWN_REQUEST"),
        ("$message/1/news", "x", "UNKNOWN_REQUEST"),
    ] {
        assert_eq!(
            fan.ask(name, Payload::utf8(payload)).await,
            Err(code.to_owned()),
            "{name}"
        );
    }
    // What only just fits reaches subscribers.
    fan.subscribe("rooms/a", json!({})).await;
    let fits = "x".repeat(8192 - 29 - "rooms/a".len());
    fan.publish("rooms/a", &fits).await;
    assert_eq!(fan.signal("$message/1/").await.1.bytes.len(), fits.len());
    // A third topic is one too many, and none of the failures above counts.
    fan.subscribe("rooms/secret", json!({})).await;
    let third = fan.ask("$subscribe/rooms/b", Payload::EMPTY).await;
    assert_eq!(third, Err(limit.to_owned()));
    assert_eq!(
        fan.ask_json("$presence/rooms/b", json!({"join": 1})).await,
        Err(limit.to_owned())
    );
    fan.ask("$unsubscribe/rooms/a", Payload::EMPTY).await.unwrap();
    fan.subscribe("rooms/b", json!({})).await;
    // Ephemeral messages are refused without a word.
    fan.peer.signal("$publish//rooms/secret", Payload::utf8("x")).await;
    fan.peer.signal("$publish/key/rooms/b", Payload::utf8("x")).await;
    fan.peer.signal("$nothing", Payload::utf8("x")).await;
    fan.expect_no("$message/").await;
}

/// A server without topics has names that begin with `$` like others.
pub async fn without_topics<R: Rig>() {
    let server = Server::builder().build(echo().on_request("$publish//t", async || "mine"));
    let rig = R::start(&server).await;
    let mut peer = Peer::connect(&rig).await;
    peer.text(1, "$publish//t", "x").await;
    peer.expect_text(1, "mine").await;
    peer.text(2, "$subscribe/t", "{}").await;
    assert_eq!(peer.expect_error(2).await.0, "UNKNOWN_REQUEST");
    assert!(server.publish("t", "x").await.is_err());
}

/// Much more than any transport buffers.
const FLOOD: u64 = 3000;

async fn flooded<R: Rig>(policy: SlowSubscriber) -> (Server, R, Fan) {
    let options = TopicOptions::new().slow_subscriber(policy);
    let options = options
        .history(100_000, std::time::Duration::from_secs(3600))
        .history_bytes(64 << 20);
    let topics = R::topics(Topics::open(options)).await;
    let server = Server::builder().topics(topics).pending_limit(100_000).build(echo());
    let rig = R::start(&server).await;
    let mut fan = Fan::connect(&rig).await;
    fan.subscribe("t", json!({})).await;
    for number in 1..=FLOOD {
        let mut payload = vec![0; 8000];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        server.publish("t", payload).await.unwrap();
    }
    (server, rig, fan)
}

/// The number of a message, which is its offset.
fn number(name: &str, data: &Data) -> u64 {
    let number = u64::from_le_bytes(data.bytes[..8].try_into().unwrap());
    assert_eq!(name, format!("$message/{number}/t"));
    number
}

async fn recover(fan: &mut Fan, epoch: &Value, last: u64) {
    let reply = fan
        .subscribe("t", json!({"since": {"epoch": epoch, "offset": last}}))
        .await;
    assert_eq!((&reply["recovered"], &reply["from"]), (&json!(true), &json!(last)));
    let mut expected = last;
    while expected < FLOOD {
        let (name, data) = fan.signal("$message/").await;
        // What was sent for the subscription before may come first.
        if number(&name, &data) == expected + 1 {
            expected += 1;
        }
    }
}

async fn epoch_of(server: &Server) -> Value {
    let history = server.topic_history("t", &HistoryQuery::new()).await.unwrap();
    json!(history.position.epoch.as_str())
}

pub async fn the_oldest_are_dropped_for_a_slow_subscriber<R: Rig>() {
    let (server, _rig, mut fan) = flooded::<R>(SlowSubscriber::DropOldest).await;
    let (mut last, mut first_gap) = (0, None);
    while last < FLOOD {
        let (name, data) = fan.signal("$message/").await;
        let number = number(&name, &data);
        assert!(number > last, "in order");
        if number != last + 1 {
            first_gap.get_or_insert(last);
        }
        last = number;
    }
    let gap = first_gap.expect("more than can wait");
    recover(&mut fan, &epoch_of(&server).await, gap).await;
}

pub async fn the_newest_are_dropped_for_a_slow_subscriber<R: Rig>() {
    let (server, _rig, mut fan) = flooded::<R>(SlowSubscriber::DropNewest).await;
    let mut last = 0;
    loop {
        let (name, data) = fan.signal("$").await;
        if name == "$reset/t" {
            break;
        }
        last += 1;
        assert_eq!(number(&name, &data), last);
    }
    assert!(last < FLOOD, "more than can wait");
    recover(&mut fan, &epoch_of(&server).await, last).await;
}

pub async fn a_slow_subscriber_is_disconnected<R: Rig>() {
    let (server, rig, mut fan) = flooded::<R>(SlowSubscriber::Disconnect).await;
    let mut last = 0;
    let code = loop {
        match fan.peer.try_recv().await {
            Ok(bytes) => {
                if let Ok(Message::Signal { name, payload }) = Message::decode(&bytes) {
                    last += 1;
                    assert_eq!(number(name.as_str().unwrap(), &payload.into()), last);
                }
            }
            Err(ended) => break ended.code,
        }
    };
    // A peer that reads on may hear why.
    assert!(matches!(code, CloseCode::SlowConsumer | CloseCode::Lost), "{code}");
    let mut again = Fan::connect(&rig).await;
    recover(&mut again, &epoch_of(&server).await, last).await;
}
