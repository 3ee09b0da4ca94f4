//! Who gets how much of a connection, and in which order, over real QUIC on loopback. What arrives is counted while senders
//! that never run dry keep the connection full; shares are compared, never times.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use common::within;
use tokio::sync::Notify;
use wireloom::proto::webtransport::flow::FlowControl;
use wireloom::proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom::{Client, Connection, Identity, RecvStream, SendStream, Server, Session};

const MB: u64 = 1 << 20;

/// A server and one connection to it, for several sessions.
struct Fixture {
    server: Server,
    _client: Client,
    connection: Connection,
}

/// The narrowest place is the connection's window, so that the sender decides what goes through it: in draft 02 sessions have
/// no limits of their own.
async fn fixture() -> Fixture {
    fixture_with(Dialect::Draft02, 8 << 20, 512 << 10).await
}

async fn fixture_with(dialect: Dialect, session_window: u64, connection_window: u32) -> Fixture {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let dialects = Dialects::NONE.with(dialect);
    let server = Server::builder().bind("127.0.0.1:0").identity(identity);
    let server = server.dialects(dialects).receive_windows(4 << 20, connection_window);
    let limits = FlowControl {
        data: session_window,
        ..FlowControl::default()
    };
    let server = server.flow_control(limits).listen().await.unwrap();
    let client = Client::builder().server_certificate_hash(hash).dialects(dialects);
    let url = format!("https://{}/", server.local_addrs()[0]);
    let client = client.build().unwrap();
    let connection = within(client.dial(&url)).await.unwrap();
    Fixture {
        server,
        _client: client,
        connection,
    }
}

impl Fixture {
    /// Another session on the connection, seen from the server and from the client.
    async fn session(&self) -> (Session, Session) {
        let accept = async { self.server.accept().await.unwrap().accept().await.unwrap() };
        let open = self.connection.session("/").connect();
        let (server, client) = within(async { tokio::join!(accept, open) }).await;
        (server, client.unwrap())
    }
}

/// Bytes that arrived, by the tag that each stream is full of.
#[derive(Clone, Default)]
struct Arrived(Arc<Inner>);

#[derive(Default)]
struct Inner {
    bytes: [AtomicU64; 8],
    finished: [AtomicU64; 8],
    ends: AtomicU64,
    changed: Notify,
}

impl Arrived {
    fn of(&self, tag: u8) -> u64 {
        self.0.bytes[usize::from(tag)].load(Ordering::Relaxed)
    }

    fn all(&self) -> [u64; 8] {
        std::array::from_fn(|tag| self.0.bytes[tag].load(Ordering::Relaxed))
    }

    /// The how-manieth stream that ended was the one with this tag; 0 if it did not.
    fn place_of(&self, tag: u8) -> u64 {
        self.0.finished[usize::from(tag)].load(Ordering::Relaxed)
    }

