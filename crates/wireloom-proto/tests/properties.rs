//! Properties over random input: nothing panics, pieces equal the whole, what is written is read again.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use wireloom_proto::capsule::{self, Capsule, CapsuleReader};
use wireloom_proto::h3::frame;
use wireloom_proto::h3::headers::{self, HeaderError};
use wireloom_proto::h3::reader::{Frame, FrameLimits, FrameReader};
use wireloom_proto::h3::settings::Settings;
use wireloom_proto::qpack::{Decoder, Encoder, Field, FieldRef, Section};
use wireloom_proto::{Code, Dir, StreamId, testing, varint};

/// Integers of every length with equal weight, which a uniform choice would never give.
fn any_varint() -> impl Strategy<Value = u64> {
    (0u32..62).prop_flat_map(|bits| 0..=(u64::MAX >> 2 >> (61 - bits)))
}

fn any_capsule() -> impl Strategy<Value = (Capsule, Bytes)> {
    let dir = prop_oneof![Just(Dir::Bi), Just(Dir::Uni)];
    prop_oneof![
        any_varint().prop_map(|max| (Capsule::MaxData(max), capsule::encode_max_data(max))),
        any_varint().prop_map(|max| (Capsule::DataBlocked(max), capsule::encode_data_blocked(max))),
        (dir.clone(), any_varint())
            .prop_map(|(dir, max)| (Capsule::MaxStreams { dir, max }, capsule::encode_max_streams(dir, max))),
        (dir, any_varint()).prop_map(|(dir, max)| (
            Capsule::StreamsBlocked { dir, max },
            capsule::encode_streams_blocked(dir, max)
        )),
        Just((Capsule::DrainSession, capsule::encode_drain_session())),
        vec(any::<u8>(), 0..100)
            .prop_map(|data| (Capsule::Datagram(data.clone().into()), capsule::encode_datagram(&data))),
    ]
}

fn any_field() -> impl Strategy<Value = Field> {
    let name = prop_oneof![
        "[a-z][a-z0-9-]{0,40}",
        Just(String::from("content-type")),
        Just(String::from("accept")),
        Just(String::from(":status")),
    ];
    (name, vec(any::<u8>(), 0..80), any::<bool>()).prop_map(|(name, value, sensitive)| Field {
        name: name.into(),
        value: value.into(),
        sensitive,
    })
}

