//! What every message costs before anybody handles it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use wireloom_messaging::codec::{Message, Name, Payload, RequestId};

fn codec(c: &mut Criterion) {
    // 64 bytes: 10 of header, 4 of name, 50 of payload.
    let text = "a payload of fifty bytes, which makes sixty-four.\n";
    let name = Name::new("echo").expect("a name");
    let request = Message::Request {
        id: RequestId::from_u64(7),
        name,
        payload: Payload::utf8(text),
    };
    let reply = Message::Reply {
        id: RequestId::from_u64(7),
        payload: Payload::utf8(text),
    };
    let signal = Message::Signal {
        name,
        payload: Payload::utf8(text),
    };
    assert_eq!(request.encoded_len(), 64);
    for (label, message) in [("request", request), ("reply", reply), ("signal", signal)] {
        let bytes = message.to_vec().expect("a message");
        c.bench_function(&format!("{label}/decode"), |b| {
            b.iter(|| Message::decode(black_box(&bytes)));
        });
        c.bench_function(&format!("{label}/encode"), |b| {
            let mut out = Vec::with_capacity(256);
            b.iter(|| {
                out.clear();
                black_box(&message).encode(&mut out)
            });
        });
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
