//! What servers count, through the facade `metrics`; without the feature of that name nothing. The names are documented in the
//! crate's root.

#![cfg_attr(not(feature = "metrics"), allow(clippy::unused_self, unused_variables))]

use http::{StatusCode, Version};
use wireloom_proto::webtransport::negotiate::Dialect;

use crate::error::SessionError;
use crate::limits::Refused;
use crate::quic::TransportStats;

/// What carries a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Carrier {
    Quic,
    Tcp,
}

#[cfg(feature = "metrics")]
impl Carrier {
    const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

macro_rules! count {
    ($name:literal $(, $label:literal => $value:expr)*; $n:expr) => {
        #[cfg(feature = "metrics")]
        ::metrics::counter!($name $(, $label => $value)*).increment($n)
    };
}

macro_rules! gauge {
    ($name:literal, $change:ident) => {
        #[cfg(feature = "metrics")]
        ::metrics::gauge!($name).$change(1.0)
    };
}

pub(crate) fn connection_began(carrier: Carrier) {
    count!("wireloom_connections_total", "carrier" => carrier.name(); 1);
}

/// By a limit, or without one by the application.
pub(crate) fn connection_refused(carrier: Carrier, limit: Option<Refused>) {
    #[cfg(feature = "metrics")]
    let by = match limit {
        Some(Refused::Total) => "total",
        Some(Refused::PerAddress) => "address",
        None => "application",
    };
    count!("wireloom_connections_refused_total", "carrier" => carrier.name(), "by" => by; 1);
}

pub(crate) fn handshake_failed(carrier: Carrier) {
    count!("wireloom_handshakes_failed_total", "carrier" => carrier.name(); 1);
}

/// A connection over QUIC has ended.
pub(crate) fn connection_ended(stats: &TransportStats) {
    count!("wireloom_quic_bytes_total", "direction" => "sent"; stats.bytes_sent);
    count!("wireloom_quic_bytes_total", "direction" => "received"; stats.bytes_received);
    count!("wireloom_quic_packets_total", "fate" => "sent"; stats.packets_sent);
    count!("wireloom_quic_packets_total", "fate" => "lost"; stats.packets_lost);
}

pub(crate) fn request(version: Version) {
    #[cfg(feature = "metrics")]
    let version = match version {
        Version::HTTP_3 => "3",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    count!("wireloom_requests_total", "version" => version; 1);
}

pub(crate) fn session_rejected(status: StatusCode) {
    count!("wireloom_sessions_rejected_total", "status" => status.as_str().to_owned(); 1);
}

/// Counted among the open connections until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(());

impl OpenConnection {
    pub(crate) fn new() -> Self {
        gauge!("wireloom_connections", increment);
        Self(())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!("wireloom_connections", decrement);
    }
}

/// A server's session, counted among the open ones until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenSession(());

impl OpenSession {
    pub(crate) fn new(dialect: Option<Dialect>) -> Self {
        count!("wireloom_sessions_total", "draft" => dialect.map_or("", draft); 1);
        gauge!("wireloom_sessions", increment);
        Self(())
    }

    pub(crate) fn ended(&self, error: &SessionError) {
        count!("wireloom_sessions_ended_total", "how" => how(error); 1);
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        gauge!("wireloom_sessions", decrement);
    }
}

#[cfg(feature = "metrics")]
const fn draft(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Draft02 => "02",
        Dialect::Draft07 => "07",
        Dialect::Draft13 => "13",
        Dialect::Draft15 => "15",
    }
}

#[cfg(feature = "metrics")]
const fn how(error: &SessionError) -> &'static str {
    match error {
        SessionError::Closed { .. } => "client",
        SessionError::LocallyClosed { .. } => "server",
        SessionError::Reset { .. } | SessionError::Stopped { .. } => "reset",
        SessionError::PeerMisbehaved { .. } => "misbehaved",
        // An accepted session was not rejected.
        SessionError::Connection(_) | SessionError::Rejected { .. } => "connection",
    }
}
