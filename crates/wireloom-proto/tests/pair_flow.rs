//! Session flow control (draft-ietf-webtrans-http3-16 section 5) between two connections, and against a peer that breaks it.

use bytes::Bytes;
use http::Response;
use proptest::prelude::*;
use wireloom_proto::connection::{CommandError, SessionEnd, SessionRequest};
use wireloom_proto::h3::frame;
use wireloom_proto::h3::settings::{self, Settings};
use wireloom_proto::testing::peer::{
    ALL_SETTINGS, LIMITED_SETTINGS, Lone, data, headers, varints, webtransport_connect,
};
use wireloom_proto::testing::pipe::{End, Pair};
use wireloom_proto::webtransport::flow::FlowControl;
use wireloom_proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom_proto::{Action, Code, Config, Dir, Event, Recv, SessionId, Side, StreamId, capsule};

const TIGHT: FlowControl = FlowControl {
    streams_uni: 2,
    streams_bi: 3,
    data: 10,
};

fn config(dialect: Dialect, limits: FlowControl) -> Config {
    let mut config = Config::default();
    config.dialects = Dialects::NONE.with(dialect);
    config.flow_control = limits;
    config
}

fn tight_pair() -> (Pair, SessionId) {
    let config = config(Dialect::Draft15, TIGHT);
    let mut pair = Pair::connected(config.clone(), config);
    let session = pair.session();
    (pair, session)
}

fn tight_server() -> (Lone, SessionId) {
    Lone::server_with_session(config(Dialect::Draft15, TIGHT), &LIMITED_SETTINGS)
}

fn id(stream: u64) -> StreamId {
    StreamId::from_u64(stream)
}

fn uni(session: SessionId, payload: &[u8]) -> Vec<u8> {
    [varints(&[0x54, session.into_u64()]), payload.to_vec()].concat()
}

/// The capsules that actions write on the CONNECT stream of session 0.
fn capsules(actions: Vec<Action>) -> Vec<Bytes> {
    let written = actions.into_iter().filter_map(|action| match action {
        Action::Write { stream, data, .. } if stream == id(0) => Some(data),
        _ => None,
    });
    written.collect()
}

fn framed(payload: &Bytes) -> Bytes {
    frame::encode(frame::DATA, payload)
}

/// Asserts that the session ended with WT_FLOW_CONTROL_ERROR and nothing else did.
fn assert_violated(lone: &mut Lone, what: &str) {
    let ends: Vec<_> = lone
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::SessionClosed { end, .. } => Some(end),
            _ => None,
        })
        .collect();
    assert!(
        matches!(
            ends[..],
            [SessionEnd::PeerMisbehaved {
                code: Code::WT_FLOW_CONTROL_ERROR,
                ..
            }]
        ),
        "{what}: {ends:?}"
    );
    let code = Code::WT_FLOW_CONTROL_ERROR;
    let actions = lone.actions();
    assert!(
        actions.contains(&Action::Reset { stream: id(0), code }),
        "{what}: {actions:?}"
    );
    assert!(actions.contains(&Action::StopSending { stream: id(0), code }), "{what}");
    assert!(!lone.core.is_closed(), "{what}");
}

#[test]
fn on_only_where_both_ends_want_it_and_the_dialect_has_it() {
    for dialect in Dialect::ALL {
        for (client, server) in [(true, true), (true, false), (false, true), (false, false)] {
            let limits = |on| if on { TIGHT } else { FlowControl::OFF };
            let pair = Pair::connected(config(dialect, limits(client)), config(dialect, limits(server)));
            let expected = client && server && dialect > Dialect::Draft02;
            for core in [&pair.client.core, &pair.server.core] {
                assert_eq!(core.has_flow_control(), expected, "{dialect:?} {client} {server}");
            }
        }
    }
}

#[test]
fn what_is_announced() {
    let announced = |dialects: Dialects, limits: FlowControl| -> Settings {
        let mut config = Config::default();
        config.dialects = dialects;
        config.flow_control = limits;
        let pair = Pair::connected(Config::default(), config);
        pair.client.core.peer_settings().expect("connected").clone()
    };
    let all = announced(Dialects::ALL, FlowControl::default());
    assert_eq!(all.get(settings::WT_INITIAL_MAX_STREAMS_UNI), Some(1024));
    assert_eq!(all.get(settings::WT_INITIAL_MAX_STREAMS_BIDI), Some(1024));
    assert_eq!(all.get(settings::WT_INITIAL_MAX_DATA), Some(8 << 20));
    assert_eq!(all.get(settings::WT_MAX_SESSIONS_DRAFT13), Some(16));
    assert_eq!(all.get(settings::WEBTRANSPORT_MAX_SESSIONS_DRAFT07), Some(1));
    assert_eq!(all.get(settings::WT_ENABLED), Some(1));
    // No promise of several sessions without limits.
    let off = announced(Dialects::ALL, FlowControl::OFF);
    assert_eq!(off.get(settings::WT_INITIAL_MAX_DATA), None);
    assert_eq!(off.get(settings::WT_MAX_SESSIONS_DRAFT13), Some(1));
    let draft12 = announced(Dialects::NONE.with(Dialect::Draft07), FlowControl::default());
    assert_eq!(draft12.get(settings::WT_INITIAL_MAX_DATA), Some(8 << 20));
    let old = announced(Dialects::NONE.with(Dialect::Draft02), FlowControl::default());
    assert_eq!(old.get(settings::WT_INITIAL_MAX_DATA), None);
    let huge = FlowControl {
        streams_uni: u64::MAX,
        streams_bi: 0,
        data: u64::MAX,
    };
    let huge = announced(Dialects::ALL, huge);
    assert_eq!(huge.get(settings::WT_INITIAL_MAX_STREAMS_UNI), Some(1 << 60));
    assert_eq!(huge.get(settings::WT_INITIAL_MAX_STREAMS_BIDI), None);
    assert_eq!(huge.get(settings::WT_INITIAL_MAX_DATA), Some((1 << 62) - 1));
}

