//! Which connections use which session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::store::DynStore;
use super::{InvalidKey, Session, SessionInfo, SessionKey, SessionStore, StoreError};

/// A server's sessions: its store, and the connections of each session (section 9.6).
///
/// Connections are numbers that the caller chooses, each unique among those that are open.
///
/// Memory: some 150 bytes for each session in use, and 8 for each of its connections; nothing for the others.
pub struct Sessions {
    store: Arc<dyn DynStore>,
    /// Connections of one session at once; 0 is no limit.
    limit: usize,
    active: Mutex<HashMap<SessionKey, Active>>,
}

#[derive(Default)]
struct Active {
    /// Also those whose look-up is under way: checking and entering is one step.
    connections: Vec<u64>,
    /// One of them has it, or had: not all of them only ask for it.
    used: bool,
    /// Its last connection has closed it, and the store is being told: nobody may restore it any more.
    closing: bool,
}

/// Why a session was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is no such session, or what was sent is no key.
    #[error("no such session")]
    NotFound,
    /// The session has as many connections as are allowed.
    #[error("the session has as many connections as are allowed")]
    LimitReached,
    /// The store failed.
    #[error("the session store failed: {0}")]
    Store(#[source] StoreError),
}

impl From<InvalidKey> for RestoreError {
    fn from(_: InvalidKey) -> Self {
        Self::NotFound
    }
}

