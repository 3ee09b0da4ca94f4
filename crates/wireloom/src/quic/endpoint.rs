//! One UDP socket and the task that drives every connection on it.
//!
//! A turn of the task is: receive, route, fire timers, let each touched connection react, wake the application; then, one
//! turn later, transmit. Transmission waits that one turn because the tasks that were just woken run first, so their
//! answers leave together with the acknowledgements, in as few packets and system calls as possible.
//!
//! Work per turn is bounded, so neither a flood of packets nor one bulk sender keeps the others (or other tasks of the
//! runtime) waiting.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto as qp;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::Application;
use super::ready::{ReadyQueue, Slot};
use super::socket::Socket;
use super::timers::Timers;
use super::transport::Transport;
use crate::wake::WakeList;

/// Datagrams received in one turn before the connections get to react.
const RECV_PER_TURN: usize = 512;
/// Send calls in one turn before other tasks get to run.
const SENDS_PER_TURN: usize = 64;
/// Send calls of one connection before the next connection's turn.
const SENDS_PER_CONNECTION: usize = 4;

/// What to do with a connection attempt.
pub(crate) enum Admission<A> {
    /// Go on with the handshake.
    Accept(A),
    /// Have the client prove its address first (RFC 9000 section 8.1.2).
    Retry,
    /// CONNECTION_REFUSED.
    Refuse,
    /// No answer at all.
    Ignore,
}

/// Decides about connection attempts, and gives each connection its application.
pub(crate) trait Acceptor<A>: Send + 'static {
    /// `validated`: the client's address is proven.
    fn admit(&mut self, remote: SocketAddr, validated: bool) -> Admission<A>;
    /// The new connection, so that its application can hand out handles to itself.
    fn accepted(&mut self, slot: &Arc<Slot<A>>);
}

/// An endpoint that only dials.
pub(crate) struct NoAcceptor;

impl<A> Acceptor<A> for NoAcceptor {
    fn admit(&mut self, _: SocketAddr, _: bool) -> Admission<A> {
        Admission::Ignore
    }
    fn accepted(&mut self, _: &Arc<Slot<A>>) {}
}

pub(super) enum Command<A> {
    Connect {
        config: Box<qp::ClientConfig>,
        remote: SocketAddr,
        server_name: String,
        app: A,
        reply: oneshot::Sender<Result<Arc<Slot<A>>, qp::ConnectError>>,
    },
    /// Refuse newcomers.
    StopAccepting,
    /// Replace the socket: every connection migrates.
    Rebind(Box<Socket>),
    /// End the task once the connections are closed.
    Shutdown,
}

/// Handle to an endpoint task. The task ends when this is dropped and its last connection is closed.
pub(crate) struct Endpoint<A: Application> {
    queue: Arc<ReadyQueue<A>>,
    local_addr: SocketAddr,
    done: tokio::sync::watch::Receiver<bool>,
}

