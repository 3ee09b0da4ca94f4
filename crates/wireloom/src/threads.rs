//! Threads of a server's own, each with a runtime that runs on it alone.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Threads that drive connections, each with a single-threaded tokio runtime of its own. A connection stays with one of them, and
/// so does all that it wakes: nothing is handed from core to core, as tokio's multi-threaded runtime does, which costs more than a
/// short answer. For [`ServerBuilder::threads`](crate::ServerBuilder::threads) and
/// [`tcp::Options::threads`](crate::tcp::Options::threads); clones are the same threads, so that listeners can share them.
///
/// In exchange nobody helps a thread that has much to do: this fits many connections of which none needs a core. What handlers
/// spawn (`tokio::spawn`) stays on their thread; what blocks there, blocks its other connections, and belongs into
/// `tokio::task::spawn_blocking`. `tokio::task::block_in_place` panics there.
///
/// The threads end when every clone is dropped and the servers that used them have closed their connections. What handlers have
/// spawned ends with them.
///
/// ```no_run
/// # async fn f(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
/// use wireloom::{Identity, Server, Threads};
///
/// Server::builder()
///     .bind("[::]:4433")
///     .identity(Identity::self_signed(["localhost"])?)
///     .threads(Threads::start(4)?)
///     .serve(app)
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Threads(Arc<Inner>);

struct Inner {
    homes: Vec<Home>,
    /// Whose turn it is.
    next: AtomicUsize,
}

impl Threads {
    /// Starts `count` threads, at least one. More than there are cores gain nothing.
    ///
    /// # Errors
    /// The system has no room for a thread, or no file descriptor for its runtime.
    pub fn start(count: usize) -> io::Result<Self> {
        let homes = (0..count.max(1)).map(Home::start).collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Inner {
            homes,
            next: AtomicUsize::new(0),
        })))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.homes.len()
    }

    pub(crate) fn homes(&self) -> &[Home] {
        &self.0.homes
    }

    /// Each in turn.
    pub(crate) fn next(&self) -> &Home {
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed);
        &self.0.homes[turn % self.0.homes.len()]
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("count", &self.count()).finish()
    }
}

/// Where tasks run: on one of [`Threads`], or on whatever runtime the server was started on.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) handle: Handle,
    /// The thread ends when no clone of it is left.
    kept: Option<watch::Receiver<()>>,
}

impl Home {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stay, kept) = watch::channel(());
        std::thread::Builder::new()
            .name(format!("wireloom-{index}"))
            .spawn(move || runtime.block_on(stay.closed()))?;
        Ok(Self {
            handle,
            kept: Some(kept),
        })
    }

    /// The runtime that this is called on.
    pub(crate) fn current() -> Self {
        Self {
            handle: Handle::current(),
            kept: None,
        }
    }

    /// Runs a task to its end: the thread stays for it.
    pub(crate) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let kept = self.kept.clone();
        self.handle.spawn(async move {
            task.await;
            drop(kept);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_has_its_turn_and_tasks_stay_at_home() {
        let threads = Threads::start(3).expect("threads");
        let (tell, told) = mpsc::channel();
        for _ in 0..6 {
            let tell = tell.clone();
            threads.next().run(async move {
                let here = thread::current().id();
                let inner = tokio::spawn(async { thread::current().id() }).await.expect("no panic");
                assert_eq!(inner, here);
                tell.send(here).expect("received");
            });
        }
        drop(tell);
        let mut all: Vec<_> = told.iter().collect();
        assert_eq!(all.len(), 6);
        all.sort_by_key(|id| format!("{id:?}"));
        all.dedup();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn a_thread_stays_for_what_has_to_end_and_no_longer() {
        let threads = Threads::start(0).expect("one at least");
        assert_eq!(threads.count(), 1);
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let done = tell.clone();
        threads.next().run(async move {
            let _ = gone.await;
            let _ = done.send("the task");
        });
        // Ends with the thread's runtime, whenever that is.
        threads.homes()[0].handle.spawn(async move {
            struct Last(mpsc::Sender<&'static str>);
            impl Drop for Last {
                fn drop(&mut self) {
                    let _ = self.0.send("the thread");
                }
            }
            let _last = Last(tell);
            std::future::pending::<()>().await;
        });
        drop(threads);
        go.send(()).expect("it waits");
        let order: Vec<_> = (0..2)
            .map(|_| told.recv_timeout(Duration::from_secs(60)).expect("it ends"))
            .collect();
        assert_eq!(order, ["the task", "the thread"]);
    }
}
