//! Who sends next: a hierarchy of turns, as a pure data structure.
//!
//! Urgency first (RFC 9218 section 10): a lower number goes before a higher one. Within an urgency the sessions and requests
//! take turns, within a session its send groups, within a group the streams with the highest send order alone, and among
//! streams of equal order the streams. A turn is about [`QUANTUM`] bytes; who used more has less the next time.
//!
//! Streams are here only while they have something to send. A stream that cannot send for now is [`park`](Schedule::park)ed
//! and keeps its place: when it is [`ready`](Schedule::ready) again, it is where it would have been.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use wireloom_proto::{SessionId, StreamId};

/// What one stream may send before the next one has its turn, in bytes: some ten packets.
pub(super) const QUANTUM: usize = 16 * 1024;

/// Who shares the connection as equals, where the urgency is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    /// A WebTransport session.
    Session(SessionId),
    /// The messages of one urgency that are of use to the peer only when they are whole: they are sent one after the other,
    /// in the order of their requests.
    OneByOne(u8),
    /// A message that is of use in parts.
    Message(StreamId),
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) owner: Owner,
    /// 0 to 7; the lowest is the most urgent.
    pub(super) urgency: u8,
    /// The send group, 0 for none.
    pub(super) group: u64,
    /// The send order; the highest goes first.
    pub(super) order: i64,
}

/// When somebody's turn comes, and what is left of it.
#[derive(Debug, Clone, Copy)]
struct Turn {
    number: u64,
    credit: i64,
}

#[derive(Debug)]
struct Share {
    urgency: u8,
    turn: Turn,
    /// Those with a stream that is ready.
    ready: BTreeSet<(u64, u64)>,
    groups: FxHashMap<u64, Group>,
}

#[derive(Debug)]
struct Group {
    turn: Turn,
    /// By send order, streams that are ready.
    ready: BTreeMap<i64, BTreeSet<(u64, StreamId)>>,
    /// Streams of the group, parked ones too.
    members: usize,
}

#[derive(Debug)]
struct Member {
    place: Place,
    turn: u64,
    ready: bool,
}

#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// By urgency, owners with a stream that is ready.
    levels: [BTreeSet<(u64, Owner)>; 8],
    owners: FxHashMap<Owner, Share>,
    members: FxHashMap<StreamId, Member>,
    /// The number of the next turn.
    clock: u64,
}

fn level(urgency: u8) -> usize {
    usize::from(urgency.min(7))
}

impl Schedule {
    /// Whether nothing wants to send, parked streams included.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Where `stream` stands, if it has something to send.
    pub(super) fn place(&self, stream: StreamId) -> Option<Place> {
        self.members.get(&stream).map(|member| member.place)
    }

