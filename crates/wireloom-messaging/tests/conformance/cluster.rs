//! Several servers on one NATS: what each publishes reaches all, whatever happens between.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::Operation;
use futures_util::StreamExt as _;
use serde_json::json;
use wireloom_messaging::codec::Payload;
use wireloom_messaging::server::Server;
use wireloom_messaging::session::{NatsStore, SessionInfo};
use wireloom_messaging::topics::{HistoryQuery, NatsBroker, Recent, TopicError, TopicOptions, Topics};

use crate::behaviours::echo;
use crate::behaviours::topics::Fan;
use crate::nats::{NatsServer, Proxy};
use crate::peer::within;
use crate::rig::{Memory, Rig};

/// A server of a cluster, with a network of its own to NATS.
struct Node {
    server: Server,
    proxy: Proxy,
    rig: Memory,
}

impl Node {
    async fn start(nats: &NatsServer) -> Self {
        let proxy = Proxy::to(nats).await;
        let options = TopicOptions::new()
            .history(100_000, Duration::from_secs(3600))
            .history_bytes(64 << 20);
        let topics = Topics::open(options).broker(proxy.broker().await);
        let server = Server::builder().topics(topics).concurrency(16).build(echo());
        let rig = Memory::start(&server).await;
        Self { server, proxy, rig }
    }

    async fn fan(&self) -> Fan {
        Fan::connect(&self.rig).await
    }

    async fn history(&self, topic: &str) -> Vec<String> {
        let query = HistoryQuery::new().recent(Recent::default());
        let history = self.server.topic_history(topic, &query).await.unwrap();
        let texts = history
            .messages
            .iter()
            .map(|message| message.data().text().unwrap().into_owned());
        texts.collect()
    }

