//! Scripts of operations on two connections: whatever their order, neither may break a rule of the protocol, and in the end
//! nothing may be left over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};

use super::pipe::Pair;
use crate::connection::{CommandError, Config, Event, PeerTransport, SessionEnd, SessionRequest};
use crate::webtransport::flow::FlowControl;
use crate::webtransport::negotiate::{Dialect, Dialects};
use crate::{Action, Code, Dir, SessionId, Side, StreamId};

/// One step. Numbers choose among what there is, modulo how much that is; a step for which there is nothing is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Connect,
    Accept(u8),
    Reject(u8),
    Close(Side, u8),
    Drain(Side, u8),
    Open(Side, Dir, u8),
    Send(Side, u8, bool),
    Reset(Side, u8),
    Stop(Side, u8),
    Datagram(Side, u8),
    Request(bool),
    Respond(u8, bool),
    Body(Side, u8),
    Trailers(Side, u8),
    Finish(Side, u8),
    ResetMessage(Side, u8),
    StopMessage(Side, u8),
    Goaway(Side),
    /// Holds up the delivery of a stream.
    Hold(u8),
    Release,
    Run,
    Step(Side),
    /// Lets time pass, in tenths of a second.
    Advance(u8),
    /// The size of the pieces that streams are delivered in; 0 means that they are whole.
    Chunk(u8),
}

impl Op {
    /// The operation that three bytes stand for, for fuzzers.
    pub fn from_bytes([kind, a, b]: [u8; 3]) -> Self {
        let side = if b & 1 == 0 { Side::Client } else { Side::Server };
        let flag = b & 2 != 0;
        match kind % 24 {
            0 => Self::Connect,
            1 => Self::Accept(a),
            2 => Self::Reject(a),
            3 => Self::Close(side, a),
            4 => Self::Drain(side, a),
            5 => Self::Open(side, if flag { Dir::Bi } else { Dir::Uni }, a),
            6 => Self::Send(side, a, flag),
            7 => Self::Reset(side, a),
            8 => Self::Stop(side, a),
            9 => Self::Datagram(side, a),
            10 => Self::Request(flag),
            11 => Self::Respond(a, flag),
            12 => Self::Body(side, a),
            13 => Self::Trailers(side, a),
            14 => Self::Finish(side, a),
            15 => Self::ResetMessage(side, a),
            16 => Self::StopMessage(side, a),
            17 => Self::Goaway(side),
            18 => Self::Hold(a),
            19 => Self::Release,
            20 => Self::Run,
            21 => Self::Step(side),
            22 => Self::Advance(a),
            _ => Self::Chunk(a),
        }
    }
}

struct Script {
    pair: Pair,
    sessions: Vec<SessionId>,
    /// WebTransport streams by the end that opened them.
    streams: Vec<(SessionId, StreamId)>,
    requests: Vec<StreamId>,
    /// How often each end was told that a session is over.
    ended: BTreeMap<(u8, SessionId), u32>,
    /// Requests that the server has, and those among them of which it knows that nobody wants the answer, or has given it.
    received: BTreeSet<StreamId>,
    answered: BTreeSet<StreamId>,
}

fn pick<T: Copy>(list: &[T], n: u8) -> Option<T> {
    (!list.is_empty()).then(|| list[usize::from(n) % list.len()])
}

/// Fields some of which come again soon, so that QPACK's tables are used.
fn insert_fields(fields: &mut HeaderMap, stream: StreamId) {
    let nth = HeaderValue::from(stream.index() % 3);
    fields.insert(header::USER_AGENT, HeaderValue::from_static("a script"));
    fields.insert("x-nth-of-three", nth);
}

/// Runs the operations, then lets everything end. The newest dialect has tight flow control.
pub fn run(dialect: Dialect, ops: &[Op]) {
    // Small enough that scripts meet the limits.
    let config = Config {
        dialects: Dialects::NONE.with(dialect),
        max_sessions: 3,
        flow_control: FlowControl {
            streams_uni: 2,
            streams_bi: 3,
            data: 10,
        },
        max_parked_streams: 3,
        max_parked_datagrams: 3,
        max_early_capsule_bytes: 4,
        qpack_max_table_capacity: 256,
        qpack_blocked_streams: 2,
        qpack_encoder_blocked_streams: 2,
        ..Config::default()
    };
    let mut script = Script {
        pair: Pair::new(config.clone(), config),
        sessions: Vec::new(),
        streams: Vec::new(),
        requests: Vec::new(),
        ended: BTreeMap::new(),
        received: BTreeSet::new(),
        answered: BTreeSet::new(),
    };
    script.pair.handshake(PeerTransport {
        datagrams: true,
        reset_stream_at: false,
    });
    for &op in ops {
        script.step(op);
        script.note_events();
    }
    script.end();
}

