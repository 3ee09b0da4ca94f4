//! What waits to be polled.

use std::collections::VecDeque;

use bytes::Bytes;

use super::events::{Action, Event};
use crate::codes::Code;
use crate::stream_id::{Dir, Side, StreamId};

/// Actions and events in order. The caller drains both after every call, so they hold what one call makes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    closed: bool,
}

impl Outbox {
    pub(super) fn write(&mut self, stream: StreamId, data: Bytes, fin: bool) {
        self.action(Action::Write { stream, data, fin });
    }

    pub(super) fn reset(&mut self, stream: StreamId, code: Code) {
        self.action(Action::Reset { stream, code });
    }

    pub(super) fn stop(&mut self, stream: StreamId, code: Code) {
        self.action(Action::StopSending { stream, code });
    }

    /// Resets and stops: nothing of the stream is wanted. `side` is this end.
    pub(super) fn abort(&mut self, side: Side, stream: StreamId, code: Code) {
        tracing::trace!(%stream, %code, "stream refused");
        if stream.dir() == Dir::Bi || stream.initiator() == side {
            self.reset(stream, code);
        }
        if stream.dir() == Dir::Bi || stream.initiator() != side {
            self.stop(stream, code);
        }
    }

    /// Closes the connection: what was queued is still handed out, nothing comes after it.
    pub(super) fn close(&mut self, code: Code, reason: &'static str) {
        if !self.closed {
            tracing::debug!(%code, reason, "connection error");
        }
        self.action(Action::Close { code, reason });
        self.closed = true;
    }

    pub(super) fn event(&mut self, event: Event) {
        if !self.closed {
            self.events.push_back(event);
        }
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.events.is_empty()
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        pop(&mut self.actions)
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        pop(&mut self.events)
    }

    fn action(&mut self, action: Action) {
        if !self.closed {
            self.actions.push_back(action);
        }
    }
}

/// Gives the memory back with the last item: an idle connection has thousands of siblings.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let item = queue.pop_front();
    if item.is_none() && queue.capacity() > 0 {
        *queue = VecDeque::new();
    }
    item
}
