//! Short-lived certificates that replace themselves.
//!
//! Time is cut into terms of [`TERM`] each, counted from when the identity was made. Every term has one certificate, and
//! the certificate of the following term exists already. Hashes that are read at any moment therefore cover this term
//! and the whole next one: whoever was given both can connect for at least one term.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;

use super::generate::{DAY, Names, issue_key};
use super::{CertificateHashes, IdentityError, leaf_hash};

/// How long one certificate is presented.
pub(super) const TERM: Duration = Duration::from_secs(10 * DAY.as_secs());
/// A certificate begins this long before its term and ends this long (and a day more) after it: clocks differ.
const MARGIN: Duration = DAY;
/// W3C WebTransport, section on certificate hashes: at most 14 days. 13 leaves a day for whoever counts differently.
pub(super) const VALIDITY: Duration = Duration::from_secs(13 * DAY.as_secs());

#[derive(Debug)]
pub(super) struct Rotating {
    names: Names,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the term of `current` begins.
    term_start: SystemTime,
    current: Arc<CertifiedKey>,
    next: Arc<CertifiedKey>,
}

impl State {
    fn new(names: &Names, term_start: SystemTime) -> Result<Self, IdentityError> {
        Ok(Self {
            term_start,
            current: for_term(names, term_start)?,
            next: for_term(names, term_start + TERM)?,
        })
    }

    fn advance(&mut self, names: &Names, now: SystemTime) -> Result<(), IdentityError> {
        let Ok(age) = now.duration_since(self.term_start) else {
            // The clock was set back. Within the margin the certificate holds; before that it is not valid yet.
            if now + MARGIN < self.term_start {
                *self = Self::new(names, now)?;
            }
            return Ok(());
        };
        if age < TERM {
            return Ok(());
        }
        if age < 2 * TERM {
            let term_start = self.term_start + TERM;
            let after = for_term(names, term_start + TERM)?;
            self.current = std::mem::replace(&mut self.next, after);
            self.term_start = term_start;
        } else {
            // Nobody asked for a whole term, so that every hash ever handed out has outlived its promise.
            *self = Self::new(names, now)?;
        }
        Ok(())
    }
}

fn for_term(names: &Names, term_start: SystemTime) -> Result<Arc<CertifiedKey>, IdentityError> {
    let not_before = term_start - MARGIN;
    issue_key(names, not_before..not_before + VALIDITY)
}

impl Rotating {
    pub(super) fn new(names: Names, now: SystemTime) -> Result<Self, IdentityError> {
        let state = Mutex::new(State::new(&names, now)?);
        Ok(Self { names, state })
    }

    /// The certificate to present at `now`.
    pub(super) fn current(&self, now: SystemTime) -> Arc<CertifiedKey> {
        self.at(now, |state| Arc::clone(&state.current))
    }

    /// What to publish at `now`.
    pub(super) fn hashes(&self, now: SystemTime) -> CertificateHashes {
        self.at(now, |state| CertificateHashes {
            current: leaf_hash(&state.current),
            next: Some(leaf_hash(&state.next)),
        })
    }

    fn at<T>(&self, now: SystemTime, read: impl FnOnce(&State) -> T) -> T {
        // A panic elsewhere cannot leave a half-made state: `advance` assigns only after everything succeeded.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = state.advance(&self.names, now) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "certificate not rotated, the old one stays"
            );
        }
        read(&state)
    }
}
