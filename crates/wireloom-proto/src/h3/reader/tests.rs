use bytes::BytesMut;

use super::*;

fn limits() -> FrameLimits {
    FrameLimits {
        headers: 16,
        settings: 8,
        priority_update: 8,
    }
}

/// Every frame, with DATA pieces joined, whatever the pieces the input comes in.
fn read_in(pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
    let mut reader = FrameReader::new(limits());
    let mut frames: Vec<Frame> = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(frame) = reader.read(&mut input)? {
            match (frames.last_mut(), frame) {
                (Some(Frame::Data(before)), Frame::Data(more)) => *before = [&before[..], &more[..]].concat().into(),
                (_, frame) => frames.push(frame),
            }
        }
        assert!(input.is_empty());
    }
    reader.finish().map(|()| frames)
}

fn read(input: &[u8]) -> Result<Vec<Frame>, FrameError> {
    read_in(&[input])
}

fn message() -> (Vec<u8>, Vec<Frame>) {
    let mut bytes = BytesMut::new();
    frame::encode_header(frame::reserved(7), 3, &mut bytes);
    bytes.extend_from_slice(b"xyz");
    bytes.extend_from_slice(&frame::encode(frame::HEADERS, b"0123456789abcdef"));
    bytes.extend_from_slice(&frame::encode(frame::DATA, b"hello"));
    bytes.extend_from_slice(&frame::encode(frame::HEADERS, b"0123456789abcdefg"));
    bytes.extend_from_slice(&frame::encode(frame::SETTINGS, b"12345678"));
    bytes.extend_from_slice(&frame::encode_goaway(1 << 40));
    bytes.extend_from_slice(&frame::encode(0xfeed, b""));
    bytes.extend_from_slice(&frame::encode(frame::MAX_PUSH_ID, &[5]));
    bytes.extend_from_slice(&frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\x04u=1"));
    bytes.extend_from_slice(&frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\x04u=1, far too long"));
    bytes.extend_from_slice(&frame::encode(frame::DATA, b""));
    let frames = vec![
        Frame::Headers(Bytes::from_static(b"0123456789abcdef")),
        Frame::Data(Bytes::from_static(b"hello")),
        Frame::HeadersTooLarge,
        Frame::Settings(Bytes::from_static(b"12345678")),
        Frame::Goaway(1 << 40),
        Frame::MaxPushId(5),
        Frame::PriorityUpdate {
            push: false,
            id: 4,
            value: Bytes::from_static(b"u=1"),
        },
        Frame::Data(Bytes::new()),
    ];
    (bytes.to_vec(), frames)
}

#[test]
fn every_split_gives_the_same_frames() {
    let (bytes, frames) = message();
    assert_eq!(read(&bytes), Ok(frames.clone()));
    for cut in 0..bytes.len() {
        assert_eq!(
            read_in(&[&bytes[..cut], &bytes[cut..]]),
            Ok(frames.clone()),
            "cut at {cut}"
        );
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read_in(&single), Ok(frames));
}

/// "Each frame's payload MUST contain exactly the fields identified in its description" (RFC 9114 section 7.1).
#[test]
fn lengths_that_do_not_match_the_fields() {
    for ty in [frame::CANCEL_PUSH, frame::GOAWAY, frame::MAX_PUSH_ID] {
        for payload in [&b""[..], b"\x01\x01", b"\x40", b"\xc0\0\0\0", b"\0\0\0\0\0\0\0\0\0"] {
            assert_eq!(
                read(&frame::encode(ty, payload)),
                Err(FrameError::Malformed(ty)),
                "{ty:#x} {payload:?}"
            );
        }
    }
    let ty = frame::PRIORITY_UPDATE_PUSH;
    assert_eq!(read(&frame::encode(ty, b"")), Err(FrameError::Malformed(ty)));
    assert_eq!(FrameError::Malformed(ty).code(), Code::H3_FRAME_ERROR);
}

#[test]
fn a_fixed_frame_of_absurd_length_is_refused_from_its_header() {
    let mut bytes = BytesMut::new();
    frame::encode_header(frame::GOAWAY, varint::MAX, &mut bytes);
    let mut reader = FrameReader::new(limits());
    assert_eq!(
        reader.read(&mut bytes.freeze()),
        Err(FrameError::Malformed(frame::GOAWAY))
    );
    assert_eq!(
        read(&frame::encode(frame::SETTINGS, b"123456789")),
        Err(FrameError::TooLarge(frame::SETTINGS))
    );
}

/// "their receipt MUST be treated as a connection error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.8).
#[test]
fn frame_types_of_http2() {
    for ty in [0x02, 0x06, 0x08, 0x09] {
        let error = FrameError::Http2Type(ty);
        // The type alone suffices, length and payload are not waited for.
        assert_eq!(
            FrameReader::new(limits()).read(&mut Bytes::copy_from_slice(&[ty as u8])),
            Err(error)
        );
        assert_eq!(error.code(), Code::H3_FRAME_UNEXPECTED);
    }
}

#[test]
fn the_end_inside_a_frame() {
    let (bytes, _) = message();
    let whole: Vec<usize> = {
        let mut ends = vec![0];
        let mut reader = FrameReader::new(limits());
        for end in 1..=bytes.len() {
            let mut input = Bytes::copy_from_slice(&bytes[end - 1..end]);
            while reader.read(&mut input).expect("legal frames").is_some() {}
            if reader.finish().is_ok() {
                ends.push(end);
            }
        }
        ends
    };
    assert_eq!(whole.len(), 12, "one end per frame");
    assert_eq!(read(&bytes[..bytes.len() - 1]), Err(FrameError::Truncated));
    assert_eq!(FrameError::Truncated.code(), Code::H3_FRAME_ERROR);
}

/// "Endpoints MUST NOT send WT_STREAM as a frame type on HTTP/3 streams other than the very first bytes of a request
/// stream. Receiving this frame type in any other circumstances MUST be treated as a connection error of type
/// H3_FRAME_ERROR" (draft-ietf-webtrans-http3-16 section 4.3).
#[test]
fn the_webtransport_signal_is_legal_only_at_the_start() {
    let mut reader = FrameReader::new(limits());
    let mut input = Bytes::from_static(b"\x40\x41\x04payload");
    assert_eq!(reader.read(&mut input), Ok(Some(Frame::WtStream)));
    assert_eq!(input, &b"\x04payload"[..]);
    assert_eq!(reader.finish(), Ok(()));
    for before in [frame::encode(frame::DATA, b""), frame::encode(0x21, b"x")] {
        let bytes = [&before[..], b"\x40\x41\x04"].concat();
        assert_eq!(read(&bytes), Err(FrameError::MisplacedWtStream));
    }
    assert_eq!(FrameError::MisplacedWtStream.code(), Code::H3_FRAME_ERROR);
}

#[test]
fn unknown_frames_of_any_length_are_skipped_without_buffering() {
    let mut header = BytesMut::new();
    frame::encode_header(0x1f * 1000 + 0x21, varint::MAX, &mut header);
    let mut reader = FrameReader::new(limits());
    assert_eq!(reader.read(&mut header.freeze()), Ok(None));
    let block = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..100 {
        assert_eq!(reader.read(&mut block.clone()), Ok(None));
    }
    assert!(matches!(reader.state, State::Skip(_)));
    assert_eq!(reader.finish(), Err(FrameError::Truncated));
}

#[test]
fn frames_without_effect_are_counted() {
    let mut reader = FrameReader::new(limits());
    let mut flood = Bytes::from(
        [frame::encode(frame::DATA, b""), frame::encode(0x21, b"")]
            .concat()
            .repeat(50),
    );
    while reader.read(&mut flood).expect("legal").is_some() {}
    assert_eq!(reader.idle_frames(), 100);
    assert!(matches!(
        reader.read(&mut frame::encode(frame::DATA, b"x")),
        Ok(Some(Frame::Data(_)))
    ));
    assert_eq!(reader.idle_frames(), 0);
}

#[test]
fn data_is_a_slice_of_the_input_and_its_start_is_told() {
    let mut reader = FrameReader::new(limits());
    assert_eq!(
        reader.read(&mut Bytes::from_static(&[0x00, 0x05])),
        Ok(Some(Frame::Data(Bytes::new())))
    );
    let mut input = Bytes::from_static(b"hello");
    let start = input.as_ptr();
    let Ok(Some(Frame::Data(data))) = reader.read(&mut input) else {
        panic!("DATA expected")
    };
    assert_eq!((data.as_ptr(), &data[..]), (start, &b"hello"[..]));
}
