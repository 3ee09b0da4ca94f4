//! What the command line settles, as the server needs it.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;

/// Settings of one server.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) root_path: String,
    /// Requests, WebSockets and sessions at once; beyond that 503.
    pub(crate) concurrency: Option<usize>,
    /// Requests until the worker asks to be replaced.
    pub(crate) max_requests: Option<u64>,
    /// Bytes of a request's body; beyond that 413.
    pub(crate) max_body: Option<u64>,
    /// Bytes of a WebSocket message.
    pub(crate) max_message: usize,
    /// How long a WebSocket's client may be silent before it is asked whether it is there, and how long its answer may take.
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) ping_timeout: Option<Duration>,
    /// How long a session's task may go on after the session's end.
    pub(crate) session_grace: Duration,
    pub(crate) trusted_proxies: Option<TrustedProxies>,
    /// Sent with every response that has none of the name.
    pub(crate) headers: HeaderMap,
}

/// Whose forwarding headers are believed.
#[derive(Debug, Default)]
pub(crate) struct TrustedProxies {
    any: bool,
    networks: Vec<(IpAddr, u8)>,
    /// Names of peers that have no address, such as `unix`.
    names: Vec<String>,
}

impl TrustedProxies {
    /// `*`, addresses, networks as `10.0.0.0/8`, and names.
    pub(crate) fn parse(list: &[String]) -> Self {
        let mut trusted = Self::default();
        for entry in list.iter().map(|entry| entry.trim()) {
            let (host, bits) = entry
                .split_once('/')
                .map_or((entry, None), |(host, bits)| (host, Some(bits)));
            match (entry, host.parse::<IpAddr>()) {
                ("*", _) => trusted.any = true,
                (_, Ok(address)) => {
                    let all = if address.is_ipv4() { 32 } else { 128 };
                    let bits = bits.and_then(|bits| bits.parse().ok()).unwrap_or(all).min(all);
                    trusted.networks.push((address, bits));
                }
                _ => trusted.names.push(entry.to_owned()),
            }
        }
        trusted
    }

    pub(crate) fn trusts_any(&self) -> bool {
        self.any || self.names.iter().any(|name| name == "unix")
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.any
            || self
                .networks
                .iter()
                .any(|(network, bits)| contains(*network, *bits, address))
    }

    pub(crate) fn trusts_text(&self, host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => self.trusts(address),
            Err(_) => self.any || self.names.iter().any(|name| name == host),
        }
    }
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let bits = u32::from(bits);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u32::from(network) ^ u32::from(address))
                .checked_shr(32 - bits)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (u128::from(network) ^ u128::from(address))
                .checked_shr(128 - bits)
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}
