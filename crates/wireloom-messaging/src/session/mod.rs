//! Sessions: who a connection belongs to, and what survives it (section 9 of the protocol).
//!
//! A [`Session`] is a secret key and what an application attaches to it. A [`SessionStore`] keeps sessions: [`FileStore`] in a
//! folder, over restarts; [`MemoryStore`] as long as the process. [`Sessions`] knows which connections use which session, so
//! that a limit holds and the last one that logs out destroys it.

mod file;
mod go_json;
mod key;
mod memory;
#[cfg(feature = "nats")]
mod nats;
mod registry;
mod store;
mod timestamp;

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Deserialize;

pub use self::file::FileStore;
pub use self::key::{InvalidKey, SessionKey};
pub use self::memory::MemoryStore;
#[cfg(feature = "nats")]
pub use self::nats::NatsStore;
pub use self::registry::{RestoreError, Sessions};
pub use self::store::{SessionStore, StoreError};

/// What an application attaches to a session: JSON values by name.
pub type SessionInfo = BTreeMap<String, serde_json::Value>;

/// A session as both ends know it (section 9.1).
///
/// The client learns all of it, the info included: keep in it what the user may see.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Session {
    /// The secret that restores it.
    pub key: SessionKey,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last looked up. In what a restoration answers, the time before this one.
    pub last_lookup: SystemTime,
    /// What the application attached.
    pub info: SessionInfo,
}

impl Session {
    /// A session that begins at `now`.
    pub fn new(key: SessionKey, info: SessionInfo, now: SystemTime) -> Self {
        Self {
            key,
            created: now,
            last_lookup: now,
            info,
        }
    }

    /// The object of section 9.2, with its members in the order that legacy peers write and times in UTC.
    ///
    /// Nothing attached leaves out `i`. As Go does, `<`, `>` and `&` are escaped and members are sorted at every depth.
    pub fn to_json(&self) -> String {
        let mut json = format!(
            r#"{{"k":{},"c":"{}","l":"{}""#,
            go_json::string(self.key.as_str()),
            timestamp::format(self.created),
            timestamp::format(self.last_lookup),
        );
        if !self.info.is_empty() {
            json.push_str(",\"i\":");
            go_json::object(&mut json, &self.info);
        }
        json.push('}');
        json
    }

    /// Reads the object of section 9.2: members in any order, unknown ones ignored.
    ///
    /// # Errors
    /// Fails for what is not such an object, and for a key that is not one of [`SessionKey::parse`].
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidSession> {
        #[derive(Deserialize)]
        struct Wire {
            k: String,
            c: String,
            #[serde(default)]
            l: Option<String>,
            #[serde(default)]
            i: Option<SessionInfo>,
        }
        let wire: Wire = serde_json::from_slice(json).map_err(|error| InvalidSession(error.to_string()))?;
        let time =
            |text: &str| timestamp::parse(text).ok_or_else(|| InvalidSession("a time is not RFC 3339".to_owned()));
        let created = time(&wire.c)?;
        Ok(Self {
            key: SessionKey::parse(wire.k.as_bytes()).map_err(|error| InvalidSession(error.to_string()))?,
            created,
            // Absent in the protocol's versions before 2.0.
            last_lookup: wire.l.as_deref().map_or(Ok(created), time)?,
            info: wire.i.unwrap_or_default(),
        })
    }
}

/// What a peer sent is not a session object. It never shows the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a session object: {0}")]
pub struct InvalidSession(String);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// V30 of vectors/webwire.json, without its type byte.
    const V30: &str = concat!(
        r#"{"k":"k1","c":"2019-01-15T11:29:22.123456789Z","l":"2019-01-15T11:29:22.123456789Z","#,
        r#""i":{"html":"\u003ca\u0026b\u003e","uid":7}}"#
    );

    fn v30() -> Session {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_547_551_762, 123_456_789);
        let info = [("uid".to_owned(), json!(7)), ("html".to_owned(), json!("<a&b>"))];
        Session::new(
            SessionKey::parse(b"k1").expect("a key"),
            info.into_iter().collect(),
            time,
        )
    }

    #[test]
    fn the_object_of_vector_30_both_ways() {
        assert_eq!(v30().to_json(), V30);
        assert_eq!(Session::from_json(V30.as_bytes()), Ok(v30()));
    }

    /// V31: no info, another zone, another fraction.
    #[test]
    fn the_object_of_vector_31() {
        let json = br#"{"k":"k1","c":"2019-01-15T11:29:22Z","l":"2019-01-15T12:29:22.123456789+01:00"}"#;
        let session = Session::from_json(json).expect("a session");
        assert_eq!(session.info, SessionInfo::new());
        assert_eq!(
            session.last_lookup.duration_since(session.created).ok(),
            Some(Duration::from_nanos(123_456_789))
        );
        assert_eq!(
            session.to_json(),
            r#"{"k":"k1","c":"2019-01-15T11:29:22Z","l":"2019-01-15T11:29:22.123456789Z"}"#
        );
    }

    /// Receivers accept any order and ignore unknown members (section 9.2).
    #[test]
    fn members_in_any_order_and_unknown_ones() {
        let json = br#"{"x":[1],"i":null,"l":"2019-01-15T11:29:22Z","c":"2019-01-15T11:29:22Z","k":"k1"}"#;
        assert!(Session::from_json(json).is_ok());
    }

    #[test]
    fn garbage_is_refused_without_showing_the_key() {
        for json in [
            &b""[..],
            b"{}",
            b"[]",
            b"\xff",
            br#"{"k":"k1","c":"yesterday","l":"2019-01-15T11:29:22Z"}"#,
            br#"{"k":"../x","c":"2019-01-15T11:29:22Z","l":"2019-01-15T11:29:22Z"}"#,
            br#"{"k":"","c":"2019-01-15T11:29:22Z","l":"2019-01-15T11:29:22Z"}"#,
        ] {
            let error = Session::from_json(json).expect_err("not a session");
            assert!(!error.to_string().contains("../x"), "{error}");
        }
        assert!(
            !format!(
                "{:?}",
                Session {
                    key: SessionKey::parse(b"abcdefghijklmnopqrstuvwxyz").expect("a key"),
                    ..v30()
                }
            )
            .contains("ghij")
        );
    }
}
