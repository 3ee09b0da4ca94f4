//! What is allowed once, done without end.

use std::time::Duration;

use quinn::{ConnectionError, RecvStream, SendStream};
use wireloom_proto::Code;

use crate::common::raw::{Answer, Raw, answer, code, frame_of, get, int, post_of, wt_bi, wt_uni};
use crate::common::within;
use crate::support::{hostile, hostile_with};
use crate::table::case;

#[tokio::test]
async fn early_streams() {
    let case = case(77);
    hostile(async |f| {
        let raw = f.raw().await;
        let mut early = Vec::new();
        for _ in 0..80 {
            early.push(raw.bi(&wt_bi(4 * 80, b"early"), true).await);
        }
        // Of 80, 64 are kept.
        let (send, _recv) = within(raw.session("/wt")).await;
        assert_eq!(u64::from(send.id()), 4 * 80);
        let (mut rejected, mut echoed) = (0, 0);
        for (_send, mut recv) in early {
            match within(recv.read_to_end(100)).await {
                Ok(bytes) => {
                    assert_eq!(bytes, b"early");
                    echoed += 1;
                }
                Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(reset))) => {
                    assert_eq!(code(reset), case.reset());
                    rejected += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((echoed, rejected), (64, 16));
    })
    .await;
    hostile(async |f| {
        let raw = f.raw().await;
        let before = f.memory();
        // By bytes: 256 KiB in all. What is behind the header waits in QUIC and counts there.
        let mut rejected = Vec::new();
        for _ in 0..64 {
            rejected.push(raw.uni(&wt_uni(4, &[7; 1500])).await);
        }
        within(raw.assert_alive()).await;
        let kept = f.memory().saturating_sub(before);
        assert!(kept < 1 << 20, "{kept} bytes");
        // By time: 5 s. One that comes later restarts nobody's clock.
        for stream in rejected {
            let stopped = within(stream.stopped()).await.unwrap().map(code);
            assert_eq!(stopped, Some(case.reset()));
        }
    })
    .await;
}

#[tokio::test]
async fn streams_of_a_closed_session() {
    let case = case(78);
    hostile(async |f| {
        let raw = f.raw().await;
        let (mut send, recv) = within(raw.session("/wt")).await;
        let session = u64::from(send.id());
        send.finish().unwrap();
        assert_eq!(within(answer(recv)).await, Answer::Empty);
        for _ in 0..300 {
            let (_bi, bi) = raw.bi(&wt_bi(session, b"x"), false).await;
            assert_eq!(within(answer(bi)).await, case.answer());
            let late = raw.uni(&wt_uni(session, b"x")).await;
            assert_eq!(within(late.stopped()).await.unwrap().map(code), Some(case.reset()));
        }
        within(raw.assert_alive()).await;
    })
    .await;
}

#[tokio::test]
async fn reset_codes() {
    case(79).harmless();
    let first = Code::from_application(0).into_u64();
    let cases = [
        (Code::from_application(7).into_u64(), "reset Some(7)"),
        (Code::from_application(u32::MAX).into_u64(), "reset Some(4294967295)"),
        (0, "reset None"),
        (first - 1, "reset None"),
        (Code::from_application(u32::MAX).into_u64() + 1, "reset None"),
        // One of the reserved points between.
        (Code::from_application(0x1d).into_u64() + 1, "reset None"),
        ((1 << 62) - 1, "reset None"),
    ];
    hostile(async |f| {
        let raw = f.raw().await;
        let (send, _recv) = within(raw.session("/ends")).await;
        let session = u64::from(send.id());
        for (wire, expected) in cases {
            let mut stream = raw.uni(&wt_uni(session, b"x")).await;
            // The header has arrived when what is sent after it is answered.
            within(raw.assert_alive()).await;
            stream.reset(wire.try_into().unwrap()).unwrap();
            let told = within(raw.conn.read_datagram()).await.unwrap();
            assert_eq!(std::str::from_utf8(&told[1..]).unwrap(), expected, "{wire:#x}");
        }
    })
    .await;
}

#[tokio::test]
async fn trickled_headers() {
    case(80).harmless();
    let deadline = Duration::from_millis(300);
    hostile_with(
        |b| b.header_timeout(deadline),
        async |f| {
            let raw = f.raw().await;
            let (send, _recv) = within(raw.session("/wt")).await;
            let session = u64::from(send.id());
            let half = raw.bi(&[0x40], false).await;
            let uni = raw.uni(&[0x40]).await;
            let request = raw.bi(&get("/")[..5], false).await;
            // One that never stops coming, byte by byte.
            let (mut trickle, trickled) = raw.bi(&[1, 0x7f], false).await;
            let trickling = async {
                while trickle.write_all(b"\0").await.is_ok() {
                    tokio::time::sleep(deadline / 10).await;
                }
            };
            let through = async {
                let (_whole, mut recv) = raw.bi(&wt_bi(session, b"through"), true).await;
                assert_eq!(recv.read_to_end(100).await.unwrap(), b"through");
                assert_eq!(answer(half.1).await, Answer::Reset(Code::H3_STREAM_CREATION_ERROR));
                assert!(uni.stopped().await.unwrap().is_some());
                assert_eq!(answer(request.1).await, Answer::Reset(Code::H3_REQUEST_INCOMPLETE));
                assert_eq!(answer(trickled).await, Answer::Reset(Code::H3_REQUEST_INCOMPLETE));
            };
            within(async { tokio::join!(trickling, through) }).await;
            within(raw.assert_alive()).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    hostile_with(
        |b| b.handshake_timeout(Duration::from_millis(300)),
        async |f| {
            let raw = f.silent().await;
            assert_eq!(within(raw.closed()).await, Code::H3_MISSING_SETTINGS);
        },
    )
    .await;
}

async fn open_batch(raw: &Raw) -> Result<Vec<(SendStream, RecvStream)>, ConnectionError> {
    let mut batch = Vec::new();
    for _ in 0..15 {
        batch.push(raw.conn.open_bi().await?);
    }
    Ok(batch)
}

/// What was sent has arrived when a later request is answered.
async fn all_arrived(raw: &Raw) -> Result<(), ConnectionError> {
    let (mut send, recv) = raw.conn.open_bi().await?;
    let _ = send.write_all(&get("/")).await;
    let _ = send.finish();
    let _ = within(answer(recv)).await;
    Ok(())
}

#[tokio::test]
async fn rapid_cancelling() {
    let case = case(81);
    hostile(async |f| {
        for request in [crate::common::raw::connect("/later"), get("/slow")] {
            let raw = f.raw().await;
            while let Ok(mut batch) = open_batch(&raw).await {
                for (send, _) in &mut batch {
                    let _ = send.write_all(&request).await;
                }
                if all_arrived(&raw).await.is_err() {
                    break;
                }
                for (send, _) in &mut batch {
                    let _ = send.reset(0u32.into());
                }
            }
            assert_eq!(within(raw.closed_as(case.what)).await, case.close());
        }

        // STOP_SENDING, and when it has arrived the request, whose handler nobody would stop otherwise.
        let raw = f.raw().await;
        while let Ok(mut batch) = open_batch(&raw).await {
            for (_, recv) in &mut batch {
                let _ = recv.stop(0u32.into());
            }
            if all_arrived(&raw).await.is_err() {
                break;
            }
            for (send, _) in &mut batch {
                let _ = send.write_all(&get("/slow")).await;
                let _ = send.finish();
            }
        }
        assert_eq!(within(raw.closed_as("stopped first")).await, case.close());

        // Requests that the server has to reset after it has begun to handle them.
        let raw = f.raw().await;
        while let Ok((mut send, _recv)) = raw.conn.open_bi().await {
            let _ = send.write_all(&post_of("1", b"")).await;
            let _ = send.finish();
        }
        assert_eq!(within(raw.closed_as("made to reset")).await, case.close());
    })
    .await;
}

#[tokio::test]
async fn empty_frames() {
    let case = case(82);
    hostile(async |f| {
        for frame in [vec![0x21, 0], vec![0x21, 1, 7]] {
            let raw = f.raw().await;
            let _stream = raw.bi(&frame.repeat(2000), false).await;
            assert_eq!(within(raw.closed_as(case.what)).await, case.close());
        }
        // DATA without data, on a request and on a session.
        let raw = f.raw().await;
        let _stream = raw.bi(&[post_of("3", b""), [0, 0].repeat(2000)].concat(), false).await;
        assert_eq!(within(raw.closed_as(case.what)).await, case.close());
        let raw = f.raw().await;
        let (mut send, _recv) = within(raw.session("/wt")).await;
        send.write_all(&[0, 0].repeat(2000)).await.unwrap();
        assert_eq!(within(raw.closed_as(case.what)).await, case.close());
        // Capsules without effect.
        let raw = f.raw().await;
        let (mut send, _recv) = within(raw.session("/wt")).await;
        let capsules = [int(0x17), int(0)].concat().repeat(2000);
        send.write_all(&frame_of(0, &capsules)).await.unwrap();
        assert_eq!(within(raw.closed_as(case.what)).await, case.close());
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_never_reads() {
    case(83).harmless();
    hostile(async |f| {
        // No credit for what comes back: responses and echoes wait.
        let mut transport = quinn::TransportConfig::default();
        transport
            .stream_receive_window(1u32.into())
            .receive_window(64u32.into());
        let mut raw = within(Raw::with_transport(f.server, transport)).await;
        raw.start().await;
        let before = f.memory();
        let mut streams = Vec::new();
        for _ in 0..60 {
            streams.push(raw.bi(&get("/large"), true).await);
        }
        let (mut send, _recv) = raw.bi(&crate::common::raw::connect("/wt"), false).await;
        let session = u64::from(send.id());
        let (mut echoed, _unread) = raw.bi(&wt_bi(session, b""), false).await;
        let mut sent = 0_usize;
        let flood = async {
            while echoed.write_all(&[7; 10_000]).await.is_ok() {
                sent += 10_000;
            }
        };
        // QUIC takes no more at some point; that nothing happens any more can only be waited for.
        let _ = tokio::time::timeout(Duration::from_secs(2), flood).await;
        let kept = f.memory().saturating_sub(before);
        // 8 MiB to send, a stream's window of 2 MiB received, and as much again in this test's own client.
        assert!(kept < 24 << 20, "{kept} bytes after {sent}");
        f.assert_undisturbed().await;
        send.finish().unwrap();
    })
    .await;
}

/// The limits that a session's peer is told wait for it on the CONNECT stream, up to a number.
#[tokio::test]
async fn a_peer_that_never_reads_its_limits() {
    let limits = |builder: wireloom::ServerBuilder| {
        let mut limits = wireloom::proto::webtransport::flow::FlowControl::OFF;
        (limits.streams_uni, limits.streams_bi, limits.data) = (2, 2, 1000);
        builder.flow_control(limits)
    };
    hostile_with(limits, async |f| {
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(300u32.into());
        let mut raw = within(Raw::with_transport(f.server, transport)).await;
        raw.announce(&[(0x2c7c_f000, 1), (0x33, 1), (0x2b61, 1000)]).await;
        let (send, _unread) = within(raw.session("/ends")).await;
        let session = u64::from(send.id());
        let mut streams = 0;
        let flood = async {
            loop {
                let Ok(mut stream) = raw.conn.open_uni().await else {
                    break;
                };
                if stream.write_all(&wt_uni(session, b"")).await.is_err() || stream.finish().is_err() {
                    break;
                }
                streams += 1;
                // The server has seen its end, and has room for another.
                if raw.conn.read_datagram().await.is_err() {
                    break;
                }
            }
        };
        within(flood).await;
        assert_eq!(within(raw.closed()).await, Code::H3_EXCESSIVE_LOAD, "after {streams}");
        assert!(streams > 1000, "{streams}");
    })
    .await;
}
