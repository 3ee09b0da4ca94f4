//! WebTransport streams below their handles.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use wireloom_proto::{Code, Dir, SessionId, StreamId};

use super::{COPY_FROM, Driver, ReadEnd, Topic, Transport, WakeList, WriteEnd};
use crate::error::{ReadError, SessionError, WriteError};
use crate::session::SessionState;

/// What the driver keeps of a stream only while somebody waits on it, or has yet to hear that the peer stopped it.
#[derive(Default)]
pub(super) struct StreamEntry {
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) stopped: Option<Code>,
}

impl StreamEntry {
    fn is_unused(&self) -> bool {
        self.reader.is_none() && self.writer.is_none() && self.stopped.is_none()
    }
}

/// A stream of the peer on its way to the application.
pub(crate) struct IncomingStream {
    pub(crate) id: StreamId,
    /// What came with the header.
    pub(crate) first: Bytes,
    /// What came after it, seldom anything.
    pub(crate) rest: VecDeque<Bytes>,
    /// Whether that was all.
    pub(crate) finished: bool,
}

impl IncomingStream {
    /// With its bytes in a buffer of their own. There are at most some kilobytes of them.
    fn copied(self) -> Self {
        let mut all = Vec::with_capacity(self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>());
        all.extend_from_slice(&self.first);
        self.rest.iter().for_each(|chunk| all.extend_from_slice(chunk));
        Self {
            first: all.into(),
            rest: VecDeque::new(),
            ..self
        }
    }

    pub(super) fn new(id: StreamId, first: Bytes, rest: VecDeque<Bytes>, finished: bool) -> Self {
        Self {
            id,
            first,
            rest,
            finished,
        }
    }
}

pub(super) fn topic(dir: Dir) -> Topic {
    match dir {
        Dir::Bi => Topic::Bi,
        Dir::Uni => Topic::Uni,
    }
}

impl Driver {
    /// The peer opened a stream of `session`.
    pub(super) fn on_stream(&mut self, wakes: &mut WakeList, session: SessionId, stream: IncomingStream) {
        if stream.finished {
            self.h3.recv_closed(stream.id);
        }
        // The core hands out streams of open sessions only.
        if let Some(entry) = self.sessions.get_mut(&session) {
            let dir = stream.id.dir();
            let stream = if self.unaccepted < COPY_FROM {
                stream
            } else {
                stream.copied()
            };
            self.unaccepted += 1;
            entry.streams[dir as usize].push_back(stream);
            if let Some(state) = &entry.state {
                wakes.one(&state.signals, topic(dir));
            }
        }
    }

    /// Opens a stream and sends its header. `Ok(None)` while the peer allows no more.
    pub(crate) fn open_stream(
        &mut self,
        quic: &mut Transport,
        session: &SessionState,
        dir: Dir,
    ) -> Result<Option<StreamId>, SessionError> {
        self.check(session)?;
        let Some(stream) = quic.open(dir) else { return Ok(None) };
        let Ok(header) = self.h3.open_stream(session.id, stream) else {
            quic.reset(stream, Code::WT_SESSION_GONE);
            return Err(session.end_or_gone());
        };
        self.write(quic, stream, header, false);
        Ok(Some(stream))
    }

    pub(super) fn check(&self, session: &SessionState) -> Result<(), SessionError> {
        match session.ended() {
            Some(end) => Err(end.clone()),
            None => Ok(()),
        }
    }

