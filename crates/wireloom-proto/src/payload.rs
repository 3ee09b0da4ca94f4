//! Collecting the payload of a frame or capsule of known length from input that may be cut anywhere.

use bytes::{Buf, Bytes, BytesMut};

/// Up to `need` bytes, which the owner has checked against its limit before.
#[derive(Debug)]
pub(crate) struct Payload {
    need: usize,
    held: BytesMut,
}

impl Payload {
    pub(crate) fn new(need: usize) -> Self {
        // Nothing is reserved: an announced length costs the peer nothing, bytes that arrive do.
        Self {
            need,
            held: BytesMut::new(),
        }
    }

    /// The payload once it is complete: a slice of `input` where it came in one piece, else a copy.
    pub(crate) fn read(&mut self, input: &mut Bytes) -> Option<Bytes> {
        let missing = self.need - self.held.len();
        if self.held.is_empty() && input.len() >= missing {
            return Some(input.split_to(missing));
        }
        let here = missing.min(input.len());
        self.held.extend_from_slice(&input[..here]);
        input.advance(here);
        (here == missing).then(|| std::mem::take(&mut self.held).freeze())
    }
}

/// Drops up to `left` bytes of `input` and counts them off; true when none are left to drop.
pub(crate) fn skip(left: &mut u64, input: &mut Bytes) -> bool {
    let here = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    input.advance(here);
    *left -= here as u64;
    *left == 0
}
