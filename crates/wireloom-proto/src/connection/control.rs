//! The critical streams: control and QPACK (RFC 9114 section 6.2.1, RFC 9204 section 4.2), SETTINGS and GOAWAY.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::capsules::Over;
use super::config::MAX_IDLE_FRAMES;
use super::events::{Event, OwnStreams, Recv};
use super::message::Progress;
use super::{Connection, Stream, frame_reason};
use crate::codes::Code;
use crate::h3::frame;
use crate::h3::reader::{Frame, FrameLimits, FrameReader};
use crate::h3::settings::{self, Settings};
use crate::h3::stream_type;
use crate::stream_id::{Dir, SessionId, Side, StreamId};
use crate::varint::{self, VarintReader};
use crate::webtransport::negotiate;

/// What passes over the control streams.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) own: Option<OwnStreams>,
    /// The type of the first frame, while it is incomplete.
    first_type: VarintReader,
    /// `Some` once the first frame is known to be SETTINGS.
    reader: Option<FrameReader>,
    has_control: bool,
    has_encoder: bool,
    has_decoder: bool,
    /// The peer's SETTINGS.
    pub(super) settings: Option<Settings>,
    /// Client: those under which it sent early data.
    pub(super) remembered: Option<Box<Settings>>,
    max_push_id: Option<u64>,
    /// The id in the GOAWAY that this end sent.
    pub(super) goaway_sent: Option<u64>,
    /// The id in the last GOAWAY of the peer.
    pub(super) goaway_received: Option<u64>,
}

impl Control {
    /// Whether `stream` is one of this end's critical streams.
    pub(super) fn is_own(&self, stream: StreamId) -> bool {
        self.own
            .is_some_and(|own| [own.control, own.qpack_encoder, own.qpack_decoder].contains(&stream))
    }
}

/// An arbitrary reserved setting and frame type; the core has no randomness to vary them.
const GREASE: u64 = frame::reserved(0x5eed);

impl Connection {
    /// Gives the core its three unidirectional streams and sends their types, SETTINGS, and a reserved frame if
    /// [`Config::grease`](super::Config::grease). A server may do so before the handshake is complete. To be called once.
    ///
    /// "Each side MUST initiate a single control stream at the beginning of the connection and send its SETTINGS frame
    /// as the first frame on this stream" (RFC 9114 section 6.2.1).
    /// "A SETTINGS frame MUST be sent as the first frame of each control stream" (RFC 9114 section 7.2.4), and "it MUST
    /// NOT be sent subsequently" (RFC 9114 section 7.2.4): SETTINGS are written here and nowhere else, so "SETTINGS
    /// frames MUST NOT be sent on any stream other than the control stream" (RFC 9114 section 7.2.4).
    /// "Endpoints MUST NOT require any data to be received from the peer prior to sending the SETTINGS frame" (RFC 9114
    /// section 7.2.4.2).
    pub fn start(&mut self, now: Instant, own: OwnStreams) {
        self.now = Some(now);
        self.control.own = Some(own);
        // "The server MUST include all settings that differ from their default values" (RFC 9114 section 7.2.4.2).
        let mut settings = Settings::new();
        settings.set(settings::MAX_FIELD_SECTION_SIZE, self.config.max_field_section_size);
        // Both are 0 unless announced (RFC 9204 section 5).
        if self.config.qpack_max_table_capacity > 0 {
            let limits = [
                (
                    settings::QPACK_MAX_TABLE_CAPACITY,
                    self.config.qpack_max_table_capacity.into(),
                ),
                (
                    settings::QPACK_BLOCKED_STREAMS,
                    self.config.qpack_blocked_streams.into(),
                ),
            ];
            limits.into_iter().for_each(|(id, value)| settings.set(id, value));
        }
        negotiate::announce(
            self.dialects,
            self.own_limits(),
            self.config.max_sessions,
            &mut settings,
        );
        // That extended CONNECT is taken (RFC 9220 section 3). WebTransport says so by itself.
        if self.config.websocket && self.side == Side::Server {
            settings.set(settings::ENABLE_CONNECT_PROTOCOL, 1);
        }
        if self.config.grease {
            settings.set(GREASE, 1);
        }
        let mut control = BytesMut::new();
        varint::encode(stream_type::CONTROL, &mut control);
        control.put(settings.encode_frame());
        if self.config.grease {
            control.put(frame::encode(GREASE, b""));
        }
        if let Some(id) = self.control.goaway_sent {
            control.put(frame::encode_goaway(id));
        }
        // "The sender MUST NOT close the control stream" (RFC 9114 section 6.2.1): none of the three is ever written
        // with FIN, or reset.
        self.out.write(own.control, control.freeze(), false);
        self.out.write(
            own.qpack_encoder,
            Bytes::from_static(&[stream_type::QPACK_ENCODER as u8]),
            false,
        );
        self.out.write(
            own.qpack_decoder,
            Bytes::from_static(&[stream_type::QPACK_DECODER as u8]),
            false,
        );
    }

