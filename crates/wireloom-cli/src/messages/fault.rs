//! What is wrong with a message, for `wireloom decode`: the codec itself only says that something is.

/// Reads the parts of a message one after the other.
struct Parts<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Parts<'a> {
    fn rest(&self) -> &'a [u8] {
        self.message.get(self.at..).unwrap_or_default()
    }

    /// A part of this many bytes.
    fn take(&mut self, length: usize, name: &str) -> Result<&'a [u8], String> {
        let at = self.at;
        let rest = self.rest();
        let part = rest.get(..length).ok_or_else(|| match rest.len() {
            0 => format!("the {name} is missing: the message ends at offset {at}"),
            left => format!("the {name} at offset {at} is cut: it has {left} of {length} bytes"),
        })?;
        self.at += length;
        Ok(part)
    }

    /// A part behind a byte that tells its length.
    fn counted(&mut self, name: &str) -> Result<&'a [u8], String> {
        let length = self.take(1, &format!("length of the {name}"))?[0];
        self.take(length.into(), name)
    }

    /// A part that is all the rest, and not empty.
    fn some(&self, name: &str) -> Result<(), String> {
        match self.rest() {
            [] => Err(format!("the {name} is missing: the message ends at offset {}", self.at)),
            _ => Ok(()),
        }
    }

    fn end(&self, last: &str) -> Result<(), String> {
        match self.rest() {
            [] => Ok(()),
            _ => Err(format!(
                "nothing may follow the {last}, and the message goes on at offset {}",
                self.at
            )),
        }
    }

    /// A UTF-16 payload.
    fn utf16(&self) -> Result<(), String> {
        match self.rest().len() {
            length if length.is_multiple_of(2) => Ok(()),
            length => Err(format!(
                "the payload at offset {} has the odd length {length}, which UTF-16 cannot have",
                self.at
            )),
        }
    }

    /// A name and what follows it; a UTF-16 payload begins at an even offset.
    fn named(&mut self, is_utf16: bool) -> Result<(), String> {
        let name = self.counted("name")?;
        if is_utf16 {
            self.take(name.len() % 2, "padding before the UTF-16 payload")?;
            self.utf16()?;
        }
        if name.is_empty() && self.rest().is_empty() {
            return Err("there is neither a name nor a payload".to_owned());
        }
        Ok(())
    }
}

/// Which part of a malformed message cannot be, and why: the first. Nothing if all of them can.
pub(super) fn of(message: &[u8]) -> Option<String> {
    parts(message).err()
}

fn parts(message: &[u8]) -> Result<(), String> {
    let mut parts = Parts { message, at: 0 };
    let kind = parts.take(1, "type")?[0];
    // Replies, requests, and the commands that are answered.
    if matches!(kind, 0..=5 | 31 | 32 | 127..=129 | 191..=193) {
        parts.take(8, "identifier")?;
    }
    match kind {
        0 => match parts.counted("error code")? {
            [] => Err("the error code is empty".to_owned()),
            _ => Ok(()),
        },
        21 => parts.some("session"),
        22 | 33 => parts.end("type"),
        23 => {
            for (length, name) in [
                (1, "major version"),
                (1, "minor version"),
                (4, "read timeout"),
                (4, "message buffer size"),
            ] {
                parts.take(length, name)?;
            }
            Ok(())
        }
        31 => parts.end("identifier"),
        32 => parts.some("session key"),
        63 | 64 | 127 | 128 => parts.named(false),
        65 => {
            parts.named(true)?;
            // Other than a request, it needs one.
            parts.some("payload")
        }
        129 => parts.named(true),
        193 => {
            parts.take(1, "padding before the UTF-16 payload")?;
            parts.utf16()
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use wireloom_messaging::codec::{DecodeError, Message};

    use super::of;

    /// Whatever the codec calls malformed has a reason, and nothing else.
    #[test]
    fn as_strict_as_the_codec() {
        for kind in 0..=u8::MAX {
            for length in 1..=16 {
                for count in [0, 1, 2, 3, 4, 5, 6, 7, 255] {
                    let mut message = vec![count; length];
                    message[0] = kind;
                    let is_malformed = Message::decode(&message) == Err(DecodeError::Malformed);
                    assert_eq!(of(&message).is_some(), is_malformed, "{message:?}: {:?}", of(&message));
                }
            }
        }
    }
}
