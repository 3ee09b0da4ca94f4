//! Capsules (RFC 9297 section 3.2) and those of WebTransport over HTTP/3 (draft-ietf-webtrans-http3-16).

use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::codes::Code;
use crate::payload::{Idle, Payload, skip};
use crate::stream_id::Dir;
pub use crate::tlv::encode_header;
use crate::tlv::{self, encode_integer};
use crate::varint::{self, VarintReader};

/// DATAGRAM (RFC 9297 section 3.5).
pub const DATAGRAM: u64 = 0x00;
/// WT_CLOSE_SESSION (section 6 of the draft, like all below).
pub const WT_CLOSE_SESSION: u64 = 0x2843;
/// WT_DRAIN_SESSION (section 4.7).
pub const WT_DRAIN_SESSION: u64 = 0x78ae;
/// WT_MAX_DATA (section 5.6.4).
pub const WT_MAX_DATA: u64 = 0x190b_4d3d;
/// WT_MAX_STREAM_DATA, which only WebTransport over HTTP/2 has.
pub const WT_MAX_STREAM_DATA: u64 = 0x190b_4d3e;
/// WT_MAX_STREAMS, bidirectional (section 5.6.2).
pub const WT_MAX_STREAMS_BIDI: u64 = 0x190b_4d3f;
/// WT_MAX_STREAMS, unidirectional (section 5.6.2).
pub const WT_MAX_STREAMS_UNI: u64 = 0x190b_4d40;
/// WT_DATA_BLOCKED (section 5.6.5).
pub const WT_DATA_BLOCKED: u64 = 0x190b_4d41;
/// WT_STREAM_DATA_BLOCKED, which only WebTransport over HTTP/2 has.
pub const WT_STREAM_DATA_BLOCKED: u64 = 0x190b_4d42;
/// WT_STREAMS_BLOCKED, bidirectional (section 5.6.3).
pub const WT_STREAMS_BLOCKED_BIDI: u64 = 0x190b_4d43;
/// WT_STREAMS_BLOCKED, unidirectional (section 5.6.3).
pub const WT_STREAMS_BLOCKED_UNI: u64 = 0x190b_4d44;

/// The longest reason of WT_CLOSE_SESSION, in bytes.
pub const MAX_REASON: usize = 1024;
/// The longest DATAGRAM capsule that is kept, in bytes. A longer one is skipped, as a lost datagram would be.
pub const MAX_DATAGRAM: usize = 65_535;

/// A capsule that means something here. Values are as received; their rules are the session's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capsule {
    /// The sender ended the session. Nothing may follow.
    CloseSession {
        /// The application's code.
        code: u32,
        /// The application's reason, at most [`MAX_REASON`] bytes.
        reason: String,
    },
    /// The sender asks to end the session soon.
    DrainSession,
    /// An HTTP datagram sent as a capsule: a slice of the input where it came in one piece.
    Datagram(Bytes),
    /// Bytes that may be sent on all streams of the session together.
    MaxData(u64),
    /// Streams that may be opened in the session, counted from its start.
    MaxStreams {
        /// Which kind.
        dir: Dir,
        /// How many.
        max: u64,
    },
    /// The sender is held up by the limit of bytes.
    DataBlocked(u64),
    /// The sender is held up by the limit of streams.
    StreamsBlocked {
        /// Which kind.
        dir: Dir,
        /// The limit.
        max: u64,
    },
    /// WT_MAX_STREAM_DATA or WT_STREAM_DATA_BLOCKED, whose type this is: forbidden over HTTP/3, where QUIC does their work.
    /// The payload is skipped.
    Prohibited(u64),
}

/// A capsule that makes the message malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// The stream ended inside a capsule.
    #[error("the stream ended inside a capsule")]
    Truncated,
    /// The payload of a capsule of this type is shorter or longer than its fields.
    #[error("the length of capsule {0:#x} does not match its fields")]
    Malformed(u64),
    /// WT_CLOSE_SESSION with a reason above 1024 bytes.
    #[error("the reason of WT_CLOSE_SESSION is too long")]
    ReasonTooLong,
    /// WT_CLOSE_SESSION with a reason that is not UTF-8.
    #[error("the reason of WT_CLOSE_SESSION is not UTF-8")]
    ReasonNotUtf8,
    /// Bytes after WT_CLOSE_SESSION.
    #[error("data after WT_CLOSE_SESSION")]
    AfterClose,
}

impl CapsuleError {
    /// With what the stream is reset: "the receiver MUST treat it as if it had received a malformed or incomplete HTTP
    /// message" (RFC 9297 section 3.3), and WT_CLOSE_SESSION says the same of itself (draft 16 section 6).
    pub const fn code(self) -> Code {
        Code::H3_MESSAGE_ERROR
    }
}

