//! Many tasks that give up at any point, on several threads: nothing hangs, nothing is left over.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use axum::Router;
use axum::routing::{any, get, post};
use common::raw::{Raw, connect, wt_bi};
use common::{Running, fixture, run, within};
use http::StatusCode;
use tokio::task::JoinSet;
use wireloom::{Client, Session, WebTransportUpgrade};

/// xorshift: a seed makes a run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Serves one session in a way that depends on `seed`.
async fn serve(session: Session, seed: u64) {
    let mut random = Random(seed | 1);
    let mut tasks = JoinSet::new();
    // Several tasks wait for the same things.
    for _ in 0..3 {
        let (ours, mut random) = (session.clone(), Random(random.below(u64::MAX) | 1));
        tasks.spawn(async move {
            while let Ok((mut send, mut recv)) = ours.accept_bi().await {
                match random.below(6) {
                    0 => send.reset(7),
                    1 => recv.stop(8),
                    2 => drop((send, recv)),
                    3 => {
                        let _ = send.write_all(&[1; 20_000]).await;
                    }
                    _ => {
                        while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX).await {
                            if send.write_chunk(chunk).await.is_err() {
                                break;
                            }
                        }
                        let _ = send.finish();
                    }
                }
            }
        });
        let session = session.clone();
        tasks.spawn(async move {
            while let Ok(datagram) = session.recv_datagram().await {
                let _ = session.send_datagram(&datagram);
            }
        });
    }
    if random.below(3) == 0 {
        tokio::time::sleep(Duration::from_millis(random.below(20))).await;
        session.close(3, "enough");
    }
    session.closed().await;
    while tasks.join_next().await.is_some() {}
}

/// Uses a session until it has had enough, and drops what it has at any point.
async fn visit(client: Client, url: String, seed: u64) {
    let mut random = Random(seed | 1);
    let connect = client.connect(&url);
    let patience = Duration::from_millis(if random.below(4) == 0 { random.below(10) } else { 5_000 });
    let Ok(Ok(session)) = tokio::time::timeout(patience, connect).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (session, mut random) = (session.clone(), Random(random.below(u64::MAX) | 1));
        let kind = random.below(8);
        let patience = Duration::from_millis(random.below(30));
        let stream = async move {
            if kind == 0 {
                let _ = session.send_datagram_wait(&[0; 500]).await;
                let _ = session.recv_datagram().await;
                return;
            }
            if kind == 1 {
                if let Ok(mut send) = session.open_uni().await {
                    let _ = send.write_all(&[2; 3000]).await;
                    let _ = send.finish();
                }
                return;
            }
            let Ok((mut send, mut recv)) = session.open_bi().await else {
                return;
            };
            let size = 1 + usize::try_from(random.below(100_000)).unwrap();
            let write = async {
                let _ = send.write_all(&vec![3; size]).await;
                let _ = send.finish();
            };
            let (_, read) = tokio::join!(write, recv.read_to_end(1 << 20));
            if kind == 2 {
                recv.stop(1);
            }
            drop(read);
        };
        tasks.spawn(async move {
            let _ = tokio::time::timeout(patience, stream).await;
        });
    }
    if random.below(2) == 0 {
        tasks.abort_all();
    }
    while tasks.join_next().await.is_some() {}
    if random.below(2) == 0 {
        session.close(1, "done");
    }
}

fn app() -> Router {
    Router::new()
        .route(
            "/live",
            any(|upgrade: WebTransportUpgrade| async move {
                let seed = u64::from(upgrade.remote_address().port()) * 7919;
                upgrade.on_upgrade(move |session| serve(session, seed))
            }),
        )
        .route(
            "/quiet",
            any(|upgrade: WebTransportUpgrade| async {
                upgrade.on_upgrade(|session| async move {
                    session.closed().await;
                })
            }),
        )
        .route("/big", get(|| async { vec![1; 300_000] }))
        .route(
            "/count",
            post(|body: axum::body::Bytes| async move { body.len().to_string() }),
        )
        .route("/early", post(|| async { StatusCode::PAYLOAD_TOO_LARGE }))
}

