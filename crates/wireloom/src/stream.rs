//! WebTransport streams.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wireloom_proto::StreamId;

use crate::driver::IncomingStream;
use crate::error::{ReadError, ReadToEndError, SessionError, WriteError};
use crate::send_group::{ForeignSendGroup, SendGroup};
use crate::session::Handle;
use crate::statistics::{RecvStreamStats, SendStreamStats};

/// Taken from QUIC at once, so that a bulk reader takes the lock once per this much.
const READ_AHEAD: usize = 64 * 1024;

/// The sending half of a stream.
///
/// Dropping it before [`finish`](Self::finish) resets the stream with code 0, so that the peer never mistakes a cut
/// transfer for a complete one. It keeps the session alive.
///
/// It also implements [`AsyncWrite`], where shutting down means `finish` and flushing does nothing: QUIC sends what was
/// written as soon as it may.
pub struct SendStream {
    session: Arc<Handle>,
    id: StreamId,
    over: bool,
    /// Well over: not reset.
    finished: bool,
    /// Somebody asked whether everything was delivered.
    waited: bool,
    written: u64,
}

impl SendStream {
    pub(crate) fn new(session: Arc<Handle>, id: StreamId) -> Self {
        Self {
            session,
            id,
            over: false,
            finished: false,
            waited: false,
            written: 0,
        }
    }

    /// Writes some of `data`, waiting for room, and answers how many bytes were taken.
    ///
    /// Cancel safe: if the future is dropped before it resolves, nothing was taken.
    ///
    /// # Errors
    /// The peer stopped the stream, it is finished, or the session is over.
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll_write_slice(cx, data)).await
    }

    /// Writes all of `data`.
    ///
    /// Not cancel safe: if the future is dropped, an unknown part was written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        while !data.is_empty() {
            let written = self.write(data).await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Writes all of `chunk` without copying it.
    ///
    /// Not cancel safe: if the future is dropped, an unknown part was written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_chunk(&mut self, mut chunk: Bytes) -> Result<(), WriteError> {
        poll_fn(|cx| {
            if self.over {
                return Poll::Ready(Err(WriteError::Finished));
            }
            let Handle { conn, state, .. } = &*self.session;
            let before = chunk.len();
            let polled =
                conn.with(|quic, driver, wakes| driver.poll_write_chunk(quic, wakes, state, self.id, &mut chunk, cx));
            self.written += (before - chunk.len()) as u64;
            polled
        })
        .await
    }

    fn poll_write_slice(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, WriteError>> {
        if self.over {
            return Poll::Ready(Err(WriteError::Finished));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Handle { conn, state, .. } = &*self.session;
        let written =
            ready!(conn.with(|quic, driver, wakes| driver.poll_write(quic, wakes, state, self.id, data, cx)))?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    /// Ends the stream: everything that was written will be delivered, then its end. Returns at once.
    ///
    /// # Errors
    /// The peer stopped the stream, it is finished already, or the session is over.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        if self.over {
            return Err(WriteError::Finished);
        }
        self.over = true;
        let Handle { conn, state, .. } = &*self.session;
        conn.with(|quic, driver, wakes| {
            let finished = driver.finish_stream(quic, wakes, state, self.id);
            if finished.is_err() {
                driver.send_over(quic, wakes, state, self.id);
            }
            self.finished = finished.is_ok();
            finished
        })
    }

    /// Abandons the stream: the peer sees `code` (RESET_STREAM), and what it has not received yet may be lost. Does
    /// nothing once the stream is finished or reset.
    ///
    /// There is always a code here and in [`RecvStream::stop`]: "A WebTransport application MUST provide an error code
    /// for those operations" (draft 16 section 4.4).
    pub fn reset(&mut self, code: u32) {
        if !self.over {
            self.over = true;
            let Handle { conn, state, .. } = &*self.session;
            conn.with(|quic, driver, wakes| driver.reset_stream(quic, wakes, state, self.id, code));
        }
    }

    /// Sets the send order: while streams of a session's [send group](SendGroup) have bytes to send, those with a higher order
    /// go first, and those with the same order share evenly. 0 to begin with.
    ///
    /// It is obeyed on this end, for what is written and not yet given to QUIC (up to 256 KiB of each stream wait for their
    /// turn) and, where the connection carries only this session and no groups are used, inside QUIC too; what is in flight is
    /// in flight. Other sessions and requests of the connection have their share whatever the order. It can change at any
    /// time.
    pub fn set_send_order(&self, order: i64) {
        let Handle { conn, state, .. } = &*self.session;
        conn.with(|quic, driver, wakes| {
            driver.set_order(quic, wakes, state.id, self.id, self.over, |current| {
                current.order = order
            });
        });
    }

    /// The send order: 0 unless [`set_send_order`](Self::set_send_order) was called, and once the stream is finished or reset and
    /// nothing of it waits.
    #[doc(alias = "priority")]
    pub fn send_order(&self) -> i64 {
        let Handle { conn, .. } = &*self.session;
        let order = conn.with(|_, driver, _| driver.order(self.id, self.over));
        order.unwrap_or_default().order
    }

    /// [`set_send_order`](Self::set_send_order) with a smaller number.
    pub fn set_priority(&self, priority: i32) {
        self.set_send_order(priority.into());
    }

    /// Moves the stream to a send group, or with `None` back to those without one, which are a group of their own. The groups
    /// of a session share evenly, whatever their send orders.
    ///
    /// # Errors
    /// The group is another session's.
    pub fn set_send_group<'a>(&self, group: impl Into<Option<&'a SendGroup>>) -> Result<(), ForeignSendGroup> {
        let Handle { conn, state, .. } = &*self.session;
        let id = match group.into() {
            None => 0,
            Some(group) => group.id_in(state).ok_or(ForeignSendGroup)?,
        };
        conn.with(|quic, driver, wakes| {
            driver.set_order(quic, wakes, state.id, self.id, self.over, |current| current.group = id);
        });
        Ok(())
    }

    /// Waits until the peer wants no more of the stream, and answers with its code. Once the stream is finished or reset
    /// here, it only waits for the end of the session.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The session ended first.
    pub async fn stopped(&mut self) -> Result<Option<u32>, SessionError> {
        if self.over {
            return Err(self.session.state.closed().await);
        }
        let Handle { conn, state, .. } = &*self.session;
        poll_fn(|cx| conn.with(|_, driver, _| driver.poll_stopped(state, self.id, cx))).await
    }

    /// Waits until the peer's QUIC has acknowledged everything, the end included: call it after [`finish`](Self::finish); before,
    /// and after [`reset`](Self::reset), it only waits for the end of the session. That the application has read it is something
    /// that only the application can say.
    ///
    /// Call it before long: that the peer stopped a finished stream is remembered for the last 4096 such streams of the
    /// connection, and an older one counts as delivered.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The peer stopped the stream, or the session ended first.
    ///
    /// ```no_run
    /// # async fn example(session: wireloom::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut stream = session.open_uni().await?;
    /// stream.write_all(b"the last words").await?;
    /// stream.finish()?;
    /// stream.delivered().await?;
    /// session.close(0, "");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delivered(&mut self) -> Result<(), WriteError> {
        if !self.finished {
            return Err(self.session.state.closed().await.into());
        }
        self.waited = true;
        let Handle { conn, state, .. } = &*self.session;
        let delivered = poll_fn(|cx| conn.with(|quic, driver, _| driver.poll_delivered(quic, state, self.id, cx)));
        tokio::select! {
            // What was delivered before the end is told.
            biased;
            result = delivered => result,
            end = state.closed() => Err(end.into()),
        }
    }

    /// What was written so far.
    pub fn stats(&self) -> SendStreamStats {
        SendStreamStats {
            bytes_written: self.written,
        }
    }

    /// The QUIC stream identifier.
    pub fn id(&self) -> u64 {
        self.id.into_u64()
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.reset(0);
        if self.waited {
            self.session.conn.with(|_, driver, _| driver.forget_writer(self.id));
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_slice(cx, data).map_err(Into::into)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.finish() {
            // Shutting down twice is harmless.
            Ok(()) | Err(WriteError::Finished) => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(e.into())),
        }
    }
}

