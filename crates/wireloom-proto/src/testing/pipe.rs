//! Two connections on one thread with an own clock, and as much of QUIC between them as they can tell apart: ordered streams,
//! FIN, RESET_STREAM, STOP_SENDING, datagrams, close.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::connection::{
    Action, CommandError, Config, Connection, Event, OwnStreams, PeerTransport, Recv, SessionRequest,
};
use crate::{Code, Dir, SessionId, Side, StreamId};

/// What one end has written on a stream and QUIC has not delivered.
#[derive(Debug, Default)]
struct Sent {
    data: BytesMut,
    fin: bool,
    reset: Option<Code>,
    /// Bytes that RESET_STREAM made undeliverable.
    unread: u64,
    /// FIN or RESET_STREAM was delivered.
    delivered: bool,
}

/// Who reads a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reader {
    /// The core, through `recv`.
    #[default]
    Core,
    /// Nobody for now.
    Nobody,
    /// The application, directly.
    Application,
    /// Nobody any more.
    Dropped,
}

/// What one end has received on a WebTransport stream.
#[derive(Debug, Default)]
pub struct Received {
    reader: Reader,
    /// The payload so far.
    pub data: BytesMut,
    /// Whether FIN came.
    pub fin: bool,
    /// The peer's code, if it reset the stream.
    pub reset: Option<Code>,
}

/// One end of a [`Pair`].
#[derive(Debug)]
pub struct End {
    /// The connection under test.
    pub core: Connection,
    side: Side,
    next: [u64; 2],
    sent: BTreeMap<StreamId, Sent>,
    /// By stream, all that this end has ever written, and whether FIN followed.
    pub wire: BTreeMap<StreamId, (BytesMut, bool)>,
    /// By stream, what the peer sent.
    pub received: BTreeMap<StreamId, Received>,
    stops: VecDeque<(StreamId, Code)>,
    datagrams_out: VecDeque<Bytes>,
    /// What arrived for open sessions.
    pub datagrams: Vec<(SessionId, Bytes)>,
    /// What the core told, oldest first, until somebody takes it.
    pub events: VecDeque<Event>,
    /// The connection error that this end raised.
    pub closed: Option<(Code, &'static str)>,
    /// Resets and stops that the core asked for, in order.
    pub aborted: Vec<Action>,
    /// By WebTransport stream, its session.
    owners: BTreeMap<StreamId, SessionId>,
    /// Whether the application takes payload as it comes; else [`End::consume`] does.
    pub reads: bool,
    /// Payload that was not taken.
    unconsumed: BTreeMap<StreamId, u64>,
    /// Whether QUIC tells the final size of a stream that the peer reset.
    pub tells_final_size: bool,
}

impl End {
    fn new(side: Side, config: Config) -> Self {
        Self {
            core: Connection::new(side, config),
            side,
            next: [0; 2],
            sent: BTreeMap::new(),
            wire: BTreeMap::new(),
            received: BTreeMap::new(),
            stops: VecDeque::new(),
            datagrams_out: VecDeque::new(),
            datagrams: Vec::new(),
            events: VecDeque::new(),
            closed: None,
            aborted: Vec::new(),
            owners: BTreeMap::new(),
            reads: true,
            unconsumed: BTreeMap::new(),
            tells_final_size: false,
        }
    }

    /// The next stream of this end in direction `dir`.
    pub fn new_stream(&mut self, dir: Dir) -> StreamId {
        let next = &mut self.next[usize::from(dir == Dir::Uni)];
        *next += 1;
        StreamId::new(self.side, dir, *next - 1)
    }

    fn start(&mut self, now: Instant) {
        let control = self.new_stream(Dir::Uni);
        let qpack_encoder = self.new_stream(Dir::Uni);
        let qpack_decoder = self.new_stream(Dir::Uni);
        self.core.start(
            now,
            OwnStreams {
                control,
                qpack_encoder,
                qpack_decoder,
            },
        );
        self.pump();
    }

    /// Writes on a stream, past the core.
    pub fn write(&mut self, stream: StreamId, data: &[u8], fin: bool) {
        let sent = self.sent.entry(stream).or_default();
        if sent.reset.is_none() {
            assert!(!sent.fin, "write after FIN on {stream}");
            sent.data.extend_from_slice(data);
            sent.fin = fin;
            let (wire, ended) = self.wire.entry(stream).or_default();
            wire.extend_from_slice(data);
            *ended |= fin;
        }
    }

