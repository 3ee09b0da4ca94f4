//! Signals by name, for parts of an application that take their time.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::IncomingMessage;

/// Signals that wait for one who does not take them.
const WAITING: usize = 1024;

/// The signals of one name, from [`Client::signals`](super::Client::signals). Dropping it ends them.
#[derive(Debug)]
pub struct Signals {
    signals: mpsc::Receiver<IncomingMessage>,
    missed: Arc<AtomicU64>,
}

impl Signals {
    /// The next signal; `None` once the client is closed and all are taken. Cancel safe.
    pub async fn next(&mut self) -> Option<IncomingMessage> {
        self.signals.recv().await
    }

    /// How many signals came while as many waited as may, and were dropped.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl futures_util::Stream for Signals {
    type Item = IncomingMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<IncomingMessage>> {
        self.signals.poll_recv(cx)
    }
}

/// Who wants which signals.
#[derive(Default)]
pub(super) struct Listeners(Mutex<State>);

#[derive(Default)]
struct State {
    of_name: HashMap<Vec<u8>, Vec<Listener>>,
    closed: bool,
}

struct Listener {
    signals: mpsc::Sender<IncomingMessage>,
    missed: Arc<AtomicU64>,
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn listen(&self, name: &[u8]) -> Signals {
        let (signals, out) = mpsc::channel(WAITING);
        let missed = Arc::<AtomicU64>::default();
        let mut state = self.lock();
        // Of those who have gone, nothing is kept for signals that do not come.
        state.of_name.retain(|_, listeners| {
            listeners.retain(|listener| !listener.signals.is_closed());
            !listeners.is_empty()
        });
        if !state.closed {
            let listeners = state.of_name.entry(name.to_vec()).or_default();
            listeners.push(Listener {
                signals,
                missed: missed.clone(),
            });
        }
        Signals { signals: out, missed }
    }

    pub(super) fn tell(&self, signal: &IncomingMessage) {
        let mut state = self.lock();
        if let Some(listeners) = state.of_name.get_mut(signal.name_bytes()) {
            listeners.retain(|listener| match listener.signals.try_send(signal.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    listener.missed.fetch_add(1, Ordering::Relaxed);
                    true
                }
            });
        }
    }

    /// Nothing will come any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.of_name.clear();
    }
}
