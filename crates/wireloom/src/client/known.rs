//! The servers that a client has spoken with, to come back to them with early data.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;

use crate::driver::Memory;
use crate::tls::{ClientTls, Rejections};

/// So many are remembered, the oldest forgotten first.
const MAX_KNOWN: usize = 64;

/// One server, by the authority of its URL and the address where it answered: another address has to prove that anybody is there,
/// and uses up no ticket of this one.
pub(super) struct Known {
    pub(super) tls: (ClientConfig, Arc<Rejections>),
    pub(super) memory: Arc<Memory>,
}

#[derive(Default)]
pub(super) struct KnownServers(Mutex<VecDeque<(String, SocketAddr, Arc<Known>)>>);

impl KnownServers {
    pub(super) fn get(&self, authority: &str, address: SocketAddr, tls: &ClientTls) -> Arc<Known> {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut each = servers.iter();
        if let Some((.., known)) = each.find(|(name, at, _)| *at == address && name == authority) {
            return known.clone();
        }
        let known = Arc::new(Known {
            tls: tls.resuming(),
            memory: Arc::default(),
        });
        if servers.len() == MAX_KNOWN {
            servers.pop_front();
        }
        servers.push_back((authority.to_owned(), address, known.clone()));
        known
    }
}
