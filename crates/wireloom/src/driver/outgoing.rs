//! What is to be written, kept until QUIC takes it. HTTP/3's part is bounded by the core, which says little and waits;
//! payload by one body chunk per message, and where senders take turns by what [`sending`](super::sending) says.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use wireloom_proto::StreamId;

use super::{Driver, Transport, WakeList};

#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) chunks: VecDeque<Bytes>,
    /// Bytes in `chunks`.
    pub(super) len: usize,
    pub(super) fin: bool,
    /// It goes out in its turn, not as soon as QUIC takes it.
    pub(super) scheduled: bool,
    /// Its writer waited, was woken and has not written yet.
    pub(super) is_called: bool,
}

impl Outgoing {
    pub(super) fn push(&mut self, data: Bytes) {
        self.len += data.len();
        self.chunks.push_back(data);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Nobody wants it any more; how many bytes that were.
    pub(super) fn give_up(&mut self) -> usize {
        self.chunks.clear();
        self.fin = false;
        std::mem::take(&mut self.len)
    }
}

impl Driver {
    /// Writes now what QUIC takes, the rest when it does.
    pub(super) fn write(&mut self, quic: &mut Transport, stream: StreamId, mut data: Bytes, fin: bool) {
        if !self.outgoing.is_empty()
            && let Some(outgoing) = self.outgoing.get_mut(&stream)
        {
            if let Some(sending) = &mut self.sending
                && outgoing.scheduled
            {
                sending.added(data.len());
            }
            outgoing.push(data);
            outgoing.fin |= fin;
            return;
        }
        match quic.write(stream, &mut data) {
            Ok(()) if fin => {
                // A stream that the peer stopped needs no FIN.
                let _ = quic.finish(stream);
            }
            Ok(()) => {}
            Err(end) if end.is_blocked() => {
                let outgoing = self.outgoing.entry(stream).or_default();
                outgoing.push(data);
                outgoing.fin = fin;
            }
            // Stopped or closed: the event that says so comes by itself.
            Err(_) => {}
        }
    }

    /// QUIC takes more of `stream`.
    pub(super) fn flush(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList, stream: StreamId) {
        if let Some(outgoing) = self.outgoing.get_mut(&stream) {
            while let Some(front) = outgoing.chunks.front_mut() {
                let before = front.len();
                let end = quic.write(stream, front);
                outgoing.len -= before - front.len();
                match end {
                    Ok(()) => {
                        outgoing.chunks.pop_front();
                    }
                    Err(end) if end.is_blocked() => return,
                    Err(_) => {
                        outgoing.give_up();
                    }
                }
            }
            if outgoing.fin {
                let _ = quic.finish(stream);
            }
            self.outgoing.remove(&stream);
            self.forget_body(stream);
        }
        if let Some(entry) = self.streams.get_mut(&stream) {
            if entry.writer.is_some() {
                // What blocks the connection goes on for all at once, what blocks a stream for that alone.
                self.is_contended = self.woken_at.replace(now) == Some(now);
            }
            wakes.waker(entry.writer.take());
        } else if let Some(message) = self.messages.get_mut(&stream) {
            wakes.waker(message.writer.take());
        }
    }

    /// Whether so much of `stream` still waits that it takes no more.
    pub(super) fn is_backed_up(&self, stream: StreamId) -> bool {
        if self.outgoing.is_empty() {
            return false;
        }
        match (self.outgoing.get(&stream), &self.sending) {
            (Some(outgoing), Some(sending)) if outgoing.scheduled => outgoing.len >= sending.room(),
            (outgoing, _) => outgoing.is_some(),
        }
    }

    /// How many writes of `stream` still wait for QUIC, its turn aside.
    pub(super) fn backlog(&self, stream: StreamId) -> usize {
        let outgoing = self.outgoing.get(&stream).filter(|outgoing| !outgoing.scheduled);
        outgoing.map_or(0, |outgoing| outgoing.chunks.len())
    }

    /// FIN after what still waits.
    pub(super) fn finish_after(&mut self, quic: &mut Transport, stream: StreamId) {
        match self.outgoing.get_mut(&stream) {
            Some(outgoing) if !outgoing.is_empty() => outgoing.fin = true,
            _ => {
                let _ = quic.finish(stream);
                self.discard_outgoing(stream);
            }
        }
    }
}
