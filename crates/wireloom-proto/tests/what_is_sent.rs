//! Every byte that two well-behaved ends write in a busy life, read by the rules of the specifications.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use wireloom_proto::connection::{CommandError, PeerTransport, SessionRequest};
use wireloom_proto::h3::frame;
use wireloom_proto::h3::headers::{decode_request, decode_response};
use wireloom_proto::h3::reader::{Frame, FrameLimits, FrameReader};
use wireloom_proto::h3::settings::{self, Settings};
use wireloom_proto::qpack::Decoder;
use wireloom_proto::testing::peer::varints;
use wireloom_proto::testing::pipe::{End, Pair};
use wireloom_proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom_proto::{Action, Code, Config, Connection, Dir, Event, SessionId, Side, StreamId, varint};

/// Without a dynamic table, so that a section can be read by itself.
fn config() -> Config {
    let mut config = Config::default();
    config.qpack_max_table_capacity = 0;
    config.dialects = Dialects::NONE.with(Dialect::Draft15);
    config
}

const TRANSPORT: PeerTransport = PeerTransport {
    datagrams: true,
    reset_stream_at: false,
};

fn own(side: Side, index: u64) -> StreamId {
    StreamId::new(side, Dir::Uni, index)
}

/// All that was written on a stream.
fn wire(end: &End, stream: StreamId) -> Bytes {
    end.wire
        .get(&stream)
        .map(|(bytes, _)| bytes.clone().freeze())
        .unwrap_or_default()
}

/// Types and payloads of whole frames.
fn frames(mut bytes: Bytes) -> Vec<(u64, Bytes)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let ty = varint::take(&mut bytes).expect("a type");
        let len = varint::take(&mut bytes).expect("a length");
        let len = usize::try_from(len).expect("a short frame");
        frames.push((ty, bytes.split_to(len)));
    }
    frames
}

/// A request with body and trailers and its response, a CONNECT, two sessions with streams and datagrams both ways, one closed
/// by each end, then GOAWAY from both.
fn life() -> (Pair, Vec<SessionId>) {
    let mut pair = Pair::connected(config(), config());
    let now = pair.now;
    let trailers: HeaderMap = [(http::header::ETAG, HeaderValue::from_static("x"))]
        .into_iter()
        .collect();
    let stream = pair.client.new_stream(Dir::Bi);
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = "https://localhost".parse().expect("a URI");
    head.headers_mut().insert("x-one", HeaderValue::from_static("1"));
    pair.client
        .core
        .send_request(now, stream, &head, false)
        .expect("a request");
    pair.run();
    for side in [Side::Client, Side::Server] {
        let end = pair.end(side);
        if side == Side::Server {
            end.core
                .send_response(stream, &Response::new(()), false)
                .expect("requested");
        }
        let header = end.core.data_header(stream, 4).expect("after the head");
        end.pump();
        end.write(stream, &header, false);
        end.write(stream, b"body", false);
        end.core.send_trailers(stream, &trailers).expect("after the body");
        pair.run();
    }
    let tunnel = pair.client.new_stream(Dir::Bi);
    let mut head = Request::new(());
    *head.method_mut() = Method::CONNECT;
    *head.uri_mut() = "localhost:443".parse().expect("an authority");
    pair.client
        .core
        .send_request(now, tunnel, &head, true)
        .expect("a request");
    pair.run();
    pair.server
        .core
        .send_response(tunnel, &Response::new(()), true)
        .expect("requested");
    pair.run();
    pair.client.events.clear();
    pair.server.events.clear();
    let sessions = vec![pair.session(), pair.session()];
    for &session in &sessions {
        for side in [Side::Client, Side::Server] {
            for dir in [Dir::Bi, Dir::Uni] {
                let stream = pair.end(side).open(session, dir).expect("open");
                pair.end(side).send(stream, b"payload", true);
            }
            pair.end(side).send_datagram(session, b"datagram").expect("open");
            pair.end(side).core.drain_session(session).expect("open");
            pair.end(side).pump();
        }
        pair.run();
    }
    pair.client
        .core
        .close_session(now, sessions[0], 1, "mine")
        .expect("open");
    pair.server
        .core
        .close_session(now, sessions[1], 2, "yours")
        .expect("open");
    pair.run();
    for side in [Side::Client, Side::Server] {
        pair.end(side).core.goaway(now);
        pair.end(side).core.goaway(now);
        pair.end(side).pump();
    }
    pair.run();
    assert!(pair.client.closed.is_none() && pair.server.closed.is_none());
    (pair, sessions)
}

