//! The client's subscriptions: whatever happens to its connections, each message comes once, in order.
#![allow(clippy::unwrap_used)]

use std::future::{Future, IntoFuture as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use wireloom_messaging::Data;
use wireloom_messaging::client::{Backoff, Client, ConnectError, RequestError, TopicEvent};
use wireloom_messaging::codec::{AcceptConf, Message, Name, Payload};
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::{Handlers, Server};
use wireloom_messaging::topics::{SlowSubscriber, TopicOptions, Topics};
use wireloom_messaging::transport::memory::{self, MemoryLink};
use wireloom_messaging::transport::{self, Incoming};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("hung")
}

fn server(options: TopicOptions, pending: usize) -> Server {
    let topics = Topics::open(options);
    Server::builder()
        .topics(topics)
        .pending_limit(pending)
        .concurrency(8)
        .build(Handlers::new())
}

fn client(server: &Server) -> Client {
    let server = server.clone();
    let dial = move || {
        let link = server.connect_memory();
        async move { Ok::<_, ConnectError>(link) }
    };
    let quickly = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    Client::over(dial).backoff(quickly).build()
}

/// A client that connects once, over `link`.
fn client_over(link: MemoryLink) -> Client {
    let once = std::sync::Mutex::new(Some(link));
    let dial = move || {
        let link = once.lock().unwrap().take().ok_or(ConnectError::Closed);
        async move { link }
    };
    Client::over(dial).build()
}

fn cut(server: &Server) {
    for connection in server.connections() {
        connection.abort(CloseCode::Internal, "cut");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u16),
    Ephemeral,
    /// All connections end.
    Cut,
    /// The application takes so many events.
    Take(u16),
    /// Others get a turn.
    Yield,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u16..60).prop_map(Step::Publish),
        1 => Just(Step::Ephemeral),
        2 => Just(Step::Cut),
        2 => (1u16..40).prop_map(Step::Take),
        3 => Just(Step::Yield),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_message_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..60),
        policy in prop_oneof![
            Just(SlowSubscriber::DropOldest),
            Just(SlowSubscriber::DropNewest),
            Just(SlowSubscriber::Disconnect)
        ],
        pending in prop_oneof![Just(300usize), Just(5_000), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(within(run(steps, policy, pending)));
    }
}

async fn run(steps: Vec<Step>, policy: SlowSubscriber, pending: usize) {
    let options = TopicOptions::new()
        .history(100_000, Duration::from_secs(3600))
        .slow_subscriber(policy);
    let server = server(options.history_bytes(64 << 20), pending);
    let client = client(&server);
    let mut subscription = client.topic("t").unwrap().subscribe().await.unwrap();
    let (mut published, mut seen) = (0, 0);
    let mut see = |event: TopicEvent| match event {
        TopicEvent::Message { offset, data } => {
            seen += 1;
            assert_eq!((offset, &*data.text().unwrap()), (seen, &*format!("message {seen}")));
            seen
        }
        TopicEvent::Ephemeral(_) => seen,
        other => panic!("{other:?}"),
    };
    let mut last = 0;
    for step in steps {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    published += 1;
                    server.publish("t", format!("message {published}")).await.unwrap();
                }
            }
            Step::Ephemeral => server.publish_ephemeral("t", "gone").await.unwrap(),
            Step::Cut => cut(&server),
            Step::Take(count) => {
                for _ in 0..count {
                    if last < published {
                        last = see(subscription.next().await.expect("not over"));
                    }
                }
            }
            Step::Yield => tokio::task::yield_now().await,
        }
    }
    while last < published {
        last = see(subscription.next().await.expect("not over"));
    }
    assert_eq!(subscription.position().offset, published);
}