    /// Publishes until it is accepted, as a client does that has made up a key.
    async fn publish_surely(&self, topic: &str, key: &str, text: &str) -> u64 {
        within(async {
            loop {
                match self.server.publish_once(topic, key, text).await {
                    Ok(position) => break position.offset,
                    Err(TopicError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }
}

/// The next kept messages, in order.
async fn take(fan: &mut Fan, count: u64) -> Vec<(u64, String)> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let (name, data) = fan.signal("$message/").await;
        let offset = name.split('/').nth(1).unwrap().parse().unwrap();
        taken.push((offset, data.text().unwrap().into_owned()));
    }
    taken
}

fn assert_in_order(taken: &[(u64, String)], first: u64) {
    for (expected, (offset, _)) in (first..).zip(taken) {
        assert_eq!(*offset, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_agree_on_the_order() {
    const EACH: u64 = 200;
    let nats = NatsServer::start();
    let nodes = [
        Node::start(&nats).await,
        Node::start(&nats).await,
        Node::start(&nats).await,
    ];
    let mut fans = Vec::new();
    for node in &nodes {
        let mut fan = node.fan().await;
        fan.subscribe("t", json!({})).await;
        fans.push(fan);
    }
    // All at once, a burst each.
    let publishers = nodes.iter().enumerate().map(|(n, node)| {
        let server = node.server.clone();
        tokio::spawn(async move {
            let sent = (0..EACH).map(|number| {
                let server = server.clone();
                async move { server.publish("t", format!("{n}:{number}")).await.unwrap().offset }
            });
            futures_util::future::join_all(sent).await
        })
    });
    let mut acknowledged = BTreeMap::new();
    for (n, publisher) in publishers.enumerate() {
        for (number, offset) in within(publisher).await.unwrap().into_iter().enumerate() {
            assert_eq!(
                acknowledged.insert(offset, format!("{n}:{number}")),
                None,
                "an offset twice"
            );
        }
    }
    let expected: Vec<(u64, String)> = acknowledged.into_iter().collect();
    for fan in &mut fans {
        assert_eq!(take(fan, 3 * EACH).await, expected);
        fan.expect_no("$message/").await;
    }
    // In the order of one publisher.
    let of_one: Vec<&String> = expected
        .iter()
        .map(|(_, text)| text)
        .filter(|text| text.starts_with("1:"))
        .collect();
    assert!(
        of_one
            .iter()
            .enumerate()
            .all(|(number, text)| **text == format!("1:{number}"))
    );
    // A key that one node has seen is known to all; ephemeral messages and presence reach the others.
    let offset = nodes[0].publish_surely("t", "key", "once").await;
    for node in &nodes {
        assert_eq!(node.publish_surely("t", "key", "once").await, offset);
    }
    nodes[1].server.publish_ephemeral("t", "gone").await.unwrap();
    assert_eq!(fans[2].signal("$message//t").await.1.text().unwrap(), "gone");
    let reply = fans[0].subscribe("t", json!({"presence": true, "join": "me"})).await;
    within(async {
        while nodes[2].server.presence("t").await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(
        nodes[2].server.presence("t").await.unwrap()[0].id,
        reply["id"].as_str().unwrap()
    );
    fans[2].subscribe("t", json!({"presence": true})).await;
    fans[0].peer.close().await;
    let left = fans[2].json("$presence/t").await;
    assert_eq!(left, json!({"leave": [reply["id"]]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_acknowledges_nothing_and_catches_up() {
    let nats = NatsServer::start();
    let (a, b) = (Node::start(&nats).await, Node::start(&nats).await);
    let (mut on_a, mut on_b) = (a.fan().await, b.fan().await);
    on_a.subscribe("t", json!({})).await;
    on_b.subscribe("t", json!({})).await;
    a.server.publish("t", "1").await.unwrap();
    assert_in_order(&take(&mut on_a, 1).await, 1);
    a.proxy.cut();
    // What a client that was connected has seen before it notices, too.
    let refused = within(async {
        loop {
            match a.server.publish_once("t", "key", "2").await {
                Err(error) => break error,
                Ok(position) => assert_eq!(position.offset, 2, "it got through before the cut"),
            }
        }
    })
    .await;
    assert!(matches!(refused, TopicError::Unavailable(_)), "{refused}");
    let got_through = b.history("t").await.len() as u64 - 1;
    let ids: Vec<u64> = {
        let mut ids = Vec::new();
        for _ in 0..1000 {
            ids.push(on_a.send("$publish//t", Payload::utf8("never")).await);
        }
        ids
    };
    for id in ids {
        assert_eq!(
            on_a.reply(id).await,
            Err("TOPIC_UNAVAILABLE".to_owned()),
            "no false acknowledgement"
        );
    }
    // It still serves what it knows.
    let reply = on_a.subscribe("t", json!({"history": {}})).await;
    assert_eq!(reply["from"], json!(0));
    let again = take(&mut on_a, reply["offset"].as_u64().unwrap()).await;
    assert_in_order(&again, 1);
    for number in 0..50 {
        b.server.publish("t", format!("b{number}")).await.unwrap();
    }
    a.proxy.heal();
    let seen = again.len() as u64;
    let missed = take(&mut on_a, 51 + got_through - seen).await;
    assert_in_order(&missed, seen + 1);
    assert_eq!(missed.last().unwrap().1, "b49");
    // The repeated publication is there once.
    a.publish_surely("t", "key", "2").await;
    a.publish_surely("t", "last", "last").await;
    let history = b.history("t").await;
    assert_eq!(history.iter().filter(|text| *text == "2").count(), 1);
    assert!(!history.contains(&"never".to_owned()));
    let total = history.len() as u64;
    assert_in_order(&take(&mut on_b, total).await, 1);
}

/// Connections that stay and carry nothing: the publication may have been accepted, and is not published again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_in_doubt_is_there_once() {
    let nats = NatsServer::start();
    let (a, b) = (Node::start(&nats).await, Node::start(&nats).await);
    a.server.publish("t", "1").await.unwrap();
    a.proxy.stall();
    let refused = within(a.server.publish_once("t", "key", "2")).await;
    assert!(matches!(refused, Err(TopicError::Unavailable(_))), "{refused:?}");
    b.server.publish("t", "3").await.unwrap();
    a.proxy.heal();
    let offset = a.publish_surely("t", "key", "2").await;
    assert_eq!(b.publish_surely("t", "key", "2").await, offset);
    let history = b.history("t").await;
    assert_eq!(history.iter().filter(|text| *text == "2").count(), 1, "{history:?}");
    assert_eq!(history.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed_and_comes_back() {
    let mut nats = NatsServer::start();
    let (a, b) = (Node::start(&nats).await, Node::start(&nats).await);
    let (mut on_a, mut on_b) = (a.fan().await, b.fan().await);
    on_a.subscribe("t", json!({"presence": true, "join": "a"})).await;
    on_b.subscribe("t", json!({})).await;
    let mut acknowledged = BTreeMap::new();
    for number in 0..50 {
        let text = format!("before {number}");
        acknowledged.insert(a.server.publish("t", &*text).await.unwrap().offset, text);
    }
    nats.kill();
    let since = Instant::now();
    let refused = within(async {
        loop {
            if let Err(error) = b.server.publish("t", "meanwhile").await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(refused, TopicError::Unavailable(_)), "{refused}");
    assert!(since.elapsed() < Duration::from_secs(30));
    nats.start_again();
    a.proxy.now_to(&nats);
    b.proxy.now_to(&nats);
    for number in 0..50 {
        let text = format!("after {number}");
        acknowledged.insert(b.publish_surely("t", &format!("key{number}"), &text).await, text);
    }
    let history = a.history("t").await;
    for (offset, text) in &acknowledged {
        assert_eq!(
            &history[usize::try_from(*offset).unwrap() - 1],
            text,
            "what was acknowledged is kept"
        );
    }
    let total = history.len() as u64;
    assert_in_order(&take(&mut on_a, total).await, 1);
    assert_in_order(&take(&mut on_b, total).await, 1);
    within(async {
        while b.server.presence("t").await.unwrap_or_default().len() != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_lost_begins_an_epoch() {
    let mut nats = NatsServer::start();
    let a = Node::start(&nats).await;
    let mut fan = a.fan().await;
    let first = fan.subscribe("t", json!({})).await;
    for text in ["1", "2", "3"] {
        a.server.publish("t", text).await.unwrap();
    }
    take(&mut fan, 3).await;
    nats.kill();
    nats.start_empty();
    // The stream is made by whoever starts.
    let b = Node::start(&nats).await;
    a.proxy.now_to(&nats);
    fan.signal("$reset/t").await;
    let since = json!({"epoch": first["epoch"], "offset": 3});
    let again = fan.subscribe("t", json!({"since": since})).await;
    assert_eq!((&again["recovered"], &again["offset"]), (&json!(false), &json!(0)));
    assert_ne!(again["epoch"], first["epoch"]);
    b.server.publish("t", "new").await.unwrap();
    assert_eq!(take(&mut fan, 1).await, [(1, "new".to_owned())]);
}

/// Within the ten seconds after which a server that is silent is taken for dead, and some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_heals_when_a_node_dies() {
    let nats = NatsServer::start();
    let a = Node::start(&nats).await;
    let mut on_a = a.fan().await;
    let here = on_a.subscribe("t", json!({"presence": true, "join": "a"})).await;
    // Its tasks are gone at once, as with the process.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let address = nats.address;
    let dying = runtime.spawn(async move {
        let broker = NatsBroker::connect(address.to_string()).await.unwrap();
        let topics = Topics::open(TopicOptions::new()).broker(broker);
        let server = Server::builder().topics(topics).build(echo());
        let rig = Memory::start(&server).await;
        let mut fan = Fan::connect(&rig).await;
        let reply = fan.subscribe("t", json!({"join": "dying"})).await;
        (fan, server, reply["id"].clone())
    });
    let (fan, server, id) = within(dying).await.unwrap();
    let mut joined = on_a.json("$presence/t").await;
    while joined["join"][0]["id"] == here["id"] {
        joined = on_a.json("$presence/t").await;
    }
    assert_eq!(joined, json!({"join": [{"id": id, "info": "dying"}]}));
    runtime.shutdown_background();
    let since = Instant::now();
    let left = on_a.json("$presence/t").await;
    assert_eq!(left, json!({"leave": [id]}));
    assert!(since.elapsed() < Duration::from_secs(45));
    drop((fan, server));
    // A node that comes later sees nothing of it.
    let b = Node::start(&nats).await;
    within(async {
        while b.server.presence("t").await.unwrap().len() != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_heals_when_a_node_was_cut_off() {
    let nats = NatsServer::start();
    let (a, b) = (Node::start(&nats).await, Node::start(&nats).await);
    let (mut on_a, mut on_b) = (a.fan().await, b.fan().await);
    on_a.subscribe("t", json!({"join": "a"})).await;
    on_b.subscribe("t", json!({"join": "b"})).await;
    let count = async |node: &Node, expected: usize| {
        within(async {
            while node.server.presence("t").await.unwrap_or_default().len() != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    count(&a, 2).await;
    count(&b, 2).await;
    a.proxy.cut();
    // The others take it for dead; it cannot tell who is gone, and keeps what it knows.
    count(&b, 1).await;
    assert_eq!(a.server.presence("t").await.unwrap().len(), 2);
    a.proxy.heal();
    count(&b, 2).await;
    count(&a, 2).await;
}

/// NATS takes 1 MiB. What does not fit is refused, and nothing else: also not what is published together with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nats_does_not_take_is_refused_alone() {
    let nats = NatsServer::start();
    let broker = NatsBroker::connect(nats.address.to_string()).await.unwrap();
    let topics = Topics::open(TopicOptions::new()).broker(broker);
    let server = Server::builder()
        .message_buffer_size(4 << 20)
        .topics(topics)
        .build(echo());
    let sizes = (0..400).map(|number| match number {
        // Beside half a record.
        100 | 200 => 900 << 10,
        300 => 2 << 20,
        _ => 1 << 10,
    });
    let published = sizes.map(async |size| (size, server.publish("t", vec![0; size]).await));
    for (size, outcome) in within(futures_util::future::join_all(published)).await {
        match outcome {
            Ok(_) => assert!(size < 1 << 20),
            Err(error) => assert!(
                size > 1 << 20 && matches!(error, TopicError::Limit(_)),
                "{size}: {error}"
            ),
        }
    }
    let ephemeral = server.publish_ephemeral("t", vec![0; 2 << 20]).await;
    assert!(matches!(ephemeral, Err(TopicError::Limit(_))), "{ephemeral:?}");
}

/// Written one by one, they take longer than the ten seconds after which a server that is silent is taken for dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_members_come_back_over_a_slow_network() {
    const MEMBERS: usize = 600;
    let nats = NatsServer::start();
    let (a, b) = (Node::start(&nats).await, Node::start(&nats).await);
    let joined = (0..MEMBERS).map(async |_| {
        let mut fan = a.fan().await;
        fan.subscribe("t", json!({"join": "a"})).await;
        fan
    });
    let members = within(futures_util::future::join_all(joined)).await;
    within(async {
        while b.server.presence("t").await.unwrap().len() != MEMBERS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let client = async_nats::connect(nats.address.to_string()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let bucket = context.get_key_value("wireloom-members").await.unwrap();
    let mut changes = bucket.watch_all().await.unwrap();
    a.proxy.slow_down(Duration::from_millis(15));
    a.proxy.cut();
    within(async { while a.server.publish("t", "is it cut?").await.is_ok() {} }).await;
    a.proxy.heal();
    // The other server has deleted none of them when all were written again.
    let mut written = std::collections::BTreeSet::new();
    within(async {
        while written.len() < MEMBERS {
            let change = changes.next().await.unwrap().unwrap();
            assert_eq!(change.operation, Operation::Put, "{} of {MEMBERS}", written.len());
            written.insert(change.key);
        }
    })
    .await;
    assert_eq!(b.server.presence("t").await.unwrap().len(), MEMBERS);
    drop(members);
}

#[tokio::test]
async fn sessions_on_nats() {
    let nats = NatsServer::start();
    let connect = async || {
        let client = async_nats::connect(nats.address.to_string()).await.unwrap();
        NatsStore::open(client, "sessions", Duration::from_secs(3600), 1)
            .await
            .unwrap()
    };
    let handlers = || {
        echo().on_request("login", async |connection: wireloom_messaging::server::Connection| {
            connection
                .create_session(SessionInfo::new())
                .await
                .map(|session| session.key.as_str().to_owned())
        })
    };
    let a = Server::builder().sessions(connect().await, 0).build(handlers());
    let b = Server::builder().sessions(connect().await, 0).build(handlers());
    let mut on_a = Fan::connect(&Memory::start(&a).await).await;
    on_a.ask("login", Payload::EMPTY).await.unwrap();
    let key = a.connections()[0].session_key().unwrap();
    let mut on_b = Fan::connect(&Memory::start(&b).await).await;
    let restore = |id: u64, key: &str| {
        let id = wireloom_messaging::codec::RequestId::from_u64(id);
        let key = key.as_bytes();
        wireloom_messaging::codec::Message::RestoreSession { id, key }
            .to_vec()
            .unwrap()
    };
    on_b.peer.send_bytes(&restore(1000, key.as_str())).await;
    assert_eq!(on_b.reply(1000).await.unwrap()["k"], json!(key.as_str()));
    assert_eq!(b.sweep().await.unwrap(), 0);
    assert_eq!(b.connections()[0].session_key(), Some(key.clone()));
    a.close_session(&key).await.unwrap();
    b.close_session(&key).await.unwrap();
    let mut late = Fan::connect(&Memory::start(&b).await).await;
    late.peer.send_bytes(&restore(1001, key.as_str())).await;
    let reply = late.peer.recv().await;
    assert_eq!(reply[0], 3, "not found");
}
