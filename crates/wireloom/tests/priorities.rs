//! Priorities of requests and sessions between our own ends, over real QUIC on loopback (RFC 9218): in which order responses
//! arrive where the client's window is the narrowest place.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::{any, get};
use bytes::Bytes;
use common::{Running, run, within};
use futures_util::future::join_all;
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use wireloom::proto::connection::SessionRequest;
use wireloom::proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom::{Body, Client, Connection, Priority, RequestPriority, WebTransportUpgrade};

const BODY: usize = 3 << 20;

async fn running() -> (Running, Connection) {
    let large = || async { Bytes::from(vec![7; BODY]) };
    let urgent = || async { ([("priority", "u=0")], Bytes::from(vec![7; BODY])) };
    let flood = |upgrade: WebTransportUpgrade, fields: HeaderMap| async move {
        assert!(!fields.contains_key("x-never"));
        upgrade.on_upgrade(|session| async move {
            let mut send = session.open_uni().await.unwrap();
            let chunk = Bytes::from(vec![1; 64 << 10]);
            while send.write_chunk(chunk.clone()).await.is_ok() {}
        })
    };
    let app = Router::new()
        .route("/large", get(large))
        .route("/urgent", get(urgent))
        .route("/flood", any(flood));
    let mut running = run(app, |builder| builder).await;
    // In draft 02 sessions have no limits of their own, which would leave responses room whatever is more urgent.
    let client = Client::builder().server_certificate_hash(running.hash);
    let client = client.dialects(Dialects::NONE.with(Dialect::Draft02));
    running.client = client.receive_windows(4 << 20, 256 << 10).build().unwrap();
    let connection = running.dial().await;
    (running, connection)
}

/// Its value would be an empty dictionary, which is not sent at all (RFC 9651 section 4.1).
#[tokio::test]
async fn the_default_priority_has_no_field() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let fields = seen.clone();
    let app = Router::new().fallback(async move |fields_of_request: HeaderMap| {
        let field = fields_of_request.get("priority").cloned();
        fields.lock().unwrap().push(field);
        StatusCode::FORBIDDEN
    });
    let running = run(app, |builder| builder).await;
    for priorities in [
        &[Priority::default()][..],
        &[Priority::new(1)],
        &[Priority::new(1), Priority::default()],
    ] {
        let url = format!("{}/", running.url);
        let builder = priorities
            .iter()
            .fold(running.client.session(&url), |builder, &priority| {
                builder.priority(priority)
            });
        within(builder.connect()).await.unwrap_err();
    }
    let urgent = HeaderValue::from_static("u=1");
    assert_eq!(*seen.lock().unwrap(), [None, Some(urgent), None]);
}

fn request(running: &Running, path: &str, priority: Option<Priority>) -> http::Request<Bytes> {
    let mut request = running.request("GET", path, b"");
    if let Some(priority) = priority {
        request.headers_mut().insert("priority", priority.to_value());
    }
    request
}

/// How much of each response has been read, and which ended as the how-manieth.
#[derive(Default)]
struct Progress {
    read: [AtomicUsize; 4],
    ended: AtomicUsize,
    place: [AtomicUsize; 4],
    changed: Notify,
}

