//! What comes before its time: streams, datagrams and capsules ahead of the answer to the CONNECT, or of the CONNECT itself.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::raw::{Raw, answer, code, connect, frame_of, int, read_status, wt_bi, wt_uni};
use common::raw_server::{RawServer, accepted};
use common::{Fixture, fixture, fixture_with, within};
use futures_util::FutureExt;
use http::StatusCode;
use wireloom::{Client, ConnectError, Connection, EarlySession, ReadError, SessionError, SessionRequest, WriteError};
use wireloom_proto::{Code, capsule, connection};

/// A session that the server has been asked for and has not answered.
async fn asked(f: &Fixture) -> (Connection, EarlySession, SessionRequest) {
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let authority = f.server.local_addrs()[0].to_string();
    let early = within(connection.open_early(connection::SessionRequest::new(authority, "/early")))
        .await
        .unwrap();
    let request = within(f.server.accept()).await.unwrap();
    (connection, early, request)
}

/// Waits until the server has what the client sent before this.
async fn settled(f: &Fixture, connection: &Connection) {
    let get = http::Request::get(&f.url).body(Bytes::new()).unwrap();
    tokio::select! {
        answer = within(connection.request_whole(get, 100)) => assert_eq!(answer.unwrap().status(), StatusCode::NOT_FOUND),
        _ = f.server.accept() => panic!("no other session"),
    }
}

#[tokio::test]
async fn streams_and_datagrams_before_the_answer_arrive_when_the_session_is_accepted() {
    let f = fixture().await;
    let (connection, early, request) = asked(&f).await;
    let (mut bi, mut reply) = within(early.open_bi()).await.unwrap();
    let mut uni = within(early.open_uni()).await.unwrap();
    bi.write_all(b"bi").await.unwrap();
    bi.finish().unwrap();
    uni.write_all(b"first half, ").await.unwrap();
    early.send_datagram(b"datagram").unwrap();
    settled(&f, &connection).await;
    assert!(early.ready().now_or_never().is_none(), "nothing was answered");

    let server = request.accept().await.unwrap();
    let client = within(early.ready()).await.unwrap();
    assert_eq!(client.response().unwrap().status(), StatusCode::OK);
    drop(early);
    let (mut s_bi, mut s_recv) = within(server.accept_bi()).await.unwrap();
    assert_eq!(within(s_recv.read_to_end(100)).await.unwrap(), b"bi");
    s_bi.write_all(b"reply").await.unwrap();
    s_bi.finish().unwrap();
    assert_eq!(within(reply.read_to_end(100)).await.unwrap(), b"reply");
    uni.write_all(b"second half").await.unwrap();
    uni.finish().unwrap();
    let mut s_uni = within(server.accept_uni()).await.unwrap();
    assert_eq!(
        within(s_uni.read_to_end(100)).await.unwrap(),
        b"first half, second half"
    );
    assert_eq!(within(server.recv_datagram()).await.unwrap(), "datagram");
}

#[tokio::test]
async fn a_rejection_is_told_to_everything_that_was_begun_early() {
    let f = fixture().await;
    let (_connection, early, request) = asked(&f).await;
    let (mut send, mut recv) = within(early.open_bi()).await.unwrap();
    let mut unread = within(early.open_uni()).await.unwrap();
    let rejected = SessionError::Rejected {
        status: StatusCode::NOT_FOUND,
    };
    let reject = async { request.reject(StatusCode::NOT_FOUND) };
    // Those that wait at that moment.
    let (read, stopped, ready, ()) =
        within(async { tokio::join!(recv.read_chunk(1), unread.stopped(), early.ready(), reject) }).await;
    assert_eq!(read, Err(ReadError::Session(rejected.clone())));
    assert_eq!(stopped, Err(rejected.clone()));
    assert!(matches!(ready, Err(ConnectError::Rejected(r)) if r.status() == StatusCode::NOT_FOUND));
    // And those that come later.
    assert_eq!(send.write(b"x").await, Err(WriteError::Session(rejected.clone())));
    assert_eq!(within(early.open_uni()).await.err(), Some(rejected));
    assert!(matches!(within(early.ready()).await, Err(ConnectError::Rejected(_))));
}

