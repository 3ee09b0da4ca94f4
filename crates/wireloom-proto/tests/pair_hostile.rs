//! One connection against a peer that breaks the rules: what each crime gets, and that it reaches no further than it must.

use std::time::Duration;

use wireloom_proto::connection::SessionRequest;
use wireloom_proto::h3::frame;
use wireloom_proto::h3::settings::Settings;
use wireloom_proto::testing::peer::{
    ALL_SETTINGS, Lone, data, extended_connect, get, headers, post, varints, webtransport_connect,
};
use wireloom_proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom_proto::{Action, Code, Config, Event, Recv, Side, StreamId};

fn id(stream: u64) -> StreamId {
    StreamId::from_u64(stream)
}

/// Reset and stopped with `code`, and nothing else.
fn refused(stream: u64, code: Code) -> Vec<Action> {
    vec![
        Action::Reset {
            stream: id(stream),
            code,
        },
        Action::StopSending {
            stream: id(stream),
            code,
        },
    ]
}

/// The bytes on a fresh stream close a fresh connection with `code`, in one piece and byte by byte.
fn closes(mut fresh: impl FnMut() -> Lone, stream: impl Fn(&Lone) -> u64, bytes: &[u8], fin: bool, code: Code) {
    for chunk in [bytes.len().max(1), 1] {
        let mut lone = fresh();
        let stream = stream(&lone);
        let pieces: Vec<&[u8]> = bytes.chunks(chunk).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let _ = lone.recv(stream, piece, fin && index + 1 == pieces.len());
        }
        assert_eq!(lone.closed_with(), Some(code), "{bytes:x?}");
        // Nothing happens after it.
        assert!(lone.core.is_closed() && lone.core.poll_timeout().is_none());
        assert_eq!(lone.recv(stream, b"more", true), Recv::Done);
        lone.advance(Duration::from_secs(3600));
        assert!(lone.actions().is_empty());
    }
}

/// The bytes on the control stream after SETTINGS close the connection with `code`.
fn control_closes(side: Side, bytes: &[u8], code: Code) {
    closes(
        || Lone::new(side, Config::default(), &ALL_SETTINGS),
        |lone| lone.peer_uni(0),
        bytes,
        false,
        code,
    );
}

fn id_frame(ty: u64, id: u64) -> Vec<u8> {
    frame::encode(ty, &varints(&[id])).to_vec()
}

#[test]
fn the_control_stream_begins_with_settings() {
    // "If the first frame of the control stream is any other frame type, this MUST be treated as a connection error of
    // type H3_MISSING_SETTINGS" (RFC 9114 section 6.2.1).
    for first in [
        id_frame(frame::GOAWAY, 0),
        frame::encode(0x21, b"").to_vec(),
        data(b""),
        vec![0x02, 0x00],
    ] {
        for side in [Side::Server, Side::Client] {
            let bytes = [&[0][..], &first, &[4, 0]].concat();
            let fresh = || Lone::without_settings(side, Config::default());
            closes(fresh, |lone| lone.peer_uni(0), &bytes, false, Code::H3_MISSING_SETTINGS);
        }
    }
}

#[test]
fn settings_have_a_deadline() {
    let mut lone = Lone::without_settings(Side::Server, Config::default());
    lone.advance(Duration::from_secs(9));
    assert!(!lone.core.is_closed());
    lone.advance(Duration::from_secs(1));
    assert_eq!(lone.closed_with(), Some(Code::H3_MISSING_SETTINGS));
}

#[test]
fn critical_streams_are_single_and_stay_open() {
    for (ty, index) in [(0u8, 1), (2, 4), (3, 5)] {
        // A second one, and one that ends; the QPACK streams: RFC 9204 section 4.2. "receipt of a second stream
        // claiming to be a control stream MUST be treated as a connection error of type H3_STREAM_CREATION_ERROR" (RFC
        // 9114 section 6.2.1).
        // "If either control stream is closed at any point, this MUST be treated as a connection error of type
        // H3_CLOSED_CRITICAL_STREAM" (RFC 9114 section 6.2.1).
        let with_first = || {
            let mut lone = Lone::server();
            if ty != 0 {
                assert_eq!(lone.recv(lone.peer_uni(3), &[ty], false), Recv::Continue);
            }
            lone
        };
        closes(
            with_first,
            |lone| lone.peer_uni(index),
            &[ty],
            false,
            Code::H3_STREAM_CREATION_ERROR,
        );
        let first = if ty == 0 { 0 } else { 3 };
        let code = Code::H3_CLOSED_CRITICAL_STREAM;
        let mut lone = with_first();
        assert_eq!(lone.recv(lone.peer_uni(first), b"", true), Recv::Done);
        assert_eq!(lone.closed_with(), Some(code));
        let mut lone = with_first();
        lone.reset(lone.peer_uni(first), Code::H3_NO_ERROR);
        assert_eq!(lone.closed_with(), Some(code));
    }
    for own in [3, 7, 11] {
        let mut lone = Lone::server();
        lone.core.handle_stopped(lone.now, id(own), Code::H3_NO_ERROR);
        assert_eq!(lone.closed_with(), Some(Code::H3_CLOSED_CRITICAL_STREAM));
    }
}

