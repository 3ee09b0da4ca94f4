//! A client whose address changes, by really moving its socket (RFC 9000 section 9).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::{Fixture, fixture, fixture_with, within};
use wireloom::{Client, ConnectError, ConnectionError, SessionError, Threads};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn sessions_and_transfers_go_on_from_another_address() {
    move_about(fixture().await).await;
}

/// The kernel may give a new address to another of the server's sockets than the one whose task has the connection.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_several_sockets_share_the_port() {
    for _ in 0..4 {
        move_about(fixture_with(|builder| builder.shards(4)).await).await;
    }
}

#[tokio::test]
async fn the_same_where_each_socket_has_a_thread() {
    for _ in 0..4 {
        let threads = Threads::start(4).unwrap();
        move_about(fixture_with(|builder| builder.threads(threads)).await).await;
    }
}

/// Whoever watches the network need not be a task of the runtime.
#[tokio::test]
async fn a_move_is_asked_for_from_outside_the_runtime() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let before = server.remote_address();
    let mover = f.client.clone();
    let (moved, has_moved) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || moved.send(mover.rebind()));
    within(has_moved).await.unwrap().unwrap();
    let mut send = within(client.open_uni()).await.unwrap();
    send.finish().unwrap();
    within(server.accept_uni()).await.unwrap();
    assert_ne!(server.remote_address(), before);
}

#[test]
fn a_move_after_the_runtime_has_ended() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let f = runtime.block_on(async {
        let f = fixture().await;
        f.session().await;
        f
    });
    drop(runtime);
    f.client.rebind().unwrap_err();
}

/// What was learned of one network says nothing about another. "an endpoint MUST immediately reset the congestion controller and
/// round-trip time estimator for the new path to initial values" (RFC 9000 section 9.4).
#[tokio::test]
async fn a_move_begins_with_nothing_known_of_the_path() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let first = client.stats().transport;
    let mut send = within(client.open_uni()).await.unwrap();
    let write = async {
        while client.stats().transport.mtu <= 1200 || client.stats().transport.congestion_window < 100_000 {
            send.write_all(&[7; 64 * 1024]).await.unwrap();
        }
        send.finish().unwrap();
    };
    let read = async {
        while server
            .accept_uni()
            .await
            .unwrap()
            .read_to_end(usize::MAX)
            .await
            .is_err()
        {}
    };
    within(async { tokio::join!(write, read) }).await;
    f.client.rebind().unwrap();
    within(async {
        while client.stats().transport.mtu > 1200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(client.stats().transport.congestion_window <= first.congestion_window.max(20_000));
}

async fn move_about(f: Fixture) {
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let request = || {
        let authority = f.server.local_addrs()[0].to_string();
        wireloom::proto::connection::SessionRequest::new(authority, "/wt")
    };
    let accept = async || f.server.accept().await.unwrap().accept().await.unwrap();
    let (one, s_one) = within(async { tokio::join!(connection.open(request()), accept()) }).await;
    let (two, s_two) = within(async { tokio::join!(connection.open(request()), accept()) }).await;
    let (one, two) = (one.unwrap(), two.unwrap());

    // Up in one session and down in the other, moving in the middle of both.
    let data: Vec<u8> = (0..6 * MIB).map(|i| (i * 31 % 251) as u8).collect();
    let mut up = within(one.open_uni()).await.unwrap();
    let mut down = within(s_two.open_uni()).await.unwrap();
    let send_up = async {
        up.write_all(&data).await.unwrap();
        up.finish().unwrap();
    };
    let send_down = async {
        down.write_all(&data).await.unwrap();
        down.finish().unwrap();
    };
    let receive_up = async {
        let mut recv = s_one.accept_uni().await.unwrap();
        let (mut got, mut moves, mut addresses) = (Vec::new(), 0, vec![s_one.remote_address()]);
        while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
            got.extend_from_slice(&chunk);
            let at = s_one.remote_address();
            if addresses.last() != Some(&at) {
                addresses.push(at);
            }
            if got.len() / MIB > moves && moves < 3 {
                moves += 1;
                f.client.rebind().unwrap();
            }
        }
        (got, moves, addresses)
    };
    let receive_down = async {
        let mut recv = two.accept_uni().await.unwrap();
        recv.read_to_end(data.len()).await.unwrap()
    };
    let (.., (up, moves, addresses), down) =
        within(async { tokio::join!(send_up, send_down, receive_up, receive_down) }).await;
    assert_eq!(moves, 3);
    assert!(up == data && down == data, "not a byte is lost");
    assert!(addresses.len() > 1, "the server saw it move");
    assert_ne!(s_one.remote_address(), addresses[0]);
    assert_eq!(s_one.remote_address(), s_two.remote_address());

    // Both sessions are still there, and so is what is new.
    one.send_datagram(b"one").unwrap();
    assert_eq!(within(s_one.recv_datagram()).await.unwrap(), "one");
    s_two.send_datagram(b"two").unwrap();
    assert_eq!(within(two.recv_datagram()).await.unwrap(), "two");
}

#[tokio::test]
async fn a_server_may_forbid_it() {
    let f = fixture_with(|b| b.migration(false).idle_timeout(Duration::from_secs(2))).await;
    let builder = || Client::builder().server_certificate_hash(f.hash);
    // It would not fall silent by itself.
    let (mover, other) = (builder().keep_alive(Some(Duration::from_millis(100))), builder());
    let (mover, other) = (mover.build().unwrap(), other.build().unwrap());
    let accept = async || f.server.accept().await.unwrap().accept().await.unwrap();
    let (client, server) = within(async { tokio::join!(mover.connect(&f.url), accept()) }).await;
    let client = client.unwrap();
    mover.rebind().unwrap();
    client.send_datagram(b"from elsewhere").unwrap();
    let lost = SessionError::Connection(ConnectionError::TimedOut);
    assert_eq!(
        within(server.recv_datagram()).await,
        Err(lost.clone()),
        "it is not heard"
    );
    // Whichever ends first, the client's patience or the server's memory of it.
    let reset = SessionError::Connection(ConnectionError::Reset);
    let end = within(client.closed()).await;
    assert!(end == lost || end == reset, "{end:?}");
    // It is none of the others' business.
    let (session, _server) = within(async { tokio::join!(other.connect(&f.url), accept()) }).await;
    session.unwrap();
}

#[tokio::test]
async fn a_client_dials_and_moves_from_where_it_is_told_to() {
    let f = fixture().await;
    let ip = IpAddr::from([127, 0, 0, 77]);
    let client = Client::builder().server_certificate_hash(f.hash);
    let client = client.bind(SocketAddr::new(ip, 0)).build().unwrap();
    assert!(client.local_addrs().is_empty());
    let f = Fixture { client, ..f };
    let (server, client) = f.session().await;
    let first = f.client.local_addrs();
    assert_eq!((first[..].len(), first[0].ip()), (1, ip));
    assert_eq!(server.remote_address(), first[0]);
    f.client.rebind().unwrap();
    let second = f.client.local_addrs();
    assert_eq!(second[0].ip(), ip);
    assert_ne!(second, first);
    client.send_datagram(b"moved").unwrap();
    assert_eq!(within(server.recv_datagram()).await.unwrap(), "moved");
    assert_eq!(server.remote_address(), second[0]);

    // A port that is named belongs to the client.
    let taken = Client::builder().server_certificate_hash(f.hash).bind(second[0]);
    let error = within(taken.build().unwrap().dial(&f.url))
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, ConnectError::Socket(_)), "{error:?}");
}
