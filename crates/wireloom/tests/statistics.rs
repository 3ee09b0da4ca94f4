//! What sessions, streams and connections count.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{fixture, fixture_with, within};

#[tokio::test]
async fn streams_and_their_session_count_the_applications_bytes() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let (mut send, mut reply) = within(client.open_bi()).await.unwrap();
    assert_eq!(send.stats().bytes_written, 0);
    send.write_all(&[7; 100_000]).await.unwrap();
    send.write_chunk(vec![7; 23].into()).await.unwrap();
    send.finish().unwrap();
    assert_eq!(send.stats().bytes_written, 100_023);

    let (mut s_send, mut recv) = within(server.accept_bi()).await.unwrap();
    let first = within(recv.read(&mut [0; 10])).await.unwrap();
    assert_eq!(first, Some(10));
    let stats = recv.stats();
    assert_eq!(stats.bytes_read, 10);
    assert!((10..=100_023).contains(&stats.bytes_received), "{stats:?}");
    assert_eq!(within(recv.read_to_end(1 << 20)).await.unwrap().len(), 100_013);
    let stats = recv.stats();
    assert_eq!((stats.bytes_received, stats.bytes_read), (100_023, 100_023));
    tokio::io::AsyncWriteExt::write_all(&mut s_send, b"ok").await.unwrap();
    s_send.finish().unwrap();
    within(tokio::io::AsyncReadExt::read_exact(&mut reply, &mut [0; 2]))
        .await
        .unwrap();
    assert_eq!((s_send.stats().bytes_written, reply.stats().bytes_read), (2, 2));

    let mut uni = within(server.open_uni()).await.unwrap();
    uni.write_all(b"nobody reads this").await.unwrap();
    let mut uni_recv = within(client.accept_uni()).await.unwrap();
    within(uni_recv.read_chunk(6)).await.unwrap();
    uni_recv.stop(0);
    let stats = uni_recv.stats();
    assert_eq!(stats.bytes_read, 6);
    assert!((6..=17).contains(&stats.bytes_received), "{stats:?}");

    let ours = client.stats();
    assert_eq!((ours.streams_opened, ours.streams_received), (1, 1));
    assert_eq!(
        (ours.bytes_written, ours.bytes_received),
        (100_023, 2 + stats.bytes_received)
    );
    let theirs = server.stats();
    assert_eq!((theirs.streams_opened, theirs.streams_received), (1, 1));
    assert_eq!((theirs.bytes_written, theirs.bytes_received), (19, 100_023));
    // The connection carried that, and more around it.
    assert!(ours.transport.bytes_sent > 100_023 && theirs.transport.bytes_received > 100_023);
    // They can still be read when it is over.
    client.close(0, "");
    within(server.closed()).await;
    assert_eq!(server.stats().bytes_received, 100_023);
}

#[tokio::test]
async fn sessions_on_one_connection_count_for_themselves() {
    let f = fixture().await;
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let request = || {
        let authority = f.server.local_addrs()[0].to_string();
        wireloom::proto::connection::SessionRequest::new(authority, "/wt")
    };
    let accept = async || f.server.accept().await.unwrap().accept().await.unwrap();
    let (one, s_one) = within(async { tokio::join!(connection.open(request()), accept()) }).await;
    let (two, s_two) = within(async { tokio::join!(connection.open(request()), accept()) }).await;
    let (one, two) = (one.unwrap(), two.unwrap());
    one.send_datagram(b"one").unwrap();
    for _ in 0..3 {
        two.send_datagram(b"two").unwrap();
        within(s_two.recv_datagram()).await.unwrap();
    }
    within(s_one.recv_datagram()).await.unwrap();
    assert_eq!((one.stats().datagrams.sent, two.stats().datagrams.sent), (1, 3));
    assert_eq!(
        (s_one.stats().datagrams.received, s_two.stats().datagrams.received),
        (1, 3)
    );
    // One connection below.
    assert_eq!(one.stats().transport.datagrams_sent, 4);
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_counted() {
    let f = fixture_with(|b| b.datagram_queue(10_000)).await;
    let (server, client) = f.session().await;
    let many = async {
        while server.stats().datagrams.received < 60 {
            client.send_datagram_wait(&[0; 1000]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    within(many).await;
    let stats = server.stats().datagrams;
    let mut taken = 0;
    while futures_util::FutureExt::now_or_never(server.recv_datagram()).is_some() {
        taken += 1;
    }
    assert!(taken < 10, "{stats:?} {taken}");
    assert_eq!(stats.received, stats.dropped_incoming + taken);
}

#[tokio::test]
async fn the_connection_estimates_what_it_can() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut send = within(client.open_uni()).await.unwrap();
    send.write_all(&vec![0; 1 << 20]).await.unwrap();
    send.finish().unwrap();
    let mut recv = within(server.accept_uni()).await.unwrap();
    within(recv.read_to_end(1 << 20)).await.unwrap();
    let stats = client.stats().transport;
    assert!(!stats.rtt.is_zero() && stats.min_rtt <= stats.rtt, "{stats:?}");
    assert!(stats.bytes_sent > 1 << 20 && stats.packets_sent > 100, "{stats:?}");
    assert!(stats.bytes_lost >= stats.packets_lost, "{stats:?}");
    assert!(stats.congestion_window > 0 && stats.mtu >= 1200, "{stats:?}");
    let rate = stats.estimated_send_rate.unwrap();
    let by_window = stats.congestion_window as f64 * 8.0 / stats.rtt.as_secs_f64();
    assert!((rate as f64 / by_window - 1.0).abs() < 0.01, "{rate} {by_window}");
}
