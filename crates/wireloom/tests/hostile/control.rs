//! Control streams, frames where they may not be, settings, identifiers (RFC 9114 sections 4 to 7).

use wireloom_proto::{Code, capsule as types};

use crate::common::raw::{
    Answer, answer, capsule, frame_of, get, head, int, post_of, settings as raw_settings, settings_frame, wt_bi, wt_uni,
};
use crate::common::within;
use crate::support::{Hostile, hostile};
use crate::table::{Case, case};

const DATA: u64 = 0;
const CANCEL_PUSH: u64 = 3;
const SETTINGS: u64 = 4;
const PUSH_PROMISE: u64 = 5;
const GOAWAY: u64 = 7;
const MAX_PUSH_ID: u64 = 0xd;

/// A control stream that begins as it should.
fn control(rest: &[u8]) -> Vec<u8> {
    [&[0][..], &raw_settings().encode_frame(), rest].concat()
}

/// `bytes` on a unidirectional stream of a new connection close it.
async fn closes(f: &Hostile, case: &Case, bytes: &[u8]) {
    let raw = f.silent().await;
    let _stream = raw.uni(bytes).await;
    assert_eq!(within(raw.closed_as(case.what)).await, case.close(), "{}", case.what);
}

/// `bytes` on a bidirectional stream of a new connection close it.
async fn closes_from_request(f: &Hostile, case: &Case, bytes: &[u8], fin: bool) {
    let raw = f.raw().await;
    let _stream = raw.bi(bytes, fin).await;
    assert_eq!(within(raw.closed_as(case.what)).await, case.close(), "{}", case.what);
}

#[tokio::test]
async fn control_streams() {
    let settings = raw_settings().encode_frame();
    let cases = [
        (case(1), [int(0), frame_of(MAX_PUSH_ID, &int(1))].concat()),
        (case(1), [int(0), frame_of(0x21, b"x")].concat()),
        (case(4), vec![1, 0]),
        (case(7), control(&settings)),
        (case(9), control(&frame_of(DATA, b"x"))),
        (case(10), control(&get("/"))),
        (case(19), control(&frame_of(MAX_PUSH_ID, &[1, 2]))),
        (case(19), control(&frame_of(MAX_PUSH_ID, &[]))),
        (case(19), control(&frame_of(GOAWAY, &[0x40]))),
        (case(19), [int(0), frame_of(SETTINGS, &[0x33])].concat()),
        (
            case(21),
            control(&[frame_of(MAX_PUSH_ID, &int(9)), frame_of(MAX_PUSH_ID, &int(8))].concat()),
        ),
        (
            case(22),
            control(&[frame_of(GOAWAY, &int(4)), frame_of(GOAWAY, &int(8))].concat()),
        ),
    ];
    hostile(async |f| {
        for (case, bytes) in &cases {
            closes(f, case, bytes).await;
        }
    })
    .await;
}

#[tokio::test]
async fn second_critical_streams() {
    hostile(async |f| {
        for (case, ty) in [(case(2), 0), (case(3), 2), (case(3), 3)] {
            // SETTINGS and so the control stream are there already.
            let raw = f.raw().await;
            let _one = raw.uni(&[ty]).await;
            let _two = raw.uni(&[ty]).await;
            assert_eq!(within(raw.closed_as(case.what)).await, case.close(), "{ty}");
        }
    })
    .await;
}

#[tokio::test]
async fn critical_streams_that_end() {
    hostile(async |f| {
        for (case, bytes) in [(case(5), control(&[])), (case(6), vec![2]), (case(6), vec![3])] {
            let raw = f.silent().await;
            let mut stream = raw.uni(&bytes).await;
            stream.finish().unwrap();
            assert_eq!(within(raw.closed_as("closed")).await, case.close(), "{bytes:?}");

            let raw = f.silent().await;
            let mut stream = raw.uni(&bytes).await;
            // A stream that is reset before its type arrived is one that never was.
            within(raw.assert_alive()).await;
            stream.reset(7u32.into()).unwrap();
            assert_eq!(within(raw.closed_as("reset")).await, case.close(), "{bytes:?}");
        }
        // Nobody may stop ours either.
        for (case, index) in [(case(5), 0), (case(6), 1), (case(6), 2)] {
            let raw = f.raw().await;
            within(raw.assert_alive()).await;
            let mut streams = Vec::new();
            for _ in 0..3 {
                streams.push(within(raw.conn.accept_uni()).await.unwrap());
            }
            streams[index].stop(7u32.into()).unwrap();
            assert_eq!(within(raw.closed_as("stopped")).await, case.close(), "{index}");
        }
    })
    .await;
}

