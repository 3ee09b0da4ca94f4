//! The seam: one QUIC connection in the vocabulary of `wireloom-proto`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto as qp;
use rustls::pki_types::CertificateDer;
use wireloom_proto::{Code, Dir, Side, StreamId};

/// See [`Transport::follow_congestion`].
const MIN_AHEAD: u64 = 128 * 1024;

pub(crate) struct Transport {
    pub(super) inner: qp::Connection,
    pub(super) handle: qp::ConnectionHandle,
    /// Something was done that QUIC has to tell the peer.
    pending: bool,
    /// The space in the send buffer for datagrams while it is empty.
    datagram_capacity: usize,
}

/// What QUIC has to say.
#[derive(Debug)]
pub(crate) enum QuicEvent {
    /// Handshake complete.
    Connected,
    /// Nothing more will happen on this connection.
    Lost(LostReason),
    /// The peer has acknowledged everything of a finished stream.
    Delivered(StreamId),
    /// New streams of the peer may be accepted.
    Opened(Dir),
    /// A stream has data, its end or a reset to read.
    Readable(StreamId),
    /// A stream that blocked can be written.
    Writable(StreamId),
    /// The peer sent STOP_SENDING.
    Stopped(StreamId, Code),
    /// Streams may be opened that could not be before.
    Available(Dir),
    /// Datagrams arrived.
    Datagram,
    /// The datagram send buffer has room again.
    DatagramsUnblocked,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LostReason {
    /// CONNECTION_CLOSE from the peer's HTTP/3 layer.
    ClosedByPeer { code: Code, reason: Bytes },
    /// CONNECTION_CLOSE from the peer's QUIC layer; TLS alerts are among them.
    PeerTransport { code: u64, reason: Bytes },
    /// The peer broke QUIC's rules, or TLS failed here.
    Transport { code: u64, reason: String },
    /// A stateless reset: the peer forgot the connection.
    Reset,
    /// Nothing came for the idle timeout.
    TimedOut,
    /// No common QUIC version.
    Version,
    /// We closed it.
    Local,
}

/// How far [`Transport::read`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// `limit` was reached; there may be more.
    More,
    /// Nothing more now; [`QuicEvent::Readable`] follows.
    Blocked,
    /// FIN, after everything that was read.
    Finished,
    /// RESET_STREAM.
    Reset(Code),
    /// Stopped by us, or read to its end before.
    Closed,
}

/// Why a stream takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteEnd {
    /// Flow control or the send window; [`QuicEvent::Writable`] follows.
    Blocked,
    /// STOP_SENDING from the peer.
    Stopped(Code),
    /// Finished or reset by us.
    Closed,
}

/// Counters and estimates of one QUIC connection.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TransportStats {
    /// The current round-trip estimate.
    pub rtt: Duration,
    /// The smallest round trip seen.
    pub min_rtt: Duration,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets found lost.
    pub packets_lost: u64,
    /// Bytes of the packets found lost.
    pub bytes_lost: u64,
    /// Times that the congestion window was reduced.
    pub congestion_events: u64,
    /// UDP datagrams received.
    pub packets_received: u64,
    /// The congestion window, in bytes.
    pub congestion_window: u64,
    /// How fast queued data is sent, in bits per second: what the congestion controller paces at (BBR), or a congestion window
    /// for each round trip. `None` before the handshake is complete.
    pub estimated_send_rate: Option<u64>,
    /// The path MTU estimate, in bytes of UDP payload.
    pub mtu: u16,
    /// QUIC DATAGRAM frames sent.
    pub datagrams_sent: u64,
    /// QUIC DATAGRAM frames received.
    pub datagrams_received: u64,
}

fn to_qp(id: StreamId) -> qp::StreamId {
    let side = match id.initiator() {
        Side::Client => qp::Side::Client,
        Side::Server => qp::Side::Server,
    };
    qp::StreamId::new(side, dir_to_qp(id.dir()), id.index())
}

fn from_qp(id: qp::StreamId) -> StreamId {
    StreamId::from_u64(qp::VarInt::from(id).into_inner())
}

fn dir_to_qp(dir: Dir) -> qp::Dir {
    match dir {
        Dir::Bi => qp::Dir::Bi,
        Dir::Uni => qp::Dir::Uni,
    }
}

fn dir_from_qp(dir: qp::Dir) -> Dir {
    match dir {
        qp::Dir::Bi => Dir::Bi,
        qp::Dir::Uni => Dir::Uni,
    }
}

