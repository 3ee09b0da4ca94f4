//! Sessions that may not be, or not yet (draft-ietf-webtrans-http3-16 section 3).

use wireloom_proto::{Code, capsule as types};

use crate::common::raw::{
    Answer, Raw, answer, capsule, connect, connect_with, field_of_response, get, head, read_status, wt_bi,
};
use crate::common::within;
use crate::support::{hostile, hostile_with};
use crate::table::case;

const H3_DATAGRAM: (u64, u64) = (0x33, 1);
const DRAFT15: (u64, u64) = (0x2c7c_f000, 1);
const DRAFT02: (u64, u64) = (0x2b60_3742, 1);
const DRAFT07: (u64, u64) = (0xc671_706a, 1);
const INITIAL_MAX_DATA: (u64, u64) = (0x2b61, 1 << 20);

#[tokio::test]
async fn refused_with_a_status() {
    let cases = [
        (case(43), connect_with("/wt", &[("origin", "https://evil.test")])),
        (case(43), connect_with("/wt", &[("origin", "null")])),
        (case(43), connect_with("/wt", &[("origin", "http://a")])),
        (case(44), connect("/")),
        (case(44), connect("/large")),
    ];
    hostile(async |f| {
        let raw = f.raw().await;
        for (case, bytes) in &cases {
            let (_send, recv) = raw.bi(bytes, true).await;
            assert_eq!(within(answer(recv)).await, case.answer(), "{}", case.what);
        }
        within(raw.session("/wt")).await;
    })
    .await;
}

#[tokio::test]
async fn held_until_settings() {
    case(45).harmless();
    hostile(async |f| {
        let mut raw = f.silent().await;
        let (send, mut recv) = raw.bi(&connect("/wt"), false).await;
        let session = u64::from(send.id());
        let (mut early, mut echoed) = raw.bi(&wt_bi(session, b"early"), false).await;
        early.finish().unwrap();
        // A request needs no SETTINGS: when it is answered, the CONNECT has been read and was not.
        within(raw.assert_alive()).await;
        assert_eq!(f.running.monitor.stats().sessions, 1);
        raw.start().await;
        assert_eq!(within(read_status(&mut recv)).await, 200);
        assert_eq!(within(echoed.read_to_end(100)).await.unwrap(), b"early");
    })
    .await;
}

#[tokio::test]
async fn requirements() {
    let case = case(46);
    hostile(async |f| {
        // No WebTransport, no datagrams, a version without the datagrams that it needs.
        for settings in [&[][..], &[DRAFT02], &[DRAFT15], &[(DRAFT15.0, 0), H3_DATAGRAM]] {
            let raw = f.raw_with(settings).await;
            let (_send, recv) = raw.bi(&connect("/wt"), false).await;
            assert_eq!(within(answer(recv)).await, case.answer(), "{settings:?}");
            within(raw.assert_alive()).await;
        }
        // Clients of drafts 09 to 12 need not say more.
        let raw = f.raw_with(&[H3_DATAGRAM]).await;
        within(raw.session("/wt")).await;
        // Draft 15 without the datagrams of QUIC; draft 02 never asked for them.
        for (settings, expected) in [
            ([DRAFT15, H3_DATAGRAM], Some(case.answer())),
            ([DRAFT07, H3_DATAGRAM], Some(case.answer())),
            ([DRAFT02, H3_DATAGRAM], None),
        ] {
            let mut transport = quinn::TransportConfig::default();
            transport.datagram_receive_buffer_size(None);
            let mut raw = within(Raw::with_transport(f.server, transport)).await;
            raw.announce(&settings).await;
            let Some(expected) = expected else {
                within(raw.session("/wt")).await;
                continue;
            };
            let (_send, recv) = raw.bi(&connect("/wt"), false).await;
            assert_eq!(within(answer(recv)).await, expected, "{settings:?}");
        }
        // Malformed in another way: a session needs https.
        let raw = f.raw().await;
        let plain = head(&[
            (":method", "CONNECT"),
            (":protocol", "webtransport"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/wt"),
        ]);
        let (_send, recv) = raw.bi(&plain, false).await;
        assert_eq!(within(answer(recv)).await, case.answer());
    })
    .await;
}

/// A request and its answer, before which the ticket has come.
async fn visit(connection: &quinn::Connection) {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&get("/")).await.unwrap();
    send.finish().unwrap();
    within(recv.read_to_end(1000)).await.unwrap();
}

