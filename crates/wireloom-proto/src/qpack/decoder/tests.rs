use super::*;
use crate::qpack::FieldRef;

const CAPACITY: u32 = 220;

fn stream(id: u64) -> StreamId {
    StreamId::from_u64(id)
}

fn instructions(decoder: &mut Decoder, bytes: &[u8]) -> Result<(), Code> {
    decoder
        .recv_encoder_stream(&mut Bytes::copy_from_slice(bytes))
        .map_err(EncoderStreamError::code)
}

/// A decoder with the two entries of RFC 9204 section B.2.
fn with_two_entries() -> Decoder {
    let mut decoder = Decoder::with_table(CAPACITY, 2);
    let bytes = b"\x3f\xbd\x01\xc0\x0fwww.example.com\xc1\x0c/sample/path";
    assert_eq!(instructions(&mut decoder, bytes), Ok(()));
    decoder
}

fn section(decoder: &mut Decoder, on: u64, bytes: &[u8]) -> Result<Section, DecodeError> {
    decoder.decode(stream(on), Bytes::copy_from_slice(bytes), 1 << 16)
}

fn pairs(section: Result<Section, DecodeError>) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let fields = section.expect("legal").fields().expect("not blocked");
    fields
        .iter()
        .map(|field| (text(&field.name), text(&field.value)))
        .collect()
}

#[test]
fn every_kind_of_reference() {
    let mut decoder = with_two_entries();
    let authority = (":authority".to_owned(), "www.example.com".to_owned());
    let path = (":path".to_owned(), "/sample/path".to_owned());
    let named = |name: &(String, String)| (name.0.clone(), "x".to_owned());
    // Base 2: relative. Base 0: post-base. Base 1: both. Base 3: relative from beyond.
    for (bytes, expected) in [
        (&b"\x03\x00\x80\x81"[..], [&path, &authority]),
        (b"\x03\x81\x10\x11", [&authority, &path]),
        (b"\x03\x80\x80\x10", [&authority, &path]),
        (b"\x03\x01\x81\x82", [&path, &authority]),
    ] {
        assert_eq!(
            pairs(section(&mut decoder, 0, bytes)),
            expected.map(Clone::clone),
            "{bytes:x?}"
        );
    }
    assert_eq!(
        pairs(section(&mut decoder, 0, b"\x03\x00\x40\x01x\x41\x01x")),
        [named(&path), named(&authority)]
    );
    assert_eq!(
        pairs(section(&mut decoder, 0, b"\x03\x81\x00\x01x\x01\x01x")),
        [named(&authority), named(&path)]
    );
    // The N bit of both.
    for bytes in [&b"\x03\x00\x60\x01x"[..], b"\x03\x81\x08\x01x"] {
        let fields = section(&mut decoder, 0, bytes)
            .expect("legal")
            .fields()
            .expect("not blocked");
        assert!(fields[0].sensitive);
    }
}

/// Sections 2.2.3, 3.1, 4.5.1.
#[test]
fn references_to_what_is_not_there() {
    for bytes in [
        &b"\x03\x00\x82"[..], // before the first
        b"\x03\x81\x12",      // beyond the last
        b"\x02\x00\x10",      // at or above the Required Insert Count of 1
        b"\x02\x01\x80",      // the same, relative to a Base of 2
        b"\x00\x00\x80",      // with a Required Insert Count of 0
        b"\x03\x00\x42\x01x",
        b"\x03\x81\x02\x01x",
        b"\x03\x82\x10", // negative Base
        b"\x0e\x00\x80", // above twice MaxEntries, which is 6
        b"\x01\x00\x80", // a count of 0 in disguise
        b"\x03\x00\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        b"\x03\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x3f\x80",
    ] {
        let failed = section(&mut with_two_entries(), 0, bytes);
        assert_eq!(
            failed.map_err(DecodeError::code),
            Err(Code::QPACK_DECOMPRESSION_FAILED),
            "{bytes:x?}"
        );
    }
    // Evicted.
    let mut decoder = with_two_entries();
    assert_eq!(instructions(&mut decoder, b"\x3f\x21"), Ok(()));
    assert_eq!(pairs(section(&mut decoder, 0, b"\x03\x00\x80")).len(), 1);
    let failed = section(&mut decoder, 0, b"\x03\x00\x81");
    assert_eq!(failed.map_err(DecodeError::code), Err(Code::QPACK_DECOMPRESSION_FAILED));
}

