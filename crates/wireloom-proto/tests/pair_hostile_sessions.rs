//! Sessions of one connection against a peer that breaks the rules.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use wireloom_proto::connection::{SessionEnd, SessionRequest};
use wireloom_proto::testing::peer::{
    ALL_SETTINGS, DRAFT02_SETTINGS, Lone, data, extended_connect, get, headers, varints, webtransport_connect,
};
use wireloom_proto::{Action, Code, Config, Event, Recv, SessionId, Side, StreamId, capsule};

fn id(stream: u64) -> StreamId {
    StreamId::from_u64(stream)
}

fn session(stream: u64) -> SessionId {
    SessionId::new(id(stream)).expect("a request stream")
}

/// Reset and stopped with `code`, and nothing else.
fn refused(stream: u64, code: Code) -> Vec<Action> {
    vec![
        Action::Reset {
            stream: id(stream),
            code,
        },
        Action::StopSending {
            stream: id(stream),
            code,
        },
    ]
}

#[test]
fn connects_are_held_until_settings_and_bounded() {
    let mut lone = Lone::without_settings(Side::Server, Config::default());
    for index in 0..17 {
        let _ = lone.recv(4 * index, &webtransport_connect(), false);
    }
    // Sixteen is the default limit while the dialect is unknown.
    assert_eq!(lone.actions(), refused(64, Code::H3_REQUEST_REJECTED));
    assert!(lone.events().is_empty() && lone.core.sessions().next().is_none());
    lone.settings(&ALL_SETTINGS);
    let events = lone.events();
    assert!(
        matches!(events[..], [Event::Ready { .. }, Event::SessionRequested { session: id, .. }] if id == session(0)),
        "{events:?}"
    );
    // "A server that receives more than one session [...] when flow control is not enabled MUST reset the excessive CONNECT
    // streams with a H3_REQUEST_REJECTED status" (draft-ietf-webtrans-http3-16 section 5.1).
    let expected: Vec<_> = (1..16)
        .flat_map(|index| refused(4 * index, Code::H3_REQUEST_REJECTED))
        .collect();
    assert_eq!(lone.actions(), expected);

    // Draft 02 has no such rule.
    let mut lone = Lone::without_settings(Side::Server, Config::default());
    for index in 0..3 {
        let _ = lone.recv(4 * index, &webtransport_connect(), false);
    }
    lone.settings(&DRAFT02_SETTINGS);
    assert_eq!(lone.events().len(), 4);
    assert_eq!(lone.core.sessions().count(), 3);

    // A client without the settings: "the server MUST treat all established and newly incoming WebTransport sessions as
    // malformed" (section 3.1).
    let mut lone = Lone::without_settings(Side::Server, Config::default());
    let _ = lone.recv(0, &webtransport_connect(), false);
    lone.settings(&[(0x33, 1)]);
    assert_eq!(lone.actions(), refused(0, Code::H3_MESSAGE_ERROR));
    let _ = lone.recv(4, &webtransport_connect(), false);
    assert_eq!(lone.actions(), refused(4, Code::H3_MESSAGE_ERROR));
    assert!(matches!(lone.events()[..], [Event::Ready { dialect: None, .. }]));
}

