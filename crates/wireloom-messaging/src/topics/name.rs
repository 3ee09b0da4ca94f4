//! Names of topics, and of signals and requests about them.

use std::sync::Arc;

use super::position::MAX_OFFSET;
use crate::codec::is_printable;

/// The longest name of a topic, in bytes: with everything in front of it, it fits into the name of a message.
pub const MAX_TOPIC_NAME: usize = 200;

/// The longest key of a publication, in bytes.
pub const MAX_KEY: usize = 64;

/// The name of a topic: 1 to 200 bytes of printable ASCII. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

/// What was given is no name of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a topic is 1 to 200 printable ASCII characters")]
pub struct InvalidTopicName;

impl TopicName {
    /// Takes a name.
    ///
    /// # Errors
    /// It is empty, longer than 200 bytes, or has characters other than printable ASCII.
    pub fn new(name: &str) -> Result<Self, InvalidTopicName> {
        Self::from_bytes(name.as_bytes())
    }

    pub(crate) fn from_bytes(name: &[u8]) -> Result<Self, InvalidTopicName> {
        if name.is_empty() || name.len() > MAX_TOPIC_NAME || !is_printable(name) {
            return Err(InvalidTopicName);
        }
        let name = std::str::from_utf8(name).map_err(|_| InvalidTopicName)?;
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TopicName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for TopicName {
    type Error = InvalidTopicName;

    fn try_from(name: &str) -> Result<Self, InvalidTopicName> {
        Self::new(name)
    }
}

/// Whether it may be the key of a publication: at most 64 characters of `A-Z a-z 0-9 _ -`.
pub(crate) fn is_key(key: &[u8]) -> bool {
    key.len() <= MAX_KEY
        && key
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The offset of a message as its name has it: in decimal, without a sign or zeros in front. No message has offset 0.
#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "servers write them only"))]
pub(crate) fn parse_offset(digits: &[u8]) -> Option<u64> {
    if !digits.first().is_some_and(|first| matches!(first, b'1'..=b'9')) {
        return None;
    }
    let offset = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (offset <= MAX_OFFSET).then_some(offset)
}

/// What a message whose name begins with `$` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About<'a> {
    Subscribe(&'a [u8]),
    Unsubscribe(&'a [u8]),
    Publish {
        key: &'a [u8],
        topic: &'a [u8],
    },
    Presence(&'a [u8]),
    /// Server to client.
    Message {
        offset: &'a [u8],
        topic: &'a [u8],
    },
    Reset(&'a [u8]),
}

impl<'a> About<'a> {
    /// Reads a name; the parts are not checked yet. `None`: it is none of those.
    pub(crate) fn parse(name: &'a [u8]) -> Option<Self> {
        let (verb, rest) = split(name.strip_prefix(b"$")?)?;
        Some(match verb {
            b"subscribe" => Self::Subscribe(rest),
            b"unsubscribe" => Self::Unsubscribe(rest),
            b"presence" => Self::Presence(rest),
            b"reset" => Self::Reset(rest),
            b"publish" => {
                let (key, topic) = split(rest)?;
                Self::Publish { key, topic }
            }
            b"message" => {
                let (offset, topic) = split(rest)?;
                Self::Message { offset, topic }
            }
            _ => return None,
        })
    }
}

fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = name.iter().position(|byte| *byte == b'/')?;
    Some((&name[..at], &name[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_topics() {
        assert!(TopicName::new("a").is_ok());
        assert!(TopicName::new("rooms/kitchen $ ~").is_ok());
        assert!(TopicName::new(&"x".repeat(200)).is_ok());
        for bad in ["", &"x".repeat(201), "tab\t", "é", "\x7f"] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys() {
        assert!(is_key(b"") && is_key(b"Az09_-") && is_key(&[b'k'; 64]));
        assert!(!is_key(&[b'k'; 65]) && !is_key(b"a b") && !is_key(b"a/") && !is_key("é".as_bytes()));
    }

    #[test]
    fn offsets() {
        assert_eq!(parse_offset(b"1"), Some(1));
        assert_eq!(parse_offset(b"9007199254740991"), Some(MAX_OFFSET));
        for bad in [
            &b""[..],
            b"0",
            b"01",
            b"+1",
            b"-1",
            b"1.0",
            b"1 ",
            b"9007199254740992",
            b"99999999999999999999",
        ] {
            assert_eq!(parse_offset(bad), None);
        }
    }

    #[test]
    fn a_topic_is_the_last_part_and_may_hold_slashes() {
        assert_eq!(About::parse(b"$subscribe/a/b"), Some(About::Subscribe(b"a/b")));
        let (key, topic) = (&b""[..], &b"a/b"[..]);
        assert_eq!(About::parse(b"$publish//a/b"), Some(About::Publish { key, topic }));
        let offset = &b"17"[..];
        assert_eq!(About::parse(b"$message/17/a/b"), Some(About::Message { offset, topic }));
        for other in [
            &b""[..],
            b"subscribe/a",
            b"$",
            b"$subscribe",
            b"$publish/key",
            b"$nothing/a",
        ] {
            assert_eq!(About::parse(other), None);
        }
    }
}
