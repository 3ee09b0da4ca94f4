//! QPACK's dynamic table on a connection: what waits for the encoder stream, and what is said of it.

use std::time::Duration;

use http::{HeaderValue, Request, Response};
use wireloom_proto::connection::SessionRequest;
use wireloom_proto::h3::{frame, settings};
use wireloom_proto::testing::peer::{ALL_SETTINGS, Lone, data};
use wireloom_proto::testing::pipe::{End, Pair};
use wireloom_proto::{Code, Config, Dir, Event, Recv, Side, StreamId};

/// What the peer inserts: `:authority` and `:path` as in RFC 9204 section B.2.
const INSERTIONS: &[u8] = b"\x3f\xbd\x01\xc0\x0fwww.example.com\xc1\x0c/sample/path";

/// GET https with both insertions.
const GET: &[u8] = b"\x03\x81\xd1\xd7\x10\x11";

/// Status 200 and a field whose name is the second insertion; not for well-formed messages.
const OK: &[u8] = b"\x03\x81\xd9\x5c\x010";

fn headers(section: &[u8]) -> Vec<u8> {
    frame::encode(frame::HEADERS, section).to_vec()
}

/// The peer's encoder stream, its first stream after the control stream.
fn insert(lone: &mut Lone, bytes: &[u8]) -> Recv {
    let stream = lone.peer_uni(1);
    lone.recv(stream, bytes, false)
}

/// A server whose client has an encoder stream without insertions yet.
fn server(config: Config) -> Lone {
    let mut lone = Lone::new(Side::Server, config, &ALL_SETTINGS);
    assert_eq!(insert(&mut lone, b"\x02"), Recv::Continue);
    lone
}

fn config() -> Config {
    Config::default()
}

/// For drivers that ask before they drain: instructions are made only then.
#[test]
fn instructions_are_output() {
    let mut lone = server(config());
    let _ = (lone.actions(), lone.events());
    assert!(!lone.core.has_output());
    assert_eq!(insert(&mut lone, INSERTIONS), Recv::Continue);
    assert!(lone.core.has_output(), "an Insert Count Increment");
    lone.actions();
    assert!(!lone.core.has_output());
    // The rest of a session's stream, which nobody waits for.
    let (mut lone, session) = Lone::server_with_session(config(), &ALL_SETTINGS);
    lone.core.close_session(lone.now, session, 0, "").expect("open");
    let _ = (lone.actions(), lone.events());
    assert!(!lone.core.has_output());
    lone.reset(0, Code::H3_NO_ERROR);
    assert!(lone.core.has_output(), "a Stream Cancellation");
    lone.actions();
    assert!(!lone.core.has_output());
}

#[test]
fn a_request_waits_with_all_that_follows_it() {
    for chunk in [1, usize::MAX] {
        let mut lone = server(config());
        let message = [headers(GET), data(b"body"), data(b"more")].concat();
        for piece in message.chunks(chunk.min(message.len())) {
            let recv = lone.recv(0, piece, false);
            assert!(matches!(recv, Recv::Continue | Recv::Pause), "{recv:?}");
        }
        assert_eq!(lone.recv(0, b"", true), Recv::Pause);
        assert!(lone.events().is_empty());
        for piece in INSERTIONS.chunks(chunk.min(INSERTIONS.len())) {
            assert_eq!(insert(&mut lone, piece), Recv::Continue);
        }
        let events = lone.events();
        let [Event::Request { head, .. }, bodies @ .., Event::Finished { .. }] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(head.uri(), "https://www.example.com/sample/path");
        let body: Vec<u8> = bodies
            .iter()
            .flat_map(|event| match event {
                Event::Data { data, .. } => data.to_vec(),
                event => panic!("{event:?}"),
            })
            .collect();
        assert_eq!(body, b"bodymore");
        lone.actions();
        // Section Acknowledgment; byte by byte an Insert Count Increment tells of the first insertion.
        assert!(lone.decoder_stream.ends_with(b"\x80"), "{:?}", lone.decoder_stream);
    }
}

#[test]
fn a_stream_that_waited_is_read_again() {
    let mut lone = server(config());
    let stream = StreamId::from_u64(0);
    assert!(!lone.core.is_blocked(stream));
    assert_eq!(lone.recv(0, &headers(GET), false), Recv::Pause);
    assert!(lone.core.is_blocked(stream));
    assert_eq!(insert(&mut lone, INSERTIONS), Recv::Continue);
    assert!(!lone.core.is_blocked(stream));
    // The application has something to take first.
    assert!(matches!(lone.events()[..], [Event::Request { .. }]));
    assert_eq!(lone.recv(0, &data(b"body"), true), Recv::Done);
    assert!(matches!(
        lone.events()[..],
        [Event::Data { .. }, Event::Finished { .. }]
    ));
}

