//! Fair and ordered sending, where there is anybody to be fair to.
//!
//! While a connection carries one session, or one message, and no stream of it has a send order, payload goes straight to
//! QUIC and nothing here exists. As soon as several sessions and messages send, streams have orders or groups, or several
//! streams wait for the same limit, payload waits here on its way to QUIC, at most [`ROOM`] of a stream, and a [`Schedule`]
//! says what goes next. QUIC is then given no more than it can send soon ([`Transport::follow_congestion`]): what it has it
//! sends, whoever comes later.
//!
//! HTTP/3's own writes (control, QPACK, header sections, capsules) are not payload: they go first.

use std::time::Instant;

use bytes::{Buf, Bytes};
use rustc_hash::FxHashMap;
use wireloom_proto::h3::priority::Priority;
use wireloom_proto::{Code, SessionId, StreamId};

use super::schedule::{Owner, Place, QUANTUM, Schedule};
use super::{Driver, Rest, Transport, WakeList, WriteEnd};

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

/// A message body on its way to QUIC.
pub(super) struct SentBody {
    priority: Priority,
    /// Nothing is added any more.
    is_whole: bool,
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
    held: Option<StreamId>,
    /// It has been waited for that writer for a turn of the endpoint.
    had_time: bool,
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

    /// How many streams have a group or an order.
    pub(super) fn orders(&self) -> usize {
        self.orders.len()
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

/// Where the body of the message on `stream` stands.
fn place_of(stream: StreamId, priority: Priority) -> Place {
    let owner = if priority.incremental {
        Owner::Message(stream)
    } else {
        Owner::OneByOne(priority.urgency)
    };
    Place {
        owner,
        urgency: priority.urgency,
        group: 0,
        // "Non-incremental responses of the same urgency SHOULD be served by prioritizing bandwidth allocation in ascending
        // order of the stream ID" (RFC 9218 section 10).
        order: i64::try_from(stream.index()).map_or(i64::MIN, |index| -index),
    }
}

impl Driver {
    /// Everybody who may have payload to send.
    fn senders(&self) -> usize {
        self.sessions.len() + self.bodies.len()
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
            self.is_contended = false;
            quic.set_send_window(self.config.send_window);
        }
    }

    pub(super) fn start_scheduling(&mut self) -> &mut Sending {
        if self.sending.is_none() {
            let mut sending = Box::<Sending>::default();
            // A body that was alone until now waits for QUIC already.
            for (&stream, body) in &self.bodies {
                if let Some(outgoing) = self.outgoing.get_mut(&stream) {
                    outgoing.scheduled = true;
                    sending.added(outgoing.len);
                    sending.schedule.insert(stream, place_of(stream, body.priority));
                    sending.schedule.park(stream);
                }
            }
            self.sending = Some(sending);
        }
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

    /// The message on `stream` has a body, which may contend with others. Where it stands.
    pub(super) fn note_body(&mut self, quic: &mut Transport, stream: StreamId) -> Place {
        if let Some(body) = self.bodies.get(&stream) {
            return place_of(stream, body.priority);
        }
        let priority = self
            .messages
            .get(&stream)
            .map(|message| message.priority)
            .unwrap_or_default();
        let body = SentBody {
            priority,
            is_whole: false,
        };
        self.bodies.insert(stream, body);
        self.note_senders(quic);
        place_of(stream, priority)
    }

    /// Nothing is added to the message's body any more.
    pub(super) fn body_over(&mut self, stream: StreamId) {
        if let Some(body) = self.bodies.get_mut(&stream) {
            body.is_whole = true;
            self.forget_body(stream);
        }
    }

    /// Forgets a body if QUIC has all of it.
    pub(super) fn forget_body(&mut self, stream: StreamId) {
        if self.bodies.get(&stream).is_some_and(|body| body.is_whole) && !self.outgoing.contains_key(&stream) {
            self.bodies.remove(&stream);
        }
    }

    /// A request or session has another priority.
    pub(super) fn on_priority(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        stream: StreamId,
        priority: Priority,
    ) {
        if let Some(message) = self.messages.get_mut(&stream) {
            message.priority = priority;
        }
        let body = self.bodies.get_mut(&stream);
        if body.is_some() || self.messages.contains_key(&stream) {
            if let Some(body) = body {
                body.priority = priority;
            }
            // For what QUIC has already.
            quic.set_priority(stream, 3 - i32::from(priority.urgency.min(7)));
            let place = place_of(stream, priority);
            if let Some(sending) = &mut self.sending
                && self.outgoing.get(&stream).is_some_and(|outgoing| outgoing.scheduled)
            {
                sending.schedule.insert(stream, place);
            }
        } else if let Some(session) = SessionId::new(stream)
            && let Some(entry) = self.sessions.get_mut(&session)
        {
            entry.priority = priority;
            if let Some(sending) = &mut self.sending {
                sending.schedule.set_urgency(Owner::Session(session), priority.urgency);
            }
        }
        self.pump(quic, wakes);
    }

    /// How urgent the session is here; `None` once it is over.
    pub(crate) fn session_priority(&self, session: SessionId) -> Option<Priority> {
        self.sessions.get(&session).map(|entry| entry.priority)
    }

    /// Gives a request or a session another priority; nothing where it is over.
    pub(crate) fn set_priority(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        stream: StreamId,
        priority: Priority,
    ) {
        if self.h3.set_priority(stream, priority).is_ok() {
            self.settle(Instant::now(), quic, wakes);
        }
    }

    /// Where the stream stands among those of its session, unless it is where all begin.
    pub(crate) fn order(&self, stream: StreamId, is_over: bool) -> Option<Order> {
        let sending = self.sending.as_ref()?;
        if is_over {
            let Place { group, order, .. } = sending.schedule.place(stream)?;
            return Some(Order { group, order });
        }
        sending.orders.get(&stream).copied()
    }

    /// Gives a stream of `session` another group or send order. Of one that `is_over` only what still waits can have another
    /// place: nobody would forget what is noted now.
    pub(crate) fn set_order(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
        stream: StreamId,
        is_over: bool,
        change: impl FnOnce(&mut Order),
    ) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        let known = self.order(stream, is_over);
        if is_over && known.is_none() {
            return;
        }
        let before = known.unwrap_or_default();
        let mut order = before;
        change(&mut order);
        if order == before {
            return;
        }
        let sending = self.start_scheduling();
        if !is_over {
            sending.set_order(stream, order);
        }
        if sending.is_told {
            quic.set_priority(stream, to_priority(order.order));
        }
        let Order { group, order } = order;
        let place = self.place_in_session(session, stream);
        if let Some(sending) = &mut self.sending
            && self.outgoing.get(&stream).is_some_and(|outgoing| outgoing.scheduled)
        {
            sending.schedule.insert(stream, Place { group, order, ..place });
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
        // Who writes much is about to write more: its turn is kept until its task has had the time to.
        outgoing.is_called = data.len() >= QUANTUM;
        outgoing.push(data);
        sending.schedule.insert(stream, place);
        if is_blocked {
            sending.schedule.park(stream);
        } else {
            self.pump(quic, wakes);
        }
    }

    /// What the session's own limit leaves.
    pub(super) fn credit(&self, owner: Owner) -> usize {
        match owner {
            Owner::Session(session) if self.h3.has_flow_control() => {
                usize::try_from(self.h3.send_credit(session)).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    fn count_sent(&mut self, owner: Owner, n: usize) {
        if let Owner::Session(session) = owner
            && self.h3.has_flow_control()
        {
            self.h3.data_sent(session, n as u64);
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

    /// Where QUIC has nothing left to send, a writer is waited for until its task has had the time to run, and no longer: it
    /// may have gone, or be slow.
    pub(super) fn pump_held(&mut self, quic: &mut Transport, wakes: &mut WakeList) -> Rest {
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.held.is_some()) else {
            return Rest::Nothing;
        };
        if !std::mem::replace(&mut sending.had_time, true) {
            return Rest::Later;
        }
        if self.pump_until(quic, wakes, false) {
            Rest::More
        } else {
            Rest::Nothing
        }
    }

    fn pump_until(&mut self, quic: &mut Transport, wakes: &mut WakeList, hold: bool) -> bool {
        let mut any = false;
        let mut is_owed = false;
        while let Some(sending) = &mut self.sending {
            let held = sending.held.take();
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
                sending.held = Some(next);
                sending.had_time &= held == Some(next);
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
        if is_owed {
            self.wait_for_limit(quic);
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
            self.forget_body(stream);
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
        self.forget_body(stream);
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
