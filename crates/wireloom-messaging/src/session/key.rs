//! Session keys: secrets that whoever knows them becomes.

use std::fmt;
use std::sync::Arc;

/// A session's key: 1 to 255 characters of `A-Z a-z 0-9 - _` (section 9.7), so that it is safe in a file name and in a URL.
///
/// Printing one for debugging shows its beginning only. Equality takes as long as it takes: keys are found by a keyed hash, never
/// by comparing one secret with a guess.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(Arc<str>);

/// What was sent is no key that any session can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session key has 1 to 255 characters of A-Z a-z 0-9 - _")]
pub struct InvalidKey;

impl SessionKey {
    /// The longest key, in bytes.
    pub const MAX_LENGTH: usize = 255;
    /// Bytes of randomness in a key of [`generate`](Self::generate): 64 characters.
    const ENTROPY: usize = 48;

    /// A new key: 48 bytes of the operating system's generator as 64 characters of unpadded base64url (section 9.1).
    ///
    /// # Errors
    /// Fails where the operating system has no randomness to give. There is no fallback.
    pub fn generate() -> std::io::Result<Self> {
        let mut random = [0; Self::ENTROPY];
        getrandom::fill(&mut random)?;
        Ok(Self(base64url(&random).into()))
    }

    /// Takes what a peer or an application calls a key.
    ///
    /// # Errors
    /// [`InvalidKey`] for other lengths and characters. No such session exists, so a server answers that it was not found.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if bytes.is_empty() || bytes.len() > Self::MAX_LENGTH || !bytes.iter().all(fits) {
            return Err(InvalidKey);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidKey)?;
        Ok(Self(text.into()))
    }

    /// The key itself, to be sent or stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.len().min(6) / 2;
        write!(f, "SessionKey({}…)", &self.0[..shown])
    }
}

/// RFC 4648 section 5. The length is a multiple of three, so that there is no padding to leave out.
fn base64url(bytes: &[u8; SessionKey::ENTROPY]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let groups = bytes.chunks_exact(3);
    let characters = groups.flat_map(|group| {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    });
    characters.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn generated_keys_are_64_characters_and_differ() {
        let keys: HashSet<SessionKey> = (0..1000).map(|_| SessionKey::generate().expect("randomness")).collect();
        assert_eq!(keys.len(), 1000);
        for key in &keys {
            assert_eq!(key.as_str().len(), 64);
            assert_eq!(SessionKey::parse(key.as_str().as_bytes()).as_ref(), Ok(key));
        }
        // Each position takes more than a few of the 64 characters.
        for position in 0..64 {
            let seen: HashSet<u8> = keys.iter().map(|key| key.as_str().as_bytes()[position]).collect();
            assert!(seen.len() > 48, "position {position} takes {}", seen.len());
        }
    }

    #[test]
    fn the_alphabet_is_that_of_base64url() {
        let mut bytes = [0; SessionKey::ENTROPY];
        bytes[..6].copy_from_slice(&[0xfb, 0xff, 0xfe, 0x69, 0xb7, 0x1d]);
        assert!(base64url(&bytes).starts_with("-__-abcd"));
    }

    #[test]
    fn hostile_keys_are_no_keys() {
        let long = vec![b'a'; 1 << 20];
        for bytes in [
            &b""[..],
            b"../evil",
            b"a/b",
            b"a\\b",
            b"..",
            b"a.b",
            b"a\0b",
            b"a b",
            "ä".as_bytes(),
            b"\xff",
            &long,
            &long[..256],
        ] {
            assert_eq!(SessionKey::parse(bytes), Err(InvalidKey));
        }
        assert!(SessionKey::parse(&long[..255]).is_ok());
        assert!(SessionKey::parse(b"-_09azAZ").is_ok());
    }
}