#[test]
fn in_draft_14_several_sessions_mean_flow_control_with_limits_of_zero() {
    // "Sending SETTINGS_WT_MAX_SESSIONS with a value greater than "1"" (draft 14 section 5.1).
    let settings = [(8, 1), (0x33, 1), (settings::WT_MAX_SESSIONS_DRAFT13, 2)];
    let (mut lone, session) = Lone::server_with_session(config(Dialect::Draft13, TIGHT), &settings);
    assert!(lone.core.has_flow_control());
    assert_eq!(lone.core.send_credit(session), 0);
    assert_eq!(lone.core.check_open(session, Dir::Uni), Err(CommandError::Blocked));
    assert!(lone.actions().is_empty(), "the peer may raise it unasked");
    lone.core.tell_blocked();
    assert_eq!(
        capsules(lone.actions()),
        [framed(&capsule::encode_streams_blocked(Dir::Uni, 0))]
    );
    let _ = lone.recv(0, &data(&capsule::encode_max_streams(Dir::Uni, 1)), false);
    let events = lone.events();
    assert!(
        matches!(events[..], [Event::SessionStreamsAvailable { dir: Dir::Uni, .. }]),
        "{events:?}"
    );
    assert_eq!(lone.core.check_open(session, Dir::Uni), Ok(()));

    let settings = [(8, 1), (0x33, 1), (settings::WT_MAX_SESSIONS_DRAFT13, 1)];
    let lone = Lone::new(Side::Server, config(Dialect::Draft13, TIGHT), &settings);
    assert!(!lone.core.has_flow_control());
}

/// What a client of draft 12 announces that has limits, which hold both ways.
#[test]
fn draft_12_has_flow_control() {
    let settings = [(0x33, 1), (settings::WT_INITIAL_MAX_DATA, 100)];
    let announced = [&settings[..], &[(settings::WEBTRANSPORT_MAX_SESSIONS_DRAFT07, 1)]].concat();
    // Its client need not send the setting that tells of it.
    for settings in [&announced, &settings[..]] {
        let config = config(Dialect::Draft07, TIGHT);
        let (mut lone, session) = Lone::server_with_session(config, settings);
        assert_eq!(lone.core.dialect(), Some(Dialect::Draft07));
        assert!(lone.core.has_flow_control());
        assert_eq!(lone.core.send_credit(session), 100);
        assert_eq!(lone.core.check_open(session, Dir::Uni), Err(CommandError::Blocked));
        let stream = lone.peer_uni(5);
        let _ = lone.recv(stream, &uni(session, b"eight by"), false);
        lone.core.data_consumed(session, 8);
        assert_eq!(capsules(lone.actions()), [framed(&capsule::encode_max_data(18))]);
    }
}

/// A peer of draft 12 that announces no limits keeps ours all the same.
#[test]
fn limits_that_nobody_will_raise_are_lifted() {
    let lifted: Bytes = [
        capsule::encode_max_streams(Dir::Bi, 1 << 60),
        capsule::encode_max_streams(Dir::Uni, 1 << 60),
        capsule::encode_max_data((1 << 62) - 1),
    ]
    .concat()
    .into();
    let settings = |id| [(8, 1), (0x33, 1), (id, 1)];
    for (dialect, id, lifts) in [
        (Dialect::Draft02, 0x2b60_3742, false),
        (Dialect::Draft07, 0xc671_706a, true),
        (Dialect::Draft13, 0x14e9_cd29, true),
        (Dialect::Draft15, 0x2c7c_f000, false),
    ] {
        let expected = if lifts { vec![framed(&lifted)] } else { Vec::new() };
        let mut lone = Lone::new(Side::Server, config(dialect, TIGHT), &settings(id));
        let _ = lone.recv(0, &webtransport_connect(), false);
        let session = SessionId::new(StreamId::from_u64(0)).expect("a request");
        lone.core
            .accept_session(lone.now, session, &Response::new(()), None)
            .expect("requested");
        assert_eq!(capsules(lone.actions())[1..], expected, "{dialect:?}");

        let mut lone = Lone::new(Side::Client, config(dialect, TIGHT), &settings(id));
        lone.core
            .connect(lone.now, StreamId::from_u64(0), &SessionRequest::new("localhost", "/"))
            .expect("supported");
        let _ = lone.recv(0, &headers(&[(":status", "200")]), false);
        assert_eq!(capsules(lone.actions())[1..], expected, "{dialect:?}");
    }
}

