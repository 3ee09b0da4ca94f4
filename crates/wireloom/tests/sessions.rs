//! Sessions, streams and datagrams between our own ends, over real QUIC on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::HashSet;

use bytes::Bytes;
use common::raw::{Answer, Raw, answer, frame_of, get};
use common::{fixture, fixture_with, within};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, StatusCode};
use wireloom::proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom::proto::{Code, capsule, h3};
use wireloom::{ConnectError, Priority, ReadError, ReadToEndError, Session, SessionError, WriteError};

#[tokio::test]
async fn a_bidirectional_stream_carries_bytes_both_ways_and_ends() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let (mut send, mut recv) = within(client.open_bi()).await.unwrap();
    send.write_all(b"ping").await.unwrap();
    send.finish().unwrap();
    let (mut s_send, mut s_recv) = within(server.accept_bi()).await.unwrap();
    assert_eq!(within(s_recv.read_to_end(100)).await.unwrap(), b"ping");
    s_send.write_chunk(Bytes::from_static(b"pong")).await.unwrap();
    s_send.finish().unwrap();
    assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"pong");
}

#[tokio::test]
async fn the_peer_sees_a_stream_before_anything_is_written() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let (_send, mut recv) = within(client.open_bi()).await.unwrap();
    let (mut s_send, _s_recv) = within(server.accept_bi()).await.unwrap();
    s_send.write_all(b"server first").await.unwrap();
    s_send.finish().unwrap();
    assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"server first");
}

#[tokio::test]
async fn the_server_opens_streams_too() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut uni = within(server.open_uni()).await.unwrap();
    uni.write_all(b"uni").await.unwrap();
    uni.finish().unwrap();
    assert_eq!(
        within(client.accept_uni())
            .await
            .unwrap()
            .read_to_end(100)
            .await
            .unwrap(),
        b"uni"
    );
    let (mut send, mut recv) = within(server.open_bi()).await.unwrap();
    send.finish().unwrap();
    let (mut c_send, mut c_recv) = within(client.accept_bi()).await.unwrap();
    assert_eq!(within(c_recv.read_to_end(100)).await.unwrap(), b"");
    c_send.write_all(b"bi").await.unwrap();
    c_send.finish().unwrap();
    assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"bi");
}

#[tokio::test]
async fn datagrams_go_both_ways_and_have_a_size() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    client.send_datagram(b"ping").unwrap();
    assert_eq!(within(server.recv_datagram()).await.unwrap(), "ping");
    server.send_datagram_wait(b"pong").await.unwrap();
    assert_eq!(within(client.recv_datagram()).await.unwrap(), "pong");
    let max = client.max_datagram_size().unwrap();
    assert!(max >= 1100, "{max}");
    assert!(client.send_datagram(&vec![0; max + 1000]).is_err());
}

#[tokio::test]
async fn twenty_mebibytes_arrive_intact() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let data: Vec<u8> = (0..20 << 20)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
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
    assert!(got.unwrap() == data);
}

