//! The fuzz targets of QPACK's dynamic table: a peer that sends anything, and two ends that obey the rules.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};

use crate::Code;
use crate::qpack::{Decoder, Encoder, Field, FieldRef, Section};
use crate::stream_id::StreamId;

const LIMIT: u64 = 4096;

/// Takes the first byte of `data`; 0 at its end.
fn byte(data: &mut &[u8]) -> u8 {
    match data.split_first() {
        Some((&first, rest)) => {
            *data = rest;
            first
        }
        None => 0,
    }
}

fn stream(index: u8) -> StreamId {
    StreamId::from_u64(4 * u64::from(index))
}

/// What one peer makes a decoder do, the encoder stream cut into pieces of `piece` bytes.
fn decoder_script(mut data: &[u8], piece: usize) -> (Vec<Section>, Bytes, Option<Code>) {
    let (capacity, blocked) = (u32::from(byte(&mut data)) * 4, u16::from(byte(&mut data) % 4));
    let mut decoder = Decoder::with_table(capacity, blocked);
    let (mut sections, mut written) = (Vec::new(), BytesMut::new());
    while !data.is_empty() {
        let (kind, len) = (byte(&mut data), usize::from(byte(&mut data)));
        let (taken, rest) = data.split_at(len.min(data.len()));
        let result = match kind % 4 {
            0 | 1 => {
                data = rest;
                let mut pieces = taken.chunks(piece).map(Bytes::copy_from_slice);
                pieces
                    .try_for_each(|mut piece| decoder.recv_encoder_stream(&mut piece))
                    .map_err(|error| error.code())
            }
            2 => {
                data = rest;
                let block = Bytes::copy_from_slice(taken);
                let section = decoder.decode(stream(kind >> 2), block, LIMIT);
                section
                    .map(|section| sections.push(section))
                    .map_err(|error| error.code())
            }
            _ => {
                decoder.cancel(stream(kind >> 2));
                Ok(())
            }
        };
        let mut result = result.or_else(|code| {
            if code == Code::H3_EXCESSIVE_LOAD {
                Ok(())
            } else {
                Err(code)
            }
        });
        while result.is_ok()
            && let Some((stream, block)) = decoder.poll_unblocked()
        {
            match decoder.decode(stream, block, LIMIT) {
                Ok(Section::Blocked) => panic!("it was told not to be"),
                Ok(section) => sections.push(section),
                Err(error) if error.code() == Code::H3_EXCESSIVE_LOAD => {}
                Err(error) => result = Err(error.code()),
            }
        }
        assert!(decoder.blocked() <= usize::from(blocked));
        if let Err(code) = result {
            return (sections, written.freeze(), Some(code));
        }
        written.extend_from_slice(&decoder.take_instructions());
    }
    (sections, written.freeze(), None)
}

/// Any encoder at all: sections stay within their limit, no more wait than may, and where the encoder stream is cut makes no
/// difference.
pub fn qpack_streams(data: &[u8]) {
    let whole = decoder_script(data, usize::MAX);
    for section in &whole.0 {
        if let Section::Fields(fields) = section {
            assert!(fields.iter().map(|field| FieldRef::from(field).size()).sum::<u64>() <= LIMIT);
        }
    }
    assert_eq!(whole, decoder_script(data, 1));
    assert_eq!(whole, decoder_script(data, 3));
}

/// The fields that scripts choose from: in the static table whole or by name, in none, long, sensitive.
fn palette(n: u8) -> Field {
    let name = match n % 8 {
        0 => ":method",
        1 => ":path",
        2 => "user-agent",
        3 => "x-first",
        4 => "x-second-and-longer-name",
        5 => "cookie",
        6 => "origin",
        _ => "",
    };
    let value = match n / 8 % 5 {
        0 => "GET".to_owned(),
        1 => "\u{1}\u{2}".to_owned(),
        2 => "v".repeat(usize::from(n)),
        3 => String::new(),
        _ => format!("value {}", n % 32),
    };
    Field {
        name: Bytes::from_static(name.as_bytes()),
        value: value.into(),
        sensitive: n >= 240,
    }
}

/// An encoder, a decoder and what is under way between them.
struct Wire {
    encoder: Encoder,
    decoder: Decoder,
    may_block: bool,
    encoder_stream: BytesMut,
    decoder_stream: BytesMut,
    /// By stream, the sections that have not arrived.
    sections: BTreeMap<StreamId, VecDeque<(Bytes, Vec<Field>)>>,
    /// What those that wait must become.
    waiting: BTreeMap<StreamId, Vec<Field>>,
}

