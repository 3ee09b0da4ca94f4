//! From time to time the session store removes what has expired, and learns which sessions are in use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::{Server, Shared};
use crate::session::{Sessions, StoreError};

/// The task that sweeps. It ends with the server.
pub(super) struct Sweep {
    interval: Duration,
    task: Mutex<Option<AbortHandle>>,
}

impl Sweep {
    pub(super) fn every(interval: Duration) -> Self {
        Self {
            // With none at all it would do nothing else.
            interval: interval.max(Duration::from_millis(1)),
            task: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) {
        if let Some(task) = self.lock().take() {
            task.abort();
        }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.end();
    }
}

impl Server {
    /// Has the session store remove what has expired; answers how many sessions that were. Those that connections have count as
    /// looked up now. A server does so by itself from its first connection on, every
    /// [`sweep_interval`](super::ServerBuilder::sweep_interval), until it shuts down, however its connections come to it; what goes
    /// wrong is logged.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        match &self.0.sessions {
            Some(sessions) => sessions.sweep().await,
            None => Ok(0),
        }
    }

    /// Begins to sweep by itself now instead of with the first connection, for what an earlier server has left in the store. Does
    /// nothing where that has begun, there are no sessions, or outside a Tokio runtime.
    pub fn keep_sweeping(&self) {
        if self.0.sessions.is_none() {
            return;
        }
        let mut task = self.0.sweep.lock();
        if self.0.is_shutting_down() {
            return;
        }
        // The runtime that it was begun in may be over before the server is.
        if task.as_ref().is_none_or(AbortHandle::is_finished)
            && let Ok(runtime) = Handle::try_current()
        {
            let sweeping = sweep(Arc::downgrade(&self.0), self.0.sweep.interval);
            *task = Some(runtime.spawn(sweeping).abort_handle());
        }
    }
}

async fn sweep(server: Weak<Shared>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(shared) = server.upgrade() else { return };
        match shared.sessions.as_ref().map(Sessions::sweep) {
            Some(swept) => match swept.await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "expired sessions were removed"),
                Err(error) => tracing::warn!(%error, "expired sessions could not be removed"),
            },
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::server::{Connection, Handlers};
    use crate::session::{MemoryStore, Session, SessionInfo, SessionKey, SessionStore};
    use crate::transport;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Says which of its sessions were in use when it was swept.
    struct Told {
        store: MemoryStore,
        created: Mutex<Vec<SessionKey>>,
        tell: mpsc::UnboundedSender<Vec<bool>>,
    }

    impl SessionStore for Told {
        async fn create(&self, session: &Session) -> Result<(), StoreError> {
            self.created.lock().expect("no panic").push(session.key.clone());
            self.store.create(session).await
        }

        async fn look_up(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
            self.store.look_up(key).await
        }

        async fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
            self.store.remove(key).await
        }

        async fn sweep(&self, in_use: &(dyn Fn(&SessionKey) -> bool + Send + Sync)) -> Result<usize, StoreError> {
            let created = self.created.lock().expect("no panic");
            self.tell.send(created.iter().map(in_use).collect())?;
            Err("as the test wants it".into())
        }
    }

    #[tokio::test]
    async fn a_server_sweeps_from_its_first_connection_until_it_ends() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let store = Told {
            store: MemoryStore::new(),
            created: Mutex::default(),
            tell,
        };
        let handlers = Handlers::new().on_connected(async |connection: Connection| {
            connection.create_session(SessionInfo::new()).await.expect("a session");
        });
        let builder = Server::builder().sessions(store, 0);
        let server = builder.sweep_interval(Duration::from_millis(1)).build(handlers);
        assert!(server.0.sweep.lock().is_none());
        // In one task, as under a router.
        let mut client = server.connect_memory();
        let in_use = timeout(PATIENCE, async {
            while told.recv().await.expect("a sweep") != [true] {}
        });
        in_use
            .await
            .expect("the session is in use, and the store is told again and again");
        timeout(PATIENCE, server.shut_down()).await.expect("shut down");
        assert!(transport::recv(&mut client).await.is_ok(), "the first message");
        assert!(server.0.sweep.lock().is_none(), "it has ended");
        drop(server);
        let over = timeout(PATIENCE, async { while told.recv().await.is_some() {} });
        over.await.expect("nobody sweeps, and nobody has the store");
    }
}