#[tokio::test]
async fn the_server_keeps_so_many_early_streams_and_stops_the_others() {
    keeps(64, fixture().await).await;
    let wait = Duration::from_secs(60);
    keeps(5, fixture_with(|builder| builder.early_streams(5, 1 << 16, wait)).await).await;
}

async fn keeps(kept_streams: usize, f: Fixture) {
    let (connection, early, request) = asked(&f).await;
    let mut streams = Vec::new();
    for i in 0..kept_streams + 6 {
        let mut send = within(early.open_uni()).await.unwrap();
        send.write_all(&[u8::try_from(i).unwrap()]).await.unwrap();
        streams.push(send);
    }
    // "When the number of buffered datagrams is exceeded, a datagram MUST be dropped" (section 4.6).
    for _ in 0..2 * kept_streams {
        early.send_datagram(b"datagram").unwrap();
    }
    settled(&f, &connection).await;
    let server = request.accept().await.unwrap();
    assert!((1..=kept_streams as u64).contains(&server.stats().datagrams.received));
    let mut kept = Vec::new();
    for _ in 0..kept_streams {
        let mut recv = within(server.accept_uni()).await.unwrap();
        kept.push(within(recv.read_chunk(1)).await.unwrap().unwrap()[0]);
    }
    for (i, mut send) in streams.into_iter().enumerate() {
        if kept.contains(&u8::try_from(i).unwrap()) {
            assert!(send.finish().is_ok());
        } else {
            // WT_BUFFERED_STREAM_REJECTED is none of the application's codes.
            assert_eq!(within(send.stopped()).await, Ok(None), "{i}");
        }
    }
}

#[tokio::test]
async fn giving_up_early_cancels_the_request() {
    let f = fixture().await;
    let (_connection, early, request) = asked(&f).await;
    drop(early);
    let accepted = async {
        let monitor = f.server.monitor();
        while monitor.stats().sessions > 0 {
            tokio::task::yield_now().await;
        }
        request.accept().await
    };
    let cancelled = SessionError::Reset {
        code: Code::H3_REQUEST_CANCELLED,
    };
    assert_eq!(
        within(accepted).await.err(),
        Some(cancelled),
        "and nobody else is to blame"
    );
}