/// HTTP/3 codes are below 2^62 by construction; anything else would be our own error.
fn code_to_qp(code: Code) -> qp::VarInt {
    qp::VarInt::from_u64(code.into_u64()).unwrap_or(qp::VarInt::MAX)
}

fn code_from_qp(code: qp::VarInt) -> Code {
    Code::new(code.into_inner())
}

impl Transport {
    pub(super) fn new(mut inner: qp::Connection, handle: qp::ConnectionHandle) -> Self {
        let datagram_capacity = inner.datagrams().send_buffer_space();
        Self {
            inner,
            handle,
            pending: false,
            datagram_capacity,
        }
    }

    /// Whether there has been something to send since the last call.
    pub(super) fn take_pending(&mut self) -> bool {
        std::mem::take(&mut self.pending)
    }

    /// Has the endpoint look at the connection's deadlines again.
    pub(crate) fn wake(&mut self) {
        self.pending = true;
    }

    pub(crate) fn poll_event(&mut self) -> Option<QuicEvent> {
        use qp::{Event, StreamEvent};
        loop {
            return Some(match self.inner.poll()? {
                Event::HandshakeDataReady => continue,
                Event::Connected => QuicEvent::Connected,
                Event::ConnectionLost { reason } => QuicEvent::Lost(lost(reason)),
                Event::DatagramReceived => QuicEvent::Datagram,
                Event::DatagramsUnblocked => QuicEvent::DatagramsUnblocked,
                Event::Stream(event) => match event {
                    StreamEvent::Opened { dir } => QuicEvent::Opened(dir_from_qp(dir)),
                    StreamEvent::Readable { id } => QuicEvent::Readable(from_qp(id)),
                    StreamEvent::Writable { id } => QuicEvent::Writable(from_qp(id)),
                    StreamEvent::Finished { id } => QuicEvent::Delivered(from_qp(id)),
                    StreamEvent::Stopped { id, error_code } => {
                        QuicEvent::Stopped(from_qp(id), code_from_qp(error_code))
                    }
                    StreamEvent::Available { dir } => QuicEvent::Available(dir_from_qp(dir)),
                },
            });
        }
    }