    /// Sends GOAWAY: a client is told the first request that will not be processed, and later requests are reset with
    /// H3_REQUEST_REJECTED; a server is told that no push is welcome. Sessions and requests that are under way go on. A second
    /// call changes nothing. Before [`Connection::start`] it is sent with that.
    pub fn goaway(&mut self, now: Instant) {
        self.now = Some(now);
        if self.control.goaway_sent.is_some() {
            return;
        }
        let id = match self.side {
            Side::Server => StreamId::new(Side::Client, Dir::Bi, self.bi_end).into_u64(),
            Side::Client => 0,
        };
        // There is no second one: "the identifier in each frame MUST NOT be greater than the identifier in any previous
        // frame" (RFC 9114 section 5.2).
        self.control.goaway_sent = Some(id);
        if let Some(own) = self.control.own {
            self.out.write(own.control, frame::encode_goaway(id), false);
        }
    }

    /// Server: whether GOAWAY said that a request on `stream` will not be processed.
    pub(super) fn is_after_goaway(&self, stream: StreamId) -> bool {
        self.side == Side::Server && self.control.goaway_sent.is_some_and(|id| stream.into_u64() >= id)
    }

    /// Whether a new request of this end would be in vain.
    pub(super) const fn is_going_away(&self) -> bool {
        self.control.goaway_received.is_some() || self.control.goaway_sent.is_some()
    }

    /// A unidirectional stream of another type than WebTransport's; `data` follows the type.
    pub(super) fn recv_uni_type(&mut self, stream: StreamId, ty: u64, data: Bytes, fin: bool) -> Recv {
        self.streams.remove(&stream);
        let (taken, kind) = match ty {
            stream_type::CONTROL => (&mut self.control.has_control, Stream::Control),
            stream_type::QPACK_ENCODER => (&mut self.control.has_encoder, Stream::QpackEncoder),
            stream_type::QPACK_DECODER => (&mut self.control.has_decoder, Stream::QpackDecoder),
            // "if a server receives a client-initiated push stream, this MUST be treated as a connection error of type
            // H3_STREAM_CREATION_ERROR" (RFC 9114 section 6.2.2).
            stream_type::PUSH if self.side == Side::Server => {
                return self.close(Code::H3_STREAM_CREATION_ERROR, "push stream from a client");
            }
            // "A client MUST treat receipt of a push stream as a connection error of type H3_ID_ERROR when no
            // MAX_PUSH_ID frame has been sent" (RFC 9114 section 4.6).
            stream_type::PUSH => return self.close(Code::H3_ID_ERROR, "push stream without MAX_PUSH_ID"),
            // "Recipients of unknown stream types MUST either abort reading of the stream or discard incoming data
            // without further processing" (RFC 9114 section 6.2), "If reading is aborted, the recipient SHOULD use the
            // H3_STREAM_CREATION_ERROR error code". "The recipient MUST NOT consider unknown stream types to be a
            // connection error of any kind" (RFC 9114 section 6.2). Of the reserved ones: "Endpoints MUST NOT consider
            // these streams to have any meaning upon receipt" (RFC 9114 section 6.2.3).
            _ => return self.refuse(stream, Code::H3_STREAM_CREATION_ERROR),
        };
        // "receipt of a second stream claiming to be a control stream MUST be treated as a connection error of type
        // H3_STREAM_CREATION_ERROR" (RFC 9114 section 6.2.1), and of a second QPACK stream (RFC 9204 section 4.2).
        if std::mem::replace(taken, true) {
            return self.close(Code::H3_STREAM_CREATION_ERROR, "a second stream of a critical type");
        }
        self.streams.insert(stream, kind);
        if ty == stream_type::CONTROL {
            self.recv_control(data, fin)
        } else {
            self.recv_qpack(stream, data, fin)
        }
    }