#[test]
fn both_tokens_are_taken_and_https_is_required() {
    for token in ["webtransport", "webtransport-h3"] {
        for settings in [&ALL_SETTINGS[..], &DRAFT02_SETTINGS] {
            let mut lone = Lone::new(Side::Server, Config::default(), settings);
            // "Any value type other than String MUST be treated as an error that causes the entire field to be ignored".
            let connect = extended_connect(token, &[("wt-available-protocols", "\"a\", b")]);
            assert_eq!(lone.recv(0, &connect, false), Recv::Continue);
            let events = lone.events();
            assert!(
                matches!(&events[..], [Event::SessionRequested { protocols, .. }] if protocols.is_empty()),
                "{events:?}"
            );
        }
    }
    let http = [
        (":method", "CONNECT"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/"),
        (":protocol", "webtransport"),
    ];
    let mut lone = Lone::server();
    assert_eq!(lone.recv(0, &headers(&http), false), Recv::Done);
    assert_eq!(lone.actions(), refused(0, Code::H3_MESSAGE_ERROR));
}

#[test]
fn capsules_wait_for_the_response() {
    let mut config = Config::default();
    config.max_early_capsule_bytes = 100;
    let mut lone = Lone::new(Side::Server, config, &DRAFT02_SETTINGS);
    // As Chromium does: a reserved capsule at once.
    let early = [
        webtransport_connect(),
        data(&[0x17, 3, 1, 2, 3]),
        data(&capsule::encode_drain_session()),
    ]
    .concat();
    assert_eq!(lone.recv(0, &early, false), Recv::Continue);
    assert!(matches!(lone.events()[..], [Event::SessionRequested { .. }]));
    let mut rest = data(&[&[0x17, 0x40, 100][..], &[0; 100]].concat());
    rest.extend(data(&capsule::encode_close_session(7, "early")));
    assert_eq!(lone.recv(0, &rest[..80], false), Recv::Continue);
    assert_eq!(lone.recv(0, &rest[80..], false), Recv::Pause);
    lone.core
        .accept_session(lone.now, session(0), &Response::new(()), None)
        .expect("requested");
    let events = lone.events();
    let [
        Event::SessionDraining { .. },
        Event::SessionClosed { end, .. },
        Event::Resume { .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(
        *end,
        SessionEnd::ClosedByPeer {
            code: 7,
            reason: "early".to_owned()
        }
    );

    // FIN before the response counts after it.
    assert_eq!(lone.recv(4, &webtransport_connect(), true), Recv::Done);
    lone.core
        .accept_session(lone.now, session(4), &Response::new(()), None)
        .expect("requested");
    let events = lone.events();
    assert!(
        matches!(
            &events[..],
            [
                Event::SessionRequested { .. },
                Event::SessionClosed {
                    end: SessionEnd::ClosedByPeer { code: 0, .. },
                    ..
                }
            ]
        ),
        "{events:?}"
    );
    // What came early for a session that is rejected is discarded.
    assert_eq!(
        lone.recv(8, &[webtransport_connect(), data(b"\x68\x43\x05")].concat(), true),
        Recv::Done
    );
    let mut head = Response::new(());
    *head.status_mut() = http::StatusCode::FORBIDDEN;
    lone.core
        .reject_session(session(8), &head, Bytes::new())
        .expect("requested");
    assert!(matches!(lone.events()[..], [Event::SessionRequested { .. }]));
    assert!(!lone.core.is_closed());
    let _ = lone.recv(0, b"", true);
    assert!(lone.core.leftovers().is_empty());
}

#[test]
fn capsules_that_break_the_session() {
    let error = Code::H3_MESSAGE_ERROR;
    let header = |ty, len| varints(&[ty, len]);
    let close = |len: u64, payload: &[u8]| [header(capsule::WT_CLOSE_SESSION, len), payload.to_vec()].concat();
    let cases: Vec<(Vec<u8>, bool, Code)> = vec![
        // Draft 16 section 6: too short, too long, not UTF-8.
        (close(3, &[0; 3]), false, error),
        (close(4 + 1025, &[]), false, error),
        (close(5, &[0, 0, 0, 0, 0xff]), false, error),
        // RFC 9297 section 3.3: FIN inside a capsule.
        (header(capsule::WT_DRAIN_SESSION, 0)[..2].to_vec(), true, error),
        (header(0x17, 9), true, error),
        // Section 5.4.
        (
            header(capsule::WT_MAX_STREAM_DATA, 0),
            false,
            Code::WT_FLOW_CONTROL_ERROR,
        ),
        (
            header(capsule::WT_STREAM_DATA_BLOCKED, 0),
            false,
            Code::WT_FLOW_CONTROL_ERROR,
        ),
    ];
    for (bytes, fin, expected) in cases {
        for chunk in [usize::MAX, 1] {
            let (mut lone, id) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
            let frame = data(&bytes);
            let count = frame.chunks(chunk.min(frame.len())).count();
            for (index, piece) in frame.chunks(chunk.min(frame.len())).enumerate() {
                let _ = lone.recv(0, piece, fin && index + 1 == count);
            }
            assert_eq!(lone.actions(), refused(0, expected), "{bytes:x?}");
            let events = lone.events();
            assert!(
                matches!(&events[..], [Event::SessionClosed { session, end: SessionEnd::PeerMisbehaved { code, .. }, .. }]
                    if *session == id && *code == expected),
                "{events:?}"
            );
            assert!(!lone.core.is_closed() && lone.core.leftovers().is_empty());
        }
    }
}

#[test]
fn nothing_may_follow_the_close_capsule() {
    // "If any additional stream data is received on the CONNECT stream after receiving a WT_CLOSE_SESSION capsule, the stream
    // MUST be reset with code H3_MESSAGE_ERROR" (draft-ietf-webtrans-http3-16 section 6).
    let close = data(&capsule::encode_close_session(1, "bye"));
    for cut in [close.len(), close.len() + 1] {
        let (mut lone, _) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
        let bytes = [close.clone(), vec![0x21, 0]].concat();
        let _ = lone.recv(0, &bytes[..cut], false);
        let _ = lone.recv(0, &bytes[cut..], false);
        let actions = lone.actions();
        assert!(actions.ends_with(&refused(0, Code::H3_MESSAGE_ERROR)), "{actions:?}");
        let events = lone.events();
        assert!(
            matches!(
                &events[..],
                [Event::SessionClosed {
                    end: SessionEnd::ClosedByPeer { code: 1, .. },
                    ..
                }]
            ),
            "{events:?}"
        );
        assert!(lone.core.leftovers().is_empty());
    }
    // A peer that closes and never sends FIN is stopped.
    let (mut lone, _) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
    assert_eq!(lone.recv(0, &close, false), Recv::Continue);
    assert_eq!(
        lone.actions(),
        [Action::Write {
            stream: id(0),
            data: Bytes::new(),
            fin: true
        }]
    );
    lone.advance(Duration::from_secs(5));
    assert_eq!(
        lone.actions(),
        [Action::StopSending {
            stream: id(0),
            code: Code::WT_SESSION_GONE
        }]
    );
    assert!(lone.core.leftovers().is_empty());
}

#[test]
fn capsules_that_mean_nothing_are_skipped() {
    let (mut lone, id) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
    let mut bytes = Vec::new();
    // "if flow control is not enabled, an endpoint MUST ignore receipt of any flow control capsules" (section 5.1).
    for ty in [
        capsule::WT_MAX_DATA,
        capsule::WT_MAX_STREAMS_BIDI,
        capsule::WT_MAX_STREAMS_UNI,
        capsule::WT_DATA_BLOCKED,
        capsule::WT_STREAMS_BLOCKED_BIDI,
        capsule::WT_STREAMS_BLOCKED_UNI,
    ] {
        bytes.extend(data(&varints(&[ty, 8, (1 << 61) + 1])));
    }
    bytes.extend(data(&capsule::encode_datagram(b"slow")));
    // A length of 2^62-1 costs nothing.
    bytes.extend(data(&varints(&[0x1234, (1 << 62) - 1])));
    bytes.extend(data(&[0; 100]));
    assert_eq!(lone.recv(0, &bytes, false), Recv::Continue);
    assert!(lone.actions().is_empty());
    let events = lone.events();
    assert!(
        matches!(&events[..], [Event::Datagram { session, payload }] if *session == id && payload == "slow"),
        "{events:?}"
    );
}

#[test]
fn datagrams() {
    for bad in [&b""[..], &[0xc0], &[0xd0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut lone = Lone::server();
        assert_eq!(lone.core.handle_datagram(lone.now, Bytes::copy_from_slice(bad)), None);
        // RFC 9297 section 2.1.
        assert_eq!(lone.closed_with(), Some(Code::H3_DATAGRAM_ERROR));
    }
    let (mut lone, open) = Lone::server_with_session(Config::default(), &DRAFT02_SETTINGS);
    let datagram = |quarter: u8| Bytes::copy_from_slice(&[quarter, b'x']);
    assert_eq!(
        lone.core.handle_datagram(lone.now, datagram(0)),
        Some((open, Bytes::from_static(b"x")))
    );
    // Bounded before the session, dropped beyond (draft 16 section 4.6).
    for _ in 0..1000 {
        assert_eq!(lone.core.handle_datagram(lone.now, datagram(1)), None);
    }
    let _ = lone.recv(4, &webtransport_connect(), false);
    lone.core
        .accept_session(lone.now, session(4), &Response::new(()), None)
        .expect("requested");
    let waiting = lone
        .events()
        .iter()
        .filter(|event| matches!(event, Event::Datagram { .. }))
        .count();
    assert_eq!(waiting, Config::default().max_parked_datagrams);
    // Of a closed session: dropped.
    lone.core.close_session(lone.now, open, 0, "").expect("open");
    assert_eq!(lone.core.handle_datagram(lone.now, datagram(0)), None);
    assert!(!lone.core.is_closed());
    let _ = lone.recv(0, b"", true);
    lone.reset(4, Code::H3_NO_ERROR);
    assert!(lone.core.leftovers().is_empty());
}

#[test]
fn streams_of_sessions_that_are_over_or_can_never_be() {
    let (mut lone, open) = Lone::server_with_session(Config::default(), &DRAFT02_SETTINGS);
    lone.core.close_session(lone.now, open, 0, "").expect("open");
    let _ = lone.recv(0, b"", true);
    // An ordinary request is no session, and neither is a WebTransport stream.
    let _ = lone.recv(4, &get(), true);
    let _ = lone.recv(8, &varints(&[0x41, 12]), false);
    lone.actions();
    lone.events();
    for (index, gone) in [0, 4, 8].into_iter().enumerate() {
        let stream = 100 + 4 * index as u64;
        assert_eq!(lone.recv(stream, &varints(&[0x41, gone]), false), Recv::Done);
        assert_eq!(lone.actions(), refused(stream, Code::WT_SESSION_GONE));
    }
    // One that may yet come waits, and so does one whose header section is incomplete.
    assert_eq!(lone.recv(200, &varints(&[0x41, 80]), false), Recv::Parked);
    let _ = lone.recv(84, &webtransport_connect()[..3], false);
    assert_eq!(lone.recv(204, &varints(&[0x41, 84]), false), Recv::Parked);
    // A client knows what it requested.
    let mut client = Lone::client();
    assert_eq!(client.recv(1, &varints(&[0x41, 0]), false), Recv::Done);
    assert_eq!(client.actions(), refused(1, Code::WT_SESSION_GONE));
    // Without WebTransport the stream types are unknown ones.
    let mut none = Lone::new(Side::Server, Config::default(), &[]);
    assert_eq!(none.recv(0, &varints(&[0x41, 0]), false), Recv::Done);
    assert_eq!(none.actions(), refused(0, Code::H3_STREAM_CREATION_ERROR));
}

#[test]
fn early_streams_are_bounded() {
    let mut lone = Lone::server();
    let parked = (0..100)
        .filter(|index| lone.recv(400 + 4 * index, &varints(&[0x41, 0]), false) == Recv::Parked)
        .count();
    assert_eq!(parked, 64);
    assert_eq!(lone.actions().len(), 2 * 36);
    // One that is reset makes room.
    lone.reset(400, Code::H3_NO_ERROR);
    assert_eq!(
        lone.actions(),
        [Action::Reset {
            stream: id(400),
            code: Code::WT_BUFFERED_STREAM_REJECTED
        }]
    );
    assert_eq!(lone.recv(1200, &varints(&[0x41, 0]), false), Recv::Parked);
    // By bytes too.
    let mut lone = Lone::server();
    let big = [varints(&[0x54, 0]), vec![0; 100 << 10]].concat();
    let answers: Vec<Recv> = (5..8)
        .map(|index| lone.recv(lone.peer_uni(index), &big, false))
        .collect();
    assert_eq!(answers, [Recv::Parked, Recv::Parked, Recv::Done]);
    lone.advance(Duration::from_secs(5));
    assert!(lone.core.leftovers().is_empty());
    // The time runs from each stream's own arrival.
    let mut lone = Lone::server();
    for index in 0..5 {
        let _ = lone.recv(400 + 4 * index, &varints(&[0x41, 0]), false);
        lone.advance(Duration::from_secs(1));
    }
    assert_eq!(lone.actions(), refused(400, Code::WT_BUFFERED_STREAM_REJECTED));
}

#[test]
fn a_server_may_not_choose_what_was_not_offered() {
    let respond = |fields: &[(&str, &str)], offer: &[&str]| {
        let mut lone = Lone::client();
        let mut request = SessionRequest::new("localhost", "/");
        request.protocols = offer.iter().map(|&protocol| protocol.to_owned()).collect();
        lone.core.connect(lone.now, id(0), &request).expect("ready");
        lone.actions();
        let _ = lone.recv(0, &headers(&[&[(":status", "200")], fields].concat()), false);
        lone
    };
    // Draft 16 section 3.3.
    let mut lone = respond(&[("wt-protocol", "\"c\"")], &["a", "b"]);
    assert_eq!(lone.actions(), refused(0, Code::WT_ALPN_ERROR));
    let events = lone.events();
    assert!(
        matches!(
            &events[..],
            [Event::SessionClosed {
                end: SessionEnd::PeerMisbehaved {
                    code: Code::WT_ALPN_ERROR,
                    ..
                },
                ..
            }]
        ),
        "{events:?}"
    );
    for (field, offer, expected) in [
        ("\"b\";x=1", &["a", "b"][..], Some("b")),
        ("b", &["a", "b"], None),
        ("\"b\"", &[], None),
    ] {
        let mut lone = respond(&[("wt-protocol", field)], offer);
        let events = lone.events();
        assert!(
            matches!(&events[..], [Event::SessionEstablished { protocol, .. }] if protocol.as_deref() == expected),
            "{events:?}"
        );
        assert!(lone.actions().is_empty());
    }
}

#[test]
fn responses_to_connect_are_judged() {
    let respond = |bytes: &[u8], fin| {
        let mut lone = Lone::client();
        lone.core
            .connect(lone.now, id(0), &SessionRequest::new("localhost", "/"))
            .expect("ready");
        lone.actions();
        let _ = lone.recv(0, bytes, fin);
        lone
    };
    let misbehaved = |mut lone: Lone, expected: Code| {
        assert_eq!(lone.actions(), refused(0, expected));
        let events = lone.events();
        assert!(
            matches!(&events[..], [Event::SessionClosed { end: SessionEnd::PeerMisbehaved { code, .. }, .. }] if *code == expected),
            "{events:?}"
        );
        assert!(lone.core.leftovers().is_empty());
    };
    misbehaved(respond(&headers(&[("a", "b")]), false), Code::H3_MESSAGE_ERROR);
    misbehaved(respond(b"", true), Code::H3_MESSAGE_ERROR);
    misbehaved(respond(&headers(&[(":status", "103")]), true), Code::H3_MESSAGE_ERROR);
    misbehaved(
        respond(&headers(&[(":status", "200"), ("x", &"y".repeat(100_000))]), false),
        Code::H3_EXCESSIVE_LOAD,
    );
    assert_eq!(
        respond(&data(b"x"), false).closed_with(),
        Some(Code::H3_FRAME_UNEXPECTED)
    );
    assert_eq!(respond(&get()[..4], true).closed_with(), Some(Code::H3_FRAME_ERROR));
    // "The WebTransport client MUST NOT automatically follow such redirects" (draft 16 section 3.2).
    let mut lone = respond(
        &[headers(&[(":status", "302"), ("location", "/x")]), data(b"moved")].concat(),
        false,
    );
    let events = lone.events();
    assert!(
        matches!(&events[..], [Event::SessionRejected { head, .. }] if head.status() == 302),
        "{events:?}"
    );
    assert_eq!(
        lone.actions(),
        [Action::Write {
            stream: id(0),
            data: Bytes::new(),
            fin: true
        }]
    );
    assert_eq!(lone.recv(0, b"\0\x01x", true), Recv::Done);
    assert!(lone.core.leftovers().is_empty());
}
