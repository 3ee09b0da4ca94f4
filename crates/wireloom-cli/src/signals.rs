//! Ctrl-c and SIGTERM.

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