#[test]
fn frames_that_may_not_come_on_the_control_stream() {
    let unexpected = Code::H3_FRAME_UNEXPECTED;
    for side in [Side::Server, Side::Client] {
        // "If an endpoint receives a second SETTINGS frame on the control stream, the endpoint MUST respond with a
        // connection error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.4).
        control_closes(side, &[4, 0], unexpected);
        // "If a DATA frame is received on a control stream, the recipient MUST respond with a connection error of type
        // H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.1).
        control_closes(side, &data(b"x"), unexpected);
        // "If a HEADERS frame is received on a control stream, the recipient MUST respond with a connection error of
        // type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.2).
        control_closes(side, &get(), unexpected);
        // "If a PUSH_PROMISE frame is received on the control stream, the client MUST respond with a connection error
        // of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.5).
        // "A server MUST treat the receipt of a PUSH_PROMISE frame as a connection error of type H3_FRAME_UNEXPECTED"
        // (RFC 9114 section 7.2.5).
        control_closes(side, &frame::encode(frame::PUSH_PROMISE, b"\0"), unexpected);
        // "their receipt MUST be treated as a connection error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.8).
        for ty in [2, 6, 8, 9] {
            control_closes(side, &[ty, 0], unexpected);
        }
        // "Receiving this frame type in any other circumstances MUST be treated as a connection error of type
        // H3_FRAME_ERROR" (draft 16 section 4.3).
        control_closes(side, &varints(&[0x41, 0]), Code::H3_FRAME_ERROR);
        // "If a CANCEL_PUSH frame is received that references a push ID greater than currently allowed on the
        // connection, this MUST be treated as a connection error of type H3_ID_ERROR" (RFC 9114 section 7.2.3).
        // "If a server receives a CANCEL_PUSH frame for a push ID that has not yet been mentioned by a PUSH_PROMISE
        // frame, this MUST be treated as a connection error of type H3_ID_ERROR" (RFC 9114 section 7.2.3).
        control_closes(side, &id_frame(frame::CANCEL_PUSH, 0), Code::H3_ID_ERROR);
        // "Receiving a GOAWAY containing a larger identifier than previously received MUST be treated as a connection
        // error of type H3_ID_ERROR" (RFC 9114 section 5.2).
        let growing = [id_frame(frame::GOAWAY, 4), id_frame(frame::GOAWAY, 8)].concat();
        control_closes(side, &growing, Code::H3_ID_ERROR);
        // "A frame payload that contains additional bytes after the identified fields or a frame payload that
        // terminates before the end of the identified fields MUST be treated as a connection error of type
        // H3_FRAME_ERROR" (RFC 9114 section 7.1).
        // "redundant length encodings MUST be verified to be self-consistent" (RFC 9114 section 7.1).
        control_closes(side, &[7, 2, 0, 0], Code::H3_FRAME_ERROR);
        control_closes(side, &[7, 1, 0x40], Code::H3_FRAME_ERROR);
        control_closes(side, &[7, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0], Code::H3_FRAME_ERROR);
        control_closes(side, &[7, 0], Code::H3_FRAME_ERROR);
    }
    // "A client MUST treat the receipt of a MAX_PUSH_ID frame as a connection error of type H3_FRAME_UNEXPECTED" (RFC
    // 9114 section 7.2.7).
    control_closes(Side::Client, &id_frame(frame::MAX_PUSH_ID, 0), unexpected);
    control_closes(
        Side::Client,
        &frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\0u=1"),
        unexpected,
    );
    // "A client MUST treat receipt of a GOAWAY frame containing a stream ID of any other type as a connection error of
    // type H3_ID_ERROR" (RFC 9114 section 7.2.6).
    control_closes(Side::Client, &id_frame(frame::GOAWAY, 1), Code::H3_ID_ERROR);
    // "receipt of a MAX_PUSH_ID frame that contains a smaller value than previously received MUST be treated as a
    // connection error of type H3_ID_ERROR" (RFC 9114 section 7.2.7).
    let shrinking = [id_frame(frame::MAX_PUSH_ID, 4), id_frame(frame::MAX_PUSH_ID, 3)].concat();
    control_closes(Side::Server, &shrinking, Code::H3_ID_ERROR);
    control_closes(
        Side::Server,
        &frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\x01u=1"),
        Code::H3_ID_ERROR,
    );
    // RFC 9218 section 7.2: no push was ever promised, however many the client would take.
    let allowed = [
        id_frame(frame::MAX_PUSH_ID, 4),
        frame::encode(frame::PRIORITY_UPDATE_PUSH, b"\x04u=1").to_vec(),
    ];
    control_closes(Side::Server, &allowed.concat(), Code::H3_ID_ERROR);
}

