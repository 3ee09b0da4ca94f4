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
pub fn is_printable(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, 32..=126))
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
