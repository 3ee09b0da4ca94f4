//! The receiving half: field sections, the peer's encoder stream, and what is said on the decoder stream (RFC 9204 section
//! 2.2).

use bytes::{Buf, Bytes, BytesMut};

use super::decoder_stream::Instruction;
use super::encoder_stream::{self, EncoderStreamError};
use super::field_lines::Lines;
use super::prefix::{self, Prefix};
use super::table::Table;
use super::{Field, field_size};
use crate::codes::Code;
use crate::stream_id::StreamId;

/// Why a field section was not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be interpreted, which breaks the connection: the compression state of both ends may differ now.
    #[error("field section cannot be decompressed: {0}")]
    DecompressionFailed(&'static str),
    /// It is larger than allowed. Only the message is concerned: a server answers 431. Whoever gives the stream up says so with
    /// [`Decoder::cancel`].
    #[error("field section too large")]
    TooLarge,
}

impl DecodeError {
    /// The code of the connection error, or of the stream error where it is too large (and no 431 is possible).
    pub const fn code(self) -> Code {
        match self {
            Self::DecompressionFailed(_) => Code::QPACK_DECOMPRESSION_FAILED,
            Self::TooLarge => Code::H3_EXCESSIVE_LOAD,
        }
    }
}

/// What became of a field section.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Section {
    /// Its field lines.
    Fields(Vec<Field>),
    /// It needs insertions that have not arrived. The decoder keeps it; [`Decoder::poll_unblocked`] gives it back.
    Blocked,
}

impl Section {
    /// The field lines, `None` if it has to wait.
    pub fn fields(self) -> Option<Vec<Field>> {
        match self {
            Self::Fields(fields) => Some(fields),
            Self::Blocked => None,
        }
    }
}

/// The receiving half of QPACK on a connection.
///
/// Its owner reads the peer's encoder stream into [`Decoder::recv_encoder_stream`], then takes what
/// [`Decoder::poll_unblocked`] gives and decodes it anew, tells of every stream that ends before all its sections are decoded
/// ([`Decoder::cancel`]), and writes what [`Decoder::take_instructions`] gives on the decoder stream.
///
/// # Memory
///
/// The table holds entries of at most `max_capacity` bytes as RFC 9204 section 3.2.1 counts them, for which it takes at most
/// about twice that, and nothing before the first. An instruction that is cut takes at most four times the capacity. Each
/// blocked section is kept as it was received.
#[derive(Debug, Default)]
pub struct Decoder {
    table: Table,
    /// As announced in SETTINGS.
    max_capacity: usize,
    max_blocked: usize,
    blocked: Vec<Blocked>,
    /// The beginning of an instruction on the encoder stream.
    partial: BytesMut,
    /// How many insertions the encoder knows to have arrived, once it has read what was written.
    known: u64,
    out: BytesMut,
    /// Where the Huffman strings of usual sections are decoded to; each takes its slices along, and the rest serves the next.
    text: BytesMut,
}

/// The longest section, in bytes, whose memory may serve the next ones, and stay as long as the connection.
const USUAL: usize = 1 << 10;

#[derive(Debug)]
struct Blocked {
    stream: StreamId,
    required: u64,
    block: Bytes,
}

impl Decoder {
    /// A decoder without a dynamic table.
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder that announces SETTINGS_QPACK_MAX_TABLE_CAPACITY (bytes) and SETTINGS_QPACK_BLOCKED_STREAMS.
    pub fn with_table(max_capacity: u32, max_blocked: u16) -> Self {
        Self {
            max_capacity: max_capacity as usize,
            max_blocked: usize::from(max_blocked),
            ..Self::default()
        }
    }

