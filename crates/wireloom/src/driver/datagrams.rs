//! Datagrams of sessions, both ways.
//!
//! One that is sent goes straight to QUIC, which has room for [`QuicConfig::datagram_buffer`](crate::quic) bytes. Only where
//! several sessions or bodies share the connection, where datagrams have a maximum age or few may wait, or where QUIC has no
//! room, it waits in a queue of its session: sessions then take turns, QUIC is given little at a time, so that what waits can
//! still be dropped, and what is dropped is the session's own.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use wireloom_proto::SessionId;

use super::schedule::{Owner, Place, Schedule};
use super::{COPY_FROM, Driver, Topic, Transport, WakeList};
use crate::datagrams::{DatagramCounts, DatagramPolicy};
use crate::error::DatagramError;
use crate::session::SessionState;

/// The size of the buffers in which datagrams wait.
const ARENA: usize = 16 * 1024;

/// Up to this many bytes an allocation costs more than a share of one.
const SMALL: usize = 2048;

/// So many bytes of datagrams are given to QUIC ahead of the network, where datagrams wait in queues.
const AHEAD: usize = 16 * 1024;

/// What a session keeps of its datagrams.
#[derive(Default)]
pub(super) struct Datagrams {
    pub(super) policy: DatagramPolicy,
    pub(super) counts: DatagramCounts,
    received: VecDeque<(Instant, Bytes)>,
    received_bytes: usize,
    /// Where datagrams that wait are copied to.
    arena: BytesMut,
    /// With their prefix.
    to_send: VecDeque<(Instant, Bytes)>,
}

/// What a queued datagram costs: small ones are not free.
fn cost(payload: &Bytes) -> usize {
    payload.len() + size_of::<Bytes>()
}

/// Copies these parts into the arena, which grows by at least `step` bytes where it has no room.
fn join<const N: usize>(arena: &mut BytesMut, step: usize, parts: [&[u8]; N]) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    if arena.capacity() < len {
        arena.reserve(len.max(step));
    }
    for part in parts {
        arena.extend_from_slice(part);
    }
    arena.split().freeze()
}

impl Datagrams {
    /// Keeps what came, within `most` bytes; how many were dropped. The newest matter most to those who use datagrams;
    /// quinn-proto drops in the same order.
    ///
    /// What one turn of the endpoint brings, whose time is bounded, stays in the packets in which it came: most applications
    /// take it before the next turn. Beside what older turns left it is copied out of them.
    fn receive(&mut self, now: Instant, payload: Bytes, most: usize) -> u64 {
        let before = self.counts.dropped_incoming;
        self.received_bytes += cost(&payload);
        let nothing_older = self.received.front().is_none_or(|(came, _)| *came == now);
        let payload = if nothing_older || self.received.len() < COPY_FROM {
            payload
        } else {
            join(&mut self.arena, ARENA, [&payload])
        };
        self.received.push_back((now, payload));
        while (self.received_bytes > most || self.received.len() > self.policy.incoming_limit)
            && let Some((_, oldest)) = self.received.pop_front()
        {
            self.received_bytes -= cost(&oldest);
            self.counts.dropped_incoming += 1;
        }
        self.counts.dropped_incoming - before
    }

    /// The oldest that is still to be received.
    fn take(&mut self) -> Option<Bytes> {
        let mut datagram = self.received.pop_front()?;
        self.received_bytes -= cost(&datagram.1);
        if let Some(age) = self.policy.incoming_max_age {
            let now = Instant::now();
            while now.saturating_duration_since(datagram.0) > age {
                self.counts.expired_incoming += 1;
                datagram = self.received.pop_front()?;
                self.received_bytes -= cost(&datagram.1);
            }
        }
        Some(datagram.1)
    }

    fn take_many(&mut self, into: &mut Vec<Bytes>, limit: usize) -> usize {
        let before = into.len();
        into.reserve(self.received.len().min(limit));
        into.extend(std::iter::from_fn(|| self.take()).take(limit));
        into.len() - before
    }

