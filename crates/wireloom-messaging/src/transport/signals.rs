//! Signals that many connections send.

use std::ops::Range;
#[cfg(any(feature = "websocket", feature = "webtransport"))]
use std::sync::OnceLock;

use bytes::Bytes;

/// Signals that go to many connections, all in a row: encoded once, and framed once for each kind of link.
#[derive(Debug, Default)]
pub struct Signals {
    messages: Vec<Bytes>,
    /// Where each ends, counting the bytes of all before it.
    ends: Vec<usize>,
    #[cfg(feature = "websocket")]
    websocket: OnceLock<Framed>,
    #[cfg(feature = "webtransport")]
    webtransport: OnceLock<Framed>,
}

/// All messages with what a link puts before each, in one piece.
#[cfg(any(feature = "websocket", feature = "webtransport"))]
#[derive(Debug)]
struct Framed {
    bytes: Bytes,
    ends: Vec<usize>,
}

#[cfg(any(feature = "websocket", feature = "webtransport"))]
impl Framed {
    fn new(messages: &[Bytes], total: usize, frame: impl Fn(&[u8], &mut Vec<u8>)) -> Self {
        // At most ten bytes go before each.
        let mut bytes = Vec::with_capacity(total + 4 * messages.len());
        let ends = messages
            .iter()
            .map(|message| {
                frame(message, &mut bytes);
                bytes.extend_from_slice(message);
                bytes.len()
            })
            .collect();
        Self {
            bytes: bytes.into(),
            ends,
        }
    }

    fn slice(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(span(&self.ends, range))
    }
}

fn span(ends: &[usize], range: Range<usize>) -> Range<usize> {
    let at = |index: usize| index.checked_sub(1).map_or(0, |last| ends[last]);
    at(range.start)..at(range.end)
}

impl FromIterator<Bytes> for Signals {
    fn from_iter<I: IntoIterator<Item = Bytes>>(messages: I) -> Self {
        let messages: Vec<Bytes> = messages.into_iter().collect();
        let mut total = 0;
        let ends = messages.iter().map(|message| {
            total += message.len();
            total
        });
        Self {
            ends: ends.collect(),
            messages,
            #[cfg(feature = "websocket")]
            websocket: OnceLock::new(),
            #[cfg(feature = "webtransport")]
            webtransport: OnceLock::new(),
        }
    }
}

impl Signals {
    /// The messages, as the codec makes them.
    pub fn messages(&self) -> &[Bytes] {
        &self.messages
    }

    /// How many bytes the messages of this range have.
    ///
    /// # Panics
    /// The range is not within the messages.
    pub fn bytes(&self, range: Range<usize>) -> usize {
        span(&self.ends, range).len()
    }

    /// The messages of this range as frames of a WebSocket server (RFC 6455 section 5.2): final, binary, not masked.
    #[cfg(feature = "websocket")]
    pub(crate) fn websocket(&self, range: Range<usize>) -> Bytes {
        let framed = self.websocket.get_or_init(|| {
            Framed::new(&self.messages, self.bytes(0..self.messages.len()), |message, out| {
                out.push(0x82);
                match message.len() {
                    len @ ..=125 => out.push(len as u8),
                    len @ 126..=0xffff => {
                        out.push(126);
                        out.extend_from_slice(&(len as u16).to_be_bytes());
                    }
                    len => {
                        out.push(127);
                        out.extend_from_slice(&(len as u64).to_be_bytes());
                    }
                }
            })
        });
        framed.slice(range)
    }

    /// The messages of this range as they stand on a stream of WebTransport.
    #[cfg(feature = "webtransport")]
    pub(crate) fn webtransport(&self, range: Range<usize>) -> Bytes {
        let framed = self.webtransport.get_or_init(|| {
            Framed::new(&self.messages, self.bytes(0..self.messages.len()), |message, out| {
                wireloom::proto::varint::encode(message.len() as u64, out);
            })
        });
        framed.slice(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals() -> Signals {
        let lens = [3, 125, 126, 0xffff, 0x1_0000];
        lens.into_iter().map(|len| Bytes::from(vec![len as u8; len])).collect()
    }

    #[test]
    fn ranges_of_bytes() {
        let signals = signals();
        assert_eq!(signals.bytes(0..0), 0);
        assert_eq!(signals.bytes(0..2), 128);
        assert_eq!(signals.bytes(1..3), 251);
        assert_eq!(signals.bytes(5..5), 0);
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn frames_of_websocket_in_every_length() {
        let signals = signals();
        assert_eq!(&signals.websocket(0..1)[..], [0x82, 3, 3, 3, 3]);
        let two = signals.websocket(1..3);
        assert_eq!(&two[..2], [0x82, 125]);
        assert_eq!(&two[127..131], [0x82, 126, 0, 126]);
        assert_eq!(&signals.websocket(3..4)[..4], [0x82, 126, 0xff, 0xff]);
        assert_eq!(&signals.websocket(4..5)[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(signals.websocket(0..0).len(), 0);
    }

    #[cfg(feature = "webtransport")]
    #[test]
    fn framed_for_webtransport() {
        let signals = signals();
        assert_eq!(&signals.webtransport(0..1)[..], [3, 3, 3, 3]);
        assert_eq!(&signals.webtransport(1..2)[..3], [0x40, 125, 125]);
    }
}
