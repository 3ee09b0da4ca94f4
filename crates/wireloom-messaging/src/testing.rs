//! Entry points of the fuzz targets, which the corpus replay and the property tests share.
//!
//! Each takes any bytes and panics where a property that its comment names does not hold. Behind the feature `__testing`;
//! may change or vanish at any time.

#[cfg(all(feature = "server", feature = "client"))]
pub use self::of_topics::topics;
use crate::codec::{DecodeError, Message, is_printable};

/// The verdict of section 6.2, written from its table and not from the decoder.
pub fn verdict(d: &[u8]) -> Result<(), DecodeError> {
    let len = d.len();
    let Some(&kind) = d.first() else {
        return Err(DecodeError::Unknown);
    };
    let at = |i: usize| d.get(i).map_or(usize::MAX / 4, |b| usize::from(*b));
    let accept = match kind {
        0 => len >= 11 && at(9) >= 1 && len >= 10 + at(9),
        1..=5 => len >= 9,
        21 => len >= 2,
        22 | 33 => len == 1,
        23 => len >= 11,
        31 => len == 9,
        32 => len >= 10,
        63 | 64 => len >= 3 && len >= 2 + at(1),
        65 => len >= 4 && len.is_multiple_of(2) && len >= 4 + at(1) + at(1) % 2,
        127 | 128 => len >= 11 && len >= 10 + at(9),
        129 => {
            len >= 11
                && len.is_multiple_of(2)
                && (at(9) == 0 || len >= 10 + at(9) + usize::from(at(9) % 2 == 1 && len > 10 + at(9)))
        }
        191 | 192 => len >= 9,
        193 => len >= 10 && len.is_multiple_of(2),
        _ => return Err(DecodeError::Unknown),
    };
    if accept { Ok(()) } else { Err(DecodeError::Malformed) }
}

/// Messages: the verdict is that of the table; what is decoded is encoded to the same bytes, but for what receivers ignore,
/// and decoded again to the same message; whatever text there is can be taken.
pub fn webwire_message(data: &[u8]) {
    let decoded = Message::decode(data);
    assert_eq!(decoded.map(drop), verdict(data));
    let Ok(message) = decoded else { return };
    assert_eq!(message.kind(), data[0]);
    if let Message::Signal { payload, .. } | Message::Request { payload, .. } | Message::Reply { payload, .. } = message
    {
        let _ = payload.text();
    }
    let mut again = vec![0xaa];
    match message.encode(&mut again) {
        Ok(()) => {
            let again = &again[1..];
            assert_eq!(again.len(), message.encoded_len());
            assert_eq!(Message::decode(again), Ok(message));
            // Padding has a value of its own, special replies a tail.
            let different = again.iter().zip(data).filter(|(a, b)| a != b).count();
            assert!(different <= 1);
            assert!(again.len() == data.len() || (matches!(data[0], 1..=5) && again.len() == 9));
        }
        Err(_) => {
            // Only for names and codes that may be received and not sent.
            let odd = match message {
                Message::Signal { name, .. } | Message::Request { name, .. } => !is_printable(name.as_bytes()),
                Message::ReplyError { code, .. } => !is_printable(code),
                _ => false,
            };
            assert!(odd, "{message:?}");
            assert_eq!(again, [0xaa]);
        }
    }
}

#[cfg(all(feature = "server", feature = "client"))]
mod of_topics {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::Data;
    use crate::client::Sequence;
    use crate::topics::wire::{
        PresenceReply, PresenceRequest, PresenceSignal, SubscribeReply, SubscribeRequest, parse,
    };
    use crate::topics::{About, Epoch, MAX_KEY, MAX_OFFSET, MAX_TOPIC_NAME, Position, TopicName, is_key, parse_offset};

    /// Names of topics, keys, and names and payloads of messages about topics: what is parsed is encoded to the same again. The
    /// same bytes as a script: a subscription hands out messages in order, each once, whatever the server does.
    pub fn topics(data: &[u8]) {
        topic_name(data);
        message_name(data);
        if let Ok(text) = std::str::from_utf8(data) {
            payloads(text);
        }
        subscription(data);
    }

    fn topic_name(name: &[u8]) {
        let is_printable = name.iter().all(|byte| (0x20..0x7f).contains(byte));
        let expected = is_printable && (1..=MAX_TOPIC_NAME).contains(&name.len());
        let parsed = TopicName::from_bytes(name);
        assert_eq!(parsed.is_ok(), expected);
        if let Ok(parsed) = parsed {
            assert_eq!(parsed.as_str().as_bytes(), name);
            assert_eq!(TopicName::new(parsed.as_str()), Ok(parsed));
        }
        if let Ok(text) = std::str::from_utf8(name) {
            let epoch = Epoch::new(text);
            let expected = is_printable && (1..=32).contains(&name.len());
            assert_eq!(epoch.as_ref().ok().map(Epoch::as_str), expected.then_some(text));
        }
        if is_key(name) {
            assert!(name.len() <= MAX_KEY && !name.contains(&b'/'));
        }
        if let Some(offset) = parse_offset(name) {
            assert!((1..=MAX_OFFSET).contains(&offset));
            assert_eq!(offset.to_string().as_bytes(), name);
        }
    }

