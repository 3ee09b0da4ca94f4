//! Field sections and instructions that cannot be decoded (RFC 9204).

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::raw::{Answer, answer, frame_of, head, read_status};
use crate::common::within;
use crate::support::{hostile, hostile_with};
use crate::table::case;

const HEADERS: u64 = 1;

#[tokio::test]
async fn field_sections() {
    let cases: [(_, &[u8]); 6] = [
        // Static index 99 and far beyond, on its own and as a name.
        (case(52), &[0, 0, 0xff, 36]),
        (case(52), &[0, 0, 0xff, 0x80, 0x01]),
        (case(52), &[0, 0, 0x5f, 0x80, 0x01, 0]),
        // More than there ever were insertions could be.
        (case(53), &[0xff, 0xff, 0x7f, 0, 0x80]),
        // The reference to the dynamic table that a count of 0 forbids.
        (case(53), &[0, 0, 0x80]),
        // Padding longer than seven bits.
        (
            case(55),
            &[0, 0, 0x2f, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
        ),
    ];
    hostile(async |f| {
        for (case, section) in cases {
            let raw = f.raw().await;
            let _stream = raw.bi(&frame_of(HEADERS, section), true).await;
            assert_eq!(within(raw.closed_as(case.what)).await, case.close(), "{section:x?}");
        }
    })
    .await;
}

/// RFC 9204 section 2.1.2: a request waits for what the encoder stream has yet to bring; one stream more than announced breaks
/// the connection.
#[tokio::test]
async fn blocked_streams() {
    // GET https with :authority and :path from the dynamic table.
    let request = frame_of(HEADERS, &[0x03, 0x81, 0xd1, 0xd7, 0x10, 0x11]);
    hostile(async |f| {
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
        drop((encoder, raw));

        let case = case(54);
        let raw = f.raw().await;
        let mut waiting = Vec::new();
        for _ in 0..17 {
            waiting.push(raw.bi(&request, true).await);
        }
        assert_eq!(within(raw.closed_as(case.what)).await, case.close());
    })
    .await;
}

/// What follows a section that waits stays in QUIC, within the stream's window, however often the application asks for more of
/// the body. Once the section can be read, all of the stream is.
#[tokio::test]
async fn data_behind_a_blocked_section() {
    const WINDOW: u32 = 64 << 10;
    let message = [
        head(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", "/polled"),
        ]),
        // Trailers that refer to an insertion, and what may follow trailers: a frame of a reserved type.
        frame_of(HEADERS, &[0x02, 0x80, 0x10]),
        frame_of(0x21, &[0; 2 << 20]),
    ]
    .concat();
    hostile_with(
        |b| b.receive_windows(WINDOW, 8 << 20),
        async |f| {
            let raw = f.raw().await;
            let mut encoder = raw.uni(&[2]).await;
            let (mut send, recv) = raw.bi(&[], false).await;
            let written = AtomicUsize::new(0);
            let flood = async {
                for chunk in message.chunks(1024) {
                    send.write_all(chunk).await.unwrap();
                    written.fetch_add(chunk.len(), Ordering::Relaxed);
                }
                send.finish().unwrap();
            };
            let poll = async {
                // Each is a round trip, in which a server that reads on gives credit for more.
                for _ in 0..100 {
                    raw.assert_served("/poll").await;
                }
                let written = written.load(Ordering::Relaxed);
                assert!(written < 2 * WINDOW as usize, "{written} bytes were taken");
                // "x: 202".
                encoder.write_all(b"\x3f\xbd\x01\x41x\x03202").await.unwrap();
            };
            let (_, _, answer) = within(async { tokio::join!(flood, poll, answer(recv)) }).await;
            assert_eq!(answer, Answer::Status(202));
        },
    )
    .await;
}

#[tokio::test]
async fn instructions() {
    let cases: [(_, &[u8]); 4] = [
        (case(56), &[2, 0x3f, 0xe2, 0x1f]),
        (case(57), &[3, 0]),
        (case(58), &[3, 0x80]),
        (case(58), &[3, 0xff, 0x80, 0x01]),
    ];
    hostile(async |f| {
        for (case, bytes) in cases {
            let raw = f.raw().await;
            let _stream = raw.uni(bytes).await;
            assert_eq!(within(raw.closed_as(case.what)).await, case.close(), "{bytes:x?}");
        }
    })
    .await;
}