    /// Reads up to about `limit` bytes into `out`. `Ready(Ok(true))` at the end of the stream.
    pub(crate) fn poll_read(
        &mut self,
        quic: &mut Transport,
        session: &SessionState,
        stream: StreamId,
        limit: usize,
        out: &mut VecDeque<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, ReadError>> {
        match quic.read(stream, limit, out) {
            ReadEnd::Finished => {
                self.recv_over(stream);
                Poll::Ready(Ok(true))
            }
            ReadEnd::Reset(code) => {
                self.recv_over(stream);
                Poll::Ready(Err(ReadError::Reset(code.to_application())))
            }
            ReadEnd::More | ReadEnd::Blocked if !out.is_empty() => Poll::Ready(Ok(false)),
            ReadEnd::More | ReadEnd::Blocked => {
                if let Some(end) = session.ended() {
                    return Poll::Ready(Err(end.clone().into()));
                }
                self.streams.entry(stream).or_default().reader = Some(cx.waker().clone());
                Poll::Pending
            }
            ReadEnd::Closed => Poll::Ready(Err(session.end_or_gone().into())),
        }
    }

    /// Whether the stream can be written at all now, before QUIC is asked.
    fn poll_writable(
        &mut self,
        session: &SessionState,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        if let Some(entry) = self.streams.get(&stream)
            && let Some(code) = entry.stopped
        {
            return Poll::Ready(Err(WriteError::Stopped(code.to_application())));
        }
        if let Some(end) = session.ended() {
            return Poll::Ready(Err(end.clone().into()));
        }
        if self.is_backed_up(stream) {
            self.wait_to_write(stream, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn wait_to_write(&mut self, stream: StreamId, cx: &mut Context<'_>) {
        self.streams.entry(stream).or_default().writer = Some(cx.waker().clone());
    }

    fn write_failed(&self, session: &SessionState, end: WriteEnd) -> WriteError {
        match end {
            WriteEnd::Stopped(code) => WriteError::Stopped(code.to_application()),
            WriteEnd::Closed | WriteEnd::Blocked => match session.ended() {
                Some(end) => end.clone().into(),
                None => WriteError::Finished,
            },
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        quic: &mut Transport,
        session: &SessionState,
        stream: StreamId,
        data: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, WriteError>> {
        std::task::ready!(self.poll_writable(session, stream, cx))?;
        match quic.write_slice(stream, data) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(WriteEnd::Blocked) => {
                self.wait_to_write(stream, cx);
                Poll::Pending
            }
            Err(end) => Poll::Ready(Err(self.write_failed(session, end))),
        }
    }

    /// Takes from the front of `data` until it is empty.
    pub(crate) fn poll_write_chunk(
        &mut self,
        quic: &mut Transport,
        session: &SessionState,
        stream: StreamId,
        data: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        std::task::ready!(self.poll_writable(session, stream, cx))?;
        match quic.write(stream, data) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(WriteEnd::Blocked) => {
                self.wait_to_write(stream, cx);
                Poll::Pending
            }
            Err(end) => Poll::Ready(Err(self.write_failed(session, end))),
        }
    }

    pub(crate) fn finish_stream(
        &mut self,
        quic: &mut Transport,
        session: &SessionState,
        stream: StreamId,
    ) -> Result<(), WriteError> {
        if let Some(code) = self.streams.get(&stream).and_then(|e| e.stopped) {
            return Err(WriteError::Stopped(code.to_application()));
        }
        self.check(session).map_err(WriteError::from)?;
        self.finish_after(quic, stream);
        self.send_over(stream);
        Ok(())
    }

    pub(crate) fn reset_stream(&mut self, quic: &mut Transport, stream: StreamId, code: u32) {
        self.outgoing.remove(&stream);
        quic.reset(stream, Code::from_application(code));
        self.send_over(stream);
    }

    pub(crate) fn stop_stream(&mut self, quic: &mut Transport, stream: StreamId, code: u32) {
        quic.stop(stream, Code::from_application(code));
        self.recv_over(stream);
    }

    /// Resolves when the peer stops the stream; the writer's waker is shared, one task waits at a time.
    pub(crate) fn poll_stopped(
        &mut self,
        session: &SessionState,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<u32>, SessionError>> {
        let entry = self.streams.entry(stream).or_default();
        if let Some(code) = entry.stopped {
            return Poll::Ready(Ok(code.to_application()));
        }
        if let Some(end) = session.ended() {
            self.streams.remove(&stream);
            return Poll::Ready(Err(end.clone()));
        }
        entry.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The send half is over, or its handle is gone.
    pub(crate) fn send_over(&mut self, stream: StreamId) {
        self.h3.send_closed(stream);
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.writer = None;
            entry.stopped = None;
            if entry.is_unused() {
                self.streams.remove(&stream);
            }
        }
    }

    fn recv_over(&mut self, stream: StreamId) {
        self.h3.recv_closed(stream);
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.reader = None;
            if entry.is_unused() {
                self.streams.remove(&stream);
            }
        }
    }
}
