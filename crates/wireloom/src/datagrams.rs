//! What becomes of datagrams that have to wait.

use std::time::Duration;

/// How long and how many datagrams of a session wait, on this end (as `WebTransportDatagramDuplexStream` of the W3C API).
///
/// ```no_run
/// # fn f(session: wireloom::Session) {
/// let mut policy = session.datagram_policy();
/// policy.outgoing_max_age = Some(std::time::Duration::from_millis(100)); // older is of no use
/// session.set_datagram_policy(policy);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramPolicy {
    /// Datagrams that have waited longer than this are not sent, but dropped. Default `None`: none is too old. With an age,
    /// and with a smaller `outgoing_limit` than the default, QUIC is given only 16 KiB of datagrams at a time; else what the
    /// one session of a connection sends waits there first, up to 1 MiB, and is sent however old it is.
    pub outgoing_max_age: Option<Duration>,
    /// So many datagrams wait to be sent; beyond that [`send_datagram`](crate::Session::send_datagram) drops the oldest of the
    /// session and [`send_datagram_wait`](crate::Session::send_datagram_wait) waits. Default 1024, at least 1. What QUIC was
    /// given (see `outgoing_max_age`) is not counted.
    pub outgoing_limit: usize,
    /// Datagrams that have waited longer than this are not received, but dropped. Default `None`: none is too old.
    pub incoming_max_age: Option<Duration>,
    /// So many datagrams wait to be received; beyond that the oldest is dropped. Default no limit but that on their bytes
    /// ([`datagram_queue`](crate::ServerBuilder::datagram_queue)).
    pub incoming_limit: usize,
}

impl DatagramPolicy {
    /// Whether it allows less to wait on the way out than the default.
    pub(crate) fn limits_outgoing(&self) -> bool {
        self.outgoing_max_age.is_some() || self.outgoing_limit < Self::default().outgoing_limit
    }
}

impl Default for DatagramPolicy {
    fn default() -> Self {
        Self {
            outgoing_max_age: None,
            outgoing_limit: 1024,
            incoming_max_age: None,
            incoming_limit: usize::MAX,
        }
    }
}

/// Datagrams of a session that were dropped on this end, since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramCounts {
    /// Not sent, because too many waited or the path's MTU shrank. What QUIC had been given by then is not counted.
    pub dropped_outgoing: u64,
    /// Not sent, because too old.
    pub expired_outgoing: u64,
    /// Not received, because too many waited.
    pub dropped_incoming: u64,
    /// Not received, because too old.
    pub expired_incoming: u64,
}