/// "The sum of the lengths of Stream Body data sent on all streams associated with this session MUST NOT exceed the
/// Maximum Data value advertised by a receiver" (draft 16 section 5.6.4).
#[test]
fn a_writer_is_told_once_that_it_waits_and_once_that_it_may_go_on() {
    let (mut lone, session) = tight_server();
    assert_eq!(lone.core.send_credit(session), 100);
    lone.core.data_sent(session, 100);
    assert_eq!(lone.core.send_credit(session), 0);
    for _ in 0..2 {
        lone.core.data_blocked(session);
        lone.core.tell_blocked();
    }
    assert_eq!(capsules(lone.actions()), [framed(&capsule::encode_data_blocked(100))]);
    let _ = lone.recv(0, &data(&capsule::encode_max_data(150)), false);
    assert!(matches!(lone.events()[..], [Event::SessionDataAvailable { .. }]));
    assert_eq!(lone.core.send_credit(session), 50);
    // Nobody waits now.
    let _ = lone.recv(0, &data(&capsule::encode_max_data(160)), false);
    assert!(lone.events().is_empty());
}

/// "An endpoint MUST NOT open more streams than permitted by the current stream limit set by its peer" (draft 16
/// section 5.6.2).
#[test]
fn streams_are_opened_up_to_the_limit_and_both_directions_apart() {
    let (mut lone, session) = tight_server();
    for (dir, limit) in [(Dir::Uni, 4), (Dir::Bi, 5)] {
        for index in 0..limit {
            let stream = StreamId::new(Side::Server, dir, 10 + index);
            lone.core.open_stream(session, stream).expect("within the limit");
            // "this limit includes streams that have been closed as well as those that are open" (section 5.6.2).
            lone.core.send_closed(stream);
            lone.core.recv_closed(stream);
        }
        let stream = StreamId::new(Side::Server, dir, 10 + limit);
        for _ in 0..2 {
            assert_eq!(lone.core.open_stream(session, stream), Err(CommandError::Blocked));
            lone.core.tell_blocked();
        }
        assert_eq!(
            capsules(lone.actions()),
            [framed(&capsule::encode_streams_blocked(dir, limit))]
        );
    }
}

#[test]
fn what_a_client_does_before_the_response_is_limited_too() {
    let config = config(Dialect::Draft15, TIGHT);
    let mut pair = Pair::connected(config.clone(), config);
    let session = pair.request(&SessionRequest::new("localhost", "/"));
    for _ in 0..2 {
        let stream = pair.client.open(session, Dir::Uni).expect("optimistically");
        pair.client.send(stream, b"five.", true);
    }
    assert_eq!(pair.client.open(session, Dir::Uni), Err(CommandError::Blocked));
    pair.run();
    pair.server
        .core
        .accept_session(pair.now, session, &Response::new(()), None)
        .expect("requested");
    pair.run();
    pair.client
        .expect(|event| matches!(event, Event::SessionStreamsAvailable { .. }).then_some(()));
    assert_eq!(pair.client.core.send_credit(session), 10);
    pair.client.open(session, Dir::Uni).expect("the server has read two");
}

#[test]
fn capsules_that_break_the_rules() {
    // "that does not increase the Maximum Data value previously received, it MUST close the WebTransport session with a
    // WT_FLOW_CONTROL_ERROR error code" (draft 16 section 5.6.4).
    // "If an endpoint receives a WT_MAX_STREAMS capsule that does not increase the Maximum Streams value previously
    // received, it MUST close the WebTransport session with a WT_FLOW_CONTROL_ERROR error code" (draft 16 section
    // 5.6.2).
    // "Recipients of a capsule with a Maximum Streams value larger than this limit MUST close the WebTransport session
    // with a WT_FLOW_CONTROL_ERROR error code" (draft 16 sections 5.6.2 and 5.6.3).
    // "Endpoints MUST treat receipt of a WT_MAX_STREAM_DATA or a WT_STREAM_DATA_BLOCKED capsule as a session error"
    // (draft 16 section 5.4).
    let draft15: Vec<(&str, Bytes)> = vec![
        ("repeated data limit", capsule::encode_max_data(100)),
        ("lower data limit", capsule::encode_max_data(99)),
        ("repeated uni limit", capsule::encode_max_streams(Dir::Uni, 4)),
        ("lower bidi limit", capsule::encode_max_streams(Dir::Bi, 4)),
        ("too many uni", capsule::encode_max_streams(Dir::Uni, (1 << 60) + 1)),
        ("too many bidi", capsule::encode_max_streams(Dir::Bi, (1 << 60) + 1)),
        ("blocked uni", capsule::encode_streams_blocked(Dir::Uni, (1 << 60) + 1)),
        ("blocked bidi", capsule::encode_streams_blocked(Dir::Bi, (1 << 60) + 1)),
        ("stream data", varints(&[capsule::WT_MAX_STREAM_DATA, 0]).into()),
        ("stream blocked", varints(&[capsule::WT_STREAM_DATA_BLOCKED, 0]).into()),
    ];
    for (what, capsule) in &draft15 {
        let (mut lone, _) = tight_server();
        let _ = lone.recv(0, &data(capsule), false);
        assert_violated(&mut lone, what);
    }
    // The highest values are legal.
    let (mut lone, session) = tight_server();
    for capsule in [
        capsule::encode_max_streams(Dir::Uni, 1 << 60),
        capsule::encode_streams_blocked(Dir::Bi, 1 << 60),
        capsule::encode_max_data((1 << 62) - 1),
        capsule::encode_data_blocked((1 << 62) - 1),
    ] {
        assert_eq!(lone.recv(0, &data(&capsule), false), Recv::Continue);
    }
    assert_eq!(lone.core.send_credit(session), (1 << 62) - 1);
    assert!(lone.events().is_empty() && lone.actions().is_empty());
}