impl Progress {
    async fn read(&self, index: usize, response: http::Response<Body>) {
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            self.read[index].fetch_add(frame.unwrap().into_data().unwrap().len(), Ordering::Relaxed);
            self.changed.notify_waiters();
        }
        let place = self.ended.fetch_add(1, Ordering::Relaxed) + 1;
        self.place[index].store(place, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    fn of(&self, index: usize) -> usize {
        self.read[index].load(Ordering::Relaxed)
    }

    fn places(&self) -> Vec<usize> {
        let places = self.place.iter().map(|place| place.load(Ordering::Relaxed));
        places.collect()
    }

    async fn until(&self, enough: impl Fn(&Self) -> bool) {
        within(async {
            loop {
                let changed = self.changed.notified();
                if enough(self) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }
}

/// Makes all requests in their order, and reads what comes of each as it comes.
async fn fetch(connection: &Connection, progress: &Progress, requests: Vec<http::Request<Bytes>>) {
    let each = requests.into_iter().enumerate().map(|(index, request)| async move {
        progress.read(index, connection.request(request).await.unwrap()).await;
    });
    within(join_all(each)).await;
}

fn start(connection: &Connection, requests: Vec<http::Request<Bytes>>) -> Arc<Progress> {
    let progress = Arc::new(Progress::default());
    let (connection, reading) = (connection.clone(), progress.clone());
    tokio::spawn(async move { fetch(&connection, &reading, requests).await });
    progress
}

async fn order(connection: &Connection, requests: Vec<http::Request<Bytes>>) -> Vec<usize> {
    let progress = Progress::default();
    fetch(connection, &progress, requests).await;
    progress.places()
}

#[tokio::test]
async fn more_urgent_responses_arrive_first() {
    let (running, connection) = running().await;
    let requests = [5, 3, 0, 4].map(|urgency| request(&running, "/large", Some(Priority::new(urgency))));
    assert_eq!(order(&connection, requests.into()).await, [4, 2, 1, 3]);
}

#[tokio::test]
async fn equal_responses_arrive_in_the_order_of_their_requests() {
    let (running, connection) = running().await;
    let requests = [None, None, None, None].map(|priority| request(&running, "/large", priority));
    assert_eq!(order(&connection, requests.into()).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn the_servers_own_word_counts_for_more() {
    let (running, connection) = running().await;
    let requests = vec![
        request(&running, "/large", None),
        request(&running, "/large", Some(Priority::new(2))),
        request(&running, "/urgent", Some(Priority::new(7))),
        request(&running, "/large", Some(Priority::new(6))),
    ];
    assert_eq!(order(&connection, requests).await, [3, 2, 1, 4]);
}

#[tokio::test]
async fn incremental_responses_share() {
    let (running, connection) = running().await;
    let incremental = Some(Priority::default().incremental(true));
    let requests = [incremental; 4].map(|priority| request(&running, "/large", priority));
    let progress = start(&connection, requests.into());
    progress
        .until(|progress| progress.ended.load(Ordering::Relaxed) > 0)
        .await;
    let read: Vec<usize> = (0..4).map(|index| progress.of(index)).collect();
    assert!(read.iter().all(|&n| n > BODY / 2), "{read:?}");
}

#[tokio::test]
async fn a_change_of_priority_reorders_responses_that_are_under_way() {
    let (running, connection) = running().await;
    let last = RequestPriority::new(Priority::new(7));
    let mut requests = [4, 4, 4, 7].map(|urgency| request(&running, "/large", Some(Priority::new(urgency))));
    requests[3].headers_mut().clear();
    requests[3].extensions_mut().insert(last.clone());
    let progress = start(&connection, requests.into());
    progress.until(|progress| progress.of(0) > 0).await;
    last.set(Priority::new(1));
    progress
        .until(|progress| progress.ended.load(Ordering::Relaxed) == 4)
        .await;
    assert_eq!(progress.places(), [2, 3, 4, 1]);
}

/// Counts what arrives of a session's one stream.
fn count(session: &wireloom::Session) -> Arc<AtomicUsize> {
    let counted = Arc::new(AtomicUsize::new(0));
    let (count, session) = (counted.clone(), session.clone());
    tokio::spawn(async move {
        let mut stream = session.accept_uni().await.unwrap();
        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX).await {
            count.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    });
    counted
}

#[tokio::test]
async fn a_busy_session_leaves_responses_their_share_and_gives_way_to_urgent_ones() {
    let (running, connection) = running().await;
    let url: http::Uri = running.url.parse().unwrap();
    let session = within(connection.open(SessionRequest::new(url.authority().unwrap().as_str(), "/flood")));
    let session = session.await.unwrap();
    let counted = count(&session);
    let during = async |priority| {
        let before = counted.load(Ordering::Relaxed);
        order(&connection, vec![request(&running, "/large", priority)]).await;
        counted.load(Ordering::Relaxed) - before
    };
    let equal = during(None).await;
    assert!((BODY / 2..BODY * 2).contains(&equal), "{equal}");
    let urgent = during(Some(Priority::new(1))).await;
    assert!(urgent < BODY / 2, "{urgent}");
    // The session becomes more urgent than the response; it never pauses, so the response waits.
    session.set_priority(Priority::new(0));
    let progress = start(&connection, vec![request(&running, "/large", None)]);
    let before = counted.load(Ordering::Relaxed);
    within(async {
        while counted.load(Ordering::Relaxed) < before + 4 * BODY {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(progress.of(0) < BODY / 2, "{}", progress.of(0));
    session.set_priority(Priority::new(7));
    progress
        .until(|progress| progress.ended.load(Ordering::Relaxed) > 0)
        .await;
}
