//! Sessions of one connection against a peer that breaks the rules.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use wireloom_proto::connection::{SessionEnd, SessionRequest};
use wireloom_proto::testing::peer::{
    ALL_SETTINGS, DRAFT02_SETTINGS, Lone, data, extended_connect, get, headers, post, varints, webtransport_connect,
};
use wireloom_proto::webtransport::negotiate::{Dialect, Dialects};
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

/// "the server MUST NOT process any incoming WebTransport requests until the client's SETTINGS have been received"
/// (draft 16 section 3.1).
#[test]
fn connects_are_held_until_settings_and_bounded() {
    let mut lone = Lone::without_settings(Side::Server, Config::default());
    for index in 0..17 {
        let _ = lone.recv(4 * index, &webtransport_connect(), false);
    }
    // Sixteen is the default limit while the dialect is unknown.
    assert_eq!(lone.actions(), refused(64, Code::H3_REQUEST_REJECTED));
    assert!(lone.events().is_empty() && lone.core.sessions().next().is_none());
    // "QUIC DATAGRAM frames MUST NOT be sent until the SETTINGS_H3_DATAGRAM setting has been both sent and received
    // with a value of 1" (RFC 9297 section 2.1.1).
    assert!(lone.core.datagram_prefix(session(0)).is_err());
    lone.settings(&ALL_SETTINGS);
    let events = lone.events();
    assert!(
        matches!(events[..], [Event::Ready { .. }, Event::SessionRequested { session: id, .. }] if id == session(0)),
        "{events:?}"
    );
    // Without flow control the server "MUST reset the excessive CONNECT streams with a H3_REQUEST_REJECTED status"
    // (draft 16 section 5.1).
    // "An endpoint that does not support pooling and flow control MUST NOT accept more than one incoming WebTransport
    // session at a time" (draft 16 section 5.2).
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
    // malformed" (draft 16 section 3.1).
    let newest = extended_connect("webtransport-h3", &[]);
    let mut lone = Lone::without_settings(Side::Server, Config::default());
    let _ = lone.recv(0, &newest, false);
    lone.settings(&[(0x33, 1)]);
    assert_eq!(lone.actions(), refused(0, Code::H3_MESSAGE_ERROR));
    let _ = lone.recv(4, &newest, false);
    assert_eq!(lone.actions(), refused(4, Code::H3_MESSAGE_ERROR));
    assert!(matches!(lone.events()[..], [Event::Ready { dialect: None, .. }]));
}

/// As webtransport-go up to 0.9 does: the header field of draft 02, and no setting.
#[test]
fn a_client_that_announces_draft_02_by_its_connect_only() {
    let field = ("sec-webtransport-http3-draft02", "1");
    let connect = extended_connect("webtransport", &[field]);
    let serve = |settings: &[(u64, u64)], connect: &[u8]| {
        let mut lone = Lone::without_settings(Side::Server, Config::default());
        let _ = lone.recv(0, connect, false);
        lone.settings(settings);
        lone
    };
    let mut lone = serve(&[(0x33, 1)], &connect);
    let _ = lone.recv(4, &connect, false);
    let events = lone.events();
    let requested = |event: &Event| {
        matches!(
            event,
            Event::SessionRequested {
                dialect: Dialect::Draft02,
                ..
            }
        )
    };
    assert!(events.len() == 3 && events[1..].iter().all(requested), "{events:?}");
    assert_eq!(lone.core.dialect(), Some(Dialect::Draft02));

    // Without datagrams, with the setting off, with another's setting that is not met.
    for (settings, connect) in [
        (&[][..], &connect),
        (&[(0x33, 1), (0x2b60_3742, 0)], &connect),
        (&[(0x2c7c_f000, 1)], &connect),
    ] {
        let mut lone = serve(settings, connect);
        assert_eq!(lone.actions(), refused(0, Code::H3_MESSAGE_ERROR), "{settings:?}");
        assert_eq!(lone.core.dialect(), None);
    }
}