#[derive(Debug)]
enum State {
    Type,
    Length(u64),
    Skip(u64),
    Payload(u64, Payload),
    Closed,
}

/// Reads capsules from a stream that may be cut anywhere. It buffers at most one payload: 1028 bytes, or [`MAX_DATAGRAM`] for
/// a DATAGRAM.
///
/// Unknown and reserved types are skipped inside, however long, without buffering: "Endpoints that receive a Capsule
/// with an unknown Capsule Type MUST silently drop that Capsule and skip over it to parse the next Capsule" (RFC 9297
/// section 3.2).
///
/// After an error the reader must not be used again.
#[derive(Debug)]
pub struct CapsuleReader {
    state: State,
    varint: VarintReader,
    idle: Idle,
    /// Those of flow control are unknown.
    no_flow_control: bool,
}

impl Default for CapsuleReader {
    fn default() -> Self {
        Self::new()
    }
}

impl CapsuleReader {
    /// A reader at the start of a capsule stream.
    pub const fn new() -> Self {
        Self {
            state: State::Type,
            varint: VarintReader::new(),
            idle: Idle::new(),
            no_flow_control: false,
        }
    }

    /// From here on the types of flow control are unknown, as in drafts before 12.
    pub(crate) const fn without_flow_control(&mut self) {
        self.no_flow_control = true;
    }

    /// The next capsule. `Ok(None)`: all of `input` was taken and more is needed. Call again after every capsule.
    pub fn read(&mut self, input: &mut Bytes) -> Result<Option<Capsule>, CapsuleError> {
        loop {
            match &mut self.state {
                State::Type => {
                    let Some(ty) = self.varint.read(input) else {
                        return Ok(None);
                    };
                    self.state = State::Length(ty);
                }
                State::Length(ty) => {
                    let ty = *ty;
                    let Some(len) = self.varint.read(input) else {
                        return Ok(None);
                    };
                    if let Some(capsule) = self.begin(ty, len)? {
                        return Ok(Some(capsule));
                    }
                }
                State::Skip(left) => {
                    if !skip(left, input) {
                        return Ok(None);
                    }
                    self.state = State::Type;
                }
                State::Payload(ty, payload) => {
                    let Some(bytes) = payload.read(input) else {
                        return Ok(None);
                    };
                    let ty = *ty;
                    self.state = if ty == WT_CLOSE_SESSION {
                        State::Closed
                    } else {
                        State::Type
                    };
                    return complete(ty, bytes).map(Some);
                }
                // "If any additional stream data is received on the CONNECT stream after receiving a WT_CLOSE_SESSION
                // capsule, the stream MUST be reset with code H3_MESSAGE_ERROR" (draft 16 section 6).
                State::Closed if input.is_empty() => return Ok(None),
                State::Closed => return Err(CapsuleError::AfterClose),
            }
        }
    }

    /// To be called when the stream ended. If "the last Capsule on the stream was truncated, this MUST be treated as if
    /// it were a malformed or incomplete message" (RFC 9297 section 3.3).
    pub const fn finish(&self) -> Result<(), CapsuleError> {
        match self.state {
            State::Type if !self.varint.is_partial() => Ok(()),
            State::Closed => Ok(()),
            _ => Err(CapsuleError::Truncated),
        }
    }

    /// How many unknown capsules were skipped since the last known one, for a limit against floods.
    pub const fn idle_capsules(&self) -> u32 {
        self.idle.count()
    }

    /// What is read from here on came at `now`. The capsules without effect are counted anew once 10 s have passed, or never where
    /// this is not called.
    pub fn set_time(&mut self, now: Instant) {
        self.idle.at(now);
    }

    /// Decides by type and length alone what becomes of a capsule, before any of its payload is kept.
    ///
    /// "A Capsule payload that contains additional bytes after the identified fields or a Capsule payload that
    /// terminates before the end of the identified fields MUST be treated as it if were a malformed or incomplete
    /// message" (RFC 9297 section 3.3).
    fn begin(&mut self, ty: u64, len: u64) -> Result<Option<Capsule>, CapsuleError> {
        let wanted = match ty {
            WT_CLOSE_SESSION if len < 4 => return Err(CapsuleError::Malformed(ty)),
            // "If the Application Error Message exceeds 1024 bytes or is not valid UTF-8, the receiver MUST reset the
            // stream with code H3_MESSAGE_ERROR" (draft 16 section 6).
            WT_CLOSE_SESSION if len > 4 + MAX_REASON as u64 => return Err(CapsuleError::ReasonTooLong),
            WT_DRAIN_SESSION if len > 0 => return Err(CapsuleError::Malformed(ty)),
            WT_CLOSE_SESSION | WT_DRAIN_SESSION => true,
            WT_MAX_DATA..=WT_STREAMS_BLOCKED_UNI if self.no_flow_control => false,
            WT_MAX_STREAM_DATA | WT_STREAM_DATA_BLOCKED => {
                self.idle.clear();
                self.state = State::Skip(len);
                return Ok(Some(Capsule::Prohibited(ty)));
            }
            WT_MAX_DATA..=WT_STREAMS_BLOCKED_UNI if len > 8 => return Err(CapsuleError::Malformed(ty)),
            WT_MAX_DATA..=WT_STREAMS_BLOCKED_UNI => true,
            DATAGRAM => len <= MAX_DATAGRAM as u64,
            _ => false,
        };
        match usize::try_from(len) {
            Ok(need) if wanted => {
                self.idle.clear();
                self.state = State::Payload(ty, Payload::new(need));
            }
            _ => {
                self.idle.add();
                self.state = State::Skip(len);
            }
        }
        Ok(None)
    }
}