#[tokio::test]
async fn request_streams() {
    let after = |rest: &[u8]| [get("/"), rest.to_vec()].concat();
    let cases = [
        (case(8), after(&frame_of(SETTINGS, &[])), false),
        (case(8), frame_of(SETTINGS, &[]), false),
        (case(11), after(&frame_of(CANCEL_PUSH, &int(0))), false),
        (case(12), after(&frame_of(GOAWAY, &int(0))), false),
        (case(13), after(&frame_of(MAX_PUSH_ID, &int(0))), false),
        (case(16), frame_of(DATA, b"x"), false),
        (
            case(17),
            [post_of("1", b"x"), head(&[("a", "b")]), frame_of(DATA, b"x")].concat(),
            false,
        ),
        (
            case(17),
            [post_of("1", b"x"), head(&[("a", "b")]), head(&[("a", "b")])].concat(),
            false,
        ),
        (case(18), get("/")[..9].to_vec(), true),
        (case(18), after(&[0x40]), true),
        (case(18), after(&[0, 0x40]), true),
        (case(18), [post_of("2", b""), vec![0, 2, b'x']].concat(), true),
    ];
    hostile(async |f| {
        for (case, bytes, fin) in &cases {
            closes_from_request(f, case, bytes, *fin).await;
        }
    })
    .await;
}

#[tokio::test]
async fn frames_for_no_stream() {
    hostile(async |f| {
        let http2 = [2, 6, 8, 9].map(|ty| (case(15), frame_of(ty, &[])));
        for (case, frame) in [(case(14), frame_of(PUSH_PROMISE, &int(0)))].into_iter().chain(http2) {
            closes(f, case, &control(&frame)).await;
            closes_from_request(f, case, &[get("/"), frame].concat(), false).await;
        }
    })
    .await;
}

#[tokio::test]
async fn webtransport_header_in_the_wrong_place() {
    hostile(async |f| {
        let case = case(20);
        closes(f, case, &control(&wt_bi(0, b"x"))).await;
        closes_from_request(f, case, &[get("/"), wt_bi(0, b"x")].concat(), false).await;
        closes_from_request(f, case, &[frame_of(0x21, b""), wt_bi(0, b"x")].concat(), false).await;
        let raw = f.raw().await;
        let (mut send, _recv) = within(raw.session("/wt")).await;
        send.write_all(&wt_bi(0, b"x")).await.unwrap();
        assert_eq!(within(raw.closed_as("CONNECT stream")).await, case.close());
    })
    .await;
}

#[tokio::test]
async fn session_ids_that_cannot_be() {
    hostile(async |f| {
        for id in [1, 2, 3, 5] {
            closes(f, case(23), &wt_uni(id, b"x")).await;
            closes_from_request(f, case(24), &wt_bi(id, b"x"), false).await;
        }
    })
    .await;
}

#[tokio::test]
async fn settings() {
    let cases = [
        (case(25), vec![(2, 0)]),
        (case(25), vec![(3, 0)]),
        (case(25), vec![(4, 0)]),
        (case(25), vec![(5, 0)]),
        (case(26), vec![(6, 1), (6, 1)]),
        (case(26), vec![(0x21, 1), (0x33, 1), (0x21, 2)]),
        (case(27), vec![(0x33, 2)]),
    ];
    hostile(async |f| {
        for (case, pairs) in &cases {
            closes(f, case, &[int(0), settings_frame(pairs)].concat()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn grease() {
    case(28).harmless();
    // 0x1f * N + 0x21 for frames and settings, 0x29 * N + 0x17 for capsules.
    let reserved = frame_of(0x1f * 7 + 0x21, b"whatever");
    hostile(async |f| {
        let pairs = [(0x21, 1), (0x1f * 9 + 0x21, 1 << 60), (0x33, 1), (0x2b60_3742, 1)];
        let mut raw = f.silent().await;
        // A client's GOAWAY and MAX_PUSH_ID forbid nothing here.
        let known = [frame_of(GOAWAY, &int(0)), frame_of(MAX_PUSH_ID, &int(7))].concat();
        let begin = [int(0), settings_frame(&pairs), reserved.clone(), known].concat();
        raw.control = Some(raw.uni(&begin).await);
        let request = [reserved.clone(), get("/"), reserved.clone()].concat();
        let (_send, recv) = raw.bi(&request, true).await;
        assert_eq!(within(answer(recv)).await, Answer::Status(200));
        let (mut send, recv) = within(raw.session("/wt")).await;
        let capsules = [capsule(0x17, b""), capsule(0x29 * 5 + 0x17, b"whatever")].concat();
        let close = capsule(types::WT_CLOSE_SESSION, &[0, 0, 0, 0]);
        send.write_all(&[reserved.clone(), capsules, close].concat())
            .await
            .unwrap();
        assert_eq!(within(answer(recv)).await, Answer::Empty);
    })
    .await;
}

#[tokio::test]
async fn unknown_streams() {
    case(29).harmless();
    hostile(async |f| {
        let raw = f.raw().await;
        for ty in [0x21, 0x1f * 3 + 0x21, 0x55, 1 << 40] {
            let unknown = raw.uni(&[int(ty), b"whatever".to_vec()].concat()).await;
            let code = within(unknown.stopped()).await.unwrap().map(crate::common::raw::code);
            assert_eq!(code, Some(Code::H3_STREAM_CREATION_ERROR));
        }
        // Streams that end before their type is known.
        raw.uni(&[0x40]).await.finish().unwrap();
        raw.uni(&[0x40]).await.reset(9u32.into()).unwrap();
        within(raw.assert_alive()).await;
    })
    .await;
}
