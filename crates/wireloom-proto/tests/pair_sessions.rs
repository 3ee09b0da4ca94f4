//! Sessions between two connections on one thread.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use wireloom_proto::connection::{CommandError, PeerTransport, SessionEnd, SessionRequest};
use wireloom_proto::testing::peer::{ALL_SETTINGS, Lone, webtransport_connect};
use wireloom_proto::testing::pipe::Pair;
use wireloom_proto::webtransport::flow::FlowControl;
use wireloom_proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom_proto::{Action, Code, Config, Dir, Event, Side};

fn config() -> Config {
    Config::default()
}

fn with_dialects(dialects: Dialects) -> Config {
    let mut config = config();
    config.dialects = dialects;
    config
}

fn status(code: u16) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(code).expect("a status");
    head
}

fn closed(event: Event) -> Option<SessionEnd> {
    match event {
        Event::SessionClosed { end, .. } => Some(end),
        _ => None,
    }
}

#[test]
fn every_pair_of_dialects_agrees_on_the_newest_common_one() {
    let sets: Vec<Dialects> = (0..16u8)
        .map(|bits| {
            Dialect::ALL
                .into_iter()
                .filter(|&dialect| bits & 1 << dialect as u8 != 0)
                .collect()
        })
        .collect();
    for &client in &sets {
        for &server in &sets {
            let common = client.iter().rfind(|&dialect| server.contains(dialect));
            let mut pair = Pair::new(with_dialects(client), with_dialects(server));
            pair.handshake(PeerTransport {
                datagrams: true,
                reset_stream_at: false,
            });
            for side in [Side::Client, Side::Server] {
                assert!(matches!(pair.end(side).event(), Event::Ready { dialect, .. } if dialect == common));
                assert_eq!(pair.end(side).core.dialect(), common);
            }
            let stream = pair.client.new_stream(Dir::Bi);
            let request = SessionRequest::new("localhost", "/");
            match (common, pair.client.core.connect(pair.now, stream, &request)) {
                (None, Err(CommandError::Unsupported)) => {}
                (Some(dialect), Ok(id)) => {
                    pair.run();
                    let Event::SessionRequested {
                        head, dialect: asked, ..
                    } = pair.server.event()
                    else {
                        panic!("no request")
                    };
                    assert_eq!(asked, dialect);
                    assert_eq!(
                        head.headers().contains_key("sec-webtransport-http3-draft02"),
                        dialect == Dialect::Draft02
                    );
                    pair.server
                        .core
                        .accept_session(pair.now, id, &Response::new(()), None)
                        .expect("requested");
                    pair.run();
                    let Event::SessionEstablished { head, .. } = pair.client.event() else {
                        panic!("no session")
                    };
                    let draft = head
                        .headers()
                        .get("sec-webtransport-http3-draft")
                        .map(|value| value.as_bytes());
                    assert_eq!(draft, (dialect == Dialect::Draft02).then_some(&b"draft02"[..]));
                }
                (common, result) => panic!("{common:?}: {result:?}"),
            }
        }
    }
}

