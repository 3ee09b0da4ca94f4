//! Entry points of the fuzz targets, which the corpus replay and the property tests share.
//!
//! Each takes any bytes and panics where a property that its comment names does not hold. Behind the feature `__testing`;
//! may change or vanish at any time.

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