#[test]
fn control_frames_that_are_legal() {
    // "Endpoints MUST NOT consider these frames to have any meaning upon receipt" (RFC 9114 section 7.2.8).
    let mut lone = Lone::server();
    let control = lone.peer_uni(0);
    let legal = [
        id_frame(frame::MAX_PUSH_ID, 4),
        id_frame(frame::MAX_PUSH_ID, 4),
        frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\x04u=1").to_vec(),
        frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\x04u=").to_vec(),
        frame::encode(0x21, b"grease").to_vec(),
        frame::encode(0xabc, b"unknown").to_vec(),
        id_frame(frame::GOAWAY, 8),
        id_frame(frame::GOAWAY, 8),
        id_frame(frame::GOAWAY, 0),
    ];
    assert_eq!(lone.recv(control, &legal.concat(), false), Recv::Continue);
    assert!(lone.actions().is_empty());
    assert!(lone.events().iter().all(|event| matches!(event, Event::GoAway { .. })));
}

#[test]
fn settings_that_may_not_be() {
    // "Clients MUST treat values greater than "1" as a connection error of type H3_SETTINGS_ERROR" (draft 16 section
    // 3.1). "the receiver MUST terminate the connection with error H3_SETTINGS_ERROR" (RFC 9297 section 2.1.1).
    // Of HTTP/2's: "their receipt MUST be treated as a connection error of type H3_SETTINGS_ERROR" (RFC 9114 section
    // 7.2.4.1).
    for settings in [
        &[(2, 0)][..],
        &[(0x33, 2)],
        &[(8, 2)],
        &[(0x2b60_3742, 2)],
        &[(0x2c7c_f000, 2)],
    ] {
        let bytes = varints(&settings.iter().flat_map(|&(id, value)| [id, value]).collect::<Vec<_>>());
        let stream = [&[0][..], &frame::encode(frame::SETTINGS, &bytes)].concat();
        let fresh = || Lone::without_settings(Side::Client, Config::default());
        closes(fresh, |lone| lone.peer_uni(0), &stream, false, Code::H3_SETTINGS_ERROR);
    }
    // "The same setting identifier MUST NOT occur more than once in the SETTINGS frame" (RFC 9114 section 7.2.4).
    let twice = [&[0][..], &frame::encode(frame::SETTINGS, &varints(&[0x33, 1, 0x33, 1]))].concat();
    let fresh = || Lone::without_settings(Side::Server, Config::default());
    closes(fresh, |lone| lone.peer_uni(0), &twice, false, Code::H3_SETTINGS_ERROR);
}

/// Without WebTransport its settings and stream types are unknown ones: "An implementation MUST ignore any parameter with an
/// identifier it does not understand" (RFC 9114 section 7.2.4), and "The recipient MUST NOT consider unknown stream types to be
/// a connection error of any kind" (RFC 9114 section 6.2).
#[test]
fn nothing_of_webtransport_is_judged_where_it_is_off() {
    let mut off = Config::default();
    off.webtransport = false;
    let of_another_dialect = {
        let mut config = Config::default();
        config.dialects = Dialects::NONE.with(Dialect::Draft13);
        config
    };
    for config in [off.clone(), of_another_dialect] {
        let settings = [(0x2b60_3742, 2), (0x2c7c_f000, 2)];
        let lone = Lone::new(Side::Client, config, &settings);
        assert!(!lone.core.is_closed());
    }
    let mut lone = Lone::new(Side::Server, off, &ALL_SETTINGS);
    let uni = lone.peer_uni(3);
    let code = Code::H3_STREAM_CREATION_ERROR;
    // No session id, which would have to be a multiple of four.
    assert_eq!(lone.recv(uni, &varints(&[0x54, 1]), false), Recv::Done);
    let stream = id(uni);
    assert_eq!(lone.actions(), [Action::StopSending { stream, code }]);
    assert_eq!(lone.recv(0, &varints(&[0x41, 1]), false), Recv::Done);
    assert_eq!(lone.actions(), refused(0, code));
    assert!(!lone.core.is_closed());
}

#[test]
fn settings_that_nobody_knows() {
    // "An implementation MUST ignore any parameter with an identifier it does not understand" (RFC 9114 section 7.2.4);
    // of the reserved ones "Endpoints MUST NOT consider such settings to have any meaning upon receipt" (RFC 9114
    // section 7.2.4.1).
    let mut settings = ALL_SETTINGS.to_vec();
    let mut lone = Lone::new(Side::Client, Config::default(), &settings);
    let dialect = lone.core.dialect();
    settings.extend([(0x21, 0), (0x1f * 1000 + 0x21, (1 << 62) - 1), (0xabcdef, 7)]);
    for side in [Side::Client, Side::Server] {
        let mut more = Lone::new(side, Config::default(), &settings);
        assert_eq!(more.core.dialect(), dialect);
        assert!(!more.core.is_closed() && more.actions().is_empty());
    }
    assert!(lone.actions().is_empty());
}