impl std::fmt::Debug for SendStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendStream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The receiving half of a stream.
///
/// Dropping it before its end asks the peer to stop sending, with code 0. It keeps the session alive.
///
/// It also implements [`AsyncRead`].
pub struct RecvStream {
    session: Arc<Handle>,
    id: StreamId,
    /// What came with the stream's header: the whole of many a short stream.
    first: Bytes,
    chunks: VecDeque<Bytes>,
    end: Option<End>,
    read: u64,
    /// What was dropped unread, by `stop`.
    dropped: u64,
}

#[derive(Clone, PartialEq, Eq)]
enum End {
    /// FIN, after what is still buffered.
    Finished,
    Failed(ReadError),
}

impl RecvStream {
    pub(crate) fn new(session: Arc<Handle>, id: StreamId) -> Self {
        Self {
            session,
            id,
            first: Bytes::new(),
            chunks: VecDeque::new(),
            end: None,
            read: 0,
            dropped: 0,
        }
    }

    pub(crate) fn incoming(session: Arc<Handle>, stream: IncomingStream) -> Self {
        let end = stream.finished.then_some(End::Finished);
        Self {
            session,
            id: stream.id,
            first: stream.first,
            chunks: stream.rest,
            end,
            read: 0,
            dropped: 0,
        }
    }

    /// Bytes that were taken from QUIC and not read yet.
    fn buffered(&self) -> u64 {
        let chunks = self.chunks.iter().map(Bytes::len).sum::<usize>();
        (self.first.len() + chunks) as u64
    }

    /// What came and what was read so far.
    pub fn stats(&self) -> RecvStreamStats {
        RecvStreamStats {
            bytes_received: self.read + self.dropped + self.buffered(),
            bytes_read: self.read,
        }
    }