#[tokio::test]
async fn two_thousand_streams_pass_the_limit_of_a_hundred() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let serve = async {
        for _ in 0..2000 {
            let (mut send, mut recv) = server.accept_bi().await.unwrap();
            tokio::spawn(async move {
                let got = recv.read_to_end(100).await.unwrap();
                send.write_all(&got).await.unwrap();
                send.finish().unwrap();
            });
        }
    };
    let ask = async {
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..2000u32 {
            let client = client.clone();
            tasks.spawn(async move {
                let (mut send, mut recv) = client.open_bi().await.unwrap();
                send.write_all(&i.to_be_bytes()).await.unwrap();
                send.finish().unwrap();
                assert_eq!(recv.read_to_end(100).await.unwrap(), i.to_be_bytes());
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    };
    within(async { tokio::join!(serve, ask) }).await;
}

/// "A WebTransport application MUST provide an error code for those operations" (draft 16 section 4.4).
/// "The error code from a WebTransport stream reset MUST be delivered unchanged" (draft 16 section 4.4).
#[tokio::test]
async fn reset_and_stop_codes_are_exact() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    for code in [0, 1, 29, 30, 31, 255, 256, 65_536, u32::MAX] {
        let (mut send, mut recv) = within(client.open_bi()).await.unwrap();
        let (mut s_send, mut s_recv) = within(server.accept_bi()).await.unwrap();
        send.reset(code);
        assert_eq!(within(s_recv.read_chunk(10)).await, Err(ReadError::Reset(Some(code))));
        recv.stop(code);
        assert_eq!(within(s_send.stopped()).await, Ok(Some(code)));
        assert_eq!(s_send.write(b"x").await, Err(WriteError::Stopped(Some(code))));
    }
}

#[tokio::test]
async fn a_dropped_stream_is_reset_and_never_looks_complete() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut send = within(client.open_uni()).await.unwrap();
    send.write_all(b"half a mess").await.unwrap();
    let mut recv = within(server.accept_uni()).await.unwrap();
    drop(send);
    let end = within(recv.read_to_end(100)).await;
    assert_eq!(end, Err(ReadToEndError::Read(ReadError::Reset(Some(0)))));
}

#[tokio::test]
async fn a_dropped_reader_stops_the_writer() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let mut send = within(client.open_uni()).await.unwrap();
    drop(within(server.accept_uni()).await.unwrap());
    assert_eq!(within(send.stopped()).await, Ok(Some(0)));
}

#[tokio::test]
async fn a_finished_stream_is_delivered_when_the_peer_has_it() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let finished = async || {
        let mut send = within(server.open_uni()).await.unwrap();
        send.write_all(&[7; 64 * 1024]).await.unwrap();
        send.finish().unwrap();
        // Nobody else has run on this thread.
        assert_eq!(send.delivered().now_or_never(), None);
        send
    };
    let mut send = finished().await;
    assert_eq!(within(send.delivered()).await, Ok(()));
    assert_eq!(within(send.delivered()).await, Ok(()), "and again");
    let mut given_up = finished().await;
    drop(finished().await);
    for _ in 0..3 {
        let mut recv = within(client.accept_uni()).await.unwrap();
        assert_eq!(within(recv.read_to_end(1 << 20)).await.unwrap().len(), 64 * 1024);
    }
    assert_eq!(within(given_up.delivered()).await, Ok(()));

    let mut late = finished().await;
    let mut open = within(server.open_uni()).await.unwrap();
    let mut reset = within(server.open_uni()).await.unwrap();
    reset.reset(1);
    server.close(3, "enough");
    let end = SessionError::LocallyClosed {
        code: 3,
        reason: "enough".into(),
    };
    for stream in [&mut late, &mut open, &mut reset] {
        assert_eq!(within(stream.delivered()).await, Err(end.clone().into()));
    }
    assert_eq!(within(send.delivered()).await, Ok(()), "what is delivered stays so");
}

