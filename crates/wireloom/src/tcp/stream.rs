//! A byte stream that its connection's task can cut off, even after it was handed to the application by an upgrade.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Keeps a stream open from outside: dropping it makes every use of the stream fail.
pub(super) struct Owner {
    /// Wakes the task that reads.
    reader: oneshot::Sender<Infallible>,
    /// And that which writes, in another task perhaps.
    _writer: oneshot::Sender<Infallible>,
}

impl Owner {
    /// Waits until the stream was dropped.
    pub(super) async fn closed(mut self) {
        self.reader.closed().await;
    }
}

/// The stream. After its [`Owner`] is gone, reading and writing fail with `ConnectionAborted`.
pub(super) struct Owned<T> {
    io: T,
    /// For the task that reads.
    owner: oneshot::Receiver<Infallible>,
    /// For the one that writes.
    writing: oneshot::Receiver<Infallible>,
    /// Neither is asked any more.
    cut: bool,
}

impl<T> Owned<T> {
    pub(super) fn new(io: T) -> (Self, Owner) {
        let (reader, owner) = oneshot::channel();
        let (writer, writing) = oneshot::channel();
        let this = Self {
            io,
            owner,
            writing,
            cut: false,
        };
        (
            this,
            Owner {
                reader,
                _writer: writer,
            },
        )
    }

    /// Pending while the owner lives, and then wakes the task that asked last: whoever waits for data.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.cut {
            let Err(_gone) = ready!(Pin::new(&mut self.owner).poll(cx));
            self.cut = true;
        }
        Poll::Ready(())
    }

    fn is_cut(&mut self) -> bool {
        self.cut |= self.owner.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        self.cut
    }
}

impl<T: Unpin> Owned<T> {
    /// What writing came to; where it has to wait, it does not wait longer than the owner lives.
    fn poll_write_or_cut<R>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if self.is_cut() {
            return Poll::Ready(Err(aborted()));
        }
        let written = write(Pin::new(&mut self.io), cx);
        if written.is_pending() && Pin::new(&mut self.writing).poll(cx).is_ready() {
            self.cut = true;
            return Poll::Ready(Err(aborted()));
        }
        written
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server is shutting down")
}

impl<T: AsyncRead + Unpin> AsyncRead for Owned<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.poll_cut(cx).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Owned<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_or_cut(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_or_cut(cx, T::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_or_cut(cx, T::poll_shutdown)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_or_cut(cx, |io, cx| {
            let mut joined = [0; JOINED];
            match join(bufs, &mut joined) {
                Some(joined) => io.poll_write(cx, joined),
                None => io.poll_write_vectored(cx, bufs),
            }
        })
    }
}

/// Up to how many bytes, such as a head and a small body, are written as one slice: the copy costs less than what the kernel
/// does for each slice.
const JOINED: usize = 2048;

/// `None` if they are too large.
fn join<'j>(bufs: &[io::IoSlice<'_>], joined: &'j mut [u8; JOINED]) -> Option<&'j [u8]> {
    // Before the copy, which a large body would have in vain.
    if bufs.iter().map(|buf| buf.len()).sum::<usize>() > JOINED {
        return None;
    }
    let mut length = 0;
    for buf in bufs {
        joined.get_mut(length..length + buf.len())?.copy_from_slice(buf);
        length += buf.len();
    }
    joined.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_slices_are_joined_in_their_order() {
        let slices = |sizes: &[usize]| -> Vec<u8> {
            let bytes: Vec<Vec<u8>> = sizes.iter().zip(1..).map(|(&size, byte)| vec![byte; size]).collect();
            let slices: Vec<_> = bytes.iter().map(|bytes| io::IoSlice::new(bytes)).collect();
            join(&slices, &mut [0; JOINED]).map(<[u8]>::to_vec).unwrap_or_default()
        };
        assert_eq!(slices(&[2, 0, 1]), [1, 1, 3]);
        assert_eq!(slices(&[2000, 48]).len(), JOINED);
        assert!(slices(&[2000, 49]).is_empty());
        assert!(slices(&[2000, usize::from(u16::MAX), 1]).is_empty());
    }
}