#[test]
fn a_session_request_waits() {
    let mut lone = server(config());
    let section = b"\x03\x81\xcf\xd7\x10\x11\x27\x02:protocol\x0cwebtransport";
    let message = [headers(section), data(b"")].concat();
    assert_eq!(lone.recv(0, &message, false), Recv::Pause);
    assert_eq!(insert(&mut lone, INSERTIONS), Recv::Continue);
    let events = lone.events();
    assert!(
        matches!(events[..], [Event::SessionRequested { .. }, Event::Resume { .. }]),
        "{events:?}"
    );
}

#[test]
fn trailers_wait() {
    let mut lone = server(config());
    let _ = lone.recv(0, &wireloom_proto::testing::peer::post(None), false);
    let _ = lone.recv(0, &data(b"body"), false);
    assert!(matches!(lone.events()[..], [Event::Request { .. }, Event::Data { .. }]));
    // "x: y" is inserted later.
    assert_eq!(lone.recv(0, &headers(b"\x02\x80\x10"), true), Recv::Pause);
    assert!(lone.events().is_empty());
    assert_eq!(insert(&mut lone, b"\x3f\xbd\x01\x41x\x01y"), Recv::Continue);
    let events = lone.events();
    assert!(matches!(&events[..], [Event::Trailers { trailers, .. }, Event::Finished { .. }] if trailers["x"] == "y"));
}

/// RFC 9204 section 2.2.2.2: a stream that is reset or given up is cancelled, once it may hold references.
#[test]
fn streams_given_up_are_cancelled() {
    // Reset by the peer while it waits.
    let mut lone = server(config());
    assert_eq!(lone.recv(0, &headers(GET), false), Recv::Pause);
    lone.reset(0, Code::H3_REQUEST_CANCELLED);
    lone.actions();
    assert_eq!(&lone.decoder_stream[..], b"\x40");
    assert_eq!(insert(&mut lone, INSERTIONS), Recv::Continue);
    assert!(lone.events().is_empty());
    lone.actions();
    assert_eq!(&lone.decoder_stream[..], b"\x40\x02");
    assert_eq!(lone.core.leftovers(), Vec::<String>::new());

    // Stopped by the peer, which is not interested in the answer.
    let mut lone = server(config());
    assert_eq!(lone.recv(4, &headers(GET), false), Recv::Pause);
    lone.core
        .handle_stopped(lone.now, StreamId::from_u64(4), Code::H3_REQUEST_CANCELLED);
    lone.actions();
    assert_eq!(&lone.decoder_stream[..], b"\x44");

    // Too slow: the header deadline goes on.
    let mut lone = server(config());
    assert_eq!(lone.recv(8, &headers(GET), false), Recv::Pause);
    lone.advance(Duration::from_secs(10));
    lone.actions();
    assert_eq!(&lone.decoder_stream[..], b"\x48");
    assert_eq!(lone.core.leftovers(), Vec::<String>::new());

    // Too large once it can be decoded: answered with 431 and read no further.
    let mut small = config();
    small.max_field_section_size = 64;
    let mut lone = server(small);
    assert_eq!(lone.recv(0, &headers(GET), false), Recv::Pause);
    assert_eq!(insert(&mut lone, INSERTIONS), Recv::Continue);
    assert!(lone.events().is_empty());
    lone.actions();
    assert_eq!(&lone.decoder_stream[..], b"\x40\x02");

    // Reset before a byte of it was read, and without a table: nothing.
    let mut lone = server(config());
    lone.reset(0, Code::H3_REQUEST_CANCELLED);
    lone.actions();
    assert_eq!(&lone.decoder_stream[..], b"\x40");
    let mut none = config();
    none.qpack_max_table_capacity = 0;
    let mut lone = server(none);
    lone.reset(0, Code::H3_REQUEST_CANCELLED);
    lone.actions();
    assert!(lone.decoder_stream.is_empty());
}

