//! What a server has been asked for: one queue for all connections of a server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

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

pub(crate) enum IncomingKind {
    Request(StreamId),
    Session {
        id: SessionId,
        protocols: Vec<String>,
        dialect: Dialect,
    },
}

impl Incoming {
    pub(super) fn request(conn: Arc<Conn>, stream: StreamId, head: http::Request<()>) -> Self {
        Self {
            conn,
            head,
            kind: IncomingKind::Request(stream),
        }
    }

    pub(super) fn session(
        conn: Arc<Conn>,
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

/// Bounded by the stream limits of the connections: an entry holds a request stream open.
#[derive(Default)]
pub(crate) struct IncomingQueue {
    queue: Mutex<VecDeque<Incoming>>,
    notify: Notify,
}

impl IncomingQueue {
    pub(super) fn push(&self, incoming: Incoming) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(incoming);
        self.notify.notify_one();
    }

    fn try_pop(&self) -> Option<Incoming> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
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