#[test]
fn streams_and_datagrams_both_ways_in_pieces_of_any_size() {
    for chunk in [1, 2, 3, 7, usize::MAX] {
        let mut pair = Pair::new(config(), config());
        pair.chunk = chunk;
        pair.handshake(PeerTransport {
            datagrams: true,
            reset_stream_at: false,
        });
        assert!(matches!(pair.client.event(), Event::Ready { .. }));
        assert!(matches!(pair.server.event(), Event::Ready { .. }));
        let session = pair.session();
        for side in [Side::Client, Side::Server] {
            for dir in [Dir::Bi, Dir::Uni] {
                let stream = pair.end(side).open(session, dir).expect("an open session");
                pair.end(side).send(stream, b"hello", true);
                pair.run();
                assert_eq!(&pair.end(!side).received[&stream].data[..], b"hello");
                assert!(pair.end(!side).received[&stream].fin);
                if dir == Dir::Bi {
                    pair.end(!side).send(stream, b"and back", true);
                    pair.run();
                    assert_eq!(&pair.end(side).received[&stream].data[..], b"and back");
                }
            }
            pair.end(side)
                .send_datagram(session, b"datagram")
                .expect("an open session");
            pair.run();
            assert_eq!(pair.end(!side).datagrams, [(session, Bytes::from_static(b"datagram"))]);
        }
        pair.client
            .core
            .close_session(pair.now, session, 7, "done")
            .expect("an open session");
        pair.run();
        let end = pair.server.expect(closed);
        assert_eq!(
            end,
            SessionEnd::ClosedByPeer {
                code: 7,
                reason: "done".to_owned()
            }
        );
        assert_eq!(
            pair.client.expect(closed),
            SessionEnd::ClosedByUs {
                code: 7,
                reason: "done".to_owned()
            }
        );
        pair.assert_nothing_left();
    }
}

#[test]
fn closing_ends_the_streams_of_that_session_only() {
    let mut pair = Pair::connected(with_dialects(Dialects::NONE.with(Dialect::Draft02)), config());
    let (one, two) = (pair.session(), pair.session());
    let bi = pair.client.open(one, Dir::Bi).expect("open");
    let uni = pair.server.open(one, Dir::Uni).expect("open");
    let other = pair.client.open(two, Dir::Bi).expect("open");
    for stream in [bi, other] {
        pair.client.send(stream, b"x", false);
    }
    pair.server.send(uni, b"x", false);
    pair.run();
    pair.server
        .core
        .close_session(pair.now, one, u32::MAX, "\u{e9}".repeat(1000).as_str())
        .expect("open");
    pair.run();
    for side in [Side::Client, Side::Server] {
        let Event::SessionClosed { session, end, streams } = pair.end(side).event() else {
            panic!("not closed")
        };
        assert_eq!((session, streams), (one, vec![bi, uni]));
        let (SessionEnd::ClosedByPeer { code, reason } | SessionEnd::ClosedByUs { code, reason }) = end else {
            panic!("{end:?}")
        };
        // "Senders that truncate an application-supplied message MUST do so at a UTF-8 character boundary" (draft 16
        // section 6).
        assert_eq!((code, reason), (u32::MAX, "\u{e9}".repeat(512)));
    }
    // "the endpoint MUST reset the send side and abort reading on the receive side of all unidirectional and
    // bidirectional streams associated with the session" (draft 16 section 6).
    assert_eq!(
        pair.server.aborted,
        [
            Action::Reset {
                stream: bi,
                code: Code::WT_SESSION_GONE
            },
            Action::StopSending {
                stream: bi,
                code: Code::WT_SESSION_GONE
            },
            Action::Reset {
                stream: uni,
                code: Code::WT_SESSION_GONE
            },
        ]
    );
    // "it MUST NOT send any new datagrams or open any new streams" (draft 16 section 6).
    assert_eq!(pair.client.core.open_stream(one, bi), Err(CommandError::SessionClosed));
    assert_eq!(pair.client.core.datagram_prefix(one), Err(CommandError::SessionClosed));
    pair.client.send(other, b"still here", true);
    pair.run();
    assert_eq!(&pair.server.received[&other].data[..], b"xstill here");
    pair.server.send(other, b"", true);
    pair.run();
    pair.client.core.close_session(pair.now, two, 0, "").expect("open");
    pair.run();
    pair.assert_nothing_left();
}

