//! The servers that a client has spoken with, to come back to them with early data.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::pki_types::UnixTime;

use crate::driver::Memory;
use crate::tls::{ClientTls, Verdicts};

/// So many are remembered, the oldest forgotten first.
const MAX_KNOWN: usize = 64;

/// One server, by the authority of its URL and the address where it answered: another address has to prove that anybody is there,
/// and uses up no ticket of this one.
pub(super) struct Known {
    pub(super) tls: (ClientConfig, Arc<Verdicts>),
    pub(super) memory: Arc<Memory>,
}

#[derive(Default)]
pub(super) struct KnownServers(Mutex<VecDeque<(String, SocketAddr, Arc<Known>)>>);

impl KnownServers {
    pub(super) fn get(&self, authority: &str, address: SocketAddr, tls: &ClientTls, now: UnixTime) -> Arc<Known> {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // TLS does not look at a certificate again when it resumes a connection.
        servers.retain(|(.., known)| !known.tls.1.are_outdated(now));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::identity::Identity;
    use crate::tls::{ClientAuth, ServerTrust, quic_server_config};

    #[tokio::test]
    async fn a_server_is_forgotten_when_its_certificate_is_over() {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let identity = Identity::self_signed(["localhost"]).expect("a valid name");
        let trust = ServerTrust::Hashes(identity.certificate_hashes().iter().collect());
        let tls = ClientTls::new(&trust, None).expect("trust");
        let servers = KnownServers::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 443));
        let now = UnixTime::now();
        let after = |time: Duration| UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + time);
        let get = |now| servers.get("localhost", address, &tls, now);

        let known = get(now);
        let server = quic_server_config(&identity, &ClientAuth::None, false).expect("a configuration");
        let (near, far) = tokio::io::duplex(1 << 16);
        let connector = TlsConnector::from(Arc::new(known.tls.0.clone()));
        let name = ServerName::try_from("localhost").expect("a name");
        let (client, server) = tokio::join!(
            connector.connect(name, near),
            TlsAcceptor::from(Arc::new(server)).accept(far)
        );
        client.expect("a handshake");
        server.expect("a handshake");

        // Of at most 14 days some have passed, as clocks differ.
        assert!(Arc::ptr_eq(&known, &get(after(7 * DAY))));
        assert!(!Arc::ptr_eq(&known, &get(after(15 * DAY))));
    }
}
