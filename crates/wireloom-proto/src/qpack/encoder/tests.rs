use super::*;
use crate::codes::Code;
use crate::qpack::sections::MAX_SECTIONS;
use crate::qpack::{Decoder, Section};

fn stream(index: u64) -> StreamId {
    StreamId::from_u64(4 * index)
}

/// An encoder and a decoder between which everything arrives at once, except what the test holds up.
struct Pair {
    encoder: Encoder,
    decoder: Decoder,
    next: u64,
}

impl Pair {
    fn new(capacity: u32, blocked: u16) -> Self {
        let mut encoder = Encoder::with_table(4096, blocked);
        encoder.set_peer_limits(capacity.into(), 4);
        Self {
            encoder,
            decoder: Decoder::with_table(capacity, 4),
            next: 0,
        }
    }

    /// Sends the fields on a stream of their own; the length of the section and of the instructions.
    fn send(&mut self, fields: &[(&str, &str)]) -> (usize, usize) {
        let (block, instructions) = self.encode(fields);
        let lens = (block.len(), instructions.len());
        self.deliver(fields, block, instructions);
        self.acknowledge();
        lens
    }

    fn encode(&mut self, fields: &[(&str, &str)]) -> (Bytes, Bytes) {
        let (mut out, stream) = (BytesMut::new(), stream(self.next));
        self.next += 1;
        let lines = fields
            .iter()
            .map(|(name, value)| FieldRef::new(name.as_bytes(), value.as_bytes()));
        self.encoder.encode(stream, lines, &mut out);
        (out.freeze(), self.encoder.take_instructions())
    }

    fn deliver(&mut self, fields: &[(&str, &str)], block: Bytes, mut instructions: Bytes) {
        self.decoder.recv_encoder_stream(&mut instructions).expect("legal");
        let section = self
            .decoder
            .decode(stream(self.next - 1), block, 1 << 20)
            .expect("legal");
        let read = section.fields().expect("not blocked");
        let read: Vec<_> = read.iter().map(|field| (&field.name[..], &field.value[..])).collect();
        let sent: Vec<_> = fields
            .iter()
            .map(|field| (field.0.as_bytes(), field.1.as_bytes()))
            .collect();
        assert_eq!(read, sent);
    }

    fn acknowledge(&mut self) {
        let mut instructions = self.decoder.take_instructions();
        self.encoder.recv_decoder_stream(&mut instructions).expect("legal");
    }
}

const AGENT: &[(&str, &str)] = &[("user-agent", "a browser of some length")];
const CUSTOM: &[(&str, &str)] = &[("x-custom", "a value of some length")];

#[test]
fn what_is_sent_twice_is_inserted_and_then_used() {
    let mut pair = Pair::new(4096, 0);
    let first = pair.send(AGENT);
    assert_eq!(first.1, 0);
    let second = pair.send(AGENT);
    assert_eq!(second.0, first.0);
    assert!(second.1 > 0);
    // Prefix and index.
    assert_eq!(pair.send(AGENT), (3, 0));
    assert_eq!(pair.encoder.known, 1);
}

/// "By default never a blocked request": while the insertion is unacknowledged the field remains a literal, and is not inserted
/// again.
#[test]
fn only_acknowledged_entries_are_referred_to() {
    let mut pair = Pair::new(4096, 0);
    pair.send(AGENT);
    let (_, instructions) = pair.encode(AGENT);
    for _ in 0..3 {
        let (block, more) = pair.encode(AGENT);
        assert!(block.starts_with(&[0, 0]) && more.is_empty());
        pair.deliver(AGENT, block, Bytes::new());
    }
    let (block, _) = pair.encode(AGENT);
    pair.deliver(AGENT, block, instructions);
    pair.acknowledge();
    assert_eq!(pair.send(AGENT), (3, 0));
}

#[test]
fn at_most_the_allowed_streams_may_be_blocked() {
    let mut pair = Pair::new(4096, 1);
    pair.send(AGENT);
    pair.send(CUSTOM);
    let (first, first_instructions) = pair.encode(AGENT);
    assert_eq!(first.len(), 3);
    // Another stream would be the second that may wait.
    let (second, second_instructions) = pair.encode(CUSTOM);
    assert!(second.starts_with(&[0, 0]) && second.len() > 3);
    let mut instructions = second_instructions.clone();
    pair.next -= 1;
    assert_eq!(
        pair.decoder.decode(stream(2), first.clone(), 1 << 20),
        Ok(Section::Blocked)
    );
    let mut all: Bytes = [&first_instructions[..], &instructions.split_to(0), &second_instructions]
        .concat()
        .into();
    pair.decoder.recv_encoder_stream(&mut all).expect("legal");
    let (unblocked, block) = pair.decoder.poll_unblocked().expect("its insertion arrived");
    assert_eq!((unblocked, &block), (stream(2), &first));
    assert!(matches!(
        pair.decoder.decode(unblocked, block, 1 << 20),
        Ok(Section::Fields(_))
    ));
    pair.next += 1;
    pair.acknowledge();
    assert_eq!(pair.send(CUSTOM), (3, 0));
}

#[test]
fn credentials_and_sensitive_fields_stay_out_of_the_table() {
    let mut pair = Pair::new(4096, 0);
    for name in ["authorization", "proxy-authorization", "cookie", "set-cookie"] {
        for _ in 0..4 {
            assert_eq!(pair.send(&[(name, "secret")]).1, 0);
        }
    }
    let field = FieldRef {
        sensitive: true,
        ..FieldRef::new(b"x-token", b"secret")
    };
    for _ in 0..4 {
        let mut out = BytesMut::new();
        pair.encoder.encode(stream(9), [field], &mut out);
        assert!(out[2] & 0xf0 == 0x30 && pair.encoder.take_instructions().is_empty());
    }
}

