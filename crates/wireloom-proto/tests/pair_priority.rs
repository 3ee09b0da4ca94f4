//! Priorities of requests and sessions (RFC 9218).

use http::{HeaderValue, Request, Response};
use wireloom_proto::connection::SessionRequest;
use wireloom_proto::h3::frame;
use wireloom_proto::h3::priority::Priority;
use wireloom_proto::h3::settings::Settings;
use wireloom_proto::testing::peer::{ALL_SETTINGS, Lone, extended_connect, headers};
use wireloom_proto::testing::pipe::{End, Pair};
use wireloom_proto::{Code, Config, Dir, Event, Recv, Side, StreamId};

/// The priorities that one end was told, in order.
fn priorities(events: impl IntoIterator<Item = Event>) -> Vec<(u64, Priority)> {
    let told = events.into_iter().filter_map(|event| match event {
        Event::Priority { stream, priority } => Some((stream.into_u64(), priority)),
        _ => None,
    });
    told.collect()
}

fn told(end: &mut End) -> Vec<(u64, Priority)> {
    priorities(end.events.drain(..))
}

fn update(stream: u8, value: &str) -> Vec<u8> {
    let payload = [&[stream], value.as_bytes()].concat();
    frame::encode(frame::PRIORITY_UPDATE_REQUEST, &payload).to_vec()
}

fn get(priority: &str) -> Vec<u8> {
    headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
        ("priority", priority),
    ])
}

#[test]
fn a_requests_field_and_later_updates_are_told() {
    let mut lone = Lone::server();
    let control = lone.peer_uni(0);
    let _ = lone.recv(0, &get("u=1, i"), true);
    let events = lone.events();
    let request = events.iter().position(|event| matches!(event, Event::Request { .. }));
    let priority = events.iter().position(|event| matches!(event, Event::Priority { .. }));
    assert!(request < priority, "first the request");
    assert_eq!(priorities(events), [(0, Priority::new(1).incremental(true))]);
    // What is not mentioned has its default again.
    assert_eq!(lone.recv(control, &update(0, "u=6"), false), Recv::Continue);
    assert_eq!(priorities(lone.events()), [(0, Priority::new(6))]);
    // No change, no event; nonsense changes nothing.
    let same = [update(0, "u=6"), update(0, "u="), update(0, "u=6, x=1")].concat();
    assert_eq!(lone.recv(control, &same, false), Recv::Continue);
    assert!(lone.events().is_empty() && lone.actions().is_empty());
    let _ = lone.recv(4, &get("u=3"), true);
    assert_eq!(priorities(lone.events()), [], "the default is not told");
}

#[test]
fn an_update_may_come_before_its_request_and_the_last_one_counts() {
    let mut lone = Lone::server();
    let control = lone.peer_uni(0);
    let early = [update(4, "u=7"), update(4, "u=2"), update(8, "i")].concat();
    assert_eq!(lone.recv(control, &early, false), Recv::Continue);
    assert!(lone.events().is_empty());
    // Half a head is none.
    let head = get("u=5");
    let _ = lone.recv(4, &head[..3], false);
    assert_eq!(lone.recv(control, &update(4, "u=0"), false), Recv::Continue);
    let _ = lone.recv(4, &head[3..], true);
    assert_eq!(priorities(lone.events()), [(4, Priority::new(0))]);
    let _ = lone.recv(8, &extended_connect("webtransport-h3", &[("priority", "u=1")]), false);
    assert_eq!(priorities(lone.events()), [(8, Priority::default().incremental(true))]);
}

#[test]
fn early_updates_are_bounded() {
    let mut lone = Lone::server();
    let control = lone.peer_uni(0);
    for id in 0..100_000u64 {
        let mut payload = ((id * 4) | 0x8000_0000).to_be_bytes()[4..].to_vec();
        payload.extend_from_slice(b"u=1");
        let frame = frame::encode(frame::PRIORITY_UPDATE_REQUEST, &payload);
        assert_eq!(lone.recv(control, &frame, false), Recv::Continue);
    }
    assert!(lone.core.early_updates() <= 128);
    // Requests that are over make room.
    for stream in 0..128 {
        let _ = lone.recv(stream * 4, &get(""), true);
    }
    assert_eq!(lone.core.early_updates(), 0);
}

