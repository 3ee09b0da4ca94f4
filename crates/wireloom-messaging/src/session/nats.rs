//! Sessions in a key-value bucket of NATS: for servers on several machines.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{self, CreateErrorKind, Store, UpdateErrorKind};
use async_nats::{Client, jetstream};
use futures_util::TryStreamExt as _;

use super::{Session, SessionKey, SessionStore, StoreError};
use crate::nats::open_bucket;

/// How long NATS may take for one thing.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a look-up tries to write its time while others do.
const ATTEMPTS: usize = 16;

/// Keeps sessions in a key-value bucket of NATS (2.9 or newer, with JetStream), one entry for each. Clones share them, and so do all
/// servers that use the bucket.
///
/// What is acknowledged is in the bucket, on disk as JetStream writes it. Without NATS every operation fails, within 5 s. The keys of
/// sessions stand in the bucket as they are: who may read it may take sessions over.
///
/// Memory on this server: none.
#[derive(Debug, Clone)]
pub struct NatsStore {
    store: Store,
}

impl NatsStore {
    /// Sessions in the bucket of this name, which is made if it is not there: on `replicas` servers of a NATS cluster, each session for
    /// `lifetime` since it was last looked up. Those in use are looked up whenever their server
    /// [sweeps](crate::server::Server::sweep), once an hour: the lifetime has to be longer. A bucket that is there keeps what it was
    /// made with.
    ///
    /// # Errors
    /// NATS cannot be reached, or has no JetStream.
    pub async fn open(client: Client, bucket: &str, lifetime: Duration, replicas: usize) -> Result<Self, StoreError> {
        let mut context: Context = jetstream::new(client);
        context.set_timeout(PATIENCE);
        let store = open_bucket(&context, bucket, lifetime, replicas).await?;
        Ok(Self { store })
    }
}

impl SessionStore for NatsStore {
    async fn create(&self, session: &Session) -> Result<(), StoreError> {
        let json = session.to_json();
        match self.store.create(session.key.as_str(), json.into()).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Err("the key is taken".into()),
            Err(error) => Err(error.into()),
        }
    }

    async fn look_up(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        for _ in 0..ATTEMPTS {
            let entry = self.store.entry(key.as_str()).await?;
            let Some(entry) = entry.filter(|entry| entry.operation == kv::Operation::Put) else {
                return Ok(None);
            };
            let found = Session::from_json(&entry.value)?;
            let mut now = found.clone();
            now.last_lookup = SystemTime::now();
            // Only in the place of what was found: a session that was removed meanwhile stays removed.
            match self
                .store
                .update(key.as_str(), now.to_json().into(), entry.revision)
                .await
            {
                Ok(_) => return Ok(Some(found)),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err("the session is being looked up by others all the time".into())
    }

    async fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        Ok(self.store.delete(key.as_str()).await?)
    }

    /// NATS removes what has expired. Those in use here are written again.
    async fn sweep(&self, in_use: &(dyn Fn(&SessionKey) -> bool + Send + Sync)) -> Result<usize, StoreError> {
        let mut keys = self.store.keys().await?;
        while let Some(key) = keys.try_next().await? {
            if let Ok(key) = SessionKey::parse(key.as_bytes())
                && in_use(&key)
            {
                self.look_up(&key).await?;
            }
        }
        Ok(0)
    }
}