#[test]
fn draft_14_lets_a_limit_be_repeated_but_not_lowered() {
    let mut settings = LIMITED_SETTINGS.to_vec();
    settings[2] = (settings::WT_MAX_SESSIONS_DRAFT13, 1);
    let server = || Lone::server_with_session(config(Dialect::Draft13, TIGHT), &settings);
    let (mut lone, _) = server();
    for capsule in [capsule::encode_max_data(100), capsule::encode_max_streams(Dir::Bi, 5)] {
        assert_eq!(lone.recv(0, &data(&capsule), false), Recv::Continue);
    }
    assert!(lone.events().is_empty());
    for capsule in [capsule::encode_max_data(99), capsule::encode_max_streams(Dir::Bi, 4)] {
        let (mut lone, _) = server();
        let _ = lone.recv(0, &data(&capsule), false);
        assert_violated(&mut lone, "lowered");
    }
}

#[test]
fn ignored_where_it_is_off() {
    // "if flow control is not enabled, an endpoint MUST ignore receipt of any flow control capsules" (draft 16 section
    // 5.1).
    let cases = [
        (config(Dialect::Draft15, FlowControl::OFF), &LIMITED_SETTINGS[..]),
        (config(Dialect::Draft15, TIGHT), &LIMITED_SETTINGS[..3]),
        (
            config(Dialect::Draft02, TIGHT),
            &[(0x33, 1), (0x2b60_3742, 1), (0x2b61, 1)][..],
        ),
    ];
    for (config, settings) in cases {
        let (mut lone, session) = Lone::server_with_session(config, settings);
        for capsule in [
            capsule::encode_max_data(0),
            capsule::encode_max_streams(Dir::Uni, (1 << 60) + 1),
            capsule::encode_streams_blocked(Dir::Uni, (1 << 60) + 1),
            capsule::encode_data_blocked(0),
        ] {
            assert_eq!(lone.recv(0, &data(&capsule), false), Recv::Continue);
        }
        // Nor are there limits, in either direction.
        assert_eq!(lone.core.send_credit(session), u64::MAX);
        assert_eq!(lone.core.check_open(session, Dir::Uni), Ok(()));
        for index in 3..20 {
            let stream = lone.peer_uni(index);
            assert!(matches!(
                lone.recv(stream, &uni(session, &[0; 50]), false),
                Recv::WebTransport { .. }
            ));
        }
        lone.core.data_received(session, 1 << 40);
        assert!(lone.events().is_empty() && lone.actions().is_empty());
    }
}

/// "Endpoints that receive a Capsule with an unknown Capsule Type MUST silently drop that Capsule and skip over it to parse
/// the next Capsule" (RFC 9297 section 3.2): the drafts before 12 know none of these.
#[test]
fn unknown_to_older_drafts() {
    for (dialect, known) in [
        (Dialect::Draft02, false),
        (Dialect::Draft07, false),
        (Dialect::Draft13, true),
    ] {
        for capsule in [
            varints(&[capsule::WT_MAX_STREAM_DATA, 0]),
            varints(&[capsule::WT_STREAM_DATA_BLOCKED, 0]),
            [varints(&[capsule::WT_MAX_DATA, 9]), vec![0; 9]].concat(),
        ] {
            let config = config(dialect, TIGHT);
            let (mut lone, _) = Lone::server_with_session(config.clone(), &ALL_SETTINGS);
            let _ = lone.recv(0, &data(&capsule), false);
            assert_eq!(lone.core.sessions().count(), usize::from(!known), "{dialect:?}");
            // Nor does a client know them. With limits of both ends those of draft 07 speak draft 12.
            let mut peer = config.clone();
            if !known {
                peer.flow_control = FlowControl::OFF;
            }
            let mut pair = Pair::connected(config, peer);
            let session = pair.session();
            pair.server.write(session.stream(), &data(&capsule), false);
            pair.run();
            assert_eq!(pair.client.core.sessions().count(), usize::from(!known), "{dialect:?}");
        }
    }
}

/// "If an endpoint receives an incoming stream for a session that would exceed the advertised Maximum Streams value, it
/// MUST close the WebTransport session with a WT_FLOW_CONTROL_ERROR error code" (draft 16 section 5.6.2).
#[test]
fn a_stream_too_many() {
    let (mut lone, session) = tight_server();
    for index in 3..5 {
        let stream = lone.peer_uni(index);
        assert!(matches!(
            lone.recv(stream, &uni(session, b""), true),
            Recv::WebTransport { .. }
        ));
    }
    let stream = lone.peer_uni(5);
    assert_eq!(lone.recv(stream, &uni(session, b""), false), Recv::Done);
    assert_violated(&mut lone, "a third of two");
}

