//! What the readers of frames and capsules share: collecting a payload of known length from input that may be cut anywhere,
//! and counting what has no effect.

use std::time::{Duration, Instant};

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

/// How long frames and capsules without effect are counted before that begins anew: who sends one now and then, to keep a
/// connection alive, may do so for ever.
const IDLE_WINDOW: Duration = Duration::from_secs(10);

/// Frames or capsules without effect since the last one with effect, within [`IDLE_WINDOW`].
#[derive(Debug, Default)]
pub(crate) struct Idle {
    count: u32,
    since: Option<Instant>,
}

impl Idle {
    pub(crate) const fn new() -> Self {
        Self { count: 0, since: None }
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    pub(crate) const fn add(&mut self) {
        self.count = self.count.saturating_add(1);
    }

    pub(crate) const fn clear(&mut self) {
        self.count = 0;
    }

    /// What is added from here on comes at `now`.
    pub(crate) fn at(&mut self, now: Instant) {
        let is_over = |since| now.saturating_duration_since(since) > IDLE_WINDOW;
        if self.since.is_none_or(is_over) {
            *self = Self {
                count: 0,
                since: Some(now),
            };
        }
    }
}
