//! The sessions of `/messages`: whoever may connect may log in, so that both their number and their time are bounded.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use wireloom_messaging::session::{Session, SessionKey, SessionStore, StoreError};

/// A store that holds so many sessions at most: for one more, that goes which nobody has used for longest.
pub(super) struct Bounded<S> {
    store: S,
    max: usize,
    order: Mutex<Order>,
}

/// Which were used when, in turns. It may know of some that the store has no more, never of fewer than it has.
#[derive(Default)]
struct Order {
    turn: u64,
    turns: HashMap<SessionKey, u64>,
    keys: BTreeMap<u64, SessionKey>,
}

impl Order {
    fn touch(&mut self, key: &SessionKey) {
        self.turn += 1;
        if let Some(before) = self.turns.insert(key.clone(), self.turn) {
            self.keys.remove(&before);
        }
        self.keys.insert(self.turn, key.clone());
    }

    fn forget(&mut self, key: &SessionKey) {
        if let Some(turn) = self.turns.remove(key) {
            self.keys.remove(&turn);
        }
    }
}

impl<S> Bounded<S> {
    /// `known`: what is in the store already, the longest unused first.
    pub(super) fn new(store: S, max: usize, known: Vec<SessionKey>) -> Self {
        let mut order = Order::default();
        known.iter().for_each(|key| order.touch(key));
        Self {
            store,
            max,
            order: Mutex::new(order),
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn surplus(&self) -> Option<SessionKey> {
        let order = self.order();
        let (_, oldest) = order.keys.first_key_value()?;
        (order.keys.len() > self.max).then(|| oldest.clone())
    }

    fn found(&self, key: &SessionKey, session: Option<Session>) -> Option<Session> {
        if session.is_some() {
            self.order().touch(key);
        } else {
            self.order().forget(key);
        }
        session
    }
}

impl<S: SessionStore> SessionStore for Bounded<S> {
    async fn create(&self, session: &Session) -> Result<(), StoreError> {
        // Known before it is there: this may be dropped at any point.
        self.order().touch(&session.key);
        while let Some(oldest) = self.surplus() {
            self.store.remove(&oldest).await?;
            self.order().forget(&oldest);
        }
        self.store.create(session).await?;
        // So many others may have come meanwhile that it was the oldest.
        self.order().touch(&session.key);
        Ok(())
    }

    async fn look_up(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        Ok(self.found(key, self.store.look_up(key).await?))
    }

    async fn look_up_in_use(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        Ok(self.found(key, self.store.look_up_in_use(key).await?))
    }

    async fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.store.remove(key).await?;
        self.order().forget(key);
        Ok(())
    }

    async fn sweep(&self, in_use: &(dyn Fn(&SessionKey) -> bool + Send + Sync)) -> Result<usize, StoreError> {
        let known: Vec<SessionKey> = self.order().keys.values().cloned().collect();
        for key in known.iter().filter(|key| in_use(key)) {
            self.order().touch(key);
        }
        self.store.sweep(in_use).await
    }
}

/// The keys of the sessions that a `FileStore` has in its folder, the longest unused first: a look-up writes the file.
pub(super) fn in_folder(folder: &Path) -> std::io::Result<Vec<SessionKey>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "wwrsess") {
            continue;
        }
        let key = path
            .file_stem()
            .and_then(|stem| SessionKey::parse(stem.as_encoded_bytes()).ok());
        // One that is gone meanwhile was removed by another process.
        if let (Some(key), Ok(metadata)) = (key, entry.metadata()) {
            found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), key));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, key)| key).collect())
}

/// Those of connections count as used with each sweep: it comes several times in a lifetime.
pub(super) fn sweep_interval(lifetime: Duration) -> Duration {
    (lifetime / 4).clamp(Duration::from_millis(100), Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use wireloom_messaging::session::{MemoryStore, SessionInfo};

    use super::*;

    fn key(n: usize) -> SessionKey {
        SessionKey::parse(format!("key{n}").as_bytes()).expect("a key")
    }

    #[tokio::test]
    async fn the_longest_unused_makes_place() {
        let store = MemoryStore::new();
        let old: Vec<_> = (0..4).map(key).collect();
        for key in &old {
            let session = Session::new(key.clone(), SessionInfo::new(), SystemTime::now());
            store.create(&session).await.expect("in memory");
        }
        let store = Bounded::new(store, 3, old);
        let add = async |n| {
            let session = Session::new(key(n), SessionInfo::new(), SystemTime::now());
            store.create(&session).await.expect("in memory");
        };
        // Two go: one was too many already.
        add(4).await;
        assert!(store.look_up(&key(2)).await.expect("in memory").is_some());
        add(5).await;
        store.remove(&key(4)).await.expect("in memory");
        add(6).await;
        // Asked of the store itself: being asked is being used.
        let mut left = Vec::new();
        for n in 0..7 {
            if store.store.look_up(&key(n)).await.expect("in memory").is_some() {
                left.push(n);
            }
        }
        assert_eq!(left, [2, 5, 6]);
        // One that a connection uses stays.
        assert_eq!(store.sweep(&|used| *used == key(2)).await.expect("in memory"), 0);
        add(7).await;
        assert!(store.look_up(&key(2)).await.expect("in memory").is_some());
        assert!(store.look_up(&key(5)).await.expect("in memory").is_none());
    }
}