/// "If an endpoint receives Stream Body data in excess of this limit, it MUST close the WebTransport session with a
/// WT_FLOW_CONTROL_ERROR error code" (draft 16 section 5.6.4).
#[test]
fn a_byte_too_many() {
    // With the header, and beside the core; headers do not count.
    let (mut lone, session) = tight_server();
    let stream = lone.peer_uni(3);
    assert!(matches!(
        lone.recv(stream, &uni(session, &[0; 10]), false),
        Recv::WebTransport { .. }
    ));
    assert!(lone.events().is_empty());
    lone.core.data_received(session, 1);
    assert_violated(&mut lone, "an eleventh byte of ten");

    let (mut lone, session) = tight_server();
    let stream = lone.peer_uni(3);
    assert_eq!(lone.recv(stream, &uni(session, &[0; 11]), false), Recv::Done);
    assert_violated(&mut lone, "eleven at once");

    // "For streams that were reset [...] the final size" (section 5.4), where QUIC tells it.
    let (mut lone, session) = tight_server();
    let stream = lone.peer_uni(3);
    let _ = lone.recv(stream, &uni(session, &[0; 5]), false);
    assert!(lone.core.recv_aborted(id(stream), Some(6)));
    assert_violated(&mut lone, "five and six by the final size");
}

#[test]
fn another_session_goes_on() {
    let (mut lone, first) = tight_server();
    let _ = lone.recv(4, &webtransport_connect(), false);
    let second = SessionId::new(id(4)).expect("a request stream");
    lone.core
        .accept_session(lone.now, second, &Response::new(()), None)
        .expect("requested");
    lone.core.data_received(first, 11);
    lone.events();
    assert_eq!(lone.core.sessions().collect::<Vec<_>>(), [second]);
    assert_eq!(lone.core.send_credit(second), 100);
    lone.core.data_received(second, 10);
    assert!(lone.events().is_empty());
}

#[test]
fn what_waited_for_its_session_counts_when_it_opens() {
    let config = config(Dialect::Draft15, TIGHT);
    let mut lone = Lone::new(Side::Server, config, &LIMITED_SETTINGS);
    let session = SessionId::new(id(0)).expect("a request stream");
    for index in 3..6 {
        let stream = lone.peer_uni(index);
        assert_eq!(lone.recv(stream, &uni(session, b"x"), false), Recv::Parked);
    }
    let _ = lone.recv(0, &webtransport_connect(), false);
    lone.core
        .accept_session(lone.now, session, &Response::new(()), None)
        .expect("requested");
    assert_violated(&mut lone, "three early streams of two");
    assert_eq!(lone.core.leftovers(), Vec::<String>::new());
}

#[test]
fn sessions_up_to_the_limit() {
    let mut config = config(Dialect::Draft15, TIGHT);
    config.max_sessions = 2;
    // Held until the client's SETTINGS say whether there may be several.
    let mut lone = Lone::without_settings(Side::Server, config.clone());
    for stream in [0, 4] {
        let _ = lone.recv(stream, &webtransport_connect(), false);
    }
    lone.settings(&LIMITED_SETTINGS);
    assert_eq!(lone.events().len(), 3);
    let _ = lone.recv(8, &webtransport_connect(), false);
    // 429, and no more of it is read (draft 16 section 5.2).
    let actions = lone.actions();
    let stopped = Action::StopSending {
        stream: id(8),
        code: Code::H3_NO_ERROR,
    };
    assert!(actions.contains(&stopped), "{actions:?}");
    let answered = |action: &Action| matches!(action, Action::Write { stream, fin: true, .. } if *stream == id(8));
    assert!(actions.iter().any(answered), "{actions:?}");
    assert_eq!(lone.core.sessions().count(), 2);

    let mut pair = Pair::connected(config.clone(), config);
    let request = SessionRequest::new("localhost", "/");
    let sessions = [pair.session(), pair.session()];
    let stream = pair.client.new_stream(Dir::Bi);
    assert_eq!(
        pair.client.core.connect(pair.now, stream, &request),
        Err(CommandError::NoMoreSessions)
    );
    for session in sessions {
        let stream = pair.client.open(session, Dir::Uni).expect("open");
        pair.client.send(stream, b"ten bytes.", true);
    }
    pair.run();
    assert_eq!(pair.server.closed, None);
    assert_eq!(pair.server.core.sessions().count(), 2);
}

#[test]
fn limits_rise_as_streams_end_and_the_application_reads() {
    let (mut pair, session) = tight_pair();
    pair.server.reads = false;
    let stream = pair.client.open(session, Dir::Uni).expect("open");
    pair.client.send(stream, b"ten bytes.", true);
    pair.run();
    assert_eq!(pair.client.credit(stream), 0);
    // The stream is over, but nobody has accepted it.
    pair.client.open(session, Dir::Uni).expect("the second of two");
    assert_eq!(pair.client.open(session, Dir::Uni), Err(CommandError::Blocked));
    pair.client.core.data_blocked(session);
    pair.client.core.tell_blocked();
    pair.run();
    assert_eq!(pair.client.credit(stream), 0);
    pair.server.consume(stream);
    pair.run();
    assert_eq!(pair.client.credit(stream), 10);
    pair.client
        .expect(|event| matches!(event, Event::SessionDataAvailable { .. }).then_some(()));
    pair.client.open(session, Dir::Uni).expect("room for one more");
    assert_eq!(pair.client.open(session, Dir::Uni), Err(CommandError::Blocked));
}