/// What is published while the connection is lost is sent with the next one, and is there once.
#[tokio::test]
async fn publications_survive_lost_connections() {
    let server = server(TopicOptions::new(), 1 << 20);
    let (a, b) = (client(&server), client(&server));
    let mut subscription = a.topic("t").unwrap().subscribe().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let cutting = {
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                cut(&server);
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        })
    };
    let topic = b.topic("t").unwrap();
    for number in 1..=100 {
        let position = within(topic.publish(format!("m{number}")).into_future()).await.unwrap();
        assert_eq!(position.offset, number);
    }
    stop.store(true, Ordering::Relaxed);
    within(cutting).await.unwrap();
    for number in 1..=100 {
        let data = within(subscription.next_message()).await.unwrap();
        assert_eq!(data.text().unwrap(), format!("m{number}"));
    }
}

#[tokio::test]
async fn history_presence_and_what_is_gone() {
    let server = server(TopicOptions::new().history(5, Duration::from_secs(3600)), 1 << 20);
    for number in 1..=9 {
        server.publish("t", format!("m{number}")).await.unwrap();
    }
    let (a, b) = (client(&server), client(&server));
    let (topic, other) = (a.topic("t").unwrap(), b.topic("t").unwrap());
    let mut subscription = topic
        .subscribe()
        .history(2)
        .presence()
        .join("a")
        .unwrap()
        .await
        .unwrap();
    let id = subscription.id().unwrap().to_owned();
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(within(subscription.next()).await.unwrap());
    }
    assert!(matches!(&events[0], TopicEvent::Here(here) if here.len() == 1 && here[0].id == id));
    for (event, number) in events[1..].iter().zip(8..) {
        assert!(
            matches!(event, TopicEvent::Message { offset, .. } if *offset == number),
            "{event:?}"
        );
    }
    let b_id = other.join("b").await.unwrap();
    let joined = loop {
        match within(subscription.next()).await.unwrap() {
            TopicEvent::Joined(who) if who[0].id == b_id => break who[0].parse_info::<String>().unwrap(),
            TopicEvent::Joined(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(joined, "b");
    assert_eq!(topic.presence().await.unwrap().len(), 2);
    other.leave().await.unwrap();
    assert_eq!(within(subscription.next()).await, Some(TopicEvent::Left(vec![b_id])));
    other.publish_ephemeral("typing").await.unwrap();
    assert_eq!(
        within(subscription.next()).await,
        Some(TopicEvent::Ephemeral("typing".into()))
    );

    // An earlier position, of which some is gone.
    let old = wireloom_messaging::topics::Position::new(subscription.position().epoch, 1);
    let mut again = other.subscribe().since(old).history(1).await.unwrap();
    assert_eq!(within(again.next()).await, Some(TopicEvent::Missed));
    assert!(matches!(
        within(again.next()).await,
        Some(TopicEvent::Message { offset: 9, .. })
    ));

    // A second subscription takes the first one's place.
    let position = subscription.position();
    let mut second = topic.subscribe().since(position).await.unwrap();
    server.publish("t", "m10").await.unwrap();
    assert!(matches!(
        within(second.next()).await,
        Some(TopicEvent::Message { offset: 10, .. })
    ));
    while let Some(event) = within(subscription.next()).await {
        assert!(!matches!(event, TopicEvent::Message { offset: 10.., .. }), "{event:?}");
    }
    // Dropped, it is no longer subscribed, though still present where it joined.
    drop(second);
    within(async {
        while server.presence("t").await.unwrap().iter().any(|who| who.id == id) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn refusals() {
    let topics = Topics::new().topic("open", TopicOptions::new());
    let server = Server::builder().topics(topics).build(Handlers::new());
    let client = client(&server);
    assert!(client.topic("").is_err());
    let refused = client.topic("closed").unwrap().subscribe().await.unwrap_err();
    assert!(matches!(refused, RequestError::Application { code, .. } if code == "TOPIC_FORBIDDEN"));
    let topic = client.topic("open").unwrap();
    let refused = topic.publish("x").key("a/b").await.unwrap_err();
    assert!(matches!(refused, RequestError::Invalid(_)), "{refused}");
    let refused = topic.publish(vec![0; 9000]).await.unwrap_err();
    assert!(matches!(refused, RequestError::Invalid(_)), "{refused}");
    let mut subscription = topic.subscribe().await.unwrap();
    client.close().await;
    assert_eq!(within(subscription.next()).await, None);
    assert!(matches!(subscription.error(), Some(RequestError::Closed(_))));
}

/// A server that says with each subscription that something was missed, and never what.
#[tokio::test]
async fn what_cannot_be_made_good_is_not_asked_for_without_a_pause() {
    let (ours, mut theirs) = memory::pair();
    let renewals = Arc::new(AtomicUsize::new(0));
    let counted = renewals.clone();
    tokio::spawn(async move {
        let conf = Message::AcceptConf(AcceptConf::new(60_000, 8192));
        say(&mut theirs, &conf).await;
        loop {
            let Ok(incoming) = transport::recv(&mut theirs).await else {
                return;
            };
            let Incoming::Message { bytes, .. } = incoming else {
                continue;
            };
            let Ok(Message::Request { id, name, .. }) = Message::decode(&bytes) else {
                continue;
            };
            let is_subscription = name.as_str() == Some("$subscribe/t");
            let payload = match is_subscription {
                true => r#"{"epoch": "e", "offset": 0, "from": 0, "recovered": true}"#,
                false => "",
            };
            let payload = Payload::utf8(payload);
            say(&mut theirs, &Message::Reply { id, payload }).await;
            if is_subscription {
                counted.fetch_add(1, Ordering::Relaxed);
                let name = Name::new("$reset/t").unwrap();
                let payload = Payload::EMPTY;
                say(&mut theirs, &Message::Signal { name, payload }).await;
            }
        }
    });
    let client = client_over(ours);
    let _subscription = within(client.topic("t").unwrap().subscribe().into_future())
        .await
        .unwrap();
    // Each as long as a renewal.
    for _ in 0..1000 {
        within(client.request("anything", "").into_future()).await.unwrap();
    }
    let renewals = renewals.load(Ordering::Relaxed);
    assert!((2..100).contains(&renewals), "{renewals}");
}

/// Two resets, and while the second is waited out more messages than the application takes.
#[tokio::test]
async fn nothing_is_lost_when_a_pause_ends_while_the_application_is_behind() {
    const MANY: u64 = 300;
    let (ours, mut theirs) = memory::pair();
    tokio::spawn(async move {
        let conf = Message::AcceptConf(AcceptConf::new(60_000, 8192));
        say(&mut theirs, &conf).await;
        let mut subscriptions = 0;
        while let Ok(incoming) = transport::recv(&mut theirs).await {
            let Incoming::Message { bytes, .. } = incoming else {
                continue;
            };
            let Ok(Message::Request { id, payload, .. }) = Message::decode(&bytes) else {
                continue;
            };
            subscriptions += 1;
            let asked: serde_json::Value = Data::from(payload).parse_json().unwrap();
            let since = asked["since"]["offset"].as_u64().unwrap_or(0);
            let newest = if subscriptions >= 2 { MANY } else { 0 };
            let reply = format!(r#"{{"epoch": "e", "offset": {newest}, "from": {since}, "recovered": true}}"#);
            let payload = Payload::utf8(&reply);
            say(&mut theirs, &Message::Reply { id, payload }).await;
            let mut signals = Vec::new();
            if subscriptions <= 2 {
                signals.push("$reset/t".to_owned());
            }
            // What the client has heard before a reset it may ask for again.
            if subscriptions >= 2 {
                signals.extend((since + 1..=MANY).map(|offset| format!("$message/{offset}/t")));
            }
            for name in &signals {
                let (name, payload) = (Name::new(name).unwrap(), Payload::EMPTY);
                say(&mut theirs, &Message::Signal { name, payload }).await;
            }
        }
    });
    let client = client_over(ours);
    let topic = client.topic("t").unwrap();
    let mut subscription = within(topic.subscribe().into_future()).await.unwrap();
    // Longer than the pause.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for expected in 1..=MANY {
        match within(subscription.next()).await {
            Some(TopicEvent::Message { offset, .. }) => assert_eq!(offset, expected),
            other => panic!("{other:?} instead of {expected}"),
        }
    }
}

async fn say(link: &mut MemoryLink, message: &Message<'_>) {
    let _ = transport::send(link, message.to_vec().unwrap().into()).await;
}