/// What the peer stopped was not delivered, whether that was asked before the peer said so, soon after or much later.
#[tokio::test]
async fn a_finished_stream_that_is_stopped_is_not_delivered() {
    let f = fixture().await;
    // On a connection of its own, whose congestion window is small: not all of it goes out at once.
    let finished = async || {
        let (server, client) = f.session().await;
        let mut send = within(server.open_uni()).await.unwrap();
        send.write_all(&[7; 256 * 1024]).await.unwrap();
        send.finish().unwrap();
        (send, server, client)
    };
    let stop = async |client: &Session, code| within(client.accept_uni()).await.unwrap().stop(code);
    // Round trips, after which the server has heard of the stop, and the client has acknowledged what came of it.
    let settle = async |server: &Session, client: &Session| {
        for _ in 0..3 {
            within(client.open_uni()).await.unwrap().finish().unwrap();
            within(server.accept_uni()).await.unwrap();
            within(server.open_uni()).await.unwrap().finish().unwrap();
            within(client.accept_uni()).await.unwrap();
        }
    };
    let (mut send, _server, client) = finished().await;
    let (delivered, ()) = tokio::join!(within(send.delivered()), stop(&client, 5));
    assert_eq!(delivered, Err(WriteError::Stopped(Some(5))));
    assert_eq!(
        within(send.delivered()).await,
        Err(WriteError::Stopped(Some(5))),
        "and again"
    );

    let (mut given_up, server, client) = finished().await;
    assert_eq!(given_up.delivered().now_or_never(), None);
    stop(&client, 6).await;
    settle(&server, &client).await;
    assert_eq!(within(given_up.delivered()).await, Err(WriteError::Stopped(Some(6))));

    let (mut late, server, client) = finished().await;
    stop(&client, 7).await;
    settle(&server, &client).await;
    assert_eq!(within(late.delivered()).await, Err(WriteError::Stopped(Some(7))));

    // Many at once, of which nobody has asked.
    let mut many = Vec::new();
    for _ in 0..600 {
        let send = within(server.open_uni()).await.unwrap();
        many.push((send, within(client.accept_uni()).await.unwrap()));
    }
    for (send, recv) in &mut many {
        send.write_all(&[7; 16 * 1024]).await.unwrap();
        send.finish().unwrap();
        recv.stop(7);
    }
    settle(&server, &client).await;
    let mut stopped = 0;
    for (mut send, _) in many {
        stopped += usize::from(within(send.delivered()).await == Err(WriteError::Stopped(Some(7))));
    }
    // The others had arrived by then.
    assert!(stopped > 300, "{stopped}");
}

#[tokio::test]
async fn close_code_and_reason_arrive_both_ways() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let (_send, mut recv) = within(client.open_bi()).await.unwrap();
    client.close(42, "good bye");
    assert_eq!(
        within(server.closed()).await,
        SessionError::Closed {
            code: 42,
            reason: "good bye".into()
        }
    );
    assert_eq!(
        within(client.closed()).await,
        SessionError::LocallyClosed {
            code: 42,
            reason: "good bye".into()
        }
    );
    assert!(matches!(within(recv.read_chunk(1)).await, Err(ReadError::Session(e)) if e.is_closed()));
    assert!(within(server.accept_uni()).await.is_err());

    let (server, client) = f.session().await;
    server.close(u32::MAX, &"ü".repeat(600));
    let SessionError::Closed { code, reason } = within(client.closed()).await else {
        panic!("not closed")
    };
    assert_eq!((code, reason), (u32::MAX, "ü".repeat(512)));
}

#[tokio::test]
async fn close_arrives_even_if_the_client_is_shut_down_right_after() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    client.close(7, "last words");
    drop(client);
    within(f.client.shut_down()).await;
    assert_eq!(
        within(server.closed()).await,
        SessionError::Closed {
            code: 7,
            reason: "last words".into()
        }
    );
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_session() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let (send, recv) = within(client.open_bi()).await.unwrap();
    drop(client);
    let _ = within(server.accept_bi()).await.unwrap();
    assert!(server.close_reason().is_none(), "streams keep it open");
    drop((send, recv));
    assert_eq!(
        within(server.closed()).await,
        SessionError::Closed {
            code: 0,
            reason: String::new()
        }
    );
}