/// "An endpoint MUST NOT wait for a WT_DATA_BLOCKED or WT_STREAMS_BLOCKED capsule before sending a WT_MAX_DATA or
/// WT_MAX_STREAMS capsule" (draft 16 section 5.6).
#[test]
fn credit_is_given_unasked() {
    let (mut lone, session) = tight_server();
    let stream = lone.peer_uni(3);
    let _ = lone.recv(stream, &uni(session, b"ten bytes."), true);
    assert!(lone.actions().is_empty());
    lone.core.data_consumed(session, 10);
    assert_eq!(capsules(lone.actions()), [framed(&capsule::encode_max_data(20))]);
    lone.core.recv_closed(id(stream));
    assert_eq!(
        capsules(lone.actions()),
        [framed(&capsule::encode_max_streams(Dir::Uni, 3))]
    );
}

#[test]
fn credit_of_streams_that_end_early_comes_back() {
    for tells in [false, true] {
        let (mut pair, session) = tight_pair();
        pair.server.reads = false;
        pair.server.tells_final_size = tells;
        for _ in 0..20 {
            let stream = pair.client.open(session, Dir::Uni).expect("room comes back");
            let n = pair.client.credit(stream).min(10) as usize;
            assert!(n > 0, "data comes back");
            // The header arrives, the payload does not.
            pair.run();
            pair.held.insert(stream);
            pair.client.send(stream, &b"ten bytes."[..n], false);
            pair.client.reset(stream, Code::from_application(0));
            pair.client.core.send_closed(stream);
            pair.held.clear();
            pair.run();
            if pair.client.credit(stream) == 0 {
                pair.client.core.data_blocked(session);
                pair.client.core.tell_blocked();
                pair.run();
            }
        }
        assert_eq!(pair.server.core.sessions().count(), 1);
    }
}

#[test]
fn credit_of_streams_that_end_unseen_comes_back() {
    let (mut pair, session) = tight_pair();
    for round in 0..20 {
        // Reset before the header is delivered. The word that the limit is reached comes before or after it.
        let stream = pair.client.open(session, Dir::Bi).expect("room comes back");
        let n = pair.client.credit(stream).min(10) as usize;
        pair.held.insert(stream);
        pair.client.send(stream, &b"ten bytes."[..n], false);
        pair.client.reset(stream, Code::from_application(0));
        pair.client.core.send_closed(stream);
        pair.client.core.recv_closed(stream);
        if round % 2 == 0 {
            pair.held.clear();
        }
        pair.run();
        let _ = pair.client.core.check_open(session, Dir::Bi);
        if pair.client.core.send_credit(session) == 0 {
            pair.client.core.data_blocked(session);
        }
        pair.client.core.tell_blocked();
        pair.run();
        pair.held.clear();
        pair.run();
        assert!(pair.client.core.send_credit(session) > 0, "round {round}");
    }
}

/// A server with an open session 0 of which each may have `streams_uni` streams.
fn server_with_streams(streams_uni: u64) -> (Lone, SessionId) {
    let limits = FlowControl { streams_uni, ..TIGHT };
    Lone::server_with_session(config(Dialect::Draft15, limits), &LIMITED_SETTINGS)
}

fn accept(lone: &mut Lone, session: SessionId) {
    let _ = lone.recv(session.into_u64(), &webtransport_connect(), false);
    lone.core
        .accept_session(lone.now, session, &Response::new(()), None)
        .expect("requested");
}

fn blocked_uni(limit: u64) -> Vec<u8> {
    data(&capsule::encode_streams_blocked(Dir::Uni, limit))
}

/// The limits on unidirectional streams that actions announce, and on which CONNECT stream.
fn raised_uni(lone: &mut Lone) -> Vec<(u64, u64)> {
    let raised = lone.actions().into_iter().filter_map(|action| match action {
        Action::Write { stream, data, .. } => {
            let max = (0..10).find(|&max| data == framed(&capsule::encode_max_streams(Dir::Uni, max)));
            max.map(|max| (stream.into_u64(), max))
        }
        _ => None,
    });
    raised.collect()
}