    /// The first bytes that nobody has read yet; empty at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut Bytes, ReadError>> {
        loop {
            if !self.first.is_empty() {
                return Poll::Ready(Ok(&mut self.first));
            }
            if let Some(chunk) = self.chunks.pop_front() {
                self.first = chunk;
                continue;
            }
            match &self.end {
                Some(End::Finished) => return Poll::Ready(Ok(&mut self.first)),
                Some(End::Failed(e)) => return Poll::Ready(Err(e.clone())),
                None => {}
            }
            let Handle { conn, state, .. } = &*self.session;
            let (id, chunks) = (self.id, &mut self.chunks);
            let read =
                conn.with(|quic, driver, wakes| driver.poll_read(quic, wakes, state, id, READ_AHEAD, chunks, cx));
            match ready!(read) {
                Ok(true) => self.end = Some(End::Finished),
                Ok(false) => {}
                Err(e) => self.end = Some(End::Failed(e)),
            }
        }
    }

    /// Reads some bytes into `buffer`. `None` at the end of the stream.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The peer reset the stream, reading was stopped, or the session is over.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ReadError> {
        poll_fn(|cx| {
            let available = ready!(self.poll_fill(cx))?;
            if available.is_empty() {
                return Poll::Ready(Ok(None));
            }
            let n = available.len().min(buffer.len());
            available.copy_to_slice(&mut buffer[..n]);
            self.read += n as u64;
            Poll::Ready(Ok(Some(n)))
        })
        .await
    }

    /// The next bytes, as they came, without copying them; at most `limit` of them. `None` at the end of the stream.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_chunk(&mut self, limit: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| {
            let available = ready!(self.poll_fill(cx))?;
            let n = available.len().min(limit);
            let chunk = (!available.is_empty()).then(|| available.split_to(n));
            self.read += n as u64;
            Poll::Ready(Ok(chunk))
        })
        .await
    }

    /// Everything up to the end of the stream.
    ///
    /// Not cancel safe: what was read is lost.
    ///
    /// # Errors
    /// The stream holds more than `limit` bytes, or as [`read`](Self::read).
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, ReadToEndError> {
        let mut out = Vec::new();
        while let Some(chunk) = self.read_chunk(usize::MAX).await? {
            if out.len() + chunk.len() > limit {
                return Err(ReadToEndError::TooLong);
            }
            out.extend_from_slice(&chunk);
        }
        Ok(out)
    }

    /// Waits until the peer resets the stream, and answers with its code, without reading: for those who are busy with what
    /// they have read. What has come and was not read is lost then; reading fails once what was taken from QUIC before is read.
    /// Where the end of the stream has been taken, or it was stopped, this only waits for the end of the session.
    ///
    /// Cancel safe.
    ///
    /// ```no_run
    /// # async fn work(_: &[u8]) {}
    /// # async fn f(mut stream: wireloom::RecvStream) -> Result<(), Box<dyn std::error::Error>> {
    /// let order = stream.read_chunk(1024).await?.unwrap_or_default();
    /// tokio::select! {
    ///     () = work(&order) => {}
    ///     code = stream.received_reset() => println!("cancelled: {code:?}"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The session ended first.
    pub async fn received_reset(&mut self) -> Result<Option<u32>, SessionError> {
        let Handle { conn, state, .. } = &*self.session;
        match &self.end {
            None => {}
            Some(End::Failed(ReadError::Reset(code))) => return Ok(*code),
            Some(_) => return Err(state.closed().await),
        }
        let reset = poll_fn(|cx| conn.with(|quic, driver, wakes| driver.poll_reset(quic, wakes, state, self.id, cx)));
        let code = reset.await?;
        self.end = Some(End::Failed(ReadError::Reset(code)));
        Ok(code)
    }

    /// Asks the peer to send no more, with `code` (STOP_SENDING). What was not read is dropped, and reading then fails. Does
    /// nothing at the end of the stream.
    pub fn stop(&mut self, code: u32) {
        let buffered = self.buffered();
        match self.end {
            None => {
                self.end = Some(End::Failed(ReadError::Stopped));
                let Handle { conn, state, .. } = &*self.session;
                conn.with(|quic, driver, wakes| driver.stop_stream(quic, wakes, state, self.id, code));
            }
            // QUIC has nothing left to stop, but what was cut is not to look whole.
            Some(End::Finished) if buffered > 0 => self.end = Some(End::Failed(ReadError::Stopped)),
            Some(_) => {}
        }
        self.dropped += buffered;
        self.first.clear();
        self.chunks.clear();
    }

    /// The QUIC stream identifier.
    pub fn id(&self) -> u64 {
        self.id.into_u64()
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.stop(0);
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let available = ready!(self.poll_fill(cx))?;
        let n = available.len().min(out.remaining());
        out.put_slice(&available.split_to(n));
        self.read += n as u64;
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvStream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
