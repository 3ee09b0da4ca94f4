//! Random scripts of operations on two connections. A failure shrinks to a short script, which then becomes a test by name.

use proptest::collection::vec;
use proptest::prelude::*;
use wireloom_proto::testing::script::{Op, run};
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{Dir, Side};

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn dir() -> impl Strategy<Value = Dir> {
    prop_oneof![Just(Dir::Bi), Just(Dir::Uni)]
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..8u8;
    prop_oneof![
        3 => Just(Op::Connect),
        3 => n.clone().prop_map(Op::Accept),
        1 => n.clone().prop_map(Op::Reject),
        2 => (side(), n.clone()).prop_map(|(side, n)| Op::Close(side, n)),
        1 => (side(), n.clone()).prop_map(|(side, n)| Op::Drain(side, n)),
        4 => (side(), dir(), n.clone()).prop_map(|(side, dir, n)| Op::Open(side, dir, n)),
        4 => (side(), n.clone(), any::<bool>()).prop_map(|(side, n, fin)| Op::Send(side, n, fin)),
        2 => (side(), n.clone()).prop_map(|(side, n)| Op::Reset(side, n)),
        2 => (side(), n.clone()).prop_map(|(side, n)| Op::Stop(side, n)),
        2 => (side(), n.clone()).prop_map(|(side, n)| Op::Datagram(side, n)),
        2 => any::<bool>().prop_map(Op::Request),
        2 => (n.clone(), any::<bool>()).prop_map(|(n, fin)| Op::Respond(n, fin)),
        2 => (side(), n.clone()).prop_map(|(side, n)| Op::Body(side, n)),
        1 => (side(), n.clone()).prop_map(|(side, n)| Op::Trailers(side, n)),
        1 => (side(), n.clone()).prop_map(|(side, n)| Op::Finish(side, n)),
        1 => (side(), n.clone()).prop_map(|(side, n)| Op::ResetMessage(side, n)),
        1 => (side(), n.clone()).prop_map(|(side, n)| Op::StopMessage(side, n)),
        1 => side().prop_map(Op::Goaway),
        2 => n.prop_map(Op::Hold),
        1 => Just(Op::Release),
        4 => Just(Op::Run),
        4 => side().prop_map(Op::Step),
        1 => (0..80u8).prop_map(Op::Advance),
        1 => (0..4u8).prop_map(Op::Chunk),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn several_sessions(ops in vec(op(), 0..60)) {
        run(Dialect::Draft02, &ops);
    }

    #[test]
    fn several_sessions_with_flow_control(ops in vec(op(), 0..60)) {
        run(Dialect::Draft15, &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_peer_at_all(bytes in vec(any::<u8>(), 0..400)) {
        wireloom_proto::testing::connection(&bytes);
    }
}

/// What one session lost unseen is made good to another, whose stream is only late.
#[test]
fn credit_that_was_written_off_and_used_after_all() {
    let client = Side::Client;
    let open = |session| Op::Open(client, Dir::Uni, session);
    let ops = [
        [Op::Connect, Op::Connect, Op::Run, Op::Accept(0), Op::Accept(1), Op::Run],
        // Nobody sees the first stream; the last of the other session is held up.
        [open(0), Op::Reset(client, 0), open(1), open(1), Op::Hold(4), Op::Run],
        // Its client says that it is blocked.
        [open(1), Op::Run, Op::Release, Op::Run, open(1), Op::Run],
    ];
    run(Dialect::Draft15, ops.as_flattened());
}

#[test]
fn a_request_that_is_stopped_before_it_arrives() {
    let ops = [
        Op::Request(true),
        Op::Hold(0),
        Op::StopMessage(Side::Client, 0),
        Op::Run,
        Op::Release,
        Op::Run,
    ];
    run(Dialect::Draft02, &ops);
}