    /// `stream` has something to send at `place`, or another place now. A new one is ready, and goes behind those of its order.
    pub(super) fn insert(&mut self, stream: StreamId, place: Place) {
        let was_ready = match self.members.get(&stream) {
            Some(member) if member.place == place => return,
            Some(member) => member.ready,
            None => true,
        };
        self.remove(stream);
        let turn = self.tick();
        let fresh = Turn {
            number: turn,
            credit: QUANTUM as i64,
        };
        let share = match self.owners.entry(place.owner) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Share {
                urgency: place.urgency,
                turn: fresh,
                ready: BTreeSet::new(),
                groups: FxHashMap::default(),
            }),
        };
        let group = share.groups.entry(place.group).or_insert_with(|| Group {
            turn: fresh,
            ready: BTreeMap::new(),
            members: 0,
        });
        group.members += 1;
        let member = Member {
            place,
            turn,
            ready: false,
        };
        self.members.insert(stream, member);
        self.set_urgency(place.owner, place.urgency);
        if was_ready {
            self.ready(stream);
        }
    }

    /// `stream` is there, and can send as far as is known.
    pub(super) fn ready(&mut self, stream: StreamId) {
        let Some(member) = self.members.get_mut(&stream).filter(|member| !member.ready) else {
            return;
        };
        member.ready = true;
        let (place, turn) = (member.place, member.turn);
        if let Some(share) = self.owners.get_mut(&place.owner)
            && let Some(group) = share.groups.get_mut(&place.group)
        {
            group.ready.entry(place.order).or_default().insert((turn, stream));
            share.ready.insert((group.turn.number, place.group));
            self.levels[level(share.urgency)].insert((share.turn.number, place.owner));
        }
    }

    /// `stream` cannot send for now.
    pub(super) fn park(&mut self, stream: StreamId) {
        let Some(member) = self.members.get_mut(&stream).filter(|member| member.ready) else {
            return;
        };
        member.ready = false;
        let (place, turn) = (member.place, member.turn);
        if let Some(share) = self.owners.get_mut(&place.owner)
            && let Some(group) = share.groups.get_mut(&place.group)
        {
            if let Some(equals) = group.ready.get_mut(&place.order) {
                equals.remove(&(turn, stream));
                if equals.is_empty() {
                    group.ready.remove(&place.order);
                }
            }
            if group.ready.is_empty() {
                share.ready.remove(&(group.turn.number, place.group));
            }
            if share.ready.is_empty() {
                self.levels[level(share.urgency)].remove(&(share.turn.number, place.owner));
            }
        }
    }

    /// `stream` has nothing more to send, or is over.
    pub(super) fn remove(&mut self, stream: StreamId) {
        self.park(stream);
        let Some(member) = self.members.remove(&stream) else {
            return;
        };
        let Place { owner, group, .. } = member.place;
        if let Some(share) = self.owners.get_mut(&owner) {
            if let Some(entry) = share.groups.get_mut(&group) {
                entry.members -= 1;
                if entry.members == 0 {
                    share.groups.remove(&group);
                }
            }
            if share.groups.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }

    /// Whose turn it is.
    pub(super) fn next(&self) -> Option<(StreamId, Owner)> {
        let &(_, owner) = self.levels.iter().find_map(|level| level.first())?;
        let share = self.owners.get(&owner)?;
        let (_, group) = share.ready.first()?;
        let (_, equals) = share.groups.get(group)?.ready.last_key_value()?;
        equals.first().map(|&(_, stream)| (stream, owner))
    }

    /// `stream`, which is ready, has sent `n` bytes, at most [`QUANTUM`].
    pub(super) fn sent(&mut self, stream: StreamId, n: usize) {
        let now = self.tick();
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        let Some(member) = self.members.get_mut(&stream).filter(|member| member.ready) else {
            return;
        };
        let place = member.place;
        let stream_turn = std::mem::replace(&mut member.turn, now);
        let Some(share) = self.owners.get_mut(&place.owner) else {
            return;
        };
        if let Some(group) = share.groups.get_mut(&place.group) {
            if let Some(equals) = group.ready.get_mut(&place.order) {
                equals.remove(&(stream_turn, stream));
                equals.insert((now, stream));
            }
            let before = group.turn.number;
            if group.turn.spend(n, now) {
                share.ready.remove(&(before, place.group));
                share.ready.insert((now, place.group));
            }
        }
        let before = share.turn.number;
        if share.turn.spend(n, now) {
            let level = &mut self.levels[level(share.urgency)];
            level.remove(&(before, place.owner));
            level.insert((now, place.owner));
        }
    }

    /// Gives all of `owner`'s streams that are here another urgency.
    pub(super) fn set_urgency(&mut self, owner: Owner, urgency: u8) {
        let Some(share) = self.owners.get_mut(&owner) else {
            return;
        };
        let before = std::mem::replace(&mut share.urgency, urgency);
        if level(before) != level(urgency) && self.levels[level(before)].remove(&(share.turn.number, owner)) {
            self.levels[level(urgency)].insert((share.turn.number, owner));
        }
    }

    /// The streams of `owner`, parked ones too.
    pub(super) fn streams_of(&self, owner: Owner) -> Vec<StreamId> {
        let members = self.members.iter().filter(|(_, member)| member.place.owner == owner);
        members.map(|(&stream, _)| stream).collect()
    }
}

impl Turn {
    /// Whether the turn is over with these `n` bytes; the next one's number is then `now`.
    fn spend(&mut self, n: i64, now: u64) -> bool {
        self.credit = self.credit.saturating_sub(n);
        if self.credit > 0 {
            return false;
        }
        self.credit += QUANTUM as i64;
        self.number = now;
        true
    }
}

#[cfg(test)]
mod tests;
