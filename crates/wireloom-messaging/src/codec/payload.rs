//! Payloads and their encodings.

use std::borrow::Cow;

use super::{TextError, decode_utf16};

/// What the sender says that the bytes of a payload are (section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// Any bytes.
    #[default]
    Binary,
    /// Text in UTF-8. Nobody checks it on the way.
    Utf8,
    /// Text in UTF-16, little-endian, without a byte order mark: an even number of bytes.
    Utf16,
}

impl Encoding {
    /// What the type of a message has more than that of the binary one.
    pub(crate) const fn offset(self) -> u8 {
        match self {
            Self::Binary => 0,
            Self::Utf8 => 1,
            Self::Utf16 => 2,
        }
    }

    /// `binary`, `utf8` or `utf16`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Utf8 => "utf8",
            Self::Utf16 => "utf16",
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes, and what they are said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Payload<'a> {
    /// What the sender declared.
    pub encoding: Encoding,
    /// As they are on the wire.
    pub bytes: &'a [u8],
}

impl<'a> Payload<'a> {
    /// No bytes, as binary.
    pub const EMPTY: Self = Self::binary(&[]);

    /// Any bytes.
    pub const fn binary(bytes: &'a [u8]) -> Self {
        Self {
            encoding: Encoding::Binary,
            bytes,
        }
    }

    /// Text, as UTF-8.
    pub const fn utf8(text: &'a str) -> Self {
        Self {
            encoding: Encoding::Utf8,
            bytes: text.as_bytes(),
        }
    }

    /// Code units of UTF-16, little-endian; [`encode_utf16`](super::encode_utf16) makes them of text.
    pub const fn utf16(bytes: &'a [u8]) -> Self {
        Self {
            encoding: Encoding::Utf16,
            bytes,
        }
    }

    /// The payload as text. Borrowed where it is UTF-8; UTF-16 is converted, each lone surrogate to U+FFFD. Binary is taken
    /// for UTF-8.
    ///
    /// # Errors
    /// It is not UTF-8, or UTF-16 of an odd length.
    pub fn text(&self) -> Result<Cow<'a, str>, TextError> {
        match self.encoding {
            Encoding::Binary | Encoding::Utf8 => std::str::from_utf8(self.bytes)
                .map(Cow::Borrowed)
                .map_err(|_| TextError::InvalidUtf8),
            Encoding::Utf16 => decode_utf16(self.bytes).map(Cow::Owned),
        }
    }

    /// How many bytes.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