#[test]
fn control_streams() {
    let (mut pair, _) = life();
    for side in [Side::Client, Side::Server] {
        let end = pair.end(side);
        // "Each side MUST initiate a single control stream at the beginning of the connection and send its SETTINGS
        // frame as the first frame on this stream" (RFC 9114 section 6.2.1).
        // "The sender MUST NOT close the control stream" (RFC 9114 section 6.2.1).
        let types: Vec<u64> = (0..3)
            .map(|index| {
                let stream = own(side, index);
                assert!(!end.wire[&stream].1, "{stream} was ended");
                varint::take(&mut wire(end, stream)).expect("a type")
            })
            .collect();
        assert_eq!(types, [0, 2, 3]);
        let mut control = wire(end, own(side, 0));
        varint::take(&mut control);
        let frames = frames(control);
        // "A SETTINGS frame MUST be sent as the first frame of each control stream" (RFC 9114 section 7.2.4) and "it
        // MUST NOT be sent subsequently" (RFC 9114 section 7.2.4).
        // "A server MUST NOT send a MAX_PUSH_ID frame" (RFC 9114 section 7.2.7).
        // "A client MUST NOT send a PUSH_PROMISE frame" (RFC 9114 section 7.2.5).
        let types: Vec<u64> = frames.iter().map(|&(ty, _)| ty).collect();
        assert!(
            matches!(types[..], [frame::SETTINGS, reserved, frame::GOAWAY] if frame::is_reserved(reserved)),
            "{types:?}"
        );
        // "the identifier in each frame MUST NOT be greater than the identifier in any previous frame" (RFC 9114
        // section 5.2): there is one.
        let mut id = frames[2].1.clone();
        let id = varint::take(&mut id).filter(|_| id.is_empty());
        assert_eq!(id, Some(if side == Side::Server { 24 } else { 0 }));
        // "the receiver MUST NOT request that the sender close the control stream" (RFC 9114 section 6.2.1).
        let peers = (0..3).map(|index| own(!side, index));
        let touched: Vec<_> = peers
            .filter(|&peer| {
                end.aborted
                    .iter()
                    .any(|action| matches!(action, Action::StopSending { stream, .. } if *stream == peer))
            })
            .collect();
        assert!(touched.is_empty(), "{touched:?}");
    }
}

#[test]
fn settings() {
    for (side, dialects) in [
        (Side::Client, Dialects::ALL),
        (Side::Server, Dialects::ALL),
        (Side::Client, Dialects::NONE.with(Dialect::Draft15)),
    ] {
        let mut config = Config::default();
        config.dialects = dialects;
        config.max_field_section_size = 1234;
        config.qpack_blocked_streams = 7;
        let mut core = Connection::new(side, config);
        // "Endpoints MUST NOT require any data to be received from the peer prior to sending the SETTINGS frame" (RFC
        // 9114 section 7.2.4.2).
        core.start(
            std::time::Instant::now(),
            wireloom_proto::connection::OwnStreams {
                control: own(side, 0),
                qpack_encoder: own(side, 1),
                qpack_decoder: own(side, 2),
            },
        );
        let Some(Action::Write { data, .. }) = core.poll_action() else {
            panic!("nothing to say")
        };
        let frames = frames(data.slice(1..));
        // "The same setting identifier MUST NOT occur more than once in the SETTINGS frame" (RFC 9114 section 7.2.4).
        // "These reserved settings MUST NOT be sent" (RFC 9114 section 7.2.4.1). The decoder refuses both, and values
        // above 1 where "The value of the SETTINGS_H3_DATAGRAM setting MUST be either 0 or 1" (RFC 9297 section 2.1.1).
        let settings = Settings::decode(&frames[0].1).expect("legal settings");
        assert_eq!(settings.get(settings::H3_DATAGRAM), Some(1));
        // "The server MUST include all settings that differ from their default values" (RFC 9114 section 7.2.4.2).
        assert_eq!(settings.get(settings::MAX_FIELD_SECTION_SIZE), Some(1234));
        assert_eq!(settings.get(settings::QPACK_MAX_TABLE_CAPACITY), Some(4096));
        assert_eq!(settings.get(settings::QPACK_BLOCKED_STREAMS), Some(7));
        assert_eq!(settings.get(settings::ENABLE_CONNECT_PROTOCOL), Some(1));
        assert_eq!(settings.get(settings::WT_INITIAL_MAX_DATA), Some(8 << 20));
        // "clients MUST also send SETTINGS_WT_ENABLED with the draft-specific codepoint" (draft 16 section 3.1).
        assert_eq!(settings.get(settings::WT_ENABLED), Some(1));
    }
}

