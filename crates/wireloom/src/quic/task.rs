//! The task that drives every connection of a socket.
//!
//! A turn is: receive, route, fire timers, let each touched connection react, wake the application; then, one turn later,
//! transmit. Transmission waits that one turn because the tasks that were just woken run first, so their answers leave
//! together with the acknowledgements, in as few packets and system calls as possible.
//!
//! Work per turn is bounded by number and by time, and what is received waits for its sender's turn ([`Inbox`]), so neither a
//! flood of packets nor one bulk sender keeps the others (or other tasks of the runtime) waiting.

use std::collections::VecDeque;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn_proto as qp;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::buffers::Buffers;
use super::endpoint::{Acceptor, Command, abandon};
use super::inbox::{Inbox, Message};
use super::ready::{Slot, SlotState};
use super::routing::{Received, Routing};
use super::socket::Socket;
use super::timers::Timers;
use super::{Application, Rest};
use crate::wake::WakeList;

/// Datagrams received in one turn before tasks get to run.
const RECV_PER_TURN: usize = 512;
/// The time for what is received in a turn, and for sending. A packet costs from less than a microsecond to hundreds of them
/// (handshakes): without this bound the peers of a busy socket would have nothing to do until all of it was through, and both
/// sides would work by turns.
const TURN_TIME: Duration = Duration::from_micros(250);
/// Send calls in one turn before other tasks get to run.
const SENDS_PER_TURN: usize = 64;
/// Send calls of one connection before the next connection's turn.
const SENDS_PER_CONNECTION: usize = 4;

pub(super) struct EndpointTask<A: Application, C> {
    socket: Socket,
    buffers: Buffers,
    inbox: Inbox<Received>,
    /// Keyed at random: nobody can choose whose place he shares.
    hasher: RandomState,
    routing: Routing<A, C>,
    timers: Timers,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Connections that may have something to transmit, in the order of their turn.
    active: VecDeque<usize>,
    /// By key: whether it is in `active`.
    is_active: Vec<bool>,
    ready: Vec<Arc<Slot<A>>>,
    /// From the tasks of the port's other sockets.
    handed_over: Vec<Received>,
    /// Connections that are to be active again in the next turn.
    later: Vec<usize>,
    /// Transmission was put off to this turn.
    deferred: bool,
    /// The last turn left something unreceived.
    is_busy: bool,
    /// What the full socket did not take; `buffer` holds its bytes.
    blocked: Option<qp::Transmit>,
    buffer: Vec<u8>,
    wakes: WakeList,
    shutdown: bool,
    /// Every connection is closed: what they still send is the end.
    is_last_turn: bool,
    ended: watch::Sender<bool>,
}

// Nothing in it is pinned structurally; the one future is boxed.
impl<A: Application, C> Unpin for EndpointTask<A, C> {}

