//! The one incremental frame reader, for control and request streams (RFC 9114 section 7.1).

use std::time::Instant;

use bytes::Bytes;

use super::frame;
use crate::codes::Code;
use crate::payload::{Idle, Payload, skip};
use crate::varint::{self, VarintReader};

/// How much of a frame's payload may be buffered, by frame type. Everything else is passed through or skipped.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Bytes of an encoded field section (HEADERS). A longer one becomes [`Frame::HeadersTooLarge`]. Default 64 KiB.
    pub headers: u64,
    /// Bytes of SETTINGS. A longer one is [`FrameError::TooLarge`]. Default 4 KiB.
    pub settings: u64,
    /// Bytes of PRIORITY_UPDATE. A longer one is skipped: priorities are hints. Default 1 KiB.
    pub priority_update: u64,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            headers: 64 << 10,
            settings: 4 << 10,
            priority_update: 1 << 10,
        }
    }
}

/// A frame, or as much of it as concerns the caller. Whether it may come on this stream at this time is for the caller to
/// judge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// A piece of DATA payload: a slice of the input, as far as it is there. Each DATA frame makes at least one, which is
    /// empty if the frame is, or if its payload has not arrived yet.
    Data(Bytes),
    /// A whole encoded field section.
    Headers(Bytes),
    /// A HEADERS frame above the limit. Its payload is skipped, not buffered; the answer is 431.
    HeadersTooLarge,
    /// A whole SETTINGS payload.
    Settings(Bytes),
    /// CANCEL_PUSH with its push id.
    CancelPush(u64),
    /// PUSH_PROMISE, which nobody here ever allows; its payload is skipped.
    PushPromise,
    /// GOAWAY with a stream id (from a server) or push id (from a client).
    Goaway(u64),
    /// MAX_PUSH_ID with its push id.
    MaxPushId(u64),
    /// PRIORITY_UPDATE (RFC 9218 section 7).
    PriorityUpdate {
        /// Whether `id` is a push id; else a request stream.
        push: bool,
        /// Whose priority.
        id: u64,
        /// The priority field value, a structured field.
        value: Bytes,
    },
    /// The stream begins with 0x41: it is a WebTransport stream, not a request. The session id is what `input` holds next;
    /// the reader takes nothing from then on.
    WtStream,
}

/// A frame that closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The payload is shorter or longer than its fields.
    #[error("the length of frame {0:#x} does not match its fields")]
    Malformed(u64),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// A frame type that only HTTP/2 has.
    #[error("frame type {0:#x} of HTTP/2")]
    Http2Type(u64),
    /// 0x41 elsewhere than at the start of a stream.
    #[error("WT_STREAM elsewhere than at the start of a stream")]
    MisplacedWtStream,
    /// A frame that must be buffered whole and is above its limit.
    #[error("frame {0:#x} is too large")]
    TooLarge(u64),
}

impl FrameError {
    /// The connection error.
    pub const fn code(self) -> Code {
        match self {
            // "A frame payload that contains additional bytes after the identified fields or a frame payload that
            // terminates before the end of the identified fields MUST be treated as a connection error of type
            // H3_FRAME_ERROR" (RFC 9114 section 7.1), and so is a stream that ends inside a frame.
            Self::Malformed(_) | Self::Truncated | Self::MisplacedWtStream => Code::H3_FRAME_ERROR,
            Self::Http2Type(_) => Code::H3_FRAME_UNEXPECTED,
            Self::TooLarge(_) => Code::H3_EXCESSIVE_LOAD,
        }
    }
}

#[derive(Debug)]
enum State {
    Type,
    Length(u64),
    Data(u64),
    Skip(u64),
    Payload(u64, Payload),
    /// After [`Frame::WtStream`].
    Handed,
}

/// Reads frames from a stream that may be cut anywhere. It buffers at most one payload, bounded by [`FrameLimits`].
///
/// Frames of unknown and reserved types are skipped inside, however long, without buffering: "Endpoints MUST NOT
/// consider these frames to have any meaning upon receipt" (RFC 9114 section 7.2.8).
///
/// After an error the reader must not be used again.
#[derive(Debug)]
pub struct FrameReader {
    limits: FrameLimits,
    state: State,
    varint: VarintReader,
    at_start: bool,
    idle: Idle,
}

