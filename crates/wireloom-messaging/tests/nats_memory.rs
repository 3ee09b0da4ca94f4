//! Memory while NATS is away. In a process of its own, where nothing else allocates.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

#[path = "conformance/nats.rs"]
mod nats;
#[path = "conformance/peer.rs"]
mod peer;
#[path = "conformance/rig.rs"]
mod rig;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use wireloom_messaging::server::{Handlers, Server};
use wireloom_messaging::topics::{HistoryQuery, Position, Recent, TopicError, TopicOptions, Topics};

use nats::{NatsServer, Proxy};
use peer::within;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

const SIZE: usize = 16 << 10;
/// 128 MiB of those.
const MANY: usize = 8192;
/// What waits in a topic's queue, and as much that was taken from it together; and with those who wait themselves.
const MAY_WAIT: usize = 2 * 1024 + 2 * PATIENT;
const PATIENT: usize = 64;
/// For everything else.
const SLACK: usize = 8 << 20;

/// The most that was allocated, beyond what there was at first.
struct Peak {
    base: usize,
    most: usize,
}

impl Peak {
    fn new() -> Self {
        let base = ALLOCATOR.allocated();
        Self { base, most: 0 }
    }

    fn look(&mut self) -> usize {
        let now = ALLOCATOR.allocated().saturating_sub(self.base);
        self.most = self.most.max(now);
        now
    }
}

fn payload(text: &str) -> String {
    format!("{text:<SIZE$}")
}

type Outcome = Result<Position, TopicError>;

/// The only error that there may be.
fn assert_may_repeat(error: &TopicError) {
    assert!(matches!(error, TopicError::Unavailable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_while_nats_is_away() {
    let mut nats = NatsServer::start();
    let proxy = Proxy::to(&nats).await;
    let options = TopicOptions::new()
        .history(100_000, Duration::from_secs(3600))
        .history_bytes(64 << 20);
    let topics = Topics::open(options).broker(proxy.broker().await);
    let server = Server::builder()
        .message_buffer_size(32 << 10)
        .topics(topics)
        .build(Handlers::new());
    let mut acknowledged = BTreeMap::new();
    for number in 0..50 {
        let text = format!("before {number}");
        acknowledged.insert(server.publish("t", &*text).await.unwrap().offset, text);
    }

    // The connection stays and carries nothing. Some wait; most give up at once, which leaves what they said in the queue. Then again,
    // when the topic's task has taken from the queue all that there was.
    proxy.stall();
    let mut peak = Peak::new();
    let mut given_up = [0, 0];
    let mut patient = Vec::new();
    let mut ended = |outcome: Outcome, text: String| match outcome {
        // It got through before the stall.
        Ok(position) => assert_eq!(acknowledged.insert(position.offset, text), None),
        Err(error) => assert_may_repeat(&error),
    };
    for (burst, given_up) in given_up.iter_mut().enumerate() {
        patient.extend((0..PATIENT).map(|number| {
            let (server, text) = (server.clone(), payload(&format!("patient {burst} {number}")));
            let key = format!("patient{burst}-{number}");
            tokio::spawn(async move { (server.publish_once("t", &key, &*text).await, text) })
        }));
        for number in 0..MANY {
            let text = payload(&format!("hasty {burst} {number}"));
            let key = format!("hasty{burst}-{number}");
            match server.publish_once("t", &key, &*text).now_or_never() {
                Some(outcome) => ended(outcome, text),
                None => *given_up += 1,
            }
            // So that the topic's task takes from the queue what it wants to.
            tokio::task::yield_now().await;
            peak.look();
        }
        let (first, _, others) = within(futures_util::future::select_all(patient)).await;
        let (outcome, text) = first.unwrap();
        ended(outcome, text);
        patient = others;
    }
    for outcome in patient {
        let (outcome, text) = within(outcome).await.unwrap();
        ended(outcome, text);
    }
    // When the second burst comes the stall may have been noticed.
    assert!(given_up[0] > 0, "the stall was noticed at once");
    let (most, limit) = (peak.most, MAY_WAIT * SIZE + SLACK);
    assert!(most < limit, "{most} bytes of {}, limit {limit}", 2 * MANY * SIZE);

    // It is gone. What is published meanwhile is refused at once, and kept nowhere.
    nats.kill();
    proxy.heal();
    within(async {
        while server.publish("t", "gone").await.is_ok() {}
        // What was under way has ended.
        while peak.look() > SLACK {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut peak = Peak::new();
    let publishers: Vec<_> = (0..16)
        .map(|publisher| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut most = 0;
                for number in 0..MANY / 16 {
                    let key = format!("refused{publisher}-{number}");
                    let kept = server.publish_once("t", &key, payload("refused")).await;
                    assert_may_repeat(&kept.unwrap_err());
                    let ephemeral = server.publish_ephemeral("t", payload("refused")).await;
                    assert_may_repeat(&ephemeral.unwrap_err());
                    most = most.max(ALLOCATOR.allocated());
                }
                most
            })
        })
        .collect();
    for publisher in publishers {
        peak.most = peak
            .most
            .max(within(publisher).await.unwrap().saturating_sub(peak.base));
    }
    assert!(peak.most < SLACK, "{} bytes", peak.most);

    // It is back, with all that it has acknowledged.
    nats.start_again();
    proxy.now_to(&nats);
    for number in 0..50 {
        let (key, text) = (format!("after{number}"), format!("after {number}"));
        let offset = within(async {
            loop {
                match server.publish_once("t", &key, &*text).await {
                    Ok(position) => break position.offset,
                    Err(error) => assert_may_repeat(&error),
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(acknowledged.insert(offset, text), None);
    }
    let query = HistoryQuery::new().recent(Recent::default());
    let history = server.topic_history("t", &query).await.unwrap();
    let kept: BTreeMap<u64, String> = (history.from + 1..)
        .zip(&history.messages)
        .map(|(offset, message)| (offset, message.data().text().unwrap().into_owned()))
        .collect();
    for (offset, text) in &acknowledged {
        assert_eq!(kept.get(offset), Some(text), "what was acknowledged is kept");
    }
    assert!(!kept.values().any(|text| text.starts_with("refused")));
}
