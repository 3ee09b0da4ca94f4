//! QPACK (RFC 9204): field sections, and the dynamic table that both ends keep with the help of two streams.
//!
//! [`Encoder`] and [`Decoder`] are objects of the connection and know nothing of it: bytes of field sections and of the two
//! instruction streams go in, bytes come out. An end that is told no capacity uses the static table alone.

mod decoder;
mod decoder_stream;
mod encoder;
mod encoder_stream;
mod field_lines;
mod huffman;
mod integer;
mod prefix;
mod sections;
mod static_table;
mod string;
mod table;

use bytes::Bytes;

pub use decoder::{DecodeError, Decoder, Section};
pub use decoder_stream::DecoderStreamError;
pub use encoder::Encoder;
pub use encoder_stream::EncoderStreamError;

#[cfg(feature = "__testing")]
pub(crate) use huffman::{decode as huffman_decode, encode as huffman_encode, encoded_len as huffman_encoded_len};
#[cfg(feature = "__testing")]
pub(crate) use integer::{decode as integer_decode, encode as integer_encode};

/// A field line as received. Neither name nor value is checked yet: any bytes are possible.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// The name, of a pseudo-header field with its colon.
    pub name: Bytes,
    /// The value.
    pub value: Bytes,
    /// Whether the sender forbids to put it into any compression table (the N bit, RFC 9204 section 7.1.3).
    pub sensitive: bool,
}

/// A field line to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldRef<'a> {
    /// The name in lower case, of a pseudo-header field with its colon.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Whether nobody on the way may put it into a compression table (the N bit, RFC 9204 section 7.1.3).
    pub sensitive: bool,
}

impl<'a> FieldRef<'a> {
    /// A field that is not sensitive.
    pub const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            name,
            value,
            sensitive: false,
        }
    }

    /// Its share of the field section size, in bytes: name, value and 32 (RFC 9114 section 4.2.2).
    pub const fn size(&self) -> u64 {
        field_size(self.name.len(), self.value.len())
    }
}

impl<'a> From<&'a Field> for FieldRef<'a> {
    fn from(field: &'a Field) -> Self {
        Self {
            name: &field.name,
            value: &field.value,
            sensitive: field.sensitive,
        }
    }
}

const fn field_size(name: usize, value: usize) -> u64 {
    name as u64 + value as u64 + 32
}

#[cfg(test)]
mod tests;
