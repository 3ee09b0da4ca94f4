//! What is sent and what was received, owned.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::codec::{Encoding, Name, Payload, TextError, encode_utf16};

/// A payload with its declared encoding, to be sent or received. Cheap to clone.
///
/// Text becomes UTF-8, bytes become binary:
/// ```
/// use wireloom_messaging::{Data, codec::Encoding};
///
/// assert_eq!(Data::from("text").encoding, Encoding::Utf8);
/// assert_eq!(Data::from(vec![0, 255]).encoding, Encoding::Binary);
/// assert_eq!(Data::utf16("text").text()?, "text");
/// # Ok::<(), wireloom_messaging::codec::TextError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Data {
    /// What the sender declares.
    pub encoding: Encoding,
    /// As they are on the wire.
    pub bytes: Bytes,
}

impl Data {
    /// No bytes, as binary.
    pub const EMPTY: Self = Self {
        encoding: Encoding::Binary,
        bytes: Bytes::new(),
    };

    /// Any bytes.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self {
            encoding: Encoding::Binary,
            bytes: bytes.into(),
        }
    }

    /// Text, as UTF-16 little-endian. Clients of the original in browsers misread it; UTF-8 reaches everybody.
    pub fn utf16(text: &str) -> Self {
        let mut bytes = Vec::new();
        encode_utf16(text, &mut bytes);
        Self {
            encoding: Encoding::Utf16,
            bytes: bytes.into(),
        }
    }

    /// `text` in the given encoding; binary is its UTF-8 bytes.
    pub fn text_as(text: &str, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Utf16 => Self::utf16(text),
            Encoding::Binary | Encoding::Utf8 => Self {
                encoding,
                bytes: Bytes::copy_from_slice(text.as_bytes()),
            },
        }
    }

    /// A value as JSON, in UTF-8.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        Ok(Self {
            encoding: Encoding::Utf8,
            bytes: serde_json::to_vec(value)?.into(),
        })
    }

    /// For the codec.
    pub fn payload(&self) -> Payload<'_> {
        Payload {
            encoding: self.encoding,
            bytes: &self.bytes,
        }
    }

    /// As text: see [`Payload::text`].
    ///
    /// # Errors
    /// It is not of its declared encoding, or binary and not UTF-8.
    pub fn text(&self) -> Result<Cow<'_, str>, TextError> {
        self.payload().text()
    }

    /// Reads a value from JSON, in any encoding of text.
    ///
    /// # Errors
    /// It is no text, or no JSON of that type.
    pub fn parse_json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self.encoding {
            Encoding::Binary | Encoding::Utf8 => serde_json::from_slice(&self.bytes),
            Encoding::Utf16 => {
                let text = self.text().map_err(serde::de::Error::custom)?;
                serde_json::from_str(&text)
            }
        }
    }
}

impl From<&str> for Data {
    fn from(text: &str) -> Self {
        Self::text_as(text, Encoding::Utf8)
    }
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        Self {
            encoding: Encoding::Utf8,
            bytes: text.into(),
        }
    }
}

impl From<Bytes> for Data {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<&[u8]> for Data {
    fn from(bytes: &[u8]) -> Self {
        Self::binary(Bytes::copy_from_slice(bytes))
    }
}

impl From<()> for Data {
    fn from((): ()) -> Self {
        Self::EMPTY
    }
}

impl From<Payload<'_>> for Data {
    fn from(payload: Payload<'_>) -> Self {
        Self {
            encoding: payload.encoding,
            bytes: Bytes::copy_from_slice(payload.bytes),
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoding {
            Encoding::Binary => write!(f, "binary {} bytes", self.bytes.len()),
            encoding => match self.text() {
                Ok(text) => write!(f, "{encoding} {text:?}"),
                Err(error) => write!(f, "{encoding} {} bytes ({error})", self.bytes.len()),
            },
        }
    }
}

/// A signal or request as it was received. Cheap to clone: all clones share the message's bytes.
#[derive(Clone)]
pub struct IncomingMessage {
    name: Bytes,
    data: Data,
}

impl IncomingMessage {
    /// Of the parts that were decoded from `frame`, which they borrow.
    pub(crate) fn new(frame: &Bytes, name: Name<'_>, payload: Payload<'_>) -> Self {
        Self {
            name: frame.slice_ref(name.as_bytes()),
            data: Data {
                encoding: payload.encoding,
                bytes: frame.slice_ref(payload.bytes),
            },
        }
    }

    /// The name, if it is UTF-8; names that clients should send are.
    pub fn name(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }

    /// The name as it was received.
    pub fn name_bytes(&self) -> &[u8] {
        &self.name
    }

    /// The payload.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// What the sender declared the payload to be.
    pub fn encoding(&self) -> Encoding {
        self.data.encoding
    }

    /// The payload's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.data.bytes
    }

    /// The payload as text.
    ///
    /// # Errors
    /// It is not of its declared encoding, or binary and not UTF-8.
    pub fn text(&self) -> Result<Cow<'_, str>, TextError> {
        self.data.text()
    }

    /// The payload.
    pub fn into_data(self) -> Data {
        self.data
    }
}

impl fmt::Debug for IncomingMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingMessage")
            .field("name", &self.name)
            .field("data", &self.data)
            .finish()
    }
}
