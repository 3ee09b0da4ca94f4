//! Fair and ordered sending, where there is anybody to be fair to.
//!
//! While a connection carries one session, or one message, and no stream of it has a send order, payload goes straight to
//! QUIC and nothing here exists. As soon as several sessions and messages send, or streams have orders or groups, payload
//! waits here on its way to QUIC, at most [`ROOM`] of a stream, and a [`Schedule`] says what goes next. QUIC is then given no
//! more than it can send soon ([`Transport::follow_congestion`]): what it has it sends, whoever comes later.
//!
//! HTTP/3's own writes (control, QPACK, header sections, capsules) are not payload: they go first.

use std::time::Instant;

use bytes::{Buf, Bytes};
use rustc_hash::FxHashMap;
use wireloom_proto::h3::priority::Priority;
use wireloom_proto::{Code, SessionId, StreamId};

use super::schedule::{Owner, Place, QUANTUM, Schedule};
use super::{Driver, Transport, WakeList, WriteEnd};

/// What may wait of one stream, in bytes, so that a stream whose turn it is has something to send until its task has run.
const ROOM: usize = 256 * 1024;
/// With so many bytes waiting on the connection each stream has room for one turn only.
const CROWDED: usize = 8 << 20;

/// The priority of streams that carry control: above all payload.
pub(super) const CONTROL_PRIORITY: i32 = i32::MAX;

/// Group and send order of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) group: u64,
    pub(crate) order: i64,
}

#[derive(Default)]
pub(super) struct Sending {
    pub(super) schedule: Schedule,
    /// Streams that have a group or an order, until they are over.
    orders: FxHashMap<StreamId, Order>,
    /// How many of them have a group.
    grouped: usize,
    /// Bytes that wait on all streams.
    buffered: usize,
    /// A stream whose turn it is has nothing, but its writer is on its way.
    is_held: bool,
    /// Whether QUIC knows the send orders as priorities: only where that harms no other session, and no group.
    is_told: bool,
}

impl Sending {
    pub(super) fn taken(&mut self, n: usize) {
        self.buffered -= n.min(self.buffered);
    }

    pub(super) fn added(&mut self, n: usize) {
        self.buffered += n;
    }

    /// How much may wait of a stream.
    pub(super) fn room(&self) -> usize {
        if self.buffered < CROWDED { ROOM } else { QUANTUM }
    }

    fn set_order(&mut self, stream: StreamId, order: Order) {
        let before = if order == Order::default() {
            self.orders.remove(&stream)
        } else {
            self.orders.insert(stream, order)
        };
        self.grouped += usize::from(order.group != 0);
        self.grouped -= usize::from(before.is_some_and(|before| before.group != 0));
    }
}

/// A send order as QUIC takes it: those beyond are equal there.
fn to_priority(order: i64) -> i32 {
    let order = order.clamp(i64::from(i32::MIN), i64::from(CONTROL_PRIORITY - 1));
    i32::try_from(order).unwrap_or(0)
}

impl Driver {
    /// Everybody who may have payload to send.
    fn senders(&self) -> usize {
        self.sessions.len() + self.bodies
    }

    /// Starts or ends scheduling, as the number of senders wants it.
    pub(super) fn note_senders(&mut self, quic: &mut Transport) {
        let is_shared = self.senders() > 1;
        let Some(sending) = &mut self.sending else {
            if is_shared {
                self.start_scheduling();
            }
            return;
        };
        let is_told = !is_shared && sending.grouped == 0;
        if std::mem::replace(&mut sending.is_told, is_told) != is_told {
            for (&stream, order) in &sending.orders {
                quic.set_priority(stream, if is_told { to_priority(order.order) } else { 0 });
            }
        }
        if !is_shared && sending.orders.is_empty() && sending.schedule.is_empty() {
            self.sending = None;
            quic.set_send_window(self.config.send_window);
        }
    }

    fn start_scheduling(&mut self) -> &mut Sending {
        self.sending.get_or_insert_default()
    }

    /// Where a stream of `session` stands.
    pub(super) fn place_in_session(&self, session: SessionId, stream: StreamId) -> Place {
        let order = self.sending.as_ref().and_then(|sending| sending.orders.get(&stream));
        let Order { group, order } = order.copied().unwrap_or_default();
        let entry = self.sessions.get(&session);
        let urgency = entry.map(|entry| entry.priority).unwrap_or_default().urgency;
        Place {
            owner: Owner::Session(session),
            urgency,
            group,
            order,
        }
    }

