//! Datagrams that have to wait: their age, their number, and whose turn it is. Over real QUIC on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use common::{Fixture, fixture, within};
use futures_util::FutureExt;
use wireloom::proto::connection::SessionRequest;
use wireloom::{Connection, DatagramCounts, DatagramError, Session};

const BURST: u32 = 300;

fn numbered(n: u32) -> Vec<u8> {
    let mut payload = vec![0; 1000];
    payload[..4].copy_from_slice(&n.to_be_bytes());
    payload
}

async fn receive(session: &Session) -> u32 {
    let datagram = within(session.recv_datagram()).await.unwrap();
    u32::from_be_bytes(datagram[..4].try_into().unwrap())
}

/// Sends more at once than QUIC is given.
fn burst(session: &Session) {
    for n in 0..BURST {
        session.send_datagram(&numbered(n)).unwrap();
    }
}

async fn session_on(f: &Fixture, connection: &Connection) -> (Session, Session) {
    let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let open = connection.open(SessionRequest::new("localhost", "/"));
    let (server, client) = within(async { tokio::join!(accept, open) }).await;
    (server, client.unwrap())
}

#[tokio::test]
async fn what_waited_too_long_is_not_sent() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut policy = client.datagram_policy();
    policy.outgoing_max_age = Some(Duration::ZERO);
    client.set_datagram_policy(policy);
    assert_eq!(client.datagram_policy(), policy);
    burst(&client);
    policy.outgoing_max_age = Some(Duration::from_secs(3600));
    client.set_datagram_policy(policy);
    client.send_datagram(&numbered(BURST)).unwrap();
    assert_eq!(receive(&server).await, BURST);
    let counts = client.datagram_counts();
    assert_eq!((counts.expired_outgoing, counts.dropped_outgoing), (BURST.into(), 0));
}

#[tokio::test]
async fn of_too_many_that_wait_the_newest_are_sent() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut policy = client.datagram_policy();
    policy.outgoing_limit = 10;
    client.set_datagram_policy(policy);
    burst(&client);
    let mut last_before_gap = 0;
    loop {
        let n = receive(&server).await;
        if n >= BURST - 10 {
            break;
        }
        last_before_gap = n;
    }
    assert!(last_before_gap < 100, "{last_before_gap}");
    let counts = client.datagram_counts();
    assert!(
        counts.dropped_outgoing > 200 && counts.expired_outgoing == 0,
        "{counts:?}"
    );
}

#[tokio::test]
async fn who_waits_for_room_loses_nothing_here() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut policy = client.datagram_policy();
    policy.outgoing_max_age = Some(Duration::from_secs(3600));
    policy.outgoing_limit = 1;
    client.set_datagram_policy(policy);
    let send = async {
        for n in 0..BURST {
            client.send_datagram_wait(&numbered(n)).await.unwrap();
        }
    };
    let read = async { while receive(&server).await != BURST - 1 {} };
    within(async { tokio::join!(send, read) }).await;
    assert_eq!(client.datagram_counts(), DatagramCounts::default());
}

#[tokio::test]
async fn many_are_received_at_once() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    burst(&client);
    let mut datagrams = Vec::new();
    while datagrams
        .last()
        .is_none_or(|last: &bytes::Bytes| last[..4] != (BURST - 1).to_be_bytes())
    {
        let before = datagrams.len();
        let taken = within(server.recv_datagrams(&mut datagrams, 7)).await.unwrap();
        assert!((1..=7).contains(&taken));
        assert_eq!(datagrams.len(), before + taken);
    }
    assert!(datagrams.is_sorted_by(|one, other| one[..4] < other[..4]));
    assert_eq!(server.recv_datagrams(&mut datagrams, 0).await.unwrap(), 0);
    client.close(7, "");
    let end = within(server.recv_datagrams(&mut datagrams, 7)).await.unwrap_err();
    assert!(matches!(end, wireloom::SessionError::Closed { code: 7, .. }), "{end:?}");
}

#[tokio::test]
async fn of_too_many_that_came_the_newest_are_kept() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut policy = server.datagram_policy();
    policy.incoming_limit = 3;
    server.set_datagram_policy(policy);
    let came = async |n: u64| {
        within(async {
            while server.stats().datagrams.received < n {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    burst(&client);
    came(200).await;
    assert!(receive(&server).await > 100);
    let counts = server.datagram_counts();
    assert!(counts.dropped_incoming > 100, "{counts:?}");
    client.send_datagram(&numbered(BURST)).unwrap();
    while receive(&server).await != BURST {}
    policy.incoming_max_age = Some(Duration::ZERO);
    server.set_datagram_policy(policy);
    let before = server.stats().datagrams.received;
    client.send_datagram(&numbered(8)).unwrap();
    came(before + 1).await;
    let late = tokio::time::timeout(Duration::from_millis(1), server.recv_datagram()).await;
    assert!(late.is_err(), "older than nothing");
    assert_eq!(server.datagram_counts().expired_incoming, 1);
}

#[tokio::test]
async fn sessions_take_turns_with_their_datagrams() {
    let f = fixture().await;
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let (server_one, client_one) = session_on(&f, &connection).await;
    let (server_two, client_two) = session_on(&f, &connection).await;
    // One never waits; what is too much is its own loss.
    let greedy = client_one.clone();
    tokio::spawn(async move {
        loop {
            for n in 0..2000 {
                if greedy.send_datagram(&numbered(n)).is_err() {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    });
    tokio::spawn(async move { while server_one.recv_datagram().await.is_ok() {} });
    let send = async {
        for n in 0..BURST {
            client_two.send_datagram_wait(&numbered(n)).await.unwrap();
        }
    };
    let read = async { while receive(&server_two).await < BURST - 10 {} };
    within(async { tokio::join!(send, read) }).await;
    assert_eq!(client_two.datagram_counts(), DatagramCounts::default());
    assert!(client_one.datagram_counts().dropped_outgoing > 0);
}

/// A path of a smaller MTU makes room by dropping what is too large for it; the first who waits for room finds that its own is, too.
#[tokio::test]
async fn who_cannot_use_the_room_leaves_it_to_the_next() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    // More than the MTU of a new path allows.
    within(async {
        while client.max_datagram_size().unwrap() <= 1200 {
            client.send_datagram(b"and back").unwrap();
            server.send_datagram(&server.recv_datagram().await.unwrap()).unwrap();
            client.recv_datagram().await.unwrap();
        }
    })
    .await;
    let large = vec![0; client.max_datagram_size().unwrap()];
    let small = [0; 1000];
    while client.send_datagram_wait(&large).now_or_never().is_some() {}
    while client.send_datagram_wait(&small).now_or_never().is_some() {}
    let first = client.send_datagram_wait(&large);
    let second = client.send_datagram_wait(&small);
    let move_on = async {
        f.client.rebind().unwrap();
    };
    let (first, second, ()) = within(async { tokio::join!(biased; first, second, move_on) }).await;
    assert!(
        matches!(first, Err(DatagramError::TooLarge { max }) if max < large.len()),
        "{first:?}"
    );
    second.unwrap();
}
