//! QUIC settings, and how they become quinn-proto's.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto as qp;

use super::socket::MAX_BATCH;

/// QUIC transport settings of one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct QuicConfig {
    pub(crate) idle_timeout: Duration,
    pub(crate) keep_alive: Option<Duration>,
    /// Streams of each direction that the peer may have open at once, to start with.
    pub(crate) streams: u32,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) send_window: u64,
    /// Bytes of datagrams that wait to be sent. Received ones are moved to their session with each batch.
    pub(crate) datagram_buffer: usize,
    /// Largest UDP payload that MTU discovery tries.
    pub(crate) max_mtu: u16,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30),
            keep_alive: None,
            streams: 100,
            stream_window: 2 << 20,
            connection_window: 16 << 20,
            send_window: 8 << 20,
            datagram_buffer: 1 << 20,
            max_mtu: 1452,
        }
    }
}

impl QuicConfig {
    /// What of the connection's window sessions may have, so that something is left for requests.
    pub(crate) fn window_of_sessions(&self) -> u64 {
        let reserve = (self.connection_window / 8).min(2 << 20);
        u64::from(self.connection_window - reserve)
    }

    fn transport(&self) -> Arc<qp::TransportConfig> {
        let mut transport = qp::TransportConfig::default();
        let mut discovery = qp::MtuDiscoveryConfig::default();
        discovery.upper_bound(self.max_mtu);
        transport
            .max_idle_timeout(qp::IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(self.keep_alive)
            .max_concurrent_bidi_streams(self.streams.into())
            .max_concurrent_uni_streams(self.streams.into())
            .stream_receive_window(self.stream_window.into())
            .receive_window(self.connection_window.into())
            .send_window(self.send_window)
            .datagram_receive_buffer_size(Some(2 * MAX_BATCH))
            .datagram_send_buffer_size(self.datagram_buffer)
            .mtu_discovery_config(Some(discovery));
        Arc::new(transport)
    }
}

/// What all connections of an endpoint share.
pub(crate) fn endpoint_config(quic: &QuicConfig) -> Arc<qp::EndpointConfig> {
    let mut config = qp::EndpointConfig::default();
    // What we are ready to receive; the range of the setting makes failure impossible.
    let _ = config.max_udp_payload_size(quic.max_mtu.max(1472));
    Arc::new(config)
}

/// `None` if `tls` lacks the suite that QUIC's Initial packets need.
pub(crate) fn server_config(quic: &QuicConfig, tls: Arc<rustls::ServerConfig>) -> Option<Arc<qp::ServerConfig>> {
    let crypto = qp::crypto::rustls::QuicServerConfig::try_from(tls).ok()?;
    let mut config = qp::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(quic.transport());
    Some(Arc::new(config))
}

/// `None` if `tls` lacks the suite that QUIC's Initial packets need.
pub(crate) fn client_config(quic: &QuicConfig, tls: Arc<rustls::ClientConfig>) -> Option<qp::ClientConfig> {
    let crypto = qp::crypto::rustls::QuicClientConfig::try_from(tls).ok()?;
    let mut config = qp::ClientConfig::new(Arc::new(crypto));
    config.transport_config(quic.transport());
    Some(config)
}