    /// `None` while the peer's stream limit is reached, or before the handshake told it.
    pub(crate) fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.inner.streams().open(dir_to_qp(dir)).map(from_qp)
    }

    pub(crate) fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        self.inner.streams().accept(dir_to_qp(dir)).map(from_qp)
    }

    /// Moves up to about `limit` bytes of chunks into `out`. The flow-control credit goes to the peer with the next packets.
    pub(crate) fn read(&mut self, id: StreamId, limit: usize, out: &mut VecDeque<Bytes>) -> ReadEnd {
        let mut stream = self.inner.recv_stream(to_qp(id));
        let Ok(mut chunks) = stream.read(true) else {
            return ReadEnd::Closed;
        };
        let mut left = limit;
        let end = loop {
            if left == 0 {
                break ReadEnd::More;
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    out.push_back(chunk.bytes);
                }
                Ok(None) => break ReadEnd::Finished,
                Err(qp::ReadError::Blocked) => break ReadEnd::Blocked,
                Err(qp::ReadError::Reset(code)) => break ReadEnd::Reset(code_from_qp(code)),
            }
        };
        self.pending |= chunks.finalize().should_transmit();
        end
    }

    /// Moves one chunk of at most `limit` bytes into `out`, and leaves the end of the stream to a later call: until that, the
    /// stream counts against the peer's limit.
    pub(crate) fn read_one(&mut self, id: StreamId, limit: usize, out: &mut VecDeque<Bytes>) -> ReadEnd {
        let mut stream = self.inner.recv_stream(to_qp(id));
        let Ok(mut chunks) = stream.read(true) else {
            return ReadEnd::Closed;
        };
        let end = match chunks.next(limit) {
            Ok(Some(chunk)) => {
                out.push_back(chunk.bytes);
                ReadEnd::More
            }
            Ok(None) => ReadEnd::Finished,
            Err(qp::ReadError::Blocked) => ReadEnd::Blocked,
            Err(qp::ReadError::Reset(code)) => ReadEnd::Reset(code_from_qp(code)),
        };
        self.pending |= chunks.finalize().should_transmit();
        end
    }

    /// Takes what it can from the front of `data`. `Ok` once `data` is empty.
    pub(crate) fn write(&mut self, id: StreamId, data: &mut Bytes) -> Result<(), WriteEnd> {
        self.pending = true;
        let mut stream = self.inner.send_stream(to_qp(id));
        while !data.is_empty() {
            stream.write_chunks(std::slice::from_mut(data)).map_err(write_end)?;
        }
        Ok(())
    }

    /// Copies what it can of `data`; how much that was.
    pub(crate) fn write_slice(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteEnd> {
        self.pending = true;
        self.inner.send_stream(to_qp(id)).write(data).map_err(write_end)
    }

    pub(crate) fn finish(&mut self, id: StreamId) -> Result<(), WriteEnd> {
        self.pending = true;
        self.inner.send_stream(to_qp(id)).finish().map_err(|e| match e {
            qp::FinishError::Stopped(code) => WriteEnd::Stopped(code_from_qp(code)),
            qp::FinishError::ClosedStream => WriteEnd::Closed,
        })
    }

    /// Whether the peer has acknowledged everything of a stream that was finished.
    pub(crate) fn is_delivered(&mut self, id: StreamId) -> bool {
        self.inner.send_stream(to_qp(id)).stopped().is_err()
    }

    /// A no-op where the send side is over.
    pub(crate) fn reset(&mut self, id: StreamId, code: Code) {
        self.pending = true;
        let _ = self.inner.send_stream(to_qp(id)).reset(code_to_qp(code));
    }

    /// A no-op where the receive side is over.
    pub(crate) fn stop(&mut self, id: StreamId, code: Code) {
        self.pending = true;
        let _ = self.inner.recv_stream(to_qp(id)).stop(code_to_qp(code));
    }

    /// The peer's RESET_STREAM, if it came, without reading what came before it.
    pub(crate) fn received_reset(&mut self, id: StreamId) -> Option<Code> {
        self.inner
            .recv_stream(to_qp(id))
            .received_reset()
            .ok()
            .flatten()
            .map(code_from_qp)
    }

    /// With which code the peer has stopped a stream of which the sending half goes on here, if it has.
    pub(crate) fn stopped(&mut self, id: StreamId) -> Option<Code> {
        let stopped = self.inner.send_stream(to_qp(id)).stopped();
        stopped.ok().flatten().map(code_from_qp)
    }

    /// How much may be written ahead of what is acknowledged, in bytes.
    pub(crate) fn set_send_window(&mut self, bytes: u64) {
        self.inner.set_send_window(bytes);
    }

    /// Takes no more ahead than the network is about to, within `most` bytes: what is in flight, as much again so that a lost
    /// packet stops nothing, and a little for the path's first round trips.
    pub(crate) fn follow_congestion(&mut self, most: u64) {
        let window = self.inner.congestion_state().window();
        self.inner
            .set_send_window(window.saturating_mul(2).saturating_add(MIN_AHEAD).min(most));
    }

    /// Higher first; 0 to begin with.
    pub(crate) fn set_priority(&mut self, id: StreamId, priority: i32) {
        let _ = self.inner.send_stream(to_qp(id)).set_priority(priority);
    }

    /// `false` if the send buffer is full, which only happens without `drop_oldest`; [`QuicEvent::DatagramsUnblocked`]
    /// follows. The caller has checked the size.
    pub(crate) fn send_datagram(&mut self, data: Bytes, drop_oldest: bool) -> bool {
        self.pending = true;
        !matches!(
            self.inner.datagrams().send(data, drop_oldest),
            Err(qp::SendDatagramError::Blocked(_))
        )
    }

    /// How many more bytes of datagrams the send buffer takes.
    pub(crate) fn datagram_space(&mut self) -> usize {
        self.inner.datagrams().send_buffer_space()
    }

    /// About how many bytes of datagrams wait in the send buffer.
    pub(crate) fn datagram_backlog(&mut self) -> usize {
        self.datagram_capacity.saturating_sub(self.datagram_space())
    }

    pub(crate) fn recv_datagram(&mut self) -> Option<Bytes> {
        self.inner.datagrams().recv()
    }

    /// The largest QUIC datagram that can be sent now; `None` if the peer takes none.
    pub(crate) fn max_datagram_size(&mut self) -> Option<usize> {
        self.inner.datagrams().max_size()
    }

    pub(crate) fn close(&mut self, now: Instant, code: Code, reason: &[u8]) {
        self.pending = true;
        self.inner.close(now, code_to_qp(code), Bytes::copy_from_slice(reason));
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// Streams of the peer in direction `dir` that are not over.
    pub(crate) fn remote_open_streams(&mut self, dir: Dir) -> u64 {
        self.inner.streams().remote_open_streams(dir_to_qp(dir))
    }

    /// Streams with a sending half of which the peer has not acknowledged everything, unfinished ones among them.
    pub(crate) fn undelivered_streams(&mut self) -> u64 {
        self.inner.streams().send_streams() as u64
    }

    /// STREAM frames sent so far, retransmissions among them.
    pub(crate) fn stream_frames_sent(&self) -> u64 {
        self.inner.stats().frame_tx.stream
    }

    pub(crate) fn set_max_streams(&mut self, dir: Dir, count: u32) {
        self.pending = true;
        self.inner.set_max_concurrent_streams(dir_to_qp(dir), count.into());
    }

    pub(crate) fn stats(&self) -> TransportStats {
        let stats = self.inner.stats();
        let by_window = || {
            let rtt = stats.path.rtt.as_nanos().max(1);
            u64::try_from(u128::from(stats.path.cwnd) * 8_000_000_000 / rtt).unwrap_or(u64::MAX)
        };
        let pacing_rate = self
            .inner
            .congestion_state()
            .metrics()
            .pacing_rate
            .filter(|&rate| rate > 0);
        let is_measured = !self.inner.is_handshaking();
        TransportStats {
            rtt: self.inner.rtt(),
            min_rtt: self.inner.min_rtt(),
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
            bytes_lost: stats.path.lost_bytes,
            congestion_events: stats.path.congestion_events,
            packets_received: stats.udp_rx.datagrams,
            congestion_window: stats.path.cwnd,
            estimated_send_rate: is_measured.then(|| pacing_rate.unwrap_or_else(by_window)),
            mtu: stats.path.current_mtu,
            datagrams_sent: stats.frame_tx.datagram,
            datagrams_received: stats.frame_rx.datagram,
        }
    }

    /// RFC 5705 / RFC 8446 section 7.5. `false` before the handshake is complete or for an absurd length.
    pub(crate) fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> bool {
        self.inner
            .crypto_session()
            .export_keying_material(out, label, context)
            .is_ok()
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    /// Client: whether data can be sent before the handshake is complete (0-RTT).
    pub(crate) fn has_early_data(&self) -> bool {
        self.inner.side().is_client() && self.inner.has_0rtt() && self.inner.is_handshaking()
    }

    /// Client, after the handshake: whether data was sent early in vain. All streams are void then.
    pub(crate) fn early_data_rejected(&self) -> bool {
        self.inner.side().is_client() && self.inner.has_0rtt() && !self.inner.accepted_0rtt()
    }

    /// The peer's own certificate in DER, also where the handshake resumed an earlier one.
    pub(crate) fn peer_certificate(&self) -> Option<Vec<u8>> {
        Some(self.peer_certificates()?.first()?.to_vec())
    }

    /// That and those that came with it.
    pub(crate) fn peer_certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        let chain = self.inner.crypto_session().peer_identity()?;
        chain.downcast().ok().map(|chain| *chain)
    }

    /// Server: the name that the client asked for.
    pub(crate) fn server_name(&self) -> Option<String> {
        let data = self.inner.crypto_session().handshake_data()?;
        data.downcast::<qp::crypto::rustls::HandshakeData>().ok()?.server_name
    }

    /// The peer's transport parameters as they were on the wire, for `probe`.
    pub(crate) fn peer_transport_parameters(&self) -> Option<Bytes> {
        let parameters = self.inner.crypto_session().transport_parameters().ok().flatten()?;
        let mut out = Vec::new();
        parameters.write(&mut out);
        Some(out.into())
    }
}

fn write_end(error: qp::WriteError) -> WriteEnd {
    match error {
        qp::WriteError::Blocked => WriteEnd::Blocked,
        qp::WriteError::Stopped(code) => WriteEnd::Stopped(code_from_qp(code)),
        qp::WriteError::ClosedStream => WriteEnd::Closed,
    }
}

fn lost(reason: qp::ConnectionError) -> LostReason {
    use qp::ConnectionError as E;
    match reason {
        E::VersionMismatch => LostReason::Version,
        E::TransportError(e) => LostReason::Transport {
            code: u64::from(e.code),
            reason: e.to_string(),
        },
        E::ConnectionClosed(c) => LostReason::PeerTransport {
            code: u64::from(c.error_code),
            reason: c.reason,
        },
        E::ApplicationClosed(c) => LostReason::ClosedByPeer {
            code: code_from_qp(c.error_code),
            reason: c.reason,
        },
        E::Reset => LostReason::Reset,
        E::TimedOut => LostReason::TimedOut,
        E::LocallyClosed => LostReason::Local,
        E::CidsExhausted => LostReason::Transport {
            code: 0,
            reason: "connection ids exhausted".into(),
        },
    }
}
