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
    /// Datagrams that have waited longer than this are not sent, but dropped. Default `None`: none is too old. With an age
    /// QUIC is given only 16 KiB of datagrams at a time.
    pub outgoing_max_age: Option<Duration>,
    /// So many datagrams wait to be sent; beyond that [`send_datagram`](crate::Session::send_datagram) drops the oldest of the
    /// session and [`send_datagram_wait`](crate::Session::send_datagram_wait) waits. Default 1024, at least 1.
    pub outgoing_limit: usize,
    /// Datagrams that have waited longer than this are not received, but dropped. Default `None`: none is too old.
    pub incoming_max_age: Option<Duration>,
    /// So many datagrams wait to be received; beyond that the oldest is dropped. Default no limit but that on their bytes
    /// ([`datagram_queue`](crate::ServerBuilder::datagram_queue)).
    pub incoming_limit: usize,
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
    /// Not sent, because too many waited or the path's MTU shrank.
    pub dropped_outgoing: u64,
    /// Not sent, because too old.
    pub expired_outgoing: u64,
    /// Not received, because too many waited.
    pub dropped_incoming: u64,
    /// Not received, because too old.
    pub expired_incoming: u64,
}