    /// Decodes the field section `block` of `stream`. Literals are slices of `block`, table entries are shared with the table.
    ///
    /// `max_field_section_size` counts as RFC 9114 section 4.2.2 does and is checked line by line, so that a small block
    /// cannot grow into a large section.
    ///
    /// After [`Section::Blocked`] the next section of this stream has to wait too.
    pub fn decode(
        &mut self,
        stream: StreamId,
        block: Bytes,
        max_field_section_size: u64,
    ) -> Result<Section, DecodeError> {
        let mut rest = &block[..];
        let max_entries = prefix::max_entries(self.max_capacity as u64);
        let prefix = Prefix::decode(&mut rest, max_entries, self.table.inserted())?;
        if prefix.required > self.table.inserted() {
            // "If a decoder encounters more blocked streams than it promised to support, it MUST treat this as a connection
            // error of type QPACK_DECOMPRESSION_FAILED" (section 2.1.2).
            if self.blocked.len() >= self.max_blocked {
                return Err(DecodeError::DecompressionFailed("more blocked streams than announced"));
            }
            let required = prefix.required;
            self.blocked.push(Blocked {
                stream,
                required,
                block,
            });
            return Ok(Section::Blocked);
        }
        let mut own = BytesMut::new();
        let mut lines = Lines {
            rest,
            block: &block,
            prefix,
            table: &self.table,
            text: if block.len() > USUAL { &mut own } else { &mut self.text },
        };
        let mut fields = Vec::with_capacity(16);
        let mut left = max_field_section_size;
        while let Some(field) = lines.next()? {
            left = left
                .checked_sub(field_size(field.name.len(), field.value.len()))
                .ok_or(DecodeError::TooLarge)?;
            fields.push(field);
        }
        if prefix.required > 0 {
            // "After the decoder finishes decoding a field section encoded using representations containing dynamic table
            // references, it MUST emit a Section Acknowledgment instruction" (section 2.2.2.1).
            Instruction::SectionAcknowledgment(stream).encode(&mut self.out);
            self.known = self.known.max(prefix.required);
        }
        Ok(Section::Fields(fields))
    }

    /// Reads the peer's encoder stream, cut anywhere; takes all of `input`. [`Decoder::poll_unblocked`] is to be called next.
    ///
    /// After an error the decoder must not be used again.
    pub fn recv_encoder_stream(&mut self, input: &mut Bytes) -> Result<(), EncoderStreamError> {
        let input = std::mem::take(input);
        if self.partial.is_empty() {
            let mut rest = &input[..];
            while encoder_stream::apply(&mut rest, &mut self.table, self.max_capacity)? {}
            self.partial.extend_from_slice(rest);
        } else {
            self.partial.extend_from_slice(&input);
            let mut rest = &self.partial[..];
            while encoder_stream::apply(&mut rest, &mut self.table, self.max_capacity)? {}
            let taken = self.partial.len() - rest.len();
            self.partial.advance(taken);
            if self.partial.is_empty() {
                self.partial = BytesMut::new();
            }
        }
        self.check_blocked()
    }

    /// An entry that an unacknowledged section refers to must not be evicted (section 2.1.1), and every section refers to the
    /// last of the insertions that it requires. This is also what lets [`Decoder::decode`] read the count of a section that
    /// waited again: it is sent modulo a number of entries that the table cannot hold.
    fn check_blocked(&self) -> Result<(), EncoderStreamError> {
        let evicted = |blocked: &Blocked| {
            blocked.required <= self.table.inserted() && self.table.get(blocked.required - 1).is_none()
        };
        if self.blocked.iter().any(evicted) {
            return Err(EncoderStreamError::EVICTED);
        }
        Ok(())
    }

    /// A section that waited and whose insertions have arrived, to be given to [`Decoder::decode`] again. The oldest first.
    pub fn poll_unblocked(&mut self) -> Option<(StreamId, Bytes)> {
        let inserted = self.table.inserted();
        let ready = self.blocked.iter().position(|blocked| blocked.required <= inserted)?;
        let ready = self.blocked.remove(ready);
        Some((ready.stream, ready.block))
    }

    /// `stream`, which carries field sections, was reset or is read no further: "it generates a Stream Cancellation
    /// instruction" (section 2.2.2.2), and what waited of it is dropped. "A decoder with a maximum dynamic table capacity equal
    /// to zero MAY omit" that, and this one does.
    pub fn cancel(&mut self, stream: StreamId) {
        if self.max_capacity > 0 {
            self.blocked.retain(|blocked| blocked.stream != stream);
            Instruction::StreamCancellation(stream).encode(&mut self.out);
        }
    }

    /// What is to be written on the decoder stream, empty if nothing is.
    ///
    /// Insertions that no Section Acknowledgment tells of are acknowledged here with an Insert Count Increment (section
    /// 2.2.2.3): calling this once after everything that was received is handled makes one of many.
    pub fn take_instructions(&mut self) -> Bytes {
        let inserted = self.table.inserted();
        if inserted > self.known {
            Instruction::InsertCountIncrement(inserted - self.known).encode(&mut self.out);
            self.known = inserted;
        }
        // Not kept for the next time: on most connections there is none for long.
        std::mem::take(&mut self.out).freeze()
    }

    /// Whether [`Decoder::take_instructions`] would give any.
    pub fn has_instructions(&self) -> bool {
        !self.out.is_empty() || self.table.inserted() > self.known
    }

    /// Sections that wait.
    #[cfg(feature = "__testing")]
    pub(crate) fn blocked(&self) -> usize {
        self.blocked.len()
    }
}

#[cfg(test)]
mod tests;
