//! The instructions of the decoder stream (RFC 9204 section 4.4): what the decoder has seen.

use bytes::BytesMut;

use super::integer::{self, IntegerError};
use crate::codes::Code;
use crate::stream_id::StreamId;

/// The peer's decoder stream breaks the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decoder stream: {0}")]
pub struct DecoderStreamError(pub(super) &'static str);

impl DecoderStreamError {
    /// The connection error.
    pub const fn code(self) -> Code {
        Code::QPACK_DECODER_STREAM_ERROR
    }
}

/// What a decoder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instruction {
    /// The oldest section of the stream that needed the table was decoded.
    SectionAcknowledgment(StreamId),
    /// No section of the stream will be decoded any more.
    StreamCancellation(StreamId),
    /// So many more insertions arrived.
    InsertCountIncrement(u64),
}

impl Instruction {
    /// Takes the instruction at the front of `input`. `Ok(None)`: it is incomplete, and `input` unchanged.
    pub(super) fn take(input: &mut &[u8]) -> Result<Option<Self>, DecoderStreamError> {
        let mut rest = *input;
        let Some(&first) = rest.first() else { return Ok(None) };
        let prefix = if first & 0x80 != 0 { 7 } else { 6 };
        let value = match integer::decode(&mut rest, prefix) {
            Ok(value) => value,
            Err(IntegerError::Incomplete) => return Ok(None),
            Err(IntegerError::TooLarge) => return Err(DecoderStreamError("integer too large")),
        };
        *input = rest;
        Ok(Some(match first >> 6 {
            2 | 3 => Self::SectionAcknowledgment(StreamId::from_u64(value)),
            1 => Self::StreamCancellation(StreamId::from_u64(value)),
            _ => Self::InsertCountIncrement(value),
        }))
    }

    pub(super) fn encode(self, out: &mut BytesMut) {
        match self {
            Self::SectionAcknowledgment(stream) => integer::encode(0x80, 7, stream.into_u64(), out),
            Self::StreamCancellation(stream) => integer::encode(0x40, 6, stream.into_u64(), out),
            Self::InsertCountIncrement(count) => integer::encode(0, 6, count, out),
        }
    }
}