    /// Reads every stream of the session.
    fn read(&self, session: &Session) {
        let (arrived, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            while let Ok(stream) = session.accept_uni().await {
                tokio::spawn(arrived.clone().read_stream(stream));
            }
        });
    }

    async fn read_stream(self, mut stream: RecvStream) {
        let mut tag = None;
        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX).await {
            let tag = usize::from(*tag.get_or_insert(chunk[0]));
            self.0.bytes[tag].fetch_add(chunk.len() as u64, Ordering::Relaxed);
            self.0.changed.notify_waiters();
        }
        if let Some(tag) = tag {
            let place = self.0.ends.fetch_add(1, Ordering::Relaxed) + 1;
            self.0.finished[usize::from(tag)].store(place, Ordering::Relaxed);
            self.0.changed.notify_waiters();
        }
    }

    async fn until(&self, enough: impl Fn(&Self) -> bool) {
        within(async {
            loop {
                let changed = self.0.changed.notified();
                if enough(self) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    /// What arrives of each tag once all of `tags` have begun, until that is `total` bytes.
    async fn shares(&self, tags: &[u8], total: u64) -> [u64; 8] {
        self.until(|arrived| tags.iter().all(|&tag| arrived.of(tag) > MB)).await;
        let before = self.all();
        let since = |arrived: &Self| -> [u64; 8] {
            let now = arrived.all();
            std::array::from_fn(|tag| now[tag] - before[tag])
        };
        self.until(|arrived| since(arrived).iter().sum::<u64>() >= total).await;
        since(self)
    }
}

fn chunk(tag: u8) -> Bytes {
    Bytes::from(vec![tag; 64 * 1024])
}

/// Writes without end.
fn flood(mut send: SendStream, tag: u8) {
    tokio::spawn(async move { while send.write_chunk(chunk(tag)).await.is_ok() {} });
}

async fn flood_new(session: &Session, tag: u8) {
    flood(within(session.open_uni()).await.unwrap(), tag);
}

#[track_caller]
fn assert_even(shares: &[u64]) {
    let (min, max) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(max * 3 < min * 4, "{shares:?}");
}

#[tokio::test]
async fn two_sessions_share_evenly_whatever_the_number_of_their_streams() {
    let f = fixture().await;
    let (server_one, client_one) = f.session().await;
    let (server_many, client_many) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server_one);
    arrived.read(&server_many);
    flood_new(&client_one, 1).await;
    for _ in 0..16 {
        flood_new(&client_many, 2).await;
    }
    let shares = arrived.shares(&[1, 2], 48 * MB).await;
    assert_even(&shares[1..3]);
}

#[tokio::test]
async fn streams_without_an_order_share_evenly() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server);
    for tag in 1..6 {
        flood_new(&client, tag).await;
    }
    let shares = arrived.shares(&[1, 2, 3, 4, 5], 48 * MB).await;
    assert_even(&shares[1..6]);
}

#[tokio::test]
async fn streams_without_an_order_share_what_the_session_may_send() {
    let f = fixture_with(Dialect::Draft15, 64 * 1024, 512 << 10).await;
    let (server, client) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server);
    flood_new(&client, 1).await;
    let mut send = within(client.open_uni()).await.unwrap();
    tokio::spawn(async move { while send.write_all(&[2; 40_000]).await.is_ok() {} });
    let shares = arrived.shares(&[1, 2], 24 * MB).await;
    assert_even(&shares[1..3]);
}

/// What does not fit waits with its writer, and takes the room of no other stream.
#[tokio::test]
async fn a_large_chunk_leaves_room_for_other_streams() {
    let f = fixture().await;
    let (_server, client) = f.session().await;
    let (_other_server, _other_client) = f.session().await;
    let mut large = within(client.open_uni()).await.unwrap();
    let mut small = within(client.open_uni()).await.unwrap();
    let large = async {
        large.write_chunk(Bytes::from(vec![1; 64 << 20])).await.unwrap();
        std::future::pending().await
    };
    let written = tokio::select! {
        biased;
        () = large => unreachable!(),
        written = within(small.write(&[2; 128 << 10])) => written.unwrap(),
    };
    assert_eq!(written, 128 << 10);
}

/// The peer's limit on a session's data is shared like the connection.
#[tokio::test]
async fn a_session_at_its_limit_keeps_the_order_of_its_streams() {
    let f = fixture_with(Dialect::Draft15, 64 * 1024, 512 << 10).await;
    let (server, client) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server);
    let group = client.create_send_group();
    for (tag, group, order) in [
        (1, None, 0),
        (1, None, 0),
        (1, None, 0),
        (2, Some(&group), 9),
        (3, Some(&group), 8),
    ] {
        let send = within(client.open_uni()).await.unwrap();
        send.set_send_group(group).unwrap();
        send.set_send_order(order);
        flood(send, tag);
    }
    let shares = arrived.shares(&[1, 2], 24 * MB).await;
    assert_even(&shares[1..3]);
    assert!(arrived.of(3) < MB, "{:?}", arrived.all());
}