/// "SETTINGS frames MUST NOT be sent on any stream other than the control stream" (RFC 9114 section 7.2.4).
/// "These frame types MUST NOT be sent" (RFC 9114 section 7.2.8).
/// "DATA frames MUST be associated with an HTTP request or response" (RFC 9114 section 7.2.1).
/// "Each frame's payload MUST contain exactly the fields identified in its description" (RFC 9114 section 7.1).
#[test]
fn request_streams() {
    let (mut pair, sessions) = life();
    let connects: Vec<StreamId> = sessions.iter().map(|session| session.stream()).collect();
    for side in [Side::Client, Side::Server] {
        let end = pair.end(side);
        let mut seen = 0;
        for (&stream, (bytes, ended)) in &end.wire {
            if !stream.is_request() || bytes.starts_with(b"\x40\x41") {
                continue;
            }
            seen += 1;
            // "After sending a request, a client MUST close the stream for sending" (RFC 9114 section 4.1).
            // "After sending a final response, the server MUST close the stream for sending" (RFC 9114 section 4.1).
            assert!(*ended, "{side:?} {stream}");
            let types: Vec<u64> = frames(bytes.clone().freeze()).iter().map(|&(ty, _)| ty).collect();
            assert_eq!(types[0], frame::HEADERS);
            assert!(
                types.iter().all(|ty| [frame::HEADERS, frame::DATA].contains(ty)),
                "{types:?}"
            );
            let mut reader = FrameReader::new(FrameLimits::default());
            let mut input = bytes.clone().freeze();
            while let Some(frame) = reader.read(&mut input).expect("legal frames") {
                let Frame::Headers(block) = frame else { continue };
                let section = Decoder::new().decode(stream, block, 1 << 16).expect("a static section");
                let fields = section.fields().expect("not blocked");
                // "All pseudo-header fields MUST appear in the header section before regular header fields" (RFC 9114
                // section 4.3), and "Endpoints MUST NOT generate pseudo-header fields other than those defined in this
                // document" (RFC 9114 section 4.3).
                let pseudo: Vec<_> = fields
                    .iter()
                    .take_while(|field| field.name.starts_with(b":"))
                    .map(|field| String::from_utf8_lossy(&field.name).into_owned())
                    .collect();
                let regular = &fields[pseudo.len()..];
                assert!(regular.iter().all(|field| !field.name.starts_with(b":")));
                match (side, &pseudo[..]) {
                    // Trailers.
                    (_, []) => {}
                    (Side::Server, _) => {
                        assert_eq!(pseudo, [":status"]);
                        decode_response(fields).expect("a legal response");
                    }
                    (Side::Client, _) => {
                        let known = [":method", ":scheme", ":authority", ":path", ":protocol"];
                        assert!(pseudo.iter().all(|name| known.contains(&name.as_str())), "{pseudo:?}");
                        let request = decode_request(fields).expect("a legal request");
                        if connects.contains(&stream) {
                            // It "MUST be set to webtransport-h3" (draft 16 section 3.2).
                            // "The :scheme field MUST be https" (draft 16 section 3.2).
                            assert_eq!(request.protocol.as_deref(), Some("webtransport-h3"));
                            assert_eq!(request.head.uri().scheme_str(), Some("https"));
                        } else {
                            assert_eq!(request.protocol, None);
                        }
                    }
                }
            }
        }
        assert_eq!(seen, 4, "{side:?}");
    }
}

