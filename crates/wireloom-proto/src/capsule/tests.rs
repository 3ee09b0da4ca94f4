use super::*;

fn read_in(pieces: &[&[u8]]) -> Result<Vec<Capsule>, CapsuleError> {
    let mut reader = CapsuleReader::new();
    let mut capsules = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(capsule) = reader.read(&mut input)? {
            capsules.push(capsule);
        }
        assert!(input.is_empty());
    }
    reader.finish().map(|()| capsules)
}

fn raw(ty: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_header(ty, payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

/// "Each Capsule's payload MUST contain exactly the fields identified in its description" (RFC 9297 section 3.3): what
/// is written here is read by the same rules as a peer's.
#[test]
fn every_split_gives_the_same_capsules() {
    let bytes = [
        &raw(0x29 * 3 + 0x17, b"greasy")[..],
        &encode_max_data(1 << 40),
        &encode_max_streams(Dir::Bi, 3),
        &encode_max_streams(Dir::Uni, 4),
        &encode_data_blocked(5),
        &encode_streams_blocked(Dir::Bi, 6),
        &encode_streams_blocked(Dir::Uni, 70_000),
        &encode_datagram(b"dgram"),
        &raw(WT_MAX_STREAM_DATA, b"anything"),
        &encode_drain_session(),
        &encode_close_session(u32::MAX, "auf Wiedersehen \u{1f44b}"),
    ]
    .concat();
    let capsules = vec![
        Capsule::MaxData(1 << 40),
        Capsule::MaxStreams { dir: Dir::Bi, max: 3 },
        Capsule::MaxStreams { dir: Dir::Uni, max: 4 },
        Capsule::DataBlocked(5),
        Capsule::StreamsBlocked { dir: Dir::Bi, max: 6 },
        Capsule::StreamsBlocked {
            dir: Dir::Uni,
            max: 70_000,
        },
        Capsule::Datagram(Bytes::from_static(b"dgram")),
        Capsule::Prohibited(WT_MAX_STREAM_DATA),
        Capsule::DrainSession,
        Capsule::CloseSession {
            code: u32::MAX,
            reason: "auf Wiedersehen \u{1f44b}".into(),
        },
    ];
    assert_eq!(read_in(&[&bytes]), Ok(capsules.clone()));
    for cut in 0..bytes.len() {
        assert_eq!(
            read_in(&[&bytes[..cut], &bytes[cut..]]),
            Ok(capsules.clone()),
            "cut at {cut}"
        );
    }
    assert_eq!(read_in(&bytes.chunks(1).collect::<Vec<_>>()), Ok(capsules));
}

/// "If the Application Error Message exceeds 1024 bytes or is not valid UTF-8, the receiver MUST reset the stream with
/// code H3_MESSAGE_ERROR" (draft 16 section 6).
#[test]
fn close_reasons() {
    let longest = [&[0; 4][..], &[b'x'; 1024]].concat();
    assert!(read_in(&[&raw(WT_CLOSE_SESSION, &longest)]).is_ok());
    // From the length alone, before a byte of the payload is there.
    let mut header = Vec::new();
    encode_header(WT_CLOSE_SESSION, 4 + 1025, &mut header);
    assert_eq!(read_in(&[&header]), Err(CapsuleError::ReasonTooLong));
    for short in 0..4 {
        let error = CapsuleError::Malformed(WT_CLOSE_SESSION);
        assert_eq!(read_in(&[&raw(WT_CLOSE_SESSION, &[0; 3][..short.min(3)])]), Err(error));
    }
    assert_eq!(
        read_in(&[&raw(WT_CLOSE_SESSION, b"\0\0\0\0\xff")]),
        Err(CapsuleError::ReasonNotUtf8)
    );
    assert_eq!(CapsuleError::ReasonNotUtf8.code(), Code::H3_MESSAGE_ERROR);
}

/// "The format of the capsule SHALL be as follows" (draft 16 section 6).
#[test]
fn the_close_capsule_byte_by_byte() {
    assert_eq!(
        &encode_close_session(0x0102_0304, "ab")[..],
        [0x68, 0x43, 6, 1, 2, 3, 4, b'a', b'b']
    );
}

/// "its length MUST NOT exceed 1024 bytes" (draft 16 section 6).
/// "Senders that truncate an application-supplied message MUST do so at a UTF-8 character boundary" (draft 16 section
/// 6).
#[test]
fn reasons_are_cut_between_characters() {
    let reason = "\u{20ac}".repeat(400);
    let Ok(capsules) = read_in(&[&encode_close_session(1, &reason)]) else {
        panic!("own capsule")
    };
    let [Capsule::CloseSession { code: 1, reason: cut }] = &capsules[..] else {
        panic!("{capsules:?}")
    };
    assert_eq!(cut.len(), 1023);
    assert!(reason.starts_with(cut.as_str()));
}

/// "If any additional stream data is received on the CONNECT stream after receiving a WT_CLOSE_SESSION capsule, the
/// stream MUST be reset with code H3_MESSAGE_ERROR" (draft 16 section 6).
#[test]
fn data_after_close() {
    let close = encode_close_session(0, "");
    assert_eq!(
        read_in(&[&close, b""]),
        Ok(vec![Capsule::CloseSession {
            code: 0,
            reason: String::new()
        }])
    );
    assert_eq!(read_in(&[&close, b"\0"]), Err(CapsuleError::AfterClose));
}

/// "the last Capsule on the stream was truncated, this MUST be treated as if it were a malformed or incomplete message"
/// (RFC 9297 section 3.3).
#[test]
fn the_end_inside_a_capsule() {
    let bytes = encode_close_session(7, "reason");
    for cut in 1..bytes.len() {
        assert_eq!(read_in(&[&bytes[..cut]]), Err(CapsuleError::Truncated), "cut at {cut}");
    }
}

/// "A Capsule payload that contains additional bytes after the identified fields or a Capsule payload that terminates
/// before the end of the identified fields MUST be treated as it if were a malformed or incomplete message" (RFC 9297
/// section 3.3).
/// "redundant length encodings MUST be verified to be self-consistent" (RFC 9297 section 3.3).
#[test]
fn lengths_that_do_not_match_the_fields() {
    for ty in [
        WT_MAX_DATA,
        WT_MAX_STREAMS_BIDI,
        WT_MAX_STREAMS_UNI,
        WT_DATA_BLOCKED,
        WT_STREAMS_BLOCKED_UNI,
    ] {
        for payload in [&b""[..], b"\x01\x01", b"\x40", b"\0\0\0\0\0\0\0\0\0"] {
            assert_eq!(
                read_in(&[&raw(ty, payload)]),
                Err(CapsuleError::Malformed(ty)),
                "{ty:#x} {payload:?}"
            );
        }
    }
    assert_eq!(
        read_in(&[&raw(WT_DRAIN_SESSION, b"x")]),
        Err(CapsuleError::Malformed(WT_DRAIN_SESSION))
    );
}

#[test]
fn absurd_lengths_allocate_nothing() {
    for ty in [DATAGRAM, 0x17, 0xdead_beef, WT_STREAM_DATA_BLOCKED] {
        let mut reader = CapsuleReader::new();
        let mut header = BytesMut::new();
        encode_header(ty, varint::MAX, &mut header);
        let mut input = header.freeze();
        while reader.read(&mut input).expect("legal").is_some() {}
        assert_eq!(reader.read(&mut Bytes::from(vec![0; 100_000])), Ok(None));
        assert!(matches!(reader.state, State::Skip(_)), "{ty:#x}");
        assert_eq!(reader.finish(), Err(CapsuleError::Truncated));
    }
}

/// "Endpoints that receive a Capsule with an unknown Capsule Type MUST silently drop that Capsule and skip over it to
/// parse the next Capsule" (RFC 9297 section 3.2).
#[test]
fn unknown_capsules_are_counted() {
    let mut reader = CapsuleReader::new();
    assert_eq!(reader.read(&mut Bytes::from(raw(0x17, b"").repeat(9))), Ok(None));
    assert_eq!(reader.idle_capsules(), 9);
    assert_eq!(reader.read(&mut encode_max_data(1)), Ok(Some(Capsule::MaxData(1))));
    assert_eq!(reader.idle_capsules(), 0);
}