#[test]
fn streams_that_may_not_be() {
    // "if a server receives a client-initiated push stream, this MUST be treated as a connection error of type
    // H3_STREAM_CREATION_ERROR" (RFC 9114 section 6.2.2).
    // "A client MUST treat receipt of a push stream as a connection error of type H3_ID_ERROR when no MAX_PUSH_ID frame
    // has been sent" (RFC 9114 section 4.6).
    closes(
        Lone::server,
        |lone| lone.peer_uni(1),
        &[1, 0],
        false,
        Code::H3_STREAM_CREATION_ERROR,
    );
    closes(Lone::client, |lone| lone.peer_uni(1), &[1, 0], false, Code::H3_ID_ERROR);
    // "Clients MUST treat receipt of a server-initiated bidirectional stream as a connection error of type
    // H3_STREAM_CREATION_ERROR unless such an extension has been negotiated" (RFC 9114 section 6.1).
    closes(Lone::client, |_| 1, &get(), false, Code::H3_STREAM_CREATION_ERROR);
    let without = || Lone::new(Side::Client, Config::default(), &[]);
    closes(
        without,
        |_| 1,
        &varints(&[0x41, 0]),
        false,
        Code::H3_STREAM_CREATION_ERROR,
    );
    // "If an endpoint receives a session ID on a unidirectional stream, bidirectional stream, or datagram that does not
    // correspond to a client-initiated bidirectional stream ID, the endpoint MUST close the connection with an
    // H3_ID_ERROR error code" (draft 16 section 4).
    for bad in [1, 2, 3, 7] {
        closes(
            Lone::server,
            |lone| lone.peer_uni(1),
            &varints(&[0x54, bad]),
            false,
            Code::H3_ID_ERROR,
        );
        closes(Lone::server, |_| 0, &varints(&[0x41, bad]), false, Code::H3_ID_ERROR);
        closes(Lone::client, |_| 1, &varints(&[0x41, bad]), false, Code::H3_ID_ERROR);
    }
}

#[test]
fn unknown_streams_are_stopped_and_forgotten() {
    let mut lone = Lone::server();
    let stream = lone.peer_uni(5);
    assert_eq!(lone.recv(stream, &varints(&[0x21]), false), Recv::Done);
    // "Recipients of unknown stream types MUST either abort reading of the stream or discard incoming data without
    // further processing" (RFC 9114 section 6.2).
    // "The recipient MUST NOT consider unknown stream types to be a connection error of any kind" (RFC 9114 section
    // 6.2).
    // "Endpoints MUST NOT consider these streams to have any meaning upon receipt" (RFC 9114 section 6.2.3).
    assert_eq!(
        lone.actions(),
        [Action::StopSending {
            stream: id(stream),
            code: Code::H3_STREAM_CREATION_ERROR
        }]
    );
    assert_eq!(lone.recv(stream, b"\0", true), Recv::Done);
    assert!(lone.actions().is_empty() && lone.core.leftovers().is_empty());
    assert!(!lone.core.is_closed());
    // "A receiver MUST tolerate unidirectional streams being closed or reset prior to the reception of the
    // unidirectional stream header" (RFC 9114 section 6.2).
    for (index, bytes) in [(6, &b""[..]), (7, b"\x40"), (8, b"\x40\x54\x40")] {
        let stream = lone.peer_uni(index);
        assert_eq!(lone.recv(stream, bytes, true), Recv::Done);
        let stream = lone.peer_uni(10 + index);
        let _ = lone.recv(stream, bytes, false);
        lone.reset(stream, Code::H3_NO_ERROR);
    }
    assert!(lone.actions().is_empty() && lone.core.leftovers().is_empty());
}