/// However a stream turns out to be no request, or one that nobody sees: its update goes with it.
#[test]
fn early_updates_do_not_outlive_what_they_were_for() {
    let connect = extended_connect("webtransport-h3", &[]);
    let malformed = headers(&[(":path", "/")]);
    let refused = extended_connect("unknown", &[]);
    for (what, bytes) in [
        ("a stream of a session", &[0x40, 0x41, 0][..]),
        ("malformed", &malformed),
        ("answered by the core", &refused),
        ("reset before its first byte", &[]),
        ("reset within its head", &connect[..5]),
    ] {
        let (mut lone, _) = Lone::server_with_session(Config::default(), &ALL_SETTINGS);
        let control = lone.peer_uni(0);
        assert_eq!(lone.recv(control, &update(4, "u=1"), false), Recv::Continue);
        assert_eq!(lone.core.early_updates(), 1);
        if !bytes.is_empty() {
            let _ = lone.recv(4, bytes, false);
        }
        if what.starts_with("reset") {
            lone.reset(4, Code::H3_REQUEST_CANCELLED);
        }
        assert_eq!(lone.core.early_updates(), 0, "{what}");
        // Nor is another kept.
        assert_eq!(lone.recv(control, &update(4, "u=2"), false), Recv::Continue);
        assert_eq!(lone.core.early_updates(), 0, "{what}");
    }
    // One for a CONNECT that waits for SETTINGS is for what will be.
    let mut lone = Lone::without_settings(Side::Server, Config::default());
    let _ = lone.recv(4, &connect, false);
    let (control, settings): (_, Settings) = (lone.peer_uni(0), ALL_SETTINGS.iter().copied().collect());
    let stream = [&[0][..], &settings.encode_frame(), &update(4, "u=2")].concat();
    let whole = stream.len() - update(4, "u=2").len();
    assert_eq!(lone.recv(control, &stream[..whole], false), Recv::Continue);
    assert_eq!(lone.recv(control, &stream[whole..], false), Recv::Continue);
    assert_eq!(priorities(lone.events()), [(4, Priority::new(2))]);
}

#[test]
fn the_response_overrides_what_it_names() {
    let mut lone = Lone::server();
    let control = lone.peer_uni(0);
    let _ = lone.recv(0, &get("u=5, i"), true);
    lone.events();
    let mut head = Response::new(());
    head.headers_mut().insert("priority", HeaderValue::from_static("u=1"));
    let stream = StreamId::from_u64(0);
    lone.core.send_response(stream, &head, false).expect("a legal response");
    assert_eq!(priorities(lone.events()), [(0, Priority::new(1).incremental(true))]);
    // The client's later word counts where the server said nothing.
    assert_eq!(lone.recv(control, &update(0, "u=7"), false), Recv::Continue);
    assert_eq!(priorities(lone.events()), [(0, Priority::new(1))]);
    lone.core.set_priority(stream, Priority::new(4)).expect("under way");
    assert_eq!(priorities(lone.events()), [(0, Priority::new(4))]);
    lone.core.finish(stream).expect("under way");
    assert!(lone.core.set_priority(stream, Priority::new(1)).is_err(), "over");
    assert_eq!(lone.recv(control, &update(0, "u=0"), false), Recv::Continue);
    // Its bytes may still be on their way.
    assert_eq!(priorities(lone.events()), [(0, Priority::new(0))]);
    assert_eq!(lone.core.early_updates(), 0);
}

#[test]
fn both_ends_know_a_clients_priorities() {
    let mut pair = Pair::connected(Config::default(), Config::default());
    let mut request = SessionRequest::new("localhost", "/");
    request.headers.insert("priority", HeaderValue::from_static("u=2"));
    let session = pair.request(&request);
    let id = session.into_u64();
    assert_eq!(told(&mut pair.client), [(id, Priority::new(2))]);
    assert_eq!(told(&mut pair.server), [(id, Priority::new(2))]);
    let mut accepted = Response::new(());
    accepted.headers_mut().insert("priority", HeaderValue::from_static("i"));
    let now = pair.now;
    pair.server
        .core
        .accept_session(now, session, &accepted, None)
        .expect("requested");
    pair.run();
    let both = [(id, Priority::new(2).incremental(true))];
    assert_eq!(told(&mut pair.client), both);
    assert_eq!(told(&mut pair.server), both);
    pair.client
        .core
        .set_priority(session.stream(), Priority::new(7))
        .expect("open");
    pair.run();
    assert_eq!(told(&mut pair.client), [(id, Priority::new(7))]);
    // The server said that it is incremental.
    assert_eq!(told(&mut pair.server), [(id, Priority::new(7).incremental(true))]);

    let stream = pair.client.new_stream(Dir::Bi);
    let mut head = Request::new(());
    *head.uri_mut() = "https://localhost/".parse().expect("a URI");
    pair.client.core.send_request(now, stream, &head, true).expect("legal");
    pair.client.core.set_priority(stream, Priority::new(0)).expect("sent");
    pair.run();
    assert_eq!(told(&mut pair.server), [(stream.into_u64(), Priority::new(0))]);
}

#[test]
fn an_update_of_no_request_closes_the_connection() {
    for id in [1, 2, 3] {
        let mut lone = Lone::server();
        let control = lone.peer_uni(0);
        let _ = lone.recv(control, &update(id, "u=1"), false);
        assert_eq!(lone.closed_with(), Some(Code::H3_ID_ERROR));
    }
}
