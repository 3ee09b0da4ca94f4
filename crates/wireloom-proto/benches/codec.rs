//! What the core does for every byte, stream, datagram and request.

mod inputs;

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::StatusCode;
use inputs::{connect, response};
use wireloom_proto::capsule::{self, CapsuleReader};
use wireloom_proto::h3::reader::{FrameLimits, FrameReader};
use wireloom_proto::h3::{frame, headers};
use wireloom_proto::qpack::{Decoder, Encoder, FieldRef};
use wireloom_proto::{Dir, StreamId, datagram, testing, varint};

const STREAM: StreamId = StreamId::from_u64(0);

fn varints(c: &mut Criterion) {
    let mut group = c.benchmark_group("varint");
    // Each length as often as the others, in an order that no branch predictor learns at once.
    let values: Vec<u64> = (0..256u64)
        .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> [60, 51, 36, 2][(i * 7 % 4) as usize])
        .collect();
    let mut encoded = BytesMut::new();
    values.iter().for_each(|&value| varint::encode(value, &mut encoded));
    let encoded = encoded.freeze();
    group.throughput(Throughput::Elements(256));
    group.bench_function("encode", |b| {
        let mut out = BytesMut::with_capacity(encoded.len());
        b.iter(|| {
            out.clear();
            values
                .iter()
                .for_each(|&value| varint::encode(black_box(value), &mut out));
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            let mut rest = &encoded[..];
            let mut sum = 0u64;
            while let Some((value, len)) = varint::decode(black_box(rest)) {
                sum = sum.wrapping_add(value);
                rest = &rest[len..];
            }
            sum
        });
    });
    group.finish();
}

fn datagrams(c: &mut Criterion) {
    let mut packet = BytesMut::new();
    datagram::encode_prefix(StreamId::from_u64(400), &mut packet);
    packet.extend_from_slice(&[7; 1200]);
    let packet = packet.freeze();
    c.bench_function("datagram/decode", |b| {
        b.iter(|| {
            let mut packet = black_box(&packet).clone();
            (datagram::decode(&mut packet), packet)
        });
    });
}

/// A request with its body as one stream: HEADERS and then DATA frames of 16 KiB.
fn frames(c: &mut Criterion) {
    let mut stream = BytesMut::new();
    stream.extend_from_slice(&frame::encode(frame::HEADERS, &[0x51; 120]));
    (0..16).for_each(|_| stream.extend_from_slice(&frame::encode(frame::DATA, &[7; 16 << 10])));
    let stream = stream.freeze();
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    let read = |pieces: &mut dyn Iterator<Item = Bytes>| {
        let mut reader = FrameReader::new(FrameLimits::default());
        let mut frames = 0;
        for mut piece in pieces {
            while let Ok(Some(frame)) = reader.read(&mut piece) {
                black_box(frame);
                frames += 1;
            }
        }
        frames
    };
    group.bench_function("read/whole", |b| b.iter(|| read(&mut std::iter::once(stream.clone()))));
    group.bench_function("read/packets", |b| {
        b.iter(|| {
            read(
                &mut (0..stream.len())
                    .step_by(1200)
                    .map(|at| stream.slice(at..(at + 1200).min(stream.len()))),
            )
        });
    });
    group.finish();
    c.bench_function("frame/read/header", |b| {
        let headers = frame::encode(frame::HEADERS, &[0x51; 120]);
        b.iter(|| FrameReader::new(FrameLimits::default()).read(&mut black_box(&headers).clone()));
    });
}

fn capsules(c: &mut Criterion) {
    let stream: Bytes = (0..64u64)
        .flat_map(|i| {
            [
                capsule::encode_max_data(i << 20),
                capsule::encode_max_streams(Dir::Bi, i),
            ]
        })
        .flatten()
        .collect();
    let mut group = c.benchmark_group("capsule");
    group.throughput(Throughput::Elements(128));
    group.bench_function("read", |b| {
        b.iter(|| {
            let mut input = black_box(&stream).clone();
            let mut reader = CapsuleReader::new();
            let mut capsules = 0;
            while let Ok(Some(capsule)) = reader.read(&mut input) {
                black_box(capsule);
                capsules += 1;
            }
            capsules
        });
    });
    group.finish();
}