impl Script {
    fn step(&mut self, op: Op) {
        // Commands may be refused at any time; what matters is what they leave behind.
        let pair = &mut self.pair;
        let now = pair.now;
        match op {
            Op::Connect => {
                let stream = pair.client.new_stream(Dir::Bi);
                let request = SessionRequest::new("localhost", "/");
                self.sessions.extend(pair.client.core.connect(now, stream, &request));
            }
            Op::Accept(n) => {
                if let Some(id) = pick(&self.sessions, n) {
                    let _ = pair.server.core.accept_session(now, id, &Response::new(()), None);
                }
            }
            Op::Reject(n) => {
                if let Some(id) = pick(&self.sessions, n) {
                    let mut head = Response::new(());
                    *head.status_mut() = StatusCode::NOT_FOUND;
                    let _ = pair
                        .server
                        .core
                        .reject_session(now, id, &head, Bytes::from_static(b"no"));
                }
            }
            Op::Close(side, n) => {
                if let Some(id) = pick(&self.sessions, n) {
                    let _ = pair.end(side).core.close_session(now, id, u32::from(n), "bye");
                }
            }
            Op::Drain(side, n) => {
                if let Some(id) = pick(&self.sessions, n) {
                    let _ = pair.end(side).core.drain_session(id);
                }
            }
            Op::Open(side, dir, n) => {
                if let Some(id) = pick(&self.sessions, n) {
                    let end = pair.end(side);
                    match end.open(id, dir) {
                        Ok(stream) => self.streams.push((id, stream)),
                        Err(CommandError::Blocked) => end.core.tell_blocked(),
                        Err(_) => {}
                    }
                }
            }
            Op::Send(side, n, fin) => {
                if let Some(stream) = self.writable(side, n) {
                    let end = self.pair.end(side);
                    let room = usize::try_from(end.credit(stream)).unwrap_or(usize::MAX).min(4);
                    if room < 4
                        && let Some(&(session, _)) = self.streams.iter().find(|&&(_, id)| id == stream)
                    {
                        end.core.data_blocked(session);
                        end.core.tell_blocked();
                    }
                    end.send(stream, &b"data"[..room], fin);
                }
            }
            Op::Reset(side, n) => {
                if let Some(stream) = self.writable(side, n) {
                    let end = self.pair.end(side);
                    end.reset(stream, Code::from_application(1));
                    end.core.send_closed(stream);
                }
            }
            Op::Stop(side, n) => {
                if let Some(stream) = self.readable(side, n) {
                    let end = self.pair.end(side);
                    end.stop(stream, Code::from_application(2));
                    end.core.recv_aborted(stream, None);
                }
            }
            Op::Datagram(side, n) => {
                if let Some(id) = pick(&self.sessions, n) {
                    let _ = pair.end(side).send_datagram(id, b"datagram");
                }
            }
            Op::Request(fin) => {
                let stream = pair.client.new_stream(Dir::Bi);
                let mut head = Request::new(());
                *head.uri_mut() = http::Uri::from_static("https://localhost/");
                insert_fields(head.headers_mut(), stream);
                if pair.client.core.send_request(now, stream, &head, fin).is_ok() {
                    self.requests.push(stream);
                }
            }
            Op::Respond(n, fin) => {
                if let Some(stream) = pick(&self.requests, n) {
                    let mut head = Response::new(());
                    insert_fields(head.headers_mut(), stream);
                    if pair.server.core.send_response(stream, &head, fin).is_ok() && fin {
                        self.answered.insert(stream);
                    }
                }
            }
            Op::Body(side, n) => {
                if let Some(stream) = pick(&self.requests, n)
                    && let Ok(header) = pair.end(side).core.data_header(stream, 4)
                {
                    pair.end(side).pump();
                    pair.end(side).write(stream, &header, false);
                    pair.end(side).write(stream, b"body", false);
                }
            }
            Op::Trailers(side, n) => {
                if let Some(stream) = pick(&self.requests, n) {
                    let sent = pair.end(side).core.send_trailers(stream, &HeaderMap::new());
                    self.note_sent(side, stream, sent.is_ok());
                }
            }
            Op::Finish(side, n) => {
                if let Some(stream) = pick(&self.requests, n) {
                    let sent = pair.end(side).core.finish(stream);
                    self.note_sent(side, stream, sent.is_ok());
                }
            }
            Op::ResetMessage(side, n) => {
                // As an application would, which knows what it resets.
                if let Some(stream) = pick(&self.requests, n)
                    && (side == Side::Client || self.received.contains(&stream))
                {
                    pair.end(side).core.reset_message(stream, Code::H3_REQUEST_CANCELLED);
                    self.note_sent(side, stream, true);
                }
            }
            Op::StopMessage(side, n) => {
                if let Some(stream) = pick(&self.requests, n) {
                    pair.end(side).core.stop_message(stream, Code::H3_REQUEST_CANCELLED);
                }
            }
            Op::Goaway(side) => pair.end(side).core.goaway(now),
            Op::Hold(n) => {
                let streams: Vec<StreamId> = self
                    .sessions
                    .iter()
                    .map(|id| id.stream())
                    .chain(self.streams.iter().map(|&(_, stream)| stream))
                    .chain(self.requests.iter().copied())
                    // QPACK's encoder and decoder streams.
                    .chain([Side::Client, Side::Server].map(|side| StreamId::new(side, Dir::Uni, 1)))
                    .chain([Side::Client, Side::Server].map(|side| StreamId::new(side, Dir::Uni, 2)))
                    .collect();
                pair.held.extend(pick(&streams, n));
            }
            Op::Release => pair.held.clear(),
            Op::Run => pair.run(),
            Op::Step(side) => {
                pair.step(side);
            }
            Op::Advance(tenths) => pair.advance(Duration::from_millis(100 * u64::from(tenths))),
            Op::Chunk(0) => pair.chunk = usize::MAX,
            Op::Chunk(len) => pair.chunk = usize::from(len),
        }
        self.pair.client.pump();
        self.pair.server.pump();
    }