/// Sections 2.2.3, 3.2.2, 4.3.1, 4.3.4.
#[test]
fn instructions_that_break_the_connection() {
    let error = Err(Code::QPACK_ENCODER_STREAM_ERROR);
    for bytes in [
        &b"\x3f\xbe\x01"[..], // capacity of 221
        b"\x02",              // duplicate of the third newest
        b"\x82\x01x",         // its name
        b"\xff\x24\x01x",     // static index 99
        b"\x41x\x7f\x3d",     // name and value of 1 and 188 bytes: an entry of 221
        b"\xc0\x7f\x34",      // :authority and 179 bytes
        b"\x7f\xbc\x06",      // a Huffman-coded name that cannot be short enough
        b"\x61\x00",          // Huffman padding
        b"\x3f\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    ] {
        for piece in [1, bytes.len()] {
            let mut decoder = with_two_entries();
            let result = bytes
                .chunks(piece)
                .try_for_each(|piece| instructions(&mut decoder, piece));
            // The padding shows once the value is there too.
            let result = result.and_then(|()| instructions(&mut decoder, b"\x00"));
            assert_eq!(result, error, "{bytes:x?}");
        }
    }
    // Just fits: what is there leaves.
    let mut decoder = with_two_entries();
    let entry = [&b"\x41x\x7f\x3c"[..], &[b'v'; 187]].concat();
    assert_eq!(instructions(&mut decoder, &entry), Ok(()));
    assert_eq!(decoder.table.iter().count(), 1);
}

/// A name may be that of the entry which leaves for the new one.
#[test]
fn an_entry_may_drive_out_the_one_it_refers_to() {
    let mut decoder = with_two_entries();
    let entry = [&b"\x81\x7f\x27"[..], &[b'v'; 166]].concat();
    assert_eq!(instructions(&mut decoder, &entry), Ok(()));
    assert_eq!(decoder.table.iter().count(), 1);
    assert_eq!(
        decoder.table.newest(0).map(|entry| entry.name().to_vec()),
        Some(b":authority".to_vec())
    );
    // And a duplicate.
    assert_eq!(instructions(&mut decoder, b"\x00"), Ok(()));
    assert_eq!(decoder.table.inserted(), 4);
}

/// A connection that is idle does not hold what its largest section took.
#[test]
fn the_memory_of_a_large_section_leaves_with_it() {
    let mut decoder = Decoder::new();
    let mut sized = |len: usize| {
        let (name, value) = ("x".repeat(len), "y".repeat(len));
        let mut block = BytesMut::new();
        let fields = [FieldRef::new(name.as_bytes(), value.as_bytes())];
        crate::qpack::Encoder::new().encode(stream(0), fields, &mut block);
        let fields = decoder.decode(stream(0), block.freeze(), 1 << 16);
        assert!(matches!(fields, Ok(Section::Fields(fields)) if fields[0].name.len() == len));
        decoder.text.capacity()
    };
    assert_eq!(sized(20_000), 0);
    assert!(sized(100) < 512);
    assert!(sized(20_000) < 512);
}

/// One byte on the wire is no reason to copy a whole entry.
#[test]
fn a_duplicate_shares_its_text() {
    let mut decoder = with_two_entries();
    assert_eq!(instructions(&mut decoder, b"\x00"), Ok(()));
    let value = |index| decoder.table.get(index).expect("inserted").shared_value();
    assert_eq!(value(2), "/sample/path");
    assert_eq!(value(2).as_ptr(), value(1).as_ptr());
}

#[test]
fn what_is_cut_is_bounded() {
    let mut decoder = Decoder::with_table(CAPACITY, 0);
    assert_eq!(instructions(&mut decoder, b"\x3f\xbd\x01"), Ok(()));
    // The longest Huffman code that could still stand for 188 bytes of name.
    let mut held = 0;
    assert_eq!(instructions(&mut decoder, b"\x7f\xa6\x05"), Ok(()));
    while instructions(&mut decoder, &[0xff]) == Ok(()) {
        held = held.max(decoder.partial.len());
        assert!(held < 4 * CAPACITY as usize);
    }
    assert!(held > 100);
}

