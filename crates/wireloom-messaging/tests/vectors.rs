//! The golden bytes of `vectors/webwire.json`, both ways. Other languages read the same file.
//!
//! A vector is `{name, hex, decoded}`: identifiers and payloads in hex, names with one character per byte. `decode_only`
//! marks bytes that this end would not write, `error` the verdict on bytes that are no message.

use std::path::Path;

use serde_json::{Map, Value, json};
use wireloom_messaging::codec::{
    AcceptConf, DecodeError, Encoding, Message, Name, Payload, RequestId, encode_utf16, kind,
};

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn vectors() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/webwire.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert!(list.len() >= 75);
    list
}

const KINDS: &[(u8, &str)] = &[
    (kind::REPLY_ERROR, "ReplyError"),
    (kind::REPLY_SHUTDOWN, "ReplyShutdown"),
    (kind::REPLY_INTERNAL_ERROR, "ReplyInternalError"),
    (kind::REPLY_SESSION_NOT_FOUND, "ReplySessionNotFound"),
    (kind::REPLY_MAX_SESSION_CONNECTIONS, "ReplyMaxSessConnsReached"),
    (kind::REPLY_SESSIONS_DISABLED, "ReplySessionsDisabled"),
    (kind::SESSION_CREATED, "NotifySessionCreated"),
    (kind::SESSION_CLOSED, "NotifySessionClosed"),
    (kind::ACCEPT_CONF, "AcceptConf"),
    (kind::CLOSE_SESSION, "RequestCloseSession"),
    (kind::RESTORE_SESSION, "RequestRestoreSession"),
    (kind::HEARTBEAT, "Heartbeat"),
    (kind::SIGNAL, "SignalBinary"),
    (kind::SIGNAL + 1, "SignalUtf8"),
    (kind::SIGNAL + 2, "SignalUtf16"),
    (kind::REQUEST, "RequestBinary"),
    (kind::REQUEST + 1, "RequestUtf8"),
    (kind::REQUEST + 2, "RequestUtf16"),
    (kind::REPLY, "ReplyBinary"),
    (kind::REPLY + 1, "ReplyUtf8"),
    (kind::REPLY + 2, "ReplyUtf16"),
];

fn utf8(bytes: &[u8]) -> Value {
    json!(std::str::from_utf8(bytes).expect("text"))
}

/// A message as the vectors describe it.
fn describe(message: &Message<'_>) -> Value {
    let (_, name) = KINDS.iter().find(|(kind, _)| *kind == message.kind()).expect("a type");
    let mut fields = Map::from_iter([("type".to_owned(), json!(name))]);
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    if let Some(id) = message.id() {
        put("id", json!(hex(&id.0)));
    }
    match *message {
        Message::ReplyError { code, message, .. } => {
            put("code", utf8(code));
            put("message", utf8(message));
        }
        Message::SessionCreated { session } => drop(put("session", utf8(session))),
        Message::AcceptConf(conf) => {
            put("major", json!(conf.major));
            put("minor", json!(conf.minor));
            put("read_timeout_ms", json!(conf.read_timeout_ms));
            put("message_buffer_size", json!(conf.message_buffer_size));
            put("sub_protocol", utf8(conf.sub_protocol));
        }
        Message::RestoreSession { key, .. } => drop(put("key", utf8(key))),
        _ => {}
    }
    if let Message::Signal { name, .. } | Message::Request { name, .. } = message {
        put(
            "name",
            name.as_bytes()
                .iter()
                .map(|b| char::from(*b))
                .collect::<String>()
                .into(),
        );
    }
    if let Message::Signal { payload, .. } | Message::Request { payload, .. } | Message::Reply { payload, .. } = message
    {
        put("payload", json!(hex(payload.bytes)));
        if payload.encoding != Encoding::Binary {
            put("text", json!(payload.text().expect("text")));
        }
    }
    Value::Object(fields)
}

/// The bytes of what a vector describes; `text` is encoded anew.
fn written(decoded: &Value) -> Vec<u8> {
    let text = |key: &str| decoded[key].as_str().unwrap_or_default();
    let number = |key: &str| u32::try_from(decoded[key].as_u64().expect("a number")).expect("32 bits");
    let id = RequestId(unhex(text("id")).try_into().unwrap_or_default());
    let (kind, _) = KINDS.iter().find(|(_, name)| *name == text("type")).expect("a type");
    let mut utf16 = Vec::new();
    encode_utf16(text("text"), &mut utf16);
    let binary = unhex(text("payload"));
    let payload = |base: u8| match kind - base {
        0 => Payload::binary(&binary),
        1 => Payload::utf8(text("text")),
        _ => Payload::utf16(&utf16),
    };
    let name = || Name::new(text("name")).expect("a name that may be sent");
    let message = match *kind {
        kind::REPLY_ERROR => Message::ReplyError {
            id,
            code: text("code").as_bytes(),
            message: text("message").as_bytes(),
        },
        kind::REPLY_SHUTDOWN => Message::ReplyShutdown { id },
        kind::REPLY_INTERNAL_ERROR => Message::ReplyInternalError { id },
        kind::REPLY_SESSION_NOT_FOUND => Message::ReplySessionNotFound { id },
        kind::REPLY_MAX_SESSION_CONNECTIONS => Message::ReplyMaxSessionConnections { id },
        kind::REPLY_SESSIONS_DISABLED => Message::ReplySessionsDisabled { id },
        kind::SESSION_CREATED => Message::SessionCreated {
            session: text("session").as_bytes(),
        },
        kind::SESSION_CLOSED => Message::SessionClosed,
        kind::ACCEPT_CONF => Message::AcceptConf(AcceptConf {
            major: number("major") as u8,
            minor: number("minor") as u8,
            read_timeout_ms: number("read_timeout_ms"),
            message_buffer_size: number("message_buffer_size"),
            sub_protocol: text("sub_protocol").as_bytes(),
        }),
        kind::CLOSE_SESSION => Message::CloseSession { id },
        kind::RESTORE_SESSION => Message::RestoreSession {
            id,
            key: text("key").as_bytes(),
        },
        kind::HEARTBEAT => Message::Heartbeat,
        63..=65 => Message::Signal {
            name: name(),
            payload: payload(kind::SIGNAL),
        },
        127..=129 => Message::Request {
            id,
            name: name(),
            payload: payload(kind::REQUEST),
        },
        _ => Message::Reply {
            id,
            payload: payload(kind::REPLY),
        },
    };
    message.to_vec().expect("a message that may be sent")
}

#[test]
fn webwire() {
    for vector in vectors() {
        let name = vector["name"].as_str().expect("a name");
        let bytes = unhex(vector["hex"].as_str().expect("hex"));
        let verdict = match vector["error"].as_str() {
            Some("unknown") => Err(DecodeError::Unknown),
            Some("malformed") => Err(DecodeError::Malformed),
            Some(other) => panic!("{name}: {other}"),
            None => Ok(vector["decoded"].clone()),
        };
        assert_eq!(Message::decode(&bytes).map(|m| describe(&m)), verdict, "{name}");
        if verdict.is_ok() && vector["decode_only"] != true {
            assert_eq!(hex(&written(&vector["decoded"])), hex(&bytes), "{name}");
        }
    }
}