#[tokio::test]
async fn small_writes_have_the_same_share_as_large_ones() {
    let f = fixture().await;
    let (server_small, client_small) = f.session().await;
    let (server_large, client_large) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server_small);
    arrived.read(&server_large);
    let mut send = within(client_small.open_uni()).await.unwrap();
    tokio::spawn(async move { while send.write_all(&[1; 4000]).await.is_ok() {} });
    flood_new(&client_large, 2).await;
    let shares = arrived.shares(&[1, 2], 32 * MB).await;
    assert_even(&shares[1..3]);
}

#[tokio::test]
async fn a_higher_send_order_arrives_first() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server);
    let write = async |tag: u8, order: i64| {
        let mut send = client.open_uni().await.unwrap();
        send.set_send_order(order);
        send.write_chunk(Bytes::from(vec![tag; 3 << 20])).await.unwrap();
        send.finish().unwrap();
    };
    // The lowest begins.
    within(async { tokio::join!(write(1, i64::MIN), write(2, -1), write(3, 5), write(4, i64::MAX)) }).await;
    arrived.until(|arrived| arrived.place_of(1) > 0).await;
    let places = [4, 3, 2, 1].map(|tag| arrived.place_of(tag));
    assert_eq!(places, [1, 2, 3, 4]);
}

/// A finished stream still obeys, as long as something of it waits; and nothing is kept of it.
#[tokio::test]
async fn a_send_order_that_comes_after_the_end() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&client);
    let leftovers = f.server.monitor().leftovers();
    let mut streams = Vec::new();
    for tag in 1..4 {
        let mut send = server.open_uni().await.unwrap();
        send.set_send_order(tag.into());
        send.write_chunk(Bytes::from(vec![tag; 240 << 10])).await.unwrap();
        send.finish().unwrap();
        streams.push(send);
    }
    streams[1].set_send_order(9);
    let mut reset = server.open_uni().await.unwrap();
    reset.reset(0);
    streams.push(reset);
    arrived.until(|arrived| arrived.place_of(1) > 0).await;
    let places = [2, 3, 1].map(|tag| arrived.place_of(tag));
    assert_eq!(places, [1, 2, 3]);
    let group = server.create_send_group();
    for send in &streams {
        send.set_send_order(7);
        send.set_send_group(&group).unwrap();
    }
    assert_eq!(f.server.monitor().leftovers(), leftovers);
}

#[tokio::test]
async fn a_lower_send_order_waits_and_a_change_lets_it_go_on() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let (_other_server, _other_client) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server);
    let low = within(client.open_uni()).await.unwrap();
    low.set_send_order(-3);
    flood_new(&client, 1).await;
    let mut low_writer = low;
    arrived.until(|arrived| arrived.of(1) > MB).await;
    let (change, changed) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut changed = changed;
        loop {
            tokio::select! {
                written = low_writer.write(&[2; 16 * 1024]) => if written.is_err() { return },
                _ = &mut changed => break,
            }
        }
        low_writer.set_priority(1);
        flood(low_writer, 2);
    });
    arrived.until(|arrived| arrived.of(1) > 24 * MB).await;
    let waited = arrived.of(2);
    assert!(waited < 2 * MB, "{waited} bytes of a lower order");
    change.send(()).unwrap();
    arrived.until(|arrived| arrived.of(2) > waited + 16 * MB).await;
}

#[tokio::test]
async fn send_groups_share_evenly_and_order_counts_within_each() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server);
    let (first, second) = (client.create_send_group(), client.create_send_group());
    for (tag, group, order) in [
        (1, None, 0),
        (1, None, 0),
        (1, None, 0),
        (2, Some(&first), 1000),
        (3, Some(&first), 999),
        (4, Some(&second), -1000),
    ] {
        let send = within(client.open_uni()).await.unwrap();
        send.set_send_group(group).unwrap();
        send.set_send_order(order);
        flood(send, tag);
    }
    let shares = arrived.shares(&[1, 2, 4], 48 * MB).await;
    assert_even(&[shares[1], shares[2], shares[4]]);
    assert!(arrived.of(3) < MB, "{:?}", arrived.all());

    let (_, other) = f.session().await;
    let send = within(other.open_uni()).await.unwrap();
    assert!(send.set_send_group(&first).is_err(), "another session's group");
    send.set_send_group(None).unwrap();
}