#[test]
fn streams_of_sessions() {
    let (mut pair, sessions) = life();
    for side in [Side::Client, Side::Server] {
        let end = pair.end(side);
        for session in &sessions {
            let id = session.into_u64();
            // "it MUST send a special signal value, encoded as a variable-length integer, as the first bytes of each
            // bidirectional WebTransport stream it initiates" (draft 16 section 4.3); a server "MUST send a special
            // signal value, encoded as a variable-length integer, as the first bytes of the stream" (draft 16 section
            // 4.3).
            // "Endpoints MUST NOT send WT_STREAM as a frame type on HTTP/3 streams other than the very first bytes of a
            // request stream" (draft 16 section 4.3): the payload follows.
            let bi = [varints(&[0x41, id]), b"payload".to_vec()].concat();
            // "The HTTP/3 unidirectional stream type SHALL be 0x54" (draft 16 section 4.2).
            // "The body of the stream SHALL be the stream type, followed by the session ID, encoded as a
            // variable-length integer, followed by the user-specified stream data" (draft 16 section 4.2).
            let uni = [varints(&[0x54, id]), b"payload".to_vec()].concat();
            for (dir, expected) in [(Dir::Bi, bi), (Dir::Uni, uni)] {
                let found = end.wire.iter().filter(|(stream, (bytes, _))| {
                    stream.initiator() == side && stream.dir() == dir && bytes[..] == expected[..]
                });
                assert_eq!(found.count(), 1, "{side:?} {dir:?} {session}");
            }
        }
        let unaccounted = end
            .wire
            .iter()
            .filter(|(stream, _)| stream.initiator() == side && stream.dir() == Dir::Uni && stream.index() >= 3)
            .count();
        assert_eq!(unaccounted, sessions.len());
    }
}

/// "stream types that could modify the state or semantics of existing protocol components, including QPACK or other
/// extensions, MUST NOT be sent until the peer is known to support them" (RFC 9114 section 6.2).
#[test]
fn nothing_of_webtransport_before_the_peer_speaks_it() {
    for side in [Side::Client, Side::Server] {
        let mut pair = Pair::new(config(), config());
        let id = SessionId::new(StreamId::from_u64(0)).expect("a request stream");
        for dir in [Dir::Bi, Dir::Uni] {
            let stream = pair.end(side).new_stream(dir);
            assert_eq!(
                pair.end(side).core.open_stream(id, stream),
                Err(CommandError::SessionClosed)
            );
        }
        assert!(pair.end(side).core.datagram_prefix(id).is_err());
        // Nor afterwards where the peer does not.
        let mut off = config();
        off.webtransport = false;
        let mut pair = if side == Side::Client {
            Pair::new(config(), off)
        } else {
            Pair::new(off, config())
        };
        pair.handshake(TRANSPORT);
        let stream = pair.client.new_stream(Dir::Bi);
        let error = pair
            .client
            .core
            .connect(pair.now, stream, &SessionRequest::new("localhost", "/"));
        // "An HTTP implementation MUST NOT send frames or requests that would be invalid based on its current
        // understanding of the peer's settings" (RFC 9114 section 7.2.4.2).
        assert_eq!(error, Err(CommandError::Unsupported));
    }
}

/// "use of an error code in an unexpected context or receipt of an unknown error code MUST be treated as equivalent to
/// H3_NO_ERROR" (RFC 9114 section 8): no code ends more than its stream, whatever it is.
#[test]
fn error_codes_that_nobody_knows() {
    for code in [0, 0x21, 0x1f * 7 + 0x21, 0x1234_5678, varint::MAX].map(Code::new) {
        let mut pair = Pair::connected(config(), config());
        let session = pair.session();
        let stream = pair.client.new_stream(Dir::Bi);
        let head = Request::get("https://localhost/").body(()).expect("a request");
        pair.client
            .core
            .send_request(pair.now, stream, &head, false)
            .expect("a request");
        let ours = pair.client.open(session, Dir::Bi).expect("open");
        pair.client.send(ours, b"x", false);
        pair.run();
        for stream in [stream, ours] {
            pair.client.reset(stream, code);
            pair.client.stop(stream, code);
        }
        pair.run();
        for side in [Side::Client, Side::Server] {
            assert!(!pair.end(side).core.is_closed());
            assert_eq!(pair.end(side).core.sessions().collect::<Vec<_>>(), [session]);
            assert!(
                !pair
                    .end(side)
                    .events
                    .iter()
                    .any(|event| matches!(event, Event::SessionClosed { .. }))
            );
        }
        assert_eq!(pair.server.received[&ours].reset, Some(code));
    }
}
