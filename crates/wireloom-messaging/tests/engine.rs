//! The sans-IO engines, with a clock of our own: deadlines to the instant, late, unknown and duplicate replies.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use wireloom_messaging::codec::{AcceptConf, DecodeError, Message, Name, Payload, RequestId};
use wireloom_messaging::engine::{
    Answer, ClientConfig, ClientEngine, ClientEvent, CloseCode, ConnectionConfig, Received, Rejected, ReplyOutcome,
    ReplyProblem, SendError, ServerEngine, Violation,
};

const SECOND: Duration = Duration::from_secs(1);

fn bytes(message: Message<'_>) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn request(id: u64) -> Vec<u8> {
    bytes(Message::Request {
        id: RequestId::from_u64(id),
        name: Name::new("name").unwrap(),
        payload: Payload::utf8("x"),
    })
}

fn signal() -> Vec<u8> {
    bytes(Message::Signal {
        name: Name::new("name").unwrap(),
        payload: Payload::utf8("x"),
    })
}

fn server(concurrency: usize, now: Instant) -> ServerEngine {
    let mut config = ConnectionConfig::default();
    config.concurrency = concurrency;
    config.message_buffer_size = 1024;
    ServerEngine::new(Arc::new(config), now)
}

#[test]
fn the_server_times_out_to_the_instant() {
    let t0 = Instant::now();
    let mut engine = server(1, t0);
    assert_eq!(engine.deadline(), Some(t0 + 60 * SECOND));
    let heartbeat = bytes(Message::Heartbeat);
    assert_eq!(engine.receive(t0 + 59 * SECOND, &heartbeat), Ok(Received::Nothing));
    assert_eq!(engine.handle_timeout(t0 + 118 * SECOND), Ok(()));
    let late = engine.handle_timeout(t0 + 119 * SECOND).unwrap_err();
    assert_eq!((late, late.close_code()), (Violation::ReadTimeout, CloseCode::Policy));
    // A message that has begun has as long again for its rest, and no longer.
    engine.receiving(t0 + 118 * SECOND);
    engine.receiving(t0 + 150 * SECOND);
    assert_eq!(engine.deadline(), Some(t0 + 178 * SECOND));
    // Pings between its parts give it no more time.
    engine.heard(t0 + 177 * SECOND);
    assert_eq!(engine.deadline(), Some(t0 + 178 * SECOND));
    assert_eq!(engine.receive(t0 + 177 * SECOND, &heartbeat), Ok(Received::Nothing));
    // Otherwise a Ping is as good as a message.
    engine.heard(t0 + 200 * SECOND);
    assert_eq!(engine.deadline(), Some(t0 + 260 * SECOND));
}

#[test]
fn the_server_is_patient_while_it_does_not_read() {
    let t0 = Instant::now();
    let mut engine = server(1, t0);
    assert!(engine.admits(&request(1)));
    assert!(matches!(engine.receive(t0, &request(1)), Ok(Received::Request { .. })));
    assert!(!engine.admits(&request(2)) && !engine.admits(&signal()));
    assert!(engine.admits(&bytes(Message::Heartbeat)));
    assert!(engine.admits(&bytes(Message::CloseSession {
        id: RequestId::from_u64(3)
    })));
    assert_eq!(
        (engine.deadline(), engine.handle_timeout(t0 + 999 * SECOND)),
        (None, Ok(()))
    );
    engine.finished(t0 + 1000 * SECOND);
    assert_eq!(engine.deadline(), Some(t0 + 1060 * SECOND));
    // Nor does the time run for a message of which there is only a part.
    let t1 = t0 + 1000 * SECOND;
    assert!(matches!(engine.receive(t1, &request(2)), Ok(Received::Request { .. })));
    engine.receiving(t1);
    engine.finished(t1 + 100 * SECOND);
    assert_eq!(engine.deadline(), Some(t1 + 160 * SECOND));
}

#[test]
fn the_server_refuses_while_it_ends() {
    let t0 = Instant::now();
    let mut engine = server(1, t0);
    assert!(matches!(engine.receive(t0, &signal()), Ok(Received::Signal { .. })));
    engine.end();
    assert!(engine.admits(&request(1)) && !engine.is_done());
    let id = RequestId::from_u64(1);
    for message in [
        request(1),
        bytes(Message::CloseSession { id }),
        bytes(Message::RestoreSession { id, key: b"k" }),
    ] {
        let refused = Ok(Received::Refused(Message::ReplyShutdown { id }));
        assert_eq!(engine.receive(t0, &message), refused);
    }
    assert_eq!(engine.receive(t0, &signal()), Ok(Received::Nothing));
    engine.finished(t0);
    assert!(engine.is_done());
}

