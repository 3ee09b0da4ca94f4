//! Entry points of the fuzz targets, which the corpus replay and the property tests share.
//!
//! Each takes any bytes and panics where a property that its comment names does not hold. Behind the feature `__testing`;
//! may change or vanish at any time.

mod connection;
mod formats;
pub mod peer;
pub mod pipe;
mod qpack;
pub mod script;

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::capsule::{Capsule, CapsuleError, CapsuleReader};
use crate::datagram as datagrams;
use crate::h3::headers as messages;
use crate::h3::reader::{Frame, FrameError, FrameLimits, FrameReader};
use crate::h3::settings::Settings;
use crate::qpack::{Decoder, Encoder, Field, FieldRef, Section};
use crate::stream_id::StreamId;
use crate::varint as varints;

pub use connection::{connection, connection_script};
pub use formats::{prefix_integer, priority, protocols, stream_header};
pub use qpack::{qpack_pair, qpack_streams};

const STREAM: StreamId = StreamId::from_u64(0);

/// Huffman decoding of a whole string literal; `None` if it is invalid.
pub fn huffman_decode(input: &[u8]) -> Option<Bytes> {
    let mut out = BytesMut::new();
    crate::qpack::huffman_decode(input, &mut out).ok()?;
    Some(out.freeze())
}

/// Huffman encoding of a whole string literal.
pub fn huffman_encode(text: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    crate::qpack::huffman_encode(text, crate::qpack::huffman_encoded_len(text), &mut out);
    out.freeze()
}

/// The first byte says how long the pieces are (1 to 16 bytes); the rest comes in such pieces.
fn pieces(data: &[u8]) -> impl Iterator<Item = Bytes> + '_ {
    let (len, rest) = data
        .split_first()
        .map_or((1, data), |(first, rest)| (usize::from(first % 16) + 1, rest));
    rest.chunks(len).map(Bytes::copy_from_slice)
}

/// Integers: pieces give what the whole gives; what is decoded is encoded in no more bytes and decoded again.
pub fn varint(data: &[u8]) {
    let mut whole = data.get(1..).unwrap_or_default();
    let mut expected = VecDeque::new();
    while let Some((value, len)) = varints::decode(whole) {
        let mut again = Vec::new();
        varints::encode(value, &mut again);
        assert!(again.len() <= len && again.len() == varints::size(value));
        assert_eq!(varints::decode(&again), Some((value, again.len())));
        expected.push_back(value);
        whole = &whole[len..];
    }
    let mut reader = varints::VarintReader::new();
    for mut piece in pieces(data) {
        while let Some(value) = reader.read(&mut piece) {
            assert_eq!(Some(value), expected.pop_front());
        }
        assert!(piece.is_empty());
    }
    assert!(expected.is_empty());
    assert_eq!(reader.is_partial(), !whole.is_empty());
}

/// Frames as read from `pieces`, DATA joined, up to the end or the first error.
fn frames(pieces: impl Iterator<Item = Bytes>) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut reader = FrameReader::new(FrameLimits {
        headers: 64,
        settings: 32,
        priority_update: 16,
    });
    let mut frames: Vec<Frame> = Vec::new();
    for mut piece in pieces {
        loop {
            match reader.read(&mut piece) {
                Ok(None) => break,
                Ok(Some(frame)) => match (frames.last_mut(), frame) {
                    (Some(Frame::Data(before)), Frame::Data(more)) => {
                        *before = [&before[..], &more[..]].concat().into()
                    }
                    (_, frame) => frames.push(frame),
                },
                Err(error) => return (frames, Err(error)),
            }
        }
        // What follows the WebTransport signal is not for the reader.
        if frames.last() == Some(&Frame::WtStream) {
            break;
        }
        assert!(piece.is_empty());
    }
    (frames, reader.finish())
}

/// Frames: pieces give what the whole gives, nothing is kept above its limit.
pub fn frame_reader(data: &[u8]) {
    let whole = frames(std::iter::once(Bytes::copy_from_slice(
        data.get(1..).unwrap_or_default(),
    )));
    assert_eq!(whole, frames(pieces(data)));
    for frame in whole.0 {
        match frame {
            Frame::Headers(block) => assert!(block.len() <= 64),
            Frame::Settings(payload) => assert!(payload.len() <= 32),
            _ => {}
        }
    }
}

/// Settings: what is decoded is encoded and decoded again.
pub fn settings(data: &[u8]) {
    if let Ok(settings) = Settings::decode(data) {
        let mut payload = Vec::new();
        settings.encode(&mut payload);
        assert!(payload.len() <= data.len());
        assert_eq!(Settings::decode(&payload), Ok(settings));
    }
}

