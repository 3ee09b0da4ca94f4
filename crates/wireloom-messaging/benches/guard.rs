//! The hot paths whose instructions `cargo xtask bench guard` counts: `guard NAME` runs one of them, without an argument it names them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use wireloom_messaging::codec::{Message, Name, Payload, RequestId};
use wireloom_messaging::engine::{Answer, ClientConfig, ClientEngine, ConnectionConfig, Received, ServerEngine};

/// With ten bytes of header and four of name, a message of 64.
const TEXT: &str = "a payload of fifty bytes, which makes sixty-four.\n";

/// Only what runs in here is counted.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

/// Warm: what is allocated for good, and what fills a table of QPACK, is not of the hot path.
fn count(mut work: impl FnMut()) {
    (0..3).for_each(|_| work());
    measured(&mut work);
}

fn name() -> Name<'static> {
    Name::new("echo").expect("a name")
}

fn encode() {
    let request = Message::Request {
        id: RequestId::from_u64(7),
        name: name(),
        payload: Payload::utf8(TEXT),
    };
    let mut out = Vec::with_capacity(256);
    count(|| {
        out.clear();
        black_box(&request).encode(&mut out).expect("a message");
    });
}

fn decode() {
    let request = Message::Request {
        id: RequestId::from_u64(7),
        name: name(),
        payload: Payload::utf8(TEXT),
    };
    let bytes = request.to_vec().expect("a message");
    count(|| {
        black_box(Message::decode(black_box(&bytes))).expect("a message");
    });
}

/// A request to the server's engine, its reply back to the client's.
fn round_trip() {
    let now = Instant::now();
    let mut server = ServerEngine::new(Arc::new(ConnectionConfig::default()), now);
    let mut client = ClientEngine::new(ClientConfig::default(), now);
    let (mut there, mut back) = (Vec::with_capacity(256), Vec::with_capacity(256));
    server.first_message(&mut back);
    client.receive(&back).expect("accepted");
    count(|| {
        there.clear();
        back.clear();
        client
            .request(now, name(), Payload::utf8(TEXT), None, (), &mut there)
            .expect("a request");
        let Ok(Received::Request { id, payload, .. }) = server.receive(now, &there) else {
            panic!("no request");
        };
        server.reply(id, Answer::Payload(payload), &mut back).expect("a reply");
        server.finished(now);
        black_box(client.receive(&back)).expect("a reply");
    });
}

const CASES: [(&str, fn()); 3] = [("encode", encode), ("decode", decode), ("round-trip", round_trip)];

fn main() {
    let wanted = std::env::args().nth(1);
    match CASES.iter().find(|(name, _)| Some(*name) == wanted.as_deref()) {
        Some((_, run)) => run(),
        None => CASES.iter().for_each(|(name, _)| println!("{name}")),
    }
}
