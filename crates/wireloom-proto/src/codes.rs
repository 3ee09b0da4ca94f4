//! The error codes of HTTP/3, QPACK, HTTP datagrams and WebTransport in one table.

use std::fmt;

/// An application error code of QUIC, as RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE carry it.
///
/// `Display` and `Debug` print the registry's name where there is one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u64);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Every code that has a name here.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The registry's name, if the code is one of the table.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// An HTTP datagram that cannot be parsed (RFC 9297 section 5.2).
    H3_DATAGRAM_ERROR = 0x33,
    /// Nothing is wrong; the connection or stream is simply closed (RFC 9114 section 8.1, like all H3_ codes below).
    H3_NO_ERROR = 0x100,
    /// The peer broke the protocol in a way that no other code tells.
    H3_GENERAL_PROTOCOL_ERROR = 0x101,
    /// An error inside this HTTP stack.
    H3_INTERNAL_ERROR = 0x102,
    /// The peer opened a stream that may not be.
    H3_STREAM_CREATION_ERROR = 0x103,
    /// A stream that the connection needs was closed or reset.
    H3_CLOSED_CRITICAL_STREAM = 0x104,
    /// A frame in a place where it may not be.
    H3_FRAME_UNEXPECTED = 0x105,
    /// A frame whose layout or size is wrong.
    H3_FRAME_ERROR = 0x106,
    /// The peer makes more work than it is worth.
    H3_EXCESSIVE_LOAD = 0x107,
    /// A stream or push identifier was used wrongly.
    H3_ID_ERROR = 0x108,
    /// The content of a SETTINGS frame is wrong.
    H3_SETTINGS_ERROR = 0x109,
    /// The control stream did not begin with SETTINGS.
    H3_MISSING_SETTINGS = 0x10a,
    /// The server did not process the request at all; it may be retried.
    H3_REQUEST_REJECTED = 0x10b,
    /// The request or its response is not wanted any more.
    H3_REQUEST_CANCELLED = 0x10c,
    /// The client's stream ended before the request was complete.
    H3_REQUEST_INCOMPLETE = 0x10d,
    /// A malformed message (RFC 9114 section 4.1.2).
    H3_MESSAGE_ERROR = 0x10e,
    /// The TCP connection behind a CONNECT was reset.
    H3_CONNECT_ERROR = 0x10f,
    /// The request cannot be served over HTTP/3.
    H3_VERSION_FALLBACK = 0x110,
    /// A field section cannot be decoded (RFC 9204 section 6).
    QPACK_DECOMPRESSION_FAILED = 0x200,
    /// The peer's encoder stream cannot be interpreted (RFC 9204 section 6).
    QPACK_ENCODER_STREAM_ERROR = 0x201,
    /// The peer's decoder stream cannot be interpreted (RFC 9204 section 6).
    QPACK_DECODER_STREAM_ERROR = 0x202,
    /// A stream that waited for its session too long, or had no room to wait (WebTransport section 4.6).
    WT_BUFFERED_STREAM_REJECTED = 0x3994_bd84,
    /// The session of this stream is closed (WebTransport section 6).
    WT_SESSION_GONE = 0x170d_7b68,
    /// A rule of the session's flow control was broken (WebTransport section 5).
    WT_FLOW_CONTROL_ERROR = 0x045d_4487,
    /// The application protocol of the session could not be agreed on (WebTransport section 3.3).
    WT_ALPN_ERROR = 0x0817_b3dd,
    /// The peer lacks a setting or transport parameter that WebTransport requires (WebTransport section 3.1). For callers: a
    /// client that wants nothing else of the connection may close it with this. The core never sends it.
    WT_REQUIREMENTS_NOT_MET = 0x212c_0d48,
}

/// Where the 2^32 application codes of WebTransport begin and end (draft-ietf-webtrans-http3-16 section 4.4).
const APPLICATION_FIRST: u64 = 0x52e4_a40f_a8db;
const APPLICATION_LAST: u64 = 0x52e5_ac98_3162;

impl Code {
    /// From the number on the wire.
    pub const fn new(code: u64) -> Self {
        Self(code)
    }

    /// The number on the wire.
    pub const fn into_u64(self) -> u64 {
        self.0
    }

    /// Whether the code is one of those that must be treated as H3_NO_ERROR (0x1f * N + 0x21, RFC 9114 section 8.1).
    pub const fn is_reserved(self) -> bool {
        crate::h3::frame::is_reserved(self.0)
    }

    /// The code that carries a WebTransport application's stream error code.
    ///
    /// "WebTransport implementations MUST remap those error codes into the error range reserved for
    /// WT_APPLICATION_ERROR" (draft 16 section 4.4). Codes of the form 0x1f * N + 0x21 lie in that range too; "those
    /// have to be skipped when mapping the error codes".
    pub const fn from_application(code: u32) -> Self {
        let n = code as u64;
        Self(APPLICATION_FIRST + n + n / 0x1e)
    }

    /// The WebTransport application's code, `None` if this one carries none: outside the range, or reserved.
    pub const fn to_application(self) -> Option<u32> {
        if self.0 < APPLICATION_FIRST || self.0 > APPLICATION_LAST || self.is_reserved() {
            return None;
        }
        let shifted = self.0 - APPLICATION_FIRST;
        Some((shifted - shifted / 0x1f) as u32)
    }
}

impl From<u64> for Code {
    fn from(code: u64) -> Self {
        Self(code)
    }
}

impl From<Code> for u64 {
    fn from(code: Code) -> Self {
        code.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            f.write_str(name)
        } else if let Some(code) = self.to_application() {
            write!(f, "WT_APPLICATION_ERROR({code})")
        } else {
            write!(f, "{:#x}", self.0)
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "WebTransport implementations MUST remap those error codes into the error range reserved for
    /// WT_APPLICATION_ERROR" (draft 16 section 4.4).
    #[test]
    fn application_codes_skip_reserved_points() {
        assert_eq!(Code::from_application(0).into_u64(), APPLICATION_FIRST);
        assert_eq!(Code::from_application(u32::MAX).into_u64(), APPLICATION_LAST);
        for code in (0..200).chain(u32::MAX - 200..=u32::MAX) {
            let wire = Code::from_application(code);
            assert!(!wire.is_reserved(), "{code}");
            assert_eq!(wire.to_application(), Some(code));
        }
        let reserved = (APPLICATION_FIRST..APPLICATION_FIRST + 31)
            .find(|&c| Code(c).is_reserved())
            .map(Code);
        assert_eq!(reserved.and_then(Code::to_application), None);
        assert_eq!(Code(APPLICATION_FIRST - 1).to_application(), None);
        assert_eq!(Code(APPLICATION_LAST + 1).to_application(), None);
        assert_eq!(Code::H3_NO_ERROR.to_application(), None);
    }

    #[test]
    fn names() {
        assert_eq!(Code::H3_MESSAGE_ERROR.to_string(), "H3_MESSAGE_ERROR");
        assert_eq!(Code::from_application(7).to_string(), "WT_APPLICATION_ERROR(7)");
        assert_eq!(Code::new(0xabc).to_string(), "0xabc");
        assert!(Code::ALL.iter().all(|code| code.name().is_some()));
    }
}