#[test]
fn a_rejected_session_ends_its_optimistic_streams() {
    let mut pair = Pair::connected(config(), config());
    let session = pair.request(&SessionRequest::new("localhost", "/nowhere"));
    // "The client MAY optimistically open unidirectional and bidirectional streams" (section 4).
    let stream = pair.client.open(session, Dir::Bi).expect("requested");
    pair.client.send(stream, b"early", false);
    pair.client.send_datagram(session, b"early").expect("requested");
    pair.run();
    assert_eq!(
        pair.server.core.open_stream(session, stream),
        Err(CommandError::InvalidState)
    );
    assert!(
        pair.server
            .core
            .accept_session(pair.now, session, &status(404), None)
            .is_err()
    );
    assert!(
        pair.server
            .core
            .reject_session(pair.now, session, &status(200), Bytes::new())
            .is_err()
    );
    pair.server
        .core
        .reject_session(pair.now, session, &status(404), Bytes::from_static(b"no such resource"))
        .expect("requested");
    pair.run();
    let Event::SessionRejected {
        session: id,
        head,
        streams,
    } = pair.client.event()
    else {
        panic!("not rejected")
    };
    assert_eq!(
        (id, head.status(), streams),
        (session, StatusCode::NOT_FOUND, vec![stream])
    );
    assert_eq!(
        pair.server.aborted[0],
        Action::Reset {
            stream,
            code: Code::WT_SESSION_GONE
        }
    );
    pair.assert_nothing_left();
    assert!(pair.server.events.is_empty());
}

#[test]
fn a_rejections_body_has_its_length() {
    for (length, status_code, body, fits) in [
        ("4", 404, &b"body"[..], true),
        ("5", 404, b"body", false),
        ("3", 404, b"body", false),
        ("4", 404, b"", false),
        ("4", 304, b"", true),
        ("no", 404, b"", false),
    ] {
        let mut pair = Pair::connected(config(), config());
        let session = pair.request(&SessionRequest::new("localhost", "/"));
        let mut head = status(status_code);
        head.headers_mut()
            .insert("content-length", length.parse().expect("a value"));
        let rejected = pair
            .server
            .core
            .reject_session(pair.now, session, &head, Bytes::from_static(body));
        assert_eq!(rejected.is_ok(), fits, "{length}: {rejected:?}");
        assert_eq!(pair.server.core.sessions().count(), usize::from(!fits));
    }
}

/// The time runs from the rejection, however long nothing had come before it.
#[test]
fn a_rejected_client_has_its_time_to_read_the_response() {
    let mut lone = Lone::server();
    let _ = lone.recv(0, &webtransport_connect(), false);
    let session = lone.core.sessions().next().expect("requested");
    lone.now += Duration::from_secs(60);
    lone.core
        .reject_session(lone.now, session, &status(404), Bytes::new())
        .expect("requested");
    assert_eq!(lone.actions().len(), 1);
    lone.advance(Duration::ZERO);
    assert!(lone.actions().is_empty());
    lone.advance(Duration::from_secs(5));
    let (stream, code) = (session.stream(), Code::H3_NO_ERROR);
    assert_eq!(lone.actions(), [Action::StopSending { stream, code }]);
}

#[test]
fn what_comes_before_the_session_waits_for_it_on_both_sides() {
    let mut pair = Pair::connected(config(), config());
    let connect = pair.client.new_stream(Dir::Bi);
    let session = pair
        .client
        .core
        .connect(pair.now, connect, &SessionRequest::new("localhost", "/"))
        .expect("ready");
    pair.held.insert(connect);
    let early = pair.client.open(session, Dir::Uni).expect("requested");
    pair.client.send(early, b"first", true);
    pair.client.send_datagram(session, b"second").expect("requested");
    pair.run();
    assert!(pair.server.events.is_empty() && pair.server.datagrams.is_empty());
    pair.held.remove(&connect);
    pair.run();
    assert!(matches!(pair.server.event(), Event::SessionRequested { .. }));
    pair.held.insert(connect);
    pair.server
        .core
        .accept_session(pair.now, session, &Response::new(()), None)
        .expect("requested");
    let reply = pair.server.open(session, Dir::Bi).expect("open");
    pair.server.send(reply, b"third", false);
    pair.server.send_datagram(session, b"fourth").expect("open");
    pair.run();
    assert!(matches!(pair.server.event(), Event::Stream { stream, fin: true, .. } if stream == early));
    assert!(matches!(pair.server.event(), Event::Datagram { payload, .. } if payload == "second"));
    assert_eq!(&pair.server.received[&early].data[..], b"first");
    assert!(pair.client.events.is_empty() && pair.client.datagrams.is_empty());
    pair.held.clear();
    pair.run();
    assert!(matches!(pair.client.event(), Event::SessionEstablished { .. }));
    assert!(matches!(pair.client.event(), Event::Stream { stream, fin: false, .. } if stream == reply));
    assert!(matches!(pair.client.event(), Event::Datagram { payload, .. } if payload == "fourth"));
    pair.server.send(reply, b" and more", true);
    pair.run();
    assert_eq!(&pair.client.received[&reply].data[..], b"third and more");
    pair.client.send(reply, b"", true);
    pair.client.core.close_session(pair.now, session, 0, "").expect("open");
    pair.run();
    pair.assert_nothing_left();
}

