//! String literals (RFC 9204 section 4.1.2).

use bytes::{BufMut, BytesMut};

use super::huffman;
use super::integer::{self, IntegerError};

/// A string literal as received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) coded: bool,
}

/// The least that `len` bytes can stand for: no Huffman code is longer than 30 bits, no padding than 7.
const fn least(len: usize, coded: bool) -> usize {
    if coded { (8 * len).saturating_sub(7) / 30 } else { len }
}

impl<'a> Text<'a> {
    /// Takes a literal whose first byte holds `prefix` bits of its length, and the H bit above. [`IntegerError::TooLarge`] if
    /// it certainly stands for more than `most` bytes, which is known before they are there.
    pub(super) fn take(input: &mut &'a [u8], prefix: u32, most: usize) -> Result<Self, IntegerError> {
        let coded = input.first().is_some_and(|first| first >> prefix & 1 != 0);
        let len = integer::decode(input, prefix)?;
        let len = usize::try_from(len)
            .ok()
            .filter(|&len| len <= usize::MAX / 8 && least(len, coded) <= most)
            .ok_or(IntegerError::TooLarge)?;
        let (bytes, rest) = input.split_at_checked(len).ok_or(IntegerError::Incomplete)?;
        *input = rest;
        Ok(Self { bytes, coded })
    }

    /// The least that it can stand for, in bytes.
    pub(super) const fn least(&self) -> usize {
        least(self.bytes.len(), self.coded)
    }

    /// Appends what it stands for.
    pub(super) fn decode(&self, out: &mut BytesMut) -> Result<(), huffman::InvalidHuffman> {
        if self.coded {
            huffman::decode(self.bytes, out)
        } else {
            out.put_slice(self.bytes);
            Ok(())
        }
    }
}

/// Appends a literal, Huffman-coded where that is shorter. The H bit lies above the `prefix` bits of the length, `flags` above
/// that.
pub(super) fn encode(flags: u8, prefix: u32, text: &[u8], out: &mut BytesMut) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        integer::encode(flags | 1 << prefix, prefix, coded as u64, out);
        huffman::encode(text, coded, out);
    } else {
        integer::encode(flags, prefix, text.len() as u64, out);
        out.put_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_judged_before_the_bytes_are_there() {
        let take = |mut input: &[u8], most| Text::take(&mut input, 7, most).map(|text| text.bytes.len());
        assert_eq!(take(b"\x03", 3), Err(IntegerError::Incomplete));
        assert_eq!(take(b"\x03", 2), Err(IntegerError::TooLarge));
        assert_eq!(take(b"\x03abc", 3), Ok(3));
        // 8 bytes of Huffman code are one byte at least (57 bits: one of 30, and padding cannot be 27).
        assert_eq!(take(b"\x88", 1), Err(IntegerError::Incomplete));
        assert_eq!(take(b"\x88", 0), Err(IntegerError::TooLarge));
        assert_eq!(
            take(b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x3f", usize::MAX),
            Err(IntegerError::TooLarge)
        );
    }
}
