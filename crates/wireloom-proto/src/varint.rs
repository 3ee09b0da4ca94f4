//! Variable-length integers (RFC 9000 section 16): 1, 2, 4 or 8 bytes, the two high bits of the first say which.

use bytes::{Buf, BufMut, Bytes};

/// The largest value, 2^62-1.
pub const MAX: u64 = (1 << 62) - 1;

/// How many bytes [`encode`] writes for `value`: 1, 2, 4 or 8.
pub const fn size(value: u64) -> usize {
    if value < 1 << 6 {
        1
    } else if value < 1 << 14 {
        2
    } else if value < 1 << 30 {
        4
    } else {
        8
    }
}

/// Appends `value` in its shortest form.
///
/// A value above [`MAX`] is the caller's error: debug builds panic, release builds drop its two high bits.
pub fn encode(value: u64, out: &mut impl BufMut) {
    debug_assert!(value <= MAX, "{value:#x} does not fit a variable-length integer");
    match size(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(1 << 14 | value as u16),
        4 => out.put_u32(2 << 30 | value as u32),
        _ => out.put_u64(3 << 62 | value & MAX),
    }
}

/// The integer at the start of `input` and its length in bytes; `None` if it is incomplete. Longer forms than necessary are
/// legal (RFC 9000 section 16).
#[inline]
pub fn decode(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    Some(match first >> 6 {
        0 => (u64::from(first), 1),
        1 => (u64::from(u16::from_be_bytes(*input.first_chunk()?) & 0x3fff), 2),
        2 => (u64::from(u32::from_be_bytes(*input.first_chunk()?) & 0x3fff_ffff), 4),
        _ => (u64::from_be_bytes(*input.first_chunk()?) & MAX, 8),
    })
}

/// Removes the integer at the start of `input`; leaves `input` alone and returns `None` if it is incomplete.
#[inline]
pub fn take(input: &mut Bytes) -> Option<u64> {
    let (value, len) = decode(input)?;
    input.advance(len);
    Some(value)
}

/// Reads one integer after another from input that may be cut anywhere. Holds at most 7 bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct VarintReader {
    held: [u8; 8],
    len: u8,
}

impl VarintReader {
    /// A reader that holds nothing.
    pub const fn new() -> Self {
        Self { held: [0; 8], len: 0 }
    }

    /// The next integer. `None` means that all of `input` was taken and more is needed.
    #[inline]
    pub fn read(&mut self, input: &mut Bytes) -> Option<u64> {
        if self.len == 0
            && let Some(value) = take(input)
        {
            return Some(value);
        }
        self.read_split(input)
    }

    /// Whether part of an integer was read: the input may not end here.
    pub const fn is_partial(&self) -> bool {
        self.len > 0
    }

    fn read_split(&mut self, input: &mut Bytes) -> Option<u64> {
        while input.has_remaining() {
            self.held[usize::from(self.len)] = input.get_u8();
            self.len += 1;
            // Eight bytes always hold an integer, so `len` never leaves the array.
            if let Some((value, _)) = decode(&self.held[..usize::from(self.len)]) {
                self.len = 0;
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u64; 10] = [
        0,
        1,
        63,
        64,
        16_383,
        16_384,
        (1 << 30) - 1,
        1 << 30,
        151_288_809_941_952_652,
        MAX,
    ];

    #[test]
    fn round_trip_at_every_edge_and_split() {
        for value in EDGES {
            let mut encoded = Vec::new();
            encode(value, &mut encoded);
            assert_eq!(encoded.len(), size(value));
            assert_eq!(decode(&encoded), Some((value, encoded.len())));
            for cut in 0..encoded.len() {
                assert_eq!(decode(&encoded[..cut]), None);
                let mut reader = VarintReader::new();
                assert_eq!(reader.read(&mut Bytes::copy_from_slice(&encoded[..cut])), None);
                assert_eq!(reader.is_partial(), cut > 0);
                let mut rest = Bytes::copy_from_slice(&encoded[cut..]);
                assert_eq!(reader.read(&mut rest), Some(value));
                assert!(rest.is_empty() && !reader.is_partial());
            }
        }
    }

    #[test]
    fn take_leaves_incomplete_input_alone() {
        let mut input = Bytes::from_static(&[0x40, 0x25, 0xc0]);
        assert_eq!(take(&mut input), Some(37));
        assert_eq!(take(&mut input), None);
        assert_eq!(input.len(), 1);
    }
}
