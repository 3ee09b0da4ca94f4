//! One WebTransport session: where it stands and what its CONNECT stream needs.

use bytes::{Bytes, BytesMut};

use super::flow::SessionFlow;
use super::negotiate::Dialect;
use super::stream_header::Prefixes;
use crate::capsule::CapsuleReader;
use crate::codes::Code;
use crate::connection::{CommandError, Waiting, Wishes};
use crate::h3::headers::RequestHead;
use crate::h3::reader::FrameReader;
use crate::stream_id::{Dir, SessionId, Side};

/// Where a session stands. It leaves the connection's table when it is over.
#[derive(Debug)]
pub(crate) enum State {
    /// Server: the CONNECT waits for the client's SETTINGS, its head unseen by the application.
    Held(Box<RequestHead>),
    /// The CONNECT is there (server) or sent (client), without a final response.
    Requested,
    /// A 2xx was sent or received.
    Open,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) state: State,
    /// `None` only while it is held.
    pub(crate) dialect: Option<Dialect>,
    /// Of the CONNECT stream.
    pub(crate) reader: FrameReader,
    pub(crate) capsules: CapsuleReader,
    pub(crate) prefixes: Prefixes,
    /// Client: `Some` while the decoder keeps a header section of the response.
    pub(crate) waiting: Option<Waiting>,
    /// What the client offered in WT-Available-Protocols, until one of them is chosen.
    pub(crate) protocols: Vec<String>,
    /// Client: a session without an agreed protocol is of no use.
    pub(crate) requires_protocol: bool,
    /// Capsule bytes from before the response.
    pub(crate) early: BytesMut,
    /// FIN came before the response.
    pub(crate) early_fin: bool,
    /// The driver reads no more until the response.
    pub(crate) paused: bool,
    /// The application was told that the session is draining.
    pub(crate) draining: bool,
    /// WT_DRAIN_SESSION was sent.
    pub(crate) drain_sent: bool,
    /// Its limits, where both ends have flow control.
    pub(crate) flow: Option<Box<SessionFlow>>,
    /// What both ends said about its priority.
    pub(crate) wishes: Wishes,
    /// STOP_SENDING arrived: nothing can be written any more, and the session only waits for what it may have overtaken.
    pub(crate) stopped: Option<Code>,
}

impl Session {
    pub(crate) fn new(id: SessionId, state: State, reader: FrameReader) -> Box<Self> {
        Box::new(Self {
            state,
            dialect: None,
            reader,
            capsules: CapsuleReader::new(),
            prefixes: Prefixes::new(id),
            protocols: Vec::new(),
            requires_protocol: false,
            waiting: None,
            early: BytesMut::new(),
            early_fin: false,
            paused: false,
            draining: false,
            drain_sent: false,
            flow: None,
            wishes: Wishes::default(),
            stopped: None,
        })
    }

    /// From here on in this dialect, and with flow control or without.
    pub(crate) fn speak(&mut self, dialect: Dialect, flow: Option<Box<SessionFlow>>) {
        if flow.is_none() && !dialect.has_flow_control() {
            self.capsules.without_flow_control();
        }
        self.dialect = Some(dialect);
        self.flow = flow;
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether capsules can be sent to the peer.
    pub(crate) const fn may_write(&self) -> bool {
        self.is_open() && self.stopped.is_none()
    }

    /// Whether more of the CONNECT stream is to be read after STOP_SENDING with `code`: what ends the session otherwise, as the
    /// peer meant it.
    pub(crate) fn outlives_stop(&self, side: Side, code: Code) -> bool {
        match self.state {
            State::Open => code == Code::WT_SESSION_GONE,
            State::Requested => side == Side::Client,
            State::Held(_) => false,
        }
    }

    /// Whether the application may use it: a client before the answer already.
    pub(crate) const fn check_usable(&self, side: Side) -> Result<(), CommandError> {
        match (&self.state, side) {
            (State::Open, _) | (State::Requested, Side::Client) => Ok(()),
            _ => Err(CommandError::InvalidState),
        }
    }

    /// Whether streams may be opened and datagrams sent in it.
    pub(crate) const fn check_sending(&self, side: Side) -> Result<(), CommandError> {
        match self.stopped {
            None => self.check_usable(side),
            Some(_) => Err(CommandError::SessionClosed),
        }
    }

    /// Whether its own limit leaves another stream. [`CommandError::Blocked`] is remembered until it does.
    pub(crate) const fn check_open(&mut self, dir: Dir) -> Result<(), CommandError> {
        let Some(flow) = &mut self.flow else { return Ok(()) };
        let limit = &mut flow.streams_out[dir as usize];
        if limit.available() > 0 {
            return Ok(());
        }
        limit.want();
        Err(CommandError::Blocked)
    }

    /// Whether the application knows of it.
    pub(crate) const fn is_visible(&self) -> bool {
        !matches!(self.state, State::Held(_))
    }

    /// The early capsule bytes, which are to be processed now.
    pub(crate) fn take_early(&mut self) -> Bytes {
        std::mem::take(&mut self.early).freeze()
    }
}