    /// Resets a stream, past the core.
    pub fn reset(&mut self, stream: StreamId, code: Code) {
        let sent = self.sent.entry(stream).or_default();
        if !sent.delivered && sent.reset.is_none() {
            sent.unread = sent.data.len() as u64;
            sent.data.clear();
            sent.reset = Some(code);
        }
    }

    /// Stops reading a stream, past the core.
    pub fn stop(&mut self, stream: StreamId, code: Code) {
        let received = self.received.entry(stream).or_default();
        if received.reader != Reader::Dropped {
            received.reader = Reader::Dropped;
            self.stops.push_back((stream, code));
        }
    }

    /// Sends a QUIC datagram as it is.
    pub fn send_raw_datagram(&mut self, datagram: Bytes) {
        self.datagrams_out.push_back(datagram);
    }

    /// The driver's duty after every call: actions, then events.
    pub fn pump(&mut self) {
        loop {
            self.drain_actions();
            let Some(event) = self.core.poll_event() else { break };
            self.on_event(event);
        }
    }

    fn drain_actions(&mut self) {
        while let Some(action) = self.core.poll_action() {
            assert!(self.closed.is_none(), "{action:?} after Close");
            match action {
                Action::Write { stream, ref data, fin } => self.write(stream, data, fin),
                Action::Reset { stream, code } => {
                    self.reset(stream, code);
                    self.aborted.push(action);
                }
                Action::StopSending { stream, code } => {
                    self.stop(stream, code);
                    self.aborted.push(action);
                }
                Action::Close { code, reason } => self.closed = Some((code, reason)),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match &event {
            Event::Stream {
                session,
                stream,
                payload,
                fin,
            } => {
                self.owners.insert(*stream, *session);
                let received = self.received.entry(*stream).or_default();
                assert_ne!(received.reader, Reader::Application, "{stream} handed out twice");
                // Its session may have ended in the same call, with an action that came before this.
                if received.reader == Reader::Nobody {
                    received.reader = Reader::Application;
                }
                received.data.extend_from_slice(payload);
                received.fin |= fin;
                self.took(*stream, payload.len(), *fin);
            }
            Event::Resume { stream } => {
                let received = self.received.entry(*stream).or_default();
                if received.reader == Reader::Nobody {
                    received.reader = Reader::Core;
                }
            }
            _ => {}
        }
        self.events.push_back(event);
    }

    /// The application was given payload, which counts as received.
    fn took(&mut self, stream: StreamId, n: usize, fin: bool) {
        *self.unconsumed.entry(stream).or_default() += n as u64;
        if self.reads {
            self.consume(stream);
            if fin {
                self.core.recv_closed(stream);
            }
        }
    }

    /// The application takes all that came on a stream; with FIN it is done with it.
    pub fn consume(&mut self, stream: StreamId) {
        if let (Some(n), Some(&session)) = (self.unconsumed.remove(&stream), self.owners.get(&stream)) {
            self.core.data_consumed(session, n);
        }
        if !self.reads && self.received.get(&stream).is_some_and(|received| received.fin) {
            self.core.recv_closed(stream);
        }
    }

    /// How much may be sent on a stream now.
    pub fn credit(&self, stream: StreamId) -> u64 {
        self.owners
            .get(&stream)
            .map_or(0, |&session| self.core.send_credit(session))
    }

    /// The oldest event. Panics if there is none.
    pub fn event(&mut self) -> Event {
        self.events
            .pop_front()
            .unwrap_or_else(|| panic!("{:?}: no event", self.side))
    }

    /// Takes the first event that `wanted` accepts, and drops those before it. Panics if there is none.
    pub fn expect<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        while let Some(event) = self.events.pop_front() {
            let text = format!("{event:?}");
            if let Some(found) = wanted(event) {
                return found;
            }
            println!("{:?}: passed over {text}", self.side);
        }
        panic!("{:?}: no such event", self.side);
    }

    /// Opens a stream of `session` and writes its header.
    pub fn open(&mut self, session: SessionId, dir: Dir) -> Result<StreamId, CommandError> {
        let stream = self.new_stream(dir);
        let header = self.core.open_stream(session, stream)?;
        self.owners.insert(stream, session);
        self.write(stream, &header, false);
        Ok(stream)
    }

    /// Writes on a WebTransport stream, within [`End::credit`].
    pub fn send(&mut self, stream: StreamId, data: &[u8], fin: bool) {
        if let Some(&session) = self.owners.get(&stream) {
            assert!(data.len() as u64 <= self.core.send_credit(session), "beyond the limit");
            self.core.data_sent(session, data.len() as u64);
        }
        self.write(stream, data, fin);
        if fin {
            self.core.send_closed(stream);
        }
    }

    /// Whether this end's application may still write on a WebTransport stream: it has it, and has not ended it.
    pub fn owns_send(&self, stream: StreamId) -> bool {
        let has_it = stream.initiator() == self.side || self.is_handed_out(stream);
        has_it
            && self
                .sent
                .get(&stream)
                .is_none_or(|sent| !sent.fin && sent.reset.is_none())
    }

    /// Whether this end's application may still read a WebTransport stream.
    pub fn owns_recv(&self, stream: StreamId) -> bool {
        stream.initiator() == self.side || self.is_handed_out(stream)
    }

    fn is_handed_out(&self, stream: StreamId) -> bool {
        self.received
            .get(&stream)
            .is_some_and(|received| received.reader == Reader::Application)
    }

    /// Sends a datagram of `session`.
    pub fn send_datagram(&mut self, session: SessionId, payload: &[u8]) -> Result<(), CommandError> {
        let prefix = self.core.datagram_prefix(session)?;
        self.send_raw_datagram([&prefix[..], payload].concat().into());
        Ok(())
    }

    /// Takes one piece of a stream, at most `chunk` bytes; whether anything happened.
    fn receive(&mut self, now: Instant, stream: StreamId, sent: &mut Sent, chunk: usize) -> bool {
        let received = self.received.entry(stream).or_default();
        if sent.delivered {
            return false;
        }
        if let Some(code) = sent.reset {
            sent.delivered = true;
            received.reset = Some(code);
            match received.reader {
                Reader::Core | Reader::Nobody => self.core.handle_reset(now, stream, code),
                Reader::Application => {
                    let unread = self.tells_final_size.then_some(sent.unread);
                    self.core.recv_aborted(stream, unread);
                }
                _ => {}
            }
            self.pump();
            return true;
        }
        if received.reader == Reader::Nobody {
            return false;
        }
        let data = sent.data.split_to(chunk.min(sent.data.len())).freeze();
        let fin = sent.fin && sent.data.is_empty();
        if data.is_empty() && !fin {
            return false;
        }
        sent.delivered = fin;
        match received.reader {
            Reader::Core => {
                let answer = self.core.recv(now, stream, data, fin);
                let is_request = stream.is_request();
                let received = self.received.entry(stream).or_default();
                match answer {
                    Recv::Continue => {}
                    // This driver's applications always want more; CONNECT streams wait for Resume.
                    Recv::Pause => {
                        let id = SessionId::new(stream);
                        if is_request && id.is_some_and(|id| self.core.sessions().any(|session| session == id)) {
                            received.reader = Reader::Nobody;
                        }
                    }
                    Recv::WebTransport { session, payload } => {
                        received.reader = Reader::Application;
                        received.data.extend_from_slice(&payload);
                        received.fin = fin;
                        self.owners.insert(stream, session);
                        self.took(stream, payload.len(), fin);
                    }
                    Recv::Parked => {
                        received.reader = Reader::Nobody;
                    }
                    Recv::Done => {
                        received.fin = fin;
                        received.reader = Reader::Dropped;
                    }
                }
            }
            Reader::Application => {
                received.data.extend_from_slice(&data);
                received.fin |= fin;
                if let Some(&session) = self.owners.get(&stream) {
                    self.core.data_received(session, data.len() as u64);
                }
                self.took(stream, data.len(), fin);
            }
            _ => {}
        }
        self.pump();
        true
    }
}

/// Two ends and what is between them.
#[derive(Debug)]
pub struct Pair {
    /// The client.
    pub client: End,
    /// The server.
    pub server: End,
    /// The clock of both.
    pub now: Instant,
    /// Streams whose delivery is held up, in both directions.
    pub held: BTreeSet<StreamId>,
    /// The most bytes that one `recv` is given.
    pub chunk: usize,
}

impl Pair {
    /// Two ends that have started; nothing is delivered yet.
    pub fn new(client: Config, server: Config) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            client: End::new(Side::Client, client),
            server: End::new(Side::Server, server),
            now,
            held: BTreeSet::new(),
            chunk: usize::MAX,
        };
        pair.server.start(now);
        pair.client.start(now);
        pair
    }

