//! How sessions, streams and connections end, and that each end tells the application apart from the others.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use common::raw::{self, Answer, Raw, answer, code, connect, frame_of, int, read_status, wt_bi, wt_uni};
use common::raw_server::RawServer;
use common::{fixture, fixture_with, within};
use wireloom::{Client, ConnectError, ConnectionError, ReadError, Session, SessionError, WriteError};
use wireloom_proto::h3::settings::Settings;
use wireloom_proto::{Code, capsule, connection};

fn closed(code: u32, reason: &str) -> SessionError {
    SessionError::Closed {
        code,
        reason: reason.into(),
    }
}

fn close_capsule(code: u32, reason: &[u8]) -> Vec<u8> {
    let payload = [&code.to_be_bytes(), reason].concat();
    let capsule = [int(capsule::WT_CLOSE_SESSION), int(payload.len() as u64), payload];
    frame_of(0, &capsule.concat())
}

/// What a raw peer does to its CONNECT stream, and what the application has to see.
type End = (
    &'static str,
    fn(&quinn::Connection, &mut quinn::SendStream, &mut quinn::RecvStream),
    SessionError,
);

fn ends() -> Vec<End> {
    let cancelled = Code::H3_REQUEST_CANCELLED;
    vec![
        ("FIN", |_, send, _| send.finish().unwrap(), closed(0, "")),
        (
            "RESET",
            |_, send, _| send.reset(0x10c_u32.into()).unwrap(),
            SessionError::Reset { code: cancelled },
        ),
        (
            "STOP_SENDING",
            |_, _, recv| recv.stop(0x10c_u32.into()).unwrap(),
            SessionError::Stopped { code: cancelled },
        ),
        (
            "CONNECTION_CLOSE",
            |conn, _, _| conn.close(0x102_u32.into(), b"broken"),
            SessionError::Connection(ConnectionError::ClosedByPeer {
                code: Code::H3_INTERNAL_ERROR,
                reason: "broken".into(),
            }),
        ),
    ]
}

/// A session of a raw client, seen from both ends.
async fn raw_session(f: &common::Fixture, settings: Settings) -> (Raw, quinn::SendStream, quinn::RecvStream, Session) {
    let mut raw = within(Raw::silent(f.server.local_addrs()[0])).await;
    raw.start_with(settings).await;
    let (send, mut recv) = raw.bi(&connect("/wt"), false).await;
    let server = within(f.server.accept()).await.unwrap().accept().await.unwrap();
    assert_eq!(within(read_status(&mut recv)).await, 200);
    (raw, send, recv, server)
}

#[tokio::test]
async fn a_server_tells_apart_how_its_client_left() {
    let f = fixture_with(|b| b.idle_timeout(Duration::from_secs(3))).await;
    for (what, end, expected) in ends() {
        let (raw, mut send, mut recv, server) = raw_session(&f, raw::settings()).await;
        end(&raw.conn, &mut send, &mut recv);
        assert_eq!(within(server.closed()).await, expected, "{what}");
    }
    let (raw, mut send, _recv, server) = raw_session(&f, raw::settings()).await;
    send.write_all(&close_capsule(5, b"bye")).await.unwrap();
    assert_eq!(within(server.closed()).await, closed(5, "bye"));
    drop(raw);
    let (raw, _send, _recv, server) = raw_session(&f, raw::settings()).await;
    raw.vanish();
    let lost = within(server.closed()).await;
    assert_eq!(lost, SessionError::Connection(ConnectionError::TimedOut));
}

#[tokio::test]
async fn a_client_tells_apart_how_its_server_left() {
    let server = RawServer::new();
    for (what, end, expected) in ends() {
        let client = Client::builder().dangerous().accept_any_certificate().build().unwrap();
        let url = server.url();
        let serve = async {
            let peer = server.accept().await;
            let (send, recv) = peer.session().await;
            (peer, send, recv)
        };
        let (client, (peer, mut send, mut recv)) = within(async { tokio::join!(client.connect(&url), serve) }).await;
        end(&peer.conn, &mut send, &mut recv);
        assert_eq!(within(client.unwrap().closed()).await, expected, "{what}");
    }
}

