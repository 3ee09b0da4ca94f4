//! WebTransport streams below their handles.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use wireloom_proto::connection::CommandError;
use wireloom_proto::{Code, Dir, SessionId, StreamId};

use super::schedule::Owner;
use super::{COPY_FROM, Driver, ReadEnd, Topic, Transport, WakeList, WriteEnd};
use crate::error::{ReadError, SessionError, WriteError};
use crate::session::SessionState;

/// What the driver keeps of a stream only while somebody waits on it, or has yet to hear that the peer stopped it.
#[derive(Default)]
pub(super) struct StreamEntry {
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) stopped: Option<Code>,
    /// The peer has everything, and somebody waited for that.
    delivered: bool,
}

impl StreamEntry {
    fn is_unused(&self) -> bool {
        self.reader.is_none() && self.writer.is_none() && self.stopped.is_none() && !self.delivered
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
    /// Bytes that came with it.
    pub(super) fn len(&self) -> u64 {
        len(&self.first) + self.rest.iter().map(len).sum::<u64>()
    }

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

/// How long a sender waits for a limit to rise before it says that it waits: two round trips, but within these bounds.
const TELL_BLOCKED_AFTER: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(100));

/// So many finished streams are remembered as stopped while nobody has asked what became of them: their handles may be gone. As
/// many as two ends allow each other by default to have open at once.
const MAX_STOPPED_LATE: usize = 4096;

/// What is dropped of a stream that the application stops is read in pieces of this size.
const DROP_READ: usize = 256 * 1024;

fn len(chunk: &Bytes) -> u64 {
    chunk.len() as u64
}

pub(super) fn topic(dir: Dir) -> Topic {
    match dir {
        Dir::Bi => Topic::Bi,
        Dir::Uni => Topic::Uni,
    }
}

impl Driver {
    /// The peer opened a stream of `session`.
    pub(super) fn on_stream(
        &mut self,
        now: Instant,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: SessionId,
        stream: IncomingStream,
    ) {
        let id = stream.id;
        if self.h3.has_flow_control() {
            // The stream's end is told when the application takes it: until then it counts.
            self.h3.data_received(session, stream.rest.iter().map(len).sum());
        } else if stream.finished {
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
            let SessionState { traffic, signals, .. } = &*entry.state;
            traffic.streams_received.add(1);
            traffic.bytes_received.add(stream.len());
            entry.streams[dir as usize].push_back(stream);
            wakes.one(signals, topic(dir));
            // QUIC says so once, and that may have been before there was a session to tell.
            if dir == Dir::Bi
                && let Some(code) = quic.stopped(id)
            {
                self.on_stopped(now, quic, wakes, id, code);
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
        if session.is_stopped() {
            // Nothing may be opened any more, and the reason is on its way: the caller waits for that.
            return Ok(None);
        }
        if self.h3.has_flow_control() && self.h3.check_open(session.id, dir) == Err(CommandError::Blocked) {
            self.wait_for_limit(quic);
            return Ok(None);
        }
        let Some(stream) = quic.open(dir) else { return Ok(None) };
        let Ok(header) = self.h3.open_stream(session.id, stream) else {
            quic.reset(stream, Code::WT_SESSION_GONE);
            return Err(session.end_or_gone());
        };
        session.traffic.streams_opened.add(1);
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
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn poll_read(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
        limit: usize,
        out: &mut VecDeque<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, ReadError>> {
        let before = out.len();
        let read = self.poll_read_quic(quic, session, stream, limit, out, cx);
        let n = out.iter().skip(before).map(len).sum();
        session.traffic.bytes_received.add(n);
        if self.h3.has_flow_control() {
            self.taken(quic, wakes, session.id, n);
        }
        read
    }

    /// The application has `n` bytes that QUIC just gave: they count, and make room for more.
    fn taken(&mut self, quic: &mut Transport, wakes: &mut WakeList, session: SessionId, n: u64) {
        self.h3.data_received(session, n);
        self.h3.data_consumed(session, n);
        self.settle_if_needed(quic, wakes);
    }

    /// For calls that seldom have anything to say to the peer.
    fn settle_if_needed(&mut self, quic: &mut Transport, wakes: &mut WakeList) {
        if self.h3.has_output() {
            self.settle(Instant::now(), quic, wakes);
        }
    }

    fn poll_read_quic(
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
                self.recv_aborted(stream);
                // "The error code from a WebTransport stream reset MUST be delivered unchanged" (draft 16 section 4.4).
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

    /// Resolves when the peer has reset the stream; what has come of it is lost then.
    pub(crate) fn poll_reset(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<u32>, SessionError>> {
        if let Some(code) = quic.received_reset(stream) {
            self.recv_aborted(stream);
            self.settle_if_needed(quic, wakes);
            return Poll::Ready(Ok(code.to_application()));
        }
        if let Some(end) = session.ended() {
            return Poll::Ready(Err(end.clone()));
        }
        self.streams.entry(stream).or_default().reader = Some(cx.waker().clone());
        Poll::Pending
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

    pub(crate) fn poll_write(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
        data: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, WriteError>> {
        std::task::ready!(self.poll_writable(session, stream, cx))?;
        if !self.is_scheduling() {
            let credit = self.direct_credit(quic, session.id);
            let written = if credit == 0 {
                Err(WriteEnd::Blocked)
            } else {
                quic.write_slice(stream, &data[..data.len().min(credit)])
            };
            match written {
                Ok(written) => {
                    self.sent(session, written);
                    return Poll::Ready(Ok(written));
                }
                Err(end) => std::task::ready!(self.not_written(quic, session, stream, credit, end, cx))?,
            }
        }
        let part = &data[..data.len().min(self.room(stream))];
        self.write_in_turn(quic, wakes, session, stream, Bytes::copy_from_slice(part));
        Poll::Ready(Ok(part.len()))
    }

    /// Takes from the front of `data` until it is empty.
    pub(crate) fn poll_write_chunk(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
        data: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        while !data.is_empty() {
            std::task::ready!(self.poll_writable(session, stream, cx))?;
            if self.is_scheduling() {
                let part = data.split_to(data.len().min(self.room(stream)));
                self.write_in_turn(quic, wakes, session, stream, part);
                continue;
            }
            let credit = self.direct_credit(quic, session.id);
            let mut part = data.slice(..data.len().min(credit));
            let before = part.len();
            let written = if credit == 0 {
                Err(WriteEnd::Blocked)
            } else {
                quic.write(stream, &mut part)
            };
            let n = before - part.len();
            data.advance(n);
            self.sent(session, n);
            match written {
                Ok(()) => {}
                Err(end) => std::task::ready!(self.not_written(quic, session, stream, credit, end, cx))?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write_in_turn(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
        data: Bytes,
    ) {
        let place = self.place_in_session(session.id, stream);
        session.traffic.bytes_written.add(len(&data));
        self.send_payload(quic, wakes, stream, place, data);
    }

    /// How many bytes the session's own limit leaves, where nobody takes turns.
    fn direct_credit(&mut self, quic: &mut Transport, session: SessionId) -> usize {
        if self.h3.has_flow_control() {
            // QUIC is to block first: what it would take ahead of the network is credit that is only held, and a peer that is
            // told that it is out (WT_DATA_BLOCKED) raises it in small steps.
            quic.follow_congestion(self.config.send_window);
        }
        // "The sum of the lengths of Stream Body data sent on all streams associated with this session MUST NOT exceed
        // the Maximum Data value advertised by a receiver" (draft 16 section 5.6.4).
        self.credit(Owner::Session(session))
    }

    /// Whether other streams wait for the same as this one, which can write no more: whose task is woken first would take all
    /// that comes, so they are to take turns.
    fn has_rivals(&mut self, session: SessionId, stream: StreamId, credit: usize) -> bool {
        if credit > 0 {
            return self.is_contended;
        }
        let waiting = self.sessions.get(&session).map(|entry| &entry.waiting);
        waiting.is_some_and(|waiting| waiting.iter().any(|other| *other != stream))
    }

    /// A write that went straight to QUIC came to `end`. Where it is blocked, the stream takes turns with its rivals from now
    /// on, or waits for QUIC, where `credit` is 0 for the session's own limit.
    fn not_written(
        &mut self,
        quic: &mut Transport,
        session: &SessionState,
        stream: StreamId,
        credit: usize,
        end: WriteEnd,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        match end {
            WriteEnd::Stopped(code) => return Poll::Ready(Err(WriteError::Stopped(code.to_application()))),
            WriteEnd::Closed => {
                let end = session.ended().cloned();
                return Poll::Ready(Err(end.map_or(WriteError::Finished, WriteError::from)));
            }
            WriteEnd::Blocked if self.has_rivals(session.id, stream, credit) => {
                self.start_scheduling();
                return Poll::Ready(Ok(()));
            }
            WriteEnd::Blocked => {}
        }
        self.wait_to_write(stream, cx);
        if credit == 0 {
            if let Some(entry) = self.sessions.get_mut(&session.id) {
                entry.waiting.insert(stream);
            }
            self.h3.data_blocked(session.id);
            self.wait_for_limit(quic);
        }
        Poll::Pending
    }

    /// Something waits for a limit of the peer, who is told if it does not raise it by itself before long.
    pub(super) fn wait_for_limit(&mut self, quic: &mut Transport) {
        if self.tell_blocked_at.is_none() {
            let delay = (quic.rtt() * 2).clamp(TELL_BLOCKED_AFTER.0, TELL_BLOCKED_AFTER.1);
            self.tell_blocked_at = Some(Instant::now() + delay);
            quic.wake();
        }
    }

    fn sent(&mut self, session: &SessionState, n: usize) {
        session.traffic.bytes_written.add(n as u64);
        if self.h3.has_flow_control() {
            self.h3.data_sent(session.id, n as u64);
        }
    }

    /// The peer allows more bytes in a session.
    pub(super) fn on_data_available(&mut self, wakes: &mut WakeList, session: SessionId) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        for stream in entry.waiting.drain() {
            if let Some(sending) = &mut self.sending
                && self.outgoing.get(&stream).is_some_and(|outgoing| outgoing.scheduled)
            {
                sending.schedule.ready(stream);
            } else if let Some(entry) = self.streams.get_mut(&stream) {
                wakes.waker(entry.writer.take());
            }
        }
    }

    pub(crate) fn finish_stream(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
    ) -> Result<(), WriteError> {
        if let Some(code) = self.streams.get(&stream).and_then(|e| e.stopped) {
            return Err(WriteError::Stopped(code.to_application()));
        }
        self.check(session).map_err(WriteError::from)?;
        self.finish_after(quic, stream);
        self.send_over(quic, wakes, session, stream);
        Ok(())
    }

    pub(crate) fn reset_stream(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
        code: u32,
    ) {
        self.discard_outgoing(stream);
        quic.reset(stream, Code::from_application(code));
        self.send_over(quic, wakes, session, stream);
    }

    pub(crate) fn stop_stream(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
        code: u32,
    ) {
        if !self.h3.has_flow_control() {
            quic.stop(stream, Code::from_application(code));
            self.recv_over(stream);
            return;
        }
        // QUIC does not tell the final size, so what has come is counted; what still comes is lost.
        let (mut dropped, mut n) = (VecDeque::new(), 0);
        let end = loop {
            let end = quic.read(stream, DROP_READ, &mut dropped);
            n += dropped.drain(..).map(|chunk| len(&chunk)).sum::<u64>();
            if end != ReadEnd::More {
                break end;
            }
        };
        quic.stop(stream, Code::from_application(code));
        self.taken(quic, wakes, session.id, n);
        match end {
            ReadEnd::Finished => self.recv_over(stream),
            _ => self.recv_aborted(stream),
        }
        self.settle_if_needed(quic, wakes);
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

    /// Resolves when the peer has acknowledged all of a finished stream. [`Self::forget_writer`] has to follow.
    pub(crate) fn poll_delivered(
        &mut self,
        quic: &mut Transport,
        session: &SessionState,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        let is_sent = !self.outgoing.contains_key(&stream);
        let entry = self.streams.entry(stream).or_default();
        if entry.delivered {
            return Poll::Ready(Ok(()));
        }
        if entry.stopped.is_none() {
            let late = self.stopped_late.iter().find(|(id, _)| *id == stream);
            entry.stopped = late.map(|(_, code)| *code);
        }
        if let Some(code) = entry.stopped {
            return Poll::Ready(Err(WriteError::Stopped(code.to_application())));
        }
        if let Some(end) = session.ended() {
            return Poll::Ready(Err(end.clone().into()));
        }
        if is_sent && quic.is_delivered(stream) {
            return Poll::Ready(Ok(()));
        }
        entry.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The peer stopped a stream that is finished: what it does not have yet it will never have.
    pub(super) fn on_stopped_late(&mut self, wakes: &mut WakeList, stream: StreamId, code: Code) {
        if let Some(entry) = self.streams.get_mut(&stream)
            && entry.writer.is_some()
        {
            entry.stopped = Some(code);
            wakes.waker(entry.writer.take());
            return;
        }
        if self.stopped_late.len() == MAX_STOPPED_LATE {
            self.stopped_late.pop_front();
        }
        self.stopped_late.push_back((stream, code));
    }

    pub(super) fn on_delivered(&mut self, wakes: &mut WakeList, stream: StreamId) {
        if let Some(entry) = self.streams.get_mut(&stream)
            && entry.writer.is_some()
        {
            entry.delivered = true;
            wakes.waker(entry.writer.take());
        }
    }

    /// The send half is over, or its handle is gone.
    pub(crate) fn send_over(
        &mut self,
        quic: &mut Transport,
        wakes: &mut WakeList,
        session: &SessionState,
        stream: StreamId,
    ) {
        self.h3.send_closed(stream);
        self.forget_order(stream);
        if self.h3.has_flow_control() {
            // What is written may still have to wait.
            if !self.outgoing.contains_key(&stream)
                && let Some(entry) = self.sessions.get_mut(&session.id)
            {
                entry.waiting.remove(&stream);
            }
            self.settle_if_needed(quic, wakes);
        }
        self.forget_writer(stream);
    }

    pub(crate) fn forget_writer(&mut self, stream: StreamId) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.writer = None;
            entry.stopped = None;
            entry.delivered = false;
            if entry.is_unused() {
                self.streams.remove(&stream);
            }
        }
    }

    fn recv_over(&mut self, stream: StreamId) {
        self.h3.recv_closed(stream);
        self.forget_reader(stream);
    }

    fn recv_aborted(&mut self, stream: StreamId) {
        // quinn-proto keeps the final size to itself.
        self.h3.recv_aborted(stream, None);
        self.forget_reader(stream);
    }

    fn forget_reader(&mut self, stream: StreamId) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.reader = None;
            if entry.is_unused() {
                self.streams.remove(&stream);
            }
        }
    }
}
