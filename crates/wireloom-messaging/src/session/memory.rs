//! Sessions that last as long as the process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Session, SessionKey, SessionStore, StoreError};

/// Keeps sessions in memory. Clones share them.
///
/// Memory: the session's info and some 300 bytes for each. Their number has no bound but what logins an application allows, and
/// [`expire_after`](Self::expire_after).
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    sessions: Arc<Mutex<HashMap<SessionKey, Session>>>,
    lifetime: Option<Duration>,
}

impl MemoryStore {
    /// An empty store, whose sessions do not expire.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets sessions that nobody has looked up for so long. Those that a server's connections use count as looked up whenever it
    /// [sweeps](crate::server::Server::sweep), once an hour: the lifetime has to be longer.
    #[must_use]
    pub fn expire_after(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &SessionKey, lifetime: Option<Duration>) -> Option<Session> {
        let now = SystemTime::now();
        let mut sessions = self.lock();
        let Entry::Occupied(mut entry) = sessions.entry(key.clone()) else {
            return None;
        };
        if is_expired(entry.get().last_lookup, lifetime, now) {
            entry.remove();
            return None;
        }
        let found = entry.get().clone();
        entry.get_mut().last_lookup = now;
        Some(found)
    }
}

/// A clock that went back expires nothing.
pub(super) fn is_expired(last_lookup: SystemTime, lifetime: Option<Duration>, now: SystemTime) -> bool {
    let idle = now.duration_since(last_lookup).unwrap_or_default();
    lifetime.is_some_and(|lifetime| idle > lifetime)
}

impl SessionStore for MemoryStore {
    async fn create(&self, session: &Session) -> Result<(), StoreError> {
        self.lock().insert(session.key.clone(), session.clone());
        Ok(())
    }

    async fn look_up(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        Ok(self.find(key, self.lifetime))
    }

    async fn look_up_in_use(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        Ok(self.find(key, None))
    }

    async fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.lock().remove(key);
        Ok(())
    }

    async fn sweep(&self, in_use: &(dyn Fn(&SessionKey) -> bool + Send + Sync)) -> Result<usize, StoreError> {
        let now = SystemTime::now();
        let mut sessions = self.lock();
        let before = sessions.len();
        sessions.retain(|key, session| {
            if in_use(key) {
                session.last_lookup = now;
            }
            !is_expired(session.last_lookup, self.lifetime, now)
        });
        Ok(before - sessions.len())
    }
}
