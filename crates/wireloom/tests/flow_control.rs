//! Session flow control between our own ends, over real QUIC on loopback (draft-ietf-webtrans-http3-16 section 5).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use common::within;
use wireloom::proto::connection::SessionRequest;
use wireloom::proto::webtransport::flow::FlowControl;
use wireloom::proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom::{Client, ConnectError, Connection, Identity, SendStream, Server, Session};

const TIGHT: FlowControl = FlowControl {
    streams_uni: 2,
    streams_bi: 2,
    data: 1000,
};

struct Fixture {
    server: Server,
    connection: Connection,
}

async fn fixture(dialect: Dialect, limits: FlowControl) -> Fixture {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let dialects = Dialects::NONE.with(dialect);
    let server = Server::builder()
        .bind("127.0.0.1:0")
        .identity(identity)
        .dialects(dialects)
        .flow_control(limits)
        .max_sessions_per_connection(3)
        .listen()
        .await
        .unwrap();
    let client = Client::builder()
        .server_certificate_hash(hash)
        .dialects(dialects)
        .flow_control(limits)
        .build()
        .unwrap();
    let url = format!("https://{}/", server.local_addrs()[0]);
    let connection = within(client.dial(&url)).await.unwrap();
    Fixture { server, connection }
}

impl Fixture {
    /// Another session on the one connection, seen from the server and from the client.
    async fn session(&self) -> (Session, Session) {
        let accept = async { self.server.accept().await.unwrap().accept().await.unwrap() };
        let (server, client) = within(async { tokio::join!(accept, self.connect()) }).await;
        (server, client.unwrap())
    }

    async fn connect(&self) -> Result<Session, ConnectError> {
        self.connection.open(SessionRequest::new("localhost", "/")).await
    }
}