#[tokio::test]
async fn protocols_headers_status_and_request_reach_the_other_end() {
    let f = fixture().await;
    let serve = async {
        let request = f.server.accept().await.unwrap();
        assert_eq!(request.path(), "/test");
        assert_eq!(request.uri().query(), Some("x=1"));
        assert_eq!(request.offered_protocols(), ["b", "a"]);
        assert_eq!(request.headers()["x-token"], "t");
        assert_eq!(request.authority(), f.server.local_addrs()[0].to_string());
        let request = request
            .protocols(["a", "b", "c"])
            .response_header(HeaderName::from_static("x-answer"), HeaderValue::from_static("42"));
        request.accept().await.unwrap()
    };
    let connect = f
        .client
        .session(&f.url)
        .protocols(["b", "a"])
        .header(HeaderName::from_static("x-token"), HeaderValue::from_static("t"))
        .connect();
    let (_server, client) = within(async { tokio::join!(serve, connect) }).await;
    let client = client.unwrap();
    assert_eq!(client.protocol(), Some("b"));

    let serve = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let connect = f
        .client
        .session(&f.url)
        .protocols(["b", "a"])
        .require_protocol()
        .connect();
    let (_server, refused) = within(async { tokio::join!(serve, connect) }).await;
    assert!(
        matches!(
            refused,
            Err(ConnectError::Session(SessionError::PeerMisbehaved {
                code: Code::WT_ALPN_ERROR,
                ..
            }))
        ),
        "{refused:?}"
    );
    assert_eq!(client.response().unwrap().headers()["x-answer"], "42");
}

#[tokio::test]
async fn rejections_carry_their_status_and_redirections_are_not_followed() {
    let f = fixture().await;
    for status in [StatusCode::NOT_FOUND, StatusCode::FOUND, StatusCode::TOO_MANY_REQUESTS] {
        let reject = async { f.server.accept().await.unwrap().reject(status) };
        let (_, client) = within(async { tokio::join!(reject, f.client.connect(&f.url)) }).await;
        assert!(matches!(client, Err(ConnectError::Rejected(r)) if r.status() == status));
    }
}

#[tokio::test]
async fn a_rejection_has_fields_and_a_body() {
    let f = fixture().await;
    for (status, len, told) in [(503, 10, 503), (503, 100_000, 503), (200, 0, 500)] {
        let response = http::Response::builder()
            .status(status)
            .header("retry-after", "30")
            .header("content-length", len)
            .body(Bytes::from(vec![b'x'; len]));
        let reject = async { f.server.accept().await.unwrap().reject_with(response.unwrap()) };
        let (_, client) = within(async { tokio::join!(reject, f.client.connect(&f.url)) }).await;
        let Err(ConnectError::Rejected(rejected)) = client else {
            panic!("{client:?}");
        };
        assert_eq!(rejected.status(), told);
        assert_eq!(rejected.headers().contains_key("retry-after"), told == 503);
        // What was cut has no length of its own any more.
        assert_eq!(rejected.headers().contains_key("content-length"), len == 10);
    }
}

#[tokio::test]
async fn a_reset_is_heard_without_reading() {
    // Without flow control, and with it.
    for dialect in [Dialect::Draft02, Dialect::Draft15] {
        let dialects = Dialects::NONE.with(dialect);
        let f = fixture_with(|builder| builder.dialects(dialects)).await;
        let (server, client) = f.session().await;
        let mut send = within(client.open_uni()).await.unwrap();
        send.write_all(b"first").await.unwrap();
        let mut recv = within(server.accept_uni()).await.unwrap();
        assert_eq!(within(recv.read_chunk(2)).await.unwrap().unwrap(), "fi");
        assert!(recv.received_reset().now_or_never().is_none());
        let reset = async {
            send.write_all(&[0; 1000]).await.unwrap();
            send.reset(7);
        };
        let (code, ()) = within(async { tokio::join!(recv.received_reset(), reset) }).await;
        assert_eq!(code, Ok(Some(7)));
        assert_eq!(within(recv.received_reset()).await, Ok(Some(7)), "and again");
        // What was taken with the first read is there; the rest never comes.
        assert_eq!(within(recv.read_chunk(100)).await.unwrap().unwrap(), "rst");
        assert_eq!(within(recv.read_chunk(100)).await, Err(ReadError::Reset(Some(7))));

        let mut send = within(client.open_uni()).await.unwrap();
        send.finish().unwrap();
        let mut recv = within(server.accept_uni()).await.unwrap();
        assert_eq!(within(recv.read_chunk(100)).await, Ok(None));
        let close = async { client.close(3, "") };
        let (end, ()) = within(async { tokio::join!(recv.received_reset(), close) }).await;
        assert_eq!(end.unwrap_err().code(), Some(3));
    }
}

