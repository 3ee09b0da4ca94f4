//! One half of a stream, shared by coroutines.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::Notify;

/// It is locked for the moment of a call and not while a coroutine waits, so that others can give it up meanwhile.
pub(super) struct Half<S> {
    stream: Mutex<S>,
    /// Held by the coroutine whose turn it is: bytes of two writes, or two reads, must not mix.
    turn: tokio::sync::Mutex<()>,
    given_up: Notify,
}

/// What shows that a coroutine has its turn.
pub(super) type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

impl<S> Half<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream: Mutex::new(stream),
            turn: tokio::sync::Mutex::new(()),
            given_up: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn turn(&self) -> Turn<'_> {
        self.turn.lock().await
    }

    /// Resets or stops the stream. Whoever waits for it learns that.
    pub(super) fn give_up(&self, how: impl FnOnce(&mut S)) {
        how(&mut self.lock());
        self.given_up.notify_waiters();
    }

    /// Waits for something of the stream. `poll` keeps nothing from one call to the next.
    pub(super) async fn wait<T>(&self, _: &Turn<'_>, mut poll: impl FnMut(&mut S, &mut Context<'_>) -> Poll<T>) -> T {
        loop {
            // Made before the stream is polled, so that no end is missed in between.
            let given_up = self.given_up.notified();
            tokio::select! {
                biased;
                ready = poll_fn(|cx| poll(&mut self.lock(), cx)) => return ready,
                // The stream says what is left to say.
                () = given_up => {}
            }
        }
    }
}
