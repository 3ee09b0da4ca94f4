//! QPACK with a dynamic table against pylsqpack (PyPI): random header lists in both directions, delivered in random order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use wireloom_proto::StreamId;
use wireloom_proto::qpack::{Decoder, Encoder, Field, FieldRef, Section};

/// Runs of each test, which differ in their seed, and sections in each.
const RUNS: u64 = 60;
const SECTIONS: u64 = 60;

/// `interop/qpack/peer.py`.
struct Peer {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("../.venv/bin/python");
        assert!(
            python.exists(),
            "{} is missing; `cargo xtask setup` makes it",
            python.display()
        );
        let mut process = Command::new(python)
            .arg(root.join("qpack/peer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { process, input, output }
    }

    fn call(&mut self, request: &Value) -> Value {
        writeln!(self.input, "{request}").expect("the peer reads");
        let line = self.output.next().expect("the peer answers").expect("a line");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(answer.get("error"), None, "{request}");
        answer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Killing what has ended already fails, and that is all right.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(value: &Value) -> Bytes {
    let text = value.as_str().expect("hexadecimal digits");
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

fn fields_of(answer: &Value) -> Vec<Field> {
    let pairs = answer["fields"].as_array().expect("fields");
    let field = |pair: &Value| Field {
        name: bytes(&pair[0]),
        value: bytes(&pair[1]),
        sensitive: false,
    };
    pairs.iter().map(field).collect()
}

/// A generator of numbers (SplitMix64), the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).expect("below a usize")
    }

    /// Header lists in which most fields come again. None is empty: pylsqpack refuses a section without lines.
    fn fields(&mut self) -> Vec<Field> {
        const NAMES: [&str; 10] = [
            ":method",
            ":path",
            ":status",
            "user-agent",
            "content-type",
            "cookie",
            "x-request-id",
            "x-a",
            "server",
            "x-a-name-that-is-rather-long",
        ];
        let count = 1 + self.below(8);
        (0..count)
            .map(|_| {
                let name = NAMES[self.below(NAMES.len())];
                let value = match self.below(8) {
                    0 => String::new(),
                    1 => "GET".to_owned(),
                    2 => "\u{1}\u{7f}".repeat(self.below(20)),
                    3 => format!("never again {}", self.0),
                    4 => "v".repeat(self.below(300)),
                    n => format!("value {n} of {}", self.below(3)),
                };
                Field {
                    name: Bytes::from_static(name.as_bytes()),
                    value: value.into(),
                    sensitive: false,
                }
            })
            .collect()
    }

    /// Takes at most as many bytes as chance will have it.
    fn piece(&mut self, from: &mut BytesMut) -> Bytes {
        let len = self.below(from.len() + 1);
        from.split_to(len).freeze()
    }
}

/// What is under way from an encoder to a decoder.
#[derive(Default)]
struct Wire {
    encoder_stream: BytesMut,
    sections: VecDeque<(u64, Bytes, Vec<Field>)>,
    waiting: BTreeMap<u64, Vec<Field>>,
    /// Sections that referred to the table, or waited.
    compressed: u32,
    waited: u32,
}

impl Wire {
    /// A section anywhere in the queue, as streams overtake each other.
    fn take(&mut self, random: &mut Random) -> Option<(u64, Bytes, Vec<Field>)> {
        let at = random.below(self.sections.len().max(1));
        let taken = self.sections.remove(at);
        self.compressed += u32::from(taken.as_ref().is_some_and(|(_, block, _)| block[0] != 0));
        taken
    }
}

/// Our encoder, their decoder. Theirs never sends an Insert Count Increment: where ours must not let a stream wait, a decoder
/// of ours that reads the same encoder stream says it instead.
fn ours_to_theirs(peer: &mut Peer, seed: u64, blocked: u16) -> (u32, u32) {
    let mut random = Random(seed);
    let capacity = [0, 100, 256, 1024, 4096][random.below(5)];
    peer.call(&json!({"op": "new_decoder", "capacity": capacity, "blocked": blocked}));
    let mut encoder = Encoder::with_table(2048, blocked);
    encoder.set_peer_limits(capacity, blocked.into());
    let mut increments = Decoder::with_table(u32::try_from(capacity).expect("small"), 0);
    let mut wire = Wire::default();
    let mut next = 0;
    while next < SECTIONS || !wire.sections.is_empty() || !wire.waiting.is_empty() {
        match random.below(4) {
            0 if next < SECTIONS => {
                let (fields, mut block) = (random.fields(), BytesMut::new());
                let stream = StreamId::from_u64(4 * next);
                encoder.encode(stream, fields.iter().map(FieldRef::from), &mut block);
                wire.encoder_stream.extend_from_slice(&encoder.take_instructions());
                wire.sections.push_back((4 * next, block.freeze(), fields));
                next += 1;
            }
            1 => {
                let piece = random.piece(&mut wire.encoder_stream);
                let answer = peer.call(&json!({"op": "feed_encoder", "data": hex(&piece)}));
                increments.recv_encoder_stream(&mut piece.clone()).expect("legal");
                if blocked == 0 {
                    encoder
                        .recv_decoder_stream(&mut increments.take_instructions())
                        .expect("legal");
                }
                for stream in answer["unblocked"].as_array().expect("a list") {
                    let answer = peer.call(&json!({"op": "resume", "stream": stream}));
                    let stream = stream.as_u64().expect("a stream");
                    let expected = wire.waiting.remove(&stream).expect("a stream that waits");
                    assert_eq!(fields_of(&answer), expected, "seed {seed}");
                    encoder
                        .recv_decoder_stream(&mut bytes(&answer["instructions"]))
                        .expect("legal");
                }
            }
            2 => {
                let Some((stream, block, fields)) = wire.take(&mut random) else {
                    continue;
                };
                if random.below(10) == 0 {
                    let answer = peer.call(&json!({"op": "cancel", "stream": stream}));
                    encoder
                        .recv_decoder_stream(&mut bytes(&answer["instructions"]))
                        .expect("legal");
                    continue;
                }
                let answer = peer.call(&json!({"op": "section", "stream": stream, "data": hex(&block)}));
                if answer["blocked"] == true {
                    assert!(blocked > 0, "seed {seed}");
                    wire.waited += 1;
                    wire.waiting.insert(stream, fields);
                    assert!(wire.waiting.len() <= usize::from(blocked), "seed {seed}");
                    continue;
                }
                assert_eq!(fields_of(&answer), fields, "seed {seed}");
                encoder
                    .recv_decoder_stream(&mut bytes(&answer["instructions"]))
                    .expect("legal");
            }
            _ => {}
        }
    }
    (wire.compressed, wire.waited)
}

/// Their encoder, our decoder.
fn theirs_to_ours(peer: &mut Peer, seed: u64, blocked: u16) -> (u32, u32) {
    let mut random = Random(seed);
    let capacity = [0, 100, 256, 1024, 4096][random.below(5)];
    let answer = peer.call(&json!({"op": "new_encoder", "capacity": capacity, "blocked": blocked}));
    let mut decoder = Decoder::with_table(capacity, blocked);
    let mut wire = Wire::default();
    wire.encoder_stream.extend_from_slice(&bytes(&answer["instructions"]));
    let mut next = 0;
    while next < SECTIONS || !wire.sections.is_empty() || !wire.waiting.is_empty() {
        match random.below(5) {
            0 if next < SECTIONS => {
                let fields = random.fields();
                let pairs: Vec<_> = fields
                    .iter()
                    .map(|field| [hex(&field.name), hex(&field.value)])
                    .collect();
                let answer = peer.call(&json!({"op": "encode", "stream": 4 * next, "fields": pairs}));
                wire.encoder_stream.extend_from_slice(&bytes(&answer["instructions"]));
                wire.sections.push_back((4 * next, bytes(&answer["section"]), fields));
                next += 1;
            }
            1 => {
                let mut piece = random.piece(&mut wire.encoder_stream);
                decoder.recv_encoder_stream(&mut piece).expect("legal");
                while let Some((stream, block)) = decoder.poll_unblocked() {
                    let expected = wire.waiting.remove(&stream.into_u64()).expect("a stream that waits");
                    let section = decoder.decode(stream, block, u64::MAX);
                    assert_eq!(section, Ok(Section::Fields(expected)), "seed {seed}");
                }
            }
            2 => {
                let Some((stream, block, fields)) = wire.take(&mut random) else {
                    continue;
                };
                let id = StreamId::from_u64(stream);
                if random.below(10) == 0 {
                    decoder.cancel(id);
                    continue;
                }
                match decoder.decode(id, block, u64::MAX).expect("legal") {
                    Section::Fields(read) => assert_eq!(read, fields, "seed {seed}"),
                    Section::Blocked => {
                        wire.waited += 1;
                        wire.waiting.insert(stream, fields);
                    }
                }
            }
            3 => {
                let instructions = decoder.take_instructions();
                peer.call(&json!({"op": "feed_decoder", "data": hex(&instructions)}));
            }
            _ => {}
        }
    }
    (wire.compressed, wire.waited)
}

/// All runs; some sections must have used the table, and some waited where they may.
fn runs(direction: fn(&mut Peer, u64, u16) -> (u32, u32), blocked: u16) {
    let mut peer = Peer::start();
    let (mut compressed, mut waited) = (0, 0);
    for seed in 0..RUNS {
        let run = direction(&mut peer, seed, blocked);
        compressed += run.0;
        waited += run.1;
    }
    println!("{compressed} sections used the table, {waited} waited");
    assert!(compressed > 100, "{compressed}");
    assert_eq!(waited > 0, blocked > 0, "{waited}");
}

#[test]
fn our_encoder_without_blocking_and_their_decoder() {
    runs(ours_to_theirs, 0);
}

#[test]
fn our_encoder_and_their_decoder() {
    runs(ours_to_theirs, 4);
}

#[test]
fn their_encoder_without_blocking_and_our_decoder() {
    runs(theirs_to_ours, 0);
}

#[test]
fn their_encoder_and_our_decoder() {
    runs(theirs_to_ours, 16);
}
