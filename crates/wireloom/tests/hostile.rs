//! A peer that breaks the rules, over real QUIC: each gets the code and the scope that the specification names, and a session
//! of somebody else goes on meanwhile.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get as route, post};
use common::raw::{Answer, Raw, answer, connect, frame_of, get, head, int, read_status, settings, wt_bi, wt_uni};
use common::{Running, fixture_with, run, within};
use futures_util::FutureExt;
use wireloom::{ServerBuilder, Session, WebTransportUpgrade};
use wireloom_proto::{Code, capsule};

async fn echo(session: Session) {
    loop {
        tokio::select! {
            Ok((mut send, mut recv)) = session.accept_bi() => {
                tokio::spawn(async move {
                    while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX).await {
                        send.write_chunk(chunk).await.unwrap();
                    }
                    let _ = send.finish();
                });
            }
            Ok(datagram) = session.recv_datagram() => {
                let _ = session.send_datagram(&datagram);
            }
            _ = session.closed() => return,
        }
    }
}

fn app() -> Router {
    Router::new()
        .route("/", route(|| async { "hello" }))
        .route("/body", post(|body: axum::body::Bytes| async move { body }))
        .route(
            "/wt",
            any(|upgrade: WebTransportUpgrade| async move { upgrade.on_upgrade(echo) }),
        )
        .route("/slow", route(|| async { std::future::pending::<()>().await }))
}

struct Hostile {
    server: SocketAddr,
    running: Running,
    bystander: Session,
}

async fn hostile() -> Hostile {
    hostile_with(|builder| builder).await
}

async fn hostile_with(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Hostile {
    let running = run(app(), configure).await;
    let bystander = running.connect("/wt").await.unwrap();
    Hostile {
        server: running.url.strip_prefix("https://").unwrap().parse().unwrap(),
        running,
        bystander,
    }
}

impl Hostile {
    async fn assert_undisturbed(&self) {
        let (mut send, mut recv) = within(self.bystander.open_bi()).await.unwrap();
        send.write_all(b"still here").await.unwrap();
        send.finish().unwrap();
        assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"still here");
    }

    async fn raw(&self) -> Raw {
        within(Raw::connect(self.server)).await
    }
}

const HEADERS: u64 = 1;
const DATA: u64 = 0;

fn post_of(length: &str, body: &[u8]) -> Vec<u8> {
    let head = head(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/body"),
        ("content-length", length),
    ]);
    [head, frame_of(DATA, body)].concat()
}

/// GET / with more fields.
fn get_with(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/"),
    ];
    all.extend_from_slice(fields);
    head(&all)
}

