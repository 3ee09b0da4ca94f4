use std::collections::HashMap;

use proptest::prelude::*;
use wireloom_proto::{Dir, Side};

use super::*;

fn stream(index: u64) -> StreamId {
    StreamId::new(Side::Server, Dir::Uni, index)
}

fn session(index: u64) -> Owner {
    let connect = StreamId::new(Side::Client, Dir::Bi, index);
    Owner::Session(SessionId::new(connect).expect("a request stream"))
}

fn place(owner: Owner) -> Place {
    Place {
        owner,
        urgency: 3,
        group: 0,
        order: 0,
    }
}

/// Serves `turns` turns of streams that never run dry; the bytes of each.
fn serve(schedule: &mut Schedule, turns: usize, amount: impl Fn(StreamId) -> usize) -> HashMap<StreamId, usize> {
    let mut sent = HashMap::new();
    for _ in 0..turns {
        let Some((next, _)) = schedule.next() else { break };
        let n = amount(next);
        schedule.sent(next, n);
        *sent.entry(next).or_default() += n;
    }
    sent
}

#[test]
fn sessions_share_evenly_however_many_streams_they_have() {
    let mut schedule = Schedule::default();
    schedule.insert(stream(0), place(session(0)));
    for index in 1..=16 {
        schedule.insert(stream(index), place(session(1)));
    }
    let sent = serve(&mut schedule, 3200, |_| QUANTUM);
    assert_eq!(sent[&stream(0)], 1600 * QUANTUM);
    for index in 1..=16 {
        assert_eq!(sent[&stream(index)], 100 * QUANTUM, "{index}");
    }
}

#[test]
fn a_session_of_small_streams_has_as_many_bytes_as_one_of_large_ones() {
    let mut schedule = Schedule::default();
    schedule.insert(stream(0), place(session(0)));
    for index in 1..=7 {
        schedule.insert(stream(index), place(session(1)));
    }
    let sent = serve(&mut schedule, 50_000, |s| if s == stream(0) { QUANTUM } else { 300 });
    let small: usize = (1..=7).map(|index| sent[&stream(index)]).sum();
    assert!(
        small.abs_diff(sent[&stream(0)]) <= 2 * QUANTUM,
        "{small} {}",
        sent[&stream(0)]
    );
}

#[test]
fn the_highest_send_order_goes_first_and_equals_take_turns() {
    let mut schedule = Schedule::default();
    for (index, order) in [(0, -1), (1, 7), (2, 7), (3, i64::MAX)] {
        let at = Place {
            order,
            ..place(session(0))
        };
        schedule.insert(stream(index), at);
    }
    assert_eq!(serve(&mut schedule, 10, |_| QUANTUM).len(), 1);
    assert_eq!(schedule.next(), Some((stream(3), session(0))));
    schedule.remove(stream(3));
    let sent = serve(&mut schedule, 10, |_| QUANTUM);
    assert_eq!((sent[&stream(1)], sent[&stream(2)]), (5 * QUANTUM, 5 * QUANTUM));
    schedule.park(stream(1));
    schedule.park(stream(2));
    assert_eq!(schedule.next(), Some((stream(0), session(0))));
    schedule.ready(stream(2));
    assert_eq!(schedule.next(), Some((stream(2), session(0))));
}

#[test]
fn groups_are_equals_whatever_orders_they_hold() {
    let mut schedule = Schedule::default();
    for (index, group, order) in [(0, 0, 0), (1, 1, 1000), (2, 1, 1000), (3, 2, -5)] {
        let owner = session(0);
        schedule.insert(
            stream(index),
            Place {
                owner,
                urgency: 3,
                group,
                order,
            },
        );
    }
    let sent = serve(&mut schedule, 300, |_| QUANTUM);
    assert_eq!(sent[&stream(0)], 100 * QUANTUM);
    assert_eq!(sent[&stream(1)] + sent[&stream(2)], 100 * QUANTUM);
    assert_eq!(sent[&stream(3)], 100 * QUANTUM);
}

#[test]
fn urgency_decides_between_owners_and_can_change() {
    let mut schedule = Schedule::default();
    schedule.insert(stream(0), place(session(0)));
    schedule.insert(stream(1), place(session(1)));
    schedule.set_urgency(session(1), 2);
    assert_eq!(serve(&mut schedule, 9, |_| QUANTUM)[&stream(1)], 9 * QUANTUM);
    schedule.set_urgency(session(1), 7);
    assert_eq!(schedule.next(), Some((stream(0), session(0))));
    schedule.park(stream(0));
    schedule.set_urgency(session(0), 255);
    schedule.ready(stream(0));
    assert_eq!(serve(&mut schedule, 2, |_| QUANTUM).len(), 2, "255 counts as 7");
}

#[test]
fn a_parked_stream_keeps_its_place() {
    let mut schedule = Schedule::default();
    for index in 0..16 {
        schedule.insert(stream(index), place(session(0)));
    }
    let mut sent = HashMap::<_, usize>::new();
    // Room for three turns at a time; then all of them block, and come back in the reverse order.
    for _ in 0..160 {
        for (stream, n) in serve(&mut schedule, 3, |_| QUANTUM) {
            *sent.entry(stream).or_default() += n;
        }
        let mut blocked = Vec::new();
        while let Some((next, _)) = schedule.next() {
            schedule.park(next);
            blocked.push(next);
        }
        assert_eq!(blocked.len(), 16);
        for stream in blocked.into_iter().rev() {
            schedule.ready(stream);
        }
    }
    assert!(sent.values().all(|&n| n == 30 * QUANTUM), "{sent:?}");
}

