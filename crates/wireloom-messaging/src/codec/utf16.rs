//! Text to UTF-16 little-endian and back.

use super::TextError;

/// Text from UTF-16 little-endian. Pairs of surrogates become one character, a lone one becomes U+FFFD.
///
/// # Errors
/// An odd number of bytes.
pub fn decode_utf16(bytes: &[u8]) -> Result<String, TextError> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(TextError::OddUtf16);
    }
    Ok(char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit)))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect())
}

/// Appends `text` as UTF-16 little-endian.
pub fn encode_utf16(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() * 2);
    for unit in text.encode_utf16() {
        out.extend_from_slice(&unit.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode_utf16(text, &mut out);
        out
    }

    #[test]
    fn surrogates_are_paired() {
        assert_eq!(encoded("a😀"), [0x61, 0, 0x3d, 0xd8, 0, 0xde]);
        assert_eq!(decode_utf16(&encoded("a😀жü")).as_deref(), Ok("a😀жü"));
    }

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character() {
        assert_eq!(decode_utf16(&[0x3d, 0xd8, 0x61, 0]).as_deref(), Ok("\u{fffd}a"));
        assert_eq!(decode_utf16(&[0, 0xde]).as_deref(), Ok("\u{fffd}"));
    }

    #[test]
    fn an_odd_length_is_an_error() {
        assert_eq!(decode_utf16(&[0x61]), Err(TextError::OddUtf16));
        assert_eq!(decode_utf16(&[]).as_deref(), Ok(""));
    }
}
