//! Where in a topic one is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The largest offset: below 2^53, so that every client's numbers hold it.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

/// What changes when the offsets of a topic begin anew, because its history was lost: 1 to 32 characters that mean nothing else.
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(Arc<str>);

/// What was given is no epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is 1 to 32 printable ASCII characters")]
pub struct InvalidEpoch;

impl Epoch {
    /// Takes an epoch.
    ///
    /// # Errors
    /// It is not 1 to 32 printable ASCII characters.
    pub fn new(epoch: &str) -> Result<Self, InvalidEpoch> {
        if epoch.is_empty() || epoch.len() > 32 || !crate::codec::is_printable(epoch.as_bytes()) {
            return Err(InvalidEpoch);
        }
        Ok(Self(epoch.into()))
    }

    /// One that nobody else makes: 64 random bits.
    #[cfg(feature = "server")]
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        Ok(Self(format!("{:016x}", getrandom::u64()?).into()))
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Epoch {
    type Error = InvalidEpoch;

    fn try_from(epoch: String) -> Result<Self, InvalidEpoch> {
        Self::new(&epoch)
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.0.as_ref().to_owned()
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything of a topic up to and including an offset. Offset 0 is before the first message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Of which history.
    pub epoch: Epoch,
    /// Grows by 1 with each message that is kept; below 2^53.
    pub offset: u64,
}

impl Position {
    /// A position.
    pub fn new(epoch: Epoch, offset: u64) -> Self {
        Self { epoch, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_in_json() {
        let position: Position = serde_json::from_str(r#"{"offset":7,"epoch":"e","more":[]}"#).expect("a position");
        assert_eq!((position.epoch.as_str(), position.offset), ("e", 7));
        assert_eq!(
            serde_json::to_string(&position).expect("JSON"),
            r#"{"epoch":"e","offset":7}"#
        );
        let long = format!(r#"{{"epoch":"{}","offset":1}}"#, "e".repeat(33));
        for bad in [r#"{"epoch":"","offset":1}"#, r#"{"epoch":"e","offset":-1}"#, &long] {
            assert!(serde_json::from_str::<Position>(bad).is_err(), "{bad}");
        }
    }
}