#[tokio::test]
async fn no_early_data() {
    case(47).harmless();
    hostile(async |f| {
        let config = crate::common::raw::config(quinn::TransportConfig::default(), None);
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let dial = || endpoint.connect_with(config.clone(), f.server, "localhost").unwrap();
        let first = within(dial()).await.unwrap();
        visit(&first).await;
        first.close(0u32.into(), b"");
        drop(first);
        match dial().into_0rtt() {
            Ok((early, accepted)) => {
                let (mut send, recv) = early.open_bi().await.unwrap();
                send.write_all(&connect("/wt")).await.unwrap();
                assert!(!within(accepted).await, "the CONNECT may have come in early data");
                drop((send, recv));
            }
            // The ticket allows no early data.
            Err(connecting) => drop(within(connecting).await.unwrap()),
        }
        drop(endpoint);
    })
    .await;
    // Where it is on, nobody hears of the session before the handshake is complete: replayed, it never is.
    hostile_with(
        |b| b.early_data(true),
        async |f| {
            let config = crate::common::raw::config(quinn::TransportConfig::default(), None);
            let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let dial = || endpoint.connect_with(config.clone(), f.server, "localhost").unwrap();
            let first = within(dial()).await.unwrap();
            visit(&first).await;
            first.close(0u32.into(), b"");
            drop(first);
            let Ok((early, accepted)) = dial().into_0rtt() else {
                panic!("a ticket that allows early data");
            };
            let mut control = early.open_uni().await.unwrap();
            let settings = crate::common::raw::settings().encode_frame();
            control.write_all(&[&[0][..], &settings].concat()).await.unwrap();
            let (mut send, mut recv) = early.open_bi().await.unwrap();
            send.write_all(&connect("/wt")).await.unwrap();
            assert!(within(accepted).await);
            assert_eq!(within(read_status(&mut recv)).await, 200);
        },
    )
    .await;
}

#[tokio::test]
async fn early_capsules() {
    case(48).harmless();
    hostile(async |f| {
        let raw = f.raw().await;
        let (mut send, mut recv) = raw.bi(&connect("/later"), false).await;
        let session = u64::from(send.id());
        let drain = capsule(types::WT_DRAIN_SESSION, b"");
        let close = capsule(types::WT_CLOSE_SESSION, &[0, 0, 0, 7]);
        send.write_all(&[drain, close].concat()).await.unwrap();
        let (_bi, bi) = raw.bi(&wt_bi(session, b"x"), false).await;
        within(raw.assert_alive()).await;
        // Processed, the capsule would have ended the session and its request.
        assert_eq!(f.running.monitor.stats().sessions, 2);
        within(raw.assert_served("/go")).await;
        assert_eq!(within(read_status(&mut recv)).await, 200);
        assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"");
        assert_eq!(within(answer(bi)).await, Answer::Reset(Code::WT_SESSION_GONE));

        // More than is kept has to wait in QUIC, and comes through afterwards.
        let (mut send, mut recv) = raw.bi(&connect("/later"), false).await;
        let unknown = capsule(0x1234, &[7; 60_000]);
        let close = capsule(types::WT_CLOSE_SESSION, &[0, 0, 0, 7]);
        send.write_all(&[unknown, close].concat()).await.unwrap();
        within(raw.assert_alive()).await;
        assert_eq!(f.running.monitor.stats().sessions, 2);
        within(raw.assert_served("/go")).await;
        assert_eq!(within(read_status(&mut recv)).await, 200);
        assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"");
    })
    .await;
}