    /// Where the body of a message stands.
    pub(super) fn place_of_message(&self, stream: StreamId) -> Place {
        let priority = self.messages.get(&stream).map(|message| message.priority);
        let Priority { urgency, incremental } = priority.unwrap_or_default();
        let owner = if incremental {
            Owner::Message(stream)
        } else {
            Owner::OneByOne(urgency)
        };
        Place {
            owner,
            urgency,
            group: 0,
            // "Non-incremental responses of the same urgency SHOULD be served by prioritizing bandwidth allocation in
            // ascending order of the stream ID" (RFC 9218 section 10).
            order: i64::try_from(stream.index()).map_or(i64::MIN, |index| -index),
        }
    }

    /// Gives a stream of `session` another group or send order.
    pub(crate) fn set_order(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
        stream: StreamId,
        change: impl FnOnce(&mut Order),
    ) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        let before = self.sending.as_ref().and_then(|sending| sending.orders.get(&stream));
        let before = before.copied().unwrap_or_default();
        let mut order = before;
        change(&mut order);
        if order == before {
            return;
        }
        let sending = self.start_scheduling();
        sending.set_order(stream, order);
        if sending.is_told {
            quic.set_priority(stream, to_priority(order.order));
        }
        let place = self.place_in_session(session, stream);
        if let Some(sending) = &mut self.sending
            && self.outgoing.get(&stream).is_some_and(|outgoing| outgoing.scheduled)
        {
            sending.schedule.insert(stream, place);
        }
        self.note_senders(quic);
        self.pump(quic, wakes);
    }

    /// The application is done with the stream's sending half.
    pub(super) fn forget_order(&mut self, stream: StreamId) {
        if let Some(sending) = &mut self.sending {
            sending.set_order(stream, Order::default());
        }
    }

    /// Whether payload waits for its turn.
    pub(super) fn is_scheduling(&self) -> bool {
        self.sending.is_some()
    }

    /// How many bytes of payload `stream` takes now.
    pub(super) fn room(&self, stream: StreamId) -> usize {
        let waiting = self.outgoing.get(&stream).map_or(0, |outgoing| outgoing.len);
        let room = self.sending.as_ref().map_or(0, |sending| sending.room());
        room.saturating_sub(waiting)
    }

    /// Sends payload in its turn, which is now if nobody else waits.
    pub(super) fn send_payload(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        stream: StreamId,
        place: Place,
        mut data: Bytes,
    ) {
        let is_alone = self.sending.as_ref().is_none_or(|sending| sending.schedule.is_empty());
        let mut is_blocked = false;
        if is_alone && !self.is_backed_up(stream) && self.credit(place.owner) >= data.len() {
            if self.sending.is_some() {
                quic.follow_congestion(self.config.send_window);
            }
            let before = data.len();
            let end = quic.write(stream, &mut data);
            self.count_sent(place.owner, before - data.len());
            match end {
                Err(WriteEnd::Blocked) => is_blocked = true,
                // Sent, or stopped or closed: the event that says so comes by itself.
                _ => return,
            }
        }
        let Some(sending) = &mut self.sending else {
            return self.write(quic, stream, data, false);
        };
        sending.added(data.len());
        let outgoing = self.outgoing.entry(stream).or_default();
        outgoing.scheduled = true;
        outgoing.is_called = false;
        outgoing.push(data);
        sending.schedule.insert(stream, place);
        if is_blocked {
            sending.schedule.park(stream);
        } else {
            self.pump(quic, wakes);
        }
    }

    /// What the session's own limit leaves.
    fn credit(&self, owner: Owner) -> usize {
        match owner {
            Owner::Session(session) if self.h3.has_flow_control() => {
                usize::try_from(self.h3.send_credit(session)).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    fn count_sent(&mut self, owner: Owner, n: usize) {
        if let Owner::Session(session) = owner {
            self.sent(session, n);
        }
    }

    /// The session's own limit is reached: `stream` goes on when it is raised.
    fn await_credit(&mut self, owner: Owner, stream: StreamId) {
        let Owner::Session(session) = owner else { return };
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.waiting.insert(stream);
        }
        self.h3.data_blocked(session);
        if let Some(sending) = &mut self.sending {
            sending.schedule.park(stream);
        }
    }

    /// QUIC takes more of `stream`, which waits for its turn. Whether that is so.
    pub(super) fn is_next(&mut self, stream: StreamId) -> bool {
        let is_scheduled = self.outgoing.get(&stream).is_some_and(|outgoing| outgoing.scheduled);
        if is_scheduled && let Some(sending) = &mut self.sending {
            sending.schedule.ready(stream);
        }
        is_scheduled
    }

    /// Gives QUIC what it takes, in turn. A writer that had to wait, and is woken by this, has its turn kept: more is given out
    /// when it has written, or by [`pump_held`](Self::pump_held).
    pub(super) fn pump(&mut self, quic: &mut Transport, wakes: &mut WakeList) {
        self.pump_until(quic, wakes, true);
    }

    /// Where QUIC has nothing left to send, nobody is waited for: a writer may have gone, or be slow. Whether there was
    /// anything.
    pub(super) fn pump_held(&mut self, quic: &mut Transport, wakes: &mut WakeList) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.is_held) && self.pump_until(quic, wakes, false)
    }

    fn pump_until(&mut self, quic: &mut Transport, wakes: &mut WakeList, hold: bool) -> bool {
        let mut any = false;
        let mut is_owed = false;
        while let Some(sending) = &mut self.sending {
            sending.is_held = false;
            let Some((next, owner)) = sending.schedule.next() else {
                break;
            };
            if !std::mem::replace(&mut any, true) {
                quic.follow_congestion(self.config.send_window);
            }
            if self
                .outgoing
                .get(&next)
                .is_some_and(|outgoing| outgoing.is_called && outgoing.is_empty())
                && hold
            {
                sending.is_held = true;
                // The endpoint comes back for it.
                quic.wake();
                break;
            }
            let credit = self.credit(owner);
            if credit == 0 && self.outgoing.get(&next).is_some_and(|outgoing| outgoing.len > 0) {
                self.await_credit(owner, next);
                is_owed = true;
                continue;
            }
            self.serve(quic, wakes, next, owner, credit);
        }
        if is_owed && self.h3.has_output() {
            self.settle(Instant::now(), quic, wakes);
        }
        any
    }

    /// One turn of `stream`.
    fn serve(&mut self, quic: &mut Transport, wakes: &mut WakeList, stream: StreamId, owner: Owner, credit: usize) {
        let Some(sending) = &mut self.sending else { return };
        let Some(outgoing) = self.outgoing.get_mut(&stream) else {
            return sending.schedule.remove(stream);
        };
        let (written, end) = outgoing.write_some(quic, stream, QUANTUM.min(credit));
        sending.taken(written);
        sending.schedule.sent(stream, written);
        match end {
            Ok(()) => {}
            Err(WriteEnd::Blocked) => sending.schedule.park(stream),
            Err(_) => sending.taken(outgoing.give_up()),
        }
        if outgoing.len <= ROOM / 2 {
            let writer = if let Some(entry) = self.streams.get_mut(&stream) {
                entry.writer.take()
            } else {
                self.messages.get_mut(&stream).and_then(|message| message.writer.take())
            };
            outgoing.is_called |= writer.is_some();
            wakes.waker(writer);
        }
        // One whose writer was called keeps its turn, once.
        if outgoing.is_empty() && (outgoing.fin || !outgoing.is_called || written == 0) {
            if outgoing.fin {
                let _ = quic.finish(stream);
            }
            self.outgoing.remove(&stream);
            sending.schedule.remove(stream);
        }
        self.count_sent(owner, written);
    }

    /// `session` is over: what waits of its streams, even of finished ones, will not be sent. "Upon learning that the session
    /// has been terminated, the endpoint MUST reset the send side" of its streams (draft-16 section 6).
    pub(super) fn drop_payload(&mut self, quic: &mut Transport, session: SessionId) {
        let Some(sending) = &self.sending else { return };
        for stream in sending.schedule.streams_of(Owner::Session(session)) {
            quic.reset(stream, Code::WT_SESSION_GONE);
            self.discard_outgoing(stream);
        }
    }

    /// What waits of `stream` is not to be sent.
    pub(super) fn discard_outgoing(&mut self, stream: StreamId) {
        let Some(outgoing) = self.outgoing.remove(&stream) else {
            return;
        };
        if let Some(sending) = &mut self.sending
            && outgoing.scheduled
        {
            sending.taken(outgoing.len);
            sending.schedule.remove(stream);
        }
    }
}

impl super::outgoing::Outgoing {
    /// Writes up to `limit` bytes; how many QUIC took.
    fn write_some(&mut self, quic: &mut Transport, stream: StreamId, limit: usize) -> (usize, Result<(), WriteEnd>) {
        let mut left = limit;
        while let Some(front) = self.chunks.front_mut() {
            let size = front.len().min(left);
            let mut part = front.slice(..size);
            let end = quic.write(stream, &mut part);
            let n = size - part.len();
            front.advance(n);
            self.len -= n;
            left -= n;
            if front.is_empty() {
                self.chunks.pop_front();
            }
            if end.is_err() || left == 0 {
                return (limit - left, end);
            }
        }
        (limit - left, Ok(()))
    }
}