#[test]
fn the_server_replies_in_any_case() {
    let t0 = Instant::now();
    let engine = server(1, t0);
    let id = RequestId::from_u64(9);
    let reply = |answer| {
        let mut out = Vec::new();
        let result = engine.reply(id, answer, &mut out);
        assert!(!out.is_empty() && out.len() <= 1024);
        (result, out)
    };
    let largest = vec![0; 1024 - 9];
    assert_eq!(reply(Answer::Payload(Payload::binary(&largest))).0, Ok(()));
    let (problem, out) = reply(Answer::Payload(Payload::binary(&[0; 1016])));
    assert_eq!(
        problem,
        Err(ReplyProblem::TooLarge {
            size: 1025,
            limit: 1024
        })
    );
    let too_large = Message::ReplyError {
        id,
        code: b"REPLY_TOO_LARGE",
        message: b"",
    };
    assert_eq!(Message::decode(&out), Ok(too_large));
    let message = &"m".repeat(2000);
    assert!(reply(Answer::Error { code: "E", message }).0.is_err());
    for answer in [
        Answer::Error { code: "", message: "" },
        Answer::Error {
            code: "é", message: ""
        },
        Answer::Payload(Payload::utf16(b"odd")),
    ] {
        let (problem, out) = reply(answer);
        assert!(matches!(problem, Err(ReplyProblem::Encode(_))));
        assert_eq!(Message::decode(&out), Ok(Message::ReplyInternalError { id }));
    }
}

#[test]
fn the_server_is_quiet_at_first() {
    let t0 = Instant::now();
    let mut engine = server(1, t0);
    assert!(!engine.may_notify(t0 + Duration::from_millis(99)));
    assert!(engine.may_notify(t0 + Duration::from_millis(100)));
    assert!(engine.receive(t0, &bytes(Message::Heartbeat)).is_ok());
    assert!(engine.may_notify(t0));
}

#[test]
fn the_server_knows_violations() {
    let t0 = Instant::now();
    for (message, code) in [
        (&[][..], CloseCode::Malformed),
        (&[255], CloseCode::Malformed),
        (&[0x21, 0], CloseCode::Malformed),
        (&[0x80; 1025], CloseCode::TooBig),
    ] {
        let violation = server(1, t0).receive(t0, message).unwrap_err();
        assert_eq!(violation.close_code(), code, "{violation}");
    }
}

fn accepted(now: Instant) -> ClientEngine<&'static str> {
    let mut engine = ClientEngine::new(ClientConfig::default(), now);
    let conf = AcceptConf::new(60_000, 1024);
    assert_eq!(
        engine.receive(&bytes(Message::AcceptConf(conf))),
        Ok(ClientEvent::Accepted(conf))
    );
    engine
}

fn ask(engine: &mut ClientEngine<&'static str>, now: Instant, deadline: u64, token: &'static str) -> RequestId {
    let name = Name::new("name").unwrap();
    let deadline = Some(now + deadline as u32 * SECOND);
    let mut out = Vec::new();
    let id = engine
        .request(now, name, Payload::EMPTY, deadline, token, &mut out)
        .unwrap();
    assert_eq!(Message::decode(&out).unwrap().id(), Some(id));
    id
}

#[test]
fn the_client_ignores_what_it_does_not_wait_for() {
    let t0 = Instant::now();
    let mut engine = accepted(t0);
    let id = ask(&mut engine, t0, 10, "first");
    // V06: the first identifier is 1.
    assert_eq!(id, RequestId::from_u64(1));
    let reply = bytes(Message::Reply {
        id,
        payload: Payload::utf8("ok"),
    });
    let unknown = bytes(Message::ReplyShutdown {
        id: RequestId::from_u64(77),
    });
    assert_eq!(engine.receive(&unknown), Ok(ClientEvent::Ignored));
    let outcome = ReplyOutcome::Payload(Payload::utf8("ok"));
    assert_eq!(
        engine.receive(&reply),
        Ok(ClientEvent::Reply {
            token: "first",
            outcome
        })
    );
    // The same again.
    assert_eq!(engine.receive(&reply), Ok(ClientEvent::Ignored));
    // Late.
    let id = ask(&mut engine, t0, 10, "second");
    assert_eq!(engine.next_expired(t0 + 9 * SECOND), None);
    assert_eq!(engine.next_expired(t0 + 10 * SECOND), Some((id, "second")));
    let late = bytes(Message::Reply {
        id,
        payload: Payload::EMPTY,
    });
    assert_eq!(engine.receive(&late), Ok(ClientEvent::Ignored));
    // Cancelled.
    let id = ask(&mut engine, t0, 10, "third");
    assert_eq!((engine.cancel(id), engine.cancel(id)), (Some("third"), None));
    let late = bytes(Message::ReplyInternalError { id });
    assert_eq!((engine.receive(&late), engine.pending()), (Ok(ClientEvent::Ignored), 0));
    assert_eq!(engine.next_expired(t0 + 999 * SECOND), None);
}

