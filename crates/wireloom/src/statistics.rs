//! What passed over a session and its streams: the W3C API's `getStats`, as far as QUIC's library tells.
//!
//! Not to be had from it: how much of a stream was sent or acknowledged, which datagrams were lost, the variation of the round
//! trip, and whether the connection is at its send capacity.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::quic::TransportStats;

/// Counters of a session, and those of the connection under it. What they count is the application's payload, without the
/// headers of WebTransport, HTTP/3 and QUIC.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SessionStats {
    /// The connection, which other sessions and requests may share.
    pub transport: TransportStats,
    /// Streams that this end opened.
    pub streams_opened: u64,
    /// Streams of the peer that came, accepted or not.
    pub streams_received: u64,
    /// Bytes that the application wrote to the session's streams, sent or not.
    pub bytes_written: u64,
    /// Bytes of the session's streams that were taken from QUIC, in order, whether the application has read them or not.
    pub bytes_received: u64,
    /// The session's datagrams.
    pub datagrams: DatagramStats,
}

/// Counters of a session's datagrams (`WebTransportDatagramStats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramStats {
    /// Taken over to be sent. Some of them may have been dropped or lost since.
    pub sent: u64,
    /// Received, whether the application has taken them or not.
    pub received: u64,
    /// Received, and dropped because the application did not take them in time (`droppedIncoming`).
    pub dropped_incoming: u64,
}

/// Counters of a sending stream (`WebTransportSendStreamStats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendStreamStats {
    /// Bytes that the application wrote (`bytesWritten`).
    pub bytes_written: u64,
}

/// Counters of a receiving stream (`WebTransportReceiveStreamStats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecvStreamStats {
    /// Bytes that were taken from QUIC, in order (`bytesReceived`): what has come beyond the read-ahead of 64 KiB is not among
    /// them yet.
    pub bytes_received: u64,
    /// Bytes that the application read (`bytesRead`).
    pub bytes_read: u64,
}

/// A counter that is changed under the connection's lock only, so that adding costs no more than on a plain number.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters behind [`SessionStats`].
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) streams_opened: Counter,
    pub(crate) streams_received: Counter,
    pub(crate) bytes_written: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) datagrams_sent: Counter,
    pub(crate) datagrams_received: Counter,
    pub(crate) datagrams_dropped_incoming: Counter,
}

impl Traffic {
    pub(crate) fn stats(&self, transport: TransportStats) -> SessionStats {
        SessionStats {
            transport,
            streams_opened: self.streams_opened.get(),
            streams_received: self.streams_received.get(),
            bytes_written: self.bytes_written.get(),
            bytes_received: self.bytes_received.get(),
            datagrams: DatagramStats {
                sent: self.datagrams_sent.get(),
                received: self.datagrams_received.get(),
                dropped_incoming: self.datagrams_dropped_incoming.get(),
            },
        }
    }
}