    /// Writes what the decoder has to say, once nothing else is left to say.
    pub(super) fn write_qpack(&mut self) {
        if let Some(own) = self.control.own {
            let instructions = self.decoder.take_instructions();
            if !instructions.is_empty() {
                self.out.write(own.qpack_decoder, instructions, false);
            }
        }
    }

    pub(super) fn recv_qpack(&mut self, stream: StreamId, mut data: Bytes, fin: bool) -> Recv {
        let result = match self.streams.get(&stream) {
            Some(Stream::QpackEncoder) => self
                .decoder
                .recv_encoder_stream(&mut data)
                .map_err(|error| error.code()),
            _ => self
                .encoder
                .recv_decoder_stream(&mut data)
                .map_err(|error| error.code()),
        };
        match result {
            Err(code) => return self.close(code, "illegal instruction on a QPACK stream"),
            Ok(()) if fin => {
                self.critical_closed();
                return Recv::Done;
            }
            Ok(()) => {}
        }
        self.resume_blocked()
    }

    /// Goes on with the streams whose sections waited for what the encoder stream has brought.
    fn resume_blocked(&mut self) -> Recv {
        while let Some((stream, block)) = self.decoder.poll_unblocked() {
            let recv = match self.streams.get(&stream) {
                Some(Stream::Message(_)) => self.resume_message(stream, block),
                Some(Stream::Connect) => self.resume_connect(stream, block),
                // Whoever gives a stream up cancels it.
                _ => Recv::Done,
            };
            if self.out.is_closed() {
                return Recv::Done;
            }
            // One that paused waits again, or has yielded something that the application takes before it wants more.
            if recv == Recv::Continue {
                self.out.event(Event::Resume { stream });
            }
        }
        Recv::Continue
    }

    pub(super) fn recv_control(&mut self, mut data: Bytes, fin: bool) -> Recv {
        if let Err((code, reason)) = self.read_control(&mut data) {
            return self.close(code, reason);
        }
        if fin {
            self.critical_closed();
            return Recv::Done;
        }
        Recv::Continue
    }

    fn read_control(&mut self, data: &mut Bytes) -> Result<(), (Code, &'static str)> {
        if self.control.reader.is_none() {
            let Some(ty) = self.control.first_type.read(data) else {
                return Ok(());
            };
            // "If the first frame of the control stream is any other frame type, this MUST be treated as a connection
            // error of type H3_MISSING_SETTINGS" (RFC 9114 section 6.2.1). The reader would skip an unknown one.
            if ty != frame::SETTINGS {
                return Err((
                    Code::H3_MISSING_SETTINGS,
                    "the control stream does not begin with SETTINGS",
                ));
            }
            let mut reader = FrameReader::new(FrameLimits::default());
            let mut first = Bytes::from_static(&[frame::SETTINGS as u8]);
            reader
                .read(&mut first)
                .map_err(|error| (error.code(), frame_reason(error)))?;
            self.control.reader = Some(reader);
        }
        // Taken out for the time of reading, so that frames can be handled meanwhile.
        let Some(mut reader) = self.control.reader.take() else {
            return Ok(());
        };
        if let Some(now) = self.now {
            reader.set_time(now);
        }
        while let Some(frame) = reader.read(data).map_err(|error| (error.code(), frame_reason(error)))? {
            self.control_frame(frame)?;
        }
        if reader.idle_frames() > MAX_IDLE_FRAMES {
            return Err((Code::H3_EXCESSIVE_LOAD, "too many frames without effect"));
        }
        self.control.reader = Some(reader);
        Ok(())
    }

