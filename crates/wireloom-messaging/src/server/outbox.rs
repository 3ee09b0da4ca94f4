//! What waits to be sent on one connection, filled by anybody and emptied by the connection's task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::topic_queue::{KEPT, TooSlow, TopicItem, TopicQueue};
use crate::engine::CloseCode;
use crate::topics::Subscription;
use crate::transport::{Delivery, HIGH_WATER, Route};

/// One message to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) bytes: Bytes,
    pub(super) route: Route,
    pub(super) kind: OutgoingKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutgoingKind {
    Reply,
    /// About the connection's session.
    Session,
    Signal(Delivery),
}

/// What the connection's task is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Take no more work, finish what runs, close.
    End {
        code: CloseCode,
        reason: String,
        drain: bool,
    },
    /// Close now.
    Abort { code: CloseCode, reason: String },
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Notified when there is room again, or there never will be.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Outgoing>,
    /// Of what was taken over by the task and not yet by the link, too.
    signal_bytes: usize,
    topics: TopicQueue,
    /// The task takes messages of topics as they come; otherwise it has to wait for its link first, and is not woken.
    wants_topics: bool,
    command: Option<Command>,
    closed: bool,
    /// The task's, while it sleeps.
    waker: Option<Waker>,
}

/// Why nothing was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushError {
    Closed,
    Full,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a signal, if those that wait are at most `limit` bytes with it, or none waits.
    pub(super) fn push_signal(&self, outgoing: Outgoing, limit: usize) -> Result<(), PushError> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        let total = state.signal_bytes + outgoing.bytes.len();
        if total > limit && state.signal_bytes > 0 {
            return Err(PushError::Full);
        }
        state.signal_bytes = total;
        state.queue.push_back(outgoing);
        Self::wake(state);
        Ok(())
    }

    /// Queues what has to be sent in any case; `false` if the connection is over.
    pub(super) fn push(&self, outgoing: Outgoing) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.queue.push_back(outgoing);
        Self::wake(state);
        true
    }

    /// Queues something of a topic; what does not fit is dropped, or the connection is, as the topic's policy says.
    pub(crate) fn push_topic(&self, item: TopicItem, limit: usize) {
        let mut state = self.lock();
        if state.closed || state.command.is_some() {
            // A connection that ends sends what waits already: topics do not pause, and it would never be done.
            return;
        }
        match state.topics.push(item, limit) {
            Ok(()) if state.wants_topics => Self::wake(state),
            Ok(()) => {}
            Err(TooSlow) => {
                drop(state);
                self.command(Command::Abort {
                    code: CloseCode::SlowConsumer,
                    reason: "messages of a topic are not taken fast enough".to_owned(),
                });
            }
        }
    }

    /// The subscription is over: nothing of it is sent any more.
    pub(crate) fn drop_topic(&self, subscription: &Arc<Subscription>) {
        self.lock().topics.drop_topic(subscription);
    }

    /// Task: whether messages of topics wait.
    pub(super) fn has_topics(&self) -> bool {
        !self.lock().topics.is_empty()
    }

    /// Tells the task. An abort outdoes an end, and a final end others; of equals the first counts.
    pub(super) fn command(&self, command: Command) {
        let rank = |command: &Command| match command {
            Command::End { code, .. } => u8::from(*code == CloseCode::Dismissed),
            Command::Abort { .. } => 2,
        };
        let mut state = self.lock();
        if state.command.as_ref().is_some_and(|told| rank(told) >= rank(&command)) {
            return;
        }
        state.command = Some(command);
        Self::wake(state);
    }

    fn wake(mut state: MutexGuard<'_, State>) {
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
    }

    /// Waits until something was sent. Enable it before trying to push.
    pub(super) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn pending(&self) -> usize {
        self.lock().signal_bytes
    }

    /// Task: moves what was queued to `out`, and if `topics` is empty, some of what waits of topics there.
    pub(super) fn take(&self, out: &mut VecDeque<Outgoing>, topics: &mut VecDeque<TopicItem>) -> Option<Command> {
        let mut state = self.lock();
        if topics.is_empty() {
            // No more than the link buffers: the rest may still be dropped.
            state.topics.take(topics, HIGH_WATER / 2);
        }
        if out.is_empty() {
            if out.capacity() > KEPT && state.queue.is_empty() {
                // What a burst needed is not kept for the next.
                (*out, state.queue) = Default::default();
            }
            std::mem::swap(&mut state.queue, out);
        } else {
            out.append(&mut state.queue);
        }
        state.command.clone()
    }

    /// Task: signals of so many bytes have been given to the link.
    pub(super) fn sent(&self, bytes: usize) {
        self.lock().signal_bytes -= bytes;
        self.room.notify_waiters();
    }

    /// Task: is about to sleep; `false` if there is something to do first. `blocked`: it sends nothing before its link wakes it.
    /// `quiet`: nor before a while has passed.
    pub(super) fn park(&self, cx: &Context<'_>, seen: Option<&Command>, blocked: bool, quiet: bool) -> bool {
        let mut state = self.lock();
        let has_topics = !blocked && !quiet && !state.topics.is_empty();
        if !state.queue.is_empty() || has_topics || state.command.as_ref() != seen {
            return false;
        }
        state.wants_topics = !blocked;
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        true
    }

    /// Task: nothing will be sent any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.queue = VecDeque::new();
        state.signal_bytes = 0;
        state.waker = None;
        let topics = std::mem::take(&mut state.topics);
        drop(state);
        drop(topics);
        self.room.notify_waiters();
    }
}
