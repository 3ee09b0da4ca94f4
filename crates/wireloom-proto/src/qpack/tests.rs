use bytes::BytesMut;

use super::*;
use crate::codes::Code;
use crate::stream_id::StreamId;

const STREAM: StreamId = StreamId::from_u64(0);

fn field(name: &'static str, value: &'static str) -> Field {
    Field {
        name: Bytes::from_static(name.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        sensitive: false,
    }
}

fn encode(fields: &[Field]) -> Bytes {
    let mut out = BytesMut::new();
    Encoder::new().encode(STREAM, fields.iter().map(FieldRef::from), &mut out);
    out.freeze()
}

/// Decodes without a dynamic table.
fn decode_with(block: Bytes, limit: u64) -> Result<Vec<Field>, DecodeError> {
    Decoder::new()
        .decode(STREAM, block, limit)
        .map(|section| section.fields().expect("nothing blocks without a table"))
}

fn decode(block: &'static [u8]) -> Result<Vec<Field>, DecodeError> {
    decode_with(Bytes::from_static(block), 1 << 16)
}

fn failed(result: Result<Vec<Field>, DecodeError>) {
    assert!(matches!(result, Err(DecodeError::DecompressionFailed(_))), "{result:?}");
    assert_eq!(result.map_err(DecodeError::code), Err(Code::QPACK_DECOMPRESSION_FAILED));
}

#[test]
fn round_trip() {
    let mut fields = vec![
        field(":method", "CONNECT"),
        field(":scheme", "https"),
        field(":authority", "example.org:4433"),
        field(":path", "/chat?room=1"),
        field(":protocol", "webtransport"),
        field("origin", "https://example.org"),
        field("x-empty", ""),
        field("x-dense", "\u{1}\u{2}\u{3}"),
    ];
    fields.push(Field {
        sensitive: true,
        ..field("authorization", "Bearer 0123456789")
    });
    fields.push(Field {
        sensitive: true,
        ..field("accept", "*/*")
    });
    fields.push(Field {
        sensitive: true,
        ..field("x-secret", "s")
    });
    assert_eq!(decode_with(encode(&fields), 1 << 16), Ok(fields));
}

/// RFC 9204 appendix B.1.
#[test]
fn literal_with_name_reference() {
    let block = b"\x00\x00\x51\x0b/index.html";
    assert_eq!(decode(block), Ok(vec![field(":path", "/index.html")]));
}

/// The size is "calculated based on the uncompressed size of fields, including the length of the name and value in bytes
/// plus an overhead of 32 bytes for each field" (RFC 9114 section 4.2.2).
#[test]
fn the_size_is_counted_and_bounded() {
    let fields = vec![field("name", "value"); 3];
    let size: u64 = fields.iter().map(|field| FieldRef::from(field).size()).sum();
    assert_eq!(size, 3 * 41);
    let block = encode(&fields);
    assert_eq!(decode_with(block.clone(), size), Ok(fields));
    assert_eq!(decode_with(block, size - 1), Err(DecodeError::TooLarge));
    // 64 KiB of one-byte references to content-security-policy would be 7 MB.
    let mut bomb = vec![0, 0];
    bomb.extend([0xff, 22].repeat(1 << 15));
    assert_eq!(decode_with(Bytes::from(bomb), 1 << 16), Err(DecodeError::TooLarge));
}

#[test]
fn what_needs_a_dynamic_table_is_refused() {
    failed(decode(b"\x01\x00")); // Required Insert Count
    failed(decode(b"\x00\x80")); // negative Base
    failed(decode(b"\x00\x00\x80")); // dynamic index
    failed(decode(b"\x00\x00\x40\x01x")); // dynamic name
    failed(decode(b"\x00\x00\x10")); // post-base index
    failed(decode(b"\x00\x00\x00\x01x")); // post-base name
    assert_eq!(decode(b"\x00\x05\xd1"), Ok(vec![field(":method", "GET")]));
}

#[test]
fn malformed_sections() {
    failed(decode(b""));
    failed(decode(b"\x00"));
    failed(decode(b"\x00\x00\xff\x24")); // static index 99
    failed(decode(b"\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
    failed(decode(b"\x00\x00\x51")); // no value
    failed(decode(b"\x00\x00\x51\x05/ind")); // short value
    failed(decode(b"\x00\x00\x51\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x3f")); // length 2^62 and more
    failed(decode(b"\x00\x00\x51\x81\x00")); // Huffman padding
    failed(decode(b"\x00\x00\x51\x84\xff\xff\xff\xff")); // EOS
    assert_eq!(
        decode(b"\x00\x00\xff\x23"),
        Ok(vec![field("x-frame-options", "sameorigin")])
    );
}

#[test]
fn encoder_stream_without_capacity() {
    let feed = |bytes: &'static [u8]| {
        let mut input = Bytes::from_static(bytes);
        let result = Decoder::new().recv_encoder_stream(&mut input);
        assert!(input.is_empty() || result.is_err());
        result.map_err(EncoderStreamError::code)
    };
    assert_eq!(feed(b"\x20\x20"), Ok(()));
    for bytes in [
        &b"\x21"[..],
        b"\x3f\xbd\x01",
        b"\xc0\x01x",
        b"\x81\x01x",
        b"\x41xy",
        b"\x00",
        b"\x1f\x00",
    ] {
        assert_eq!(feed(bytes), Err(Code::QPACK_ENCODER_STREAM_ERROR), "{bytes:x?}");
    }
}

#[test]
fn decoder_stream_without_insertions() {
    let feed = |pieces: &[&[u8]]| {
        let mut encoder = Encoder::new();
        pieces
            .iter()
            .try_for_each(|piece| encoder.recv_decoder_stream(&mut Bytes::copy_from_slice(piece)))
            .map_err(DecoderStreamError::code)
    };
    // Stream Cancellation of streams 4 and 2^62-1, cut anywhere.
    let legal = b"\x44\x7f\xc0\xff\xff\xff\xff\xff\xff\xff\x3f\x44";
    for cut in 0..legal.len() {
        assert_eq!(feed(&[&legal[..cut], &legal[cut..]]), Ok(()));
    }
    let error = Err(Code::QPACK_DECODER_STREAM_ERROR);
    assert_eq!(feed(&[b"\x84"]), error); // acknowledgement
    assert_eq!(feed(&[b"\x00"]), error); // increment 0
    assert_eq!(feed(&[b"\x01"]), error); // increment 1
    assert_eq!(feed(&[&[0x7f], &[0xff; 10]]), error);
    // After a cancellation the next instruction is read as one.
    assert_eq!(feed(&[b"\x7f\x00\x80"]), error);
}