proptest! {
    #[test]
    fn random_bytes_break_nothing(data in vec(any::<u8>(), 0..300)) {
        testing::varint(&data);
        testing::frame_reader(&data);
        testing::settings(&data);
        testing::qpack_decode(&data);
        testing::qpack_decode(&[&[0, 0], &data[..]].concat());
        testing::huffman(&data);
        testing::headers(&data);
        testing::capsule(&data);
        testing::datagram(&data);
    }

    #[test]
    fn varints_round_trip(value in any_varint()) {
        let mut out = Vec::new();
        varint::encode(value, &mut out);
        prop_assert_eq!(out.len(), varint::size(value));
        prop_assert_eq!(varint::decode(&out), Some((value, out.len())));
    }

    #[test]
    fn application_codes_round_trip(code in any::<u32>()) {
        let wire = Code::from_application(code);
        prop_assert!(!wire.is_reserved());
        prop_assert_eq!(wire.to_application(), Some(code));
    }

    #[test]
    fn frames_survive_any_pieces(
        payloads in vec((prop_oneof![Just(frame::HEADERS), Just(frame::DATA), Just(0x21)], vec(any::<u8>(), 1..100)), 0..8),
        len in 1usize..20,
    ) {
        let stream: Vec<u8> = payloads.iter().flat_map(|(ty, payload)| frame::encode(*ty, payload)).collect();
        let mut reader = FrameReader::new(FrameLimits::default());
        let (mut data, mut sections) = (Vec::new(), Vec::new());
        for piece in stream.chunks(len) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(frame) = reader.read(&mut input).expect("legal frames") {
                match frame {
                    Frame::Data(piece) => data.extend_from_slice(&piece),
                    Frame::Headers(block) => sections.push(block.to_vec()),
                    other => panic!("{other:?}"),
                }
            }
        }
        prop_assert_eq!(reader.finish(), Ok(()));
        let of = |ty| payloads.iter().filter(move |payload| payload.0 == ty).map(|payload| payload.1.clone());
        prop_assert_eq!(data, of(frame::DATA).flatten().collect::<Vec<_>>());
        prop_assert_eq!(sections, of(frame::HEADERS).collect::<Vec<_>>());
    }

    #[test]
    fn capsules_survive_any_pieces(capsules in vec(any_capsule(), 0..8), len in 1usize..20) {
        let stream: Vec<u8> = capsules.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let mut reader = CapsuleReader::new();
        let mut read = Vec::new();
        for piece in stream.chunks(len) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(capsule) = reader.read(&mut input).expect("legal capsules") {
                read.push(capsule);
            }
        }
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(read, capsules.into_iter().map(|capsule| capsule.0).collect::<Vec<_>>());
    }

    #[test]
    fn close_reasons_arrive_as_clipped(code in any::<u32>(), reason in "\\PC{0,600}") {
        let mut bytes = capsule::encode_close_session(code, &reason);
        let Ok(Some(Capsule::CloseSession { code: got, reason: clipped })) = CapsuleReader::new().read(&mut bytes) else {
            panic!("own capsule")
        };
        prop_assert_eq!(got, code);
        prop_assert!(reason.starts_with(&clipped) && clipped.len() <= 1024);
        prop_assert!(clipped == reason || clipped.len() > 1020);
    }

    #[test]
    fn settings_round_trip(pairs in vec((any_varint().prop_map(|id| id | 0x1000), any_varint()), 0..20)) {
        let settings: Settings = pairs.into_iter().collect();
        let mut payload = Vec::new();
        settings.encode(&mut payload);
        prop_assert_eq!(Settings::decode(&payload), Ok(settings));
    }

    #[test]
    fn field_sections_round_trip(fields in vec(any_field(), 0..20)) {
        let stream = StreamId::from_u64(4);
        let size: u64 = fields.iter().map(|field| FieldRef::from(field).size()).sum();
        let mut block = BytesMut::new();
        Encoder::new().encode(stream, fields.iter().map(FieldRef::from), &mut block);
        let block = block.freeze();
        if size > 0 {
            prop_assert!(Decoder::new().decode(stream, block.clone(), size - 1).is_err());
        }
        prop_assert_eq!(Decoder::new().decode(stream, block, size), Ok(Section::Fields(fields)));
    }

    #[test]
    fn cut_sections_fail_or_are_shorter(fields in vec(any_field(), 1..8), cut in any::<prop::sample::Index>()) {
        let stream = StreamId::from_u64(4);
        let mut block = BytesMut::new();
        Encoder::new().encode(stream, fields.iter().map(FieldRef::from), &mut block);
        let cut = cut.index(block.len());
        if let Ok(Section::Fields(read)) = Decoder::new().decode(stream, block.freeze().slice(..cut), 1 << 20) {
            prop_assert!(read.len() < fields.len());
            prop_assert_eq!(&read[..], &fields[..read.len()]);
        }
    }

    #[test]
    fn requests_survive_the_whole_way(
        path in "/[a-z0-9/._~-]{0,30}(\\?[a-z0-9=&]{0,20})?",
        authority in "[a-z][a-z0-9.-]{0,20}(:[1-9][0-9]{0,3})?",
        names in vec(("x-[a-z]{1,10}", "[ -~]{0,30}"), 0..8),
    ) {
        let mut head = http::Request::new(());
        *head.method_mut() = http::Method::CONNECT;
        *head.uri_mut() = format!("https://{authority}{path}").parse().expect("a URI");
        for (name, value) in &names {
            let name: http::HeaderName = name.parse().expect("a name");
            head.headers_mut().append(name, value.parse().expect("a value"));
        }
        let stream = StreamId::from_u64(0);
        let mut block = BytesMut::new();
        Encoder::new().encode(stream, headers::encode_request(&head, Some("webtransport")).expect("legal"), &mut block);
        let section = Decoder::new().decode(stream, block.freeze(), 1 << 16).expect("own section");
        let fields = section.fields().expect("no table");
        let decoded = headers::decode_request(fields.clone()).expect("own request");
        prop_assert_eq!(decoded.head.uri(), head.uri());
        prop_assert_eq!(decoded.head.headers(), head.headers());
        prop_assert_eq!(decoded.protocol.as_deref(), Some("webtransport"));
        // The same fields backwards put a pseudo-header field last.
        let mut backwards = fields;
        backwards.reverse();
        let crime = headers::decode_request(backwards).err();
        prop_assert_eq!(crime, (!names.is_empty()).then_some(HeaderError::LatePseudo));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn qpack_in_any_order(capacity in any::<u8>(), blocked in 0..4u8, script in vec(any::<u8>(), 0..1000)) {
        testing::qpack_pair(&[&[capacity, blocked][..], &script].concat());
    }

    #[test]
    fn qpack_of_any_peer(script in vec(any::<u8>(), 0..300)) {
        testing::qpack_streams(&script);
    }
}
