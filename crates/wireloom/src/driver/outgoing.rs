//! What HTTP/3 wants written, kept until QUIC takes it. Bounded by the core, which says little and waits, and by one body
//! chunk per message.

use std::collections::VecDeque;

use bytes::Bytes;
use wireloom_proto::StreamId;

use super::{Driver, Transport, WakeList};

#[derive(Default)]
pub(super) struct Outgoing {
    chunks: VecDeque<Bytes>,
    fin: bool,
}

impl Driver {
    /// Writes now what QUIC takes, the rest when it does.
    pub(super) fn write(&mut self, quic: &mut Transport, stream: StreamId, mut data: Bytes, fin: bool) {
        if !self.outgoing.is_empty()
            && let Some(outgoing) = self.outgoing.get_mut(&stream)
        {
            outgoing.chunks.push_back(data);
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
                self.outgoing.insert(
                    stream,
                    Outgoing {
                        chunks: VecDeque::from([data]),
                        fin,
                    },
                );
            }
            // Stopped or closed: the event that says so comes by itself.
            Err(_) => {}
        }
    }

    /// QUIC takes more of `stream`.
    pub(super) fn flush(&mut self, quic: &mut Transport, wakes: &mut WakeList, stream: StreamId) {
        if let Some(outgoing) = self.outgoing.get_mut(&stream) {
            while let Some(front) = outgoing.chunks.front_mut() {
                match quic.write(stream, front) {
                    Ok(()) => {
                        outgoing.chunks.pop_front();
                    }
                    Err(end) if end.is_blocked() => return,
                    Err(_) => {
                        outgoing.chunks.clear();
                        outgoing.fin = false;
                    }
                }
            }
            if outgoing.fin {
                let _ = quic.finish(stream);
            }
            self.outgoing.remove(&stream);
        }
        if let Some(entry) = self.streams.get_mut(&stream) {
            wakes.waker(entry.writer.take());
        } else if let Some(message) = self.messages.get_mut(&stream) {
            wakes.waker(message.writer.take());
        }
    }

    /// Whether something of `stream` still waits for QUIC.
    pub(super) fn is_backed_up(&self, stream: StreamId) -> bool {
        !self.outgoing.is_empty() && self.outgoing.contains_key(&stream)
    }

    /// How many writes of `stream` still wait for QUIC.
    pub(super) fn backlog(&self, stream: StreamId) -> usize {
        self.outgoing.get(&stream).map_or(0, |outgoing| outgoing.chunks.len())
    }

    /// FIN after what still waits.
    pub(super) fn finish_after(&mut self, quic: &mut Transport, stream: StreamId) {
        match self.outgoing.get_mut(&stream) {
            Some(outgoing) => outgoing.fin = true,
            None => {
                let _ = quic.finish(stream);
            }
        }
    }
}
