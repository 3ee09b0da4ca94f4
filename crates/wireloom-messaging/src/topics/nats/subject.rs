//! Names of topics as tokens of NATS subjects and keys.

use crate::topics::TopicName;

/// Letters, digits and `-` as they are, anything else as `_` and two hexadecimal digits: one token, without `.`, `*` and `>`.
pub(super) fn token(topic: &TopicName) -> String {
    let mut token = String::with_capacity(topic.as_str().len() + 8);
    for byte in topic.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("_{byte:02x}"));
        }
    }
    token
}

/// The inverse of [`token`]; `None` if it is none.
pub(super) fn topic(token: &str) -> Option<TopicName> {
    let mut name = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'_' {
            name.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
    }
    TopicName::from_bytes(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for name in ["a", "rooms/kitchen.1", "*", ">", "$ _~", "A-z 09"] {
            let name = TopicName::new(name).expect("a name");
            let token = token(&name);
            assert!(
                token
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')),
                "{token}"
            );
            assert_eq!(topic(&token), Some(name));
        }
        assert_eq!(topic("_zz"), None);
        assert_eq!(topic("_2"), None);
        assert_eq!(topic(""), None);
    }
}