#[test]
fn waiting_streams_expire_and_are_counted() {
    let mut server = config();
    server.max_parked_streams = 2;
    let mut pair = Pair::connected(config(), server);
    let session = pair.request(&SessionRequest::new("localhost", "/"));
    let streams: Vec<_> = (0..3)
        .map(|_| pair.client.open(session, Dir::Bi).expect("requested"))
        .collect();
    streams.iter().for_each(|&stream| pair.client.send(stream, b"x", false));
    pair.run();
    // "a stream MUST be closed by sending a RESET_STREAM and/or STOP_SENDING with the WT_BUFFERED_STREAM_REJECTED error
    // code" (draft 16 section 4.6).
    let rejected = |stream| {
        let code = Code::WT_BUFFERED_STREAM_REJECTED;
        [Action::Reset { stream, code }, Action::StopSending { stream, code }]
    };
    assert_eq!(pair.server.aborted, rejected(streams[2]));
    pair.advance(Duration::from_secs(6));
    assert_eq!(
        pair.server.aborted[2..],
        [rejected(streams[0]), rejected(streams[1])].concat()
    );
    pair.server
        .core
        .reject_session(pair.now, session, &status(503), Bytes::new())
        .expect("requested");
    pair.run();
    pair.assert_nothing_left();
}

#[test]
fn protocols_are_negotiated() {
    let mut pair = Pair::connected(config(), config());
    let mut request = SessionRequest::new("localhost", "/");
    request.protocols = vec!["echo.v2".to_owned(), "echo.v1".to_owned()];
    request.origin = Some("https://example.org".to_owned());
    let stream = pair.client.new_stream(Dir::Bi);
    let session = pair.client.core.connect(pair.now, stream, &request).expect("ready");
    pair.run();
    let Event::SessionRequested { head, protocols, .. } = pair.server.event() else {
        panic!("no request")
    };
    assert_eq!(protocols, request.protocols);
    assert_eq!(head.headers()["origin"], "https://example.org");
    assert_eq!(head.uri().to_string(), "https://localhost/");
    let accept = |pair: &mut Pair, protocol| {
        pair.server
            .core
            .accept_session(pair.now, session, &Response::new(()), Some(protocol))
    };
    // "the server MUST include a single choice from the client's list in that field" (draft 16 section 3.3).
    // "the value in the WT-Protocol response header field MUST be one of the values listed in WT-Available-Protocols of
    // the request" (draft 16 section 3.3).
    assert!(accept(&mut pair, "echo.v3").is_err());
    accept(&mut pair, "echo.v1").expect("offered");
    pair.run();
    let Event::SessionEstablished { protocol, .. } = pair.client.event() else {
        panic!("no session")
    };
    assert_eq!(protocol.as_deref(), Some("echo.v1"));
}

