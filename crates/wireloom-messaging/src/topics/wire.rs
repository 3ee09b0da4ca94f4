//! What stands in the payloads of messages about topics: JSON, as `docs/topics.md` says.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::position::{Epoch, Position};

/// The application refuses.
pub const TOPIC_FORBIDDEN: &str = "TOPIC_FORBIDDEN";
/// Name, key or payload are not as they have to be.
pub const TOPIC_INVALID: &str = "TOPIC_INVALID";
/// Too many subscriptions, or too large.
pub const TOPIC_LIMIT: &str = "TOPIC_LIMIT";
/// The broker cannot be reached. Trying again helps.
pub const TOPIC_UNAVAILABLE: &str = "TOPIC_UNAVAILABLE";
/// There is no such subscription.
pub const TOPIC_NOT_SUBSCRIBED: &str = "TOPIC_NOT_SUBSCRIBED";

/// The largest `info`, in bytes of JSON.
pub const MAX_INFO: usize = 1024;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SubscribeRequest {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) since: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) history: Option<HistoryRequest>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(crate) presence: bool,
    /// Absent: as it was. `null`: no more.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "present")]
    pub(crate) join: Option<Box<RawValue>>,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HistoryRequest {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) age_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SubscribeReply {
    // Not a flattened `Position`: what serde flattens cannot hold raw JSON.
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
    pub(crate) from: u64,
    #[serde(default)]
    pub(crate) recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) here: Option<Vec<Present>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct PresenceRequest {
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "present")]
    pub(crate) join: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PresenceReply {
    pub(crate) here: Vec<Present>,
    /// How many are present, also those that had no room.
    #[serde(default)]
    pub(crate) count: usize,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct PresenceSignal {
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) join: Vec<Present>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) leave: Vec<String>,
}

#[cfg(feature = "server")]
impl PresenceSignal {
    pub(crate) fn is_empty(&self) -> bool {
        self.join.is_empty() && self.leave.is_empty()
    }

    /// In JSON, in as many pieces of at most `room` bytes as it takes. What does not fit into one by itself is left out.
    pub(crate) fn pieces(&self, room: usize) -> Vec<String> {
        const FRAME: usize = r#"{"join":[],"leave":[]}"#.len();
        let mut pieces = Vec::new();
        let (mut piece, mut size) = (Self::default(), FRAME);
        let mut end = |piece: &mut Self, size: &mut usize| {
            if !piece.is_empty() {
                pieces.extend(serde_json::to_string(piece));
                *piece = Self::default();
            }
            *size = FRAME;
        };
        for who in &self.join {
            if size + who.size() > room {
                end(&mut piece, &mut size);
            }
            if size + who.size() <= room {
                size += who.size();
                piece.join.push(who.clone());
            }
        }
        for id in &self.leave {
            let len = id.len() + 3;
            if size + len > room {
                end(&mut piece, &mut size);
            }
            if size + len <= room {
                size += len;
                piece.leave.push(id.clone());
            }
        }
        end(&mut piece, &mut size);
        pieces
    }
}

/// Somebody who is present.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Present {
    /// Public: the same for all connections of a session, otherwise the connection's own.
    pub id: String,
    /// What they joined with: any JSON of at most 1 KiB.
    pub info: Box<RawValue>,
}

impl Present {
    /// Somebody.
    pub fn new(id: impl Into<String>, info: Box<RawValue>) -> Self {
        Self { id: id.into(), info }
    }

    /// Reads what they joined with.
    ///
    /// # Errors
    /// It is no JSON of that type.
    pub fn parse_info<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.info.get())
    }

    /// About how many bytes it takes in JSON.
    #[cfg(feature = "server")]
    pub(crate) fn size(&self) -> usize {
        Self::size_of(&self.id, &self.info)
    }

    #[cfg(feature = "server")]
    pub(crate) fn size_of(id: &str, info: &RawValue) -> usize {
        id.len() + info.get().len() + r#"{"id":"","info":},"#.len()
    }

    /// Answers of one after the other whether they fit into so many bytes together.
    #[cfg(feature = "server")]
    fn fit(mut bytes: usize) -> impl FnMut(&str, &RawValue) -> bool {
        move |id, info| {
            let left = bytes.checked_sub(Self::size_of(id, info));
            bytes = left.unwrap_or(bytes);
            left.is_some()
        }
    }

    /// How many of the first fit into so many bytes.
    #[cfg(feature = "server")]
    pub(crate) fn fitting(present: &[Self], bytes: usize) -> usize {
        let mut fits = Self::fit(bytes);
        present.iter().take_while(|who| fits(&who.id, &who.info)).count()
    }

    /// Copies of the first that fit into so many bytes.
    #[cfg(feature = "server")]
    pub(crate) fn first<'a>(present: impl Iterator<Item = (&'a String, &'a RawValue)>, bytes: usize) -> Vec<Self> {
        let mut fits = Self::fit(bytes);
        present
            .take_while(|(id, info)| fits(id, info))
            .map(|(id, info)| Self::new(id.clone(), info.to_owned()))
            .collect()
    }
}

impl PartialEq for Present {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.info.get() == other.info.get()
    }
}

/// A member that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// An object in JSON, which may be left out. `None`: it is something else.
#[cfg(feature = "server")]
pub(crate) fn parse<T: Default + serde::de::DeserializeOwned>(data: &crate::Data) -> Option<T> {
    if data.bytes.is_empty() {
        return Some(T::default());
    }
    let text = data.text().ok()?;
    // serde takes arrays for structures, too.
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_null_is_there() {
        let request: SubscribeRequest = serde_json::from_str(r#"{"join":null}"#).expect("JSON");
        assert_eq!(request.join.as_deref().map(RawValue::get), Some("null"));
        let request: SubscribeRequest = serde_json::from_str(r#"{"more":1}"#).expect("JSON");
        assert!(request.join.is_none() && request.since.is_none() && !request.presence);
    }

    #[cfg(feature = "server")]
    #[test]
    fn presence_in_pieces_that_fit() {
        let info = || RawValue::from_string(r#"{"name":"somebody"}"#.to_owned()).expect("JSON");
        let signal = PresenceSignal {
            join: (0..50).map(|n| Present::new(format!("id{n}"), info())).collect(),
            leave: (0..50).map(|n| format!("gone{n}")).collect(),
        };
        let pieces = signal.pieces(300);
        let mut again = PresenceSignal::default();
        for piece in &pieces {
            assert!(piece.len() <= 300, "{piece}");
            let piece: PresenceSignal = serde_json::from_str(piece).expect("JSON");
            again.join.extend(piece.join);
            again.leave.extend(piece.leave);
        }
        assert!(pieces.len() > 5);
        assert_eq!((again.join, again.leave), (signal.join, signal.leave));
    }

    #[test]
    fn a_reply_is_flat_and_keeps_infos_as_they_are() {
        let json = r#"{"epoch":"e","offset":7,"from":3,"recovered":true,"here":[{"id":"a","info":{"n":[1]}}]}"#;
        let reply: SubscribeReply = serde_json::from_str(json).expect("JSON");
        assert_eq!((reply.offset, reply.from), (7, 3));
        assert_eq!(serde_json::to_string(&reply).expect("JSON"), json);
    }
}
