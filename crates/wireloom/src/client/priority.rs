//! The priority of a request, before and while it is under way.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use wireloom_proto::StreamId;
use wireloom_proto::h3::priority::{PRIORITY, Priority};

use crate::driver::Conn;

/// The priority of one request (RFC 9218): a handle to change it by, also while the response arrives. Put a clone among the
/// request's extensions.
///
/// ```no_run
/// # async fn f(connection: wireloom::Connection, mut request: http::Request<bytes::Bytes>)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use wireloom::{Priority, RequestPriority};
///
/// let priority = RequestPriority::new(Priority::new(6));
/// request.extensions_mut().insert(priority.clone());
/// let response = connection.request(request).await?;
/// priority.set(Priority::new(1)); // the user scrolled to it
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct RequestPriority(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    priority: Priority,
    request: Option<(Weak<Conn>, StreamId)>,
}

impl RequestPriority {
    /// A request's first priority, sent as its field `priority` unless it has one already.
    pub fn new(priority: Priority) -> Self {
        Self(Arc::new(Mutex::new(State {
            priority,
            request: None,
        })))
    }

    /// As it was set here.
    pub fn get(&self) -> Priority {
        self.with(|state| state.priority)
    }

    /// Changes it. The server is told (PRIORITY_UPDATE) if the request is under way; nothing happens if that is over.
    pub fn set(&self, priority: Priority) {
        let request = self.with(|state| {
            state.priority = priority;
            state.request.clone()
        });
        if let Some((conn, stream)) = request
            && let Some(conn) = conn.upgrade()
        {
            conn.with(|quic, driver, wakes| driver.set_priority(quic, wakes, stream, priority));
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the field.
    pub(super) fn prepare(&self, head: &mut http::Request<()>) {
        let priority = self.get();
        let fields = head.headers_mut();
        if priority != Priority::default() && !fields.contains_key(PRIORITY) {
            fields.insert(PRIORITY, priority.to_value());
        }
    }

    /// The request is under way on `stream`.
    pub(super) fn begin(&self, conn: &Arc<Conn>, stream: StreamId) {
        self.with(|state| state.request = Some((Arc::downgrade(conn), stream)));
    }
}

impl std::fmt::Debug for RequestPriority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RequestPriority").field(&self.get()).finish()
    }
}
