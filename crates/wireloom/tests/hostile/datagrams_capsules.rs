//! Datagrams of no session, and capsules that are cut, too long or too late (RFC 9297, draft-ietf-webtrans-http3-16 section 6).

use wireloom_proto::{Code, capsule as types};

use crate::common::raw::{Answer, answer, capsule, frame_of, get, int, wt_bi};
use crate::common::within;
use crate::support::hostile;
use crate::table::case;

const DATA: u64 = 0;

#[tokio::test]
async fn datagrams_without_a_session_id() {
    let cases = [
        (case(59), vec![]),
        (case(59), vec![0x40]),
        (case(59), vec![0xc0, 0, 0]),
        (case(60), int(1 << 60)),
        (case(60), int((1 << 62) - 1)),
    ];
    hostile(async |f| {
        for (case, bytes) in &cases {
            let raw = f.raw().await;
            within(raw.assert_alive()).await;
            raw.conn.send_datagram(bytes.clone().into()).unwrap();
            assert_eq!(within(raw.closed_as(case.what)).await, case.close(), "{bytes:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn datagrams_of_a_closed_session() {
    case(61).harmless();
    hostile(async |f| {
        let raw = f.raw().await;
        let (mut send, recv) = within(raw.session("/wt")).await;
        let quarter = int(u64::from(send.id()) / 4);
        send.finish().unwrap();
        assert_eq!(within(answer(recv)).await, Answer::Empty);
        let (send, _recv) = within(raw.session("/wt")).await;
        let live = int(u64::from(send.id()) / 4);
        for _ in 0..100 {
            let gone = [&*quarter, b"gone"].concat();
            raw.conn.send_datagram_wait(gone.into()).await.unwrap();
        }
        let echoed = loop {
            // Loopback loses datagrams only where a buffer is full.
            raw.conn.send_datagram([&*live, b"live"].concat().into()).unwrap();
            let echo = raw.conn.read_datagram();
            if let Ok(echo) = tokio::time::timeout(std::time::Duration::from_secs(1), echo).await {
                break echo.unwrap();
            }
        };
        assert_eq!(&*echoed, [&*live, b"live"].concat(), "only the open session echoes");
    })
    .await;
}

/// A flood before its session: bounded, and the rest dropped; then the session works.
#[tokio::test]
async fn datagrams_before_the_session() {
    case(62).harmless();
    hostile(async |f| {
        let raw = f.raw().await;
        within(raw.assert_alive()).await;
        let before = f.memory();
        // Stream 0 was that request: the session will be the next, whose quarter id is 1.
        for _ in 0..2000 {
            let early = [int(1), vec![b'e'; 1000]].concat();
            raw.conn.send_datagram_wait(early.into()).await.unwrap();
        }
        within(raw.assert_alive()).await;
        let kept = f.memory().saturating_sub(before);
        assert!(kept < 1 << 20, "{kept} bytes");
    })
    .await;
    hostile(async |f| {
        let raw = f.raw().await;
        let room = raw.conn.datagram_send_buffer_space();
        for _ in 0..2000 {
            let early = [int(1), vec![b'e'; 100]].concat();
            raw.conn.send_datagram_wait(early.into()).await.unwrap();
        }
        // A stream's frame may overtake datagrams that still wait, but not those that are sent.
        while raw.conn.datagram_send_buffer_space() < room {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        within(raw.assert_alive()).await;
        let (send, _recv) = within(raw.session("/count")).await;
        assert_eq!(u64::from(send.id()), 4);
        let mut asked = 0;
        let count: u32 = loop {
            asked += 1;
            raw.conn.send_datagram([&[1][..], b"how many"].concat().into()).unwrap();
            let answer = raw.conn.read_datagram();
            if let Ok(answer) = tokio::time::timeout(std::time::Duration::from_secs(1), answer).await {
                break std::str::from_utf8(&answer.unwrap()[1..]).unwrap().parse().unwrap();
            }
        };
        assert!(count > asked, "none was kept");
        assert!(count <= 64 + asked, "{count} of them");
    })
    .await;
}

fn close(reason: &[u8]) -> Vec<u8> {
    capsule(types::WT_CLOSE_SESSION, &[&[0, 0, 0, 5], reason].concat())
}

#[tokio::test]
async fn capsules() {
    let cases = [
        (case(63), frame_of(DATA, &[0x68, 0x43, 9, 0]), true),
        (case(63), frame_of(DATA, &[0x68]), true),
        (case(64), close(&[b'x'; 1025]), false),
        (case(64), close(&[b'x'; 70_000]), false),
        (case(65), close(&[0xff]), false),
        (case(65), close("\u{1f980}".as_bytes().split_last().unwrap().1), false),
        (case(66), [close(b""), frame_of(DATA, b"x")].concat(), false),
        (
            case(66),
            frame_of(DATA, &[int(types::WT_CLOSE_SESSION), vec![4, 0, 0, 0, 5, 0]].concat()),
            false,
        ),
        (case(67), capsule(types::WT_CLOSE_SESSION, &[0, 0, 5]), false),
        (case(67), capsule(types::WT_CLOSE_SESSION, &[]), false),
    ];
    hostile(async |f| {
        let raw = f.raw().await;
        for (case, bytes, fin) in &cases {
            let (mut send, recv) = within(raw.session("/wt")).await;
            let session = u64::from(send.id());
            let (_bi, bi) = raw.bi(&wt_bi(session, b"x"), false).await;
            send.write_all(bytes).await.unwrap();
            if *fin {
                send.finish().unwrap();
            }
            assert_eq!(within(answer(recv)).await, case.answer(), "{}", case.what);
            // The end of the session ends its streams.
            assert_eq!(within(answer(bi)).await, Answer::Reset(Code::WT_SESSION_GONE));
        }
        within(raw.assert_alive()).await;
    })
    .await;
}

#[tokio::test]
async fn unknown_capsules() {
    case(68).harmless();
    hostile(async |f| {
        let raw = f.raw().await;
        let (mut send, recv) = within(raw.session("/wt")).await;
        for ty in [0x1234, 0x2842, 1 << 61] {
            send.write_all(&capsule(ty, b"xyz")).await.unwrap();
            send.write_all(&capsule(ty, &[7; 40_000])).await.unwrap();
        }
        let session = u64::from(send.id());
        let (mut stream, mut echoed) = raw.bi(&wt_bi(session, b"through"), false).await;
        stream.finish().unwrap();
        assert_eq!(within(echoed.read_to_end(100)).await.unwrap(), b"through");
        send.write_all(&close(b"bye")).await.unwrap();
        assert_eq!(within(answer(recv)).await, Answer::Empty);
    })
    .await;
}

#[tokio::test]
async fn a_capsule_without_end() {
    case(69).harmless();
    hostile(async |f| {
        for ty in [0x1234, types::DATAGRAM] {
            let raw = f.raw().await;
            let (mut send, _recv) = within(raw.session("/wt")).await;
            let before = f.memory();
            send.write_all(&frame_of(DATA, &[int(ty), int((1 << 62) - 1)].concat()))
                .await
                .unwrap();
            let piece = frame_of(DATA, &[0; 64 << 10]);
            for _ in 0..100 {
                send.write_all(&piece).await.unwrap();
            }
            within(raw.assert_alive()).await;
            let kept = f.memory().saturating_sub(before);
            assert!(kept < 2 << 20, "{kept} bytes");
            // Anything but DATA ends the connection (RFC 9114 section 4.4).
            send.write_all(&get("/")).await.unwrap();
            assert_eq!(within(raw.closed()).await, Code::H3_FRAME_UNEXPECTED);
        }
        // Longer than its fields: nothing of it is kept either.
        let raw = f.raw().await;
        let (mut send, recv) = within(raw.session("/wt")).await;
        let endless = [int(types::WT_CLOSE_SESSION), int((1 << 62) - 1)].concat();
        send.write_all(&frame_of(DATA, &endless)).await.unwrap();
        assert_eq!(within(answer(recv)).await, Answer::Reset(Code::H3_MESSAGE_ERROR));
    })
    .await;
}
