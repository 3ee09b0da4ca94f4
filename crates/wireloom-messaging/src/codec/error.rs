//! What can be wrong with bytes, messages and text.

/// Why bytes are no message (section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// Nothing, or a type that version 2.0 does not have.
    #[error("a message of unknown type")]
    Unknown,
    /// A type that there is, with a length or a field that cannot be.
    #[error("a malformed message")]
    Malformed,
}

/// Why a message cannot be sent: what is wrong would be refused, or misread, by the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A name of more than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// A name with anything but printable ASCII.
    #[error("the name has characters other than printable ASCII")]
    NameCharacters,
    /// An error code that is empty, longer than 255 bytes, or has anything but printable ASCII.
    #[error("the error code is not 1 to 255 printable ASCII characters")]
    ErrorCode,
    /// A signal or request with neither name nor payload, a session key or a session object without a byte.
    #[error("the message has no content")]
    Empty,
    /// A UTF-16 signal without a payload, which every parser refuses (section 4.3). Send it as binary or UTF-8.
    #[error("a UTF-16 signal needs a payload")]
    EmptyUtf16Signal,
    /// A UTF-16 payload of an odd number of bytes.
    #[error("a UTF-16 payload has an odd number of bytes")]
    OddUtf16,
}

/// Why a payload is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Declared as UTF-8 or binary, and not UTF-8.
    #[error("the payload is not UTF-8")]
    InvalidUtf8,
    /// Declared as UTF-16, with an odd number of bytes.
    #[error("a UTF-16 payload has an odd number of bytes")]
    OddUtf16,
}
