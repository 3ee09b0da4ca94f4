//! The golden bytes of `vectors/`, both ways. Other languages read the same files.
//!
//! A vector is `{name, hex, decoded}`. `decode_only` marks bytes that this end would not write, `skipped` what is ignored,
//! `incomplete` what needs more bytes, `error` the code that the bytes earn.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use wireloom_proto::capsule::{self, Capsule, CapsuleReader};
use wireloom_proto::h3::frame;
use wireloom_proto::h3::reader::{Frame, FrameLimits, FrameReader};
use wireloom_proto::h3::settings::Settings;
use wireloom_proto::qpack::{Decoder, Encoder, Field, FieldRef, Section};
use wireloom_proto::testing::peer::Lone;
use wireloom_proto::{Code, Config, Dir, Side, StreamId, datagram, testing, varint};

struct Vector {
    name: String,
    bytes: Bytes,
    json: Value,
}

impl Vector {
    fn decoded(&self) -> Option<&Value> {
        self.json.get("decoded")
    }

    fn error(&self) -> Option<&str> {
        self.json["error"].as_str()
    }

    /// A sequence on a connection's streams, not a single section.
    fn has_steps(&self) -> bool {
        self.json.get("steps").is_some()
    }

    fn has(&self, flag: &str) -> bool {
        self.json[flag] == true
    }

    /// What is written must be these bytes, unless they are for reading only.
    fn assert_written(&self, written: impl FnOnce() -> Bytes) {
        if !self.has("decode_only") {
            assert_eq!(hex(&written()), hex(&self.bytes), "{}", self.name);
        }
    }
}

fn vectors(file: &str) -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert!(!list.is_empty());
    list.into_iter()
        .map(|json| Vector {
            name: text_of(&json["name"]),
            bytes: json["hex"].as_str().map(unhex).unwrap_or_default(),
            json,
        })
        .collect()
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a string, not {value}"))
        .to_owned()
}