/// "If an endpoint receives an incoming stream for a session that would exceed the advertised Maximum Streams value"
/// (draft 16 section 5.6.2): the advertised one, whatever was thought lost meanwhile.
#[test]
fn a_stream_that_was_only_late_counts_once() {
    let (mut lone, session) = server_with_streams(2);
    let peer_uni = |index| StreamId::new(Side::Client, Dir::Uni, index).into_u64();
    // Of no session, but nobody can know that.
    lone.reset(peer_uni(3), Code::H3_NO_ERROR);
    let attached = |lone: &mut Lone, index| {
        let recv = lone.recv(peer_uni(index), &uni(session, b""), false);
        assert!(matches!(recv, Recv::WebTransport { .. }), "{index}: {recv:?}");
    };
    attached(&mut lone, 4);
    // The second of two is under way.
    let _ = lone.recv(0, &blocked_uni(2), false);
    assert_eq!(raised_uni(&mut lone), [(0, 3)]);
    attached(&mut lone, 5);
    attached(&mut lone, 6);
    // Nothing was lost, so the peer gains no more by saying so.
    let _ = lone.recv(0, &blocked_uni(3), false);
    assert_eq!(raised_uni(&mut lone), []);
    let recv = lone.recv(peer_uni(7), &uni(session, b""), false);
    assert_eq!(recv, Recv::Done);
    assert_violated(&mut lone, "a fourth of three");
}

/// A stream that ended unseen is made good to whoever may have lost it: the first to ask need not be the one who did.
#[test]
fn what_one_session_lost_is_not_given_to_another() {
    let (mut lone, _) = server_with_streams(1);
    let other = SessionId::new(id(4)).expect("a request stream");
    accept(&mut lone, other);
    lone.actions();
    let lost = lone.peer_uni(3);
    lone.reset(lost, Code::H3_NO_ERROR);
    let _ = lone.recv(4, &blocked_uni(1), false);
    let _ = lone.recv(0, &blocked_uni(1), false);
    assert_eq!(raised_uni(&mut lone), [(4, 2), (0, 2)]);
    // Once.
    for stream in [0, 4] {
        let _ = lone.recv(stream, &blocked_uni(2), false);
    }
    assert_eq!(raised_uni(&mut lone), []);
    // A later session's streams may have overtaken its CONNECT, by seconds at most.
    for (stream, after, expected) in [(8, 6, vec![(8, 2)]), (12, 60, vec![])] {
        lone.advance(std::time::Duration::from_secs(after));
        accept(&mut lone, SessionId::new(id(stream)).expect("a request stream"));
        let _ = lone.recv(stream, &blocked_uni(1), false);
        assert_eq!(raised_uni(&mut lone), expected, "{stream}");
    }
}

#[test]
fn what_is_lost_before_settings_counts_too() {
    let limits = FlowControl {
        streams_uni: 1,
        ..TIGHT
    };
    let mut lone = Lone::without_settings(Side::Server, config(Dialect::Draft15, limits));
    let session = SessionId::new(id(0)).expect("a request stream");
    let early = lone.peer_uni(3);
    assert_eq!(lone.recv(early, &uni(session, b""), false), Recv::Parked);
    lone.reset(early, Code::H3_NO_ERROR);
    lone.settings(&LIMITED_SETTINGS);
    accept(&mut lone, session);
    lone.actions();
    let _ = lone.recv(0, &blocked_uni(1), false);
    assert_eq!(raised_uni(&mut lone), [(0, 2)]);
}