#[tokio::test]
async fn streams_tell_apart_how_they_end() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let stream = async || {
        let (send, _recv) = within(client.open_bi()).await.unwrap();
        let (s_send, recv) = within(server.accept_bi()).await.unwrap();
        (send, recv, s_send, _recv)
    };
    let (mut send, mut recv, ..) = stream().await;
    send.finish().unwrap();
    assert_eq!(within(recv.read_chunk(1)).await, Ok(None));

    let (mut send, mut recv, ..) = stream().await;
    send.reset(9);
    assert_eq!(within(recv.read_chunk(1)).await, Err(ReadError::Reset(Some(9))));

    let (mut send, mut recv, ..) = stream().await;
    recv.stop(8);
    assert_eq!(within(send.stopped()).await, Ok(Some(8)));
    assert_eq!(send.write(b"x").await, Err(WriteError::Stopped(Some(8))));

    // Nobody is to take what was cut for the whole, though all of it is here.
    let mut send = within(client.open_uni()).await.unwrap();
    send.write_all(b"0123456789").await.unwrap();
    send.finish().unwrap();
    let mut recv = within(server.accept_uni()).await.unwrap();
    recv.stop(5);
    assert_eq!(within(recv.read_chunk(1)).await, Err(ReadError::Stopped));

    let (mut send, mut recv, ..) = stream().await;
    client.close(7, "over");
    assert_eq!(
        within(recv.read_chunk(1)).await,
        Err(ReadError::Session(closed(7, "over")))
    );
    assert!(matches!(
        send.write(b"x").await,
        Err(WriteError::Session(SessionError::LocallyClosed { code: 7, .. }))
    ));

    let (server, client) = f.session().await;
    let (_send, mut recv) = within(client.open_bi()).await.unwrap();
    let (mut s_send, _s_recv) = within(server.accept_bi()).await.unwrap();
    drop(f.server);
    let lost = within(recv.read_chunk(1)).await;
    let closed = |e: &SessionError| matches!(e, SessionError::Connection(ConnectionError::ClosedByPeer { code, .. }) if *code == Code::H3_NO_ERROR);
    assert!(matches!(&lost, Err(ReadError::Session(e)) if closed(e)), "{lost:?}");
    let lost = s_send.write(b"x").await;
    let local = SessionError::Connection(ConnectionError::LocallyClosed);
    assert_eq!(lost, Err(WriteError::Session(local)));
}

/// "Upon learning that the session has been terminated, the endpoint MUST reset the send side and abort reading on the
/// receive side of all [...] streams associated with the session [...] using the WT_SESSION_GONE error code" (section 6).
/// Draft 02 names no code for that and no other dialect another one, so every peer gets this.
#[tokio::test]
async fn the_peers_streams_are_reset_in_every_dialect() {
    let f = fixture().await;
    for settings in [raw::settings(), raw::settings_draft15()] {
        let (raw, _connect, recv, server) = raw_session(&f, settings).await;
        let (bi, bi_recv) = raw.bi(&wt_bi(0, b"x"), false).await;
        let uni = raw.uni(&wt_uni(0, b"x")).await;
        let _accepted = within(server.accept_bi()).await.unwrap();
        let _accepted = within(server.accept_uni()).await.unwrap();
        server.close(3, "enough");
        let gone = Code::WT_SESSION_GONE;
        assert_eq!(within(answer(bi_recv)).await, Answer::Reset(gone));
        assert_eq!(within(bi.stopped()).await.unwrap().map(code), Some(gone));
        assert_eq!(within(uni.stopped()).await.unwrap().map(code), Some(gone));
        let mut recv = recv;
        let capsule = within(recv.read_to_end(100)).await.unwrap();
        assert_eq!(capsule, close_capsule(3, b"enough"));
    }
}

#[tokio::test]
async fn reasons_have_1024_bytes_of_utf8() {
    let f = fixture().await;
    let full = "r".repeat(1024);
    let (_raw, mut send, _recv, server) = raw_session(&f, raw::settings()).await;
    send.write_all(&close_capsule(1, full.as_bytes())).await.unwrap();
    assert_eq!(within(server.closed()).await, closed(1, &full));
    for reason in [&[b'r'; 1025][..], b"\xe2\x82"] {
        let (raw, mut send, recv, server) = raw_session(&f, raw::settings()).await;
        send.write_all(&close_capsule(1, reason)).await.unwrap();
        assert_eq!(within(answer(recv)).await, Answer::Reset(Code::H3_MESSAGE_ERROR));
        let ended = within(server.closed()).await;
        assert!(
            matches!(ended, SessionError::PeerMisbehaved { code, .. } if code == Code::H3_MESSAGE_ERROR),
            "{ended:?}"
        );
        // The session's fault is not the connection's.
        assert!(raw.conn.close_reason().is_none());
    }
    // 1024 is no multiple of the three bytes of a euro sign.
    for (said, arrives) in [("€".repeat(400), 341), ("€".repeat(341), 341)] {
        let (server, client) = f.session().await;
        server.close(2, &said);
        assert_eq!(within(client.closed()).await, closed(2, &"€".repeat(arrives)));
    }
}

