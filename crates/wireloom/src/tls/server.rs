//! The server's TLS for TCP and for QUIC.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::{ALPN_H2, ALPN_H3, ALPN_HTTP11, ClientAuth, provider};
use crate::identity::Identity;
use crate::tcp::HttpVersions;

/// TLS 1.2 and 1.3, offering HTTP/2 before HTTP/1.1.
///
/// # Errors
/// Only when the crypto provider cannot make ticket keys, or has no use for the roots of clients.
pub(crate) fn tcp_server_config(
    identity: &Identity,
    clients: &ClientAuth,
    versions: HttpVersions,
) -> Result<ServerConfig, rustls::Error> {
    let alpn: &[&[u8]] = match versions {
        HttpVersions::Both => &[ALPN_H2, ALPN_HTTP11],
        HttpVersions::Http1 => &[ALPN_HTTP11],
        HttpVersions::Http2 => &[ALPN_H2],
    };
    server_config(identity, clients, &[&TLS13, &TLS12], alpn)
}

/// TLS 1.3 only, as QUIC demands (RFC 9001, section 4.2), offering HTTP/3.
///
/// With `early_data`, tickets are kept here and used once, so that nobody's early data is taken twice (RFC 8446 section 8.1);
/// and since they live no longer than this server, whose settings never change, those that they stand for are still the same.
/// "If the server cannot determine that the settings remembered by a client are compatible with its current settings,
/// it MUST NOT accept 0-RTT data" (RFC 9114 section 7.2.4.2).
/// So "its SETTINGS frame MUST NOT reduce any limits or alter any values that might be violated by the client with its
/// 0-RTT data" (RFC 9114 section 7.2.4.2), "the server MUST NOT reduce these initial flow control values from those
/// negotiated during the previous session" (draft 16 section 3.2), and of datagrams "they MUST send a
/// SETTINGS_H3_DATAGRAM setting greater than or equal to the value they sent to the client in the connection where they
/// sent them the NewSessionTicket message" (RFC 9297 section 2.1.1).
///
/// # Errors
/// Only when the crypto provider cannot make ticket keys, or has no use for the roots of clients.
pub(crate) fn quic_server_config(
    identity: &Identity,
    clients: &ClientAuth,
    early_data: bool,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = server_config(identity, clients, &[&TLS13], &[ALPN_H3])?;
    if early_data {
        config.ticketer = Arc::new(NoTickets);
        config.session_storage = ServerSessionMemoryCache::new(EARLY_CLIENTS);
        // The only value but 0 that QUIC knows (RFC 9001 section 4.6.1).
        config.max_early_data_size = u32::MAX;
    }
    Ok(config)
}

/// So many clients can come back with early data; the oldest are forgotten first.
const EARLY_CLIENTS: usize = 4096;

/// What clients keep by themselves can be used twice.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }
    fn lifetime(&self) -> u32 {
        0
    }
    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

fn server_config(
    identity: &Identity,
    clients: &ClientAuth,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match clients.verifier()? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(identity.resolver());
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // Tickets that the client keeps: resumption costs no memory here, however many clients there are.
    config.ticketer = Ticketer::new()?;
    // One is enough to come back once, and each costs the handshake time and packets.
    config.send_tls13_tickets = 1;
    // Early data can be replayed by whoever recorded it: not without being asked, and not with tickets that
    // outlive the settings: "If the server cannot determine that the settings remembered by a client are compatible with its
    // current settings, it MUST NOT accept 0-RTT data" (RFC 9114 section 7.2.4.2).
    config.max_early_data_size = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transport_offers_its_own_protocols() {
        let identity = Identity::self_signed(["localhost"]).expect("a valid name");
        let tcp = tcp_server_config(&identity, &ClientAuth::None, HttpVersions::Both).expect("a TCP configuration");
        assert_eq!(tcp.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        let quic = Arc::new(quic_server_config(&identity, &ClientAuth::None, false).expect("a QUIC configuration"));
        assert_eq!(quic.alpn_protocols, [b"h3".to_vec()]);
        // "If the server cannot determine that the settings remembered by a client are compatible with its current
        // settings, it MUST NOT accept 0-RTT data" (RFC 9114 section 7.2.4.2).
        assert_eq!(quic.max_early_data_size, 0);
        rustls::quic::ServerConnection::new(quic, rustls::quic::Version::V1, Vec::new()).expect("usable with QUIC");
    }
}