    fn control_frame(&mut self, frame: Frame) -> Result<(), (Code, &'static str)> {
        match frame {
            Frame::Settings(payload) if self.control.settings.is_none() => {
                let settings = Settings::decode(&payload).map_err(|error| (error.code(), "invalid SETTINGS"))?;
                negotiate::validate(self.dialects, &settings).map_err(|reason| (Code::H3_SETTINGS_ERROR, reason))?;
                // "If a server accepts 0-RTT but then sends settings that are not compatible with the previously
                // specified settings, this MUST be treated as a connection error of type H3_SETTINGS_ERROR" (RFC 9114
                // section 7.2.4.2). For a reduced SETTINGS_H3_DATAGRAM too "the client MUST terminate the connection
                // with error H3_SETTINGS_ERROR" (RFC 9297 section 2.1.1).
                if let Some(before) = self.control.remembered.take() {
                    settings
                        .keeps(&before)
                        .map_err(|code| (code, "SETTINGS change what early data was sent under"))?;
                }
                // "Once a server has provided new settings, clients MUST comply with those values" (RFC 9114 section
                // 7.2.4.2): the encoder's limits, and what `negotiate` makes of the rest.
                let limit = |id| settings.get(id).unwrap_or(0);
                self.encoder.set_peer_limits(
                    limit(settings::QPACK_MAX_TABLE_CAPACITY),
                    limit(settings::QPACK_BLOCKED_STREAMS),
                );
                self.control.settings = Some(settings);
                self.settings_deadline = None;
                self.negotiate();
                Ok(())
            }
            Frame::Goaway(id) => self.recv_goaway(id),
            // "receipt of a MAX_PUSH_ID frame that contains a smaller value than previously received MUST be treated as
            // a connection error of type H3_ID_ERROR" (RFC 9114 section 7.2.7).
            Frame::MaxPushId(id) if self.side == Side::Server => {
                if self.control.max_push_id.is_some_and(|before| id < before) {
                    return Err((Code::H3_ID_ERROR, "MAX_PUSH_ID decreased"));
                }
                self.control.max_push_id = Some(id);
                Ok(())
            }
            // No push was ever promised or allowed. "If a CANCEL_PUSH frame is received that references a push ID
            // greater than currently allowed on the connection, this MUST be treated as a connection error of type
            // H3_ID_ERROR" (RFC 9114 section 7.2.3).
            // "If a server receives a CANCEL_PUSH frame for a push ID that has not yet been mentioned by a PUSH_PROMISE
            // frame, this MUST be treated as a connection error of type H3_ID_ERROR" (RFC 9114 section 7.2.3).
            Frame::CancelPush(_) => Err((Code::H3_ID_ERROR, "CANCEL_PUSH without a push")),
            Frame::PriorityUpdate { push: false, id, value } if self.side == Side::Server => {
                self.recv_priority_update(id, &value)
            }
            // "If a server receives a PRIORITY_UPDATE (type=0xF0701) with a push ID that is greater than the maximum push ID or
            // that has not yet been promised, this MUST be treated as a connection error of type H3_ID_ERROR" (RFC 9218
            // section 7.2). Nothing is ever promised.
            Frame::PriorityUpdate { push: true, .. } if self.side == Side::Server => {
                Err((Code::H3_ID_ERROR, "PRIORITY_UPDATE of a push that was not promised"))
            }
            // "If a DATA frame is received on a control stream, the recipient MUST respond with a connection error of
            // type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.1).
            // "If a HEADERS frame is received on a control stream, the recipient MUST respond with a connection error
            // of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.2).
            // "If an endpoint receives a second SETTINGS frame on the control stream, the endpoint MUST respond with a
            // connection error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.4).
            // "If a PUSH_PROMISE frame is received on the control stream, the client MUST respond with a connection
            // error of type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.5).
            // "A server MUST treat the receipt of a PUSH_PROMISE frame as a connection error of type
            // H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.5). And what only a client may send: "A client MUST treat the
            // receipt of a MAX_PUSH_ID frame as a connection error of type H3_FRAME_UNEXPECTED" (RFC 9114 section
            // 7.2.7).
            _ => Err((
                Code::H3_FRAME_UNEXPECTED,
                "a frame that may not come on the control stream",
            )),
        }
    }

