//! The default store: one file for each session in one folder.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::BuildHasher;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::sync::Semaphore;

use super::memory::is_expired;
use super::{Session, SessionInfo, SessionKey, SessionStore, StoreError, go_json, timestamp};

/// Keeps each session in a file `KEY.wwrsess` of one folder, as webwire-go's default manager does: a folder of its can be opened as
/// it is.
///
/// # What survives what
/// A file is written beside its place, synced and renamed into it, so that it is whole or not there, whatever happens. Creating
/// and removing a session also syncs the folder: both survive a loss of power once they are acknowledged. A look-up's new time may be
/// lost with the power, the session is not. Where the disk is full or the folder cannot be written, operations fail and
/// nothing is acknowledged; look-ups too, for they store their time.
///
/// # Safety
/// The folder is made with mode 0700 and the files with 0600: names of files are keys, and keys are secrets. A
/// [`SessionKey`] cannot name anything outside the folder. On file systems that ignore case, keys that differ in it are the same.
///
/// # Cost
/// Each operation reads or writes one file of some hundred bytes on the runtime's blocking threads, at most
/// [`CONCURRENCY`](Self::CONCURRENCY) at once; others wait. Nothing is kept in memory.
///
/// # Several processes
/// They may share a folder on Unix, where its file system has locks (`flock`): whoever looks a session up or removes it locks its file.
#[derive(Debug, Clone)]
pub struct FileStore {
    folder: Arc<Folder>,
    lifetime: Option<Duration>,
    turns: Arc<Semaphore>,
}

impl FileStore {
    /// Operations at once.
    pub const CONCURRENCY: usize = 8;
    /// The largest session that is stored, in bytes of its file.
    pub const MAX_FILE: usize = 1 << 20;

    /// Opens the folder, and makes it if it is not there. Sessions do not expire unless [`expire_after`](Self::expire_after) says so.
    ///
    /// # Errors
    /// Fails if the folder cannot be made or read.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = Folder::open(folder.into())?;
        Ok(Self {
            folder: Arc::new(folder),
            lifetime: None,
            turns: Arc::new(Semaphore::new(Self::CONCURRENCY)),
        })
    }

    /// Forgets sessions that nobody has looked up for so long. Those that a server's connections use count as looked up whenever it
    /// [sweeps](crate::server::Server::sweep), once an hour: the lifetime has to be longer.
    #[must_use]
    pub fn expire_after(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Runs it to its end on a blocking thread, even if the future is dropped.
    async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Folder, Option<Duration>) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.turns.clone().acquire_owned().await?;
        let (folder, lifetime) = (self.folder.clone(), self.lifetime);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            operation(&folder, lifetime)
        });
        Ok(done.await??)
    }
}

impl SessionStore for FileStore {
    async fn create(&self, session: &Session) -> Result<(), StoreError> {
        let session = session.clone();
        self.run(move |folder, _| folder.create(&session)).await
    }

    async fn look_up(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let key = key.clone();
        self.run(move |folder, lifetime| folder.look_up(key, lifetime)).await
    }

    async fn look_up_in_use(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let key = key.clone();
        self.run(move |folder, _| folder.look_up(key, None)).await
    }

    async fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.run(move |folder, _| folder.remove(&key)).await
    }

    async fn sweep(&self, in_use: &(dyn Fn(&SessionKey) -> bool + Send + Sync)) -> Result<usize, StoreError> {
        let Some(lifetime) = self.lifetime else {
            return Ok(0);
        };
        let mut removed = 0;
        for key in self.run(move |folder, _| folder.expired(lifetime)).await? {
            if in_use(&key) {
                self.look_up_in_use(&key).await?;
            } else {
                removed += usize::from(self.run(move |folder, _| folder.expire(&key, lifetime)).await?);
            }
        }
        Ok(removed)
    }
}

/// The blocking side. What happens to one session happens in one order: a look-up must not write back what a removal deleted.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    locks: [Mutex<()>; 64],
    hash: RandomState,
}

/// A session's file, as webwire-go writes it: the key is the name, and `i` is always there.
#[derive(Deserialize)]
struct Stored {
    c: String,
    l: String,
    i: Option<SessionInfo>,
}

const EXTENSION: &str = "wwrsess";
const TEMPORARY: &str = "tmp";
/// A temporary file that is older was left by a crash.
const ABANDONED: Duration = Duration::from_secs(3600);

