//! The control stream: a bidirectional stream of framed messages.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead as _, ReadBuf};
use wireloom::{RecvStream, SendStream};

use super::framing::{Unframer, put};
use crate::transport::unsent::Unsent;
use crate::transport::{Ended, HIGH_WATER};

/// What a peer may still send after this end has said its last word; it is thrown away. More than QUIC takes on its way, so that
/// who stops then is heard out.
const MAX_DRAINED: usize = 16 << 20;

pub(super) struct Control {
    send: SendStream,
    recv: RecvStream,
    unframer: Unframer,
    out: Unsent,
    drained: usize,
    finished: bool,
}

impl Control {
    pub(super) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self {
            send,
            recv,
            unframer: Unframer::default(),
            out: Unsent::default(),
            drained: 0,
            finished: false,
        }
    }

    /// Before all other streams (appendix A.3).
    pub(super) fn make_urgent(&self) {
        self.send.set_priority(1);
    }

    /// The next message; `None` at the end.
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<Option<Bytes>, Ended>> {
        self.unframer.poll_next(cx, &mut self.recv, limit)
    }

    /// Reads and forgets, up to the end or [`MAX_DRAINED`]. Bytes, not messages: those may be of any length.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.drained < MAX_DRAINED {
            let mut scratch = [MaybeUninit::<u8>::uninit(); 4096];
            let mut read = ReadBuf::uninit(&mut scratch);
            if ready!(Pin::new(&mut self.recv).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                break;
            }
            self.drained += read.filled().len();
        }
        Poll::Ready(())
    }

    pub(super) fn taken(&self) -> u64 {
        self.out.taken()
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.unframer.is_partial()
    }

    pub(super) fn send(&mut self, message: &[u8]) {
        put(message, self.out.end());
    }

    /// Messages behind their lengths.
    pub(super) fn send_framed(&mut self, framed: &[u8]) {
        self.out.end().extend_from_slice(framed);
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.out.len() < HIGH_WATER {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.out.poll_write(cx, &mut self.send).map_err(Ended::lost)
    }

    pub(super) fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            let _ = self.send.finish();
        }
    }
}