/// Nobody would compare what is in it with what was offered.
#[test]
fn fields_of_the_caller_negotiate_no_protocol() {
    let mut pair = Pair::connected(config(), config());
    let mut request = SessionRequest::new("localhost", "/");
    let value = HeaderValue::from_static("\"echo.v1\"");
    request.headers.insert("wt-available-protocols", value.clone());
    let stream = pair.client.new_stream(Dir::Bi);
    let session = pair.client.core.connect(pair.now, stream, &request).expect("ready");
    pair.run();
    let Event::SessionRequested { head, protocols, .. } = pair.server.event() else {
        panic!("no request")
    };
    assert!(protocols.is_empty() && !head.headers().contains_key("wt-available-protocols"));
    let mut response = Response::new(());
    response.headers_mut().insert("wt-protocol", value);
    let accepted = pair.server.core.accept_session(pair.now, session, &response, None);
    accepted.expect("requested");
    pair.run();
    let Event::SessionEstablished { head, protocol, .. } = pair.client.event() else {
        panic!("no session")
    };
    assert!(protocol.is_none() && !head.headers().contains_key("wt-protocol"));
}

/// "A WebTransport endpoint that allows a WebTransport session to share an underlying transport connection with other
/// WebTransport sessions MUST enable flow control" (draft 16 section 5.1).
/// "clients MUST NOT attempt to establish more than one simultaneous WebTransport session" (draft 16 section 5.1).
#[test]
fn one_session_at_a_time_without_flow_control() {
    let mut off = config();
    off.flow_control = FlowControl::OFF;
    let mut pair = Pair::connected(config(), off);
    let session = pair.session();
    let stream = pair.client.new_stream(Dir::Bi);
    let request = SessionRequest::new("localhost", "/");
    assert_eq!(
        pair.client.core.connect(pair.now, stream, &request),
        Err(CommandError::NoMoreSessions)
    );
    pair.client.core.close_session(pair.now, session, 0, "").expect("open");
    pair.run();
    let again = pair
        .client
        .core
        .connect(pair.now, stream, &request)
        .expect("the first is over");
    pair.run();
    assert!(matches!(pair.server.expect(Some), Event::SessionClosed { .. }));
    assert!(matches!(pair.server.event(), Event::SessionRequested { session, .. } if session == again));
}

#[test]
fn drain_and_goaway_tell_the_application_once() {
    let mut pair = Pair::connected(with_dialects(Dialects::NONE.with(Dialect::Draft02)), config());
    let (one, two) = (pair.session(), pair.session());
    pair.server.core.drain_session(one).expect("open");
    pair.server.core.drain_session(one).expect("open");
    pair.server.core.goaway(pair.now);
    pair.server.core.goaway(pair.now);
    pair.run();
    let mut drained = Vec::new();
    let mut goaways = Vec::new();
    for event in pair.client.events.drain(..) {
        match event {
            Event::SessionDraining { session } => drained.push(session),
            Event::GoAway { id } => goaways.push(id),
            event => panic!("{event:?}"),
        }
    }
    drained.sort_unstable();
    assert_eq!(drained, [one, two]);
    assert_eq!(goaways, [two.into_u64() + 4]);
    // "an endpoint MAY continue using the session" (section 4.7).
    let stream = pair.client.open(one, Dir::Bi).expect("open");
    pair.client.send(stream, b"still", true);
    pair.run();
    assert_eq!(&pair.server.received[&stream].data[..], b"still");
    let late = pair.client.new_stream(Dir::Bi);
    let request = SessionRequest::new("localhost", "/");
    // "it MUST open a new HTTP/3 connection to initiate new WebTransport sessions with the same peer" (draft 16 section
    // 4.7).
    assert_eq!(
        pair.client.core.connect(pair.now, late, &request),
        Err(CommandError::NoMoreSessions)
    );
    pair.client.core.goaway(pair.now);
    pair.run();
    assert!(matches!(pair.server.event(), Event::GoAway { id: 0 }));
    assert!(matches!(pair.server.event(), Event::SessionDraining { .. }));
}