/// RFC 9204 section 2.1.2.
#[test]
fn one_blocked_stream_too_many() {
    let mut two = config();
    two.qpack_blocked_streams = 2;
    let mut lone = server(two);
    assert_eq!(lone.recv(0, &headers(GET), false), Recv::Pause);
    assert_eq!(lone.recv(4, &headers(GET), false), Recv::Pause);
    assert_eq!(lone.recv(8, &headers(GET), false), Recv::Done);
    assert_eq!(lone.closed_with(), Some(Code::QPACK_DECOMPRESSION_FAILED));
}

/// A message that turns out to be malformed when it can be read breaks what it would have broken at once.
#[test]
fn faults_show_when_the_section_can_be_read() {
    let mut lone = server(config());
    // A section that refers beyond its Required Insert Count.
    assert_eq!(lone.recv(0, &headers(b"\x03\x81\x12"), false), Recv::Pause);
    let _ = insert(&mut lone, INSERTIONS);
    assert_eq!(lone.closed_with(), Some(Code::QPACK_DECOMPRESSION_FAILED));

    let mut lone = server(config());
    // No method; and a second stream that is well.
    assert_eq!(lone.recv(0, &headers(b"\x03\x81\x10\x11"), false), Recv::Pause);
    assert_eq!(lone.recv(4, &headers(GET), true), Recv::Pause);
    assert_eq!(insert(&mut lone, INSERTIONS), Recv::Continue);
    let events = lone.events();
    assert!(matches!(events[..], [Event::Request { stream, .. }, Event::Finished { .. }] if stream.into_u64() == 4));
    assert_eq!(lone.closed_with(), None);
}

/// A client that waits for the responses to a request and a CONNECT.
fn asking() -> (Lone, StreamId, StreamId) {
    let mut lone = Lone::client();
    let (get, connect) = (StreamId::from_u64(0), StreamId::from_u64(4));
    let mut head = Request::new(());
    *head.uri_mut() = http::Uri::from_static("https://localhost/");
    lone.core.send_request(lone.now, get, &head, true).expect("connected");
    lone.core
        .connect(lone.now, connect, &SessionRequest::new("localhost", "/"))
        .expect("negotiated");
    (lone, get, connect)
}

#[test]
fn responses_wait() {
    let (mut lone, ..) = asking();
    assert_eq!(insert(&mut lone, b"\x02"), Recv::Continue);
    // Status 200 and "x: y", which is inserted later.
    let section = headers(b"\x02\x80\xd9\x10");
    assert_eq!(
        lone.recv(0, &[&section[..], &data(b"body")].concat(), true),
        Recv::Pause
    );
    assert_eq!(lone.recv(4, &section, false), Recv::Pause);
    // Read on all the same: an unfinished DATA frame.
    assert_eq!(lone.recv(4, &[0], false), Recv::Pause);
    assert!(lone.events().is_empty());
    assert_eq!(insert(&mut lone, b"\x3f\xbd\x01\x41x\x01y"), Recv::Continue);
    let events = lone.events();
    assert!(
        matches!(
            &events[..],
            [
                Event::Response { .. },
                Event::Data { .. },
                Event::Finished { .. },
                Event::SessionEstablished { head, .. },
                Event::Resume { .. }
            ] if head.headers()["x"] == "y"
        ),
        "{events:?}"
    );
    assert_eq!(lone.recv(4, &[0], false), Recv::Continue);
    lone.actions();
    assert!(lone.decoder_stream.ends_with(b"\x80\x84"), "{:?}", lone.decoder_stream);
}

/// One section after the other waits: the caller is not told to read on, since it could then be made to keep the stream piece
/// by piece.
#[test]
fn sections_wait_one_after_the_other() {
    let (mut lone, get, connect) = asking();
    assert_eq!(insert(&mut lone, b"\x02\x3f\xbd\x01"), Recv::Continue);
    // Status 103 with the first insertion, 103 with the second, and an interim head that refers to nothing.
    let interim = [
        headers(b"\x02\x80\xd8\x10"),
        headers(b"\x03\x81\xd8\x10"),
        headers(b"\0\0\xd8"),
    ]
    .concat();
    for stream in [0, 4] {
        assert_eq!(lone.recv(stream, &interim, false), Recv::Pause);
    }
    assert_eq!(insert(&mut lone, b"\x41x\x01y"), Recv::Continue);
    assert!(matches!(lone.events()[..], [Event::Response { .. }]));
    assert!(lone.core.is_blocked(get));
    assert_eq!(insert(&mut lone, b"\x41x\x01z"), Recv::Continue);
    assert!(!lone.core.is_blocked(get));
    // Nobody hears of the interim responses to a CONNECT.
    assert!(matches!(
        lone.events()[..],
        [Event::Response { .. }, Event::Response { .. }, Event::Resume { stream }] if stream == connect
    ));
    let ok = headers(b"\0\0\xd9");
    assert_eq!(lone.recv(0, &ok, true), Recv::Done);
    assert_eq!(lone.recv(4, &ok, false), Recv::Continue);
    assert!(matches!(
        lone.events()[..],
        [
            Event::Response { .. },
            Event::Finished { .. },
            Event::SessionEstablished { .. }
        ]
    ));
}

