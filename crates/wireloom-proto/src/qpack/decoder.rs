//! Field sections as received (RFC 9204 section 4.5) and the peer's encoder stream (section 4.3).

use bytes::{Bytes, BytesMut};

use super::integer::{self, IntegerError};
use super::static_table::TABLE;
use super::{Field, field_size, huffman};
use crate::codes::Code;
use crate::stream_id::StreamId;

/// Why a field section was not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be interpreted, which breaks the connection: the compression state of both ends may differ now.
    #[error("field section cannot be decompressed: {0}")]
    DecompressionFailed(&'static str),
    /// It is larger than allowed. Only the message is concerned: a server answers 431.
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

/// The peer's encoder stream breaks the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encoder stream: {0}")]
pub struct EncoderStreamError(&'static str);

impl EncoderStreamError {
    /// The connection error.
    pub const fn code(self) -> Code {
        Code::QPACK_ENCODER_STREAM_ERROR
    }
}

/// The receiving half of QPACK on a connection.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Where Huffman strings are decoded to; each section takes its slices along.
    text: BytesMut,
}

impl Decoder {
    /// A decoder whose dynamic table has capacity 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes the field section `block` of `stream`. Literals are slices of `block`, table entries are static.
    ///
    /// `max_field_section_size` counts as RFC 9114 section 4.2.2 does and is checked line by line, so that a small block
    /// cannot grow into a large section.
    pub fn decode(
        &mut self,
        _stream: StreamId,
        block: Bytes,
        max_field_section_size: u64,
    ) -> Result<Vec<Field>, DecodeError> {
        let mut lines = Lines {
            rest: &block,
            block: &block,
            text: &mut self.text,
        };
        lines.prefix()?;
        let mut fields = Vec::with_capacity(16);
        let mut left = max_field_section_size;
        while let Some(&first) = lines.rest.first() {
            let field = lines.line(first)?;
            left = left
                .checked_sub(field_size(field.name.len(), field.value.len()))
                .ok_or(DecodeError::TooLarge)?;
            fields.push(field);
        }
        Ok(fields)
    }

    /// Reads the peer's encoder stream, cut anywhere; takes all of `input`.
    ///
    /// With a capacity of 0 the only legal instruction is to set it to 0 again: "The decoder MUST treat a new dynamic table
    /// capacity value that exceeds this limit as a connection error of type QPACK_ENCODER_STREAM_ERROR" (RFC 9204 section
    /// 4.3.1), and an entry larger than the capacity likewise (section 3.2.2). It is one byte long, so nothing is held.
    pub fn recv_encoder_stream(&mut self, input: &mut Bytes) -> Result<(), EncoderStreamError> {
        for &byte in &std::mem::take(input) {
            match byte {
                0x20 => {}
                0x21..=0x3f => return Err(EncoderStreamError("capacity above the announced limit")),
                0x00..=0x1f => return Err(EncoderStreamError("duplicate of an entry that is not there")),
                _ => return Err(EncoderStreamError("insertion into a table without capacity")),
            }
        }
        Ok(())
    }
}

const TRUNCATED: DecodeError = DecodeError::DecompressionFailed("it ends inside a field line");
const DYNAMIC: DecodeError = DecodeError::DecompressionFailed("reference to the dynamic table");

impl From<IntegerError> for DecodeError {
    fn from(error: IntegerError) -> Self {
        match error {
            IntegerError::Incomplete => TRUNCATED,
            IntegerError::TooLarge => Self::DecompressionFailed("integer too large"),
        }
    }
}

struct Lines<'a> {
    rest: &'a [u8],
    block: &'a Bytes,
    text: &'a mut BytesMut,
}

impl Lines<'_> {
    /// "If the decoder encounters a value of EncodedInsertCount that could not have been produced by a conformant encoder, it
    /// MUST treat this as a connection error of type QPACK_DECOMPRESSION_FAILED" (section 4.5.1.1): without a dynamic table
    /// that is all but 0. "The value of Base MUST NOT be negative" (section 4.5.1.2).
    fn prefix(&mut self) -> Result<(), DecodeError> {
        if integer::decode(&mut self.rest, 8)? != 0 {
            return Err(DecodeError::DecompressionFailed(
                "Required Insert Count without a dynamic table",
            ));
        }
        let negative = self.rest.first().is_some_and(|first| first & 0x80 != 0);
        integer::decode(&mut self.rest, 7)?;
        if negative {
            Err(DecodeError::DecompressionFailed("negative Base"))
        } else {
            Ok(())
        }
    }

    fn line(&mut self, first: u8) -> Result<Field, DecodeError> {
        if first & 0x80 != 0 {
            // Indexed Field Line, section 4.5.2.
            let (name, value) = self.entry(first & 0x40 != 0, 6)?;
            return Ok(Field {
                name,
                value,
                sensitive: false,
            });
        }
        if first & 0x40 != 0 {
            // Literal Field Line with Name Reference, section 4.5.4.
            let (name, _) = self.entry(first & 0x10 != 0, 4)?;
            return Ok(Field {
                name,
                value: self.string(7)?,
                sensitive: first & 0x20 != 0,
            });
        }
        if first & 0x20 != 0 {
            // Literal Field Line with Literal Name, section 4.5.6.
            let name = self.string(3)?;
            return Ok(Field {
                name,
                value: self.string(7)?,
                sensitive: first & 0x10 != 0,
            });
        }
        // Post-Base references, sections 4.5.3 and 4.5.5.
        Err(DYNAMIC)
    }

    fn entry(&mut self, is_static: bool, prefix: u32) -> Result<(Bytes, Bytes), DecodeError> {
        let index = integer::decode(&mut self.rest, prefix)?;
        if !is_static {
            return Err(DYNAMIC);
        }
        // "an invalid static table index [...] MUST [be treated] as a connection error of type QPACK_DECOMPRESSION_FAILED"
        // (section 3.1).
        let (name, value) = usize::try_from(index)
            .ok()
            .and_then(|index| TABLE.get(index))
            .ok_or(DecodeError::DecompressionFailed("static table index out of range"))?;
        Ok((
            Bytes::from_static(name.as_bytes()),
            Bytes::from_static(value.as_bytes()),
        ))
    }

    /// A string literal whose first byte holds `prefix` bits of its length, and the H bit above (section 4.1.2).
    fn string(&mut self, prefix: u32) -> Result<Bytes, DecodeError> {
        let coded = self.rest.first().is_some_and(|first| first >> prefix & 1 != 0);
        let len = integer::decode(&mut self.rest, prefix)?;
        let len = usize::try_from(len)
            .ok()
            .filter(|&len| len <= self.rest.len())
            .ok_or(TRUNCATED)?;
        let (bytes, rest) = self.rest.split_at(len);
        if !coded {
            self.rest = rest;
            return Ok(self.block.slice_ref(bytes));
        }
        if self.text.capacity() < huffman::decoded_room(len) {
            // Once per section as a rule: for this string and all that may follow it.
            self.text.reserve(huffman::decoded_room(self.rest.len()));
        }
        self.rest = rest;
        huffman::decode(bytes, self.text).map_err(|_| DecodeError::DecompressionFailed("invalid Huffman code"))?;
        Ok(self.text.split().freeze())
    }
}