#[test]
fn a_reset_or_a_stop_of_the_connect_stream_ends_the_session() {
    for stop in [false, true] {
        for side in [Side::Client, Side::Server] {
            let mut pair = Pair::connected(config(), config());
            let session = pair.session();
            let stream = pair.client.open(session, Dir::Uni).expect("open");
            pair.client.send(stream, b"x", false);
            pair.run();
            let code = Code::H3_REQUEST_CANCELLED;
            if stop {
                pair.end(side).stop(session.stream(), code);
            } else {
                pair.end(side).reset(session.stream(), code);
            }
            pair.run();
            let expected = if stop {
                SessionEnd::StoppedByPeer { code }
            } else {
                SessionEnd::ResetByPeer { code }
            };
            assert_eq!(pair.end(!side).expect(closed), expected);
            assert!(pair.end(!side).aborted.contains(&Action::Reset {
                stream: session.stream(),
                code
            }));
            assert!(pair.end(!side).core.leftovers().is_empty());
        }
    }
}

/// "The endpoint MAY also send a STOP_SENDING with error code WT_SESSION_GONE" (section 6): it may overtake the capsule.
#[test]
fn stop_sending_that_overtakes_the_close_capsule_does_not_hide_it() {
    let mut pair = Pair::connected(config(), config());
    let session = pair.session();
    pair.server
        .core
        .handle_stopped(pair.now, session.stream(), Code::WT_SESSION_GONE);
    pair.server.pump();
    assert!(pair.server.events.is_empty());
    pair.client
        .core
        .close_session(pair.now, session, 9, "bye")
        .expect("open");
    pair.run();
    assert_eq!(
        pair.server.expect(closed),
        SessionEnd::ClosedByPeer {
            code: 9,
            reason: "bye".to_owned()
        }
    );
    pair.assert_nothing_left();

    let mut pair = Pair::connected(config(), config());
    let session = pair.session();
    pair.server
        .core
        .handle_stopped(pair.now, session.stream(), Code::WT_SESSION_GONE);
    pair.server.pump();
    assert_eq!(pair.server.core.drain_session(session), Ok(()));
    pair.advance(Duration::from_secs(6));
    assert_eq!(
        pair.server.expect(closed),
        SessionEnd::StoppedByPeer {
            code: Code::WT_SESSION_GONE
        }
    );
    pair.assert_nothing_left();
}

/// "Clients MUST NOT discard complete responses as a result of having their request terminated abruptly" (RFC 9114 section
/// 4.1): QUIC libraries send STOP_SENDING ahead of the response that was written before it.
#[test]
fn stop_sending_that_overtakes_the_response_does_not_hide_it() {
    for code in [Code::H3_NO_ERROR, Code::WT_SESSION_GONE] {
        let mut pair = Pair::connected(config(), config());
        let session = pair.request(&SessionRequest::new("localhost", "/nowhere"));
        let early = pair.client.open(session, Dir::Uni).expect("requested");
        pair.server
            .core
            .reject_session(pair.now, session, &status(404), Bytes::from_static(b"no"))
            .expect("requested");
        pair.server.stop(session.stream(), code);
        pair.run();
        let Event::SessionRejected { head, streams, .. } = pair.client.event() else {
            panic!("not rejected")
        };
        assert_eq!((head.status(), streams), (StatusCode::NOT_FOUND, vec![early]));
        assert!(pair.client.events.is_empty());
        // The server's core was not asked when its QUIC stopped the stream.
        pair.advance(Duration::from_secs(6));
        pair.assert_nothing_left();
    }

    // A session that was over before the client knew that it was open.
    let mut pair = Pair::connected(config(), config());
    let session = pair.request(&SessionRequest::new("localhost", "/"));
    pair.server
        .core
        .accept_session(pair.now, session, &status(200), None)
        .expect("requested");
    pair.server
        .core
        .close_session(pair.now, session, 9, "bye")
        .expect("open");
    pair.server.stop(session.stream(), Code::WT_SESSION_GONE);
    pair.run();
    assert!(matches!(pair.client.event(), Event::SessionEstablished { .. }));
    let reason = "bye".to_owned();
    assert_eq!(pair.client.expect(closed), SessionEnd::ClosedByPeer { code: 9, reason });
    pair.advance(Duration::from_secs(6));
    pair.assert_nothing_left();
}

