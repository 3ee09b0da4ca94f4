//! Bytes that a transport has taken and the network has not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// What an idle connection keeps of the room that its last messages needed.
const KEPT: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    written: usize,
    /// Of all that ever was here.
    taken: u64,
}

impl Unsent {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// How many bytes the network has taken since the beginning.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Where what is to be sent is appended.
    pub(super) fn end(&mut self) -> &mut Vec<u8> {
        // Where a backlog never ends, what is written would stay for ever. It goes when it is half, so no byte is moved twice
        // for one that was written.
        if self.written > self.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        &mut self.bytes
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.len() > 0 {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.taken += written as u64;
        }
        self.written = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and no more.
    struct Full(usize, Vec<u8>);

    impl AsyncWrite for Full {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.0);
            if taken == 0 {
                return Poll::Pending;
            }
            self.0 -= taken;
            self.1.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_backlog_that_never_ends_keeps_only_what_is_unsent() {
        let mut unsent = Unsent::default();
        let mut network = Full(0, Vec::new());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut next = (0..=u8::MAX).cycle();
        for _ in 0..1000 {
            let missing = 5000 - unsent.len();
            unsent.end().extend(next.by_ref().take(missing));
            network.0 = 1000;
            assert!(unsent.poll_write(&mut cx, &mut network).is_pending());
            assert!(unsent.bytes.capacity() < 20_000, "{}", unsent.bytes.capacity());
        }
        assert_eq!(unsent.taken(), 1_000_000);
        assert!(network.1.iter().copied().eq((0..=u8::MAX).cycle().take(1_000_000)));
    }
}
