//! Prefix integers (RFC 9204 section 4.1.1, RFC 7541 section 5.1).

use bytes::BufMut;

use crate::varint;

/// Why there is no integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntegerError {
    /// The input ends before it does.
    Incomplete,
    /// It is above 2^62-1, or has more bytes than any such number.
    TooLarge,
}

/// Takes an integer from the front of `input`, whose first byte holds `prefix` bits of it.
///
/// "QPACK implementations MUST be able to decode integers up to and including 62 bits long" (RFC 9204 section 4.1.1).
#[inline]
pub(crate) fn decode(input: &mut &[u8], prefix: u32) -> Result<u64, IntegerError> {
    let (&first, rest) = input.split_first().ok_or(IntegerError::Incomplete)?;
    *input = rest;
    let mask = (1u64 << prefix) - 1;
    let low = u64::from(first) & mask;
    if low < mask {
        return Ok(low);
    }
    let mut value = mask;
    for shift in (0..=56).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(IntegerError::Incomplete)?;
        *input = rest;
        // At most 255 + 9 * 7 bits of 1, which is below 2^64.
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if value <= varint::MAX {
                Ok(value)
            } else {
                Err(IntegerError::TooLarge)
            };
        }
    }
    Err(IntegerError::TooLarge)
}

/// Appends `value`, with `flags` in the bits above the prefix.
#[inline]
pub(crate) fn encode(flags: u8, prefix: u32, value: u64, out: &mut impl BufMut) {
    let mask = (1u64 << prefix) - 1;
    if value < mask {
        return out.put_u8(flags | value as u8);
    }
    out.put_u8(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for prefix in 3..=8 {
            for value in [0, 1, 6, 7, 30, 31, 127, 128, 254, 255, 256, 1337, 1 << 32, varint::MAX] {
                let mut out = Vec::new();
                encode(0, prefix, value, &mut out);
                assert_eq!(decode(&mut &out[..], prefix), Ok(value), "{prefix} {value}");
                for cut in 0..out.len() {
                    assert_eq!(decode(&mut &out[..cut], prefix), Err(IntegerError::Incomplete));
                }
            }
        }
    }

    /// RFC 7541 appendix C.1.
    #[test]
    fn examples() {
        for (prefix, value, bytes) in [(5, 10, &[0x0a][..]), (5, 1337, &[0x1f, 0x9a, 0x0a]), (8, 42, &[0x2a])] {
            let mut out = Vec::new();
            encode(0, prefix, value, &mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn overflow() {
        assert_eq!(decode(&mut &[0xff; 20][..], 7), Err(IntegerError::TooLarge));
        let padded = [0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(decode(&mut &padded[..], 7), Err(IntegerError::TooLarge));
        let mut out = Vec::new();
        encode(0, 7, varint::MAX + 1, &mut out);
        assert_eq!(decode(&mut &out[..], 7), Err(IntegerError::TooLarge));
    }
}