#[test]
fn frames_that_may_not_come_on_a_request_stream() {
    let unexpected = Code::H3_FRAME_UNEXPECTED;
    let frames = [
        // "If an endpoint receives a SETTINGS frame on a different stream, the endpoint MUST respond with a connection
        // error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.4).
        frame::encode(frame::SETTINGS, b"").to_vec(),
        // "Receiving a CANCEL_PUSH frame on a stream other than the control stream MUST be treated as a connection
        // error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.3).
        id_frame(frame::CANCEL_PUSH, 0),
        id_frame(frame::GOAWAY, 0),
        // "Receipt of a MAX_PUSH_ID frame on any other stream MUST be treated as a connection error of type
        // H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.7).
        id_frame(frame::MAX_PUSH_ID, 0),
        // "A server MUST treat the receipt of a PUSH_PROMISE frame as a connection error of type H3_FRAME_UNEXPECTED"
        // (RFC 9114 section 7.2.5).
        frame::encode(frame::PUSH_PROMISE, b"\0").to_vec(),
        frame::encode(frame::PRIORITY_UPDATE_REQUEST, b"\0").to_vec(),
        // "their receipt MUST be treated as a connection error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.8).
        vec![2, 0],
        vec![6, 0],
        vec![8, 0],
        vec![9, 0],
    ];
    for bad in frames {
        closes(Lone::server, |_| 0, &bad, false, unexpected);
        closes(Lone::server, |_| 0, &[get(), bad].concat(), false, unexpected);
    }
    // "Receipt of an invalid sequence of frames MUST be treated as a connection error of type H3_FRAME_UNEXPECTED" (RFC
    // 9114 section 4.1): DATA first, anything after trailers.
    closes(Lone::server, |_| 0, &data(b"x"), false, unexpected);
    let trailers = headers(&[("checksum", "x")]);
    closes(
        Lone::server,
        |_| 0,
        &[post(None), trailers.clone(), data(b"x")].concat(),
        false,
        unexpected,
    );
    closes(
        Lone::server,
        |_| 0,
        &[post(None), trailers.clone(), trailers].concat(),
        false,
        unexpected,
    );
    // "When a stream terminates cleanly, if the last frame on the stream was truncated, this MUST be treated as a
    // connection error of type H3_FRAME_ERROR" (RFC 9114 section 7.1).
    closes(Lone::server, |_| 0, &get()[..5], true, Code::H3_FRAME_ERROR);
    closes(
        Lone::server,
        |_| 0,
        &[&post(None)[..], &data(b"xyz")[..3]].concat(),
        true,
        Code::H3_FRAME_ERROR,
    );
    closes(Lone::server, |_| 0, &[0x40], true, Code::H3_FRAME_ERROR);
    // "Receiving this frame type in any other circumstances MUST be treated as a connection error of type
    // H3_FRAME_ERROR" (draft 16 section 4.3).
    closes(
        Lone::server,
        |_| 0,
        &[get(), varints(&[0x41, 0])].concat(),
        false,
        Code::H3_FRAME_ERROR,
    );
    // "Receipt of any other known frame type MUST be treated as a connection error of type H3_FRAME_UNEXPECTED" (RFC
    // 9114 section 4.4).
    let connect = headers(&[(":method", "CONNECT"), (":authority", "localhost:1")]);
    // The second is above the limit of 64 KiB.
    for more in [headers(&[("a", "b")]), headers(&[("a", &"b".repeat(100_000))])] {
        for connect in [&connect, &webtransport_connect()] {
            closes(Lone::server, |_| 0, &[&connect[..], &more].concat(), false, unexpected);
        }
    }
    // QPACK: RFC 9204 sections 3.1 and 4.5.1.1.
    for section in [&[0, 0, 0xff, 0x24][..], &[1, 0], &[0, 0, 0x80], &[0]] {
        let bytes = frame::encode(frame::HEADERS, section);
        closes(Lone::server, |_| 0, &bytes, false, Code::QPACK_DECOMPRESSION_FAILED);
    }
    closes(
        Lone::server,
        |lone| lone.peer_uni(1),
        &[2, 0x3f, 0xe2, 0x1f],
        false,
        Code::QPACK_ENCODER_STREAM_ERROR,
    );
    closes(
        Lone::server,
        |lone| lone.peer_uni(1),
        &[3, 0],
        false,
        Code::QPACK_DECODER_STREAM_ERROR,
    );
}

#[test]
fn malformed_requests_are_reset() {
    let base = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
    let requests: Vec<Vec<(&str, &str)>> = vec![
        with(&[(":path", "/")]),
        base[..3].to_vec(),
        with(&[("a", "b"), (":path", "/")]),
        with(&[(":unknown", "x")]),
        with(&[("Upper", "x")]),
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("a", "b\r\nc: d")]),
        with(&[("a", "b\0c")]),
        with(&[("host", "elsewhere")]),
        with(&[("te", "gzip")]),
        with(&[(":protocol", "webtransport")]),
        vec![(":method", "CONNECT"), (":authority", "localhost"), (":path", "/")],
        with(&[("content-length", "x")]),
    ];
    for fields in requests {
        let mut lone = Lone::server();
        assert_eq!(lone.recv(0, &headers(&fields), true), Recv::Done, "{fields:?}");
        // "Malformed requests or responses that are detected MUST be treated as a stream error of type
        // H3_MESSAGE_ERROR" (RFC 9114 section 4.1.2).
        assert_eq!(lone.actions(), refused(0, Code::H3_MESSAGE_ERROR), "{fields:?}");
        assert!(lone.events().is_empty() && lone.core.leftovers().is_empty());
        // The connection goes on.
        assert_eq!(lone.recv(4, &get(), true), Recv::Done);
        assert!(matches!(
            lone.events()[..],
            [Event::Request { .. }, Event::Finished { .. }]
        ));
    }
}

/// "receipt of multiple requests or receipt of an additional HTTP response following a final HTTP response MUST be
/// treated as malformed" (RFC 9114 section 4.1).
#[test]
fn a_second_request_on_a_stream_is_malformed() {
    let mut lone = Lone::server();
    let _ = lone.recv(0, &[post(None), data(b"x"), get()].concat(), true);
    assert_eq!(lone.actions(), refused(0, Code::H3_MESSAGE_ERROR));
    assert!(!lone.core.is_closed() && lone.core.leftovers().is_empty());
}

#[test]
fn content_length_and_data_must_agree() {
    for (length, body, fin) in [
        ("3", &b"four"[..], false),
        ("3", b"no", true),
        ("0", b"x", false),
        ("1", b"", true),
    ] {
        let mut lone = Lone::server();
        let _ = lone.recv(0, &[post(Some(length)), data(body)].concat(), fin);
        let actions = lone.actions();
        assert_eq!(actions, refused(0, Code::H3_MESSAGE_ERROR), "{length} {body:?}");
        let events = lone.events();
        let last = events.last();
        assert!(
            matches!(
                last,
                Some(Event::MessageFailed {
                    code: Code::H3_MESSAGE_ERROR,
                    by_peer: false,
                    ..
                })
            ),
            "{events:?}"
        );
        assert!(lone.core.leftovers().is_empty());
    }
}

