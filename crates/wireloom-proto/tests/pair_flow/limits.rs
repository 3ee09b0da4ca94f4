//! Limits hold both ways, and who breaks one ends the session.

use bytes::Bytes;
use http::Response;
use wireloom_proto::connection::{CommandError, SessionRequest};
use wireloom_proto::testing::peer::{LIMITED_SETTINGS, Lone, data, varints, webtransport_connect};
use wireloom_proto::testing::pipe::Pair;
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{Dir, Event, Recv, SessionId, Side, StreamId, capsule};

use crate::{TIGHT, assert_violated, capsules, config, framed, id, tight_server, uni};

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