    /// The oldest that is still to be sent and fits.
    fn next_to_send(&mut self, now: Instant, max: usize) -> Option<Bytes> {
        loop {
            let (since, datagram) = self.to_send.pop_front()?;
            let age = now.saturating_duration_since(since);
            if self.policy.outgoing_max_age.is_some_and(|max_age| age > max_age) {
                self.counts.expired_outgoing += 1;
            } else if datagram.len() > max {
                self.counts.dropped_outgoing += 1;
            } else {
                return Some(datagram);
            }
        }
    }
}

impl Driver {
    pub(super) fn on_datagram(&mut self, now: Instant, wakes: &mut WakeList, session: SessionId, payload: Bytes) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let traffic = &entry.state.traffic;
        traffic.datagrams_received.add(1);
        let dropped = entry.datagrams.receive(now, payload, self.config.datagram_queue);
        traffic.datagrams_dropped_incoming.add(dropped);
        wakes.one(&entry.state.signals, Topic::Datagram);
    }

    /// A datagram that waits to be received, and whether there are more.
    pub(crate) fn take_datagram(&mut self, session: SessionId) -> Option<(Bytes, bool)> {
        let datagrams = &mut self.sessions.get_mut(&session)?.datagrams;
        Some((datagrams.take()?, !datagrams.received.is_empty()))
    }

    /// The same for up to `limit` of them: how many there were, if any.
    pub(crate) fn take_datagrams(
        &mut self,
        session: SessionId,
        into: &mut Vec<Bytes>,
        limit: usize,
    ) -> Option<(usize, bool)> {
        let datagrams = &mut self.sessions.get_mut(&session)?.datagrams;
        let taken = datagrams.take_many(into, limit);
        (taken > 0).then_some((taken, !datagrams.received.is_empty()))
    }

    /// What a session does with its datagrams from now on, if it is not over.
    pub(crate) fn set_datagram_policy(&mut self, session: SessionId, policy: DatagramPolicy) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.datagrams.policy = policy;
        }
    }

    pub(crate) fn datagram_policy(&self, session: SessionId) -> Option<(DatagramPolicy, DatagramCounts)> {
        let datagrams = &self.sessions.get(&session)?.datagrams;
        Some((datagrams.policy, datagrams.counts))
    }

    /// `Ok(false)` if there is no room and `drop_oldest` is not wanted.
    pub(crate) fn send_datagram(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        payload: &[u8],
        drop_oldest: bool,
    ) -> Result<bool, DatagramError> {
        self.check(session)?;
        let Some(max) = quic.max_datagram_size() else {
            return Err(DatagramError::Unsupported);
        };
        let prefix = session.datagram_prefix();
        let max = max.saturating_sub(prefix.len());
        if payload.len() > max {
            return Err(DatagramError::TooLarge { max });
        }
        if session.is_stopped() {
            // "HTTP/3 Datagrams MUST NOT be sent unless the corresponding stream's send side is open" (RFC 9297 section
            // 2.1): it is lost, as datagrams may be.
            return Ok(true);
        }
        let len = prefix.len() + payload.len();
        // Looked up only where something may wait: on the way of most datagrams nothing does.
        let waits = self.queued_datagrams.is_some()
            || self.sending.is_some()
            || session.has_datagram_policy()
            || (drop_oldest && quic.datagram_space() < len);
        if waits && !drop_oldest && self.is_full(session.id) {
            return Ok(false);
        }
        // A small one of a burst shares its allocation with those before and after it.
        let datagram = if len <= SMALL && quic.datagram_backlog() > 0 {
            join(&mut self.datagram_arena, ARENA, [prefix, payload])
        } else {
            join(&mut BytesMut::new(), 0, [prefix, payload])
        };
        let entry = if waits {
            self.sessions.get_mut(&session.id)
        } else {
            None
        };
        let Some(entry) = entry else {
            let is_taken = quic.send_datagram(datagram, drop_oldest);
            session.traffic.datagrams_sent.add(is_taken.into());
            return Ok(is_taken);
        };
        session.traffic.datagrams_sent.add(1);
        let queue = &mut entry.datagrams;
        queue.to_send.push_back((Instant::now(), datagram));
        while queue.to_send.len() > queue.policy.outgoing_limit.max(1) {
            queue.to_send.pop_front();
            queue.counts.dropped_outgoing += 1;
        }
        let place = Place {
            owner: Owner::Session(session.id),
            urgency: entry.priority.urgency,
            group: 0,
            order: 0,
        };
        let turns = self.queued_datagrams.get_or_insert_with(Box::<Schedule>::default);
        turns.insert(session.id.stream(), place);
        self.pump_datagrams(quic, wakes);
        Ok(true)
    }

    fn is_full(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|entry| {
            let queue = &entry.datagrams;
            queue.to_send.len() >= queue.policy.outgoing_limit.max(1)
        })
    }

    /// Gives QUIC the datagrams for which it has room, session by session. Whether there were any.
    pub(super) fn pump_datagrams(&mut self, quic: &mut Transport, wakes: &mut WakeList) -> bool {
        let Some(mut turns) = self.queued_datagrams.take() else {
            return false;
        };
        let Some(max) = quic.max_datagram_size() else {
            return false;
        };
        let now = Instant::now();
        let mut any = false;
        while let Some((stream, _)) = turns.next() {
            if quic.datagram_backlog() >= AHEAD {
                break;
            }
            let entry = SessionId::new(stream).and_then(|id| self.sessions.get_mut(&id));
            let Some(entry) = entry else {
                turns.remove(stream);
                continue;
            };
            if let Some(datagram) = entry.datagrams.next_to_send(now, max) {
                turns.sent(stream, datagram.len());
                any |= quic.send_datagram(datagram, false);
            }
            if entry.datagrams.to_send.is_empty() {
                turns.remove(stream);
            }
            wakes.one(&entry.state.signals, Topic::DatagramRoom);
        }
        if !turns.is_empty() {
            self.queued_datagrams = Some(turns);
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn packets_are_kept_whole_for_one_turn_only() {
        let start = Instant::now();
        let next = start + Duration::from_millis(1);
        let packet = Bytes::from(vec![7; 2000]);
        let mut datagrams = Datagrams::default();
        let receive = |datagrams: &mut Datagrams, turn, offset| {
            datagrams.receive(turn, packet.slice(offset..offset + 10), usize::MAX);
            let (_, kept) = &datagrams.received[datagrams.received.len() - 1];
            kept.as_ptr() == packet[offset..].as_ptr()
        };
        for offset in 0..2 * COPY_FROM {
            assert!(receive(&mut datagrams, start, offset), "whole");
        }
        assert!(!receive(&mut datagrams, next, 100), "copied");
        while datagrams.take().is_some() {}
        assert!(receive(&mut datagrams, next, 200), "nothing older is left");
    }

    #[test]
    fn what_is_too_much_or_too_old_is_dropped_and_counted() {
        let start = Instant::now();
        let payload = |i: u8| Bytes::copy_from_slice(&[i; 100]);
        let mut datagrams = Datagrams::default();
        datagrams.policy.incoming_limit = 3;
        for i in 0..5 {
            datagrams.receive(start, payload(i), usize::MAX);
        }
        assert_eq!(datagrams.counts.dropped_incoming, 2);
        assert_eq!(datagrams.take(), Some(payload(2)));
        datagrams.receive(start, payload(9), 2 * cost(&payload(9)));
        assert_eq!(datagrams.counts.dropped_incoming, 3, "by their bytes");
        datagrams.policy.incoming_max_age = Some(Duration::ZERO);
        while start.elapsed().is_zero() {}
        assert_eq!(datagrams.take(), None);
        assert_eq!((datagrams.counts.expired_incoming, datagrams.received_bytes), (2, 0));

        datagrams.policy.outgoing_max_age = Some(Duration::from_secs(1));
        for (age, size) in [(3, 100), (2, 100), (0, 200), (0, 100)] {
            let since = start + Duration::from_secs(3 - age);
            datagrams.to_send.push_back((since, Bytes::from(vec![0; size])));
        }
        let next = datagrams.next_to_send(start + Duration::from_secs(3), 150);
        assert_eq!(next.map(|datagram| datagram.len()), Some(100));
        assert_eq!(
            (datagrams.counts.expired_outgoing, datagrams.counts.dropped_outgoing),
            (2, 1)
        );
    }
}