impl Sessions {
    /// Sessions of this store. `limit` is how many connections each may have at once; 0 is no limit.
    pub fn new(store: impl SessionStore, limit: usize) -> Self {
        Self {
            store: Arc::new(store),
            limit,
            active: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes and stores a session for this connection, which must have none.
    ///
    /// # Errors
    /// Fails if the store does, or the operating system has no randomness: then there is no session, and nothing may be told.
    ///
    /// # Cancel safety
    /// Dropped, it may leave a session in the store that no connection has and nobody knows the key of.
    pub async fn create(&self, connection: u64, info: SessionInfo, now: SystemTime) -> Result<Session, StoreError> {
        let session = Session::new(SessionKey::generate()?, info, now);
        self.store.create(&session).await?;
        let mut active = self.lock();
        let this = active.entry(session.key.clone()).or_default();
        this.connections.push(connection);
        this.used = true;
        Ok(session)
    }

    /// Restores a session for this connection: the limit first, then the store (section 9.4).
    ///
    /// A connection that has this session already keeps it, and counts once. One that has another must be
    /// [detached](Self::detach) from that by the caller.
    ///
    /// # Errors
    /// See [`RestoreError`]. The connection then has what it had before.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the connection without the session.
    pub async fn restore(&self, connection: u64, key: &[u8]) -> Result<Session, RestoreError> {
        let key = SessionKey::parse(key)?;
        let place = self.enter(&key, connection)?;
        let found = if place.used {
            self.store.look_up_in_use(&key).await
        } else {
            self.store.look_up(&key).await
        };
        let found = found.map_err(RestoreError::Store)?;
        let session = found.ok_or(RestoreError::NotFound)?;
        // Found before it was destroyed, perhaps.
        if place.keep() {
            Ok(session)
        } else {
            Err(RestoreError::NotFound)
        }
    }

    fn enter<'a>(&'a self, key: &'a SessionKey, connection: u64) -> Result<Place<'a>, RestoreError> {
        let mut active = self.lock();
        let mut place = Place {
            sessions: self,
            key,
            connection,
            used: false,
            undo: false,
        };
        if let Some(session) = active.get_mut(key) {
            if session.closing {
                return Err(RestoreError::NotFound);
            }
            place.used = session.used;
            if session.connections.contains(&connection) {
                return Ok(place);
            }
            if self.limit != 0 && session.connections.len() >= self.limit {
                return Err(RestoreError::LimitReached);
            }
        }
        active.entry(key.clone()).or_default().connections.push(connection);
        place.undo = true;
        Ok(place)
    }

    /// The connection is lost or closed, or takes another session. The session stays in the store.
    pub fn detach(&self, connection: u64, key: &SessionKey) {
        let mut active = self.lock();
        if let Some(session) = active.get_mut(key) {
            session.connections.retain(|other| *other != connection);
            if session.connections.is_empty() && !session.closing {
                active.remove(key);
            }
        }
    }

    /// The connection logs out: it is detached, and the session destroyed if this was its last connection (section 9.5). Answers
    /// whether it was.
    ///
    /// # Errors
    /// Fails if the store does; the connection is detached all the same, and the session can still be restored.
    ///
    /// # Cancel safety
    /// Dropped, the connection is detached, and the session is destroyed or is not.
    pub async fn close(&self, connection: u64, key: &SessionKey) -> Result<bool, StoreError> {
        {
            let mut active = self.lock();
            let Some(session) = active.get_mut(key) else {
                return Ok(false);
            };
            let before = session.connections.len();
            session.connections.retain(|other| *other != connection);
            if session.connections.len() == before || !session.connections.is_empty() || session.closing {
                return Ok(false);
            }
            session.closing = true;
        }
        let _closing = Closing { sessions: self, key };
        self.store.remove(key).await?;
        Ok(true)
    }

    /// Destroys a session, whoever uses it; also one that nobody uses. Its connections have to be told by the caller.
    ///
    /// # Errors
    /// Fails if the store does: the session can still be restored.
    ///
    /// # Cancel safety
    /// Dropped, the session is destroyed or is not.
    pub async fn destroy(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.destroy_and_tell(key, |_| ()).await
    }

    /// As [`destroy`](Self::destroy), with the connections that had it or asked for it, when nobody can get it any more.
    pub(crate) async fn destroy_and_tell(
        &self,
        key: &SessionKey,
        tell: impl FnOnce(Vec<u64>),
    ) -> Result<(), StoreError> {
        let connections = {
            let mut active = self.lock();
            let session = active.entry(key.clone()).or_default();
            let is_first = !std::mem::replace(&mut session.closing, true);
            is_first.then(|| std::mem::take(&mut session.connections))
        };
        let Some(connections) = connections else {
            // Nobody has it any more. Whether it goes is known when it has gone: what another does may fail.
            return self.store.remove(key).await;
        };
        let _closing = Closing { sessions: self, key };
        tell(connections);
        self.store.remove(key).await
    }

    /// Whether the session is one of this connection's, and not being destroyed.
    #[cfg(feature = "server")]
    pub(crate) fn has(&self, connection: u64, key: &SessionKey) -> bool {
        let active = self.lock();
        let session = active.get(key).filter(|session| !session.closing);
        session.is_some_and(|session| session.connections.contains(&connection))
    }

    /// The connections of a session; none if nobody uses it.
    pub fn connections(&self, key: &SessionKey) -> Vec<u64> {
        self.lock()
            .get(key)
            .map_or_else(Vec::new, |session| session.connections.clone())
    }

    /// How many sessions are in use.
    pub fn active(&self) -> usize {
        self.lock().len()
    }

    /// Has the store remove what has expired, except sessions that are in use. Answers how many that were.
    ///
    /// # Errors
    /// Fails if the store does.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        self.store.sweep(&|key| self.lock().contains_key(key)).await
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("limit", &self.limit)
            .field("active", &self.active())
            .finish_non_exhaustive()
    }
}

/// A connection's place among those of a session, given up unless it is kept.
struct Place<'a> {
    sessions: &'a Sessions,
    key: &'a SessionKey,
    connection: u64,
    /// Others have the session.
    used: bool,
    undo: bool,
}

impl Place<'_> {
    /// Answers whether the session is still there.
    fn keep(mut self) -> bool {
        let mut active = self.sessions.lock();
        let session = active.get_mut(self.key);
        let session = session.filter(|session| !session.closing && session.connections.contains(&self.connection));
        let is_there = session.map(|session| session.used = true).is_some();
        drop(active);
        self.undo &= !is_there;
        is_there
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.undo {
            self.sessions.detach(self.connection, self.key);
        }
    }
}

/// A session that is being destroyed.
struct Closing<'a> {
    sessions: &'a Sessions,
    key: &'a SessionKey,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.sessions.lock().remove(self.key);
    }
}