impl FrameReader {
    /// A reader at the start of a request stream, or of a control stream after its type.
    pub const fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            state: State::Type,
            varint: VarintReader::new(),
            at_start: true,
            idle: Idle::new(),
        }
    }

    /// Whether a field section has begun that is not complete.
    pub(crate) const fn is_in_headers(&self) -> bool {
        matches!(self.state, State::Payload(frame::HEADERS, _))
    }

    /// The next frame. `Ok(None)`: all of `input` was taken and more is needed. Call again after every frame.
    pub fn read(&mut self, input: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        loop {
            match &mut self.state {
                State::Type => {
                    let Some(ty) = self.varint.read(input) else {
                        return Ok(None);
                    };
                    let at_start = std::mem::replace(&mut self.at_start, false);
                    if ty == frame::WT_STREAM {
                        // "Receiving this frame type in any other circumstances MUST be treated as a connection error
                        // of type H3_FRAME_ERROR" (draft 16 section 4.3).
                        if !at_start {
                            return Err(FrameError::MisplacedWtStream);
                        }
                        self.state = State::Handed;
                        return Ok(Some(Frame::WtStream));
                    }
                    // "their receipt MUST be treated as a connection error of type H3_FRAME_UNEXPECTED" (RFC 9114
                    // section 7.2.8).
                    if frame::is_http2(ty) {
                        return Err(FrameError::Http2Type(ty));
                    }
                    self.state = State::Length(ty);
                }
                State::Length(ty) => {
                    let ty = *ty;
                    let Some(len) = self.varint.read(input) else {
                        return Ok(None);
                    };
                    if let Some(frame) = self.begin(ty, len, input)? {
                        return Ok(Some(frame));
                    }
                }
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let here = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    *left -= here as u64;
                    if *left == 0 {
                        self.state = State::Type;
                    }
                    return Ok(Some(Frame::Data(input.split_to(here))));
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
                    self.state = State::Type;
                    return complete(ty, bytes).map(Some);
                }
                State::Handed => return Ok(None),
            }
        }
    }

    /// To be called when the stream ended. An error if that was inside a frame.
    pub const fn finish(&self) -> Result<(), FrameError> {
        match self.state {
            State::Type if !self.varint.is_partial() => Ok(()),
            State::Handed => Ok(()),
            _ => Err(FrameError::Truncated),
        }
    }

    /// How many frames without effect (empty DATA, unknown and reserved types) came since the last one with effect. A caller
    /// that lets this grow without limit lets the peer burn its time (RFC 9114 section 10.5).
    pub const fn idle_frames(&self) -> u32 {
        self.idle.count()
    }

    /// What is read from here on came at `now`. The frames without effect are counted anew once 10 s have passed, or never where
    /// this is not called.
    pub fn set_time(&mut self, now: Instant) {
        self.idle.at(now);
    }

    /// Decides by type and length alone what becomes of a frame, before any of its payload is kept.
    fn begin(&mut self, ty: u64, len: u64, input: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        let wanted = match ty {
            frame::DATA => {
                if len == 0 {
                    self.idle.add();
                    self.state = State::Type;
                    return Ok(Some(Frame::Data(Bytes::new())));
                }
                self.idle.clear();
                self.state = State::Data(len);
                // With payload at hand the first piece tells of the frame's start.
                return Ok(input.is_empty().then(|| Frame::Data(Bytes::new())));
            }
            frame::HEADERS if len > self.limits.headers => {
                self.state = State::Skip(len);
                return Ok(Some(Frame::HeadersTooLarge));
            }
            frame::PUSH_PROMISE => {
                self.state = State::Skip(len);
                return Ok(Some(Frame::PushPromise));
            }
            frame::SETTINGS if len > self.limits.settings => return Err(FrameError::TooLarge(ty)),
            frame::CANCEL_PUSH | frame::GOAWAY | frame::MAX_PUSH_ID if len > 8 => {
                return Err(FrameError::Malformed(ty));
            }
            frame::HEADERS | frame::SETTINGS | frame::CANCEL_PUSH | frame::GOAWAY | frame::MAX_PUSH_ID => true,
            frame::PRIORITY_UPDATE_REQUEST | frame::PRIORITY_UPDATE_PUSH => len <= self.limits.priority_update,
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

fn complete(ty: u64, mut payload: Bytes) -> Result<Frame, FrameError> {
    // The integer has a length of its own: "redundant length encodings MUST be verified to be self-consistent" (RFC
    // 9114 section 7.1).
    let mut id = || varint::take(&mut payload).ok_or(FrameError::Malformed(ty));
    let frame = match ty {
        frame::HEADERS => return Ok(Frame::Headers(payload)),
        frame::SETTINGS => return Ok(Frame::Settings(payload)),
        frame::CANCEL_PUSH => Frame::CancelPush(id()?),
        frame::GOAWAY => Frame::Goaway(id()?),
        frame::MAX_PUSH_ID => Frame::MaxPushId(id()?),
        _ => {
            let id = id()?;
            return Ok(Frame::PriorityUpdate {
                push: ty == frame::PRIORITY_UPDATE_PUSH,
                id,
                value: payload,
            });
        }
    };
    if payload.is_empty() {
        Ok(frame)
    } else {
        Err(FrameError::Malformed(ty))
    }
}

#[cfg(test)]
mod tests;
