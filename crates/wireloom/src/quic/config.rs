//! QUIC settings, and how they become quinn-proto's.

#[cfg(feature = "qlog")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto as qp;

use super::socket::MAX_BATCH;

/// More than any idle timeout, and what a clock can count.
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(24 * 60 * 60);

/// How fast is sent when the network is the limit (RFC 9002 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CongestionControl {
    /// CUBIC (RFC 9438): the default, as of nearly everybody.
    #[default]
    Cubic,
    /// NewReno (RFC 9002 section 7.3): simpler, slower to fill long and fast paths.
    NewReno,
    /// BBR: by the bandwidth and the round trip that it measures, not by loss. Keeps queues short and bears random loss, but
    /// is experimental in the QUIC library, and may take more than its share.
    Bbr,
}

impl CongestionControl {
    fn factory(self) -> Arc<dyn qp::congestion::ControllerFactory + Send + Sync> {
        use qp::congestion::{BbrConfig, CubicConfig, NewRenoConfig};
        match self {
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::NewReno => Arc::new(NewRenoConfig::default()),
            Self::Bbr => Arc::new(BbrConfig::default()),
        }
    }
}

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
    pub(crate) congestion: CongestionControl,
    /// Server: whether clients may move to other addresses.
    pub(crate) migration: bool,
    /// Server: which of how many processes on the port this is, to be read from its connection ids.
    pub(crate) route: Option<(u8, u8)>,
    /// Where a trace of each connection is written.
    #[cfg(feature = "qlog")]
    pub(crate) qlog_dir: Option<PathBuf>,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30),
            keep_alive: None,
            // "the transport parameters sent by both clients and servers MUST allow the peer to create at least three
            // unidirectional streams" (RFC 9114 section 6.2).
            streams: 100,
            stream_window: 2 << 20,
            connection_window: 16 << 20,
            send_window: 8 << 20,
            datagram_buffer: 1 << 20,
            max_mtu: 1452,
            congestion: CongestionControl::default(),
            migration: true,
            route: None,
            #[cfg(feature = "qlog")]
            qlog_dir: None,
        }
    }
}

impl QuicConfig {
    /// What of the connection's window sessions may have, so that something is left for requests.
    pub(crate) fn window_of_sessions(&self) -> u64 {
        let reserve = (self.connection_window / 8).min(2 << 20);
        u64::from(self.connection_window - reserve)
    }

    /// As many tasks on one port as connection ids can tell apart beside other processes', `wanted` at most.
    pub(crate) fn possible_shards(&self, wanted: usize) -> usize {
        let (_, processes) = self.route.unwrap_or((0, 1));
        wanted.clamp(1, usize::from(u8::MAX / processes))
    }

    pub(super) fn transport(&self) -> qp::TransportConfig {
        let mut transport = qp::TransportConfig::default();
        let mut discovery = qp::MtuDiscoveryConfig::default();
        // From 1200 by way of 1326 straight to 1452, instead of by halves in five probes; at worst 4 % of a packet is left. Probes are
        // nearly all padding, which costs its receiver more than data: a fifth of a short session's time.
        discovery.upper_bound(self.max_mtu).minimum_change(64);
        transport
            .max_idle_timeout(qp::IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(self.keep_alive.map(|interval| interval.min(LONGEST_KEEP_ALIVE)))
            .max_concurrent_bidi_streams(self.streams.into())
            .max_concurrent_uni_streams(self.streams.into())
            .stream_receive_window(self.stream_window.into())
            .receive_window(self.connection_window.into())
            .send_window(self.send_window)
            .datagram_receive_buffer_size(Some(2 * MAX_BATCH))
            .datagram_send_buffer_size(self.datagram_buffer)
            .mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(self.congestion.factory());
        transport
    }
}

/// What all connections of an endpoint share.
pub(crate) fn endpoint_config(quic: &QuicConfig) -> qp::EndpointConfig {
    let mut config = qp::EndpointConfig::default();
    // What we are ready to receive; the range of the setting makes failure impossible.
    let _ = config.max_udp_payload_size(quic.max_mtu.max(1472));
    config
}

/// What the connections of a server begin with.
#[derive(Clone)]
pub(crate) struct ServerConfig {
    pub(super) config: Arc<qp::ServerConfig>,
    #[cfg(feature = "qlog")]
    pub(super) quic: QuicConfig,
}

/// `None` if `tls` lacks the suite that QUIC's Initial packets need.
pub(crate) fn server_config(quic: &QuicConfig, tls: Arc<rustls::ServerConfig>) -> Option<ServerConfig> {
    let crypto = qp::crypto::rustls::QuicServerConfig::try_from(tls).ok()?;
    let mut config = qp::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(quic.transport()))
        .migration(quic.migration);
    Some(ServerConfig {
        config: Arc::new(config),
        #[cfg(feature = "qlog")]
        quic: quic.clone(),
    })
}

impl ServerConfig {
    /// The settings of one connection, where they are not those of all.
    pub(super) fn for_connection(&self, _incoming: &qp::Incoming) -> Option<Arc<qp::ServerConfig>> {
        #[cfg(feature = "qlog")]
        if let Some(dir) = &self.quic.qlog_dir {
            let stream = super::qlog::open(dir, _incoming.orig_dst_cid(), "server")?;
            let mut transport = self.quic.transport();
            transport.qlog_stream(Some(stream));
            let mut config = (*self.config).clone();
            config.transport_config(Arc::new(transport));
            return Some(Arc::new(config));
        }
        None
    }
}

/// `None` if `tls` lacks the suite that QUIC's Initial packets need.
pub(crate) fn client_config(quic: &QuicConfig, tls: Arc<rustls::ClientConfig>) -> Option<qp::ClientConfig> {
    let crypto = qp::crypto::rustls::QuicClientConfig::try_from(tls).ok()?;
    let mut config = qp::ClientConfig::new(Arc::new(crypto));
    #[allow(unused_mut)]
    let mut transport = quic.transport();
    #[cfg(feature = "qlog")]
    if let Some(dir) = &quic.qlog_dir {
        // Chosen here, since the trace is named after it.
        let id = super::qlog::connection_id();
        config.initial_dst_cid_provider(Arc::new(move || id));
        transport.qlog_stream(super::qlog::open(dir, &id, "client"));
    }
    config.transport_config(Arc::new(transport));
    Some(config)
}

#[cfg(test)]
mod tests {
    use qp::congestion::{Bbr, Controller, Cubic, NewReno};

    use super::*;

    fn controller(congestion: CongestionControl) -> Box<dyn Controller> {
        congestion.factory().build(std::time::Instant::now(), 1200)
    }

    #[test]
    fn no_more_shards_than_a_byte_can_tell() {
        let possible = |wanted, route| {
            QuicConfig {
                route,
                ..QuicConfig::default()
            }
            .possible_shards(wanted)
        };
        assert_eq!((possible(4, None), possible(0, None)), (4, 1));
        assert_eq!((possible(1000, None), possible(1000, Some((3, 100)))), (255, 2));
    }

    #[test]
    fn the_controller_is_the_one_that_was_chosen() {
        use CongestionControl as C;
        assert!(controller(C::default()).into_any().is::<Cubic>());
        assert!(controller(C::NewReno).into_any().is::<NewReno>());
        assert!(controller(C::Bbr).into_any().is::<Bbr>());
    }
}