/// Whatever else the server means by stopping a CONNECT ends it, though not before there is a response.
#[test]
fn a_connect_that_is_stopped_does_not_become_a_session() {
    let code = Code::H3_NO_ERROR;
    for accepted in [true, false] {
        let mut pair = Pair::connected(config(), config());
        let session = pair.request(&SessionRequest::new("localhost", "/"));
        pair.client.core.handle_stopped(pair.now, session.stream(), code);
        pair.client.pump();
        assert!(pair.client.events.is_empty() && pair.client.core.is_stopped(session));
        assert_eq!(pair.client.open(session, Dir::Bi), Err(CommandError::SessionClosed));
        if accepted {
            // What the client has sent is void, and the server hears of that first.
            pair.held.insert(session.stream());
            pair.server
                .core
                .accept_session(pair.now, session, &status(200), None)
                .expect("requested");
            pair.server.pump();
            pair.held.clear();
            pair.step(Side::Server);
            assert!(matches!(pair.client.event(), Event::SessionEstablished { .. }));
        } else {
            // The reset does not reach the server, which never answers.
            pair.held.insert(session.stream());
            pair.advance(Duration::from_secs(4));
            assert!(pair.client.events.is_empty());
            pair.advance(Duration::from_secs(2));
        }
        assert_eq!(pair.client.expect(closed), SessionEnd::StoppedByPeer { code });
        assert!(pair.client.core.leftovers().is_empty());
    }
}

#[test]
fn a_peer_that_does_not_end_its_side_is_stopped() {
    let mut pair = Pair::connected(config(), config());
    let session = pair.session();
    pair.held.insert(session.stream());
    pair.server.core.close_session(pair.now, session, 1, "").expect("open");
    pair.run();
    assert!(!pair.server.core.is_idle(), "the CONNECT stream is still open");
    assert!(
        pair.server.aborted.is_empty(),
        "STOP_SENDING must not overtake the capsule"
    );
    pair.advance(Duration::from_secs(6));
    let stop = Action::StopSending {
        stream: session.stream(),
        code: Code::WT_SESSION_GONE,
    };
    assert_eq!(pair.server.aborted, [stop]);
    assert!(pair.server.core.is_idle());
    pair.held.clear();
    pair.run();
    assert_eq!(
        pair.client.expect(closed),
        SessionEnd::ClosedByPeer {
            code: 1,
            reason: String::new()
        }
    );
    pair.assert_nothing_left();
}

/// "Cleanly terminating a CONNECT stream without a WT_CLOSE_SESSION capsule SHALL be semantically equivalent to
/// terminating it with a WT_CLOSE_SESSION capsule that has an error code of 0 and an empty error string" (draft 16
/// section 6).
#[test]
fn a_clean_fin_is_a_close_with_code_0() {
    for side in [Side::Client, Side::Server] {
        let mut pair = Pair::connected(config(), config());
        let session = pair.session();
        // Past the core of that end, which is therefore not asked any more.
        pair.end(side).write(session.stream(), b"", true);
        while pair.step(side) {}
        assert_eq!(
            pair.end(!side).expect(closed),
            SessionEnd::ClosedByPeer {
                code: 0,
                reason: String::new()
            }
        );
        assert!(pair.end(!side).core.leftovers().is_empty());
    }
}

