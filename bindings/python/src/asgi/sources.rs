//! Who in a session has news, in the order of their turns.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use crate::waiters::Waiters;

/// Something in a session that can have news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Bi,
    Uni,
    Datagram,
    Draining,
    Opening,
    Closed,
    Readable(u64),
    Writable(u64),
}

/// Those that have news.
///
/// It has a lock of its own: sources are woken by the connection while the session's lock is held.
#[derive(Default)]
pub(super) struct Ring(Mutex<Turns>);

#[derive(Default)]
struct Turns {
    turns: VecDeque<Arc<Inner>>,
    /// Nobody asks any more: what queued up would keep the ring, which would keep it.
    is_closed: bool,
    receivers: Waiters,
}

impl Ring {
    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is told of news, too.
    pub(super) fn register(&self, waker: &Waker) {
        self.lock().receivers.add(waker);
    }

    pub(super) fn forget(&self, waker: &Waker) {
        self.lock().receivers.remove(waker);
    }

    pub(super) fn wake(&self) {
        let receivers = self.lock().receivers.take();
        receivers.wake();
    }

    pub(super) fn next(&self) -> Option<Kind> {
        let source = self.lock().turns.pop_front()?;
        // From now on it can be woken again.
        source.is_queued.store(false, Ordering::Release);
        Some(source.kind)
    }

    pub(super) fn close(&self) {
        let closed = Turns {
            is_closed: true,
            ..Turns::default()
        };
        let turns = std::mem::replace(&mut *self.lock(), closed);
        drop(turns);
    }
}

/// A member of the ring.
pub(super) struct Source {
    inner: Arc<Inner>,
    waker: Waker,
}

struct Inner {
    ring: Arc<Ring>,
    kind: Kind,
    is_queued: AtomicBool,
    /// Coroutines that wait for it besides `receive`: those that send.
    others: Mutex<Vec<Waker>>,
}

impl Source {
    pub(super) fn new(ring: &Arc<Ring>, kind: Kind) -> Self {
        let inner = Arc::new(Inner {
            ring: ring.clone(),
            kind,
            is_queued: AtomicBool::new(false),
            others: Mutex::default(),
        });
        Self {
            waker: Waker::from(inner.clone()),
            inner,
        }
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// It has news, or may have.
    pub(super) fn fire(&self) {
        self.waker.wake_by_ref();
    }

    /// Wakes `waker` with the next news, too.
    pub(super) fn also(&self, waker: &Waker) {
        let mut others = self.inner.others.lock().unwrap_or_else(PoisonError::into_inner);
        if !others.iter().any(|other| other.will_wake(waker)) {
            others.push(waker.clone());
        }
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let others = std::mem::take(&mut *self.others.lock().unwrap_or_else(PoisonError::into_inner));
        for other in others {
            other.wake();
        }
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut turns = self.ring.lock();
        if !turns.is_closed {
            turns.turns.push_back(self.clone());
        }
        let receivers = turns.receivers.take();
        drop(turns);
        receivers.wake();
    }
}
