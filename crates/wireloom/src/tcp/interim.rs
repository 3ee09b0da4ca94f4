//! Interim responses over HTTP/1.1, which hyper does not send: they go between its writes, straight to the socket.
//!
//! hyper answers one request of a connection after the other. While one is unanswered, its buffer is empty whenever it flushes
//! the socket: that is where an interim response fits. The response is held back until those before it are written.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BufMut as _, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::early_hints::EarlyHintsError;

/// Bytes that may wait for the socket.
const MAX_WAITING: usize = 64 * 1024;

/// What waits to be said between the responses of one connection.
#[derive(Default)]
pub(crate) struct InterimLine {
    state: Mutex<State>,
    /// Something waits, or is written in part.
    is_waiting: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Requests so far; the last of them is the one that is being answered.
    requests: u64,
    is_open: bool,
    waiting: BytesMut,
    /// The first bytes of `waiting` belong to one of which some are written.
    has_begun: bool,
    /// The connection's task.
    task: Option<Waker>,
}

impl InterimLine {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come; its number.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.state();
        state.requests += 1;
        state.is_open = true;
        state.requests
    }

    /// Who is told when there is something to write.
    fn register(&self, waker: &Waker) {
        let mut state = self.state();
        match &mut state.task {
            Some(task) => task.clone_from(waker),
            task => *task = Some(waker.clone()),
        }
    }

    /// The response is there: nothing more is taken, and what was taken is written first.
    pub(super) async fn end(&self) {
        self.state().is_open = false;
        poll_fn(|cx| {
            if !self.is_waiting.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            // In the same turn of hyper, which flushes while the service is pending.
            self.register(cx.waker());
            if self.is_waiting.load(Ordering::Acquire) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    pub(crate) fn push(&self, request: u64, status: StatusCode, fields: &HeaderMap) -> Result<(), EarlyHintsError> {
        let mut state = self.state();
        if !state.is_open || state.requests != request {
            return Err(EarlyHintsError::Late);
        }
        let lines = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        if state.waiting.len() + lines.sum::<usize>() > MAX_WAITING {
            return Err(EarlyHintsError::Fields);
        }
        let out = &mut state.waiting;
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(status.as_str().as_bytes());
        out.put_slice(b" ");
        out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        out.put_slice(b"\r\n");
        for (name, value) in fields {
            out.put_slice(name.as_str().as_bytes());
            out.put_slice(b": ");
            out.put_slice(value.as_bytes());
            out.put_slice(b"\r\n");
        }
        out.put_slice(b"\r\n");
        self.is_waiting.store(true, Ordering::Release);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Ok(())
    }
}

/// The socket of an HTTP/1.1 connection.
pub(super) struct Interim<T> {
    io: T,
    line: Arc<InterimLine>,
}

impl<T> Interim<T> {
    pub(super) fn new(io: T) -> (Self, Arc<InterimLine>) {
        let line = Arc::<InterimLine>::default();
        let this = Self { io, line: line.clone() };
        (this, line)
    }
}

impl<T: AsyncWrite + Unpin> Interim<T> {
    /// Writes what waits: at a flush all of it, in between only what was begun.
    fn poll_waiting(&mut self, cx: &mut Context<'_>, is_flush: bool) -> Poll<io::Result<()>> {
        if !self.line.is_waiting.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.line.state();
        while !state.waiting.is_empty() && (is_flush || state.has_begun) {
            // Whoever sends more meanwhile finds that this task is awake, or will be.
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &state.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            state.waiting.advance(written);
            state.has_begun = !state.waiting.is_empty();
        }
        if state.waiting.is_empty() {
            state.waiting = BytesMut::new();
            self.line.is_waiting.store(false, Ordering::Release);
            let task = state.task.take();
            drop(state);
            if let Some(task) = task {
                task.wake();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Interim<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Interim<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_waiting(cx, false))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx, true))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_waiting(cx, false))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

/// Polls a service's future so that the connection's task is woken for interim responses too.
pub(super) async fn answered<F: Future>(line: &InterimLine, answer: F) -> F::Output {
    let mut answer = std::pin::pin!(answer);
    poll_fn(|cx| {
        let polled = answer.as_mut().poll(cx);
        // After the first poll, so that one that is ready at once costs nothing.
        if polled.is_pending() {
            line.register(cx.waker());
        }
        polled
    })
    .await
}
