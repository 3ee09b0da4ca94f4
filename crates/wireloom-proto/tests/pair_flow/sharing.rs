//! Sessions share the connection.

use wireloom_proto::connection::{CommandError, SessionRequest};
use wireloom_proto::testing::peer::{LIMITED_SETTINGS, Lone, webtransport_connect};
use wireloom_proto::testing::pipe::Pair;
use wireloom_proto::webtransport::flow::FlowControl;
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{Action, Code, Dir, Side, StreamId};

use crate::{TIGHT, config, id};

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
