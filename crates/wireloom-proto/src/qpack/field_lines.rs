//! Field lines as received (RFC 9204 sections 4.5.2 to 4.5.6).

use bytes::{Bytes, BytesMut};

use super::decoder::DecodeError;
use super::integer::{self, IntegerError};
use super::prefix::Prefix;
use super::static_table::TABLE;
use super::string::Text;
use super::table::{Entry, Table};
use super::{Field, huffman};

const TRUNCATED: DecodeError = DecodeError::DecompressionFailed("it ends inside a field line");

impl From<IntegerError> for DecodeError {
    fn from(error: IntegerError) -> Self {
        match error {
            IntegerError::Incomplete => TRUNCATED,
            IntegerError::TooLarge => Self::DecompressionFailed("integer too large"),
        }
    }
}

/// A section whose insertions have all arrived.
pub(super) struct Lines<'a> {
    /// What follows the prefix, less the lines that were read.
    pub(super) rest: &'a [u8],
    /// The whole section, of which literals are slices.
    pub(super) block: &'a Bytes,
    pub(super) prefix: Prefix,
    pub(super) table: &'a Table,
    /// Where Huffman strings are decoded to.
    pub(super) text: &'a mut BytesMut,
}

impl Lines<'_> {
    pub(super) fn next(&mut self) -> Result<Option<Field>, DecodeError> {
        let Some(&first) = self.rest.first() else {
            return Ok(None);
        };
        let (name, value, sensitive) = if first & 0x80 != 0 {
            // Indexed Field Line, section 4.5.2.
            let (name, value) = if first & 0x40 != 0 {
                self.static_entry(6)?
            } else {
                let entry = self.relative(6)?;
                (entry.shared_name(), entry.shared_value())
            };
            (name, value, false)
        } else if first & 0x40 != 0 {
            // Literal Field Line with Name Reference, section 4.5.4.
            let name = if first & 0x10 != 0 {
                self.static_entry(4)?.0
            } else {
                self.relative(4)?.shared_name()
            };
            (name, self.string(7)?, first & 0x20 != 0)
        } else if first & 0x20 != 0 {
            // Literal Field Line with Literal Name, section 4.5.6.
            (self.string(3)?, self.string(7)?, first & 0x10 != 0)
        } else if first & 0x10 != 0 {
            // Indexed Field Line with Post-Base Index, section 4.5.3.
            let entry = self.post_base(4)?;
            (entry.shared_name(), entry.shared_value(), false)
        } else {
            // Literal Field Line with Post-Base Name Reference, section 4.5.5.
            let name = self.post_base(3)?.shared_name();
            (name, self.string(7)?, first & 0x08 != 0)
        };
        Ok(Some(Field { name, value, sensitive }))
    }

    /// "an invalid static table index [...] MUST [be treated] as a connection error of type QPACK_DECOMPRESSION_FAILED"
    /// (section 3.1).
    fn static_entry(&mut self, prefix: u32) -> Result<(Bytes, Bytes), DecodeError> {
        let index = integer::decode(&mut self.rest, prefix)?;
        let (name, value) = usize::try_from(index)
            .ok()
            .and_then(|index| TABLE.get(index))
            .ok_or(DecodeError::DecompressionFailed("static table index out of range"))?;
        Ok((
            Bytes::from_static(name.as_bytes()),
            Bytes::from_static(value.as_bytes()),
        ))
    }

    /// A relative index: 0 is the entry before Base (section 3.2.5).
    fn relative(&mut self, prefix: u32) -> Result<&Entry, DecodeError> {
        let relative = integer::decode(&mut self.rest, prefix)?;
        let before = self.prefix.base.checked_sub(relative);
        self.entry(before.and_then(|before| before.checked_sub(1)))
    }

    /// A post-base index: 0 is the entry at Base (section 3.2.6).
    fn post_base(&mut self, prefix: u32) -> Result<&Entry, DecodeError> {
        let index = integer::decode(&mut self.rest, prefix)?;
        self.entry(self.prefix.base.checked_add(index))
    }

    /// "If the decoder encounters a reference in a field line representation to a dynamic table entry that has already been
    /// evicted or that has an absolute index greater than or equal to the declared Required Insert Count, it MUST treat this
    /// as a connection error of type QPACK_DECOMPRESSION_FAILED" (section 2.2.3).
    fn entry(&self, index: Option<u64>) -> Result<&Entry, DecodeError> {
        index
            .filter(|&index| index < self.prefix.required)
            .and_then(|index| self.table.get(index))
            .ok_or(DecodeError::DecompressionFailed(
                "reference to an entry that is not there",
            ))
    }

    fn string(&mut self, prefix: u32) -> Result<Bytes, DecodeError> {
        let left = self.rest.len();
        let text = Text::take(&mut self.rest, prefix, left).map_err(|_| TRUNCATED)?;
        if !text.coded {
            return Ok(self.block.slice_ref(text.bytes));
        }
        if self.text.capacity() < huffman::decoded_room(text.bytes.len()) {
            // Once per section as a rule: for this string and all that may follow it.
            self.text.reserve(huffman::decoded_room(left));
        }
        text.decode(self.text)
            .map_err(|_| DecodeError::DecompressionFailed("invalid Huffman code"))?;
        Ok(self.text.split().freeze())
    }
}
