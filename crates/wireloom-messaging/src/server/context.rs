//! What a handler knows about the message that it handles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::Connection;

/// The connection that a message came from, and whether anybody still waits for what its handler does. A cheap handle.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    connection: Connection,
    deadline: Option<Instant>,
    cancelled: AtomicBool,
    changed: Notify,
    /// The handler's own, which is dropped some time after.
    task: AtomicWaker,
}

impl Context {
    pub(super) fn new(connection: Connection, deadline: Option<Instant>) -> Self {
        Self(Arc::new(Inner {
            connection,
            deadline,
            cancelled: AtomicBool::new(false),
            changed: Notify::new(),
            task: AtomicWaker::new(),
        }))
    }

    /// Where the message came from. Session notifications that this handle causes precede the reply.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Whether nobody waits any more: the client has gone away, has given the request up (which only WebTransport tells),
    /// or the deadline has passed.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Waits until [`is_cancelled`](Self::is_cancelled). Cancel safe.
    pub async fn cancelled(&self) {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            changed.await;
        }
    }

    /// When the handler has to be done ([`handler_timeout`](super::ServerBuilder::handler_timeout)).
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    pub(super) fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
        self.0.task.wake();
    }

    pub(super) fn wake_on_cancel(&self, cx: &std::task::Context<'_>) {
        self.0.task.register(cx.waker());
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("connection", &self.0.connection)
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}
