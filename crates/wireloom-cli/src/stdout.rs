//! Standard output: written at once, or for what must go on meanwhile by a thread of its own.

use std::io::{Error, Write, stdout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use tokio::sync::Notify;

use crate::signals::StopSignals;

/// Why it cannot be written any more.
static LOST: OnceLock<Error> = OnceLock::new();
static LOSING: Notify = Notify::const_new();

/// What waits for the thread, where there is one.
static QUEUE: OnceLock<Queue> = OnceLock::new();
/// That the user wants the end.
static IS_HURRIED: AtomicBool = AtomicBool::new(false);

/// How many bytes wait before [`room`] does.
const ROOM: usize = 1 << 20;
/// How many may where nobody can wait, as the hooks of a client cannot.
const MOST: usize = 64 << 20;
/// How long what still waits has after a signal to end.
const PATIENCE: Duration = Duration::from_secs(1);

struct Queue {
    pieces: mpsc::Sender<Vec<u8>>,
    /// Bytes that are not written yet.
    waiting: AtomicUsize,
    progress: Notify,
}

/// From now on nothing waits for whoever reads it, who may stand still: the program goes on to hear signals, and the network.
pub(crate) fn in_background() {
    let (pieces, taken) = mpsc::channel::<Vec<u8>>();
    let queue = Queue {
        pieces,
        waiting: AtomicUsize::new(0),
        progress: Notify::new(),
    };
    if QUEUE.set(queue).is_err() {
        return;
    }
    std::thread::spawn(move || {
        for piece in taken {
            write(&piece);
            if let Some(queue) = QUEUE.get() {
                queue.waiting.fetch_sub(piece.len(), Ordering::AcqRel);
                queue.progress.notify_waiters();
            }
        }
    });
}

/// Writes bytes to standard output, until that has failed: see [`lost`] and [`loss`].
pub(crate) fn raw(bytes: &[u8]) {
    if loss().is_some() {
        return;
    }
    let Some(queue) = QUEUE.get() else {
        return write(bytes);
    };
    if queue.waiting.load(Ordering::Acquire) > MOST {
        return lose(Error::other(format!("nobody reads it, and {} MiB wait", MOST >> 20)));
    }
    queue.waiting.fetch_add(bytes.len(), Ordering::AcqRel);
    // The thread never ends.
    let _ = queue.pieces.send(bytes.to_vec());
}

fn write(bytes: &[u8]) {
    if loss().is_some() {
        return;
    }
    let mut out = stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        lose(error);
    }
}

fn lose(error: Error) {
    LOST.get_or_init(|| error);
    LOSING.notify_one();
    if let Some(queue) = QUEUE.get() {
        queue.progress.notify_waiters();
    }
}

/// Why what a command prints gets nowhere, if so: nothing is left to do but to end it, in good order.
pub(crate) fn loss() -> Option<&'static Error> {
    LOST.get()
}

/// Waits for that. For one at a time. Cancel safe.
pub(crate) async fn lost() {
    while loss().is_none() {
        LOSING.notified().await;
    }
}

/// Waits until little waits. What is printed then without another wait in between is little more. Cancel safe.
pub(crate) async fn room() {
    at_most(ROOM).await;
}

/// Waits until everything is written, as far as it comes in time where the end was asked for. Cancel safe.
pub(crate) async fn drained() {
    if IS_HURRIED.load(Ordering::Relaxed) {
        let _ = tokio::time::timeout(PATIENCE, at_most(0)).await;
    } else {
        at_most(0).await;
    }
}

async fn at_most(limit: usize) {
    let Some(queue) = QUEUE.get() else { return };
    loop {
        // It counts what happens from here on, though nobody has asked it yet.
        let progress = queue.progress.notified();
        if queue.waiting.load(Ordering::Acquire) <= limit || loss().is_some() {
            return;
        }
        progress.await;
    }
}

/// For signals to end: whoever reads is not waited for much longer.
pub(crate) fn hurry() {
    IS_HURRIED.store(true, Ordering::Relaxed);
}

/// The last thing that a program does: has everything written, unless another signal comes.
pub(crate) fn finish(runtime: impl FnOnce() -> Option<tokio::runtime::Runtime>) {
    let waits = |queue: &Queue| queue.waiting.load(Ordering::Acquire) > 0 && loss().is_none();
    if QUEUE.get().is_none_or(|queue| !waits(queue)) {
        return;
    }
    let Some(runtime) = runtime() else { return };
    runtime.block_on(async {
        let mut signals = StopSignals::new();
        tokio::select! {
            () = drained() => {}
            () = signals.next() => {}
        }
    });
}