    /// Two ends with default limits that know each other: the first events, `Ready`, are taken.
    pub fn connected(client: Config, server: Config) -> Self {
        let mut pair = Self::new(client, server);
        pair.handshake(PeerTransport {
            datagrams: true,
            reset_stream_at: false,
        });
        for end in [&mut pair.client, &mut pair.server] {
            assert!(matches!(end.event(), Event::Ready { .. }));
        }
        pair
    }

    /// Completes the handshake with these transport parameters on both sides.
    pub fn handshake(&mut self, transport: PeerTransport) {
        self.client.core.handle_connected(self.now, transport);
        self.server.core.handle_connected(self.now, transport);
        self.run();
    }

    /// One of the ends.
    pub fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Delivers everything that is not held, until nothing moves.
    pub fn run(&mut self) {
        self.client.pump();
        self.server.pump();
        while self.step(Side::Client) | self.step(Side::Server) {}
    }

    /// Delivers what `from` has sent, one piece of each stream.
    pub fn step(&mut self, from: Side) -> bool {
        let now = self.now;
        let (from, to) = match from {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        };
        if from.closed.is_some() || to.closed.is_some() {
            return false;
        }
        let mut moved = false;
        while let Some((stream, code)) = to.stops.pop_front() {
            moved = true;
            let sent = from.sent.entry(stream).or_default();
            if !sent.delivered && sent.reset.is_none() {
                from.core.handle_stopped(now, stream, code);
                from.pump();
                // QUIC's own answer where the core does not care: "An endpoint that receives a STOP_SENDING frame MUST send a
                // RESET_STREAM frame" (RFC 9000 section 3.5).
                from.reset(stream, code);
            }
        }
        for (&stream, sent) in from.sent.iter_mut().filter(|(stream, _)| !self.held.contains(stream)) {
            moved |= to.receive(now, stream, sent, self.chunk);
        }
        while let Some(datagram) = from.datagrams_out.pop_front() {
            moved = true;
            to.datagrams.extend(to.core.handle_datagram(now, datagram));
            to.pump();
        }
        moved
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let next = [self.client.core.poll_timeout(), self.server.core.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            for core in [&mut self.client.core, &mut self.server.core] {
                core.handle_timeout(self.now);
                assert!(
                    core.poll_timeout().is_none_or(|next| next > self.now),
                    "a deadline outlived its time"
                );
            }
            self.run();
        }
        self.now = end;
        self.run();
    }

    /// Requests and accepts a session; the events of both are taken.
    pub fn session(&mut self) -> SessionId {
        let id = self.request(&SessionRequest::new("localhost:4433", "/echo"));
        self.server
            .core
            .accept_session(self.now, id, &http::Response::new(()), None)
            .expect("a requested session");
        self.run();
        assert!(matches!(self.client.event(), Event::SessionEstablished { session, .. } if session == id));
        id
    }

    /// Requests a session; the server's event is taken.
    pub fn request(&mut self, request: &SessionRequest) -> SessionId {
        let stream = self.client.new_stream(Dir::Bi);
        let id = self
            .client
            .core
            .connect(self.now, stream, request)
            .expect("a client that may connect");
        self.run();
        assert!(matches!(self.server.event(), Event::SessionRequested { session, .. } if session == id));
        id
    }

    /// Asserts that neither end keeps anything of a stream or session, or has anything to say.
    pub fn assert_nothing_left(&mut self) {
        for end in [&mut self.client, &mut self.server] {
            assert_eq!(end.core.leftovers(), Vec::<String>::new(), "{:?}", end.side);
            assert!(end.core.is_idle());
            assert_eq!(end.closed, None);
        }
    }
}