/// QPACK: a decoded section is within its limit and survives another round; both instruction streams take any pieces.
pub fn qpack_decode(data: &[u8]) {
    const LIMIT: u64 = 4096;
    let mut decoder = Decoder::new();
    let mut encoder = Encoder::new();
    if let Ok(Section::Fields(fields)) = decoder.decode(STREAM, Bytes::copy_from_slice(data), LIMIT) {
        let size: u64 = fields.iter().map(|field| FieldRef::from(field).size()).sum();
        assert!(size <= LIMIT);
        let mut block = BytesMut::new();
        encoder.encode(STREAM, fields.iter().map(FieldRef::from), &mut block);
        assert_eq!(
            decoder.decode(STREAM, block.freeze(), LIMIT),
            Ok(Section::Fields(fields))
        );
    }
    let rest = || Bytes::copy_from_slice(data.get(1..).unwrap_or_default());
    let whole = Decoder::new().recv_encoder_stream(&mut rest());
    assert_eq!(
        pieces(data).try_for_each(|mut piece| decoder.recv_encoder_stream(&mut piece)),
        whole
    );
    let whole = Encoder::new().recv_decoder_stream(&mut rest());
    assert_eq!(
        pieces(data).try_for_each(|mut piece| encoder.recv_decoder_stream(&mut piece)),
        whole
    );
}

/// Huffman: any text survives, and any code that is accepted is the only code of its text.
pub fn huffman(data: &[u8]) {
    assert_eq!(huffman_decode(&huffman_encode(data)).as_deref(), Some(data));
    if let Some(text) = huffman_decode(data) {
        assert_eq!(huffman_encode(&text), data);
    }
}

/// Messages, written as lines of `name=value`: what is decoded can be sent, and is decoded to the same again.
pub fn headers(data: &[u8]) {
    let fields: Vec<Field> = data
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let cut = line.iter().position(|&byte| byte == b'=').unwrap_or(line.len());
            let value = Bytes::copy_from_slice(line.get(cut + 1..).unwrap_or_default());
            Field {
                name: Bytes::copy_from_slice(&line[..cut]),
                value,
                sensitive: false,
            }
        })
        .collect();
    let again = |fields: Vec<FieldRef<'_>>| -> Vec<Field> {
        let owned = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let field = |field: FieldRef<'_>| Field {
            name: owned(field.name),
            value: owned(field.value),
            sensitive: false,
        };
        fields.into_iter().map(field).collect()
    };
    if let Ok(first) = messages::decode_request(fields.clone()) {
        match messages::encode_request(&first.head, first.protocol.as_deref()) {
            Ok(encoded) => {
                let second = messages::decode_request(again(encoded)).expect("what is sent is legal");
                assert_eq!(
                    (second.head.uri(), second.head.method()),
                    (first.head.uri(), first.head.method())
                );
                assert_eq!(
                    (second.protocol, second.content_length),
                    (first.protocol, first.content_length)
                );
            }
            // A URI of a scheme without authority cannot be held by `http::Uri`.
            Err(error) => assert!(first.head.uri().authority().is_none(), "{error}"),
        }
    }
    if let Ok(first) = messages::decode_response(fields.clone()) {
        let status = first.head.status();
        let encoded = messages::encode_response(&status, first.head.headers()).expect("what was received is legal");
        let second = messages::decode_response(again(encoded)).expect("what is sent is legal");
        assert_eq!(
            (second.head.status(), second.head.headers()),
            (status, first.head.headers())
        );
    }
    if let Ok(first) = messages::decode_trailers(fields) {
        assert_eq!(
            messages::decode_trailers(again(messages::encode_trailers(&first))),
            Ok(first)
        );
    }
}

/// Capsules: pieces give what the whole gives.
pub fn capsule(data: &[u8]) {
    fn capsules(pieces: impl Iterator<Item = Bytes>) -> (Vec<Capsule>, Result<(), CapsuleError>) {
        let mut reader = CapsuleReader::new();
        let mut capsules = Vec::new();
        for mut piece in pieces {
            loop {
                match reader.read(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(capsule)) => capsules.push(capsule),
                    Err(error) => return (capsules, Err(error)),
                }
            }
            assert!(piece.is_empty());
        }
        (capsules, reader.finish())
    }
    let whole = capsules(std::iter::once(Bytes::copy_from_slice(
        data.get(1..).unwrap_or_default(),
    )));
    assert_eq!(whole, capsules(pieces(data)));
}

/// Datagrams: what is decoded is encoded in no more bytes, with the same payload.
pub fn datagram(data: &[u8]) {
    let mut rest = Bytes::copy_from_slice(data);
    if let Ok(stream) = datagrams::decode(&mut rest) {
        assert!(stream.is_request());
        let mut again = BytesMut::new();
        datagrams::encode_prefix(stream, &mut again);
        assert!(again.len() == datagrams::prefix_len(stream) && again.len() + rest.len() <= data.len());
        again.extend_from_slice(&rest);
        let mut again = again.freeze();
        assert_eq!(datagrams::decode(&mut again), Ok(stream));
        assert_eq!(again.chunk(), rest.chunk());
    }
}