#[tokio::test]
async fn orders_and_priorities_can_be_asked_for() {
    let f = fixture().await;
    let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let connect = f.client.session(&f.url).priority(Priority::new(1)).connect();
    let (server, client) = within(async { tokio::join!(accept, connect) }).await;
    let client = client.unwrap();
    assert_eq!(
        (client.priority(), server.priority()),
        (Priority::new(1), Priority::new(1))
    );
    client.set_priority(Priority::new(6));
    assert_eq!(client.priority(), Priority::new(6));
    let send = within(client.open_uni()).await.unwrap();
    assert_eq!(send.send_order(), 0);
    send.set_send_order(-5);
    assert_eq!(send.send_order(), -5);
    client.close(0, "");
    assert_eq!((client.priority(), send.send_order()), (Priority::default(), 0));
}

/// "the WebTransport server MUST verify the Origin header to ensure that the specified origin is allowed to access the
/// server in question" (draft 16 section 3.2).
#[tokio::test]
async fn a_foreign_origin_is_refused_and_an_allowed_one_is_not() {
    let f = fixture_with(|b| b.allow_origin("https://good.test")).await;
    let serve = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let dial = async {
        let foreign = f.client.session(&f.url).origin("https://evil.test").connect().await;
        assert!(matches!(foreign, Err(ConnectError::Rejected(r)) if r.status() == StatusCode::FORBIDDEN));
        f.client
            .session(&f.url)
            .origin("https://good.test")
            .connect()
            .await
            .unwrap()
    };
    within(async { tokio::join!(serve, dial) }).await;
}

#[tokio::test]
async fn draining_is_a_hint_and_everything_goes_on_working() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    server.drain();
    within(client.draining()).await;
    client.send_datagram(b"still here").unwrap();
    assert_eq!(within(server.recv_datagram()).await.unwrap(), "still here");
}

#[tokio::test]
async fn both_ends_export_the_same_keying_material_bound_to_label_and_context() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let ours: [u8; 32] = client.export_keying_material(b"label", b"context").unwrap();
    assert_eq!(server.export_keying_material(b"label", b"context"), Some(ours));
    assert_ne!(server.export_keying_material(b"labelc", b"ontext"), Some(ours));
    assert!(client.export_keying_material::<32>(&[0; 256], b"").is_none());
}

#[tokio::test]
async fn shutting_down_closes_what_is_left_with_code_and_reason() {
    let f = fixture_with(|b| b.shutdown_deadline(std::time::Duration::from_millis(1))).await;
    let (_server_session, client) = f.session().await;
    within(f.server.shut_down(9, "maintenance")).await;
    assert_eq!(
        within(client.closed()).await,
        SessionError::Closed {
            code: 9,
            reason: "maintenance".into()
        }
    );
    within(client.draining()).await;
}

#[tokio::test]
async fn a_session_survives_a_move_to_another_socket() {
    let f = fixture().await;
    let (server, client) = f.session().await;
    let before = server.remote_address();
    f.client.rebind().unwrap();
    let (mut send, _recv) = within(client.open_bi()).await.unwrap();
    send.write_all(b"moved").await.unwrap();
    let (_s, mut recv) = within(server.accept_bi()).await.unwrap();
    assert_eq!(within(recv.read_chunk(100)).await.unwrap().unwrap(), "moved");
    assert_ne!(server.remote_address(), before);
}

#[tokio::test]
async fn nothing_is_left_when_sessions_are_over() {
    let f = fixture().await;
    for _ in 0..3 {
        let (server, client) = f.session().await;
        let _ = within(client.open_bi()).await.unwrap();
        client.close(0, "");
        within(server.closed()).await;
    }
    assert_eq!(f.server.monitor().stats().sessions, 0);
    within(f.client.shut_down()).await;
    within(f.server.shut_down(0, "")).await;
    assert_eq!(f.server.monitor().stats().connections, 0);
}

