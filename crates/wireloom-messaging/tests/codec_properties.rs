//! Properties of the codec over random messages and random bytes.

use proptest::prelude::*;
use wireloom_messaging::codec::{
    AcceptConf, EncodeError, Encoding, Message, Name, Payload, RequestId, decode_utf16, encode_utf16,
};
use wireloom_messaging::testing;

/// A small generator of our own, so that a million messages take seconds.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A million messages, most of a known type with plausible lengths, get the verdict of section 6.2 and never panic.
#[test]
fn random_messages() {
    const KINDS: [u8; 21] = [
        0, 1, 2, 3, 4, 5, 21, 22, 23, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193,
    ];
    let mut random = Random(2026);
    let mut accepted = 0;
    let mut message = Vec::new();
    for _ in 0..1_000_000 {
        message.clear();
        let len = match random.below(4) {
            0 => random.below(14),
            1 => 8 + random.below(6),
            2 => random.below(40),
            _ => random.below(300),
        };
        message.extend(std::iter::repeat_with(|| random.next() as u8).take(len));
        if random.below(8) > 0
            && let Some(first) = message.first_mut()
        {
            *first = KINDS[random.below(KINDS.len())];
        }
        // A length byte near the truth, where there may be one.
        for at in [1, 9] {
            if random.below(2) == 0
                && let Some(n) = message.get_mut(at)
            {
                *n = (len as u8).wrapping_sub(random.below(16) as u8);
            }
        }
        accepted += usize::from(testing::verdict(&message).is_ok());
        testing::webwire_message(&message);
    }
    assert!((300_000..900_000).contains(&accepted), "{accepted} is no mix");
}

fn printable(max: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(32u8..=126, 0..=max).prop_map(|b| b.into_iter().map(char::from).collect())
}

fn payload() -> impl Strategy<Value = (Encoding, Vec<u8>)> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80).prop_map(|b| (Encoding::Binary, b)),
        ".{0,40}".prop_map(|t| (Encoding::Utf8, t.into_bytes())),
        ".{0,40}".prop_map(|t| {
            let mut out = Vec::new();
            encode_utf16(&t, &mut out);
            (Encoding::Utf16, out)
        }),
    ]
}

proptest! {
    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        testing::webwire_message(&data);
    }

    #[test]
    fn signals_and_requests_round_trip(id in any::<[u8; 8]>(), name in printable(255), (encoding, bytes) in payload()) {
        let id = RequestId(id);
        let name = Name::new(&name).expect("printable");
        let payload = Payload { encoding, bytes: &bytes };
        let reply = Message::Reply { id, payload };
        let bytes = reply.to_vec().expect("a reply");
        prop_assert_eq!(Message::decode(&bytes), Ok(reply));
        for message in [Message::Request { id, name, payload }, Message::Signal { name, payload }] {
            match message.to_vec() {
                Ok(bytes) => {
                    prop_assert_eq!(Message::decode(&bytes), Ok(message));
                    prop_assert_eq!(bytes.len(), message.encoded_len());
                    testing::webwire_message(&bytes);
                    if encoding == Encoding::Utf16 {
                        prop_assert_eq!(bytes.len() % 2, 0);
                    }
                }
                Err(EncodeError::Empty) => prop_assert!(name.is_empty() && payload.is_empty()),
                Err(EncodeError::EmptyUtf16Signal) => {
                    prop_assert!(payload.is_empty() && encoding == Encoding::Utf16);
                    prop_assert!(matches!(message, Message::Signal { .. }), "only a signal is refused");
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn the_rest_round_trips(id in any::<[u8; 8]>(), code in printable(255), text in ".{0,60}", a in any::<u32>(), b in any::<u32>()) {
        let id = RequestId(id);
        let text = text.as_bytes();
        for message in [
            Message::ReplyError { id, code: code.as_bytes(), message: text },
            Message::SessionCreated { session: text },
            Message::RestoreSession { id, key: text },
            Message::AcceptConf(AcceptConf::new(a, b).with_sub_protocol(text)),
            Message::CloseSession { id },
            Message::ReplyShutdown { id },
        ] {
            match message.to_vec() {
                Ok(bytes) => prop_assert_eq!(Message::decode(&bytes), Ok(message)),
                Err(EncodeError::Empty) => prop_assert!(text.is_empty()),
                Err(error) => prop_assert!(error == EncodeError::ErrorCode && code.is_empty()),
            }
        }
    }

    #[test]
    fn text_survives_utf16(text in any::<String>()) {
        let mut units = Vec::new();
        encode_utf16(&text, &mut units);
        prop_assert_eq!(decode_utf16(&units), Ok(text));
    }
}

#[test]
fn what_peers_would_refuse_is_not_sent() {
    let id = RequestId::from_u64(1);
    let long = "n".repeat(256);
    assert_eq!(Name::new(&long), Err(EncodeError::NameTooLong));
    assert_eq!(Name::new("é"), Err(EncodeError::NameCharacters));
    assert_eq!(Name::new("\n"), Err(EncodeError::NameCharacters));
    let empty = Message::Request {
        id,
        name: Name::EMPTY,
        payload: Payload::EMPTY,
    };
    assert_eq!(empty.to_vec(), Err(EncodeError::Empty));
    let name = Name::new("n").expect("a name");
    let odd = Message::Reply {
        id,
        payload: Payload::utf16(b"odd"),
    };
    assert_eq!(odd.to_vec(), Err(EncodeError::OddUtf16));
    let nothing = Message::Signal {
        name,
        payload: Payload::utf16(b""),
    };
    assert_eq!(nothing.to_vec(), Err(EncodeError::EmptyUtf16Signal));
    for code in ["", "é", &long] {
        let error = Message::ReplyError {
            id,
            code: code.as_bytes(),
            message: b"",
        };
        assert_eq!(error.to_vec(), Err(EncodeError::ErrorCode), "{code}");
    }
}
