//! Wakers collected under a lock and woken after it is released, so that no woken task runs into the lock.

use std::sync::Arc;
use std::task::Waker;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What tasks wait for at a connection or a session: one queue of waiters each.
#[derive(Debug, Default)]
pub(crate) struct Signals([Notify; 5]);

/// Which queue of [`Signals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// A bidirectional stream came (session) or may be opened (connection).
    Bi = 0,
    /// A unidirectional stream came (session) or may be opened (connection).
    Uni = 1,
    /// A datagram came (session) or can be sent (connection).
    Datagram = 2,
    /// The state changed: ready, accepted, draining, closed.
    State = 3,
    /// A datagram of the session can be sent again (session).
    DatagramRoom = 4,
}

impl Signals {
    pub(crate) fn notified(&self, topic: Topic) -> Notified<'_> {
        self.0[topic as usize].notified()
    }

    /// One waiter, for one thing to take. Who takes it calls this again if there is more.
    pub(crate) fn one(&self, topic: Topic) {
        self.0[topic as usize].notify_one();
    }

    /// Everyone, on every topic.
    pub(crate) fn all(&self) {
        for notify in &self.0 {
            notify.notify_waiters();
        }
    }
}

/// From this many on, [`WakeList::wake_half`] halves.
const MANY: usize = 8;

/// What to wake once the lock is released.
#[derive(Default)]
pub(crate) struct WakeList {
    wakers: Vec<Waker>,
    /// `None`: all topics, all waiters.
    signals: Vec<(Arc<Signals>, Option<Topic>)>,
}

impl WakeList {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wakers.is_empty() && self.signals.is_empty()
    }

    pub(crate) fn waker(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    /// One waiter, who passes the baton on if there is more to take.
    pub(crate) fn one(&mut self, signals: &Arc<Signals>, topic: Topic) {
        // A burst for one queue is the common case.
        if !self
            .signals
            .last()
            .is_some_and(|(s, t)| Arc::ptr_eq(s, signals) && *t == Some(topic))
        {
            self.signals.push((signals.clone(), Some(topic)));
        }
    }

    /// Everyone who waits for anything.
    pub(crate) fn all(&mut self, signals: &Arc<Signals>) {
        self.signals.push((signals.clone(), None));
    }

    pub(crate) fn wake(&mut self) {
        // Nobody, after most calls of a handle: on the way of each datagram.
        if !self.is_empty() {
            self.wake_some(usize::MAX);
        }
    }

    /// Half of them if they are many, the longest waiting first; the others stay.
    pub(crate) fn wake_half(&mut self) {
        let all = self.wakers.len() + self.signals.len();
        self.wake_some(if all < MANY { all } else { all / 2 });
    }

    fn wake_some(&mut self, n: usize) {
        let signals = self.signals.len().min(n);
        for (signals, topic) in self.signals.drain(..signals) {
            match topic {
                Some(topic) => signals.one(topic),
                None => signals.all(),
            }
        }
        let wakers = self.wakers.len().min(n - signals);
        for waker in self.wakers.drain(..wakers) {
            waker.wake();
        }
    }
}