#[tokio::test]
async fn what_was_written_before_and_after_the_contention_arrives_in_order() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let expected: Vec<u8> = (0..20 * MB as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut send = within(client.open_uni()).await.unwrap();
    let write = async {
        let (third, rest) = expected.split_at(expected.len() / 3);
        send.write_all(third).await.unwrap();
        let other = f.session().await;
        Arrived::default().read(&other.0);
        flood_new(&other.1, 1).await;
        send.set_send_order(-1);
        let (chunked, last) = rest.split_at(rest.len() / 2);
        let third = client.create_send_group();
        send.set_send_group(&third).unwrap();
        for piece in chunked.chunks(100_000) {
            send.write_chunk(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        other.1.close(0, "");
        send.write_all(last).await.unwrap();
        send.finish().unwrap();
    };
    let read = async { server.accept_uni().await.unwrap().read_to_end(expected.len()).await };
    let ((), got) = within(async { tokio::join!(write, read) }).await;
    assert!(got.unwrap() == expected);
}

#[tokio::test]
async fn a_reset_or_stopped_stream_gives_its_turn_to_others() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let (_other_server, _other_client) = f.session().await;
    // Nobody reads these.
    for order in 0..8 {
        let mut send = within(client.open_uni()).await.unwrap();
        send.set_send_order(order);
        let _ = tokio::time::timeout(
            std::time::Duration::from_millis(1),
            send.write_chunk(Bytes::from(vec![9; 2 << 20])),
        )
        .await;
        let mut recv = within(server.accept_uni()).await.unwrap();
        if order % 2 == 0 {
            send.reset(1);
        } else {
            recv.stop(2);
            assert_eq!(within(send.stopped()).await, Ok(Some(2)));
        }
    }
    let mut send = within(client.open_uni()).await.unwrap();
    let write = async {
        send.write_all(&[7; 4 << 20]).await.unwrap();
        send.finish().unwrap();
    };
    let read = async {
        loop {
            let mut recv = server.accept_uni().await.unwrap();
            if let Ok(all) = recv.read_to_end(8 << 20).await
                && all.first() == Some(&7)
            {
                return all.len();
            }
        }
    };
    let ((), got) = within(async { tokio::join!(write, read) }).await;
    assert_eq!(got, 4 << 20);
}

/// Sessions that are not read fill their own parts of the connection's window, and leave room for others and for requests.
#[tokio::test]
async fn sessions_that_are_not_read_leave_room_for_others_and_for_requests() {
    let f = fixture_with(Dialect::Draft15, 8 << 20, 4 << 20).await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        let sessions = f.session().await;
        for _ in 0..4 {
            flood_new(&sessions.1, 1).await;
        }
        unread.push(sessions);
    }
    let (server, client) = f.session().await;
    let arrived = Arrived::default();
    arrived.read(&server);
    flood_new(&client, 2).await;
    arrived.until(|arrived| arrived.of(2) > 24 * MB).await;
    for _ in 0..3 {
        let request = http::Request::get("https://localhost/").body(Bytes::new()).unwrap();
        let response = tokio::select! {
            response = within(f.connection.request_whole(request, 1024)) => response.unwrap(),
            _ = f.server.accept() => panic!("no session was asked for"),
        };
        // Servers without a router have nothing else to say.
        assert_eq!(response.status(), 404);
    }
    assert!(
        unread
            .iter()
            .all(|(server, client)| server.close_reason().is_none() && client.close_reason().is_none())
    );
}