/// Section 2.1.2: one more stream than announced breaks the connection; a cancelled one makes room (2.2.2.2).
#[test]
fn blocked_streams_are_bounded() {
    let mut decoder = Decoder::with_table(CAPACITY, 2);
    let block = b"\x03\x81\x10\x11";
    assert_eq!(section(&mut decoder, 0, block), Ok(Section::Blocked));
    assert_eq!(section(&mut decoder, 4, block), Ok(Section::Blocked));
    decoder.cancel(stream(0));
    assert_eq!(section(&mut decoder, 8, block), Ok(Section::Blocked));
    assert_eq!(
        section(&mut decoder, 12, block).map_err(DecodeError::code),
        Err(Code::QPACK_DECOMPRESSION_FAILED)
    );
    assert_eq!(instructions(&mut decoder, b"\x3f\xbd\x01\xc0\x01a"), Ok(()));
    assert_eq!(decoder.poll_unblocked(), None);
    assert_eq!(instructions(&mut decoder, b"\xc1\x01b"), Ok(()));
    for on in [4, 8] {
        let (unblocked, block) = decoder.poll_unblocked().expect("all arrived");
        assert_eq!(unblocked, stream(on));
        assert_eq!(pairs(decoder.decode(unblocked, block, 1 << 16)).len(), 2);
    }
    // One Stream Cancellation, two acknowledgements, which tell of all insertions.
    assert_eq!(&decoder.take_instructions()[..], b"\x40\x84\x88");
    assert!(decoder.take_instructions().is_empty());
}

/// Section 2.1.1: what a section waits for must stay until it is acknowledged. So many insertions later its count would mean
/// another.
#[test]
fn an_entry_that_a_blocked_section_refers_to_is_not_evicted() {
    for insertions in 1..20 {
        let mut decoder = Decoder::with_table(CAPACITY, 2);
        assert_eq!(section(&mut decoder, 0, b"\x02\x80\x10"), Ok(Section::Blocked));
        let mut stream = b"\x3f\xbd\x01\xc0\x01a".to_vec();
        stream.extend(std::iter::repeat_n(0x00, insertions - 1));
        let result = instructions(&mut decoder, &stream);
        // An entry takes 43 of 220 bytes.
        if insertions <= 5 {
            assert_eq!(result, Ok(()));
            let (unblocked, block) = decoder.poll_unblocked().expect("it arrived");
            assert_eq!(
                pairs(decoder.decode(unblocked, block, 1 << 16)).len(),
                1,
                "{insertions}"
            );
        } else {
            assert_eq!(result, Err(Code::QPACK_ENCODER_STREAM_ERROR));
        }
    }
}

#[test]
fn insertions_are_acknowledged_once() {
    let mut decoder = with_two_entries();
    assert_eq!(&decoder.take_instructions()[..], b"\x02");
    // A section acknowledges no more than it needs.
    assert_eq!(instructions(&mut decoder, b"\x00\x00"), Ok(()));
    assert_eq!(pairs(section(&mut decoder, 4, b"\x04\x00\x80")).len(), 1);
    assert_eq!(&decoder.take_instructions()[..], b"\x84\x01");
    // One that refers to nothing is not acknowledged.
    assert_eq!(pairs(section(&mut decoder, 8, b"\x00\x00\xd1")).len(), 1);
    assert!(decoder.take_instructions().is_empty());
}

#[test]
fn without_a_table_nothing_is_cancelled() {
    let mut decoder = Decoder::new();
    decoder.cancel(stream(0));
    assert!(decoder.take_instructions().is_empty());
}

/// A bomb: a section of one-byte references to a large entry is stopped at the limit.
#[test]
fn large_entries_count_each_time() {
    let mut decoder = Decoder::with_table(4096, 0);
    let entry = [&b"\x3f\xe1\x1f\x41x\x7f\x81\x1e"[..], &[b'v'; 3968]].concat();
    assert_eq!(instructions(&mut decoder, &entry), Ok(()));
    let bomb = [&b"\x02\x00"[..], &[0x80; 1000]].concat();
    assert_eq!(section(&mut decoder, 0, &bomb), Err(DecodeError::TooLarge));
    let fields = section(&mut decoder, 0, &bomb[..10])
        .expect("small")
        .fields()
        .expect("there");
    assert_eq!(
        fields.iter().map(|field| FieldRef::from(field).size()).sum::<u64>(),
        8 * 4001
    );
}
