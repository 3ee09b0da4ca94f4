//! Where there are limits, and in which drafts.

use bytes::Bytes;
use http::Response;
use wireloom_proto::connection::{CommandError, SessionRequest};
use wireloom_proto::h3::settings::{self, Settings};
use wireloom_proto::testing::peer::{
    ALL_SETTINGS, LIMITED_SETTINGS, Lone, data, headers, varints, webtransport_connect,
};
use wireloom_proto::testing::pipe::Pair;
use wireloom_proto::webtransport::flow::FlowControl;
use wireloom_proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom_proto::{Config, Dir, Event, Recv, SessionId, Side, StreamId, capsule};

use crate::{TIGHT, assert_violated, capsules, config, framed, uni};

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