    fn recv_goaway(&mut self, id: u64) -> Result<(), (Code, &'static str)> {
        // "A client MUST treat receipt of a GOAWAY frame containing a stream ID of any other type as a connection error
        // of type H3_ID_ERROR" (RFC 9114 section 7.2.6).
        if self.side == Side::Client && !StreamId::from_u64(id).is_request() {
            return Err((Code::H3_ID_ERROR, "GOAWAY with an id that is no request"));
        }
        // "Receiving a GOAWAY containing a larger identifier than previously received MUST be treated as a connection
        // error of type H3_ID_ERROR" (RFC 9114 section 5.2).
        if self.control.goaway_received.is_some_and(|before| id > before) {
            return Err((Code::H3_ID_ERROR, "the id in GOAWAY increased"));
        }
        // What that id ends is ended, and each look at all streams would cost the peer three bytes.
        if self.control.goaway_received == Some(id) {
            return Ok(());
        }
        self.control.goaway_received = Some(id);
        self.out.event(Event::GoAway { id });
        if self.side == Side::Client {
            self.end_unprocessed(StreamId::from_u64(id));
        }
        // "An HTTP/3 GOAWAY frame is also a signal to applications to initiate shutdown for all WebTransport sessions"
        // (draft-ietf-webtrans-http3-16 section 4.7).
        let mut draining: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.is_visible() && !session.draining)
            .map(|(&id, _)| id)
            .collect();
        draining.sort_unstable();
        for id in draining {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.draining = true;
            }
            self.out.event(Event::SessionDraining { session: id });
        }
        Ok(())
    }

    /// Client: the server said that it processes no request from `first` on. It SHOULD reset them, which would take a round trip
    /// at best (RFC 9114 section 5.2); those that it has answered all the same go on.
    fn end_unprocessed(&mut self, first: StreamId) {
        let is_unanswered = |(&id, stream): (&StreamId, &Stream)| {
            let is_one = id >= first
                && match stream {
                    Stream::Message(message) => message.recv == Progress::Head && message.waiting.is_none(),
                    Stream::Connect => {
                        let session = SessionId::new(id).and_then(|id| self.sessions.get(&id));
                        session.is_some_and(|session| !session.is_open() && session.waiting.is_none())
                    }
                    _ => false,
                };
            is_one.then_some(id)
        };
        let mut unprocessed: Vec<StreamId> = self.streams.iter().filter_map(is_unanswered).collect();
        unprocessed.sort_unstable();
        for stream in unprocessed {
            if let Some(Stream::Connect) = self.streams.get(&stream) {
                self.abort_session(stream, Over::Reset(Code::H3_REQUEST_REJECTED));
            } else {
                self.message_rejected(stream);
            }
        }
    }
}