#[test]
fn the_client_sends_heartbeats_at_three_quarters() {
    let t0 = Instant::now();
    let mut engine = accepted(t0);
    let mut out = Vec::new();
    assert_eq!(engine.deadline(), Some(t0 + 45 * SECOND));
    engine.heartbeat(t0 + 44 * SECOND, &mut out);
    assert!(out.is_empty());
    ask(&mut engine, t0 + 44 * SECOND, 99, "any message counts");
    assert_eq!(engine.deadline(), Some(t0 + 89 * SECOND));
    engine.heartbeat(t0 + 89 * SECOND, &mut out);
    assert_eq!(out, [0x21]);
    assert_eq!(engine.deadline(), Some(t0 + 134 * SECOND));
}

#[test]
fn the_client_knows_final_from_passing_errors() {
    let t0 = Instant::now();
    let other = AcceptConf {
        major: 3,
        ..AcceptConf::new(1, 1024)
    };
    let named = AcceptConf::new(1, 1024).with_sub_protocol(b"chat/1");
    for (first, error, is_final) in [
        (bytes(Message::AcceptConf(other)), Rejected::Version { major: 3 }, true),
        (
            bytes(Message::AcceptConf(named)),
            Rejected::SubProtocol("chat/1".into()),
            true,
        ),
        (
            bytes(Message::AcceptConf(AcceptConf::new(1, 512))),
            Rejected::MessageBufferSize(512),
            true,
        ),
        (signal(), Rejected::OutOfOrder, true),
        (vec![0xff], Rejected::Undecodable(DecodeError::Unknown), false),
    ] {
        let mut config = ClientConfig::default();
        config.message_buffer_size = Some(1024);
        let mut engine = ClientEngine::<()>::new(config, t0);
        let mut out = Vec::new();
        let early = engine.signal(t0, Name::EMPTY, Payload::utf8("x"), &mut out);
        assert_eq!((early, out.len()), (Err(SendError::NotAccepted), 0));
        assert_eq!(engine.receive(&first), Err(error.clone()));
        assert_eq!(error.is_final(), is_final, "{error}");
    }
    let mut engine = accepted(t0);
    let again = bytes(Message::AcceptConf(AcceptConf::new(1, 1024)));
    assert_eq!(engine.receive(&again), Err(Rejected::OutOfOrder));
    assert_eq!(engine.receive(&[0xc0; 1025]), Err(Rejected::TooBig(1025)));
}

#[test]
fn the_client_does_not_send_what_is_too_large() {
    let t0 = Instant::now();
    let mut engine = accepted(t0);
    let mut out = Vec::new();
    let payload = Payload::binary(&[0; 1023]);
    let too_large = Err(SendError::TooLarge {
        size: 1025,
        limit: 1024,
    });
    assert_eq!(
        (engine.signal(t0, Name::EMPTY, payload, &mut out), out.len()),
        (too_large, 0)
    );
}

#[test]
fn a_lost_connection_gives_every_token_back() {
    let t0 = Instant::now();
    let mut engine = accepted(t0);
    let first = ask(&mut engine, t0, 10, "first");
    ask(&mut engine, t0, 10, "second");
    let mut tokens: Vec<_> = engine.reset(t0).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, ["first", "second"]);
    assert_eq!((engine.pending(), engine.deadline()), (0, None));
    // The next connection counts on, so that no reply is taken for another's.
    let conf = bytes(Message::AcceptConf(AcceptConf::new(0, 1024)));
    engine.receive(&conf).unwrap();
    assert!(ask(&mut engine, t0, 10, "third") > first);
}

/// However many requests were answered long before their deadlines, nothing piles up.
#[test]
fn deadlines_of_answered_requests_are_forgotten() {
    let t0 = Instant::now();
    let mut engine = accepted(t0);
    for _ in 0..10_000 {
        let id = ask(&mut engine, t0, 60, "x");
        let reply = bytes(Message::Reply {
            id,
            payload: Payload::EMPTY,
        });
        engine.receive(&reply).unwrap();
    }
    assert!(format!("{engine:?}").len() < 100_000);
}
