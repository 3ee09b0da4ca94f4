//! What a server has been asked for: one queue for all connections of a server, or of each of its threads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{SessionId, StreamId};

use super::Conn;

/// A request or a session that waits for an answer.
pub(crate) struct Incoming {
    pub(crate) conn: Arc<Conn>,
    pub(crate) head: http::Request<()>,
    pub(crate) kind: IncomingKind,
}

/// The same while it waits in the queue. A connection that ends meanwhile is not kept by it.
pub(super) struct Waiting {
    conn: Weak<Conn>,
    head: http::Request<()>,
    kind: IncomingKind,
}

pub(crate) enum IncomingKind {
    Request(StreamId),
    Session {
        id: SessionId,
        protocols: Vec<String>,
        dialect: Dialect,
    },
}

impl Waiting {
    pub(super) fn request(conn: Weak<Conn>, stream: StreamId, head: http::Request<()>) -> Self {
        Self {
            conn,
            head,
            kind: IncomingKind::Request(stream),
        }
    }

    pub(super) fn session(
        conn: Weak<Conn>,
        id: SessionId,
        head: http::Request<()>,
        protocols: Vec<String>,
        dialect: Dialect,
    ) -> Self {
        Self {
            conn,
            head,
            kind: IncomingKind::Session { id, protocols, dialect },
        }
    }
}

/// So many may wait. A client can cancel what it asked for and ask again, so its stream limits bound nothing here.
const MAX_WAITING: usize = 16 * 1024;

#[derive(Default)]
pub(crate) struct IncomingQueue {
    queue: Mutex<VecDeque<Waiting>>,
    notify: Notify,
}

impl IncomingQueue {
    /// `false` if there is no room.
    pub(super) fn push(&self, waiting: Waiting) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= MAX_WAITING {
            queue.retain(|waiting| waiting.conn.strong_count() > 0);
            if queue.len() >= MAX_WAITING {
                return false;
            }
        }
        queue.push_back(waiting);
        drop(queue);
        self.notify.notify_one();
        true
    }

    fn try_pop(&self) -> Option<Incoming> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Waiting { conn, head, kind } = queue.pop_front()?;
            if let Some(conn) = conn.upgrade() {
                return Some(Incoming { conn, head, kind });
            }
        }
    }

    /// Whether nobody who is still there waits.
    pub(crate) fn is_empty(&self) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        !queue.iter().any(|waiting| waiting.conn.strong_count() > 0)
    }

    /// Cancel safe: nothing is taken before it resolves.
    pub(crate) async fn pop(&self) -> Incoming {
        loop {
            if let Some(incoming) = self.try_pop() {
                // The next waiter, if there is more.
                self.notify.notify_one();
                return incoming;
            }
            self.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_any_more_makes_room() {
        let queue = IncomingQueue::default();
        for _ in 0..=MAX_WAITING {
            let head = http::Request::new(());
            assert!(queue.push(Waiting::request(Weak::new(), StreamId::from_u64(0), head)));
        }
        assert_eq!(queue.queue.lock().expect("not poisoned").len(), 1);
        assert!(queue.is_empty() && queue.try_pop().is_none());
    }
}