/// Whether a future still waits after it was polled once.
async fn waits<T>(future: impl Future<Output = T>) -> bool {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// Writes until the session's limit is reached, and answers how much that was.
async fn fill(send: &mut SendStream) -> usize {
    let mut sent = 0;
    loop {
        let mut write = pin!(send.write(&[7; 333]));
        match poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await {
            Poll::Ready(n) => sent += n.unwrap(),
            Poll::Pending => return sent,
        }
    }
}

fn pattern(len: u32) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A peer that sent more than it may would lose its session. "The sum of the lengths of Stream Body data sent on all
/// streams associated with this session MUST NOT exceed the Maximum Data value advertised by a receiver" (draft 16
/// section 5.6.4).
#[tokio::test]
async fn far_more_than_the_window_gets_through_both_ways() {
    for dialect in [Dialect::Draft13, Dialect::Draft15] {
        let f = fixture(dialect, TIGHT).await;
        let (server, client) = f.session().await;
        let data = pattern(100_000);
        let echo = async {
            let (mut send, mut recv) = server.accept_bi().await.unwrap();
            while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
                send.write_chunk(chunk).await.unwrap();
            }
            send.finish().unwrap();
        };
        let (mut send, mut recv) = within(client.open_bi()).await.unwrap();
        let write = async {
            send.write_all(&data).await.unwrap();
            send.finish().unwrap();
        };
        let (.., got) = within(async { tokio::join!(echo, write, recv.read_to_end(data.len())) }).await;
        assert!(got.unwrap() == data, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_session_that_does_not_read_holds_up_nobody_else() {
    let f = fixture(Dialect::Draft15, TIGHT).await;
    let (_idle, stuck) = f.session().await;
    let (server, client) = f.session().await;
    let mut blocked = within(stuck.open_uni()).await.unwrap();
    // Beyond the limit only what waits for its turn beside the other session.
    assert!((1000..300_000).contains(&fill(&mut blocked).await));

    let data = pattern(50_000);
    let mut send = within(client.open_uni()).await.unwrap();
    let write = async {
        send.write_all(&data).await.unwrap();
        send.finish().unwrap();
    };
    let read = async { server.accept_uni().await.unwrap().read_to_end(data.len()).await };
    let ((), got) = within(async { tokio::join!(write, read) }).await;
    assert!(got.unwrap() == data);
    assert!(waits(blocked.write(b"more")).await);
}

#[tokio::test]
async fn reading_lets_the_writer_go_on() {
    let f = fixture(Dialect::Draft15, TIGHT).await;
    let (server, client) = f.session().await;
    let mut first = within(client.open_uni()).await.unwrap();
    let mut second = within(client.open_uni()).await.unwrap();
    assert_eq!(fill(&mut first).await, 1000);
    // Both wait for the one limit, in turn; the first is forgotten by its task, which must not hold up the second.
    let write = async {
        second.write_all(&[1; 900]).await.unwrap();
        second.finish().unwrap();
    };
    let read = async {
        let mut unread = server.accept_uni().await.unwrap();
        let mut got = 0;
        while got < 1000 {
            got += unread.read_chunk(usize::MAX).await.unwrap().unwrap().len();
        }
        server.accept_uni().await.unwrap().read_to_end(900).await.unwrap()
    };
    let ((), got) = within(async { tokio::join!(write, read) }).await;
    assert_eq!(got, [1; 900]);
}

#[tokio::test]
async fn streams_wait_for_streams_to_end() {
    let f = fixture(Dialect::Draft15, TIGHT).await;
    let (server, client) = f.session().await;
    let read = async {
        for _ in 0..50 {
            let mut recv = server.accept_uni().await.unwrap();
            recv.read_to_end(10).await.unwrap();
        }
    };
    let write = async {
        for _ in 0..50 {
            let mut send = client.open_uni().await.unwrap();
            send.write_all(b"short").await.unwrap();
            send.finish().unwrap();
        }
    };
    within(async { tokio::join!(read, write) }).await;

    // Two that nobody ends, then none; the other direction has its own count.
    let open = (
        within(client.open_bi()).await.unwrap(),
        within(client.open_bi()).await.unwrap(),
    );
    let mut third = pin!(client.open_bi());
    assert!(waits(third.as_mut()).await);
    within(client.open_uni()).await.unwrap();
    let accepted = within(server.accept_bi()).await.unwrap();
    drop(accepted);
    drop(open);
    within(third).await.unwrap();
}

#[tokio::test]
async fn streams_that_nobody_accepts_count_even_when_they_are_over() {
    let f = fixture(Dialect::Draft15, TIGHT).await;
    let (server, client) = f.session().await;
    for _ in 0..2 {
        let mut send = within(client.open_uni()).await.unwrap();
        send.write_all(b"x").await.unwrap();
        send.finish().unwrap();
    }
    let mut third = pin!(client.open_uni());
    // A round trip shows that the server has seen them.
    client.send_datagram(b"?").unwrap();
    within(server.recv_datagram()).await.unwrap();
    assert!(waits(third.as_mut()).await);
    within(server.accept_uni()).await.unwrap();
    within(third).await.unwrap();
}

#[tokio::test]
async fn streams_given_up_early_do_not_use_up_the_session() {
    let f = fixture(Dialect::Draft15, TIGHT).await;
    let (server, client) = f.session().await;
    let drop_all = async { while server.accept_uni().await.is_ok() {} };
    let work = async {
        for round in 0..60 {
            let mut send = client.open_uni().await.unwrap();
            // Some are reset before their header can leave, some after as much as they may send.
            if round % 3 > 0 {
                let _ = send.write(&[0; 700]).await;
            }
            if round % 3 > 1 {
                let _ = send.stopped().await;
            }
        }
        client.close(0, "");
    };
    within(async { tokio::join!(drop_all, work) }).await;
}

#[tokio::test]
async fn as_many_sessions_as_the_server_wants_and_no_more() {
    let f = fixture(Dialect::Draft13, TIGHT).await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(f.session().await);
    }
    // Draft 14 section 5.2: the client knows how many are welcome.
    assert!(matches!(f.connect().await, Err(ConnectError::NoMoreSessions)));
    for (server, client) in &sessions {
        let mut send = within(client.open_uni()).await.unwrap();
        send.write_all(b"hello").await.unwrap();
        send.finish().unwrap();
        let mut recv = within(server.accept_uni()).await.unwrap();
        assert_eq!(within(recv.read_to_end(10)).await.unwrap(), b"hello");
    }
    let (server, client) = sessions.swap_remove(1);
    client.close(0, "");
    within(server.closed()).await;
    f.session().await;

    // Drafts 15 and 16 announce no number: the surplus is rejected, and nothing else suffers.
    let f = fixture(Dialect::Draft15, TIGHT).await;
    for _ in 0..3 {
        sessions.push(f.session().await);
    }
    assert!(within(f.connect()).await.is_err());
    assert!(
        sessions
            .iter()
            .all(|(server, client)| server.close_reason().is_none() && client.close_reason().is_none())
    );

    // Without flow control there is one.
    let f = fixture(Dialect::Draft15, FlowControl::OFF).await;
    let _one = f.session().await;
    assert!(matches!(f.connect().await, Err(ConnectError::NoMoreSessions)));
}

#[tokio::test]
async fn browsers_drafts_have_no_limits() {
    let f = fixture(Dialect::Draft02, TIGHT).await;
    let (_server, client) = f.session().await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut send = within(client.open_uni()).await.unwrap();
        within(send.write_all(&[0; 1000])).await.unwrap();
        streams.push(send);
    }
}