/// "clients indicate support for WebTransport by using the "webtransport" upgrade token" (drafts 09 to 12 section 3.1), and
/// by no setting.
#[test]
fn a_client_that_announces_drafts_09_to_12_by_its_connect_only() {
    let serve = |config: Config, settings: &[(u64, u64)], protocol: &str| {
        let mut lone = Lone::without_settings(Side::Server, config);
        let _ = lone.recv(0, &extended_connect(protocol, &[]), false);
        lone.settings(settings);
        lone
    };
    let mut lone = serve(Config::default(), &[(0x33, 1)], "webtransport");
    let events = lone.events();
    assert!(
        matches!(
            events[..],
            [
                Event::Ready { dialect: None, .. },
                Event::SessionRequested {
                    dialect: Dialect::Draft07,
                    ..
                }
            ]
        ),
        "{events:?}"
    );
    // What overtakes the CONNECT waits for it, as with clients that announce themselves: "endpoints SHOULD buffer" (draft 16
    // section 4.6).
    let mut lone = Lone::new(Side::Server, Config::default(), &[(0x33, 1)]);
    let uni = lone.peer_uni(3);
    let _ = lone.recv(uni, &[0x40, 0x54, 0, b'x'], true);
    let _ = lone.core.handle_datagram(lone.now, Bytes::from_static(&[0, b'y']));
    let _ = lone.recv(0, &extended_connect("webtransport", &[]), false);
    let accepted = lone.core.accept_session(lone.now, session(0), &Response::new(()), None);
    accepted.expect("requested");
    let events = lone.events();
    assert!(
        matches!(
            events[..],
            [
                Event::SessionRequested { .. },
                Event::Stream { .. },
                Event::Datagram { .. }
            ]
        ),
        "{events:?}"
    );
    let mut without = Config::default();
    without.dialects = Dialects::ALL.without(Dialect::Draft07);
    // Without HTTP datagrams, with a setting of a newer draft that is not met, with the token of a newer one, and not wanted.
    for (config, settings, protocol) in [
        (Config::default(), &[][..], "webtransport"),
        (Config::default(), &[(0x2c7c_f000, 0), (0x33, 1)], "webtransport"),
        (Config::default(), &[(0x33, 1)], "webtransport-h3"),
        (without, &[(0x33, 1)], "webtransport"),
    ] {
        let mut lone = serve(config, settings, protocol);
        assert_eq!(
            lone.actions(),
            refused(0, Code::H3_MESSAGE_ERROR),
            "{settings:?} {protocol}"
        );
    }
}

