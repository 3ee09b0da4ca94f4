//! The hot paths whose instructions `cargo xtask bench guard` counts: `guard NAME` runs one of them, without an argument it names them.

mod inputs;

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use inputs::{connect, response};
use wireloom_proto::capsule::{self, CapsuleReader};
use wireloom_proto::h3::reader::{FrameLimits, FrameReader};
use wireloom_proto::h3::{frame, headers};
use wireloom_proto::qpack::{Decoder, Encoder};
use wireloom_proto::testing::pipe::Pair;
use wireloom_proto::{Config, Dir, StreamId, datagram, varint};

const STREAM: StreamId = StreamId::from_u64(0);

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

fn varints() {
    let mut out = BytesMut::with_capacity(4096);
    count(|| {
        out.clear();
        for i in 0..256u64 {
            varint::encode(black_box(i << (i % 4 * 8)), &mut out);
        }
        let mut rest = &out[..];
        while let Some((value, length)) = varint::decode(rest) {
            black_box(value);
            rest = &rest[length..];
        }
    });
}

fn datagrams() {
    let mut packet = BytesMut::new();
    datagram::encode_prefix(StreamId::from_u64(400), &mut packet);
    packet.extend_from_slice(&[7; 1200]);
    let packet = packet.freeze();
    count(|| {
        let mut packet = black_box(&packet).clone();
        black_box(datagram::decode(&mut packet)).expect("a datagram");
        black_box(packet);
    });
}

fn frames() {
    let mut stream = BytesMut::new();
    stream.extend_from_slice(&frame::encode(frame::HEADERS, &[0x51; 120]));
    (0..16).for_each(|_| stream.extend_from_slice(&frame::encode(frame::DATA, &[7; 4 << 10])));
    let stream = stream.freeze();
    count(|| {
        let mut reader = FrameReader::new(FrameLimits::default());
        for at in (0..stream.len()).step_by(1200) {
            let mut piece = stream.slice(at..(at + 1200).min(stream.len()));
            while let Ok(Some(frame)) = reader.read(&mut piece) {
                black_box(frame);
            }
        }
    });
}

fn capsules() {
    let stream: Bytes = (0..64u64)
        .flat_map(|i| capsule::encode_max_streams(Dir::Bi, i))
        .collect();
    count(|| {
        let mut input = black_box(&stream).clone();
        let mut reader = CapsuleReader::new();
        while let Ok(Some(capsule)) = reader.read(&mut input) {
            black_box(capsule);
        }
    });
}

/// A section of each kind through encoder, decoder and validation, with tables of this size.
fn sections(table: u32) {
    let (mut encoder, mut decoder) = if table == 0 {
        (Encoder::new(), Decoder::new())
    } else {
        let mut encoder = Encoder::with_table(table, 0);
        encoder.set_peer_limits(table.into(), 0);
        (encoder, Decoder::with_table(table, 0))
    };
    let (request, fields) = (connect(), response());
    let mut out = BytesMut::with_capacity(2048);
    let mut through = |fields: &mut dyn FnMut(&mut Encoder, &mut BytesMut)| {
        fields(&mut encoder, &mut out);
        decoder
            .recv_encoder_stream(&mut encoder.take_instructions())
            .expect("own instructions");
        let section = decoder.decode(STREAM, out.split().freeze(), 1 << 16);
        encoder
            .recv_decoder_stream(&mut decoder.take_instructions())
            .expect("own instructions");
        section.expect("own section").fields().expect("no blocked section")
    };
    count(|| {
        let head = through(&mut |encoder, out| {
            let fields = headers::encode_request(&request, Some("webtransport")).expect("legal");
            encoder.encode(STREAM, fields, out);
        });
        black_box(headers::decode_request(head)).expect("own request");
        let head = through(&mut |encoder, out| {
            let fields = headers::encode_response(&StatusCode::OK, &fields).expect("legal");
            encoder.encode(STREAM, fields, out);
        });
        black_box(headers::decode_response(head)).expect("own response");
    });
}

/// From the first byte of HTTP/3 to an established session and its end, both ends.
fn session() {
    count(|| {
        let mut pair = Pair::connected(Config::default(), Config::default());
        let session = pair.session();
        let closed = pair.client.core.close_session(pair.now, session, 0, "done");
        closed.expect("an open session");
        pair.advance(Duration::from_secs(1));
        black_box(pair);
    });
}

/// Two bidirectional streams of 64 bytes each way, one after the other, both ends; more would measure how the pair delivers.
fn streams() {
    let mut pair = Pair::connected(Config::default(), Config::default());
    let session = pair.session();
    count(|| {
        for _ in 0..2 {
            let stream = pair.client.open(session, Dir::Bi).expect("an open session");
            pair.client.send(stream, &[7; 64], true);
            pair.run();
            pair.server.send(stream, &[7; 64], true);
            pair.run();
        }
    });
}

fn session_datagrams() {
    let mut pair = Pair::connected(Config::default(), Config::default());
    let session = pair.session();
    count(|| {
        for _ in 0..10 {
            pair.client.send_datagram(session, &[7; 64]).expect("an open session");
            pair.run();
        }
        pair.server.datagrams.clear();
    });
}

const CASES: [(&str, fn()); 9] = [
    ("varint", varints),
    ("datagram", datagrams),
    ("frame", frames),
    ("capsule", capsules),
    ("qpack-static", || sections(0)),
    ("qpack-dynamic", || sections(4096)),
    ("session", session),
    ("streams", streams),
    ("session-datagrams", session_datagrams),
];

fn main() {
    let wanted = std::env::args().nth(1);
    match CASES.iter().find(|(name, _)| Some(*name) == wanted.as_deref()) {
        Some((_, run)) => run(),
        None => CASES.iter().for_each(|(name, _)| println!("{name}")),
    }
}
