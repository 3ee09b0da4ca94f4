//! Connections that nobody uses: when they are closed.

use std::time::{Duration, Instant};

use wireloom_proto::Code;

use super::{Driver, Transport, WakeList};
use crate::error::ConnectionError;

impl Driver {
    /// Nobody uses the connection, and the peer has all that it was sent.
    pub(crate) fn is_idle(&self, quic: &mut Transport) -> bool {
        self.is_unused() && self.is_delivered(quic)
    }

    fn is_delivered(&self, quic: &mut Transport) -> bool {
        quic.undelivered_streams() <= self.own_opened
    }

    /// Nobody uses the connection. The peer may still be about to get the rest of what it was sent.
    fn is_unused(&self) -> bool {
        self.messages.is_empty() && self.sessions.is_empty() && self.h3.is_idle()
    }

    /// Whether the rest of an answer is getting on: the clock of an unused connection then starts anew.
    pub(super) fn is_delivering(&self, quic: &mut Transport) -> bool {
        self.ready && !self.closing && !self.is_idle(quic) && quic.stream_frames_sent() != self.sent_before
    }

    /// Starts or stops the clock of a connection that nobody uses, and tells those who wait for that.
    pub(super) fn note_idle(&mut self, now: Instant, quic: &mut Transport, wakes: &mut WakeList) {
        if self.lost.is_some() {
            return;
        }
        if self.closing {
            if !self.h3.has_connects() {
                let error = ConnectionError::LocallyClosed;
                self.close(now, quic, wakes, Code::H3_NO_ERROR, b"", error);
            }
            return;
        }
        if !self.ready {
            return;
        }
        let unused = self.is_unused();
        let idle = unused && self.is_delivered(quic);
        if idle && !self.was_idle {
            let timeout = if self.winding_down {
                Some(Duration::ZERO)
            } else {
                self.config.unused_timeout
            };
            self.deadline = timeout.and_then(|timeout| now.checked_add(timeout));
            // An application task may have ended the last request: only the endpoint's task can arm the timer.
            quic.wake();
            wakes.all(&self.signals);
        } else if !unused {
            self.deadline = None;
        } else if !idle && self.deadline.is_none() {
            self.deadline = self.config.unused_timeout.and_then(|timeout| now.checked_add(timeout));
            self.sent_before = quic.stream_frames_sent();
            quic.wake();
        }
        self.was_idle = idle;
    }
}
