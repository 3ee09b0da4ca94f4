//! The servers that a client has spoken with, to come back to them with early data.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::driver::Memory;
use crate::tls::{ClientTls, ResumingTls};

/// So many are remembered, the oldest forgotten first.
const MAX_KNOWN: usize = 64;

/// One server, by the authority of its URL.
pub(super) struct Known {
    pub(super) tls: ResumingTls,
    pub(super) memory: Arc<Memory>,
}

#[derive(Default)]
pub(super) struct KnownServers(Mutex<VecDeque<(String, Arc<Known>)>>);

impl KnownServers {
    pub(super) fn get(&self, authority: &str, tls: &ClientTls) -> Arc<Known> {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = servers.iter().find(|(name, _)| name == authority) {
            return known.clone();
        }
        let known = Arc::new(Known {
            tls: tls.resuming(),
            memory: Arc::default(),
        });
        if servers.len() == MAX_KNOWN {
            servers.pop_front();
        }
        servers.push_back((authority.to_owned(), known.clone()));
        known
    }
}
