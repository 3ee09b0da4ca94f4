//! The fuzz target of the connection: any peer at all.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::peer::{self, ALL_SETTINGS, DRAFT02_SETTINGS, LIMITED_SETTINGS, Lone};
use super::script::{self, Op};
use crate::capsule;
use crate::connection::{Config, SessionRequest};
use crate::h3::frame;
use crate::h3::settings::Settings;
use crate::webtransport::flow::FlowControl;
use crate::webtransport::negotiate::Dialect;
use crate::{Action, Code, Dir, Event, SessionId, Side, StreamId};

/// Takes the first bytes of `data`, fewer at its end.
fn take<'a>(data: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(len.min(data.len()));
    *data = rest;
    taken
}

/// What a peer may say, legal in some place.
fn phrases() -> Vec<Vec<u8>> {
    let mut phrases = vec![
        peer::get(),
        peer::post(None),
        peer::post(Some("4")),
        peer::headers(&[(":status", "200")]),
        peer::headers(&[(":status", "103")]),
        peer::headers(&[(":status", "404")]),
        peer::headers(&[("checksum", "x")]),
        peer::headers(&[(":method", "CONNECT"), (":authority", "localhost:1")]),
        peer::webtransport_connect(),
        peer::extended_connect("webtransport-h3", &[("wt-available-protocols", "\"a\", \"b\"")]),
        peer::extended_connect("websocket", &[]),
        peer::data(b""),
        peer::data(b"body"),
        peer::data(&capsule::encode_close_session(1, "bye")),
        peer::data(&capsule::encode_drain_session()),
        peer::data(&capsule::encode_datagram(b"datagram")),
        peer::data(&capsule::encode_max_data(1)),
        peer::data(&[0x17, 1, 0]),
        vec![0],
        vec![2],
        vec![3],
        peer::varints(&[0x21]),
        peer::varints(&[0x41, 0]),
        peer::varints(&[0x41, 8]),
        peer::varints(&[0x54, 0]),
        peer::varints(&[0x54, 4]),
        frame::encode(0x21, b"grease").to_vec(),
        frame::encode(frame::GOAWAY, b"\x08").to_vec(),
        frame::encode(frame::MAX_PUSH_ID, b"\x01").to_vec(),
    ];
    for dir in [Dir::Bi, Dir::Uni] {
        phrases.push(peer::data(&capsule::encode_max_streams(dir, 7)));
        phrases.push(peer::data(&capsule::encode_streams_blocked(dir, 2)));
    }
    phrases.push(peer::data(&capsule::encode_max_data(1000)));
    phrases.push(peer::data(&capsule::encode_data_blocked(8)));
    let settings = [&ALL_SETTINGS[..], &DRAFT02_SETTINGS, &LIMITED_SETTINGS, &[]];
    phrases.extend(settings.map(|list| {
        let settings: Settings = list.iter().copied().collect();
        [&[0][..], &settings.encode_frame()].concat()
    }));
    // QPACK's encoder stream, what may follow on it, and sections that wait for that: a request, its CONNECT, trailers.
    phrases.extend([
        b"\x02\x3f\xbd\x01\xc0\x09localhost".to_vec(),
        b"\xc1\x01/".to_vec(),
        b"\x3f\xbd\x01\xc0\x09localhost\xc1\x01/".to_vec(),
        b"\x02".to_vec(),
        frame::encode(frame::HEADERS, b"\x03\x81\xd1\xd7\x10\x11").to_vec(),
        frame::encode(
            frame::HEADERS,
            b"\x03\x81\xcf\xd7\x10\x11\x27\x02:protocol\x0cwebtransport",
        )
        .to_vec(),
        frame::encode(frame::HEADERS, b"\x02\x80\xd9\x10").to_vec(),
    ]);
    // New ones at the end: the corpus knows them by number.
    phrases.extend([
        frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\x04u=1, i").to_vec(),
        frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\x18u=").to_vec(),
        frame::encode(frame::PRIORITY_UPDATE_PUSH, b"\x00u=1").to_vec(),
    ]);
    phrases
}

