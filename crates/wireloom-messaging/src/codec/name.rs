//! Names of signals and requests.

use super::EncodeError;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 255;

/// The name of a signal or request: at most 255 bytes, matched byte for byte (section 3.2).
///
/// Names that are sent are printable ASCII; names that are received may be anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Name<'a>(&'a [u8]);

/// Whether all of `bytes` are printable ASCII, 32 to 126.
#[inline]
pub fn is_printable(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| all_printable(u64::from_ne_bytes(*word))) && all_printable(padded(rest))
}

/// Whether each byte is from 32 to 126, eight at a time: names are checked with every message that is sent.
#[inline]
const fn all_printable(word: u64) -> bool {
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // A byte below 128 gets its high bit by adding 0x60 if it is at least 32, and by adding 1 if it is 127. Bytes that have
    // it already fail, so that their carry into the next one does not matter.
    let at_least_32 = word.wrapping_add(u64::from_ne_bytes([0x60; 8]));
    let is_127 = word.wrapping_add(u64::from_ne_bytes([1; 8]));
    at_least_32 & !is_127 & !word & HIGH == HIGH
}

/// At most seven bytes and blanks.
#[inline]
fn padded(rest: &[u8]) -> u64 {
    const BLANKS: u64 = u64::from_ne_bytes([b' '; 8]);
    rest.iter().fold(BLANKS, |word, byte| word << 8 | u64::from(*byte))
}

impl<'a> Name<'a> {
    /// No name.
    pub const EMPTY: Self = Self(&[]);

    /// A name to send.
    ///
    /// # Errors
    /// It is longer than 255 bytes or has characters other than printable ASCII.
    pub fn new(name: &'a str) -> Result<Self, EncodeError> {
        let name = Self(name.as_bytes());
        name.check()?;
        Ok(name)
    }

    /// A name as it was received. The caller has made sure that it is at most 255 bytes long.
    pub(crate) const fn received(bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.len() <= MAX_NAME);
        Self(bytes)
    }

    /// Whether it may be sent.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), EncodeError> {
        if self.0.len() > MAX_NAME {
            return Err(EncodeError::NameTooLong);
        }
        if !is_printable(self.0) {
            return Err(EncodeError::NameCharacters);
        }
        Ok(())
    }

    /// The bytes on the wire.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The name as text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }

    /// How many bytes it has, at most 255.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::is_printable;

    #[test]
    fn printable_is_32_to_126_wherever_it_is() {
        for len in 0..40 {
            assert!(is_printable(&vec![b'a'; len]));
            for at in 0..len {
                for byte in 0..=255u8 {
                    let mut name = vec![b'~'; len];
                    name[at] = byte;
                    assert_eq!(
                        is_printable(&name),
                        (32..=126).contains(&byte),
                        "{byte} at {at} of {len}"
                    );
                }
            }
        }
    }
}