#[test]
fn names_are_shared() {
    let mut pair = Pair::new(4096, 0);
    pair.send(CUSTOM);
    pair.send(CUSTOM);
    // Prefix, index of the name, length, value.
    let other = &[("x-custom", "\u{1}\u{2}")];
    assert_eq!(pair.send(other), (2 + 1 + 1 + 2, 0));
    // Insert with Name Reference likewise.
    assert_eq!(pair.send(other).1, 1 + 1 + 2);
}

/// Section 2.1.1: neither what is unacknowledged nor what a section refers to may leave.
#[test]
fn entries_leave_only_when_nobody_needs_them() {
    const OTHER: &[(&str, &str)] = &[("x-other", "a value of some length")];
    const FOURTH: &[(&str, &str)] = &[("x-fourth", "a value of some length")];
    // Room for two.
    let mut pair = Pair::new(140, 0);
    for fields in [AGENT, AGENT, CUSTOM, CUSTOM, OTHER] {
        pair.send(fields);
    }
    // A section that has not been decoded refers to the oldest.
    let (block, none) = pair.encode(AGENT);
    assert_eq!(block.len(), 3);
    assert!(none.is_empty());
    let (_, instructions) = pair.encode(OTHER);
    assert!(instructions.is_empty());
    pair.next -= 1;
    pair.deliver(AGENT, block, none);
    pair.acknowledge();
    pair.next += 1;
    assert!(pair.send(OTHER).1 > 0);
    assert_eq!(pair.send(OTHER), (3, 0));
    assert!(pair.send(FOURTH).0 > 3);
    // Insertions that are not acknowledged.
    assert!(!pair.encode(AGENT).1.is_empty());
    assert!(!pair.encode(CUSTOM).1.is_empty());
    assert!(pair.encode(FOURTH).1.is_empty());
}

/// The entry that a literal takes its name from may not be driven out by the insertion of the same line.
#[test]
fn an_insertion_leaves_the_name_that_its_line_refers_to() {
    let mut pair = Pair::new(136, 0);
    for value in ["a value of some length", "another value of length"] {
        for _ in 0..4 {
            pair.send(&[("x-custom", value)]);
        }
    }
}

/// Section 2.1.1.1: what is used and about to leave is duplicated.
#[test]
fn entries_in_use_are_kept_by_duplicates() {
    let mut pair = Pair::new(512, 0);
    pair.send(AGENT);
    pair.send(AGENT);
    let mut duplicates = 0;
    for n in 0..40 {
        let passing = format!("value {n} that comes twice and never again");
        pair.send(&[("x-passing", &passing)]);
        pair.send(&[("x-passing", &passing)]);
        let (section, instructions) = pair.send(AGENT);
        assert!(section <= 4, "{n}");
        duplicates += usize::from(instructions == 1);
    }
    assert!((3..20).contains(&duplicates), "{duplicates}");
}

#[test]
fn sections_that_are_never_acknowledged_are_bounded() {
    let mut pair = Pair::new(4096, 0);
    pair.send(AGENT);
    pair.send(AGENT);
    for _ in 0..MAX_SECTIONS {
        assert_eq!(pair.encode(AGENT).0.len(), 3);
    }
    assert!(pair.encode(AGENT).0.starts_with(&[0, 0]));
    // A cancelled stream's sections are acknowledged by that.
    let mut cancellation = BytesMut::new();
    Instruction::StreamCancellation(stream(pair.next - 2)).encode(&mut cancellation);
    pair.encoder
        .recv_decoder_stream(&mut cancellation.freeze())
        .expect("legal");
    assert_eq!(pair.encode(AGENT).0.len(), 3);
}

#[test]
fn limits_of_the_peer() {
    // Too small for a single entry.
    for capacity in [0, 1, 31, 32, 63] {
        let mut pair = Pair::new(capacity, 0);
        (0..4).for_each(|_| assert_eq!(pair.send(AGENT).1, 0, "{capacity}"));
    }
    let mut encoder = Encoder::with_table(4096, 3);
    encoder.set_peer_limits(u64::MAX >> 2, u64::MAX >> 2);
    assert_eq!((encoder.capacity, encoder.max_blocked), (4096, 3));
    encoder.set_peer_limits(100, 1);
    assert_eq!((encoder.capacity, encoder.max_blocked), (100, 1));
}

#[test]
fn decoder_streams_that_break_the_connection() {
    let feed = |bytes: &[u8]| {
        let mut pair = Pair::new(4096, 0);
        pair.send(AGENT);
        let (block, instructions) = pair.encode(AGENT);
        pair.deliver(AGENT, block, instructions);
        pair.encoder
            .recv_decoder_stream(&mut Bytes::copy_from_slice(bytes))
            .map_err(DecoderStreamError::code)
    };
    assert_eq!(feed(b"\x01"), Ok(()));
    assert_eq!(feed(b"\x41\x01"), Ok(()));
    let error = Err(Code::QPACK_DECODER_STREAM_ERROR);
    // Increment of 0, of more than was inserted, of more than is left; a section that needs no acknowledgement.
    for bytes in [&b"\x00"[..], b"\x02", b"\x01\x01", b"\x84", b"\x01\x84"] {
        assert_eq!(feed(bytes), error, "{bytes:x?}");
    }
}