/// Each step is a byte that says what happens, a byte that says where, and what it needs. Whatever comes: no panic, nothing
/// after Close, no deadline that outlives its time, no stream that is both handed out and forgotten.
pub fn connection(mut data: &[u8]) {
    let first = take(&mut data, 1).first().copied().unwrap_or_default();
    let side = if first & 1 == 0 { Side::Server } else { Side::Client };
    let config = Config {
        websocket: true,
        max_sessions: 3,
        flow_control: FlowControl {
            streams_uni: 2,
            streams_bi: 2,
            data: 8,
        },
        max_parked_streams: 2,
        max_parked_datagrams: 2,
        max_parked_bytes: 64,
        max_early_capsule_bytes: 8,
        max_field_section_size: 512,
        ..Config::default()
    };
    let mut lone = match first >> 1 & 3 {
        0 => Lone::without_settings(side, config),
        1 => Lone::new(side, config, &DRAFT02_SETTINGS),
        2 if first & 8 == 0 => Lone::new(side, config, &[]),
        2 => Lone::new(side, config, &LIMITED_SETTINGS),
        _ => Lone::new(side, config, &ALL_SETTINGS),
    };
    let mut own_streams = 0;
    let mut ended = BTreeMap::new();
    let phrases = phrases();
    while let &[kind_byte, place, ..] = data {
        take(&mut data, 2);
        // Few streams, so that the steps meet each other on them.
        let stream = match place & 3 {
            0 => StreamId::new(Side::Client, Dir::Bi, u64::from(place >> 2 & 7)),
            1 => StreamId::new(Side::Server, Dir::Bi, u64::from(place >> 2 & 7)),
            _ => StreamId::new(!side, Dir::Uni, u64::from(place >> 2 & 7)),
        };
        let session = SessionId::new(StreamId::new(Side::Client, Dir::Bi, u64::from(place >> 2 & 7)));
        let code = Code::new(u64::from(place));
        match kind_byte & 15 {
            kind @ 0..=5 => {
                let len = take(&mut data, 1).first().copied().unwrap_or_default();
                // Mutation alone seldom finds a whole legal message, so half of the steps say one.
                let phrase = if kind < 3 {
                    take(&mut data, usize::from(len)).to_vec()
                } else {
                    let phrase = &phrases[usize::from(len) % phrases.len()];
                    // Sometimes cut short; the rest may never come.
                    let cut = if kind == 5 {
                        usize::from(place) % (phrase.len() + 1)
                    } else {
                        phrase.len()
                    };
                    phrase[..cut].to_vec()
                };
                let _ = lone.recv(stream.into_u64(), &phrase, kind_byte & 16 != 0);
            }
            6 => lone.core.handle_reset(lone.now, stream, code),
            7 => lone.core.handle_stopped(lone.now, stream, code),
            8 => {
                let payload = Bytes::copy_from_slice(take(&mut data, usize::from(place & 15)));
                let _ = lone.core.handle_datagram(lone.now, payload);
            }
            9 => lone.advance(Duration::from_millis(100 * u64::from(place))),
            10 => {
                let stream = StreamId::new(side, if place & 1 == 0 { Dir::Bi } else { Dir::Uni }, 100 + own_streams);
                own_streams += 1;
                if let Some(session) = session {
                    let _ = lone.core.open_stream(session, stream);
                }
                let _ = lone
                    .core
                    .connect(lone.now, stream, &SessionRequest::new("localhost", "/"));
            }
            11 => {
                if let Some(session) = session {
                    let _ = lone.core.accept_session(lone.now, session, &Response::new(()), None);
                }
            }
            12 => {
                if let Some(session) = session {
                    let mut head = Response::new(());
                    *head.status_mut() = StatusCode::NOT_FOUND;
                    let _ = lone.core.reject_session(lone.now, session, &head, Bytes::new());
                    let _ = lone.core.drain_session(session);
                    let _ = lone.core.close_session(lone.now, session, 0, "");
                }
            }
            13 => {
                let _ = lone.core.send_response(stream, &Response::new(()), place & 128 != 0);
                let _ = lone.core.finish(stream);
            }
            14 => {
                lone.core.reset_message(stream, code);
                lone.core.stop_message(stream, code);
                lone.core.send_closed(stream);
                match place & 3 {
                    0 => lone.core.recv_aborted(stream, None),
                    1 => lone.core.recv_aborted(stream, Some(3)),
                    _ => lone.core.recv_closed(stream),
                };
                if let Some(session) = session {
                    lone.core.data_received(session, u64::from(place >> 6));
                    lone.core.data_consumed(session, u64::from(place >> 5));
                    lone.core.data_sent(session, u64::from(place >> 4));
                    lone.core.data_blocked(session);
                    lone.core.tell_blocked();
                }
            }
            _ => lone.core.goaway(lone.now),
        }
        let actions = lone.actions();
        let close = actions.iter().position(|action| matches!(action, Action::Close { .. }));
        assert!(close.is_none_or(|at| at + 1 == actions.len()), "{actions:?}");
        for event in lone.events() {
            if let Event::SessionClosed { session, .. } | Event::SessionRejected { session, .. } = event {
                assert_eq!(
                    ended.insert(session, ()),
                    None,
                    "told twice that session {session} is over"
                );
            }
        }
        if close.is_some() {
            assert!(lone.core.is_closed());
            break;
        }
        lone.core.handle_timeout(lone.now);
        assert!(lone.core.poll_timeout().is_none_or(|next| next > lone.now));
    }
}

/// A script of operations on two well-behaved ends, three bytes for each.
pub fn connection_script(data: &[u8]) {
    let ops: Vec<Op> = data
        .chunks_exact(3)
        .take(200)
        .map(|bytes| Op::from_bytes([bytes[0], bytes[1], bytes[2]]))
        .collect();
    let dialect = if data.len() & 1 == 0 {
        Dialect::Draft02
    } else {
        Dialect::Draft15
    };
    script::run(dialect, &ops);
}
