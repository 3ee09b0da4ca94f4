//! The memory of what is received.
//!
//! Messages are of any size up to 64 KiB, and most are gone when the next ones come. From the general allocator such large
//! pieces may come from the end of the heap, which glibc gives back to the kernel when they are freed and then faults in again,
//! page by page: in every fourth process that cost a download 30 % of its throughput. So large ones are kept and used again.

use bytes::BytesMut;

use super::socket::RECV_BUFFER;

/// From this size on a message is copied into one of the buffers; whatever is left of it unread keeps the buffer's memory.
const LARGE: usize = RECV_BUFFER / 4;
/// Buffers that are kept, of [`RECV_BUFFER`] bytes each, once so many were in use at once.
const MOST: usize = 32;

#[derive(Default)]
pub(super) struct Buffers {
    kept: Vec<BytesMut>,
}

impl Buffers {
    /// A copy of `message`. Once all of it is dropped, a later one has its memory.
    pub(super) fn copy(&mut self, message: &[u8]) -> BytesMut {
        if message.len() < LARGE {
            return message.into();
        }
        let free = self
            .kept
            .iter_mut()
            .position(|buffer| buffer.try_reclaim(message.len()));
        let index = match free {
            Some(index) => index,
            None if self.kept.len() < MOST => {
                self.kept.push(BytesMut::with_capacity(RECV_BUFFER));
                self.kept.len() - 1
            }
            None => return message.into(),
        };
        let buffer = &mut self.kept[index];
        buffer.extend_from_slice(message);
        buffer.split()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_message_has_the_memory_of_one_that_is_gone() {
        let mut buffers = Buffers::default();
        let message = vec![7; RECV_BUFFER];
        let first = buffers.copy(&message);
        let second = buffers.copy(&message);
        assert_eq!((&first[..], &second[..]), (&message[..], &message[..]));
        let memory = first.as_ptr();
        assert_ne!(memory, second.as_ptr());
        // The last piece of a message keeps all of it.
        let piece = first.freeze().slice(..1);
        assert_ne!(buffers.copy(&message).as_ptr(), memory);
        drop(piece);
        assert_eq!(buffers.copy(&message).as_ptr(), memory);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut buffers = Buffers::default();
        let messages: Vec<_> = (0..MOST as u8 + 9).map(|i| buffers.copy(&[i; RECV_BUFFER])).collect();
        assert_eq!(buffers.kept.len(), MOST);
        assert!((0..).zip(&messages).all(|(i, message)| message[..] == [i; RECV_BUFFER]));
        buffers.copy(&[0; LARGE - 1]);
        assert!(
            buffers.kept.iter().all(|buffer| buffer.capacity() == 0),
            "small ones use none"
        );
    }
}