    fn message_name(name: &[u8]) {
        let Some(about) = About::parse(name) else { return };
        let parts: &[&[u8]] = match about {
            About::Subscribe(topic) => &[b"$subscribe", topic],
            About::Unsubscribe(topic) => &[b"$unsubscribe", topic],
            About::Presence(topic) => &[b"$presence", topic],
            About::Reset(topic) => &[b"$reset", topic],
            About::Publish { key, topic } => &[b"$publish", key, topic],
            About::Message { offset, topic } => &[b"$message", offset, topic],
        };
        assert_eq!(parts.join(&b'/'), name);
        for part in &parts[1..] {
            topic_name(part);
        }
    }

    fn payloads(text: &str) {
        request::<SubscribeRequest>(text);
        request::<PresenceRequest>(text);
        same_again::<SubscribeReply>(text);
        same_again::<PresenceReply>(text);
        same_again::<Position>(text);
        if let Some(signal) = same_again::<PresenceSignal>(text) {
            pieces(&signal, text.len() / 2);
        }
    }

    /// What a client asks: also what is nothing is parsed, and what is no object is not.
    fn request<T: Serialize + DeserializeOwned + Default>(text: &str) {
        let parsed: Option<T> = parse(&Data::from(text));
        assert_eq!(parsed.is_some(), parse::<T>(&Data::utf16(text)).is_some());
        let lenient: Option<T> = same_again(text);
        if parsed.is_some() {
            assert!(text.is_empty() || lenient.is_some());
        } else {
            assert!(lenient.is_none() || !text.trim_start().starts_with('{'));
        }
    }

    fn same_again<T: Serialize + DeserializeOwned>(text: &str) -> Option<T> {
        let json = |value: &T| serde_json::to_string(value).expect("what was parsed can be written");
        let value: T = serde_json::from_str(text).ok()?;
        let written = json(&value);
        let again: T = serde_json::from_str(&written).expect("what was written can be parsed");
        assert_eq!(json(&again), written);
        Some(value)
    }

    /// No piece is too large, and nothing is missing but what is too large by itself.
    fn pieces(signal: &PresenceSignal, room: usize) {
        let ids = signal.join.iter().map(|who| &who.id).chain(&signal.leave);
        // Those that servers make need no escapes.
        if !ids
            .into_iter()
            .all(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        {
            return;
        }
        let mut again = PresenceSignal::default();
        for piece in signal.pieces(room) {
            assert!(piece.len() <= room, "{} > {room}", piece.len());
            let piece: PresenceSignal = serde_json::from_str(&piece).expect("JSON");
            assert!(!piece.is_empty());
            again.join.extend(piece.join);
            again.leave.extend(piece.leave);
        }
        let frame = r#"{"join":[],"leave":[]}"#.len();
        let joined = signal.join.iter().filter(|who| frame + who.size() <= room);
        assert!(joined.eq(&again.join));
        let left = signal.leave.iter().filter(|id| frame + id.len() + 3 <= room);
        assert!(left.eq(&again.leave));
    }

    /// Each pair of bytes is something that the server does, right or wrong.
    fn subscription(script: &[u8]) {
        let mut sequence = Sequence::new(0, 0);
        let mut before = 0;
        let offset = |code: u8| match code {
            // Both ends of what there is, and a little.
            255 => u64::MAX,
            254 => u64::MAX - 1,
            253 => MAX_OFFSET,
            code => u64::from(code),
        };
        for pair in script.chunks_exact(2) {
            let number = offset(pair[1]);
            match pair[0] % 8 {
                0 => {
                    sequence.begin(number, offset(pair[0]), true);
                    assert!(sequence.last() >= before);
                }
                1 => {
                    sequence.begin(number, offset(pair[0]), false);
                    assert_eq!(sequence.last(), number);
                }
                2 => sequence.hold(sequence.last().saturating_add(number), Data::binary(vec![pair[1]])),
                _ => sequence.hold(number, Data::binary(vec![pair[1]])),
            }
            before = sequence.last();
            while let Some((offset, _)) = sequence.next() {
                assert_eq!(offset - 1, before);
                assert_eq!(offset, sequence.last());
                before = offset;
            }
            if sequence.is_broken() {
                assert!(sequence.next().is_none());
            }
        }
    }
}