fn number(value: &Value) -> u64 {
    let text = text_of(value);
    let parsed = text
        .strip_prefix("0x")
        .map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
    parsed.unwrap_or_else(|_| panic!("a number, not {text}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn name(code: Code) -> Option<&'static str> {
    code.name()
}

#[test]
fn varints() {
    for vector in vectors("varint.json") {
        let decoded = varint::decode(&vector.bytes);
        if vector.has("incomplete") {
            assert_eq!(decoded, None, "{}", vector.name);
            continue;
        }
        let value = number(&vector.json["decoded"]);
        assert_eq!(decoded, Some((value, vector.bytes.len())), "{}", vector.name);
        vector.assert_written(|| {
            let mut out = BytesMut::new();
            varint::encode(value, &mut out);
            out.freeze()
        });
    }
}

fn read_frame(bytes: &Bytes) -> Result<Option<Value>, Code> {
    let mut reader = FrameReader::new(FrameLimits::default());
    let mut input = bytes.clone();
    let mut first: Option<Value> = None;
    while let Some(frame) = reader.read(&mut input).map_err(|error| error.code())? {
        let json = match frame {
            Frame::Data(payload) => json!({"type": "DATA", "payload": hex(&payload)}),
            Frame::Headers(payload) => json!({"type": "HEADERS", "payload": hex(&payload)}),
            Frame::Settings(payload) => json!({"type": "SETTINGS", "payload": hex(&payload)}),
            Frame::CancelPush(id) => json!({"type": "CANCEL_PUSH", "id": id.to_string()}),
            Frame::Goaway(id) => json!({"type": "GOAWAY", "id": id.to_string()}),
            Frame::MaxPushId(id) => json!({"type": "MAX_PUSH_ID", "id": id.to_string()}),
            Frame::PushPromise => json!({"type": "PUSH_PROMISE"}),
            Frame::PriorityUpdate { push, id, value } => {
                let value = String::from_utf8_lossy(&value).into_owned();
                json!({"type": "PRIORITY_UPDATE", "push": push, "id": id.to_string(), "value": value})
            }
            Frame::WtStream => return Ok(Some(json!({"type": "WT_STREAM"}))),
            other => panic!("{other:?}"),
        };
        assert!(first.replace(json).is_none(), "one frame");
    }
    reader.finish().map_err(|error| error.code())?;
    Ok(first)
}

fn write_frame(json: &Value) -> Bytes {
    match json["type"].as_str().expect("type") {
        "DATA" => frame::encode(frame::DATA, &unhex(&text_of(&json["payload"]))),
        "HEADERS" => frame::encode(frame::HEADERS, &unhex(&text_of(&json["payload"]))),
        "SETTINGS" => frame::encode(frame::SETTINGS, &unhex(&text_of(&json["payload"]))),
        "GOAWAY" => frame::encode_goaway(number(&json["id"])),
        ty @ ("MAX_PUSH_ID" | "CANCEL_PUSH") => {
            let mut payload = Vec::new();
            varint::encode(number(&json["id"]), &mut payload);
            let ty = if ty == "MAX_PUSH_ID" {
                frame::MAX_PUSH_ID
            } else {
                frame::CANCEL_PUSH
            };
            frame::encode(ty, &payload)
        }
        "PRIORITY_UPDATE" => {
            let mut payload = Vec::new();
            varint::encode(number(&json["id"]), &mut payload);
            payload.put_slice(text_of(&json["value"]).as_bytes());
            let ty = if json["push"] == true {
                frame::PRIORITY_UPDATE_PUSH
            } else {
                frame::PRIORITY_UPDATE_REQUEST
            };
            frame::encode(ty, &payload)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn frames() {
    for vector in vectors("frame.json") {
        let read = read_frame(&vector.bytes);
        match vector.error() {
            Some(error) => assert_eq!(read.map_err(name), Err(Some(error)), "{}", vector.name),
            None if vector.has("skipped") => assert_eq!(read, Ok(None), "{}", vector.name),
            None => {
                assert_eq!(read, Ok(vector.decoded().cloned()), "{}", vector.name);
                vector.assert_written(|| write_frame(&vector.json["decoded"]));
            }
        }
    }
}

#[test]
fn settings() {
    for vector in vectors("settings.json") {
        let mut reader = FrameReader::new(FrameLimits::default());
        let Ok(Some(Frame::Settings(payload))) = reader.read(&mut vector.bytes.clone()) else {
            panic!("{}", vector.name)
        };
        let read = Settings::decode(&payload);
        if let Some(error) = vector.error() {
            // Some are errors only of who knows them: WebTransport is on here.
            let mut lone = Lone::without_settings(Side::Client, Config::default());
            let control = lone.peer_uni(0);
            let _ = lone.recv(control, &[&[0], &vector.bytes[..]].concat(), false);
            assert_eq!(lone.closed_with().and_then(name), Some(error), "{}", vector.name);
            continue;
        }
        let list = vector.json["decoded"].as_array().expect("a list");
        let settings: Settings = list
            .iter()
            .map(|entry| (number(&entry["id"]), number(&entry["value"])))
            .collect();
        assert_eq!(read.as_ref(), Ok(&settings), "{}", vector.name);
        vector.assert_written(|| settings.encode_frame());
    }
}

#[test]
fn huffman() {
    for vector in vectors("huffman.json") {
        let read = testing::huffman_decode(&vector.bytes);
        if vector.error().is_some() {
            assert_eq!(read, None, "{}", vector.name);
            continue;
        }
        let text = unhex(&text_of(&vector.json["decoded"]));
        assert_eq!(read.as_deref(), Some(&text[..]), "{}", vector.name);
        vector.assert_written(|| testing::huffman_encode(&text));
    }
}

#[test]
fn field_sections() {
    let stream = StreamId::from_u64(0);
    for vector in vectors("qpack.json").into_iter().filter(|vector| !vector.has_steps()) {
        let read = Decoder::new()
            .decode(stream, vector.bytes.clone(), 1 << 16)
            .map(|section| section.fields().expect("no table"));
        if let Some(error) = vector.error() {
            assert_eq!(
                read.map_err(|error| name(error.code())),
                Err(Some(error)),
                "{}",
                vector.name
            );
            continue;
        }
        let fields = fields_of(&vector.json);
        assert_eq!(read.as_ref(), Ok(&fields), "{}", vector.name);
        vector.assert_written(|| {
            let mut out = BytesMut::new();
            Encoder::new().encode(stream, fields.iter().map(FieldRef::from), &mut out);
            out.freeze()
        });
    }
}

fn read_capsule(bytes: &Bytes) -> Result<Option<Value>, Code> {
    let mut reader = CapsuleReader::new();
    let mut input = bytes.clone();
    let mut first = None;
    while let Some(capsule) = reader.read(&mut input).map_err(|error| error.code())? {
        let dir = |dir| if dir == Dir::Bi { "bidi" } else { "uni" };
        let json = match capsule {
            Capsule::CloseSession { code, reason } => {
                json!({"type": "WT_CLOSE_SESSION", "code": code, "reason": reason})
            }
            Capsule::DrainSession => json!({"type": "WT_DRAIN_SESSION"}),
            Capsule::Datagram(payload) => json!({"type": "DATAGRAM", "payload": hex(&payload)}),
            Capsule::MaxData(max) => json!({"type": "WT_MAX_DATA", "max": max.to_string()}),
            Capsule::DataBlocked(max) => json!({"type": "WT_DATA_BLOCKED", "max": max.to_string()}),
            Capsule::MaxStreams { dir: d, max } => {
                json!({"type": "WT_MAX_STREAMS", "dir": dir(d), "max": max.to_string()})
            }
            Capsule::StreamsBlocked { dir: d, max } => {
                json!({"type": "WT_STREAMS_BLOCKED", "dir": dir(d), "max": max.to_string()})
            }
            Capsule::Prohibited(ty) => json!({"type": "PROHIBITED", "capsule": format!("{ty:#x}")}),
            other => panic!("{other:?}"),
        };
        assert!(first.replace(json).is_none(), "one capsule");
    }
    reader.finish().map_err(|error| error.code())?;
    Ok(first)
}

fn write_capsule(json: &Value) -> Bytes {
    let dir = if json["dir"] == "bidi" { Dir::Bi } else { Dir::Uni };
    match json["type"].as_str().expect("type") {
        "WT_CLOSE_SESSION" => {
            let code = json["code"]
                .as_u64()
                .and_then(|code| u32::try_from(code).ok())
                .expect("code");
            capsule::encode_close_session(code, &text_of(&json["reason"]))
        }
        "WT_DRAIN_SESSION" => capsule::encode_drain_session(),
        "DATAGRAM" => capsule::encode_datagram(&unhex(&text_of(&json["payload"]))),
        "WT_MAX_DATA" => capsule::encode_max_data(number(&json["max"])),
        "WT_DATA_BLOCKED" => capsule::encode_data_blocked(number(&json["max"])),
        "WT_MAX_STREAMS" => capsule::encode_max_streams(dir, number(&json["max"])),
        "WT_STREAMS_BLOCKED" => capsule::encode_streams_blocked(dir, number(&json["max"])),
        other => panic!("{other}"),
    }
}

#[test]
fn capsules() {
    for vector in vectors("capsule.json") {
        let read = read_capsule(&vector.bytes);
        match vector.error() {
            Some(error) => assert_eq!(read.map_err(name), Err(Some(error)), "{}", vector.name),
            None if vector.has("skipped") => assert_eq!(read, Ok(None), "{}", vector.name),
            None => {
                assert_eq!(read, Ok(vector.decoded().cloned()), "{}", vector.name);
                vector.assert_written(|| write_capsule(&vector.json["decoded"]));
            }
        }
    }
}

#[test]
fn datagrams() {
    for vector in vectors("datagram.json") {
        let mut rest = vector.bytes.clone();
        let read = datagram::decode(&mut rest);
        if let Some(error) = vector.error() {
            assert_eq!(
                read.map_err(|error| name(error.code())),
                Err(Some(error)),
                "{}",
                vector.name
            );
            continue;
        }
        let (stream, payload) = (
            number(&vector.json["decoded"]["stream"]),
            &vector.json["decoded"]["payload"],
        );
        assert_eq!(read.map(StreamId::into_u64), Ok(stream), "{}", vector.name);
        assert_eq!(hex(&rest), text_of(payload), "{}", vector.name);
        vector.assert_written(|| {
            let mut out = BytesMut::new();
            datagram::encode_prefix(StreamId::from_u64(stream), &mut out);
            out.put_slice(&rest);
            out.freeze()
        });
    }
}

#[test]
fn error_codes() {
    let mut named = 0;
    for vector in vectors("error-codes.json") {
        let code = Code::new(number(&vector.json["decoded"]["code"]));
        assert_eq!(
            varint::take(&mut vector.bytes.clone()),
            Some(code.into_u64()),
            "{}",
            vector.name
        );
        match vector.json["decoded"].get("application") {
            Some(Value::Null) => assert_eq!(code.to_application(), None, "{}", vector.name),
            Some(number) => {
                let number = number
                    .as_u64()
                    .and_then(|number| u32::try_from(number).ok())
                    .expect("a 32-bit number");
                assert_eq!(code.to_application(), Some(number), "{}", vector.name);
                assert_eq!(Code::from_application(number), code, "{}", vector.name);
            }
            None => {
                named += 1;
                assert_eq!(code.to_string(), vector.name);
            }
        }
    }
    assert_eq!(named, Code::ALL.len(), "every code has a vector");
}

fn fields_of(json: &Value) -> Vec<Field> {
    let list = json["decoded"].as_array().expect("a list");
    let field = |json: &Value| Field {
        name: text_of(&json["name"]).into(),
        value: text_of(&json["value"]).into(),
        sensitive: json["sensitive"] == true,
    };
    list.iter().map(field).collect()
}

/// Steps of a connection: bytes of the encoder stream arrive, a section is decoded (or has to wait, and is given back later),
/// a stream is cancelled, the decoder writes.
#[test]
fn qpack_with_a_dynamic_table() {
    for vector in vectors("qpack.json").iter().filter(|vector| vector.has_steps()) {
        let limit = |name: &str| vector.json[name].as_u64().and_then(|limit| u16::try_from(limit).ok());
        let (capacity, blocked) = (
            limit("capacity").expect("a capacity"),
            limit("blocked").expect("a limit"),
        );
        let mut decoder = Decoder::with_table(capacity.into(), blocked);
        let mut waiting = 0;
        for step in vector.json["steps"].as_array().expect("a list") {
            let place = || format!("{}: {step}", vector.name);
            if let Some(bytes) = step["encoder"].as_str() {
                let read = decoder.recv_encoder_stream(&mut unhex(bytes));
                assert_eq!(read, Ok(()), "{}", place());
            } else if let Some(bytes) = step["decoder"].as_str() {
                assert_eq!(hex(&decoder.take_instructions()), bytes, "{}", place());
            } else if let Some(stream) = step["cancel"].as_u64() {
                decoder.cancel(StreamId::from_u64(stream));
            } else {
                let stream = StreamId::from_u64(step["stream"].as_u64().expect("a stream"));
                let mut block = unhex(&text_of(&step["hex"]));
                if waiting > 0 {
                    let unblocked = decoder.poll_unblocked();
                    assert_eq!(unblocked, Some((stream, block)), "{}", place());
                    block = unblocked.expect("compared").1;
                    waiting -= 1;
                }
                let expected = if step["blocked"] == true {
                    waiting += 1;
                    Section::Blocked
                } else {
                    Section::Fields(fields_of(step))
                };
                assert_eq!(decoder.decode(stream, block, 1 << 16), Ok(expected), "{}", place());
            }
        }
        assert_eq!(decoder.poll_unblocked(), None, "{}", vector.name);
    }
}

/// The same steps, where our encoder writes the sections and what comes on its stream before them.
#[test]
fn qpack_written_with_a_dynamic_table() {
    for vector in vectors("qpack.json").iter().filter(|vector| vector.has("written")) {
        let limit = |name: &str| vector.json[name].as_u64().expect("a limit");
        let mut encoder = Encoder::with_table(4096, u16::try_from(limit("encoder_blocked")).expect("a limit"));
        encoder.set_peer_limits(limit("capacity"), limit("blocked"));
        let mut instructions = "";
        for step in vector.json["steps"].as_array().expect("a list") {
            if let Some(bytes) = step["encoder"].as_str() {
                instructions = bytes;
            } else if let Some(bytes) = step["decoder"].as_str() {
                assert_eq!(
                    encoder.recv_decoder_stream(&mut unhex(bytes)),
                    Ok(()),
                    "{}",
                    vector.name
                );
            } else {
                let stream = StreamId::from_u64(step["stream"].as_u64().expect("a stream"));
                let mut out = BytesMut::new();
                encoder.encode(stream, fields_of(step).iter().map(FieldRef::from), &mut out);
                assert_eq!(
                    hex(&encoder.take_instructions()),
                    instructions,
                    "{}: {step}",
                    vector.name
                );
                assert_eq!(hex(&out), text_of(&step["hex"]), "{}: {step}", vector.name);
                instructions = "";
            }
        }
    }
}