/// "Clients MUST NOT accept a malformed response" (RFC 9114 section 4.1.2).
#[test]
fn responses_are_judged_too() {
    let answer = |bytes: Vec<u8>, fin, expected| {
        let mut lone = Lone::client();
        let head = http::Request::get("https://localhost/").body(()).expect("a request");
        lone.core
            .send_request(lone.now, id(0), &head, true)
            .expect("a new stream");
        lone.actions();
        let _ = lone.recv(0, &bytes, fin);
        let events = lone.events();
        let failed = events.iter().find_map(|event| match event {
            Event::MessageFailed {
                code, by_peer: false, ..
            } => Some(*code),
            _ => None,
        });
        assert_eq!(failed.or_else(|| lone.closed_with()), Some(expected), "{bytes:x?}");
    };
    let error = Code::H3_MESSAGE_ERROR;
    answer(headers(&[("a", "b")]), false, error);
    answer(headers(&[(":status", "101")]), false, error);
    answer(headers(&[(":status", "2000")]), false, error);
    answer(headers(&[(":status", "200"), (":path", "/")]), false, error);
    answer(Vec::new(), true, error);
    answer(headers(&[(":status", "100")]), true, error);
    answer([headers(&[(":status", "204")]), data(b"x")].concat(), false, error);
    answer(
        [headers(&[(":status", "200"), ("content-length", "1")]), data(b"xy")].concat(),
        false,
        error,
    );
    // "receipt of multiple requests or receipt of an additional HTTP response following a final HTTP response MUST be
    // treated as malformed" (RFC 9114 section 4.1).
    answer(headers(&[(":status", "200")]).repeat(2), false, error);
    // "A client MUST treat receipt of a PUSH_PROMISE frame that contains a larger push ID than the client has
    // advertised as a connection error of H3_ID_ERROR" (RFC 9114 section 7.2.5).
    answer(
        frame::encode(frame::PUSH_PROMISE, b"\0").to_vec(),
        false,
        Code::H3_ID_ERROR,
    );
    // "A client MUST treat a GOAWAY frame on a stream other than the control stream as a connection error of type
    // H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.6).
    answer(id_frame(frame::GOAWAY, 0), false, Code::H3_FRAME_UNEXPECTED);
    answer(data(b"x"), false, Code::H3_FRAME_UNEXPECTED);
    // "Receiving this frame type in any other circumstances MUST be treated as a connection error of type
    // H3_FRAME_ERROR" (draft 16 section 4.3): the server has not opened the stream, so its half begins no stream of its own.
    answer(varints(&[0x41, 0]), false, Code::H3_FRAME_ERROR);
    let connecting = || {
        let mut lone = Lone::client();
        let request = SessionRequest::new("localhost", "/");
        lone.core.connect(lone.now, id(0), &request).expect("negotiated");
        lone
    };
    closes(connecting, |_| 0, &varints(&[0x41, 0]), false, Code::H3_FRAME_ERROR);
}

#[test]
fn some_requests_are_answered_without_the_application() {
    let answered = |lone: &mut Lone, bytes: &[u8], status: &str| {
        assert_eq!(lone.recv(0, bytes, false), Recv::Done);
        let section = headers(&[(":status", status)]);
        let expected = [
            Action::Write {
                stream: id(0),
                data: section.into(),
                fin: true,
            },
            Action::StopSending {
                stream: id(0),
                code: Code::H3_NO_ERROR,
            },
        ];
        assert_eq!(lone.actions(), expected);
        assert!(lone.events().is_empty() && lone.core.leftovers().is_empty());
    };
    // RFC 9220 section 3.
    answered(&mut Lone::server(), &extended_connect("connect-udp", &[]), "501");
    answered(&mut Lone::server(), &extended_connect("websocket", &[]), "501");
    let mut config = Config::default();
    config.webtransport = false;
    answered(
        &mut Lone::new(Side::Server, config, &ALL_SETTINGS),
        &webtransport_connect(),
        "501",
    );
    // RFC 9114 section 4.2.2, by the length of the frame, and by what it decodes to.
    let mut config = Config::default();
    config.max_field_section_size = 1000;
    let large = "x".repeat(2000);
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
        ("large", &large),
    ];
    answered(
        &mut Lone::new(Side::Server, config.clone(), &ALL_SETTINGS),
        &headers(&fields),
        "431",
    );
    let mut many = fields[..4].to_vec();
    many.extend([("age", "0"); 50]);
    answered(
        &mut Lone::new(Side::Server, config, &ALL_SETTINGS),
        &headers(&many),
        "431",
    );
}