fn qpack(c: &mut Criterion) {
    let head = connect();
    let map = response();
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new();
    let mut out = BytesMut::with_capacity(1024);

    let mut group = c.benchmark_group("qpack");
    group.bench_function("encode/connect", |b| {
        b.iter(|| {
            out.clear();
            encoder.encode(
                STREAM,
                headers::encode_request(&head, Some("webtransport")).expect("legal"),
                &mut out,
            );
        });
    });
    let block = out.split().freeze();
    group.bench_function("decode/connect", |b| {
        b.iter(|| decoder.decode(STREAM, black_box(&block).clone(), 1 << 16))
    });
    let fields = decoder.decode(STREAM, block, 1 << 16).expect("own section");
    let fields = fields.fields().expect("no table");
    group.bench_function("headers/connect", |b| {
        b.iter_batched(|| fields.clone(), headers::decode_request, BatchSize::SmallInput);
    });

    group.bench_function("encode/response", |b| {
        b.iter(|| {
            out.clear();
            encoder.encode(
                STREAM,
                headers::encode_response(&StatusCode::OK, &map).expect("legal"),
                &mut out,
            );
        });
    });
    let block = out.split().freeze();
    group.bench_function("decode/response", |b| {
        b.iter(|| decoder.decode(STREAM, black_box(&block).clone(), 1 << 16))
    });
    let fields = decoder.decode(STREAM, block, 1 << 16).expect("own section");
    let fields = fields.fields().expect("no table");
    group.bench_function("headers/response", |b| {
        b.iter_batched(|| fields.clone(), headers::decode_response, BatchSize::SmallInput);
    });

    // The same when both tables hold all of it that they may.
    let (mut encoder, mut decoder) = (Encoder::with_table(4096, 0), Decoder::with_table(4096, 0));
    encoder.set_peer_limits(4096, 0);
    for name in ["connect", "response"] {
        let fields = match name {
            "connect" => headers::encode_request(&head, Some("webtransport")).expect("legal"),
            _ => headers::encode_response(&StatusCode::OK, &map).expect("legal"),
        };
        let mut exchange = |out: &mut BytesMut| {
            out.clear();
            encoder.encode(STREAM, fields.iter().copied(), out);
            decoder
                .recv_encoder_stream(&mut encoder.take_instructions())
                .expect("own instructions");
            let section = decoder
                .decode(STREAM, out.split().freeze(), 1 << 16)
                .expect("own section");
            encoder
                .recv_decoder_stream(&mut decoder.take_instructions())
                .expect("own instructions");
            section
        };
        (0..3).for_each(|_| drop(exchange(&mut out)));
        group.bench_function(format!("dynamic/{name}"), |b| b.iter(|| exchange(&mut out)));
    }

    // A field that the static table knows in full, and one that it does not know at all.
    for (name, field) in [
        ("known", FieldRef::new(b":method", b"GET")),
        ("unknown", FieldRef::new(b"x-my-own", b"0")),
    ] {
        group.bench_function(format!("encode/{name}"), |b| {
            b.iter(|| {
                out.clear();
                encoder.encode(STREAM, [black_box(field)], &mut out);
            });
        });
    }
    group.finish();
}

fn huffman(c: &mut Criterion) {
    let text = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0".repeat(8);
    let coded = testing::huffman_encode(text.as_bytes());
    let mut group = c.benchmark_group("huffman");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("encode", |b| {
        b.iter(|| testing::huffman_encode(black_box(text.as_bytes())))
    });
    group.bench_function("decode", |b| b.iter(|| testing::huffman_decode(black_box(&coded))));
    group.finish();
}

criterion_group!(benches, varints, datagrams, frames, capsules, qpack, huffman);
criterion_main!(benches);