#[test]
fn both_ends_close_at_once() {
    let mut pair = Pair::connected(config(), config());
    let session = pair.session();
    pair.client
        .core
        .close_session(pair.now, session, 1, "mine")
        .expect("open");
    pair.server
        .core
        .close_session(pair.now, session, 2, "no, mine")
        .expect("open");
    pair.run();
    assert_eq!(
        pair.client.expect(closed),
        SessionEnd::ClosedByUs {
            code: 1,
            reason: "mine".to_owned()
        }
    );
    assert_eq!(
        pair.server.expect(closed),
        SessionEnd::ClosedByUs {
            code: 2,
            reason: "no, mine".to_owned()
        }
    );
    pair.assert_nothing_left();
}

/// "the client MUST wait for receipt of the server's SETTINGS frame before establishing any WebTransport sessions"
/// (draft 16 section 4.6), and "Clients MUST NOT attempt to establish WebTransport sessions with the "webtransport-h3"
/// token until they have received the setting indicating WebTransport support from the server" (draft 16 section 3.1).
#[test]
fn the_client_waits_for_settings() {
    let mut pair = Pair::new(config(), config());
    let stream = pair.client.new_stream(Dir::Bi);
    let request = SessionRequest::new("localhost", "/");
    assert_eq!(
        pair.client.core.connect(pair.now, stream, &request),
        Err(CommandError::NotReady)
    );
    // SETTINGS may come before the handshake is known to be complete.
    pair.run();
    assert!(pair.client.events.is_empty() && pair.client.core.peer_settings().is_some());
    pair.handshake(PeerTransport::default());
    assert!(
        matches!(
            pair.client.event(),
            Event::Ready {
                dialect: Some(Dialect::Draft02),
                ..
            }
        ),
        "no QUIC datagrams, so nothing newer"
    );
    pair.client.core.connect(pair.now, stream, &request).expect("ready now");
}

/// "A client MUST NOT establish WebTransport sessions if the server's SETTINGS do not have correct values for every
/// required setting or if the server's transport parameters do not have correct values for every required transport
/// parameter" (draft 16 section 3.1).
#[test]
fn nothing_is_asked_of_a_server_that_lacks_something() {
    let newest = with_dialects(Dialects::NONE.with(Dialect::Draft15));
    let request = SessionRequest::new("localhost", "/");
    let mut pair = Pair::new(newest.clone(), newest.clone());
    pair.handshake(PeerTransport::default());
    let stream = pair.client.new_stream(Dir::Bi);
    assert_eq!(
        pair.client.core.connect(pair.now, stream, &request),
        Err(CommandError::Unsupported)
    );
    for missing in [8, 0x33, 0x2c7c_f000] {
        let settings: Vec<_> = ALL_SETTINGS.into_iter().filter(|&(id, _)| id != missing).collect();
        let mut lone = Lone::new(Side::Client, newest.clone(), &settings);
        assert_eq!(
            lone.core.connect(lone.now, stream, &request),
            Err(CommandError::Unsupported),
            "{missing:#x}"
        );
    }
}

/// "Both the :authority and the :path value MUST be set" (draft 16 section 3.2).
#[test]
fn invalid_session_requests_are_refused_before_they_are_sent() {
    let mut pair = Pair::connected(config(), config());
    let stream = pair.client.new_stream(Dir::Bi);
    let mut bad_protocol = SessionRequest::new("localhost", "/");
    bad_protocol.protocols = vec!["\u{fc}".to_owned()];
    let mut bad_origin = SessionRequest::new("localhost", "/");
    bad_origin.origin = Some("a\nb".to_owned());
    let bad = [
        SessionRequest::new("local host", "/"),
        SessionRequest::new("user@localhost", "/"),
        SessionRequest::new("", "/"),
        SessionRequest::new("localhost", "no slash"),
        bad_protocol,
        bad_origin,
    ];
    for request in bad {
        let error = pair
            .client
            .core
            .connect(pair.now, stream, &request)
            .expect_err("must be refused");
        assert!(
            matches!(error, CommandError::InvalidMessage(_) | CommandError::InvalidHeaders(_)),
            "{request:?}: {error:?}"
        );
    }
    pair.assert_nothing_left();
}
