//! QUIC: the only module that names the QUIC library (quinn-proto for the protocol, quinn-udp for the sockets).
//!
//! One [endpoint task](task) owns one UDP socket and drives every connection on it: it receives a batch, routes it,
//! lets each touched connection's [`Application`] react, then transmits. What sits above QUIC (HTTP/3) is an `Application`
//! and sees a connection only through [`Transport`], in the vocabulary of `wireloom-proto`.

mod buffers;
mod config;
mod endpoint;
mod inbox;
#[cfg(feature = "qlog")]
mod qlog;
mod readiness;
mod ready;
mod routed_ids;
mod routing;
mod shards;
mod socket;
mod task;
#[cfg(test)]
mod tests;
mod timers;
mod transport;

pub use config::CongestionControl;
pub(crate) use config::{QuicConfig, client_config, server_config};
pub(crate) use endpoint::{Acceptor, Admission, DialError, Endpoint, NoAcceptor};
pub(crate) use ready::Slot;
pub use transport::TransportStats;
pub(crate) use transport::{LostReason, QuicEvent, ReadEnd, Transport, WriteEnd};

use std::time::Instant;

use crate::wake::WakeList;

/// What follows when QUIC has sent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It was given more.
    More,
    /// Perhaps more when the tasks that were woken have run: ask again then.
    Later,
    /// Nothing.
    Nothing,
}

/// What runs on top of one QUIC connection, under that connection's lock.
pub(crate) trait Application: Send + 'static {
    /// Drains [`Transport::poll_event`] and reacts. Called after every QUIC input and every expired timer. Whether there
    /// was an event.
    fn process(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) -> bool;
    /// QUIC has sent all that it may, and has no event left.
    fn sent_all(&mut self, quic: &mut Transport, wakes: &mut WakeList) -> Rest;
    /// When `handle_timeout` wants to be called.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The deadline passed.
    fn handle_timeout(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList);
    /// The endpoint wants to end: close now if nobody uses the connection, else as soon as that is so.
    fn wind_down(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList);
    /// QUIC has forgotten the connection, some time after its end: it costs the endpoint nothing any more.
    fn forgotten(&mut self);
    /// The endpoint is gone (its task was dropped with the runtime): nothing will ever happen again.
    fn endpoint_lost(&mut self, wakes: &mut WakeList);
}
