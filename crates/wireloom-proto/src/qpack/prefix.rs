//! The prefix of a field section (RFC 9204 section 4.5.1).

use bytes::{BufMut, BytesMut};

use super::decoder::DecodeError;
use super::integer;
use super::table::ENTRY_OVERHEAD;

/// What a section says of the table before its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Required Insert Count: how many insertions it takes to decode the section. Above every absolute index in it.
    pub(super) required: u64,
    /// Base: what indices in the section count from.
    pub(super) base: u64,
}

/// MaxEntries of section 4.5.1.1. `max_capacity` is the one that the decoder announced, whatever is in use.
pub(super) const fn max_entries(max_capacity: u64) -> u64 {
    max_capacity / ENTRY_OVERHEAD as u64
}

impl Prefix {
    /// "If the decoder encounters a value of EncodedInsertCount that could not have been produced by a conformant encoder, it
    /// MUST treat this as a connection error of type QPACK_DECOMPRESSION_FAILED" (section 4.5.1.1). "The value of Base MUST NOT
    /// be negative" (section 4.5.1.2).
    pub(super) fn decode(input: &mut &[u8], max_entries: u64, inserted: u64) -> Result<Self, DecodeError> {
        let required = match integer::decode(input, 8)? {
            0 => 0,
            encoded => required(encoded, max_entries, inserted).ok_or(DecodeError::DecompressionFailed(
                "a Required Insert Count that cannot be",
            ))?,
        };
        let is_negative = input.first().is_some_and(|first| first & 0x80 != 0);
        let delta = integer::decode(input, 7)?;
        let base = if is_negative {
            required.checked_sub(delta).and_then(|base| base.checked_sub(1))
        } else {
            required.checked_add(delta)
        };
        let base = base.ok_or(DecodeError::DecompressionFailed("negative Base"))?;
        Ok(Self { required, base })
    }

    pub(super) fn encode(&self, max_entries: u64, out: &mut BytesMut) {
        if self.required == 0 {
            return out.put_u16(0);
        }
        integer::encode(0, 8, self.required % (2 * max_entries) + 1, out);
        match self.base.checked_sub(self.required) {
            Some(delta) => integer::encode(0, 7, delta, out),
            None => integer::encode(0x80, 7, self.required - self.base - 1, out),
        }
    }
}

/// The count is sent modulo twice the entries that a table can hold, and lies within as many of what was inserted.
fn required(encoded: u64, max_entries: u64, inserted: u64) -> Option<u64> {
    let full_range = 2 * max_entries;
    if encoded > full_range {
        return None;
    }
    let max_value = inserted + max_entries;
    let wrapped = max_value / full_range * full_range + encoded - 1;
    let required = if wrapped > max_value {
        wrapped.checked_sub(full_range)?
    } else {
        wrapped
    };
    (required > 0).then_some(required)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every count within MaxEntries of what was inserted survives, for tables of any size.
    #[test]
    fn counts_survive_the_modulus() {
        for max_entries in [1, 3, 6, 128] {
            for inserted in 0..1000u64 {
                let counts = (inserted + 1).saturating_sub(max_entries).max(1)..=inserted + max_entries;
                for count in counts {
                    let encoded = count % (2 * max_entries) + 1;
                    assert_eq!(
                        required(encoded, max_entries, inserted),
                        Some(count),
                        "{max_entries} {inserted}"
                    );
                }
            }
        }
    }

    /// The example of section 4.5.1.1: MaxEntries 3, ten insertions, 4 means 9.
    #[test]
    fn example() {
        assert_eq!(max_entries(100), 3);
        assert_eq!(required(4, 3, 10), Some(9));
    }

    #[test]
    fn impossible_counts() {
        assert_eq!(required(1, 0, 0), None);
        assert_eq!(required(7, 3, 10), None);
        // 0, and what would be negative.
        assert_eq!(required(1, 3, 0), None);
        assert_eq!(required(5, 3, 0), None);
        assert_eq!(required(6, 3, 0), None);
        assert_eq!(required(4, 3, 0), Some(3));
    }

    #[test]
    fn base_on_both_sides() {
        for base in [0, 1, 8, 9, 10, 300] {
            let (prefix, mut out) = (Prefix { required: 9, base }, BytesMut::new());
            prefix.encode(128, &mut out);
            assert_eq!(Prefix::decode(&mut &out[..], 128, 9), Ok(prefix));
        }
        assert!(Prefix::decode(&mut &b"\x0a\x89"[..], 128, 9).is_err());
        assert_eq!(
            Prefix::decode(&mut &b"\x0a\x88"[..], 128, 9),
            Ok(Prefix { required: 9, base: 0 })
        );
    }
}
