//! The memory of what is received.
//!
//! Messages are of any size up to 64 KiB, and most are gone when the next ones come. From the general allocator such large
//! pieces may come from the end of the heap, which glibc gives back to the kernel when they are freed and then faults in again,
//! page by page: in every fourth process that cost a download 30 % of its throughput. So large ones are kept and used again.
//!
//! A byte that nobody reads keeps all of its piece, and QUIC's limits count the packet that it came in. So only the kept buffers
//! hold several packets, of which there are few; the packets of other messages have a piece each.

use bytes::BytesMut;

use super::socket::RECV_BUFFER;

/// From this size on a message is copied into one of the buffers.
const LARGE: usize = RECV_BUFFER / 4;
/// Buffers that are kept, of [`RECV_BUFFER`] bytes each, once so many were in use at once.
const MOST: usize = 32;

#[derive(Default)]
pub(super) struct Buffers {
    kept: Vec<BytesMut>,
}

impl Buffers {
    /// Copies `message`, whose datagrams are of `stride` bytes: as a whole, or each datagram by itself.
    pub(super) fn copy(&mut self, message: &[u8], stride: usize, mut sink: impl FnMut(BytesMut)) {
        match self.free(message.len()) {
            Some(buffer) => {
                buffer.extend_from_slice(message);
                sink(buffer.split());
            }
            None => message.chunks(stride.max(1)).for_each(|datagram| sink(datagram.into())),
        }
    }

    /// A buffer for `len` bytes of which nothing is in use.
    fn free(&mut self, len: usize) -> Option<&mut BytesMut> {
        if len < LARGE {
            return None;
        }
        let free = self.kept.iter_mut().position(|buffer| buffer.try_reclaim(len));
        let index = match free {
            Some(index) => index,
            None if self.kept.len() < MOST => {
                self.kept.push(BytesMut::with_capacity(RECV_BUFFER));
                self.kept.len() - 1
            }
            None => return None,
        };
        self.kept.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Datagrams of as many bytes as this.
    const STRIDE: usize = 1400;

    fn copy(buffers: &mut Buffers, message: &[u8]) -> Vec<BytesMut> {
        let mut pieces = Vec::new();
        buffers.copy(message, STRIDE, |piece| pieces.push(piece));
        assert!(pieces.concat() == message, "all of it");
        pieces
    }

    #[test]
    fn a_large_message_has_the_memory_of_one_that_is_gone() {
        let mut buffers = Buffers::default();
        let message = vec![7; RECV_BUFFER];
        let mut copy = || copy(&mut buffers, &message).swap_remove(0);
        let first = copy();
        let second = copy();
        let memory = first.as_ptr();
        assert_ne!(memory, second.as_ptr());
        // The last piece of a message keeps all of it.
        let piece = first.freeze().slice(..1);
        assert_ne!(copy().as_ptr(), memory);
        drop(piece);
        assert_eq!(copy().as_ptr(), memory);
    }

    #[test]
    fn what_unread_bytes_keep_is_bounded() {
        let mut buffers = Buffers::default();
        // A byte of each message, and how much it keeps.
        let kept: Vec<_> = (0..1000)
            .map(|i| {
                let message = vec![i as u8; if i % 2 == 0 { RECV_BUFFER } else { LARGE - 1 }];
                let piece = copy(&mut buffers, &message).swap_remove(0);
                (piece.capacity(), piece.freeze().slice(..1))
            })
            .collect();
        assert_eq!(buffers.kept.len(), MOST);
        let bytes: usize = kept.iter().map(|(bytes, _)| bytes).sum();
        assert!(bytes <= MOST * RECV_BUFFER + kept.len() * STRIDE, "{bytes}");
    }

    #[test]
    fn what_is_small_uses_no_buffer() {
        let mut buffers = Buffers::default();
        copy(&mut buffers, &[0; LARGE - 1]);
        assert!(buffers.kept.is_empty());
    }
}
