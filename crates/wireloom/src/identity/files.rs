//! PEM files that are read again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::sign::CertifiedKey;

use super::{IdentityError, pem};

/// How often a handshake may look at the files.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A certificate file and a key file, looked at again lazily: no task and no thread waits for a change.
#[derive(Debug)]
pub(super) struct PemFiles {
    certificate: PathBuf,
    key: PathBuf,
    check_interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: Arc<CertifiedKey>,
    /// What the files looked like when they were last read, well or badly.
    stamp: Option<Stamp>,
    checked: Instant,
}

/// Size and modification time of both files; symbolic links are followed, so that a swapped link shows.
type Stamp = [(u64, SystemTime); 2];

impl PemFiles {
    pub(super) fn open(certificate: PathBuf, key: PathBuf, check_interval: Duration) -> Result<Self, IdentityError> {
        let stamp = stamp(&certificate, &key).ok();
        let current = pem::parse(&contents(&certificate)?, &contents(&key)?)?;
        let state = Mutex::new(State {
            current,
            stamp,
            checked: Instant::now(),
        });
        Ok(Self {
            certificate,
            key,
            check_interval,
            state,
        })
    }

    /// The newest good identity, after a look at the files when the last one is long enough ago.
    pub(super) fn current(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut state = self.lock();
        if now.saturating_duration_since(state.checked) >= self.check_interval {
            state.checked = now;
            if let Err(error) = self.reload_if_changed(&mut state) {
                tracing::error!(
                    certificate = %self.certificate.display(),
                    error = &error as &dyn std::error::Error,
                    "changed certificate files are unusable, the previous identity stays",
                );
            }
        }
        Arc::clone(&state.current)
    }

    /// Reads the files now, changed or not.
    pub(super) fn reload(&self) -> Result<(), IdentityError> {
        let mut state = self.lock();
        let stamp = stamp(&self.certificate, &self.key).ok();
        self.load(&mut state, stamp)
    }

    fn reload_if_changed(&self, state: &mut State) -> Result<(), IdentityError> {
        match stamp(&self.certificate, &self.key) {
            Ok(stamp) if state.stamp == Some(stamp) => Ok(()),
            Ok(stamp) => self.load(state, Some(stamp)),
            // Said once; after that, only files that are back count as a change.
            Err(error) => state.stamp.take().map_or(Ok(()), |_| Err(error)),
        }
    }

    /// `stamp` was taken before this reads: a change in between then shows as a difference at the next look.
    fn load(&self, state: &mut State, stamp: Option<Stamp>) -> Result<(), IdentityError> {
        // What could not be read may be readable the next time, with nothing changed about it; what is no certificate stays none.
        state.stamp = None;
        let contents = [contents(&self.certificate)?, contents(&self.key)?];
        state.stamp = stamp;
        state.current = pem::parse(&contents[0], &contents[1])?;
        tracing::info!(certificate = %self.certificate.display(), "certificate loaded");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave the state half-changed: each field is replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(certificate: &Path, key: &Path) -> Result<Stamp, IdentityError> {
    let look = |path: &Path| {
        fs::metadata(path)
            .and_then(|meta| Ok((meta.len(), meta.modified()?)))
            .map_err(|source| IdentityError::File {
                path: path.to_owned(),
                source,
            })
    };
    Ok([look(certificate)?, look(key)?])
}

fn contents(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| IdentityError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PemPair;

    /// As without a free descriptor: nothing about the files need change before they are read again.
    #[test]
    fn what_could_not_be_read_is_tried_again() {
        let folder = std::env::temp_dir().join(format!("wireloom-unreadable-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let pair = PemPair::self_signed(["localhost"], 13).expect("generated");
        fs::write(&certificate, &pair.certificate).expect("written");
        fs::write(&key, &pair.private_key).expect("written");
        let files = PemFiles::open(certificate, key.clone(), Duration::ZERO).expect("opened");
        // A folder can be looked at, and not be read.
        fs::remove_file(&key).expect("removed");
        fs::create_dir(&key).expect("made");
        files.current(Instant::now());
        assert_eq!(files.lock().stamp, None);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