#[test]
fn slow_headers_have_a_deadline() {
    let mut lone = Lone::server();
    let uni = lone.peer_uni(3);
    assert_eq!(lone.recv(0, &[0x40], false), Recv::Continue);
    assert_eq!(lone.recv(uni, &[0x40, 0x54], false), Recv::Continue);
    assert_eq!(lone.recv(4, &webtransport_connect()[..2], false), Recv::Continue);
    lone.advance(Duration::from_secs(9));
    // Trickling does not move it.
    assert_eq!(lone.recv(uni, &[0xc0], false), Recv::Continue);
    assert_eq!(lone.recv(4, &webtransport_connect()[2..4], false), Recv::Continue);
    assert!(lone.actions().is_empty());
    lone.advance(Duration::from_secs(1));
    let mut expected = refused(0, Code::H3_STREAM_CREATION_ERROR);
    expected.push(Action::StopSending {
        stream: id(uni),
        code: Code::H3_STREAM_CREATION_ERROR,
    });
    expected.extend(refused(4, Code::H3_REQUEST_INCOMPLETE));
    assert_eq!(lone.actions(), expected);
    assert!(lone.core.leftovers().is_empty() && lone.core.poll_timeout().is_none());
    // Late bytes of theirs are nothing new.
    assert_eq!(lone.recv(4, b"x", false), Recv::Done);
    assert_eq!(lone.recv(uni, b"x", false), Recv::Done);
    assert!(lone.actions().is_empty());
}

#[test]
fn slow_trailers_have_a_deadline() {
    let trailers = headers(&[("x", "y")]);
    let sent = |more: &[u8]| {
        let mut lone = Lone::server();
        let _ = lone.recv(0, &post(None), false);
        assert!(matches!(lone.events()[..], [.., Event::Request { .. }]));
        let _ = lone.recv(0, more, false);
        lone
    };
    let mut lone = sent(&trailers[..4]);
    lone.advance(Duration::from_secs(9));
    // Trickling does not move it.
    assert_eq!(lone.recv(0, &trailers[4..5], false), Recv::Continue);
    assert!(lone.events().is_empty());
    lone.advance(Duration::from_secs(1));
    assert!(matches!(
        lone.events()[..],
        [Event::MessageFailed {
            code: Code::H3_REQUEST_INCOMPLETE,
            by_peer: false,
            ..
        }]
    ));
    assert_eq!(lone.actions(), refused(0, Code::H3_REQUEST_INCOMPLETE));
    assert!(lone.core.leftovers().is_empty() && lone.core.poll_timeout().is_none());
    // A body may take its time, and so may an application that is to take some of it before the rest is read.
    for more in [data(b"x"), [data(b"x"), trailers[..4].to_vec()].concat()] {
        let mut lone = sent(&more);
        lone.advance(Duration::from_secs(3600));
        assert!(matches!(lone.events()[..], [Event::Data { .. }]));
        let rest = if more.len() > data(b"x").len() {
            &trailers[4..]
        } else {
            &trailers
        };
        let _ = lone.recv(0, rest, true);
        assert!(matches!(
            lone.events()[..],
            [Event::Trailers { .. }, Event::Finished { .. }]
        ));
    }
}

#[test]
fn requests_that_end_early() {
    let mut lone = Lone::server();
    assert_eq!(lone.recv(0, b"", true), Recv::Done);
    assert_eq!(lone.actions(), refused(0, Code::H3_REQUEST_INCOMPLETE));
    assert_eq!(lone.recv(4, &[0x40, 0x41, 0x40], true), Recv::Done);
    assert_eq!(lone.actions(), refused(4, Code::H3_REQUEST_INCOMPLETE));
    assert_eq!(lone.recv(8, &frame::encode(0x21, b"x"), true), Recv::Done);
    assert_eq!(lone.actions(), refused(8, Code::H3_REQUEST_INCOMPLETE));
    let _ = lone.recv(12, &get()[..4], false);
    lone.reset(12, Code::H3_REQUEST_CANCELLED);
    lone.reset(16, Code::H3_REQUEST_CANCELLED);
    let reset = |stream| Action::Reset {
        stream: id(stream),
        code: Code::H3_REQUEST_CANCELLED,
    };
    assert_eq!(lone.actions(), [reset(12), reset(16)]);
    assert!(lone.events().is_empty() && lone.core.leftovers().is_empty());
}