impl Folder {
    fn open(path: PathBuf) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        let folder = Self {
            path,
            locks: [const { Mutex::new(()) }; 64],
            hash: RandomState::new(),
        };
        for entry in fs::read_dir(&folder.path)? {
            let entry = entry?;
            let is_old = || {
                entry
                    .metadata()
                    .and_then(|file| file.modified())
                    .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > ABANDONED))
            };
            if entry.path().extension().is_some_and(|extension| extension == TEMPORARY) && is_old() {
                // Another process may have been quicker.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(folder)
    }

    fn turn(&self, key: &SessionKey) -> MutexGuard<'_, ()> {
        let index = self.hash.hash_one(key) % self.locks.len() as u64;
        self.locks[index as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else changes the session, in other processes neither. `None`: there is no such session.
    fn lock(&self, key: &SessionKey) -> io::Result<Option<Locked<'_>>> {
        let turn = self.turn(key);
        #[cfg(unix)]
        let Some(file) = lock_file(&self.file(key))? else {
            return Ok(None);
        };
        Ok(Some(Locked {
            _turn: turn,
            #[cfg(unix)]
            _file: file,
        }))
    }

    fn file(&self, key: &SessionKey) -> PathBuf {
        self.path.join(format!("{}.{EXTENSION}", key.as_str()))
    }

    fn create(&self, session: &Session) -> io::Result<()> {
        let _turn = self.turn(&session.key);
        self.write(session, session.last_lookup)?;
        self.sync()
    }

    fn look_up(&self, key: SessionKey, lifetime: Option<Duration>) -> io::Result<Option<Session>> {
        let Some(_lock) = self.lock(&key)? else {
            return Ok(None);
        };
        let Some(session) = self.read(key)? else {
            return Ok(None);
        };
        let now = SystemTime::now();
        if is_expired(session.last_lookup, lifetime, now) {
            self.delete(&session.key)?;
            return Ok(None);
        }
        self.write(&session, now)?;
        Ok(Some(session))
    }

    fn remove(&self, key: &SessionKey) -> io::Result<()> {
        match self.lock(key)? {
            Some(_lock) => self.delete(key),
            None => Ok(()),
        }
    }

    /// Removes it if it is still expired.
    fn expire(&self, key: &SessionKey, lifetime: Duration) -> io::Result<bool> {
        let Some(_lock) = self.lock(key)? else {
            return Ok(false);
        };
        let session = self.read(key.clone())?;
        let expired = session.is_some_and(|it| is_expired(it.last_lookup, Some(lifetime), SystemTime::now()));
        if expired {
            self.delete(key)?;
        }
        Ok(expired)
    }

    /// The keys of expired sessions.
    fn expired(&self, lifetime: Duration) -> io::Result<Vec<SessionKey>> {
        let now = SystemTime::now();
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let Ok(key) = SessionKey::parse(stem.as_bytes()) else {
                continue;
            };
            // One that cannot be read keeps no other from expiring.
            if let Ok(Some(session)) = self.read(key)
                && is_expired(session.last_lookup, Some(lifetime), now)
            {
                keys.push(session.key);
            }
        }
        Ok(keys)
    }

    fn read(&self, key: SessionKey) -> io::Result<Option<Session>> {
        let file = match File::open(self.file(&key)) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut json = Vec::new();
        file.take(FileStore::MAX_FILE as u64 + 1).read_to_end(&mut json)?;
        if json.len() > FileStore::MAX_FILE {
            return Err(invalid("a session's file is too large"));
        }
        let stored: Stored = serde_json::from_slice(&json)?;
        let time = |text: &str| timestamp::parse(text).ok_or_else(|| invalid("a time is not RFC 3339"));
        Ok(Some(Session {
            created: time(&stored.c)?,
            last_lookup: time(&stored.l)?,
            info: stored.i.unwrap_or_default(),
            key,
        }))
    }

    fn write(&self, session: &Session, last_lookup: SystemTime) -> io::Result<()> {
        let (created, last_lookup) = (timestamp::format(session.created), timestamp::format(last_lookup));
        let mut json = format!(r#"{{"c":"{created}","l":"{last_lookup}","i":"#);
        go_json::object(&mut json, &session.info);
        json.push('}');
        if json.len() > FileStore::MAX_FILE {
            return Err(invalid("the session's info is too large"));
        }
        let temporary = self.temporary()?;
        let written =
            write_synced(&temporary, json.as_bytes()).and_then(|()| fs::rename(&temporary, self.file(&session.key)));
        if written.is_err() {
            // The first failure is the one to tell.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn delete(&self, key: &SessionKey) -> io::Result<()> {
        match fs::remove_file(self.file(key)) {
            Ok(()) => self.sync(),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn temporary(&self) -> io::Result<PathBuf> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        Ok(self
            .path
            .join(format!(".{:016x}.{TEMPORARY}", u64::from_ne_bytes(random))))
    }

    /// Makes the folder's names survive a loss of power, where a folder can be synced.
    fn sync(&self) -> io::Result<()> {
        #[cfg(unix)]
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }
}

struct Locked<'a> {
    _turn: MutexGuard<'a, ()>,
    #[cfg(unix)]
    _file: File,
}

/// Locks a file until it is closed. A look-up puts a new file in the place of the old one, so that the one that was locked may not be
/// there any more: then it is the next one's turn.
#[cfg(unix)]
fn lock_file(path: &Path) -> io::Result<Option<File>> {
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{FlockOperation, flock};
    use rustix::io::{Errno, retry_on_intr};

    let identity = |file: fs::Metadata| (file.dev(), file.ino());
    let attempt = || -> io::Result<Option<File>> {
        // NFS locks only what may be written.
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        match retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)) {
            // Without locks there is only this process.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        let is_there = identity(file.metadata()?) == identity(fs::metadata(path)?);
        Ok(is_there.then_some(file))
    };
    loop {
        match attempt() {
            Ok(None) => {}
            Err(error) if is_absent(&error) => return Ok(None),
            locked => return locked,
        }
    }
}

/// A name may also be longer than any that the file system can have.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename)
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