impl<A: Application, C: Acceptor<A>> Future for EndpointTask<A, C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let now = Instant::now();

        // On the second of two turns there is nothing new to hear for a task that had too much to do already.
        let more_to_receive = (this.deferred && this.is_busy) || this.receive(cx, now);
        this.is_busy = more_to_receive;
        this.take_commands(cx, now);
        this.fire_timers(now);

        if !this.wakes.is_empty() {
            if !this.deferred {
                // Of many tasks only half, so that their answers are on the way, and the peer at work, while the others run.
                this.wakes.wake_half();
                this.deferred = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.wakes.wake();
        }
        this.deferred = false;

        let more_to_send = this.transmit(cx, now);
        this.wakes.wake();
        if this.shutdown && this.is_done() {
            if this.is_last_turn {
                return Poll::Ready(());
            }
            // Another thread may have closed a connection since it was asked for what it has to send: all are asked once more.
            this.is_last_turn = true;
            let keys: Vec<usize> = this.routing.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| this.activate(key));
            cx.waker().wake_by_ref();
        }
        let timer_fired = this.arm_timer(cx);
        if more_to_receive || more_to_send || timer_fired {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<A: Application, C: Acceptor<A>> EndpointTask<A, C> {
    pub(super) fn new(socket: Socket, routing: Routing<A, C>, ended: watch::Sender<bool>) -> Self {
        Self {
            socket,
            buffers: Buffers::default(),
            inbox: Inbox::new(),
            hasher: RandomState::new(),
            routing,
            timers: Timers::default(),
            sleep: None,
            active: VecDeque::new(),
            is_active: Vec::new(),
            ready: Vec::new(),
            handed_over: Vec::new(),
            later: Vec::new(),
            deferred: false,
            is_busy: false,
            blocked: None,
            buffer: Vec::new(),
            wakes: WakeList::new(),
            shutdown: false,
            is_last_turn: false,
            ended,
        }
    }

    /// Receives until the socket is empty and everything delivered, or a limit is reached; whether it was a limit.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut received = 0;
        loop {
            let polled = self.socket.poll_recv(cx);
            while let Some((meta, message)) = self.socket.next_message() {
                received += message.len().div_ceil(meta.stride.max(1));
                // Whoever has no port (RFC 768) cannot be answered, and hears nothing.
                if meta.addr.port() == 0 {
                    continue;
                }
                let hash = self.hasher.hash_one(meta.addr);
                if self.inbox.has_room(hash, message.len()) {
                    self.buffers.copy(message, meta.stride, |bytes| {
                        self.inbox.push(hash, Received::new(now, meta, bytes));
                    });
                }
            }
            // Each sender once, and one alone for as long as there is time.
            let mut turns = self.inbox.waiting();
            let mut clock = Instant::now();
            let mut is_late = false;
            while !is_late && turns > 0 {
                clock = self.deliver(now, clock);
                is_late = clock - now >= TURN_TIME;
                turns = (turns - 1).max(usize::from(self.inbox.waiting() == 1));
            }
            match polled {
                Poll::Ready(Ok(())) if is_late || received >= RECV_PER_TURN => return true,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, "receiving failed");
                    // Not for ever, but again: nothing else would wake the task for what comes next.
                    received += RECV_PER_TURN / 4;
                    if received >= RECV_PER_TURN {
                        return true;
                    }
                }
                Poll::Pending if self.inbox.waiting() == 0 => return false,
                Poll::Pending if is_late => return true,
                Poll::Pending => {}
            }
        }
    }

    /// Gives what one sender's turn allows to its connections, and lets them react while it is in the processor's cache. It
    /// begins at `start`; when it ends is returned.
    fn deliver(&mut self, now: Instant, start: Instant) -> Instant {
        let Self { inbox, routing, .. } = self;
        let turn = inbox.take_turn(|message| routing.route(message));
        // Dropped if the socket is full: the peer's retransmission asks again.
        for (transmit, contents) in self.routing.take_answers() {
            if self.blocked.is_none() {
                let _ = self.socket.try_send(&transmit, &contents);
            }
        }
        while let Some(key) = self.routing.pop_touched() {
            self.process(key, now);
        }
        let end = Instant::now();
        if let Some(turn) = turn {
            self.inbox.took(&turn, end - start);
        }
        end
    }

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) {
        let mut ready = std::mem::take(&mut self.ready);
        let mut handed_over = std::mem::take(&mut self.handed_over);
        let commands = self.routing.queue().take(cx.waker(), &mut ready, &mut handed_over);
        for message in handed_over.drain(..) {
            let hash = self.hasher.hash_one(message.sender());
            if self.inbox.has_room(hash, message.len()) {
                self.inbox.push(hash, message);
                // It is delivered in the next turn.
                cx.waker().wake_by_ref();
            }
        }
        self.handed_over = handed_over;
        for slot in ready.drain(..) {
            slot.unqueue();
            let key = slot.lock().quic.handle.0;
            // The connection may be over, and its key another's.
            if self
                .routing
                .get(key)
                .is_some_and(|current| Arc::ptr_eq(&current, &slot))
            {
                self.activate(key);
            }
        }
        self.ready = ready;
        for command in commands {
            match command {
                Command::Connect {
                    config,
                    remote,
                    server_name,
                    app,
                    reply,
                } => {
                    // Who dialled may have given up before, or give up just now.
                    if reply.is_closed() {
                        continue;
                    }
                    let connected = self.routing.connect(now, *config, remote, &server_name, app);
                    let connected = connected.map(|(key, slot)| {
                        self.is_last_turn = false;
                        self.activate(key);
                        slot
                    });
                    if let Err(Ok(slot)) = reply.send(connected) {
                        abandon(&slot);
                    }
                }
                Command::StopAccepting => self.routing.stop_accepting(),
                Command::Rebind(socket) => {
                    self.socket = *socket;
                    self.blocked = None;
                    self.for_each(|state, _| {
                        state.quic.inner.local_address_changed();
                        // What was learned of one network says nothing about another, and a larger MTU would lose all that
                        // is sent. "an endpoint MUST immediately reset the congestion controller and round-trip time
                        // estimator for the new path to initial values" (RFC 9000 section 9.4).
                        state.quic.inner.path_changed(now);
                    });
                    // The new socket has not been polled for this task yet.
                    cx.waker().wake_by_ref();
                }
                Command::Shutdown => {
                    self.routing.stop_accepting();
                    self.shutdown = true;
                    self.for_each(|state, wakes| state.app.wind_down(now, &mut state.quic, wakes));
                }
            }
        }
    }

    /// Changes every connection, and has each transmit what that means.
    fn for_each(&mut self, mut f: impl FnMut(&mut SlotState<A>, &mut WakeList)) {
        let mut keys = Vec::new();
        for (key, slot) in self.routing.iter() {
            f(&mut slot.lock(), &mut self.wakes);
            keys.push(key);
        }
        for key in keys {
            self.activate(key);
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop(now) {
            let Some(slot) = self.routing.get(key) else { continue };
            {
                let mut guard = slot.lock();
                let state = &mut *guard;
                let quic_is_due = state.quic.inner.poll_timeout().is_some_and(|at| at <= now);
                if quic_is_due {
                    state.quic.inner.handle_timeout(now);
                }
                let app_is_due = state.app.poll_timeout().is_some_and(|at| at <= now);
                if app_is_due {
                    state.app.handle_timeout(now, &mut state.quic, &mut self.wakes);
                }
                if !quic_is_due && !app_is_due {
                    // The deadline had moved to later.
                    self.timers.set(key, deadline(state));
                    continue;
                }
            }
            self.process(key, now);
        }
    }

    /// Lets the connection react to what came in, and settles what it owes the endpoint.
    fn process(&mut self, key: usize, now: Instant) {
        let Some(slot) = self.routing.get(key) else { return };
        let mut guard = slot.lock();
        let state = &mut *guard;
        state.app.process(now, &mut state.quic, &mut self.wakes);
        if self.routing.settle(key, &mut state.quic) {
            self.activate(key);
        } else {
            state.app.forgotten();
        }
    }

    /// Whether every connection is closed and its CONNECTION_CLOSE sent. What QUIC's closing period would add is an answer to
    /// a peer that lost it, and it would hold up the end of every program.
    fn is_done(&self) -> bool {
        self.active.is_empty()
            && self.blocked.is_none()
            && self.routing.iter().all(|(_, slot)| slot.lock().quic.inner.is_closed())
    }

    fn activate(&mut self, key: usize) {
        if self.is_active.len() <= key {
            self.is_active.resize(key + 1, false);
        }
        if !std::mem::replace(&mut self.is_active[key], true) {
            self.active.push_back(key);
        }
    }

    /// Sends for the active connections, in turn. Whether there is more to do in another turn.
    fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let is_too_much = self.transmit_active(cx, now);
        let is_later = !self.later.is_empty();
        while let Some(key) = self.later.pop() {
            self.activate(key);
        }
        is_too_much || is_later
    }

    /// Whether there is more to do than one turn allows.
    fn transmit_active(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let start = Instant::now();
        let mut sends = 0;
        loop {
            if let Some(transmit) = self.blocked.take()
                && !self.send(cx, transmit)
            {
                return false;
            }
            let Some(key) = self.active.pop_front() else {
                return false;
            };
            self.is_active[key] = false;
            let Some(slot) = self.routing.get(key) else { continue };
            let mut turn = 0;
            while let Some(transmit) = self.poll_transmit(key, &slot, now) {
                sends += 1;
                turn += 1;
                if !self.send(cx, transmit) {
                    self.activate(key);
                    return false;
                }
                if turn == SENDS_PER_CONNECTION {
                    self.activate(key);
                    break;
                }
            }
            if !self.active.is_empty() && (sends >= SENDS_PER_TURN || start.elapsed() >= TURN_TIME) {
                return true;
            }
        }
    }

    /// The connection's next packets, in `buffer`, and out of its lock: the system call is the larger part of a send. `None`
    /// if there are none; its timer is set then.
    fn poll_transmit(&mut self, key: usize, slot: &Slot<A>, now: Instant) -> Option<qp::Transmit> {
        let mut guard = slot.lock();
        let state = &mut *guard;
        loop {
            let segments = self.socket.max_segments(usize::from(state.quic.inner.current_mtu()));
            self.buffer.clear();
            if let Some(transmit) = state.quic.inner.poll_transmit(now, segments, &mut self.buffer) {
                return Some(transmit);
            }
            // Sending may have produced events, such as room for datagrams, and reacting to them something to send.
            if state.app.process(now, &mut state.quic, &mut self.wakes) {
                continue;
            }
            match state.app.sent_all(&mut state.quic, &mut self.wakes) {
                Rest::More => {}
                Rest::Later => {
                    self.later.push(key);
                    break;
                }
                Rest::Nothing => break,
            }
        }
        if self.routing.settle(key, &mut state.quic) {
            self.timers.set(key, deadline(state));
        } else {
            state.app.forgotten();
        }
        None
    }

    /// `false` if the socket is full; the task is then woken when it is not.
    fn send(&mut self, cx: &mut Context<'_>, transmit: qp::Transmit) -> bool {
        loop {
            if self.socket.try_send(&transmit, &self.buffer) {
                return true;
            }
            if self.socket.poll_writable(cx).is_pending() {
                self.blocked = Some(transmit);
                return false;
            }
        }
    }

    /// Whether the deadline is already past.
    fn arm_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.timers.next() else {
            return false;
        };
        let deadline = tokio::time::Instant::from_std(deadline);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// The earlier of what QUIC and what runs on it want.
fn deadline<A: Application>(state: &mut SlotState<A>) -> Option<Instant> {
    match (state.quic.inner.poll_timeout(), state.app.poll_timeout()) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl<A: Application, C> Drop for EndpointTask<A, C> {
    fn drop(&mut self) {
        self.routing.queue().close();
        for slot in self.routing.drain() {
            slot.lock().app.endpoint_lost(&mut self.wakes);
        }
        self.wakes.wake();
        let _ = self.ended.send(true);
    }
}