#[tokio::test]
async fn codes_arrive_although_the_connection_is_closed_right_after() {
    let f = fixture().await;
    for i in 0..20 {
        let connection = within(f.client.dial(&f.url)).await.unwrap();
        let authority = f.server.local_addrs()[0].to_string();
        let request = connection::SessionRequest::new(authority, "/wt");
        let accept = async || f.server.accept().await.unwrap().accept().await.unwrap();
        let (first, s_first) = within(async { tokio::join!(connection.open(request.clone()), accept()) }).await;
        let (second, s_second) = within(async { tokio::join!(connection.open(request.clone()), accept()) }).await;
        let (first, _second) = (first.unwrap(), second.unwrap());
        first.close(i, "last words");
        connection.close();
        // Nothing new is possible, although QUIC's connection is there for a moment.
        let refused = within(connection.open(request)).await;
        let gone = ConnectError::Connection(ConnectionError::LocallyClosed);
        assert_eq!(refused.unwrap_err().to_string(), gone.to_string());
        assert_eq!(within(s_first.closed()).await, closed(i, "last words"));
        assert_eq!(within(s_second.closed()).await, closed(0, ""));
        within(connection.draining()).await;
    }
    let monitor = f.server.monitor();
    let gone = async {
        while monitor.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
}

#[tokio::test]
async fn codes_arrive_although_the_server_is_shut_down_right_after() {
    for code in 0..5 {
        let f = fixture_with(|b| b.shutdown_deadline(Duration::ZERO)).await;
        let (server, client) = f.session().await;
        server.close(code, "last words");
        within(f.server.shut_down(99, "too late")).await;
        assert_eq!(within(client.closed()).await, closed(code, "last words"));
    }
}

#[tokio::test]
async fn each_end_can_ask_the_other_to_drain() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    client.drain();
    within(server.draining()).await;
    server.drain();
    within(client.draining()).await;
    client.send_datagram(b"still here").unwrap();
    assert_eq!(within(server.recv_datagram()).await.unwrap(), "still here");
    client.close(0, "");

    // GOAWAY of a client.
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let request = connection::SessionRequest::new(f.server.local_addrs()[0].to_string(), "/wt");
    let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let (client, server) = within(async { tokio::join!(connection.open(request.clone()), accept) }).await;
    let client = client.unwrap();
    connection.drain();
    within(server.draining()).await;
    let refused = within(connection.open(request.clone())).await;
    assert!(matches!(refused, Err(ConnectError::NoMoreSessions)), "{refused:?}");
    server.send_datagram(b"still here").unwrap();
    assert_eq!(within(client.recv_datagram()).await.unwrap(), "still here");
    client.close(0, "");

    // GOAWAY of a server.
    let connection = within(f.client.dial(&f.url)).await.unwrap();
    let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let (client, server) = within(async { tokio::join!(connection.open(request.clone()), accept) }).await;
    let client = client.unwrap();
    let rest = async {
        connection.draining().await;
        client.draining().await;
        let refused = connection.open(request).await;
        assert!(matches!(refused, Err(ConnectError::NoMoreSessions)), "{refused:?}");
        client.send_datagram(b"still here").unwrap();
        assert_eq!(server.recv_datagram().await.unwrap(), "still here");
        client.close(0, "");
    };
    within(async { tokio::join!(f.server.shut_down(0, ""), rest) }).await;
}

/// A session that failed here is reset, which is no close with a code; the connection goes on.
#[tokio::test]
async fn an_aborted_session_is_reset() {
    let fixture = fixture().await;
    let (here, there) = fixture.session().await;
    let (mut send, _recv) = within(here.open_bi()).await.unwrap();
    there.abort();
    let ended = within(here.closed()).await;
    assert_eq!(
        ended,
        SessionError::Reset {
            code: Code::H3_INTERNAL_ERROR
        }
    );
    assert!(!ended.is_closed());
    assert!(within(send.write_all(b"late")).await.is_err());
    // Once more is harmless.
    there.abort();
}
