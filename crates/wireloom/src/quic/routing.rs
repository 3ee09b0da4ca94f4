//! Which connection a datagram belongs to, and what becomes of those that belong to none.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto as qp;
use quinn_udp::RecvMeta;

use super::Application;
use super::config::ServerConfig;
use super::endpoint::{Acceptor, Admission};
use super::inbox::Message;
use super::ready::{ReadyQueue, Slot};
use super::shards::Shards;
use super::transport::Transport;

/// The connections of one endpoint, by connection id and by key (quinn-proto's `ConnectionHandle`).
pub(super) struct Routing<A, C> {
    endpoint: qp::Endpoint,
    server: Option<ServerConfig>,
    acceptor: C,
    shards: Shards<A>,
    slots: Vec<Option<Arc<Slot<A>>>>,
    accepting: bool,
    /// Connections that datagrams have been given to.
    touched: Vec<usize>,
    /// Answers that no connection gives: Retry, refusals, stateless resets, version negotiation.
    answers: Vec<(qp::Transmit, Vec<u8>)>,
}

/// A message from the socket: one datagram, or several of `stride` bytes, the last one perhaps of less.
pub(super) struct Received {
    at: Instant,
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<qp::EcnCodepoint>,
    stride: usize,
    bytes: BytesMut,
}

impl Received {
    pub(super) fn new(at: Instant, meta: &RecvMeta, bytes: BytesMut) -> Self {
        Self {
            at,
            from: meta.addr,
            to: meta.dst_ip,
            ecn: meta.ecn.and_then(|ecn| qp::EcnCodepoint::from_bits(ecn as u8)),
            stride: meta.stride,
            bytes,
        }
    }

    pub(super) fn sender(&self) -> SocketAddr {
        self.from
    }

    /// Not a `split_to` for all that is left: that would allocate to share the memory.
    fn take_bytes(&mut self, len: usize) -> BytesMut {
        if len >= self.bytes.len() {
            std::mem::take(&mut self.bytes)
        } else {
            self.bytes.split_to(len)
        }
    }
}

impl Message for Received {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn take(&mut self, len: usize) -> Self {
        let stride = self.stride.max(1);
        let bytes = self.take_bytes((len / stride).max(1).saturating_mul(stride));
        Self { bytes, ..*self }
    }
}

impl<A: Application, C: Acceptor<A>> Routing<A, C> {
    pub(super) fn new(endpoint: qp::Endpoint, server: Option<ServerConfig>, acceptor: C, shards: Shards<A>) -> Self {
        Self {
            endpoint,
            server,
            acceptor,
            shards,
            slots: Vec::new(),
            accepting: true,
            touched: Vec::new(),
            answers: Vec::new(),
        }
    }

    pub(super) fn stop_accepting(&mut self) {
        self.accepting = false;
    }

    /// Gives a received message to the connections.
    pub(super) fn route(&mut self, mut message: Received) {
        let Received { at, from, to, ecn, .. } = message;
        while message.len() > 0 {
            let datagram = message.take_bytes(message.stride.max(1));
            if let Some(home) = self.shards.home_of(&datagram) {
                home.hand_over(Received {
                    bytes: datagram,
                    ..message
                });
                continue;
            }
            let mut answer = Vec::new();
            match self.endpoint.handle(at, from, to, ecn, datagram, &mut answer) {
                Some(qp::DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(Some(slot)) = self.slots.get(handle.0) {
                        slot.lock().quic.inner.handle_event(event);
                        self.touch(handle.0);
                    }
                }
                Some(qp::DatagramEvent::NewConnection(incoming)) => self.admit(at, incoming),
                Some(qp::DatagramEvent::Response(transmit)) => self.answers.push((transmit, answer)),
                None => {}
            }
        }
    }

    fn touch(&mut self, key: usize) {
        // A burst for one connection is the common case; twice is harmless.
        if self.touched.last() != Some(&key) {
            self.touched.push(key);
        }
    }

    fn admit(&mut self, now: Instant, incoming: qp::Incoming) {
        let admission = if self.accepting {
            self.acceptor
                .admit(incoming.remote_address(), incoming.remote_address_validated())
        } else {
            Admission::Refuse
        };
        let mut answer = Vec::new();
        match admission {
            Admission::Accept(app) => {
                let remote = incoming.remote_address();
                let config = self.server.as_ref().and_then(|server| server.for_connection(&incoming));
                match self.endpoint.accept(incoming, now, &mut answer, config) {
                    Ok((handle, connection)) => {
                        let slot = self.insert(handle, connection, app);
                        self.acceptor.accepted(&slot);
                        self.touch(handle.0);
                    }
                    Err(error) => {
                        tracing::debug!(%remote, error = %error.cause, "connection attempt failed");
                        self.answers.extend(error.response.map(|transmit| (transmit, answer)));
                    }
                }
            }
            Admission::Retry => match self.endpoint.retry(incoming, &mut answer) {
                Ok(transmit) => self.answers.push((transmit, answer)),
                // Only a token from an earlier Retry gets here.
                Err(error) => self.endpoint.ignore(error.into_incoming()),
            },
            Admission::Refuse => {
                let transmit = self.endpoint.refuse(incoming, &mut answer);
                self.answers.push((transmit, answer));
            }
            Admission::Ignore => self.endpoint.ignore(incoming),
        }
    }

    pub(super) fn connect(
        &mut self,
        now: Instant,
        config: qp::ClientConfig,
        remote: SocketAddr,
        server_name: &str,
        app: A,
    ) -> Result<(usize, Arc<Slot<A>>), qp::ConnectError> {
        let (handle, connection) = self.endpoint.connect(now, config, remote, server_name)?;
        Ok((handle.0, self.insert(handle, connection, app)))
    }

    fn insert(&mut self, handle: qp::ConnectionHandle, connection: qp::Connection, app: A) -> Arc<Slot<A>> {
        let slot = Arc::new(Slot::new(
            Transport::new(connection, handle),
            app,
            self.shards.own_queue().clone(),
        ));
        if self.slots.len() <= handle.0 {
            self.slots.resize_with(handle.0 + 1, || None);
        }
        self.slots[handle.0] = Some(slot.clone());
        slot
    }

    /// Settles what a connection owes the endpoint. `false` if the connection is over, and forgotten.
    pub(super) fn settle(&mut self, key: usize, quic: &mut Transport) -> bool {
        while let Some(event) = quic.inner.poll_endpoint_events() {
            let drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(qp::ConnectionHandle(key), event) {
                quic.inner.handle_event(event);
            }
            if drained {
                self.slots[key] = None;
                return false;
            }
        }
        true
    }

    pub(super) fn get(&self, key: usize) -> Option<Arc<Slot<A>>> {
        self.slots.get(key)?.clone()
    }

    pub(super) fn pop_touched(&mut self) -> Option<usize> {
        self.touched.pop()
    }

    pub(super) fn take_answers(&mut self) -> Vec<(qp::Transmit, Vec<u8>)> {
        std::mem::take(&mut self.answers)
    }

    /// Every connection, with its key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Arc<Slot<A>>)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(key, slot)| Some((key, slot.as_ref()?)))
    }
}

impl<A, C> Routing<A, C> {
    pub(super) fn queue(&self) -> &ReadyQueue<A> {
        self.shards.own_queue()
    }

    /// Every connection, which is forgotten.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<Slot<A>>> {
        self.slots.drain(..).flatten()
    }
}