#[test]
fn floods_close_the_connection() {
    let load = Code::H3_EXCESSIVE_LOAD;
    // RFC 9114 section 10.5: frames without effect, on every kind of stream.
    let grease = frame::encode(0x21, b"").repeat(2000);
    control_closes(Side::Server, &grease, load);
    closes(Lone::server, |_| 0, &grease, false, load);
    closes(
        Lone::server,
        |_| 0,
        &[get(), data(b"").repeat(2000)].concat(),
        false,
        load,
    );
    let with_session = || Lone::server_with_session(Config::default(), &ALL_SETTINGS).0;
    closes(with_session, |_| 0, &grease, false, load);
    closes(with_session, |_| 0, &data(&[0x17, 0]).repeat(2000), false, load);
    // Some are fine.
    let mut lone = Lone::server();
    let _ = lone.recv(0, &[get(), frame::encode(0x21, b"").repeat(1000)].concat(), true);
    assert!(!lone.core.is_closed());
    // Nor is one now and then a flood, however long the connection lasts: it may keep it alive.
    let (mut lone, _) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
    let control = lone.peer_uni(0);
    let _ = lone.recv(4, &post(None), false);
    for _ in 0..2000 {
        let grease = frame::encode(0x21, b"");
        for (stream, bytes) in [(control, &grease), (0, &data(&[0x17, 0]).into()), (4, &grease)] {
            let _ = lone.recv(stream, bytes, false);
        }
        lone.advance(Duration::from_secs(1));
    }
    assert_eq!(lone.closed_with(), None);
    // A flood after that is one.
    let _ = lone.recv(0, &grease, false);
    assert_eq!(lone.closed_with(), Some(load));

    // Requests that are made to be cancelled.
    for bytes in [get(), webtransport_connect()] {
        let mut lone = Lone::server();
        let mut made = 0;
        while !lone.core.is_closed() && made < 2000 {
            let _ = lone.recv(4 * made, &bytes, false);
            lone.reset(4 * made, Code::H3_REQUEST_CANCELLED);
            // As most clients do: it is one request all the same.
            let code = Code::H3_REQUEST_CANCELLED;
            lone.core.handle_stopped(lone.now, id(4 * made), code);
            lone.core.reset_message(id(4 * made), Code::H3_REQUEST_CANCELLED);
            made += 1;
        }
        assert_eq!((lone.closed_with(), made), (Some(load), 513));
        // At a human pace it is no crime.
        let mut lone = Lone::server();
        for made in 0..2000 {
            let _ = lone.recv(4 * made, &bytes, false);
            lone.reset(4 * made, Code::H3_REQUEST_CANCELLED);
            lone.core.reset_message(id(4 * made), Code::H3_REQUEST_CANCELLED);
            lone.advance(Duration::from_millis(50));
        }
        assert!(!lone.core.is_closed());
    }

    // Stopped before their first byte is here, as where a packet was lost.
    for bytes in [get(), webtransport_connect()] {
        let mut lone = Lone::server();
        let mut made = 0;
        while !lone.core.is_closed() && made < 2000 {
            let code = Code::H3_REQUEST_CANCELLED;
            lone.core.handle_stopped(lone.now, id(4 * made), code);
            let _ = lone.recv(4 * made, &bytes, true);
            made += 1;
        }
        assert_eq!((lone.closed_with(), made), (Some(load), 513));
    }

    // Requests that the server has to reset: what its handler does is in vain, too ("MadeYouReset").
    let malformed_trailers = [get(), headers(&[(":path", "/")])].concat();
    for bytes in [post(Some("1")), malformed_trailers] {
        let mut lone = Lone::server();
        let mut made = 0;
        while !lone.core.is_closed() && made < 2000 {
            let _ = lone.recv(4 * made, &bytes, true);
            made += 1;
        }
        assert_eq!((lone.closed_with(), made), (Some(load), 513));
    }
    // Where the response has begun the server's work was not.
    let mut lone = Lone::server();
    for made in 0..2000 {
        let _ = lone.recv(4 * made, &post(Some("1")), false);
        let answered = lone.core.send_response(id(4 * made), &http::Response::new(()), true);
        answered.expect("requested");
        let _ = lone.recv(4 * made, b"", true);
    }
    assert!(!lone.core.is_closed());
}

/// RFC 9204 section 3.2.3: the capacity of QPACK's table stays what it was, be more allowed or less.
#[test]
fn early_data_binds_the_server_to_its_table() {
    for (now, error) in [
        (4096, None),
        (8192, Some(Code::QPACK_DECODER_STREAM_ERROR)),
        (0, Some(Code::QPACK_DECODER_STREAM_ERROR)),
    ] {
        let mut lone = Lone::without_settings(Side::Client, Config::default());
        lone.core.resume([(1, 4096)].into_iter().collect());
        let settings: Settings = [(1, now)].into_iter().collect();
        let stream = [&[0][..], &settings.encode_frame()].concat();
        let _ = lone.recv(lone.peer_uni(0), &stream, false);
        assert_eq!(lone.closed_with(), error, "{now}");
    }
}

/// "A client MUST comply with stored settings -- or default values if no values are stored -- when attempting 0-RTT"
/// (RFC 9114 section 7.2.4.2).
#[test]
fn early_requests_keep_to_the_settings_that_are_remembered() {
    let large = "x".repeat(300);
    let head = http::Request::get("https://localhost/").header("large", large);
    let head = head.body(()).expect("a request");
    for (remembered, fits) in [(&[(6, 250)][..], false), (&[(6, 1000)], true), (&[], true)] {
        let mut lone = Lone::without_settings(Side::Client, Config::default());
        lone.core.resume(remembered.iter().copied().collect());
        let sent = lone.core.send_request(lone.now, id(0), &head, true);
        assert_eq!(sent.is_ok(), fits, "{remembered:?}: {sent:?}");
        lone.actions();
        // Nor is QPACK's table used before the server allows it.
        assert!(lone.encoder_stream.is_empty());
    }
}