impl<A: Application> Endpoint<A> {
    /// Spawns the task on the current tokio runtime.
    pub(crate) fn spawn(
        socket: std::net::UdpSocket,
        config: Arc<qp::EndpointConfig>,
        server: Option<Arc<qp::ServerConfig>>,
        acceptor: impl Acceptor<A>,
    ) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        let local_addr = socket.local_addr()?;
        let queue = Arc::new(ReadyQueue::new());
        let (done_tx, done) = tokio::sync::watch::channel(false);
        let task = EndpointTask {
            endpoint: qp::Endpoint::new(config, server, !socket.may_fragment(), None),
            socket,
            acceptor,
            queue: queue.clone(),
            slots: Vec::new(),
            connections: 0,
            timers: Timers::default(),
            sleep: None,
            active: VecDeque::new(),
            in_active: Vec::new(),
            ready: Vec::new(),
            deferred: false,
            blocked: None,
            buffer: Vec::new(),
            wakes: WakeList::new(),
            accepting: true,
            shutdown: false,
            done: done_tx,
        };
        tokio::spawn(task);
        Ok(Self {
            queue,
            local_addr,
            done,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Starts a handshake. `None` if the endpoint is gone.
    pub(crate) async fn connect(
        &self,
        config: qp::ClientConfig,
        remote: SocketAddr,
        server_name: &str,
        app: A,
    ) -> Option<Result<Arc<Slot<A>>, qp::ConnectError>> {
        let (reply, answer) = oneshot::channel();
        let server_name = server_name.to_owned();
        let command = Command::Connect {
            config: Box::new(config),
            remote,
            server_name,
            app,
            reply,
        };
        self.queue.command(command).ok()?;
        answer.await.ok()
    }

    /// Refuses newcomers from now on.
    pub(crate) fn stop_accepting(&self) {
        let _ = self.queue.command(Command::StopAccepting);
    }

    /// Moves every connection to another socket (RFC 9000 section 9).
    pub(crate) fn rebind(&self, socket: std::net::UdpSocket) -> io::Result<()> {
        let _ = self.queue.command(Command::Rebind(Box::new(Socket::new(socket)?)));
        Ok(())
    }

    /// Closes unused connections, waits until the others are closed too, and ends the task.
    pub(crate) async fn shut_down(&self) {
        let _ = self.queue.command(Command::Shutdown);
        let mut done = self.done.clone();
        // An error means that the task, which owns the sender, is gone.
        let _ = done.wait_for(|done| *done).await;
    }
}

impl<A: Application> Drop for Endpoint<A> {
    fn drop(&mut self) {
        let _ = self.queue.command(Command::Shutdown);
    }
}

struct EndpointTask<A: Application, C> {
    socket: Socket,
    endpoint: qp::Endpoint,
    acceptor: C,
    queue: Arc<ReadyQueue<A>>,
    /// By `ConnectionHandle`.
    slots: Vec<Option<Arc<Slot<A>>>>,
    connections: usize,
    timers: Timers,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Connections that may have something to transmit, in the order of their turn.
    active: VecDeque<usize>,
    in_active: Vec<bool>,
    ready: Vec<Arc<Slot<A>>>,
    /// Transmission was put off to this turn.
    deferred: bool,
    /// What the full socket did not take; `buffer` holds its bytes.
    blocked: Option<qp::Transmit>,
    buffer: Vec<u8>,
    wakes: WakeList,
    accepting: bool,
    shutdown: bool,
    done: tokio::sync::watch::Sender<bool>,
}

// Nothing in it is pinned structurally; the one future is boxed.
impl<A: Application, C> Unpin for EndpointTask<A, C> {}

impl<A: Application, C: Acceptor<A>> Future for EndpointTask<A, C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let now = Instant::now();

        let more_to_receive = this.receive(cx, now);
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
            return Poll::Ready(());
        }
        let timer_fired = this.arm_timer(cx);
        if more_to_receive || more_to_send || timer_fired {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<A: Application, C: Acceptor<A>> EndpointTask<A, C> {
    /// Receives and routes; each touched connection reacts once. Whether the limit cut it short.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut received = 0;
        let mut touched: Vec<usize> = Vec::new();
        loop {
            let Self {
                socket,
                endpoint,
                acceptor,
                queue,
                slots,
                connections,
                blocked,
                accepting,
                ..
            } = self;
            let mut in_flight = Vec::new();
            let polled = socket.poll_recv(cx, |meta, data| {
                let mut data = BytesMut::from(data);
                while !data.is_empty() {
                    received += 1;
                    let datagram = data.split_to(meta.stride.clamp(1, data.len()));
                    let ecn = meta.ecn.and_then(|e| qp::EcnCodepoint::from_bits(e as u8));
                    let mut response = Vec::new();
                    match endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut response) {
                        Some(qp::DatagramEvent::ConnectionEvent(handle, event)) => {
                            if let Some(Some(slot)) = slots.get(handle.0) {
                                slot.lock().quic.inner.handle_event(event);
                                if touched.last() != Some(&handle.0) {
                                    touched.push(handle.0);
                                }
                            }
                        }
                        Some(qp::DatagramEvent::NewConnection(incoming)) => {
                            let admission = if *accepting {
                                acceptor.admit(incoming.remote_address(), incoming.remote_address_validated())
                            } else {
                                Admission::Refuse
                            };
                            match admission {
                                Admission::Accept(app) => {
                                    match endpoint.accept(incoming, now, &mut response, None) {
                                        Ok((handle, connection)) => {
                                            let slot = Arc::new(Slot::new(
                                                Transport::new(connection, handle),
                                                app,
                                                queue.clone(),
                                            ));
                                            acceptor.accepted(&slot);
                                            insert(slots, handle.0, slot);
                                            *connections += 1;
                                            touched.push(handle.0);
                                        }
                                        Err(e) => {
                                            tracing::debug!(remote = %meta.addr, error = %e.cause, "connection attempt failed");
                                            in_flight.extend(e.response.map(|t| (t, response)));
                                        }
                                    }
                                }
                                Admission::Retry => match endpoint.retry(incoming, &mut response) {
                                    Ok(transmit) => in_flight.push((transmit, response)),
                                    // Only a token from an earlier Retry gets here.
                                    Err(e) => endpoint.ignore(e.into_incoming()),
                                },
                                Admission::Refuse => {
                                    in_flight.push((endpoint.refuse(incoming, &mut response), response));
                                }
                                Admission::Ignore => endpoint.ignore(incoming),
                            }
                        }
                        Some(qp::DatagramEvent::Response(transmit)) => in_flight.push((transmit, response)),
                        None => {}
                    }
                }
            });
            // Stateless answers (Retry, resets, version negotiation): dropped if the socket is full, as on any path.
            if blocked.is_none() {
                for (transmit, contents) in &in_flight {
                    let _ = socket.try_send(transmit, contents);
                }
            }
            // After each batch: QUIC's buffer for received datagrams is made for one, small datagrams included.
            for key in touched.drain(..) {
                self.process(key, now);
            }
            match polled {
                Poll::Ready(Ok(_)) if received >= RECV_PER_TURN => return true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => {
                    tracing::warn!(error = %e, "receiving failed");
                    return false;
                }
                Poll::Pending => return false,
            }
        }
    }

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) {
        let mut ready = std::mem::take(&mut self.ready);
        let commands = self.queue.take(cx.waker(), &mut ready);
        for slot in ready.drain(..) {
            slot.unqueue();
            let key = slot.lock().quic.handle.0;
            // The slot may have been drained since, and its key given to another connection.
            if self
                .slots
                .get(key)
                .is_some_and(|s| s.as_ref().is_some_and(|s| Arc::ptr_eq(s, &slot)))
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
                    let connected = self.endpoint.connect(now, *config, remote, &server_name);
                    let _ = reply.send(connected.map(|(handle, connection)| {
                        let slot = Arc::new(Slot::new(Transport::new(connection, handle), app, self.queue.clone()));
                        insert(&mut self.slots, handle.0, slot.clone());
                        self.connections += 1;
                        self.activate(handle.0);
                        slot
                    }));
                }
                Command::StopAccepting => self.accepting = false,
                Command::Rebind(socket) => {
                    self.socket = *socket;
                    self.blocked = None;
                    for key in 0..self.slots.len() {
                        if let Some(slot) = &self.slots[key] {
                            slot.lock().quic.inner.local_address_changed();
                            self.activate(key);
                        }
                    }
                    // The new socket has not been polled for this task yet.
                    cx.waker().wake_by_ref();
                }
                Command::Shutdown => {
                    self.accepting = false;
                    self.shutdown = true;
                    for key in 0..self.slots.len() {
                        if let Some(slot) = &self.slots[key] {
                            let mut guard = slot.lock();
                            let state = &mut *guard;
                            state.app.wind_down(now, &mut state.quic, &mut self.wakes);
                            drop(guard);
                            self.activate(key);
                        }
                    }
                }
            }
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop(now) {
            let Some(Some(slot)) = self.slots.get(key) else {
                continue;
            };
            let slot = slot.clone();
            {
                let mut guard = slot.lock();
                let state = &mut *guard;
                let mut fired = false;
                if state.quic.inner.poll_timeout().is_some_and(|at| at <= now) {
                    state.quic.inner.handle_timeout(now);
                    fired = true;
                }
                if state.app.poll_timeout().is_some_and(|at| at <= now) {
                    state.app.handle_timeout(now, &mut state.quic, &mut self.wakes);
                    fired = true;
                }
                if !fired {
                    // The deadline had moved to later.
                    let deadline = earliest(state.quic.inner.poll_timeout(), state.app.poll_timeout());
                    self.timers.set(key, deadline);
                    continue;
                }
            }
            self.process(key, now);
        }
    }

    /// Lets the connection react to what came in, and settles what it owes the endpoint.
    fn process(&mut self, key: usize, now: Instant) {
        let Some(Some(slot)) = self.slots.get(key) else { return };
        let slot = slot.clone();
        let mut guard = slot.lock();
        let state = &mut *guard;
        state.app.process(now, &mut state.quic, &mut self.wakes);
        let drained = self.endpoint_events(key, &mut state.quic);
        drop(guard);
        if drained {
            self.slots[key] = None;
            self.connections -= 1;
        } else {
            self.activate(key);
        }
    }

    /// Whether the connection is over.
    fn endpoint_events(&mut self, key: usize, quic: &mut Transport) -> bool {
        while let Some(event) = quic.inner.poll_endpoint_events() {
            let drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(qp::ConnectionHandle(key), event) {
                quic.inner.handle_event(event);
            }
            if drained {
                return true;
            }
        }
        false
    }

    /// Whether every connection is closed and its CONNECTION_CLOSE sent. What QUIC's closing period would add is an answer to
    /// a peer that lost it, and it would hold up the end of every program.
    fn is_done(&self) -> bool {
        self.active.is_empty()
            && self.blocked.is_none()
            && self
                .slots
                .iter()
                .flatten()
                .all(|slot| slot.lock().quic.inner.is_closed())
    }

    fn activate(&mut self, key: usize) {
        if self.in_active.len() <= key {
            self.in_active.resize(key + 1, false);
        }
        if !self.in_active[key] {
            self.in_active[key] = true;
            self.active.push_back(key);
        }
    }

    /// Sends for the active connections, in turn. Whether there is more to do than one turn allows.
    fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
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
            self.in_active[key] = false;
            let Some(Some(slot)) = self.slots.get(key) else {
                continue;
            };
            let slot = slot.clone();
            let mut turn = 0;
            loop {
                let mut guard = slot.lock();
                let state = &mut *guard;
                let segments = self.socket.max_segments(usize::from(state.quic.inner.current_mtu()));
                self.buffer.clear();
                let transmit = state.quic.inner.poll_transmit(now, segments, &mut self.buffer);
                let Some(transmit) = transmit else {
                    // Sending may have produced events, such as room for datagrams, and reacting to them something to send.
                    if state.app.process(now, &mut state.quic, &mut self.wakes) {
                        continue;
                    }
                    if self.endpoint_events(key, &mut state.quic) {
                        drop(guard);
                        self.slots[key] = None;
                        self.connections -= 1;
                    } else {
                        let deadline = earliest(state.quic.inner.poll_timeout(), state.app.poll_timeout());
                        self.timers.set(key, deadline);
                    }
                    break;
                };
                // Not under the lock: the system call is the larger part of a send.
                drop(guard);
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
            if sends >= SENDS_PER_TURN && !self.active.is_empty() {
                return true;
            }
        }
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

impl<A: Application, C> Drop for EndpointTask<A, C> {
    fn drop(&mut self) {
        self.queue.close();
        for slot in self.slots.drain(..).flatten() {
            slot.lock().app.endpoint_lost(&mut self.wakes);
        }
        self.wakes.wake();
        let _ = self.done.send(true);
    }
}

fn insert<T>(slots: &mut Vec<Option<T>>, key: usize, value: T) {
    if slots.len() <= key {
        slots.resize_with(key + 1, || None);
    }
    slots[key] = Some(value);
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
