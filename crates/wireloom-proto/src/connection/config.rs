//! What an endpoint announces and allows.

use std::time::{Duration, Instant};

use crate::webtransport::flow::FlowControl;
use crate::webtransport::negotiate::Dialects;

/// Limits and announcements of one endpoint. Every limit has a default; [`Config::default`] lists them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Whether WebTransport is announced (server) or wanted (client). Default true.
    pub webtransport: bool,
    /// Which dialects are announced. Default all.
    pub dialects: Dialects,
    /// Server: whether WebSocket is offered over extended CONNECT (RFC 9220). A handshake is then an ordinary
    /// [`Event::Request`](super::Event::Request) with a protocol, and what follows is its body. Default false: it is answered
    /// 501.
    pub websocket: bool,
    /// The largest header section that is accepted, in bytes as RFC 9114 section 4.2.2 counts them. Default 64 KiB.
    pub max_field_section_size: u64,
    /// The dynamic table that the peer's encoder may use, in bytes as RFC 9204 section 3.2.1 counts them
    /// (SETTINGS_QPACK_MAX_TABLE_CAPACITY). Default 4096. Costs about twice that for each connection whose peer fills it, and
    /// nothing where it does not; 0 forbids the table.
    pub qpack_max_table_capacity: u32,
    /// Streams whose header section may wait for insertions into that table (SETTINGS_QPACK_BLOCKED_STREAMS). Default 16. Each
    /// costs its header section as it was received, at most `max_field_section_size`, and what came with it. One more closes
    /// the connection.
    pub qpack_blocked_streams: u16,
    /// The most that our own encoder's table takes of what the peer allows, in bytes. Default 4096; costs about twice that
    /// where fields repeat. 0 means that only the static table is used.
    pub qpack_encoder_capacity: u32,
    /// How many streams our encoder may let wait for its insertions, within what the peer allows. Default 0: no request ever
    /// waits for another stream. Above 0 sections are smaller, but one lost packet of the encoder stream, or a peer that gives
    /// it no credit, holds them up.
    pub qpack_encoder_blocked_streams: u16,
    /// WebTransport sessions that are open or requested at once on this connection. Default 16. Drafts 13 and later allow one
    /// where flow control is not on at both ends.
    pub max_sessions: usize,
    /// What the peer may use in each session. Default on; see there.
    pub flow_control: FlowControl,
    /// Bytes that the peer may send ahead of the application's reading in all sessions together, where they have limits. Give
    /// what QUIC's connection window holds, less what is to remain for requests: then no number of sessions that are not read
    /// stops the others. Each of [`max_sessions`](Self::max_sessions) has an equal part for certain, which is announced, and
    /// what is read grows up to `flow_control.data` as far as the others leave room. A part is 4 KiB at least: where there may
    /// be more sessions than half of this has room for so, not all of them have one for certain. Default [`u64::MAX`]: no such
    /// bound.
    pub shared_data: u64,
    /// Streams that may wait for their session. Default 64.
    pub max_parked_streams: usize,
    /// Datagrams that may wait for their session. Default 64.
    pub max_parked_datagrams: usize,
    /// Bytes of both that may wait. Default 256 KiB.
    pub max_parked_bytes: usize,
    /// How long a stream or datagram waits for its session. Default 5 s.
    pub parked_timeout: Duration,
    /// How long a peer may take to complete a stream's header or a request's header section. Default 10 s.
    pub header_timeout: Duration,
    /// How long a peer may take to send its SETTINGS once the connection stands. Default 10 s.
    pub settings_timeout: Duration,
    /// Capsule bytes that are kept before a session is accepted. Default 16 KiB.
    pub max_early_capsule_bytes: usize,
    /// How long a CONNECT stream may stay open after its session ended, before STOP_SENDING. Default 5 s.
    pub close_timeout: Duration,
    /// Whether a reserved setting and a reserved frame are sent (RFC 9114 sections 7.2.4.1 and 7.2.8). Default true.
    pub grease: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            webtransport: true,
            dialects: Dialects::ALL,
            websocket: false,
            max_field_section_size: 64 << 10,
            qpack_max_table_capacity: 4096,
            qpack_blocked_streams: 16,
            qpack_encoder_capacity: 4096,
            qpack_encoder_blocked_streams: 0,
            max_sessions: 16,
            flow_control: FlowControl::default(),
            shared_data: u64::MAX,
            max_parked_streams: 64,
            max_parked_datagrams: 64,
            max_parked_bytes: 256 << 10,
            parked_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            settings_timeout: Duration::from_secs(10),
            max_early_capsule_bytes: 16 << 10,
            close_timeout: Duration::from_secs(5),
            grease: true,
        }
    }
}

/// Frames or capsules without effect (unknown, reserved, empty) that may follow each other on one stream within 10 s before
/// the connection is closed with H3_EXCESSIVE_LOAD (RFC 9114 section 10.5). Those who send some for exercise send a few.
pub(crate) const MAX_IDLE_FRAMES: u32 = 1024;

/// Requests that a client may cancel, or have us reset, before they were answered, within [`CANCEL_WINDOW`]; one more closes
/// the connection with H3_EXCESSIVE_LOAD. A browser that leaves a page cancels dozens.
pub(crate) const MAX_CANCELLED: u32 = 512;
/// See [`MAX_CANCELLED`].
pub(crate) const CANCEL_WINDOW: Duration = Duration::from_secs(10);

/// The time `timeout` from now, or as far as a clock counts in any case: a hundred years.
pub(crate) fn deadline(now: Instant, timeout: Duration) -> Instant {
    now + timeout.min(Duration::from_secs(100 * 365 * 24 * 60 * 60))
}