    /// An end may have ended its message.
    fn note_sent(&mut self, side: Side, stream: StreamId, ended: bool) {
        if side == Side::Server && ended {
            self.answered.insert(stream);
        }
    }

    /// A WebTransport stream on which `side` may send, as its application would know.
    fn writable(&mut self, side: Side, n: u8) -> Option<StreamId> {
        let (_, stream) = pick(&self.streams, n)?;
        let may_send = stream.dir() == Dir::Bi || stream.initiator() == side;
        (may_send && self.pair.end(side).owns_send(stream)).then_some(stream)
    }

    fn readable(&mut self, side: Side, n: u8) -> Option<StreamId> {
        let (_, stream) = pick(&self.streams, n)?;
        let may_read = stream.dir() == Dir::Bi || stream.initiator() != side;
        (may_read && self.pair.end(side).owns_recv(stream)).then_some(stream)
    }

    fn note_events(&mut self) {
        for side in [Side::Client, Side::Server] {
            for event in self.pair.end(side).events.drain(..) {
                match event {
                    Event::SessionClosed {
                        end: SessionEnd::PeerMisbehaved { code, reason },
                        ..
                    } => panic!("{side:?} says that the other broke a rule: {code} {reason}"),
                    Event::SessionClosed { session, .. } | Event::SessionRejected { session, .. } => {
                        let times = self.ended.entry((side as u8, session)).or_default();
                        *times += 1;
                        assert_eq!(*times, 1, "{side:?} was told twice that session {session} is over");
                    }
                    Event::Request { stream, .. } => {
                        self.received.insert(stream);
                    }
                    Event::SendStopped { stream, .. }
                    | Event::MessageFailed {
                        stream, by_peer: false, ..
                    } if side == Side::Server => {
                        self.answered.insert(stream);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Everything has arrived: the server knows of each request whose answer the client does not want, whichever came first.
    fn check_stopped(&self) {
        for action in &self.pair.client.aborted {
            if let Action::StopSending { stream, .. } = action
                && self.received.contains(stream)
            {
                assert!(self.answered.contains(stream), "nobody stops the handler of {stream}");
            }
        }
    }

    fn end(&mut self) {
        self.pair.held.clear();
        self.pair.chunk = usize::MAX;
        self.pair.run();
        self.note_events();
        self.check_stopped();
        let now = self.pair.now;
        for side in [Side::Client, Side::Server] {
            let sessions: Vec<SessionId> = self.pair.end(side).core.sessions().collect();
            for id in sessions {
                let end = self.pair.end(side);
                if end.core.close_session(now, id, 0, "").is_err() {
                    let mut head = Response::new(());
                    *head.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    end.core
                        .reject_session(now, id, &head, Bytes::new())
                        .expect("open or requested");
                }
            }
            for &stream in &self.requests {
                let core = &mut self.pair.end(side).core;
                core.reset_message(stream, Code::H3_REQUEST_CANCELLED);
                core.stop_message(stream, Code::H3_REQUEST_CANCELLED);
            }
        }
        self.pair.run();
        self.pair.advance(Duration::from_secs(60));
        self.note_events();
        for id in &self.sessions {
            assert!(
                self.ended.contains_key(&(Side::Client as u8, *id)),
                "the client was not told the end of {id}"
            );
        }
        self.pair.assert_nothing_left();
    }
}
