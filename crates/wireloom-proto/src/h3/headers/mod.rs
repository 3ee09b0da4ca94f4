//! Between field sections and the types of the `http` crate, with the rules of RFC 9114 sections 4.2 to 4.4, of extended
//! CONNECT (RFC 9220, RFC 8441) and of RFC 9110 where HTTP/3 leans on it.

mod decode;
mod encode;

pub(crate) use decode::declared_length;
pub use decode::{RequestHead, ResponseHead, decode_request, decode_response, decode_trailers};
pub use encode::{encode_request, encode_response, encode_trailers, section_size};

use crate::codes::Code;

/// What makes a message malformed, or unfit to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// A pseudo-header field comes twice.
    #[error("{0} comes twice")]
    DuplicatePseudo(&'static str),
    /// A pseudo-header field that this message must have is missing.
    #[error("{0} is missing")]
    MissingPseudo(&'static str),
    /// A pseudo-header field that this message must not have: `:scheme` or `:path` on a plain CONNECT.
    #[error("{0} on a CONNECT without :protocol")]
    UnexpectedPseudo(&'static str),
    /// A pseudo-header field after a regular one.
    #[error("pseudo-header field after a regular field")]
    LatePseudo,
    /// A pseudo-header field that is not defined for this kind of message.
    #[error("pseudo-header field that is not defined here")]
    UnknownPseudo,
    /// A pseudo-header field in a trailer section.
    #[error("pseudo-header field in trailers")]
    PseudoInTrailers,
    /// A field name with an upper-case letter.
    #[error("upper-case field name")]
    UppercaseName,
    /// A field name that is no token.
    #[error("invalid field name")]
    InvalidName,
    /// A field value with a forbidden character, CR, LF and NUL among them.
    #[error("invalid field value")]
    InvalidValue,
    /// Connection, Keep-Alive, Proxy-Connection, Transfer-Encoding or Upgrade; TE elsewhere than in a request.
    #[error("connection-specific field")]
    ConnectionSpecific,
    /// TE with another value than `trailers`.
    #[error("TE other than trailers")]
    InvalidTe,
    /// `:method` is no token.
    #[error("invalid :method")]
    InvalidMethod,
    /// `:scheme` is none.
    #[error("invalid :scheme")]
    InvalidScheme,
    /// `:authority`, or Host in its place, is empty, unparsable or holds user information, or has no port in a plain CONNECT.
    #[error("invalid :authority or Host")]
    InvalidAuthority,
    /// `:path` is empty, does not begin with `/` (`*` for OPTIONS), or is unparsable.
    #[error("invalid :path")]
    InvalidPath,
    /// `:protocol` is no upgrade token.
    #[error("invalid :protocol")]
    InvalidProtocol,
    /// `:status` is no three-digit status, or is 101, which HTTP/3 has not.
    #[error("invalid :status")]
    InvalidStatus,
    /// Host differs from `:authority`, or comes more than once.
    #[error("Host and :authority differ")]
    HostMismatch,
    /// `:protocol` with another method than CONNECT.
    #[error(":protocol without CONNECT")]
    ProtocolWithoutConnect,
    /// Content-Length is no number below 2^64.
    #[error("invalid Content-Length")]
    InvalidContentLength,
    /// Several Content-Lengths that differ.
    #[error("conflicting Content-Length fields")]
    ConflictingContentLength,
    /// More fields than a `HeaderMap` can hold (32768).
    #[error("too many fields")]
    TooManyFields,
}

impl HeaderError {
    /// "Malformed requests or responses that are detected MUST be treated as a stream error of type H3_MESSAGE_ERROR"
    /// (RFC 9114 section 4.1.2). A server may send 400 before.
    pub const fn code(self) -> Code {
        Code::H3_MESSAGE_ERROR
    }
}

/// Whether the field speaks of one HTTP/1 connection (RFC 9114 section 4.2). TE is judged apart.
fn is_connection_specific(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}

#[cfg(test)]
mod tests;
