//! Messages on a stream: each behind its length, a QUIC variable-length integer (appendix A.1).

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use wireloom::proto::varint;
use wireloom::{RecvStream, SendStream};

use crate::engine::CloseCode;
use crate::transport::Ended;

/// Appends `message` behind its length.
pub(super) fn put(message: &[u8], out: &mut Vec<u8>) {
    out.reserve(8 + message.len());
    varint::encode(message.len() as u64, out);
    out.extend_from_slice(message);
}

/// Cuts a stream into messages. Holds the part of a message that has arrived, and nothing between messages.
#[derive(Debug, Default)]
pub(super) struct Unframer {
    buffer: BytesMut,
    ended: bool,
}

impl Unframer {
    /// The next message; `None` at the end of the stream.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut RecvStream,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Ended>> {
        loop {
            if let Some(message) = self.take(limit)? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.ended {
                return Poll::Ready(if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    let reason = "a stream that ends inside a message";
                    Err(Ended::violation(CloseCode::Malformed, reason))
                });
            }
            // On the stack, so that an idle stream holds no buffer.
            let mut scratch = [MaybeUninit::<u8>::uninit(); 4096];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)).map_err(Ended::lost)?;
            self.ended = read.filled().is_empty();
            self.buffer.extend_from_slice(read.filled());
        }
    }

    fn take(&mut self, limit: usize) -> Result<Option<Bytes>, Ended> {
        let Some((len, prefix)) = varint::decode(&self.buffer) else {
            return Ok(None);
        };
        if len == 0 {
            return Err(Ended::violation(CloseCode::Malformed, "a message without a byte"));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > limit {
            return Err(Ended::violation(CloseCode::TooBig, format!("a message of {len} bytes")));
        }
        if self.buffer.len() < prefix + len {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        let message = self.buffer.split_to(len).freeze();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// Whether part of a message has arrived.
    pub(super) fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// Reads the only message of a stream.
pub(super) async fn read_single(stream: &mut RecvStream, limit: usize) -> Result<Bytes, Ended> {
    let mut unframer = Unframer::default();
    let mut next =
        async |stream: &mut RecvStream| std::future::poll_fn(|cx| unframer.poll_next(cx, stream, limit)).await;
    match (next(stream).await?, next(stream).await?) {
        (Some(message), None) => Ok(message),
        (None, _) => Err(Ended::violation(CloseCode::Malformed, "a stream without a message")),
        (Some(_), Some(_)) => Err(Ended::violation(CloseCode::NotAcceptable, "a stream with two messages")),
    }
}

/// Writes one message and ends the stream.
pub(super) async fn write_single(stream: &mut SendStream, message: &[u8]) -> Result<(), wireloom::WriteError> {
    let mut framed = Vec::new();
    put(message, &mut framed);
    stream.write_chunk(framed.into()).await?;
    stream.finish()
}
