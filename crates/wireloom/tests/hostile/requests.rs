//! Requests that break the rules of HTTP messages (RFC 9114 section 4).

use wireloom_proto::Code;

use crate::common::raw::{Answer, answer, frame_of, get, get_with, head, post_of, read_status};
use crate::common::within;
use crate::support::hostile;
use crate::table::case;

#[tokio::test]
async fn malformed() {
    let cases = [
        (case(30), get_with(&[(":path", "/")])),
        (case(30), get_with(&[(":method", "GET")])),
        (
            case(31),
            head(&[(":method", "GET"), (":scheme", "https"), (":authority", "a")]),
        ),
        (
            case(31),
            head(&[(":scheme", "https"), (":authority", "a"), (":path", "/")]),
        ),
        (
            case(31),
            head(&[(":method", "GET"), (":authority", "a"), (":path", "/")]),
        ),
        (
            case(31),
            head(&[(":method", "GET"), (":scheme", "https"), (":path", "/")]),
        ),
        (
            case(32),
            head(&[
                (":method", "GET"),
                (":scheme", "https"),
                ("a", "b"),
                (":authority", "a"),
                (":path", "/"),
            ]),
        ),
        (case(33), get_with(&[(":unknown", "x")])),
        (case(33), get_with(&[(":status", "200")])),
        (case(34), get_with(&[("Accept", "x")])),
        (case(35), get_with(&[("connection", "close")])),
        (case(35), get_with(&[("keep-alive", "x")])),
        (case(35), get_with(&[("proxy-connection", "close")])),
        (case(35), get_with(&[("transfer-encoding", "chunked")])),
        (case(35), get_with(&[("upgrade", "websocket")])),
        (case(35), get_with(&[("te", "gzip")])),
        (case(36), get_with(&[("a", "b\rc")])),
        (case(36), get_with(&[("a", "b\nc")])),
        (case(36), get_with(&[("a", "b\0c")])),
        (case(36), get_with(&[("a\nb", "c")])),
        (case(37), post_of("1", b"xy")),
        (case(37), post_of("3", b"xy")),
        (case(37), post_of("x", b"xy")),
        (case(37), [post_of("2", b"x"), head(&[("a", "b")])].concat()),
        (case(38), get_with(&[("host", "b")])),
        (
            case(39),
            head(&[(":method", "CONNECT"), (":authority", "a"), (":path", "/")]),
        ),
        (
            case(39),
            head(&[(":method", "CONNECT"), (":authority", "a"), (":scheme", "https")]),
        ),
        (case(40), get_with(&[(":protocol", "webtransport")])),
    ];
    hostile(async |f| {
        // All on one connection, which goes on.
        let raw = f.raw().await;
        for (case, bytes) in &cases {
            let (_send, recv) = raw.bi(bytes, true).await;
            assert_eq!(within(answer(recv)).await, case.answer(), "{}: {bytes:?}", case.what);
        }
        within(raw.assert_alive()).await;
    })
    .await;
}

#[tokio::test]
async fn refused_with_a_status() {
    let big = "x".repeat(70_000);
    let many: Vec<(String, String)> = (0..1200).map(|i| (format!("f{i}"), "x".repeat(30))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    let unknown = [
        (":method", "CONNECT"),
        (":protocol", "x"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/"),
    ];
    let cases = [
        (case(41), head(&unknown)),
        (case(42), get_with(&[("a", &big)])),
        (case(42), get_with(&many)),
    ];
    hostile(async |f| {
        let raw = f.raw().await;
        for (case, bytes) in &cases {
            let (_send, recv) = raw.bi(bytes, true).await;
            assert_eq!(within(answer(recv)).await, case.answer(), "{}", case.what);
        }
        within(raw.assert_alive()).await;
    })
    .await;
}

#[tokio::test]
async fn a_body_is_asked_for_with_100_continue() {
    let head = head(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/body"),
        ("expect", "100-continue"),
    ]);
    hostile(async |f| {
        let raw = f.raw().await;
        let (mut send, mut recv) = raw.bi(&head, false).await;
        assert_eq!(within(read_status(&mut recv)).await, 100);
        send.write_all(&frame_of(0, b"body")).await.unwrap();
        send.finish().unwrap();
        assert_eq!(within(answer(recv)).await, Answer::Status(200));
    })
    .await;
}

#[tokio::test]
async fn requests_that_never_come() {
    let incomplete = Answer::Reset(Code::H3_REQUEST_INCOMPLETE);
    let cases = [
        (vec![], incomplete),
        (frame_of(0x21, b"x"), incomplete),
        ([frame_of(0x21, b"x"), get("/")].concat(), Answer::Status(200)),
    ];
    hostile(async |f| {
        let raw = f.raw().await;
        for (bytes, expected) in &cases {
            let (_send, recv) = raw.bi(bytes, true).await;
            assert_eq!(within(answer(recv)).await, *expected, "{bytes:?}");
        }
        within(raw.assert_alive()).await;
    })
    .await;
}
