//! One UDP socket with segmentation offload, receive offload, ECN and packet information.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use super::readiness::Readiness;

/// The most that one receive offload batch can hold.
pub(super) const RECV_BUFFER: usize = 65_535;
/// The most that one send call may carry: the UDP length field, less headers. Larger batches fail with EMSGSIZE.
const MAX_SEND: usize = 65_000;

/// Messages that a receive call asks for at least.
const MIN_BATCH: usize = if BATCH_SIZE < 4 { BATCH_SIZE } else { 4 };
/// The most that one batch of [`Socket::poll_recv`] can hold.
pub(super) const MAX_BATCH: usize = RECV_BUFFER * BATCH_SIZE;

pub(super) struct Socket {
    io: Readiness,
    state: UdpSocketState,
    buffers: Box<[u8]>,
    metas: Box<[RecvMeta; BATCH_SIZE]>,
    /// Messages that the next call asks for.
    batch: usize,
    /// Those of the last call that have not been taken.
    untaken: Range<usize>,
}

impl Socket {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        // The kernel's default of 208 KiB holds a few milliseconds at speed; it caps these at its own limit.
        let reference = socket2::SockRef::from(&socket);
        let _ = reference.set_recv_buffer_size(4 << 20);
        let _ = reference.set_send_buffer_size(4 << 20);
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let per_message = if state.gro_segments() > 1 { RECV_BUFFER } else { 2048 };
        Ok(Self {
            io: Readiness::new(socket)?,
            state,
            buffers: vec![0; per_message * BATCH_SIZE].into(),
            metas: Box::new([RecvMeta::default(); BATCH_SIZE]),
            batch: MIN_BATCH,
            untaken: 0..0,
        })
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// How many datagrams of `mtu` bytes one send may carry.
    pub(super) fn max_segments(&self, mtu: usize) -> usize {
        self.state.max_gso_segments().min(MAX_SEND / mtu.max(1)).max(1)
    }

    /// The next message of the last batch: possibly several datagrams of `meta.stride`.
    pub(super) fn next_message(&mut self) -> Option<(&RecvMeta, &[u8])> {
        let index = self.untaken.next()?;
        let per_message = self.buffers.len() / BATCH_SIZE;
        let meta = &self.metas[index];
        let message = &self.buffers[index * per_message..][..meta.len.min(per_message)];
        Some((meta, message))
    }

    /// Receives one batch, unless there is something left of the last one.
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.untaken.is_empty() {
            ready!(self.io.poll_readable(cx))?;
            let per_message = self.buffers.len() / BATCH_SIZE;
            let mut chunks = self.buffers.chunks_mut(per_message);
            let mut iovs: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let iovs = &mut iovs[..self.batch];
            let metas = &mut self.metas[..self.batch];
            let mut messages = 0;
            let received = self.io.try_read(|socket| {
                messages = self.state.recv(socket, iovs, metas)?;
                // A batch that is not full has emptied the socket: saying so here spares the call that would find that out.
                // What arrives from now on is a new event.
                if messages < metas.len() {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match received {
                Err(e) if messages == 0 && e.kind() == io::ErrorKind::WouldBlock => continue,
                // ICMP errors surface here; an attacker can inject them, so they mean nothing to QUIC.
                Err(e) if is_icmp(&e) => continue,
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(e)),
                _ => {}
            }
            self.untaken = 0..messages;
            // Preparing a large batch costs a quiet socket more than it saves.
            self.batch = if messages == self.batch {
                (self.batch * 4).min(BATCH_SIZE)
            } else {
                (messages + 1).max(MIN_BATCH)
            };
        }
        Poll::Ready(Ok(()))
    }

    /// `false` if the socket is full: call [`Self::poll_writable`] and try again.
    pub(super) fn try_send(&mut self, transmit: &quinn_proto::Transmit, contents: &[u8]) -> bool {
        let message = Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|e| EcnCodepoint::from_bits(e as u8)),
            contents: &contents[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let segments = self.state.max_gso_segments();
        match self.io.try_write(|socket| self.state.try_send(socket, &message)) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
            Err(e) => {
                // Loss as far as QUIC is concerned: an MTU probe that is too big, a route that is gone.
                tracing::trace!(error = %e, destination = %transmit.destination, "send failed");
                if self.state.max_gso_segments() < segments {
                    self.judge_offload(&message);
                }
                true
            }
        }
    }

    /// quinn-udp has taken the error of `message` for one of a device without segmentation offload, and does without it and
    /// without ECN from now on. But the address may be what is wrong, the peer's or our own that is gone: then a packet of it
    /// fails alone, too, and nothing is learned about the device.
    fn judge_offload(&mut self, message: &Transmit<'_>) {
        let alone = Transmit {
            contents: &message.contents[..message.segment_size.unwrap_or(message.contents.len())],
            segment_size: None,
            ..message.clone()
        };
        let sent = self.io.try_write(|socket| self.state.try_send(socket, &alone));
        if sent.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            // Where that fails the socket goes on as it is.
            let _ = self.io.try_write(|socket| {
                self.state = UdpSocketState::new(socket)?;
                Ok(())
            });
        }
    }

    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_writable(cx)
    }
}

fn is_icmp(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Nobody can be reached at these, and that says nothing about the device.
    #[tokio::test]
    async fn an_impossible_address_leaves_the_offloads() {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let somebody = socket.local_addr().expect("bound");
        let mut socket = Socket::new(socket).expect("a socket");
        let segments = socket.max_segments(1200);
        let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
        let not_ours: Option<IpAddr> = Some(Ipv6Addr::LOCALHOST.into());
        for (destination, src_ip) in [(nowhere, None), (somebody, not_ours)] {
            for segment_size in [None, Some(1200)] {
                let transmit = quinn_proto::Transmit {
                    destination,
                    ecn: None,
                    size: 2400,
                    segment_size,
                    src_ip,
                };
                assert!(socket.try_send(&transmit, &[0; 2400]), "it is lost");
                assert_eq!(socket.max_segments(1200), segments, "{transmit:?}");
            }
        }
    }
}
