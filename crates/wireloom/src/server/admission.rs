//! Which connection attempts a server takes, and the list of those that it took.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use slab::Slab;
use tokio::sync::Notify;
use wireloom_proto::Side;

use crate::admit::{Admit, Filter};
use crate::driver::{Conn, Driver, DriverConfig, IncomingQueue, Permit};
use crate::limits::{ConnectionLimits, ConnectionPermit};
use crate::metrics::{self, Carrier};
use crate::quic::{Acceptor, Admission};

/// The connections of a server, of all its sockets.
#[derive(Default)]
pub(crate) struct Connections {
    list: Mutex<Slab<Weak<Conn>>>,
    /// Handshakes that wait for a client whose address nothing has proven.
    unproven: AtomicUsize,
    stopped: AtomicBool,
    pub(super) stop: Notify,
    /// How often somebody has waited for a session.
    turns: AtomicUsize,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Slab<Weak<Conn>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(&self) -> Vec<Arc<Conn>> {
        self.lock().iter().filter_map(|(_, conn)| conn.upgrade()).collect()
    }

    /// Handshakes that wait for a client whose address nothing has proven.
    pub(super) fn unproven(&self) -> usize {
        self.unproven.load(Ordering::Relaxed)
    }

    /// Which of several queues is looked into first.
    pub(super) fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.notify_waiters();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// A connection's place among the others, until it is over. The list must not keep what is over: a `Weak` keeps the memory.
struct Place {
    connections: Arc<Connections>,
    /// In the list.
    key: Option<usize>,
    /// Counted in `unproven`.
    is_unproven: bool,
    _permit: ConnectionPermit,
}

impl Permit for Place {
    fn proven(&mut self) {
        if std::mem::take(&mut self.is_unproven) {
            self.connections.unproven.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn ended(&mut self) {
        let mut list = self.connections.lock();
        if let Some(key) = self.key.take() {
            list.try_remove(key);
        }
        if list.is_empty() {
            // The most there ever were may have been many.
            list.shrink_to_fit();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.proven();
        self.ended();
    }
}

/// Decides for one UDP socket.
pub(super) struct ServerAcceptor {
    pub(super) driver: Arc<DriverConfig>,
    pub(super) queue: Arc<IncomingQueue>,
    pub(super) connections: Arc<Connections>,
    /// The application is asked first.
    pub(super) filter: Option<Filter>,
    pub(super) limits: ConnectionLimits,
    /// From this many handshakes of unproven addresses on, newcomers prove theirs first. Less than the limits allow of one
    /// address: whoever spoofs it must not use up its places.
    pub(super) retry_above: usize,
    /// The place of the connection that was admitted last.
    pub(super) admitted: usize,
}

impl Acceptor<Driver> for ServerAcceptor {
    fn admit(&mut self, remote: SocketAddr, validated: bool) -> Admission<Driver> {
        match self.filter.as_ref().map_or(Admit::Yes, |filter| filter.ask(remote)) {
            Admit::Yes => {}
            Admit::Retry if validated => {}
            Admit::Retry => return Admission::Retry,
            Admit::Refuse => {
                tracing::debug!(%remote, "connection refused by the application");
                metrics::connection_refused(Carrier::Quic, None);
                return Admission::Refuse;
            }
            Admit::Ignore => {
                metrics::connection_refused(Carrier::Quic, None);
                return Admission::Ignore;
            }
        }
        // A spoofed flood must not use up places and memory: under load only proven addresses get them. All this happens in
        // the sockets' tasks, of which several may be beyond the limit by one each.
        if !validated && self.connections.unproven() >= self.retry_above {
            return Admission::Retry;
        }
        let permit = match self.limits.acquire(remote.ip()) {
            Ok(permit) => permit,
            Err(refused) => {
                tracing::debug!(%remote, %refused, "connection refused");
                metrics::connection_refused(Carrier::Quic, Some(refused));
                return Admission::Refuse;
            }
        };
        metrics::connection_began(Carrier::Quic);
        self.admitted = self.connections.lock().insert(Weak::new());
        if !validated {
            self.connections.unproven.fetch_add(1, Ordering::Relaxed);
        }
        let place = Place {
            connections: self.connections.clone(),
            key: Some(self.admitted),
            is_unproven: !validated,
            _permit: permit,
        };
        let span = tracing::debug_span!("connection", %remote, side = "server");
        Admission::Accept(Driver::new(
            Side::Server,
            self.driver.clone(),
            Some(self.queue.clone()),
            Some(Box::new(place)),
            span,
            Instant::now(),
        ))
    }

    fn accepted(&mut self, conn: &Arc<Conn>) {
        conn.lock().app.set_handle(conn);
        if let Some(place) = self.connections.lock().get_mut(self.admitted) {
            *place = Arc::downgrade(conn);
        }
        if self.connections.is_stopped() {
            // Whoever told the others may have missed it.
            conn.with(|quic, driver, wakes| driver.go_away(Instant::now(), quic, wakes));
        }
    }
}