#[tokio::test]
async fn fields_that_the_client_does_not_take_are_this_sides_fault() {
    let f = fixture().await;
    let (_connection, early, request) = asked(&f).await;
    let large = http::HeaderValue::try_from("x".repeat(1 << 20)).unwrap();
    let accepted = request
        .response_header(http::HeaderName::from_static("x-large"), large)
        .accept();
    let refused = SessionError::LocallyClosed {
        code: 0,
        reason: String::new(),
    };
    assert_eq!(within(accepted).await.err(), Some(refused));
    let answer = within(early.ready()).await;
    assert!(
        matches!(&answer, Err(ConnectError::Rejected(r)) if r.status() == 500),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_client_that_nobody_answers_gives_up() {
    let f = fixture().await;
    let client = Client::builder().server_certificate_hash(f.hash);
    let client = client.connect_timeout(Duration::from_millis(1500)).build().unwrap();
    let early = within(client.session(&f.url).connect_early()).await.unwrap();
    let _request = within(f.server.accept()).await.unwrap();
    let timed_out = within(early.ready()).await;
    assert!(
        matches!(
            timed_out,
            Err(ConnectError::Connection(wireloom::ConnectionError::HandshakeTimedOut))
        ),
        "{timed_out:?}"
    );
}

/// "endpoints MUST limit the number of buffered streams and datagrams" (section 4.6): in time as well.
#[tokio::test]
async fn streams_without_a_session_expire() {
    let f = fixture().await;
    let raw = within(Raw::connect(f.server.local_addrs()[0])).await;
    // A session whose CONNECT never comes.
    let uni = raw.uni(&wt_uni(40, b"early")).await;
    let (bi, recv) = raw.bi(&wt_bi(40, b"early"), false).await;
    let rejected = Code::WT_BUFFERED_STREAM_REJECTED;
    assert_eq!(within(uni.stopped()).await.unwrap().map(code), Some(rejected));
    assert_eq!(within(bi.stopped()).await.unwrap().map(code), Some(rejected));
    assert_eq!(within(answer(recv)).await, common::raw::Answer::Reset(rejected));
}

fn capsule(ty: u64, payload: &[u8]) -> Vec<u8> {
    frame_of(0, &[int(ty), int(payload.len() as u64), payload.to_vec()].concat())
}

/// "A server MUST NOT process these bytes as capsules until it sends a 2xx response" (section 3.2).
#[tokio::test]
async fn capsules_before_the_answer_wait_for_it_however_many_they_are() {
    let f = fixture().await;
    let raw = within(Raw::connect(f.server.local_addrs()[0])).await;
    let drain = capsule(capsule::WT_DRAIN_SESSION, b"");
    let close = capsule(capsule::WT_CLOSE_SESSION, &[&[0, 0, 0, 7], &b"early"[..]].concat());
    // Far more than the server keeps.
    let filler = capsule(0x1234, &vec![0; 200_000]);
    let bytes = [connect("/early"), drain, filler, close].concat();
    let (mut send, mut recv) = raw.conn.open_bi().await.unwrap();
    let write = tokio::spawn(async move {
        send.write_all(&bytes).await.unwrap();
        send
    });
    let request = within(f.server.accept()).await.unwrap();
    assert_eq!(f.server.monitor().stats().sessions, 1, "the close does not count yet");
    let server = request.accept().await.unwrap();
    assert_eq!(within(read_status(&mut recv)).await, 200);
    within(server.draining()).await;
    assert_eq!(
        within(server.closed()).await,
        SessionError::Closed {
            code: 7,
            reason: "early".into()
        }
    );
    within(write).await.unwrap();
}

/// "On the server side, opening streams and sending datagrams is possible as soon as the CONNECT request has been received"
/// (section 4), and the network may turn the order round.
#[tokio::test]
async fn a_client_keeps_what_overtakes_the_answer() {
    let server = RawServer::new();
    let client = Client::builder().dangerous().accept_any_certificate().build().unwrap();
    let serve = async {
        let peer = server.accept().await;
        let (mut answer, _recv) = peer.request().await;
        let mut uni = peer.conn.open_uni().await.unwrap();
        uni.write_all(&wt_uni(0, b"uni")).await.unwrap();
        uni.finish().unwrap();
        let (mut bi, recv) = peer.conn.open_bi().await.unwrap();
        bi.write_all(&wt_bi(0, b"bi")).await.unwrap();
        bi.finish().unwrap();
        peer.conn
            .send_datagram([&[0], &b"datagram"[..]].concat().into())
            .unwrap();
        // Acknowledged, so there, before the answer is sent.
        assert_eq!(uni.stopped().await.unwrap(), None);
        answer.write_all(&accepted()).await.unwrap();
        (peer, answer, _recv, recv)
    };
    let url = server.url();
    let (client, _peer) = within(async { tokio::join!(client.connect(&url), serve) }).await;
    let client = client.unwrap();
    let mut uni = within(client.accept_uni()).await.unwrap();
    assert_eq!(within(uni.read_to_end(100)).await.unwrap(), b"uni");
    let (_send, mut bi) = within(client.accept_bi()).await.unwrap();
    assert_eq!(within(bi.read_to_end(100)).await.unwrap(), b"bi");
    assert_eq!(within(client.recv_datagram()).await.unwrap(), "datagram");
}
