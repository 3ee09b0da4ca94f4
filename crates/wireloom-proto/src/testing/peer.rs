//! One connection against a peer whose bytes the test writes itself.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::connection::{Action, Config, Connection, Event, OwnStreams, PeerTransport, Recv};
use crate::h3::frame;
use crate::h3::settings::Settings;
use crate::qpack::{Encoder, FieldRef};
use crate::{Code, Dir, SessionId, Side, StreamId, varint};

/// The connection under test.
#[derive(Debug)]
pub struct Lone {
    /// Itself.
    pub core: Connection,
    /// Its clock.
    pub now: Instant,
    /// What it has written on its QPACK encoder stream, without the stream type.
    pub encoder_stream: BytesMut,
    /// The same of its decoder stream.
    pub decoder_stream: BytesMut,
    side: Side,
}

/// What a peer of every dialect announces.
pub const ALL_SETTINGS: [(u64, u64); 7] = [
    (8, 1),
    (0x33, 1),
    (0xff_d277, 1),
    (0x2b60_3742, 1),
    (0xc671_706a, 1),
    (0x14e9_cd29, 1),
    (0x2c7c_f000, 1),
];
/// What a draft-16 peer announces that limits each session to 4 streams (unidirectional), 5 (bidirectional) and 100 bytes.
pub const LIMITED_SETTINGS: [(u64, u64); 6] = [
    (8, 1),
    (0x33, 1),
    (0x2c7c_f000, 1),
    (0x2b64, 4),
    (0x2b65, 5),
    (0x2b61, 100),
];
/// What a browser announces.
pub const DRAFT02_SETTINGS: [(u64, u64); 2] = [(0x33, 1), (0x2b60_3742, 1)];

impl Lone {
    /// A connection that has started and is connected, without any stream of the peer.
    pub fn without_settings(side: Side, config: Config) -> Self {
        let mut lone = Self {
            core: Connection::new(side, config),
            now: Instant::now(),
            encoder_stream: BytesMut::new(),
            decoder_stream: BytesMut::new(),
            side,
        };
        let own = |index| StreamId::new(side, Dir::Uni, index);
        lone.core.start(
            lone.now,
            OwnStreams {
                control: own(0),
                qpack_encoder: own(1),
                qpack_decoder: own(2),
            },
        );
        lone.core.handle_connected(
            lone.now,
            PeerTransport {
                datagrams: true,
                reset_stream_at: false,
            },
        );
        lone.actions();
        // Their types.
        lone.encoder_stream.clear();
        lone.decoder_stream.clear();
        lone
    }

    /// A connection that has received these SETTINGS; `Ready` is taken.
    pub fn new(side: Side, config: Config, settings: &[(u64, u64)]) -> Self {
        let mut lone = Self::without_settings(side, config);
        lone.settings(settings);
        assert!(matches!(lone.events()[..], [Event::Ready { .. }]));
        lone
    }

    /// A server with default limits and a peer of every dialect.
    pub fn server() -> Self {
        Self::new(Side::Server, Config::default(), &ALL_SETTINGS)
    }

    /// A client with default limits and a peer of every dialect.
    pub fn client() -> Self {
        Self::new(Side::Client, Config::default(), &ALL_SETTINGS)
    }

    /// A server with an open session on stream 0, and that session. Its events and actions are taken.
    pub fn server_with_session(config: Config, settings: &[(u64, u64)]) -> (Self, SessionId) {
        let mut lone = Self::new(Side::Server, config, settings);
        let id = SessionId::new(StreamId::from_u64(0)).expect("0 is a request stream");
        assert_eq!(lone.recv(0, &webtransport_connect(), false), Recv::Continue);
        lone.core
            .accept_session(lone.now, id, &http::Response::new(()), None)
            .expect("requested");
        lone.events();
        lone.actions();
        (lone, id)
    }

    /// The peer's control stream with SETTINGS.
    pub fn settings(&mut self, settings: &[(u64, u64)]) {
        let settings: Settings = settings.iter().copied().collect();
        let control = self.peer_uni(0);
        assert_eq!(
            self.recv(control, &[&[0][..], &settings.encode_frame()].concat(), false),
            Recv::Continue
        );
    }

    /// The id of the peer's `index`th unidirectional stream.
    pub fn peer_uni(&self, index: u64) -> u64 {
        StreamId::new(!self.side, Dir::Uni, index).into_u64()
    }

    /// Feeds bytes of a stream.
    pub fn recv(&mut self, stream: u64, data: &[u8], fin: bool) -> Recv {
        self.core
            .recv(self.now, StreamId::from_u64(stream), Bytes::copy_from_slice(data), fin)
    }

    /// Resets a stream of the peer.
    pub fn reset(&mut self, stream: u64, code: Code) {
        self.core.handle_reset(self.now, StreamId::from_u64(stream), code);
    }

    /// Lets time pass and fires what is due.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        self.core.handle_timeout(self.now);
    }

    /// All actions so far, save writes on the QPACK streams, which `encoder_stream` and `decoder_stream` collect.
    pub fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = self.core.poll_action() {
            let own = |index| StreamId::new(self.side, Dir::Uni, index);
            match action {
                Action::Write { stream, data, .. } if stream == own(1) => self.encoder_stream.extend_from_slice(&data),
                Action::Write { stream, data, .. } if stream == own(2) => self.decoder_stream.extend_from_slice(&data),
                action => actions.push(action),
            }
        }
        actions
    }

    /// All events so far.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.core.poll_event()).collect()
    }

    /// With what the connection was closed, if it was.
    pub fn closed_with(&mut self) -> Option<Code> {
        self.actions().into_iter().rev().find_map(|action| match action {
            Action::Close { code, .. } => Some(code),
            _ => None,
        })
    }
}

/// A HEADERS frame with these fields, whatever they are.
pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = BytesMut::new();
    let fields = fields
        .iter()
        .map(|(name, value)| FieldRef::new(name.as_bytes(), value.as_bytes()));
    Encoder::new().encode(StreamId::from_u64(0), fields, &mut section);
    frame::encode(frame::HEADERS, &section).to_vec()
}

/// A DATA frame.
pub fn data(payload: &[u8]) -> Vec<u8> {
    frame::encode(frame::DATA, payload).to_vec()
}

/// A GET request's HEADERS frame.
pub fn get() -> Vec<u8> {
    headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
    ])
}

/// A POST request's HEADERS frame, with Content-Length if there is one.
pub fn post(length: Option<&str>) -> Vec<u8> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
    ];
    fields.extend(length.map(|length| ("content-length", length)));
    headers(&fields)
}

/// The HEADERS frame of a WebTransport CONNECT.
pub fn webtransport_connect() -> Vec<u8> {
    extended_connect("webtransport", &[])
}

/// The HEADERS frame of an extended CONNECT with more fields.
pub fn extended_connect(protocol: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
        (":protocol", protocol),
    ];
    fields.extend(more);
    headers(&fields)
}

/// Integers in their shortest form, one after the other.
pub fn varints(values: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|&value| varint::encode(value, &mut out));
    out
}
