//! Ordinary requests between two connections on one thread.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use wireloom_proto::connection::{CommandError, OwnStreams, PeerTransport, Recv, SessionEnd, SessionRequest};
use wireloom_proto::h3::frame;
use wireloom_proto::h3::settings::ENABLE_CONNECT_PROTOCOL;
use wireloom_proto::testing::peer::{ALL_SETTINGS, Lone, data, extended_connect, get};
use wireloom_proto::testing::pipe::{End, Pair};
use wireloom_proto::{Action, Code, Config, Connection, Dir, Event, Side, StreamId};

fn pair(chunk: usize) -> Pair {
    let mut pair = Pair::new(Config::default(), Config::default());
    pair.chunk = chunk;
    pair.handshake(PeerTransport {
        datagrams: true,
        reset_stream_at: false,
    });
    assert!(matches!(pair.client.event(), Event::Ready { .. }));
    assert!(matches!(pair.server.event(), Event::Ready { .. }));
    pair
}

fn request(method: Method, fields: &[(&'static str, &'static str)]) -> Request<()> {
    let mut head = Request::new(());
    *head.uri_mut() = "https://localhost:4433/path?query".parse().expect("a URI");
    *head.method_mut() = method;
    for (name, value) in fields {
        head.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    head
}

fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in fields {
        head.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    head
}

/// Sends one DATA frame as a driver does: its header from the core, its payload past it.
fn send_data(end: &mut End, stream: StreamId, payload: &[u8]) -> Result<(), CommandError> {
    let header = end.core.data_header(stream, payload.len() as u64)?;
    end.pump();
    end.write(stream, &header, false);
    end.write(stream, payload, false);
    Ok(())
}

fn start(pair: &mut Pair, head: &Request<()>, fin: bool) -> StreamId {
    let stream = pair.client.new_stream(Dir::Bi);
    pair.client
        .core
        .send_request(pair.now, stream, head, fin)
        .expect("a legal request");
    pair.run();
    stream
}

/// Head, body, trailers and end of a message, from the events of one stream.
fn message(end: &mut End) -> (Vec<u8>, Option<HeaderMap>, bool) {
    let (mut body, mut trailers, mut finished) = (Vec::new(), None, false);
    for event in end.events.drain(..) {
        match event {
            Event::Data { data, .. } => body.extend_from_slice(&data),
            Event::Trailers { trailers: fields, .. } => trailers = Some(fields),
            Event::Finished { .. } => finished = true,
            Event::Response { head, .. } if head.status().is_informational() => {}
            event => panic!("{event:?}"),
        }
    }
    (body, trailers, finished)
}

#[test]
fn a_request_with_bodies_and_trailers_in_pieces_of_any_size() {
    for chunk in [1, 3, 10, usize::MAX] {
        let mut pair = pair(chunk);
        let head = request(
            Method::POST,
            &[("content-length", "12"), ("cookie", "a=1"), ("cookie", "b=2")],
        );
        let stream = start(&mut pair, &head, false);
        let Event::Request {
            head, stream: asked, ..
        } = pair.server.event()
        else {
            panic!("no request")
        };
        assert_eq!(
            (asked, head.method(), head.uri().path()),
            (stream, &Method::POST, "/path")
        );
        assert_eq!(head.headers()["cookie"], "a=1; b=2", "RFC 9114 section 4.2.1");
        send_data(&mut pair.client, stream, b"hello ").expect("within its length");
        assert_eq!(pair.client.core.finish(stream), Err(CommandError::ContentLength));
        send_data(&mut pair.client, stream, b"world!").expect("within its length");
        assert_eq!(
            send_data(&mut pair.client, stream, b"?"),
            Err(CommandError::ContentLength)
        );
        let trailers: HeaderMap = [("checksum".parse().expect("a name"), HeaderValue::from_static("x"))]
            .into_iter()
            .collect();
        pair.client.core.send_trailers(stream, &trailers).expect("complete");
        pair.run();
        assert_eq!(
            message(&mut pair.server),
            (b"hello world!".to_vec(), Some(trailers.clone()), true)
        );

        let server = &mut pair.server;
        server
            .core
            .send_response(stream, &response(103, &[("link", "</style>")]), false)
            .expect("interim");
        server
            .core
            .send_response(stream, &response(200, &[]), false)
            .expect("final");
        assert_eq!(
            server.core.send_response(stream, &response(200, &[]), false),
            Err(CommandError::InvalidState)
        );
        pair.run();
        assert!(matches!(pair.client.event(), Event::Response { head, .. } if head.status() == 103));
        assert!(matches!(pair.client.event(), Event::Response { head, .. } if head.status() == 200));
        send_data(&mut pair.server, stream, b"any length").expect("no Content-Length");
        pair.server.core.finish(stream).expect("complete");
        pair.run();
        assert_eq!(message(&mut pair.client), (b"any length".to_vec(), None, true));
        pair.assert_nothing_left();
    }
}

#[test]
fn requests_without_a_body() {
    let mut pair = pair(usize::MAX);
    for (method, status) in [(Method::GET, 204), (Method::HEAD, 200), (Method::GET, 304)] {
        let stream = start(&mut pair, &request(method, &[]), true);
        assert!(matches!(pair.server.event(), Event::Request { .. }));
        assert!(matches!(pair.server.event(), Event::Finished { .. }));
        // RFC 9114 section 4.1.2: a Content-Length without content is legal here.
        pair.server
            .core
            .send_response(stream, &response(status, &[("content-length", "5")]), false)
            .expect("final");
        assert_eq!(
            pair.server.core.data_header(stream, 5),
            Err(CommandError::ContentLength)
        );
        pair.server.core.finish(stream).expect("complete");
        pair.run();
        assert!(matches!(pair.client.event(), Event::Response { .. }));
        assert!(matches!(pair.client.event(), Event::Finished { .. }));
    }
    let stream = start(&mut pair, &request(Method::GET, &[]), true);
    assert_eq!(
        pair.server
            .core
            .send_response(stream, &response(200, &[("content-length", "5")]), true),
        Err(CommandError::ContentLength)
    );
    pair.server
        .core
        .send_response(stream, &response(200, &[("connection", "close")]), true)
        .expect("dropped fields");
    pair.run();
    let Some(Event::Response { head, .. }) = pair.client.events.pop_front() else {
        panic!("no response")
    };
    assert!(head.headers().is_empty());
    pair.assert_nothing_left();
}

#[test]
fn a_tunnel_has_no_length_and_no_trailers() {
    let mut pair = pair(usize::MAX);
    let mut head = request(Method::CONNECT, &[]);
    *head.uri_mut() = "example.org:443".parse().expect("an authority");
    let stream = start(&mut pair, &head, false);
    let Event::Request { head, .. } = pair.server.event() else {
        panic!("no request")
    };
    assert_eq!(
        (head.method(), head.uri().to_string().as_str()),
        (&Method::CONNECT, "example.org:443")
    );
    pair.server
        .core
        .send_response(stream, &response(200, &[]), false)
        .expect("final");
    for side in [Side::Client, Side::Server] {
        send_data(pair.end(side), stream, b"through").expect("a tunnel");
        assert_eq!(
            pair.end(side).core.send_trailers(stream, &HeaderMap::new()),
            Err(CommandError::InvalidState)
        );
        pair.end(side).core.finish(stream).expect("any time");
    }
    pair.run();
    assert!(matches!(pair.client.event(), Event::Response { .. }));
    for side in [Side::Client, Side::Server] {
        assert_eq!(message(pair.end(side)), (b"through".to_vec(), None, true));
    }
    pair.assert_nothing_left();
}

/// Only a CONNECT that has completed makes a tunnel (RFC 9114 section 4.4); a refusal is a response like others.
#[test]
fn a_refused_tunnel_has_a_body_and_trailers() {
    let mut pair = pair(usize::MAX);
    let mut head = request(Method::CONNECT, &[]);
    *head.uri_mut() = "example.org:443".parse().expect("an authority");
    let stream = start(&mut pair, &head, true);
    pair.server
        .core
        .send_response(stream, &response(403, &[]), false)
        .expect("final");
    pair.run();
    assert!(matches!(pair.client.event(), Event::Response { .. }));
    // Our own server has no trailers for a CONNECT; another may.
    let trailers = wireloom_proto::testing::peer::headers(&[("checksum", "x")]);
    pair.server.write(stream, &data(b"no"), false);
    pair.server.write(stream, &trailers, true);
    pair.run();
    let (body, trailers, finished) = message(&mut pair.client);
    assert_eq!((&body[..], finished), (&b"no"[..], true));
    assert_eq!(trailers.map(|fields| fields.len()), Some(1));
    assert_eq!(pair.client.closed, None);
}

#[test]
fn either_end_gives_up() {
    let mut pair = pair(usize::MAX);
    let stream = start(&mut pair, &request(Method::POST, &[]), false);
    assert!(matches!(pair.server.event(), Event::Request { .. }));
    // The server answers early and wants no more of the body.
    pair.server
        .core
        .send_response(stream, &response(413, &[]), true)
        .expect("final");
    pair.server.core.stop_message(stream, Code::H3_NO_ERROR);
    pair.run();
    // STOP_SENDING may overtake the response: "Clients MUST NOT discard complete responses as a result of having their
    // request terminated abruptly" (RFC 9114 section 4.1).
    assert!(matches!(
        pair.client.event(),
        Event::SendStopped {
            code: Code::H3_NO_ERROR,
            ..
        }
    ));
    assert!(matches!(pair.client.event(), Event::Response { .. }));
    assert!(matches!(pair.client.event(), Event::Finished { .. }));
    pair.assert_nothing_left();

    // The client cancels.
    let stream = start(&mut pair, &request(Method::POST, &[]), false);
    assert!(matches!(pair.server.event(), Event::Request { .. }));
    pair.client.core.reset_message(stream, Code::H3_REQUEST_CANCELLED);
    pair.client.core.stop_message(stream, Code::H3_REQUEST_CANCELLED);
    pair.run();
    let code = Code::H3_REQUEST_CANCELLED;
    for _ in 0..2 {
        match pair.server.event() {
            Event::MessageFailed {
                code, by_peer: true, ..
            } => assert_eq!(code, Code::H3_REQUEST_CANCELLED),
            Event::SendStopped { code, .. } => assert_eq!(code, Code::H3_REQUEST_CANCELLED),
            event => panic!("{event:?}"),
        }
    }
    assert!(pair.server.aborted.contains(&Action::Reset { stream, code }));
    pair.assert_nothing_left();

    // The server breaks off in the middle of its body.
    let stream = start(&mut pair, &request(Method::GET, &[]), true);
    pair.server
        .core
        .send_response(stream, &response(200, &[]), false)
        .expect("final");
    pair.run();
    pair.server.core.reset_message(stream, Code::H3_INTERNAL_ERROR);
    pair.run();
    assert!(matches!(pair.client.event(), Event::Response { .. }));
    assert!(matches!(
        pair.client.event(),
        Event::MessageFailed {
            code: Code::H3_INTERNAL_ERROR,
            by_peer: true,
            ..
        }
    ));
    pair.assert_nothing_left();
}

/// Packets may overtake each other, and of a client that gives up at once the first may be lost.
#[test]
fn stop_sending_that_overtakes_the_request_is_not_forgotten() {
    let code = Code::H3_REQUEST_CANCELLED;
    let stream = StreamId::from_u64(0);
    let told = |lone: &mut Lone| -> Vec<String> {
        let events = lone.events().into_iter();
        let names = events.map(|event| format!("{event:?}").split(' ').next().unwrap_or_default().to_owned());
        names.collect()
    };
    let reset = [Action::Reset { stream, code }];
    // In one piece and in two, of which the second is all that decides.
    let bytes = get();
    for whole in [true, false] {
        let mut lone = Lone::server();
        lone.core.handle_stopped(lone.now, stream, code);
        assert!(lone.actions().is_empty() && lone.events().is_empty());
        if whole {
            assert_eq!(lone.recv(0, &bytes, true), Recv::Done);
            assert_eq!(told(&mut lone), ["Request", "Finished", "SendStopped"]);
            assert_eq!(lone.actions(), reset);
            assert!(lone.core.send_response(stream, &Response::new(()), true).is_err());
        } else {
            // Of a request that nobody has seen nothing is wanted.
            let refused = [reset[0].clone(), Action::StopSending { stream, code }];
            assert_eq!(lone.recv(0, &bytes[..1], false), Recv::Done);
            assert_eq!(lone.actions(), refused);
            assert_eq!(lone.recv(0, &bytes[1..], true), Recv::Done);
            assert!(lone.events().is_empty());
        }
        assert!(lone.core.leftovers().is_empty());
    }
    // What the server answers by itself, and what it cannot answer at all.
    for (bytes, answered) in [(&extended_connect("unknown", &[])[..], true), (&[], false)] {
        let mut lone = Lone::server();
        lone.core.handle_stopped(lone.now, stream, code);
        let _ = lone.recv(0, bytes, true);
        let actions = lone.actions();
        assert!(
            actions.iter().any(|action| matches!(action, Action::Reset { .. })),
            "{actions:?}"
        );
        let wrote = actions.iter().any(|action| matches!(action, Action::Write { .. }));
        assert_eq!(wrote, answered);
        assert!(lone.core.leftovers().is_empty());
    }
    // It has the time that every stream has to say what it is.
    let mut lone = Lone::server();
    lone.core.handle_stopped(lone.now, stream, code);
    lone.advance(Duration::from_secs(10));
    assert_eq!(lone.actions().len(), 2);
    assert!(lone.core.leftovers().is_empty());
    // A session's stream is handed out, and QUIC knows that it is stopped.
    let (mut lone, session) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
    lone.core.handle_stopped(lone.now, StreamId::from_u64(4), code);
    let payload = Bytes::from_static(b"x");
    assert_eq!(
        lone.recv(4, b"\x40\x41\0x", false),
        Recv::WebTransport { session, payload }
    );
    assert!(lone.actions().is_empty());
}

#[test]
fn goaway_rejects_later_requests_and_lets_earlier_ones_end() {
    let mut pair = pair(usize::MAX);
    let early = start(&mut pair, &request(Method::GET, &[]), true);
    pair.held.extend([3, 7, 11].map(StreamId::from_u64));
    pair.server.core.goaway(pair.now);
    let late = start(&mut pair, &request(Method::GET, &[]), true);
    // No event tells of it: "Servers MUST NOT use the H3_REQUEST_REJECTED error code for requests that were partially
    // or fully processed" (RFC 9114 section 4.1.1).
    assert!(
        !pair
            .server
            .events
            .iter()
            .any(|event| matches!(event, Event::Request { stream, .. } if *stream == late))
    );
    assert!(pair.server.aborted.contains(&Action::Reset {
        stream: late,
        code: Code::H3_REQUEST_REJECTED
    }));
    assert!(
        matches!(pair.client.event(), Event::MessageFailed { stream, code: Code::H3_REQUEST_REJECTED, by_peer: true } if stream == late)
    );
    pair.held.clear();
    pair.server
        .core
        .send_response(early, &response(200, &[]), true)
        .expect("final");
    pair.run();
    assert!(matches!(
        pair.client.events.pop_front(),
        Some(Event::GoAway { id: 4 } | Event::Response { .. })
    ));
    let stream = pair.client.new_stream(Dir::Bi);
    let head = request(Method::GET, &[]);
    // "Endpoints MUST NOT initiate new requests or promise new pushes on the connection after receipt of a GOAWAY frame
    // from the peer" (RFC 9114 section 5.2).
    assert_eq!(
        pair.client.core.send_request(pair.now, stream, &head, true),
        Err(CommandError::GoingAway)
    );
    pair.assert_nothing_left();
}

/// Of what comes from the identifier on the client knows that it "will not be processed" (RFC 9114 section 5.2), and need not
/// wait to be told so stream by stream.
#[test]
fn goaway_ends_what_will_not_be_processed() {
    let mut pair = pair(usize::MAX);
    let send = |pair: &mut Pair, method, fin| {
        let stream = pair.client.new_stream(Dir::Bi);
        let head = request(method, &[]);
        let now = pair.now;
        let sent = pair.client.core.send_request(now, stream, &head, fin);
        sent.expect("a request");
        stream
    };
    let processed = send(&mut pair, Method::GET, true);
    let answered = send(&mut pair, Method::POST, false);
    pair.run();
    let head = response(200, &[]);
    pair.server
        .core
        .send_response(answered, &head, false)
        .expect("requested");
    pair.run();
    assert!(matches!(pair.client.event(), Event::Response { .. }));
    // None of these ever arrives.
    let connect = pair.client.new_stream(Dir::Bi);
    let wanted = SessionRequest::new("localhost", "/");
    let session = pair
        .client
        .core
        .connect(pair.now, connect, &wanted)
        .expect("no GOAWAY yet");
    let early = pair.client.open(session, Dir::Uni).expect("requested");
    let (sent, sending) = (send(&mut pair, Method::GET, true), send(&mut pair, Method::POST, false));
    pair.held.extend([connect, early, sent, sending]);
    // A server that counts the one that it has answered among them contradicts itself.
    pair.server.write(
        StreamId::new(Side::Server, Dir::Uni, 0),
        &frame::encode_goaway(4),
        false,
    );
    // The same once more is nothing new.
    let control = StreamId::new(Side::Server, Dir::Uni, 0);
    pair.server.write(control, &frame::encode_goaway(4), false);
    pair.run();
    let code = Code::H3_REQUEST_REJECTED;
    assert!(matches!(pair.client.event(), Event::GoAway { id: 4 }));
    let Event::SessionClosed { end, streams, .. } = pair.client.event() else {
        panic!("the session goes on")
    };
    assert_eq!((end, streams), (SessionEnd::ResetByPeer { code }, vec![early]));
    for expected in [sent, sending] {
        assert!(matches!(
            pair.client.event(),
            Event::MessageFailed { stream, code: Code::H3_REQUEST_REJECTED, by_peer: true } if stream == expected
        ));
    }
    assert!(matches!(pair.client.event(), Event::SendStopped { stream, .. } if stream == sending));
    assert!(pair.client.events.is_empty(), "no SessionDraining");
    // "Clients MUST NOT use the H3_REQUEST_REJECTED error code, except when a server has requested closure of the request
    // stream with this error code" (RFC 9114 section 4.1.1).
    for stream in [connect, sent, sending] {
        let code = Code::H3_REQUEST_CANCELLED;
        assert!(pair.client.aborted.contains(&Action::Reset { stream, code }));
        assert!(pair.client.aborted.contains(&Action::StopSending { stream, code }));
    }
    pair.client.core.finish(answered).expect("under way");
    pair.server.core.finish(answered).expect("under way");
    let answer = pair.server.core.send_response(processed, &head, true);
    answer.expect("requested");
    pair.run();
    assert!(pair.client.core.is_idle());
}

#[test]
fn goaway_before_the_start_is_sent_with_it() {
    let own = |index| StreamId::new(Side::Server, Dir::Uni, index);
    let mut lone = Lone::server();
    lone.core = Connection::new(Side::Server, Config::default());
    lone.core.goaway(lone.now);
    assert!(lone.actions().is_empty());
    let streams = OwnStreams {
        control: own(0),
        qpack_encoder: own(1),
        qpack_decoder: own(2),
    };
    lone.core.start(lone.now, streams);
    let Some(Action::Write { stream, data, .. }) = lone.actions().into_iter().next() else {
        panic!("nothing is sent")
    };
    assert_eq!(stream, own(0));
    assert!(data.ends_with(&frame::encode_goaway(0)), "{data:x?}");
    lone.core.goaway(lone.now);
    assert!(lone.actions().is_empty(), "once");
    assert_eq!(lone.recv(0, &get(), true), Recv::Done);
    let code = Code::H3_REQUEST_REJECTED;
    let stream = StreamId::from_u64(0);
    assert_eq!(
        lone.actions(),
        [Action::Reset { stream, code }, Action::StopSending { stream, code }]
    );
}

#[test]
fn requests_and_sessions_share_a_connection() {
    let mut pair = pair(usize::MAX);
    let session = pair.session();
    let stream = start(&mut pair, &request(Method::GET, &[]), true);
    pair.client.core.close_session(pair.now, session, 0, "").expect("open");
    pair.run();
    pair.server
        .core
        .send_response(stream, &response(200, &[]), true)
        .expect("final");
    pair.run();
    assert!(
        pair.client
            .events
            .iter()
            .any(|event| matches!(event, Event::Response { .. }))
    );
    pair.assert_nothing_left();
}

/// "Once a server has provided new settings, clients MUST comply with those values" (RFC 9114 section 7.2.4.2).
#[test]
fn what_the_peer_does_not_accept_is_not_sent() {
    let mut server = Config::default();
    server.max_field_section_size = 250;
    let mut pair = Pair::connected(Config::default(), server);
    let head = request(
        Method::GET,
        &[(
            "x",
            "0123456789012345678901234567890123456789012345678901234567890123456789",
        )],
    );
    let stream = pair.client.new_stream(Dir::Bi);
    // "An implementation that has received this parameter SHOULD NOT send an HTTP message header that exceeds the indicated
    // size" (RFC 9114 section 4.2.2).
    let error = pair.client.core.send_request(pair.now, stream, &head, true);
    assert!(matches!(error, Err(CommandError::InvalidMessage(_))), "{error:?}");
    let session = SessionRequest::new("localhost", format!("/{}", "x".repeat(200)));
    let error = pair.client.core.connect(pair.now, stream, &session);
    assert!(matches!(error, Err(CommandError::InvalidMessage(_))), "{error:?}");
    pair.assert_nothing_left();
}

#[test]
fn commands_in_the_wrong_state() {
    let mut pair = pair(usize::MAX);
    let stream = start(&mut pair, &request(Method::GET, &[]), true);
    let (client, server, now) = (&mut pair.client.core, &mut pair.server.core, pair.now);
    let invalid = Err(CommandError::InvalidState);
    // "A client MUST send only a single request on a given stream" (RFC 9114 section 4.1).
    assert_eq!(
        client.send_request(now, stream, &request(Method::GET, &[]), true),
        invalid
    );
    assert_eq!(
        client.send_request(now, StreamId::from_u64(2), &request(Method::GET, &[]), true),
        invalid
    );
    assert_eq!(client.finish(stream), invalid);
    assert_eq!(client.data_header(stream, 1), Err(CommandError::InvalidState));
    assert_eq!(server.finish(stream), invalid);
    assert_eq!(
        server.send_request(now, StreamId::from_u64(4), &request(Method::GET, &[]), true),
        invalid
    );
    assert_eq!(
        server.send_response(StreamId::from_u64(4), &response(200, &[]), true),
        invalid
    );
    assert!(server.send_response(stream, &response(100, &[]), true).is_err());
    assert!(server.send_response(stream, &response(101, &[]), false).is_err());
    server.reset_message(StreamId::from_u64(400), Code::H3_NO_ERROR);
    server.stop_message(stream, Code::H3_NO_ERROR);
    server.reset_message(stream, Code::H3_INTERNAL_ERROR);
    assert_eq!(server.send_response(stream, &response(200, &[]), true), invalid);
}

/// "Clients MUST NOT use the H3_REQUEST_REJECTED error code, except when a server has requested closure of the request
/// stream with this error code" (RFC 9114 section 4.1.1).
#[test]
fn a_client_says_that_a_request_is_rejected_only_after_the_server() {
    let code = Code::H3_REQUEST_REJECTED;
    let mut pair = pair(usize::MAX);
    let stream = start(&mut pair, &request(Method::POST, &[]), false);
    pair.server.stop(stream, code);
    pair.run();
    assert_eq!(pair.client.aborted, [Action::Reset { stream, code }]);
}

/// "clients MUST NOT make stream closure dependent on receiving a response to their request" (RFC 9114 section 4.1).
#[test]
fn a_request_ends_without_its_response() {
    let mut pair = pair(usize::MAX);
    let stream = start(&mut pair, &request(Method::POST, &[]), false);
    send_data(&mut pair.client, stream, b"all of it").expect("no Content-Length");
    pair.client.core.finish(stream).expect("complete");
    pair.run();
    assert!(matches!(pair.server.event(), Event::Request { .. }));
    assert_eq!(message(&mut pair.server), (b"all of it".to_vec(), None, true));
}

/// "A client MUST comply with stored settings -- or default values if no values are stored -- when attempting 0-RTT" (RFC 9114
/// section 7.2.4.2).
#[test]
fn early_data_keeps_to_what_is_remembered() {
    use wireloom_proto::h3::settings::{self, Settings};
    for (remembered, fits) in [(None, true), (Some(500), true), (Some(100), false)] {
        let mut client = Connection::new(Side::Client, Config::default());
        let mut before = Settings::new();
        remembered
            .into_iter()
            .for_each(|limit| before.set(settings::MAX_FIELD_SECTION_SIZE, limit));
        client.resume(before);
        let mut head = Request::get("https://a/").body(()).expect("valid");
        head.headers_mut()
            .insert("x-long", "x".repeat(200).parse().expect("valid"));
        let sent = client.send_request(std::time::Instant::now(), StreamId::from_u64(0), &head, true);
        assert_eq!(sent.is_ok(), fits, "{remembered:?}: {sent:?}");
    }
}

/// RFC 9220: a request with a protocol, whose bodies are the tunnel.
#[test]
fn websockets_are_requests_where_they_are_wanted() {
    let mut config = Config::default();
    config.websocket = true;
    config.webtransport = false;
    let mut lone = Lone::new(Side::Server, config.clone(), &[]);
    let stream = StreamId::from_u64(0);
    assert_eq!(lone.recv(0, &extended_connect("websocket", &[]), false), Recv::Pause);
    let events = lone.events();
    let [Event::Request { head, protocol, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (head.method(), protocol.as_deref()),
        (&Method::CONNECT, Some("websocket"))
    );
    lone.core
        .send_response(stream, &response(200, &[]), false)
        .expect("accepted");
    assert_eq!(lone.recv(0, &data(b"frames"), false), Recv::Pause);
    assert!(matches!(&lone.events()[..], [Event::Data { data, .. }] if data == "frames"));
    // It is announced by the server, and by nobody else.
    let mut pair = Pair::new(config.clone(), config);
    pair.handshake(PeerTransport {
        datagrams: true,
        reset_stream_at: false,
    });
    for (end, announced) in [(&mut pair.client, Some(1)), (&mut pair.server, None)] {
        let Event::Ready { settings, .. } = end.event() else {
            panic!("no SETTINGS")
        };
        assert_eq!(settings.get(ENABLE_CONNECT_PROTOCOL), announced);
    }
}