#[test]
fn both_tokens_are_taken_and_https_is_required() {
    for token in ["webtransport", "webtransport-h3"] {
        for settings in [&ALL_SETTINGS[..], &DRAFT02_SETTINGS] {
            let mut lone = Lone::new(Side::Server, Config::default(), settings);
            // "Any value type other than String MUST be treated as an error that causes the entire field to be ignored"
            // (draft 16 section 3.3). The same in the field of RFC 9297: "any other value type MUST be handled as if
            // the field were not present by recipients" (RFC 9297 section 3.4), and "Receivers MUST ignore unknown
            // parameters" (RFC 9297 section 3.4).
            let fields = [
                ("wt-available-protocols", "\"a\", b"),
                ("capsule-protocol", "7, ?0;unknown=1"),
            ];
            let connect = extended_connect(token, &fields);
            assert_eq!(lone.recv(0, &connect, false), Recv::Continue);
            let events = lone.events();
            assert!(
                matches!(&events[..], [Event::SessionRequested { protocols, .. }] if protocols.is_empty()),
                "{events:?}"
            );
        }
    }
    // "The :scheme field MUST be https" (draft 16 section 3.2).
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

/// "A server MUST NOT process these bytes as capsules until it sends a 2xx response accepting the session" (draft 16
/// section 3.2).
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
        .reject_session(lone.now, session(8), &head, Bytes::new())
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
        // "the receiver MUST treat it as if it had received a malformed or incomplete HTTP message" (RFC 9297 section
        // 3.3).
        // "If the Application Error Message exceeds 1024 bytes or is not valid UTF-8, the receiver MUST reset the
        // stream with code H3_MESSAGE_ERROR" (draft 16 section 6).
        (close(3, &[0; 3]), false, error),
        (close(4 + 1025, &[]), false, error),
        (close(5, &[0, 0, 0, 0, 0xff]), false, error),
        // "the last Capsule on the stream was truncated, this MUST be treated as if it were a malformed or incomplete
        // message" (RFC 9297 section 3.3).
        (header(capsule::WT_DRAIN_SESSION, 0)[..2].to_vec(), true, error),
        (header(0x17, 9), true, error),
        // "Endpoints MUST treat receipt of a WT_MAX_STREAM_DATA or a WT_STREAM_DATA_BLOCKED capsule as a session error"
        // (draft 16 section 5.4).
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
    // "If any additional stream data is received on the CONNECT stream after receiving a WT_CLOSE_SESSION capsule, the
    // stream MUST be reset with code H3_MESSAGE_ERROR" (draft 16 section 6).
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
    // A peer that closes is answered: "The recipient MUST either close or reset the stream in response" (draft 16
    // section 6). One that never sends FIN is stopped.
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
    // "if flow control is not enabled, an endpoint MUST ignore receipt of any flow control capsules" (draft 16 section
    // 5.1).
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
    // A length of 2^62-1 costs nothing. "Endpoints that receive a Capsule with an unknown Capsule Type MUST silently
    // drop that Capsule and skip over it to parse the next Capsule" (RFC 9297 section 3.2).
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
        // "Receipt of a QUIC DATAGRAM frame whose payload is too short to allow parsing the Quarter Stream ID field
        // MUST be treated as an HTTP/3 connection error of type H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2.1).
        // "Receipt of an HTTP/3 Datagram that includes a larger value MUST be treated as an HTTP/3 connection error of
        // type H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2.1).
        assert_eq!(lone.closed_with(), Some(Code::H3_DATAGRAM_ERROR));
    }
    let (mut lone, open) = Lone::server_with_session(Config::default(), &DRAFT02_SETTINGS);
    let datagram = |quarter: u8| Bytes::copy_from_slice(&[quarter, b'x']);
    assert_eq!(
        lone.core.handle_datagram(lone.now, datagram(0)),
        Some((open, Bytes::from_static(b"x")))
    );
    // Before the session: "the receiver SHALL either drop that datagram silently or buffer it temporarily" (RFC 9297
    // section 2.1).
    // "endpoints MUST limit the number of buffered streams and datagrams" (draft 16 section 4.6).
    // "When the number of buffered datagrams is exceeded, a datagram MUST be dropped" (draft 16 section 4.6).
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
    // Of a closed session: "If a datagram is received after the corresponding stream's receive side is closed, the
    // received datagrams MUST be silently dropped" (RFC 9297 section 2.1).
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

/// "endpoints MUST limit the number of buffered streams and datagrams" (draft 16 section 4.6).
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

/// A CONNECT that never becomes a session leaves nothing waiting for it, and its streams are no loss of anybody's.
#[test]
fn what_waits_for_a_refused_connect_is_refused_with_it() {
    let malformed = headers(&[(":method", "CONNECT"), (":protocol", "webtransport")]);
    let with_content = extended_connect("webtransport", &[("content-length", "0")]);
    let unknown = extended_connect("unknown", &[]);
    let cases: [(&str, Vec<u8>, usize); 4] = [
        ("too many", webtransport_connect(), 0),
        ("content", with_content, 16),
        ("malformed", malformed, 16),
        ("no WebTransport", unknown, 16),
    ];
    for settings in [&DRAFT02_SETTINGS[..], &ALL_SETTINGS] {
        for (what, connect, max_sessions) in cases.clone() {
            let mut config = Config::default();
            config.max_sessions = max_sessions;
            let mut lone = Lone::new(Side::Server, config, settings);
            for early in [100, 104] {
                assert_eq!(lone.recv(early, &varints(&[0x41, 0]), false), Recv::Parked);
            }
            assert_eq!(lone.recv(0, &connect, false), Recv::Done, "{what}");
            let actions = lone.actions();
            for expected in [refused(100, Code::WT_SESSION_GONE), refused(104, Code::WT_SESSION_GONE)].concat() {
                assert!(actions.contains(&expected), "{what}: {actions:?}");
            }
            assert!(lone.core.leftovers().is_empty(), "{what}");
        }
    }
    // Nor does one that the client takes back before it is complete.
    for begun in [0, 1, 3] {
        let mut lone = Lone::server();
        assert_eq!(lone.recv(100, &varints(&[0x41, 0]), false), Recv::Parked);
        if begun > 0 {
            let _ = lone.recv(0, &webtransport_connect()[..begun], false);
        }
        lone.reset(0, Code::H3_REQUEST_CANCELLED);
        assert!(lone.core.leftovers().is_empty(), "{begun}");
    }
}