#[tokio::test]
async fn control_streams() {
    let f = hostile().await;
    let settings = settings().encode_frame().to_vec();
    let control = |rest: &[u8]| [&[0][..], &settings, rest].concat();
    let setting = |pairs: &[(u64, u64)]| {
        let payload: Vec<u8> = pairs
            .iter()
            .flat_map(|&(id, value)| [int(id), int(value)].concat())
            .collect();
        [vec![0], frame_of(4, &payload)].concat()
    };
    // The number is that of the list in RFC order: what, then on which stream.
    let cases: Vec<(&str, Vec<u8>, bool, Code)> = vec![
        (
            "no SETTINGS first",
            [vec![0], frame_of(0x0d, &int(1))].concat(),
            false,
            Code::H3_MISSING_SETTINGS,
        ),
        ("control closed", control(&[]), true, Code::H3_CLOSED_CRITICAL_STREAM),
        ("second SETTINGS", control(&settings), false, Code::H3_FRAME_UNEXPECTED),
        ("DATA", control(&frame_of(DATA, b"x")), false, Code::H3_FRAME_UNEXPECTED),
        ("HEADERS", control(&get("/")), false, Code::H3_FRAME_UNEXPECTED),
        (
            "PUSH_PROMISE",
            control(&frame_of(5, &int(0))),
            false,
            Code::H3_FRAME_UNEXPECTED,
        ),
        (
            "HTTP/2 PRIORITY",
            control(&frame_of(2, &[])),
            false,
            Code::H3_FRAME_UNEXPECTED,
        ),
        (
            "HTTP/2 PING",
            control(&frame_of(6, &[])),
            false,
            Code::H3_FRAME_UNEXPECTED,
        ),
        (
            "MAX_PUSH_ID too long",
            control(&frame_of(0x0d, &[1, 2])),
            false,
            Code::H3_FRAME_ERROR,
        ),
        (
            "MAX_PUSH_ID decreased",
            control(&[frame_of(0x0d, &int(9)), frame_of(0x0d, &int(8))].concat()),
            false,
            Code::H3_ID_ERROR,
        ),
        (
            "GOAWAY increased",
            control(&[frame_of(7, &int(4)), frame_of(7, &int(8))].concat()),
            false,
            Code::H3_ID_ERROR,
        ),
        ("HTTP/2 setting", setting(&[(2, 0)]), false, Code::H3_SETTINGS_ERROR),
        (
            "duplicate setting",
            setting(&[(6, 1), (6, 1)]),
            false,
            Code::H3_SETTINGS_ERROR,
        ),
        ("H3_DATAGRAM 2", setting(&[(0x33, 2)]), false, Code::H3_SETTINGS_ERROR),
        ("push stream", vec![1, 0], false, Code::H3_STREAM_CREATION_ERROR),
        ("QPACK encoder closed", vec![2], true, Code::H3_CLOSED_CRITICAL_STREAM),
        (
            "QPACK capacity",
            vec![2, 0x3f, 0xe2, 0x1f],
            false,
            Code::QPACK_ENCODER_STREAM_ERROR,
        ),
        ("QPACK increment 0", vec![3, 0], false, Code::QPACK_DECODER_STREAM_ERROR),
        (
            "QPACK acknowledgement",
            vec![3, 0x80],
            false,
            Code::QPACK_DECODER_STREAM_ERROR,
        ),
        ("uni session id", wt_uni(2, b"x"), false, Code::H3_ID_ERROR),
    ];
    for (what, bytes, fin, code) in cases {
        let raw = within(Raw::silent(f.server)).await;
        let mut stream = raw.uni(&bytes).await;
        if fin {
            stream.finish().unwrap();
        }
        assert_eq!(within(raw.closed_as(what)).await, code, "{what}");
    }
    for ty in [0, 2, 3] {
        let raw = f.raw().await;
        let (_one, _two) = (raw.uni(&[ty]).await, raw.uni(&[ty]).await);
        assert_eq!(
            within(raw.closed()).await,
            Code::H3_STREAM_CREATION_ERROR,
            "second {ty}"
        );
    }
    let raw = within(Raw::silent(f.server)).await;
    let mut control = raw.uni(&control(&[])).await;
    // A stream that is reset before its type arrived is one that never was.
    within(raw.assert_alive()).await;
    control.reset(7u32.into()).unwrap();
    assert_eq!(within(raw.closed()).await, Code::H3_CLOSED_CRITICAL_STREAM);
    // Nobody may stop our control stream either.
    let raw = f.raw().await;
    within(raw.assert_alive()).await;
    within(raw.conn.accept_uni()).await.unwrap().stop(7u32.into()).unwrap();
    assert_eq!(within(raw.closed()).await, Code::H3_CLOSED_CRITICAL_STREAM);
    f.assert_undisturbed().await;
}

