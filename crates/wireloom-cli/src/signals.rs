//! What tells a program to end: ctrl-c, SIGTERM, and the end of its input.

use std::io::Read;

use crate::stdout;

/// Takes both signals over from the moment it is made: none that comes later is lost, or ends the program by itself.
pub(crate) struct StopSignals {
    #[cfg(unix)]
    signals: Option<[tokio::signal::unix::Signal; 2]>,
}

impl StopSignals {
    pub(crate) fn new() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            // Where they cannot be taken over they still end the program, in their own way.
            let take = |kind| signal(kind).ok();
            let signals = take(SignalKind::interrupt()).zip(take(SignalKind::terminate()));
            Self {
                signals: signals.map(|(interrupt, terminate)| [interrupt, terminate]),
            }
        }
        #[cfg(not(unix))]
        Self {}
    }

    /// Waits for the next of them. Cancel safe.
    pub(crate) async fn next(&mut self) {
        self.received().await;
        stdout::hurry();
    }

    async fn received(&mut self) {
        #[cfg(unix)]
        if let Some([interrupt, terminate]) = &mut self.signals {
            tokio::select! {
                _ = interrupt.recv() => return,
                _ = terminate.recv() => return,
            }
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_ok() {
            return;
        }
        std::future::pending().await
    }
}

/// For a program whose parent holds the other end of standard input, and is gone when it is closed.
pub(crate) async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
        let _ = ended.send(());
    });
    let _ = end.await;
}
