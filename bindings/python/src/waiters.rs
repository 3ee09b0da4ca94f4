//! Coroutines that wait for the same thing.

use std::task::Waker;

/// Whether nobody is behind this waker: the first attempt of an await.
///
/// An optimised build may have the functions of that waker twice, so that it is not the same as itself to `will_wake`.
pub(crate) fn is_nobody(waker: &Waker) -> bool {
    waker.data() == Waker::noop().data()
}

/// Those that are woken by the next news, each once. Mostly it is one at most, which needs no memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Waiters {
    pub(crate) fn add(&mut self, waker: &Waker) {
        let is_known = self.first.iter().chain(&self.others).any(|known| is_same(known, waker));
        if is_nobody(waker) || is_known {
            return;
        }
        match &mut self.first {
            Some(_) => self.others.push(waker.clone()),
            first => *first = Some(waker.clone()),
        }
    }

    /// It waits no more.
    pub(crate) fn remove(&mut self, waker: &Waker) {
        if self.first.as_ref().is_some_and(|first| is_same(first, waker)) {
            self.first = self.others.pop();
        } else {
            self.others.retain(|other| !is_same(other, waker));
        }
    }

    /// All of them, so that they are woken once nothing is locked.
    #[must_use]
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Each looks for itself whether the news is for it.
    pub(crate) fn wake(self) {
        for waker in self.first.into_iter().chain(self.others) {
            waker.wake();
        }
    }
}

/// Every coroutine has a waker of its own, whose data is like no other's as long as it is kept.
fn is_same(one: &Waker, other: &Waker) -> bool {
    one.data() == other.data()
}