#[tokio::test]
async fn malformed_protocols() {
    case(49).harmless();
    let field = "wt-available-protocols";
    hostile(async |f| {
        let raw = f.raw().await;
        for (value, expected) in [
            ("\"a\", \"b\"", Some("\"a\"")),
            ("\"b\";q=1, \"a\"", Some("\"b\"")),
            ("\"a", None),
            ("a, b", None),
            ("\"a\", 1", None),
            ("(\"a\" \"b\")", None),
            ("\"a\",", None),
            ("", None),
        ] {
            let (send, mut recv) = raw.bi(&connect_with("/later", &[(field, value)]), false).await;
            within(raw.assert_served("/go")).await;
            let chosen = within(field_of_response(&mut recv, "wt-protocol")).await;
            assert_eq!(chosen.as_deref(), expected, "{value}");
            drop(send);
        }
    })
    .await;
}

#[tokio::test]
async fn second_session_without_flow_control() {
    let case = case(50);
    hostile(async |f| {
        let raw = f.raw_with(&[DRAFT15, H3_DATAGRAM]).await;
        let (_one, _recv) = within(raw.session("/wt")).await;
        let (_two, recv) = raw.bi(&connect("/wt"), false).await;
        assert_eq!(within(answer(recv)).await, case.answer());
        // Both before SETTINGS.
        let mut raw = f.silent().await;
        let (_one, mut first) = raw.bi(&connect("/wt"), false).await;
        let (_two, second) = raw.bi(&connect("/wt"), false).await;
        within(raw.assert_alive()).await;
        raw.announce(&[DRAFT15, H3_DATAGRAM]).await;
        assert_eq!(within(read_status(&mut first)).await, 200);
        assert_eq!(within(answer(second)).await, case.answer());
    })
    .await;
}

#[tokio::test]
async fn session_flood() {
    let case = case(51);
    hostile(async |f| {
        for settings in [&[DRAFT02, H3_DATAGRAM][..], &[DRAFT15, H3_DATAGRAM, INITIAL_MAX_DATA]] {
            let raw = f.raw_with(settings).await;
            let mut sessions = Vec::new();
            for _ in 0..16 {
                sessions.push(within(raw.session("/wt")).await);
            }
            for _ in 0..100 {
                let (_send, recv) = raw.bi(&connect("/wt"), false).await;
                assert_eq!(within(answer(recv)).await, case.answer(), "{settings:?}");
            }
            assert_eq!(f.running.monitor.stats().sessions, 17);
            // One that ends makes room.
            let (mut send, recv) = sessions.pop().unwrap();
            send.finish().unwrap();
            assert_eq!(within(answer(recv)).await, Answer::Empty);
            within(raw.session("/wt")).await;
        }
    })
    .await;
}

/// A client that takes no header section in which a status has room: what cannot be answered is reset, and forgotten.
#[tokio::test]
async fn answers_that_the_client_does_not_take() {
    const MAX_FIELD_SECTION_SIZE: (u64, u64) = (0x06, 41);
    let unknown = head(&[
        (":method", "CONNECT"),
        (":protocol", "x"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/"),
    ]);
    let cases = [
        // Accepted; no resource for sessions; a request; nothing that the application hears of.
        (connect("/wt"), Code::H3_INTERNAL_ERROR),
        (connect("/"), Code::H3_INTERNAL_ERROR),
        (get("/"), Code::H3_INTERNAL_ERROR),
        (unknown, Code::H3_REQUEST_REJECTED),
    ];
    hostile(async |f| {
        let raw = f.raw_with(&[H3_DATAGRAM, DRAFT02, MAX_FIELD_SECTION_SIZE]).await;
        for (bytes, code) in cases {
            let (_send, recv) = raw.bi(&bytes, true).await;
            assert_eq!(within(answer(recv)).await, Answer::Reset(code), "{bytes:?}");
        }
    })
    .await;
}