#[test]
fn nothing_is_kept_of_what_is_gone() {
    let mut schedule = Schedule::default();
    for index in 0..10 {
        schedule.insert(stream(index), place(session(index % 3)));
    }
    schedule.park(stream(4));
    for index in 0..10 {
        schedule.remove(stream(index));
    }
    assert!(schedule.is_empty() && schedule.next().is_none() && schedule.owners.is_empty());
    assert!(schedule.levels.iter().all(BTreeSet::is_empty));
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u64, u64, u64, i64),
    Ready(u64),
    Park(u64),
    Remove(u64),
    Urgency(u64, u8),
    Serve(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..12u64, 0..3u64, 0..3u64, -2..3i64).prop_map(|(s, o, g, n)| Op::Insert(s, o, g, n)),
        (0..12u64).prop_map(Op::Ready),
        (0..12u64).prop_map(Op::Park),
        (0..12u64).prop_map(Op::Remove),
        (0..3u64, 0..8u8).prop_map(|(o, u)| Op::Urgency(o, u)),
        (0..=QUANTUM).prop_map(Op::Serve),
    ]
}

proptest! {
    /// Whatever happens, whose turn it is obeys the strict rules, and nothing that can send is forgotten.
    #[test]
    fn the_strict_rules_hold(ops in proptest::collection::vec(op(), 0..200)) {
        let mut schedule = Schedule::default();
        let mut model = HashMap::<u64, (Place, bool)>::new();
        for op in ops {
            match op {
                Op::Insert(s, o, group, order) => {
                    let urgency = model.values().find(|(p, _)| p.owner == session(o)).map_or(3, |(p, _)| p.urgency);
                    let at = Place { owner: session(o), urgency, group, order };
                    schedule.insert(stream(s), at);
                    let ready = model.get(&s).is_none_or(|&(_, ready)| ready);
                    model.insert(s, (at, ready));
                }
                Op::Ready(s) => {
                    schedule.ready(stream(s));
                    if let Some(entry) = model.get_mut(&s) {
                        entry.1 = true;
                    }
                }
                Op::Park(s) => {
                    schedule.park(stream(s));
                    if let Some(entry) = model.get_mut(&s) {
                        entry.1 = false;
                    }
                }
                Op::Remove(s) => {
                    schedule.remove(stream(s));
                    model.remove(&s);
                }
                Op::Urgency(o, urgency) => {
                    schedule.set_urgency(session(o), urgency);
                    for entry in model.values_mut().filter(|(p, _)| p.owner == session(o)) {
                        entry.0.urgency = urgency;
                    }
                }
                Op::Serve(n) => {
                    if let Some((next, _)) = schedule.next() {
                        schedule.sent(next, n);
                    }
                }
            }
            let ready: Vec<_> = model.iter().filter(|(_, (_, ready))| *ready).collect();
            prop_assert_eq!(schedule.is_empty(), model.is_empty());
            match schedule.next() {
                None => prop_assert!(ready.is_empty()),
                Some((next, owner)) => {
                    let (mine, _) = model.iter().find(|(s, _)| stream(**s) == next).map(|(_, e)| *e).expect("known");
                    prop_assert_eq!(mine.owner, owner);
                    for (_, (other, _)) in &ready {
                        prop_assert!(mine.urgency <= other.urgency);
                        let is_beside = (mine.owner, mine.group) == (other.owner, other.group);
                        prop_assert!(!is_beside || mine.order >= other.order);
                    }
                }
            }
        }
    }

    /// Streams that always have more, in turns of any size: owners, groups of an owner and streams of a group are served
    /// evenly, to within one turn each.
    #[test]
    fn shares_are_even(
        streams in proptest::collection::vec((0..4u64, 0..3u64), 1..20),
        amounts in proptest::collection::vec(1..=QUANTUM, 1..7),
    ) {
        let mut schedule = Schedule::default();
        for (index, &(owner, group)) in streams.iter().enumerate() {
            schedule.insert(stream(index as u64), Place { group, ..place(session(owner)) });
        }
        let (mut by_owner, mut by_group) = (HashMap::<_, usize>::new(), HashMap::<_, usize>::new());
        for turn in 0..2000 {
            let (next, _) = schedule.next().expect("never dry");
            let n = amounts[turn % amounts.len()];
            schedule.sent(next, n);
            let (owner, group) = streams[next.index() as usize];
            *by_owner.entry(owner).or_default() += n;
            *by_group.entry((owner, group)).or_default() += n;
        }
        let spread = |shares: &mut dyn Iterator<Item = usize>| {
            let shares: Vec<_> = shares.collect();
            shares.iter().max().zip(shares.iter().min()).map_or(0, |(max, min)| max - min)
        };
        prop_assert!(spread(&mut by_owner.values().copied()) <= 2 * QUANTUM);
        for owner in 0..4 {
            let mut groups = by_group.iter().filter(|((o, _), _)| *o == owner).map(|(_, n)| *n);
            prop_assert!(spread(&mut groups) <= 2 * QUANTUM);
        }
    }
}