impl Wire {
    fn encode(&mut self, stream: StreamId, fields: Vec<Field>) {
        let mut block = BytesMut::new();
        self.encoder
            .encode(stream, fields.iter().map(FieldRef::from), &mut block);
        self.encoder_stream.extend_from_slice(&self.encoder.take_instructions());
        let sections = self.sections.entry(stream).or_default();
        sections.push_back((block.freeze(), fields));
    }

    fn deliver_section(&mut self, stream: StreamId) {
        // What comes behind a section that waits has to wait.
        if self.waiting.contains_key(&stream) {
            return;
        }
        let Some((block, fields)) = self.sections.get_mut(&stream).and_then(VecDeque::pop_front) else {
            return;
        };
        match self.decoder.decode(stream, block, u64::MAX).expect("a legal section") {
            Section::Fields(read) => assert_eq!(read, fields),
            Section::Blocked => {
                assert!(self.may_block, "blocked by an encoder that never blocks");
                self.waiting.insert(stream, fields);
            }
        }
    }

    fn deliver_encoder_stream(&mut self, len: usize) {
        let mut piece = self
            .encoder_stream
            .split_to(len.min(self.encoder_stream.len()))
            .freeze();
        self.decoder
            .recv_encoder_stream(&mut piece)
            .expect("legal instructions");
        while let Some((stream, block)) = self.decoder.poll_unblocked() {
            let fields = self.waiting.remove(&stream).expect("a stream that waits");
            let section = self.decoder.decode(stream, block, u64::MAX);
            assert_eq!(section, Ok(Section::Fields(fields)));
        }
    }

    fn deliver_decoder_stream(&mut self, len: usize) {
        self.decoder_stream.extend_from_slice(&self.decoder.take_instructions());
        let mut piece = self
            .decoder_stream
            .split_to(len.min(self.decoder_stream.len()))
            .freeze();
        self.encoder
            .recv_decoder_stream(&mut piece)
            .expect("legal instructions");
    }

    fn reset(&mut self, stream: StreamId) {
        self.sections.remove(&stream);
        self.waiting.remove(&stream);
        self.decoder.cancel(stream);
    }
}

/// Our encoder and our decoder, whatever the order in which the streams between them are delivered: every section is decoded
/// to what it was, nothing waits unless it may, and once all has arrived nothing is unacknowledged.
pub fn qpack_pair(mut data: &[u8]) {
    let (capacity, blocked) = (u32::from(byte(&mut data)) * 8, u16::from(byte(&mut data) % 4));
    let mut wire = Wire {
        encoder: Encoder::with_table(1024, blocked),
        decoder: Decoder::with_table(capacity, 3),
        may_block: blocked > 0,
        encoder_stream: BytesMut::new(),
        decoder_stream: BytesMut::new(),
        sections: BTreeMap::new(),
        waiting: BTreeMap::new(),
    };
    wire.encoder.set_peer_limits(capacity.into(), 3);
    // A stream that was reset is followed by another in its place.
    let mut places = [0u8, 1, 2, 3];
    let mut next = 4u8;
    while data.has_remaining() {
        let kind = byte(&mut data);
        let place = usize::from(kind >> 3 & 3);
        let on = stream(places[place]);
        match kind % 8 {
            0..=2 => {
                let count = usize::from(byte(&mut data) % 6);
                let fields = (0..count).map(|_| palette(byte(&mut data))).collect();
                wire.encode(on, fields);
            }
            3 | 4 => wire.deliver_section(on),
            5 => wire.deliver_encoder_stream(usize::from(byte(&mut data))),
            6 => wire.deliver_decoder_stream(usize::from(byte(&mut data))),
            _ => {
                wire.reset(on);
                places[place] = next;
                next = next.saturating_add(1);
            }
        }
        if next == u8::MAX {
            break;
        }
    }
    wire.deliver_encoder_stream(usize::MAX);
    for on in (0..next).map(stream) {
        while wire.sections.get(&on).is_some_and(|sections| !sections.is_empty()) {
            wire.deliver_section(on);
        }
    }
    wire.deliver_decoder_stream(usize::MAX);
    assert!(wire.waiting.is_empty() && wire.decoder.blocked() == 0);
    if capacity > 0 {
        assert_eq!(wire.encoder.unacknowledged(), 0);
    }
    wire.encoder.assert_acknowledged();
}