/// Sends as much as `end` may of what is left, and says so where it may not.
fn push(end: &mut End, session: SessionId, stream: StreamId, left: &mut usize) {
    let n = usize::try_from(end.credit(stream)).unwrap_or(usize::MAX).min(*left);
    if n > 0 {
        end.send(stream, &vec![1; n], false);
        *left -= n;
    }
    if *left > 0 {
        end.core.data_blocked(session);
        end.core.tell_blocked();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// With any windows, any cuts and any order of reading: all of it arrives, and nobody ever breaks a limit, which would
    /// end the session.
    #[test]
    fn everything_arrives_through_any_window(
        limits in (1..4u64, 1..4u64, 1..30u64),
        sizes in proptest::collection::vec(0..60usize, 1..12),
        chunk in 1..20usize,
        order in proptest::collection::vec(any::<u8>(), 1..50),
    ) {
        let limits = FlowControl { streams_uni: limits.0, streams_bi: limits.1, data: limits.2 };
        let config = config(Dialect::Draft15, limits);
        let mut pair = Pair::connected(config.clone(), config);
        let session = pair.session();
        pair.chunk = chunk;
        pair.server.reads = false;
        let mut waiting = sizes.clone();
        let mut open: Vec<(StreamId, usize)> = Vec::new();
        let mut arrived = 0;
        let mut turns = order.iter().cycle();
        for step in 0..10_000 {
            if waiting.is_empty() && open.is_empty() {
                break;
            }
            if let Some(size) = waiting.pop() {
                let dir = if size % 2 == 0 { Dir::Uni } else { Dir::Bi };
                match pair.client.open(session, dir) {
                    Ok(stream) => open.push((stream, size)),
                    Err(error) => {
                        prop_assert_eq!(error, CommandError::Blocked);
                        waiting.push(size);
                    }
                }
            }
            // Nobody is left out for ever.
            let random = usize::from(*turns.next().expect("a cycle"));
            let turn = if step % 2 == 0 { step / 2 } else { random };
            if !open.is_empty() {
                let at = turn % open.len();
                let (stream, left) = &mut open[at];
                let stream = *stream;
                push(&mut pair.client, session, stream, left);
                if *left == 0 {
                    pair.client.send(stream, b"", true);
                    open.remove(at);
                }
            }
            pair.run();
            // The server reads one of its streams, and answers bidirectional ones with nothing.
            let streams: Vec<StreamId> = pair.server.received.keys().copied().collect();
            let stream = streams[turn % streams.len()];
            pair.server.consume(stream);
            if pair.server.received[&stream].fin && stream.dir() == Dir::Bi && pair.server.owns_send(stream) {
                pair.server.send(stream, b"", true);
            }
            pair.run();
            prop_assert_eq!(pair.server.core.sessions().count(), 1);
        }
        pair.run();
        for received in pair.server.received.values() {
            arrived += received.data.len();
        }
        prop_assert_eq!(arrived, sizes.iter().sum::<usize>());
    }
}

/// Sends all that the session's limit allows, until it allows no more or `most` went out; the server takes what came if it
/// `reads`. The largest credit there ever was.
fn send_all(pair: &mut Pair, stream: StreamId, most: u64, reads: bool) -> u64 {
    let (mut sent, mut largest) = (0, 0);
    loop {
        let credit = pair.client.credit(stream);
        if credit == 0 || sent >= most {
            return largest;
        }
        largest = largest.max(credit);
        sent += credit;
        pair.client.send(stream, &vec![0; credit as usize], false);
        pair.run();
        if reads {
            pair.server.consume(stream);
            pair.run();
        }
    }
}

#[test]
fn sessions_share_what_there_is_and_none_takes_the_part_of_another() {
    let limits = FlowControl {
        streams_uni: 100,
        streams_bi: 100,
        data: 1 << 20,
    };
    let mut config = config(Dialect::Draft15, limits);
    config.max_sessions = 4;
    config.shared_data = 64_000;
    let mut pair = Pair::connected(config.clone(), config);
    pair.server.reads = false;
    let mut streams = Vec::new();
    // Half of all is for certain, for four; the other half for those that read.
    for (index, most) in [40_000, 24_000, 18_666, 16_000].into_iter().enumerate() {
        let session = pair.session();
        let stream = pair.client.open(session, Dir::Uni).expect("room");
        pair.run();
        assert_eq!(pair.client.credit(stream), 8000, "{index}");
        streams.push(stream);
        if index == 0 {
            assert_eq!(send_all(&mut pair, stream, 800_000, true), most);
        }
    }
    // The first was alone when it had so much, and shares now that it reads on; another that reads gets what that leaves.
    send_all(&mut pair, streams[0], 800_000, true);
    assert_eq!(send_all(&mut pair, streams[0], 800_000, true), 16_000);
    assert_eq!(send_all(&mut pair, streams[1], 800_000, true), 16_000);
    // These are never read, and it is as much as ever.
    let mut unread = 0;
    for &stream in &streams[2..] {
        unread += send_all(&mut pair, stream, 800_000, false);
    }
    assert_eq!(unread, 16_000);
    assert_eq!(send_all(&mut pair, streams[0], 800_000, true), 16_000);
}

/// As by `max_sessions_per_connection(usize::MAX)`.
#[test]
fn however_many_sessions_there_may_be_each_can_send() {
    let mut config = config(Dialect::Draft15, FlowControl::default());
    config.max_sessions = usize::MAX;
    config.shared_data = 7 << 20;
    let mut pair = Pair::connected(config.clone(), config);
    let session = pair.session();
    let stream = pair.client.open(session, Dir::Uni).expect("room");
    assert_eq!(pair.client.credit(stream), 4 << 10);
    assert!(send_all(&mut pair, stream, 8 << 20, true) > 3 << 20, "it may grow");
}

/// Half of what a reset stream took is kept back, which the smaller window of a session that shares could not afford.
#[test]
fn a_session_that_lost_credit_and_then_has_to_share_goes_on() {
    let mut config = config(
        Dialect::Draft15,
        FlowControl {
            data: 1 << 20,
            ..FlowControl::default()
        },
    );
    config.max_sessions = 4;
    config.shared_data = 64_000;
    let mut pair = Pair::connected(config.clone(), config);
    pair.server.reads = false;
    let session = pair.session();
    let first = pair.client.open(session, Dir::Uni).expect("room");
    assert_eq!(send_all(&mut pair, first, 800_000, true), 40_000);
    let lost = pair.client.open(session, Dir::Uni).expect("room");
    pair.run();
    pair.held.insert(lost);
    let unread = vec![0; pair.client.credit(lost) as usize];
    assert_eq!(unread.len(), 40_000);
    pair.client.send(lost, &unread, false);
    pair.client.reset(lost, Code::from_application(0));
    pair.client.core.send_closed(lost);
    pair.held.clear();
    pair.run();
    let credit = |pair: &mut Pair| {
        pair.client.core.data_blocked(session);
        pair.client.core.tell_blocked();
        pair.run();
        pair.client.core.send_credit(session)
    };
    assert_eq!(credit(&mut pair), 20_000);
    pair.client.events.clear();
    for _ in 0..2 {
        pair.session();
    }
    for round in 0..100 {
        assert!(send_all(&mut pair, first, 20_000, true) > 0, "round {round}");
        assert!(credit(&mut pair) > 0, "round {round}");
    }
    // And has no more than its share in the end.
    assert!(credit(&mut pair) <= 18_666);
}