#[tokio::test]
async fn a_closed_port_is_told_at_once_and_another_address_is_tried() {
    let f = fixture().await;
    // A port that was free a moment ago.
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = within(f.client.connect(&format!("https://{closed}/"))).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable)), "{refused:?}");
    // localhost is ::1 first, where the server does not listen.
    let url = format!("https://localhost:{}/test", f.server.local_addrs()[0].port());
    let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let (_, session) = within(async { tokio::join!(accept, f.client.connect(&url)) }).await;
    session.unwrap();
}

#[tokio::test]
async fn a_session_that_ends_before_the_client_has_it_says_why() {
    let f = fixture().await;
    for code in 0..20 {
        let serve = async {
            let session = f.server.accept().await.unwrap().accept().await.unwrap();
            session.close(code, "at once");
            session.closed().await;
        };
        let (_, client) = within(async { tokio::join!(serve, f.client.connect(&f.url)) }).await;
        let expected = SessionError::Closed {
            code,
            reason: "at once".into(),
        };
        match client {
            Ok(session) => assert_eq!(within(session.closed()).await, expected),
            Err(ConnectError::Session(error)) => assert_eq!(error, expected),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// "HTTP/3 Datagrams MUST NOT be sent unless the corresponding stream's send side is open" (RFC 9297 section 2.1).
/// "it MUST NOT send any new datagrams or open any new streams" (draft 16 section 6).
#[tokio::test]
async fn a_session_that_the_peer_stopped_sends_nothing_and_ends_with_its_reason() {
    let f = fixture().await;
    let raw = within(Raw::connect(f.server.local_addrs()[0])).await;
    let serve = async { f.server.accept().await.unwrap().accept().await.unwrap() };
    let (server, (mut send, mut recv)) = within(async { tokio::join!(serve, raw.session("/")) }).await;
    server.send_datagram(b"before").unwrap();
    assert_eq!(within(raw.conn.read_datagram()).await.unwrap(), &b"\0before"[..]);
    recv.stop(u32::try_from(Code::WT_SESSION_GONE.into_u64()).unwrap().into())
        .unwrap();
    // What is sent after it is answered, so it has arrived, unless its packet was lost.
    let (_send, after) = within(raw.bi(&get("/"), true)).await;
    within(async {
        tokio::select! {
            _ = f.server.accept() => panic!("a second session"),
            answer = answer(after) => assert_eq!(answer, Answer::Status(404)),
        }
        while server.open_uni().now_or_never().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    server.send_datagram(b"after").unwrap();
    let close = frame_of(h3::frame::DATA, &capsule::encode_close_session(9, "bye"));
    within(send.write_all(&close)).await.unwrap();
    send.finish().unwrap();
    let closed = SessionError::Closed {
        code: 9,
        reason: "bye".to_owned(),
    };
    assert_eq!(within(server.open_uni()).await.unwrap_err(), closed);
    assert!(raw.conn.read_datagram().now_or_never().is_none());
}

/// The first session of every connection has the same id on the wire.
// What is hashed never changes.
#[allow(clippy::mutable_key_type)]
#[tokio::test]
async fn sessions_are_told_apart() {
    let f = fixture().await;
    let (one, one_client) = f.session().await;
    let (two, two_client) = f.session().await;
    let all = [&one, &one_client, &two, &two_client];
    assert!(all.iter().all(|session| session.id() == 0));
    let distinct: HashSet<Session> = all.into_iter().chain(all).cloned().collect();
    assert_eq!(distinct.len(), 4);
    assert_eq!(one.clone(), one);
    assert_ne!(one, two);
    assert!(format!("{one:?}").contains(&format!("unique_id: {}", one.unique_id())));
}
