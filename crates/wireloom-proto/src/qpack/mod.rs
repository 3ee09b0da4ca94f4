//! QPACK (RFC 9204) with the static table and literals.
//!
//! The dynamic table has capacity 0 in both directions, which is what SETTINGS announces: no field section ever waits for
//! another stream. [`Encoder`] and [`Decoder`] are nevertheless objects of the connection and are told the stream, which is
//! all that a dynamic table will need.

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod static_table;

use bytes::Bytes;

pub use decoder::{DecodeError, Decoder, EncoderStreamError};
pub use encoder::{DecoderStreamError, Encoder};

#[cfg(feature = "__testing")]
pub(crate) use huffman::{decode as huffman_decode, encode as huffman_encode, encoded_len as huffman_encoded_len};

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