/// "it MUST reset all of the CONNECT streams it is not willing to process with the H3_REQUEST_REJECTED status" (draft 14 section
/// 5.2), and so in drafts from 07 on. The others leave the choice.
#[test]
fn a_session_too_many_is_answered_where_the_draft_allows_it() {
    for (dialect, answered) in [
        (Dialect::Draft02, true),
        (Dialect::Draft07, false),
        (Dialect::Draft13, false),
        (Dialect::Draft15, true),
    ] {
        let mut config = Config::default();
        config.dialects = Dialects::NONE.with(dialect);
        config.max_sessions = 1;
        let mut settings = ALL_SETTINGS.to_vec();
        settings.push((0x2b61, 100));
        let (mut lone, _) = Lone::server_with_session(config, &settings);
        let _ = lone.recv(4, &webtransport_connect(), false);
        let actions = lone.actions();
        if answered {
            let wrote = |action: &Action| matches!(action, Action::Write { stream, fin: true, .. } if *stream == id(4));
            assert!(actions.iter().any(wrote), "{dialect:?}: {actions:?}");
        } else {
            assert_eq!(actions, refused(4, Code::H3_REQUEST_REJECTED), "{dialect:?}");
        }
    }
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
    // "the client MUST close the WebTransport session with a WT_ALPN_ERROR error code" (draft 16 section 3.3).
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
    // Up to draft 14: "Otherwise, the WT-Protocol field MUST be ignored" (draft 14 section 3.3).
    for (setting, required) in [
        (0x2b60_3742, false),
        (0xc671_706a, false),
        (0x14e9_cd29, false),
        (0x14e9_cd29, true),
    ] {
        let mut lone = Lone::new(Side::Client, Config::default(), &[(8, 1), (0x33, 1), (setting, 1)]);
        let mut request = SessionRequest::new("localhost", "/");
        request.protocols = vec!["a".to_owned()];
        request.requires_protocol = required;
        lone.core.connect(lone.now, id(0), &request).expect("ready");
        let _ = lone.recv(0, &headers(&[(":status", "200"), ("wt-protocol", "\"c\"")]), false);
        let events = lone.events();
        if required {
            assert!(matches!(events[..], [Event::SessionClosed { .. }]), "{events:?}");
        } else {
            assert!(
                matches!(events[..], [Event::SessionEstablished { protocol: None, .. }]),
                "{setting:#x}: {events:?}"
            );
        }
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

/// "A client that requires application protocol negotiation MUST close the WebTransport session with a WT_ALPN_ERROR
/// error code if the server does not include a WT-Protocol header field, or if it is malformed and therefore ignored"
/// (draft 16 section 3.3).
#[test]
fn a_client_may_require_a_protocol() {
    let respond = |fields: &[(&str, &str)], required| {
        let mut lone = Lone::client();
        let mut request = SessionRequest::new("localhost", "/");
        request.protocols = vec!["a".to_owned()];
        request.requires_protocol = required;
        lone.core.connect(lone.now, id(0), &request).expect("ready");
        lone.actions();
        let _ = lone.recv(0, &headers(&[&[(":status", "200")], fields].concat()), false);
        lone
    };
    for fields in [&[][..], &[("wt-protocol", "a")], &[("wt-protocol", "1")]] {
        let mut lone = respond(fields, true);
        assert_eq!(lone.actions(), refused(0, Code::WT_ALPN_ERROR), "{fields:?}");
        let mut lone = respond(fields, false);
        assert!(matches!(
            lone.events()[..],
            [Event::SessionEstablished { protocol: None, .. }]
        ));
    }
    let mut lone = respond(&[("wt-protocol", "\"a\"")], true);
    assert!(matches!(
        lone.events()[..],
        [Event::SessionEstablished { protocol: Some(_), .. }]
    ));
}

#[test]
fn a_session_has_no_content() {
    // "A receiver that observes a violation of these requirements MUST treat the HTTP message as malformed" (RFC 9297
    // section 3.2).
    for field in [("content-length", "0"), ("content-type", "text/plain")] {
        let mut lone = Lone::server();
        let _ = lone.recv(0, &extended_connect("webtransport", &[field]), false);
        assert_eq!(lone.actions(), refused(0, Code::H3_MESSAGE_ERROR), "{field:?}");
        assert!(lone.events().is_empty() && lone.core.leftovers().is_empty());
    }
    let respond = |settings: &[(u64, u64)], status: &str, fields: &[(&str, &str)]| {
        let mut lone = Lone::new(Side::Client, Config::default(), settings);
        lone.core
            .connect(lone.now, id(0), &SessionRequest::new("localhost", "/"))
            .expect("ready");
        lone.actions();
        let _ = lone.recv(0, &headers(&[&[(":status", status)], fields].concat()), false);
        lone
    };
    for (status, fields) in [
        ("200", &[("content-length", "0")][..]),
        ("200", &[("content-type", "text/plain")]),
        ("204", &[]),
        ("205", &[]),
        ("206", &[]),
    ] {
        let mut lone = respond(&ALL_SETTINGS, status, fields);
        assert_eq!(
            lone.actions(),
            refused(0, Code::H3_MESSAGE_ERROR),
            "{status} {fields:?}"
        );
        // Servers of draft 02 are older than the rule.
        let mut lone = respond(&DRAFT02_SETTINGS, status, fields);
        assert!(matches!(lone.events()[..], [Event::SessionEstablished { .. }]));
    }
    let mut lone = respond(&ALL_SETTINGS, "201", &[]);
    assert!(matches!(lone.events()[..], [Event::SessionEstablished { .. }]));

    // "The Capsule Protocol MUST NOT be used with messages that contain Content-Length, Content-Type, or
    // Transfer-Encoding header fields" (RFC 9297 section 3.2): what an application says of that is left out.
    let mut fields = http::HeaderMap::new();
    for (name, value) in [
        ("content-length", "0"),
        ("content-type", "text/plain"),
        ("transfer-encoding", "chunked"),
    ] {
        fields.insert(name, http::HeaderValue::from_static(value));
    }
    let mut client = Lone::client();
    let mut request = SessionRequest::new("localhost", "/");
    request.headers = fields.clone();
    client.core.connect(client.now, id(0), &request).expect("ready");
    let mut plain = Lone::client();
    plain
        .core
        .connect(plain.now, id(0), &SessionRequest::new("localhost", "/"))
        .expect("ready");
    assert_eq!(client.actions(), plain.actions());
    let mut server = Lone::server();
    let _ = server.recv(0, &webtransport_connect(), false);
    let mut head = Response::new(());
    *head.headers_mut() = fields;
    // "HTTP status codes 204 (No Content), 205 (Reset Content), and 206 (Partial Content) MUST NOT be sent on responses
    // that use the Capsule Protocol" (RFC 9297 section 3.2).
    for status in [204, 205, 206] {
        *head.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        assert!(server.core.accept_session(server.now, session(0), &head, None).is_err());
        assert!(server.actions().is_empty());
    }
    *head.status_mut() = http::StatusCode::OK;
    server
        .core
        .accept_session(server.now, session(0), &head, None)
        .expect("requested");
    let written = Action::Write {
        stream: id(0),
        data: headers(&[(":status", "200")]).into(),
        fin: false,
    };
    assert_eq!(server.actions(), [written]);
}

#[test]
fn datagrams_of_ordinary_requests_end_them() {
    let datagram = || Bytes::from_static(b"\x01x");
    let failed = |event: &Event| {
        matches!(
            event,
            Event::MessageFailed {
                code: Code::H3_DATAGRAM_ERROR,
                by_peer: false,
                ..
            }
        )
    };
    // "the receiver MUST terminate the request" (RFC 9297 section 2).
    // "the request stream MUST be aborted with H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2).
    let mut lone = Lone::server();
    let _ = lone.recv(4, &post(None), false);
    lone.events();
    assert_eq!(lone.core.handle_datagram(lone.now, datagram()), None);
    assert_eq!(lone.actions(), refused(4, Code::H3_DATAGRAM_ERROR));
    let events = lone.events();
    assert!(events.len() == 1 && failed(&events[0]), "{events:?}");
    assert!(!lone.core.is_closed() && lone.core.leftovers().is_empty());
    let mut lone = Lone::client();
    let head = http::Request::get("https://localhost/").body(()).expect("a request");
    lone.core
        .send_request(lone.now, id(4), &head, true)
        .expect("a new stream");
    lone.actions();
    assert_eq!(lone.core.handle_datagram(lone.now, datagram()), None);
    assert_eq!(lone.actions(), refused(4, Code::H3_DATAGRAM_ERROR));
    assert!(lone.events().iter().all(failed) && lone.core.leftovers().is_empty());
    // "HTTP Datagrams MUST only be sent with an association to an HTTP request that explicitly supports them" (RFC 9297
    // section 2).
    assert!(lone.core.datagram_prefix(session(4)).is_err());

    // "If a datagram is received after the corresponding stream's receive side is closed, the received datagrams MUST
    // be silently dropped" (RFC 9297 section 2.1): a request that is complete, and a CONNECT whose stream has ended.
    let mut lone = Lone::server();
    let _ = lone.recv(4, &get(), true);
    assert_eq!(lone.core.handle_datagram(lone.now, datagram()), None);
    assert!(lone.actions().is_empty());
    let mut lone = Lone::server();
    let _ = lone.recv(4, &webtransport_connect(), true);
    assert_eq!(lone.core.handle_datagram(lone.now, datagram()), None);
    lone.core
        .accept_session(lone.now, session(4), &Response::new(()), None)
        .expect("requested");
    assert!(
        !lone
            .events()
            .iter()
            .any(|event| matches!(event, Event::Datagram { .. }))
    );

    // Made to be cancelled, they are counted like others.
    let mut lone = Lone::server();
    let mut made = 0;
    while !lone.core.is_closed() && made < 2000 {
        let _ = lone.recv(4 * made, &post(None), false);
        assert_eq!(lone.core.handle_datagram(lone.now, varints(&[made]).into()), None);
        made += 1;
    }
    assert_eq!((lone.closed_with(), made), (Some(Code::H3_EXCESSIVE_LOAD), 513));
}

#[test]
fn a_session_that_the_peer_stopped_sends_nothing_new() {
    let (mut lone, id_0) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
    lone.core.datagram_prefix(id_0).expect("open");
    lone.core.open_stream(id_0, id(101)).expect("open");
    lone.core.handle_stopped(lone.now, id(0), Code::WT_SESSION_GONE);
    // "HTTP/3 Datagrams MUST NOT be sent unless the corresponding stream's send side is open" (RFC 9297 section 2.1).
    // "it MUST NOT send any new datagrams or open any new streams" (draft 16 section 6).
    assert!(lone.core.is_stopped(id_0));
    assert!(lone.core.datagram_prefix(id_0).is_err());
    assert!(lone.core.open_stream(id_0, id(105)).is_err());
    assert!(lone.core.check_open(id_0, wireloom_proto::Dir::Uni).is_err());
}

#[test]
fn closing_ends_the_connect_stream_at_once() {
    let (mut lone, open) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
    lone.core.close_session(lone.now, open, 7, "done").expect("open");
    // "An endpoint that sends a WT_CLOSE_SESSION capsule MUST immediately send a FIN on the CONNECT Stream" (draft 16
    // section 6).
    let written = Action::Write {
        stream: id(0),
        data: data(&capsule::encode_close_session(7, "done")).into(),
        fin: true,
    };
    assert_eq!(lone.actions(), [written]);
}
