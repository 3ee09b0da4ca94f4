//! The tasks of one listener, so that none outlives it.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::ready;

use hyper::rt::Executor;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument as _;

/// Owns every task: connections, and the requests that hyper spawns for HTTP/2. Dropping it aborts them all.
#[derive(Debug, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, home: &Handle) {
        spawn(&self.0, task, home);
    }

    /// What the tasks themselves spawn with. It does not keep the tasks alive: they hold it.
    pub(super) fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }

    /// Waits until no task is left. Cancel safe.
    pub(super) async fn join(&self) {
        poll_fn(|cx| {
            let mut tasks = lock(&self.0);
            while let Some(ended) = ready!(tasks.poll_join_next(cx)) {
                report(ended);
            }
            std::task::Poll::Ready(())
        })
        .await;
    }

    /// Stops every task at its next await; [`join`](Self::join) waits until they have.
    pub(super) fn abort(&self) {
        lock(&self.0).abort_all();
    }
}

/// Spawns into [`Tasks`]. After those are gone, what it is given is dropped.
#[derive(Debug, Clone)]
pub(super) struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            spawn(&tasks, task.in_current_span(), &Handle::current());
        }
    }
}

fn spawn(tasks: &Mutex<JoinSet<()>>, task: impl Future<Output = ()> + Send + 'static, home: &Handle) {
    let mut tasks = lock(tasks);
    // Ended tasks keep their memory until they are joined.
    while let Some(ended) = tasks.try_join_next() {
        report(ended);
    }
    tasks.spawn_on(task, home);
}

fn report(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("the service panicked, its connection or request was cut off");
    }
}

fn lock(tasks: &Mutex<JoinSet<()>>) -> MutexGuard<'_, JoinSet<()>> {
    // No task runs under this lock, so that a task's panic never poisons it.
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}
