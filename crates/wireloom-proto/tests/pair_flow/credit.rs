//! Limits rise with what is read, and with what was lost.

use http::Response;
use proptest::prelude::*;
use wireloom_proto::connection::CommandError;
use wireloom_proto::testing::peer::{LIMITED_SETTINGS, Lone, data, webtransport_connect};
use wireloom_proto::testing::pipe::{End, Pair};
use wireloom_proto::webtransport::flow::FlowControl;
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{Action, Code, Dir, Event, Recv, SessionId, Side, StreamId, capsule};

use crate::{TIGHT, assert_violated, capsules, config, framed, id, tight_pair, tight_server, uni};

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
