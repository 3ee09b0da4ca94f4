//! Which connection attempts a server takes, and the list of those that it took.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Notify;
use wireloom_proto::Side;

use crate::driver::{Conn, Driver, DriverConfig, IncomingQueue};
use crate::limits::ConnectionLimits;
use crate::quic::{Acceptor, Admission};

/// The connections of a server, of all its sockets.
#[derive(Default)]
pub(crate) struct Connections {
    list: Mutex<Listed>,
    stopped: AtomicBool,
    pub(super) stop: Notify,
}

#[derive(Default)]
struct Listed {
    connections: Vec<Weak<Conn>>,
    /// The dead are removed when the list has grown to this.
    sweep_at: usize,
}

impl Connections {
    fn push(&self, conn: &Arc<Conn>) {
        let mut listed = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.connections.len() >= listed.sweep_at {
            listed.connections.retain(|c| c.strong_count() > 0);
            listed.sweep_at = (listed.connections.len() * 2).max(64);
        }
        listed.connections.push(Arc::downgrade(conn));
    }

    pub(super) fn list(&self) -> Vec<Arc<Conn>> {
        let listed = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        listed.connections.iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.notify_waiters();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// Decides for one UDP socket.
pub(super) struct ServerAcceptor {
    pub(super) driver: Arc<DriverConfig>,
    pub(super) queue: Arc<IncomingQueue>,
    pub(super) connections: Arc<Connections>,
    pub(super) limits: ConnectionLimits,
    /// From this many connections on, newcomers prove their address first.
    pub(super) retry_above: usize,
}

impl Acceptor<Driver> for ServerAcceptor {
    fn admit(&mut self, remote: SocketAddr, validated: bool) -> Admission<Driver> {
        // A spoofed flood must not use up the places: under load only proven addresses get one.
        if !validated && self.limits.connections() >= self.retry_above {
            return Admission::Retry;
        }
        let permit = match self.limits.acquire(remote.ip()) {
            Ok(permit) => permit,
            Err(refused) => {
                tracing::debug!(%remote, %refused, "connection refused");
                return Admission::Refuse;
            }
        };
        let span = tracing::debug_span!("connection", %remote, side = "server");
        Admission::Accept(Driver::new(
            Side::Server,
            self.driver.clone(),
            Some(self.queue.clone()),
            Some(Box::new(permit)),
            span,
            Instant::now(),
        ))
    }

    fn accepted(&mut self, conn: &Arc<Conn>) {
        conn.lock().app.set_handle(conn);
        self.connections.push(conn);
    }
}