#[tokio::test]
async fn request_streams_that_close_the_connection() {
    let f = hostile().await;
    let after = |rest: &[u8]| [get("/"), rest.to_vec()].concat();
    let cases: Vec<(&str, Vec<u8>, bool, Code)> = vec![
        ("SETTINGS", after(&frame_of(4, &[])), false, Code::H3_FRAME_UNEXPECTED),
        (
            "CANCEL_PUSH",
            after(&frame_of(3, &int(0))),
            false,
            Code::H3_FRAME_UNEXPECTED,
        ),
        ("GOAWAY", after(&frame_of(7, &int(0))), false, Code::H3_FRAME_UNEXPECTED),
        (
            "MAX_PUSH_ID",
            after(&frame_of(0x0d, &int(0))),
            false,
            Code::H3_FRAME_UNEXPECTED,
        ),
        (
            "PUSH_PROMISE",
            after(&frame_of(5, &int(0))),
            false,
            Code::H3_FRAME_UNEXPECTED,
        ),
        (
            "HTTP/2 frame",
            after(&frame_of(8, &[])),
            false,
            Code::H3_FRAME_UNEXPECTED,
        ),
        ("DATA first", frame_of(DATA, b"x"), false, Code::H3_FRAME_UNEXPECTED),
        (
            "frame after trailers",
            [post_of("1", b"x"), head(&[("a", "b")]), frame_of(DATA, b"x")].concat(),
            false,
            Code::H3_FRAME_UNEXPECTED,
        ),
        ("FIN inside a frame", get("/")[..9].to_vec(), true, Code::H3_FRAME_ERROR),
        ("FIN inside a frame's type", vec![0x40], true, Code::H3_FRAME_ERROR),
        ("WT_STREAM later", after(&wt_bi(0, b"x")), false, Code::H3_FRAME_ERROR),
        ("bidi session id", wt_bi(1, b"x"), false, Code::H3_ID_ERROR),
        (
            "static index",
            frame_of(HEADERS, &[0, 0, 0xff, 0x80, 0x01]),
            true,
            Code::QPACK_DECOMPRESSION_FAILED,
        ),
        (
            "insert count",
            frame_of(HEADERS, &[0x82, 0, 0x80]),
            true,
            Code::QPACK_DECOMPRESSION_FAILED,
        ),
        (
            "bad Huffman",
            frame_of(
                HEADERS,
                &[0, 0, 0x2f, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
            ),
            true,
            Code::QPACK_DECOMPRESSION_FAILED,
        ),
        ("empty frames", [0x21, 0].repeat(2000), false, Code::H3_EXCESSIVE_LOAD),
    ];
    for (what, bytes, fin, code) in cases {
        let raw = f.raw().await;
        let _stream = raw.bi(&bytes, fin).await;
        assert_eq!(within(raw.closed_as(what)).await, code, "{what}");
    }
    f.assert_undisturbed().await;
}

/// RFC 9204 section 2.1.2: a request waits for what the encoder stream has yet to bring; one stream more than announced breaks
/// the connection.
#[tokio::test]
async fn requests_that_wait_for_qpack() {
    let f = hostile().await;
    // GET https with :authority and :path from the dynamic table.
    let request = frame_of(HEADERS, &[0x03, 0x81, 0xd1, 0xd7, 0x10, 0x11]);
    let raw = f.raw().await;
    let mut encoder = raw.uni(&[2]).await;
    let (_send, mut recv) = raw.bi(&request, true).await;
    let (mut given_up, _) = raw.bi(&request, false).await;
    f.assert_undisturbed().await;
    given_up.reset(0x10cu32.into()).unwrap();
    encoder
        .write_all(b"\x3f\xbd\x01\xc0\x09localhost\xc1\x01/")
        .await
        .unwrap();
    assert_eq!(within(read_status(&mut recv)).await, 200);

    let raw = f.raw().await;
    let mut waiting = Vec::new();
    for _ in 0..17 {
        waiting.push(raw.bi(&request, true).await);
    }
    let code = within(raw.closed_as("blocked streams")).await;
    assert_eq!(code, Code::QPACK_DECOMPRESSION_FAILED);
    f.assert_undisturbed().await;
}

#[tokio::test]
async fn requests_that_are_malformed() {
    let f = hostile().await;
    let raw = f.raw().await;
    let malformed = Answer::Reset(Code::H3_MESSAGE_ERROR);
    let big = "x".repeat(70_000);
    let cases: Vec<(&str, Vec<u8>, Answer)> = vec![
        ("duplicate", get_with(&[(":path", "/")]), malformed),
        (
            "missing",
            head(&[(":method", "GET"), (":scheme", "https"), (":authority", "a")]),
            malformed,
        ),
        ("late", get_with(&[("a", "b"), (":protocol", "x")]), malformed),
        ("unknown", get_with(&[(":unknown", "x")]), malformed),
        ("upper case", get_with(&[("Accept", "x")]), malformed),
        ("connection", get_with(&[("connection", "close")]), malformed),
        (
            "transfer-encoding",
            get_with(&[("transfer-encoding", "chunked")]),
            malformed,
        ),
        ("te", get_with(&[("te", "gzip")]), malformed),
        ("LF", get_with(&[("a", "b\nc")]), malformed),
        ("NUL", get_with(&[("a", "b\0c")]), malformed),
        ("too long", post_of("1", b"xy"), malformed),
        ("too short", post_of("3", b"xy"), malformed),
        ("Host", get_with(&[("host", "b")]), malformed),
        (
            "CONNECT with path",
            head(&[(":method", "CONNECT"), (":authority", "a"), (":path", "/")]),
            malformed,
        ),
        ("protocol on GET", get_with(&[(":protocol", "webtransport")]), malformed),
        (
            "unknown protocol",
            head(&[
                (":method", "CONNECT"),
                (":protocol", "x"),
                (":scheme", "https"),
                (":authority", "a"),
                (":path", "/"),
            ]),
            Answer::Status(501),
        ),
        ("oversized", get_with(&[("a", &big)]), Answer::Status(431)),
        (
            "plain http",
            head(&[
                (":method", "CONNECT"),
                (":protocol", "webtransport"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", "/wt"),
            ]),
            malformed,
        ),
        (
            "foreign origin",
            head(&[
                (":method", "CONNECT"),
                (":protocol", "webtransport"),
                (":scheme", "https"),
                (":authority", "a"),
                (":path", "/wt"),
                ("origin", "https://evil.test"),
            ]),
            Answer::Status(403),
        ),
        ("no WebTransport here", connect("/"), Answer::Status(405)),
        ("incomplete", vec![], Answer::Reset(Code::H3_REQUEST_INCOMPLETE)),
        (
            "unknown frames alone",
            frame_of(0x21, b"x"),
            Answer::Reset(Code::H3_REQUEST_INCOMPLETE),
        ),
        (
            "grease",
            [frame_of(0x21, b"x"), get("/"), frame_of(0x1f * 7 + 0x21, b"")].concat(),
            Answer::Status(200),
        ),
    ];
    for (what, bytes, expected) in cases {
        let (_send, recv) = raw.bi(&bytes, true).await;
        assert_eq!(within(answer(recv)).await, expected, "{what}");
    }
    // Streams of unknown types are stopped, and the connection goes on.
    let mut unknown = raw.uni(&[0x21, 1, 2, 3]).await;
    assert!(within(unknown.stopped()).await.unwrap().is_some());
    unknown.finish().ok();
    raw.uni(&[0x40]).await.reset(9u32.into()).unwrap();
    within(raw.assert_alive()).await;
    f.assert_undisturbed().await;
}

#[tokio::test]
async fn sessions_that_break_their_rules() {
    let f = hostile().await;
    let raw = f.raw().await;
    let capsule =
        |ty: u64, payload: &[u8]| frame_of(DATA, &[int(ty), int(payload.len() as u64), payload.to_vec()].concat());
    let close = |reason: &[u8]| capsule(capsule::WT_CLOSE_SESSION, &[&[0, 0, 0, 5], reason].concat());
    let error = Answer::Reset(Code::H3_MESSAGE_ERROR);
    let cases: Vec<(&str, Vec<u8>, bool, Answer)> = vec![
        ("FIN inside a capsule", frame_of(DATA, &[0x68, 0x43, 9, 0]), true, error),
        ("long reason", close(&[b'x'; 1025]), false, error),
        ("not UTF-8", close(&[0xff]), false, error),
        (
            "data after close",
            [close(b""), frame_of(DATA, b"x")].concat(),
            false,
            error,
        ),
        (
            "short close",
            capsule(capsule::WT_CLOSE_SESSION, &[0, 0, 5]),
            false,
            error,
        ),
        ("close", close(b"bye"), false, Answer::Empty),
        ("FIN", vec![], true, Answer::Empty),
        (
            "unknown capsule",
            [capsule(0x1234, b"xyz"), close(b"")].concat(),
            false,
            Answer::Empty,
        ),
        (
            "flow control while off",
            [capsule(capsule::WT_MAX_DATA, &int(5)), close(b"")].concat(),
            false,
            Answer::Empty,
        ),
    ];
    for (what, bytes, fin, expected) in cases {
        let (mut send, recv) = within(raw.session("/wt")).await;
        let session = u64::from(send.id());
        let (_bi, bi) = raw.bi(&wt_bi(session, b"x"), false).await;
        send.write_all(&bytes).await.unwrap();
        if fin {
            send.finish().unwrap();
        }
        assert_eq!(within(answer(recv)).await, expected, "{what}");
        // The end of the session ends its streams.
        assert_eq!(within(answer(bi)).await, Answer::Reset(Code::WT_SESSION_GONE), "{what}");
        // So for those that come later.
        let (_bi, bi) = raw.bi(&wt_bi(session, b"x"), false).await;
        assert_eq!(within(answer(bi)).await, Answer::Reset(Code::WT_SESSION_GONE), "{what}");
        let late = raw.uni(&wt_uni(session, b"x")).await;
        assert_eq!(
            within(late.stopped()).await.unwrap().map(common::raw::code),
            Some(Code::WT_SESSION_GONE),
            "{what}"
        );
        raw.conn
            .send_datagram([int(session / 4), b"gone".to_vec()].concat().into())
            .unwrap();
    }
    // A capsule of 2^62 - 1 bytes allocates nothing; it just never ends.
    let (mut send, _recv) = within(raw.session("/wt")).await;
    send.write_all(&frame_of(
        DATA,
        &[int(0x1234), int((1 << 62) - 1), vec![0; 9000]].concat(),
    ))
    .await
    .unwrap();
    within(raw.assert_alive()).await;
    // Anything but DATA ends the connection.
    send.write_all(&get("/")).await.unwrap();
    assert_eq!(within(raw.closed()).await, Code::H3_FRAME_UNEXPECTED);
    f.assert_undisturbed().await;
}

#[tokio::test]
async fn datagrams() {
    let f = hostile().await;
    for bytes in [vec![], vec![0x40], int(1 << 60)] {
        let raw = f.raw().await;
        within(raw.assert_alive()).await;
        raw.conn.send_datagram(bytes.clone().into()).unwrap();
        assert_eq!(within(raw.closed()).await, Code::H3_DATAGRAM_ERROR, "{bytes:?}");
    }
    // A flood before its session: bounded, and the rest dropped; then the session works.
    let raw = f.raw().await;
    within(raw.assert_alive()).await;
    for _ in 0..2000 {
        raw.conn
            .send_datagram_wait([int(1), vec![b'e'; 1000]].concat().into())
            .await
            .unwrap();
    }
    let (send, _recv) = within(raw.session("/wt")).await;
    assert_eq!(u64::from(send.id()), 4);
    within(raw.assert_alive()).await;
    f.assert_undisturbed().await;
}

#[tokio::test]
async fn a_session_is_held_until_settings_and_flow_control_is_not_assumed() {
    let f = hostile().await;
    let mut raw = within(Raw::silent(f.server)).await;
    let (_send, mut recv) = raw.bi(&connect("/wt"), false).await;
    raw.start().await;
    assert_eq!(within(read_status(&mut recv)).await, 200);

    // SETTINGS without WebTransport.
    let mut raw = within(Raw::silent(f.server)).await;
    raw.control = Some(raw.uni(&[vec![0], frame_of(4, &[])].concat()).await);
    let (_send, recv) = raw.bi(&connect("/wt"), false).await;
    assert_eq!(within(answer(recv)).await, Answer::Reset(Code::H3_MESSAGE_ERROR));
    within(raw.assert_alive()).await;

    // A newer draft without flow control: one session.
    let mut raw = within(Raw::silent(f.server)).await;
    let draft15 = [int(0x33), int(1), int(0x2c7c_f000), int(1)].concat();
    raw.control = Some(raw.uni(&[vec![0], frame_of(4, &draft15)].concat()).await);
    let (_one, _recv) = within(raw.session("/wt")).await;
    let (_two, recv) = raw.bi(&connect("/wt"), false).await;
    assert_eq!(within(answer(recv)).await, Answer::Reset(Code::H3_REQUEST_REJECTED));
    f.assert_undisturbed().await;
}

#[tokio::test]
async fn early_streams_are_bounded_and_the_rest_refused() {
    let f = hostile().await;
    let raw = f.raw().await;
    let mut early = Vec::new();
    for _ in 0..65 {
        early.push(raw.uni(&wt_uni(0, b"early")).await);
    }
    // What is left of them reaches the session.
    let _ = within(futures_util::future::select_all(
        early.iter().map(|s| Box::pin(s.stopped())),
    ))
    .await;
    let (_send, _recv) = within(raw.session("/wt")).await;
    let mut rejected = 0;
    for stream in early {
        // The server reads no unidirectional streams: it stops none of those that it got.
        if let Some(Ok(Some(code))) = stream.stopped().now_or_never() {
            assert_eq!(common::raw::code(code), Code::WT_BUFFERED_STREAM_REJECTED);
            rejected += 1;
        }
    }
    assert_eq!(rejected, 1);
}

#[tokio::test]
async fn half_a_header_holds_up_nobody_and_has_a_deadline() {
    let f = hostile_with(|b| b.header_timeout(Duration::from_millis(300))).await;
    let raw = f.raw().await;
    let (send, _recv) = within(raw.session("/wt")).await;
    let session = u64::from(send.id());
    let half = raw.bi(&[0x40], false).await;
    let uni = raw.uni(&[0x40]).await;
    let request = raw.bi(&get("/")[..5], false).await;
    let (mut whole, recv) = raw.bi(&wt_bi(session, b""), false).await;
    whole.write_all(b"through").await.unwrap();
    whole.finish().unwrap();
    let mut recv = recv;
    assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"through");
    assert_eq!(
        within(answer(half.1)).await,
        Answer::Reset(Code::H3_STREAM_CREATION_ERROR)
    );
    assert!(within(uni.stopped()).await.unwrap().is_some());
    assert_eq!(
        within(answer(request.1)).await,
        Answer::Reset(Code::H3_REQUEST_INCOMPLETE)
    );
    within(raw.assert_alive()).await;
    f.assert_undisturbed().await;
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let f = hostile_with(|b| b.handshake_timeout(Duration::from_millis(300))).await;
    let raw = within(Raw::silent(f.server)).await;
    within(raw.conn.closed()).await;
    // One that sends half of its first flight, nothing more: a place is taken and given back.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&[0xc0; 1200], f.server).unwrap();
    f.assert_undisturbed().await;
}

#[tokio::test]
async fn rapid_cancelling_closes_the_connection() {
    let f = hostile().await;
    let raw = f.raw().await;
    'flood: loop {
        let mut batch = Vec::new();
        for _ in 0..50 {
            match raw.conn.open_bi().await {
                Ok(stream) => batch.push(stream),
                Err(_) => break 'flood,
            }
        }
        for (send, _) in &mut batch {
            let _ = send.write_all(&get("/slow")).await;
        }
        // They have arrived when a later one is answered.
        let Ok((_send, recv)) = raw.conn.open_bi().await else {
            break;
        };
        drop(_send);
        let _ = within(answer(recv)).await;
        for (send, _) in &mut batch {
            let _ = send.reset(0u32.into());
        }
    }
    assert_eq!(within(raw.closed()).await, Code::H3_EXCESSIVE_LOAD);
    f.assert_undisturbed().await;
    // Nothing is left of it.
    f.bystander.close(0, "");
    within(f.bystander.closed()).await;
    drop(f.running.stop);
    within(f.running.task).await.unwrap();
    assert_eq!(f.running.monitor.stats().sessions, 0);
}

#[tokio::test]
async fn a_body_is_asked_for_with_100_continue() {
    let f = hostile().await;
    let raw = f.raw().await;
    let head = head(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/body"),
        ("expect", "100-continue"),
    ]);
    let (mut send, mut recv) = raw.bi(&head, false).await;
    assert_eq!(within(read_status(&mut recv)).await, 100);
    send.write_all(&frame_of(DATA, b"body")).await.unwrap();
    send.finish().unwrap();
    assert_eq!(within(answer(recv)).await, Answer::Status(200));
}

#[tokio::test]
async fn retry_proves_addresses() {
    let f = fixture_with(|b| b.retry_above(0)).await;
    let (server, client) = f.session().await;
    client.close(1, "");
    within(server.closed()).await;
}
