//! What an application wants to be told.

use std::sync::Arc;

use super::signals::Listeners;
use super::topics::Registry;
use crate::IncomingMessage;
use crate::session::Session;
use crate::transport::{Ended, TransportKind};

type Hook<T> = Box<dyn Fn(T) + Send + Sync>;
type RefHook<T> = Box<dyn Fn(&T) + Send + Sync>;

/// Called by the client's task, one after the other, in the order in which things happened.
#[derive(Default)]
pub(super) struct Hooks {
    /// Signals of topics with a subscription go there.
    pub(super) topics: Arc<Registry>,
    /// Who wants others by name.
    pub(super) listeners: Listeners,
    pub(super) signal: Option<Hook<IncomingMessage>>,
    pub(super) session_created: Option<RefHook<Session>>,
    pub(super) session_closed: Option<Box<dyn Fn() + Send + Sync>>,
    pub(super) connected: Option<Hook<TransportKind>>,
    pub(super) disconnected: Option<RefHook<Ended>>,
}

impl Hooks {
    pub(super) fn signal(&self, message: IncomingMessage) {
        let Some(message) = self.topics.take(message) else {
            return;
        };
        self.listeners.tell(&message);
        if let Some(hook) = &self.signal {
            hook(message);
        }
    }

    pub(super) fn session_created(&self, session: &Session) {
        if let Some(hook) = &self.session_created {
            hook(session);
        }
    }

    pub(super) fn session_closed(&self) {
        if let Some(hook) = &self.session_closed {
            hook();
        }
    }

    pub(super) fn connected(&self, kind: TransportKind) {
        if let Some(hook) = &self.connected {
            hook(kind);
        }
    }

    pub(super) fn disconnected(&self, why: &Ended) {
        if let Some(hook) = &self.disconnected {
            hook(why);
        }
    }
}