/// Waits until the server keeps nothing: that takes as long as acknowledgements need.
async fn assert_nothing_left(run: &Running) {
    let look = async {
        while run.monitor.leftovers() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(30), look).await;
    assert!(gone.is_ok(), "{} left", run.monitor.leftovers());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_that_end_anywhere_leave_nothing() {
    let run = run(app(), |b| b).await;
    let mut visits = JoinSet::new();
    for seed in 1..100u64 {
        visits.spawn(visit(
            run.client.clone(),
            format!("{}/live", run.url),
            seed * 0x9e37_79b9,
        ));
    }
    while let Some(visit) = within(visits.join_next()).await {
        visit.unwrap();
    }
    assert_nothing_left(&run).await;
    within(run.client.shut_down()).await;
    drop(run.stop);
    within(run.task).await.unwrap();
    assert_eq!((run.monitor.stats().connections, run.monitor.stats().sessions), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_that_end_anywhere_leave_nothing() {
    let run = run(app(), |b| b.max_streams_per_connection(20)).await;
    let connection = run.dial().await;
    let mut tasks = JoinSet::new();
    let body = vec![5; 200_000].leak();
    for i in 0..600u64 {
        let mut random = Random(i * 0x9e37_79b9 + 1);
        let request = match random.below(3) {
            0 => run.request("GET", "/big", b""),
            1 => run.request("POST", "/count", body),
            _ => run.request("POST", "/early", body),
        };
        let connection = connection.clone();
        let patience = Duration::from_millis(if random.below(2) == 0 { random.below(60) } else { 60_000 });
        tasks.spawn(async move {
            let work = async {
                if i % 7 == 0 {
                    // Only the head.
                    connection.request(request).await.map(|_| ())
                } else {
                    connection.request_whole(request, 1 << 20).await.map(|_| ())
                }
            };
            let _ = tokio::time::timeout(patience, work).await;
        });
    }
    while let Some(task) = within(tasks.join_next()).await {
        task.unwrap();
    }
    let response = within(connection.request_whole(run.request("POST", "/count", body), 100)).await;
    assert_eq!(response.unwrap().body(), "200000");
    assert_nothing_left(&run).await;
}

#[tokio::test]
async fn a_client_that_disappears_leaves_nothing() {
    let run = run(app(), |b| b.idle_timeout(Duration::from_secs(2))).await;
    let server = run.url.strip_prefix("https://").unwrap().parse().unwrap();
    let raw = within(Raw::connect(server)).await;
    let (send, _recv) = within(raw.session("/quiet")).await;
    let session = u64::from(send.id());
    let _streams = (
        raw.bi(&wt_bi(session, b"x"), false).await,
        raw.bi(&connect("/none")[..7], false).await,
    );
    within(raw.assert_served("/big")).await;
    let stats = run.monitor.stats();
    assert_eq!((stats.connections, stats.sessions), (1, 1));
    // Not a word any more, not even an acknowledgement.
    raw.vanish();
    let gone = async {
        while run.monitor.stats().connections > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(gone).await;
    assert_eq!(run.monitor.leftovers(), 0);
}

#[tokio::test]
async fn streams_and_datagrams_for_several_waiting_tasks_are_lost_by_none() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let (seen, mut all) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for i in 0..10u64 {
        let (server, seen) = (server.clone(), seen.clone());
        tasks.spawn(async move {
            let mut random = Random(i + 1);
            loop {
                // Waiters that give up pass on what woke them.
                let patience = Duration::from_micros(random.below(300));
                let Ok(accepted) = tokio::time::timeout(patience, server.accept_uni()).await else {
                    continue;
                };
                let Ok(mut recv) = accepted else { return };
                let number = recv.read_to_end(4).await.unwrap();
                seen.send(u32::from_be_bytes(number.try_into().unwrap())).unwrap();
            }
        });
    }
    for i in 0..500u32 {
        let mut send = within(client.open_uni()).await.unwrap();
        send.write_all(&i.to_be_bytes()).await.unwrap();
        send.finish().unwrap();
        if i % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut numbers = Vec::new();
    while numbers.len() < 500 {
        numbers.push(within(all.recv()).await.unwrap());
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..500));
    client.close(0, "");
    while let Some(task) = within(tasks.join_next()).await {
        task.unwrap();
    }
}