/// A client that closes a session before the response could be decoded does not decode it any more.
#[test]
fn a_session_closed_while_its_response_waits() {
    let mut lone = Lone::client();
    let id = lone
        .core
        .connect(lone.now, StreamId::from_u64(0), &SessionRequest::new("localhost", "/"))
        .expect("negotiated");
    assert_eq!(insert(&mut lone, b"\x02"), Recv::Continue);
    assert_eq!(lone.recv(0, &headers(OK), false), Recv::Pause);
    lone.core.close_session(lone.now, id, 0, "").expect("requested");
    lone.actions();
    assert_eq!(&lone.decoder_stream[..], b"\x40");
    assert!(matches!(lone.events()[..], [Event::SessionClosed { .. }]));
    assert_eq!(insert(&mut lone, INSERTIONS), Recv::Continue);
    assert!(lone.events().is_empty());
    assert_eq!(lone.recv(0, b"", true), Recv::Done);
    assert_eq!(lone.core.leftovers(), Vec::<String>::new());
}

#[test]
fn the_limits_are_announced() {
    let announced = |config: Config| {
        let mut pair = Pair::connected(config, Config::default());
        pair.run();
        let settings = pair.server.core.peer_settings().expect("SETTINGS").clone();
        [settings::QPACK_MAX_TABLE_CAPACITY, settings::QPACK_BLOCKED_STREAMS].map(|id| settings.get(id))
    };
    assert_eq!(announced(config()), [Some(4096), Some(16)]);
    let mut none = config();
    none.qpack_max_table_capacity = 0;
    assert_eq!(announced(none), [None, None]);
}

fn request(pair: &mut Pair) -> StreamId {
    let stream = pair.client.new_stream(Dir::Bi);
    let mut head = Request::new(());
    *head.uri_mut() = http::Uri::from_static("https://localhost:4433/path");
    let fields = head.headers_mut();
    fields.insert("user-agent", HeaderValue::from_static("a client of some length"));
    pair.client
        .core
        .send_request(pair.now, stream, &head, true)
        .expect("connected");
    stream
}

fn respond(pair: &mut Pair, stream: StreamId) {
    let mut head = Response::new(());
    head.headers_mut()
        .insert("server", HeaderValue::from_static("a server of some length"));
    pair.server.core.send_response(stream, &head, true).expect("requested");
}

fn requests(end: &mut End) -> usize {
    let events = end.events.drain(..);
    events.filter(|event| matches!(event, Event::Request { .. })).count()
}

/// Both ends insert, refer and acknowledge; in the end nothing is unacknowledged.
#[test]
fn both_ends_use_their_tables() {
    for blocked in [0, 16] {
        let mut config = config();
        config.qpack_encoder_blocked_streams = blocked;
        let mut pair = Pair::connected(config.clone(), config);
        for _ in 0..10 {
            let stream = request(&mut pair);
            pair.run();
            assert_eq!(requests(&mut pair.server), 1);
            respond(&mut pair, stream);
            pair.run();
            pair.client
                .expect(|event| matches!(event, Event::Finished { .. }).then_some(()));
        }
        pair.assert_nothing_left();
    }
}

/// An encoder stream that is held up blocks no request unless that was allowed; then as many as were allowed.
#[test]
fn only_a_client_that_may_lets_requests_wait() {
    for (blocked, waiting) in [(0, 0), (1, 1), (3, 3)] {
        let mut client = config();
        client.qpack_encoder_blocked_streams = blocked;
        let mut pair = Pair::connected(client, config());
        pair.held.insert(StreamId::new(Side::Client, Dir::Uni, 1));
        let streams: Vec<StreamId> = (0..6).map(|_| request(&mut pair)).collect();
        pair.run();
        assert_eq!(requests(&mut pair.server), 6 - waiting);
        pair.held.clear();
        pair.run();
        assert_eq!(requests(&mut pair.server), waiting);
        streams.iter().for_each(|&stream| respond(&mut pair, stream));
        pair.run();
        pair.assert_nothing_left();
    }
}
