//! Messages in a stream of bytes: WebSocket frames (RFC 6455), or lengths before them (appendix A.1 of the protocol).

use std::ops::Range;

use super::Error;
use crate::bench::websocket;

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    WebSocket,
    Lengths,
}

/// What is at the beginning of the bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A message at this place; the rest begins behind it.
    Message(Range<usize>),
    /// A Ping with this payload, to be answered.
    Ping(Range<usize>),
    /// Nothing that matters, of so many bytes.
    Skip(usize),
    /// Not all of it is there.
    Incomplete,
}

impl Framing {
    /// Appends a message of a client.
    pub(super) fn push(self, message: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::WebSocket => websocket::push_frame(0x82, message, out),
            Self::Lengths => {
                push_length(message.len(), out);
                out.extend_from_slice(message);
            }
        }
    }

    /// Appends the answer to a Ping.
    pub(super) fn push_pong(self, payload: &[u8], out: &mut Vec<u8>) {
        if self == Self::WebSocket {
            websocket::push_frame(0x8a, payload, out);
        }
    }

    /// What `bytes` begin with.
    pub(super) fn next(self, bytes: &[u8]) -> Result<Next, Error> {
        match self {
            Self::WebSocket => next_frame(bytes),
            Self::Lengths => Ok(length(bytes)
                .filter(|(header, length)| bytes.len() >= header + length)
                .map_or(Next::Incomplete, |(header, length)| {
                    Next::Message(header..header + length)
                })),
        }
    }
}

fn next_frame(bytes: &[u8]) -> Result<Next, Error> {
    let Some(payload) = websocket::payload(bytes)? else {
        return Ok(Next::Incomplete);
    };
    match bytes[0] {
        0x82 => Ok(Next::Message(payload)),
        0x89 => Ok(Next::Ping(payload)),
        0x8a => Ok(Next::Skip(payload.end)),
        0x88 => {
            let code = bytes[payload].first_chunk().copied();
            let code = code.map_or(1005, u16::from_be_bytes);
            Err(format!("the server closed the connection with code {code}").into())
        }
        other => Err(format!("the server sent a frame that begins with {other:#04x}").into()),
    }
}

/// RFC 9000, section 16.
fn push_length(length: usize, out: &mut Vec<u8>) {
    match length {
        0..=0x3f => out.push(length as u8),
        0x40..=0x3fff => out.extend_from_slice(&(length as u16 | 0x4000).to_be_bytes()),
        _ => out.extend_from_slice(&(length as u32 | 0x8000_0000).to_be_bytes()),
    }
}

/// How long the length is, and what it says.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.first()?;
    let header = 1 << (first >> 6);
    let rest = bytes.get(1..header)?;
    let length = rest
        .iter()
        .fold(u64::from(first & 0x3f), |length, byte| length << 8 | u64::from(*byte));
    Some((header, usize::try_from(length).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's frame: as a client's, without the mask.
    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let (header, key) = match frame[1] & 0x7f {
            126 => (4, 4),
            127 => (10, 4),
            _ => (2, 4),
        };
        let mut out = frame[..header].to_vec();
        out[1] &= 0x7f;
        out.extend_from_slice(&frame[header + key..]);
        out
    }

    #[test]
    fn messages_of_every_length_come_back() {
        for length in [0, 1, 63, 64, 125, 126, 16_383, 16_384, 65_535, 65_536] {
            let message = vec![7; length];
            for framing in [Framing::WebSocket, Framing::Lengths] {
                let mut out = Vec::new();
                framing.push(&message, &mut out);
                if framing == Framing::WebSocket {
                    out = unmasked(&out);
                }
                let end = out.len();
                let expected = Next::Message(end - length..end);
                assert_eq!(framing.next(&out).ok(), Some(expected), "{framing:?} {length}");
                assert_eq!(framing.next(&out[..end - 1]).ok(), Some(Next::Incomplete));
            }
        }
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        let next = |bytes: &[u8]| Framing::WebSocket.next(bytes);
        assert_eq!(next(&[0x89, 1, 9]).ok(), Some(Next::Ping(2..3)));
        assert_eq!(next(&[0x8a, 0]).ok(), Some(Next::Skip(2)));
        let closed = next(&[0x88, 2, 0x03, 0xe9]).expect_err("closed").to_string();
        assert!(closed.contains("1001"), "{closed}");
        assert!(next(&[0x88, 0]).expect_err("closed").to_string().contains("1005"));
        assert!(next(&[0x81, 0]).is_err() && next(&[0x82, 0x80]).is_err());
    }
}