fn complete(ty: u64, mut payload: Bytes) -> Result<Capsule, CapsuleError> {
    match ty {
        DATAGRAM => return Ok(Capsule::Datagram(payload)),
        WT_DRAIN_SESSION => return Ok(Capsule::DrainSession),
        WT_CLOSE_SESSION => {
            let code = payload.try_get_u32().map_err(|_| CapsuleError::Malformed(ty))?;
            let reason = std::str::from_utf8(&payload)
                .map_err(|_| CapsuleError::ReasonNotUtf8)?
                .to_owned();
            return Ok(Capsule::CloseSession { code, reason });
        }
        _ => {}
    }
    // The integer has a length of its own: "redundant length encodings MUST be verified to be self-consistent" (RFC
    // 9297 section 3.3).
    let value = varint::take(&mut payload)
        .filter(|_| payload.is_empty())
        .ok_or(CapsuleError::Malformed(ty))?;
    Ok(match ty {
        WT_MAX_DATA => Capsule::MaxData(value),
        WT_MAX_STREAMS_BIDI => Capsule::MaxStreams {
            dir: Dir::Bi,
            max: value,
        },
        WT_MAX_STREAMS_UNI => Capsule::MaxStreams {
            dir: Dir::Uni,
            max: value,
        },
        WT_DATA_BLOCKED => Capsule::DataBlocked(value),
        WT_STREAMS_BLOCKED_BIDI => Capsule::StreamsBlocked {
            dir: Dir::Bi,
            max: value,
        },
        _ => Capsule::StreamsBlocked {
            dir: Dir::Uni,
            max: value,
        },
    })
}

/// The longest prefix of `reason` that WT_CLOSE_SESSION can carry: "its length MUST NOT exceed 1024 bytes" (draft 16
/// section 6).
/// "Senders that truncate an application-supplied message MUST do so at a UTF-8 character boundary" (draft 16 section
/// 6).
pub fn clip_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// A whole WT_CLOSE_SESSION with the reason as [`clip_reason`] leaves it. "The format of the capsule SHALL be as
/// follows" (draft 16 section 6): type, length, code, reason.
pub fn encode_close_session(code: u32, reason: &str) -> Bytes {
    let reason = clip_reason(reason);
    let mut out = BytesMut::with_capacity(8 + reason.len());
    encode_header(WT_CLOSE_SESSION, 4 + reason.len() as u64, &mut out);
    out.put_u32(code);
    out.put_slice(reason.as_bytes());
    out.freeze()
}

/// A whole WT_DRAIN_SESSION.
pub fn encode_drain_session() -> Bytes {
    Bytes::from_static(&[0x80, 0x00, 0x78, 0xae, 0x00])
}

/// A whole WT_MAX_DATA, in bytes.
pub fn encode_max_data(max: u64) -> Bytes {
    encode_integer(WT_MAX_DATA, max)
}

/// A whole WT_MAX_STREAMS.
pub fn encode_max_streams(dir: Dir, max: u64) -> Bytes {
    encode_integer(
        if dir == Dir::Bi {
            WT_MAX_STREAMS_BIDI
        } else {
            WT_MAX_STREAMS_UNI
        },
        max,
    )
}

/// A whole WT_DATA_BLOCKED with the limit that holds this end up, in bytes.
pub fn encode_data_blocked(max: u64) -> Bytes {
    encode_integer(WT_DATA_BLOCKED, max)
}

/// A whole WT_STREAMS_BLOCKED with the limit that holds this end up.
pub fn encode_streams_blocked(dir: Dir, max: u64) -> Bytes {
    encode_integer(
        if dir == Dir::Bi {
            WT_STREAMS_BLOCKED_BIDI
        } else {
            WT_STREAMS_BLOCKED_UNI
        },
        max,
    )
}

/// A whole DATAGRAM capsule.
pub fn encode_datagram(payload: &[u8]) -> Bytes {
    tlv::encode(DATAGRAM, payload)
}

#[cfg(test)]
mod tests;
