//! Every hostile input, numbered for good: what it is, where the rule stands, what it gets, and which test sends it.
//!
//! The tests take the expected reaction from here, so that the table (and `docs/hostile.md`) cannot say anything else than
//! what was tested.

use wireloom_proto::Code;

use crate::common::raw::Answer;

/// What a hostile input gets. It also says what suffers: the scope.
#[derive(Debug, Clone, Copy)]
pub enum Reaction {
    /// The connection is closed with this code of HTTP/3 or QPACK.
    Close(Code),
    /// The connection is closed with this code of QUIC.
    Quic(u64, &'static str),
    /// The session's CONNECT stream is reset, which ends the session.
    EndSession(Code),
    /// The stream is reset, or stopped where the peer alone sends on it.
    Reset(Code),
    /// The request is answered with this status.
    Status(u16),
    /// The WebSocket is closed with this code.
    WebSocket(u16),
    /// The input has no effect, or a bounded one.
    Harmless(&'static str),
}

use Reaction::{Close, EndSession, Harmless, Quic, Reset, Status, WebSocket};

pub struct Case {
    pub number: u8,
    pub what: &'static str,
    /// RFC 9114 unless another document is named; WT is draft-ietf-webtrans-http3-16.
    pub section: &'static str,
    pub reaction: Reaction,
    /// Module and function of the test.
    pub test: &'static str,
}

pub struct Section {
    pub title: &'static str,
    pub note: &'static str,
    pub cases: &'static [Case],
}

/// A macro so that a case stays one line.
macro_rules! cases {
    ($($number:literal $what:literal ($section:literal) => $reaction:expr, $test:literal;)*) => {
        &[$(Case { number: $number, what: $what, section: $section, reaction: $reaction, test: $test }),*]
    };
}

pub const SECTIONS: &[Section] = &[
    Section {
        title: "HTTP/3",
        note: "",
        cases: HTTP3,
    },
    Section {
        title: "Requests",
        note: "",
        cases: REQUESTS,
    },
    Section {
        title: "WebTransport CONNECT",
        note: "",
        cases: CONNECT,
    },
    Section {
        title: "QPACK",
        note: "",
        cases: QPACK,
    },
    Section {
        title: "Datagrams and capsules",
        note: "",
        cases: CAPSULES,
    },
    Section {
        title: "Session flow control",
        note: "quinn-proto keeps the final size of reset streams to itself: what such a stream took unseen is counted when the \
               peer says that it is blocked (ARCHITECTURE.md), and QUIC's own windows bound it until then.",
        cases: FLOW_CONTROL,
    },
    Section {
        title: "Abuse",
        note: "",
        cases: ABUSE,
    },
    Section {
        title: "QUIC",
        note: "Mostly quinn-proto's duty, asserted all the same with packets made by hand.",
        cases: QUIC,
    },
    Section {
        title: "WebSocket",
        note: "The frames are tungstenite's, through axum: it ends the WebSocket with an error, and the application (here the \
               tests') puts the code into the Close frame. The handshake (92 to 94, 101) is checked by the server.",
        cases: WEBSOCKET,
    },
];

const HTTP3: &[Case] = cases! {
    1 "control stream that does not begin with SETTINGS" ("6.2.1") => Close(Code::H3_MISSING_SETTINGS), "control::control_streams";
    2 "second control stream" ("6.2.1") => Close(Code::H3_STREAM_CREATION_ERROR), "control::second_critical_streams";
    3 "second QPACK stream" ("9204 4.2") => Close(Code::H3_STREAM_CREATION_ERROR), "control::second_critical_streams";
    4 "push stream of a client" ("6.2.2") => Close(Code::H3_STREAM_CREATION_ERROR), "control::control_streams";
    5 "control stream closed, reset or stopped" ("6.2.1") => Close(Code::H3_CLOSED_CRITICAL_STREAM), "control::critical_streams_that_end";
    6 "QPACK stream closed, reset or stopped" ("9204 4.2") => Close(Code::H3_CLOSED_CRITICAL_STREAM), "control::critical_streams_that_end";
    7 "second SETTINGS" ("7.2.4") => Close(Code::H3_FRAME_UNEXPECTED), "control::control_streams";
    8 "SETTINGS on a request stream" ("7.2.4") => Close(Code::H3_FRAME_UNEXPECTED), "control::request_streams";
    9 "DATA on the control stream" ("7.2.1") => Close(Code::H3_FRAME_UNEXPECTED), "control::control_streams";
    10 "HEADERS on the control stream" ("7.2.2") => Close(Code::H3_FRAME_UNEXPECTED), "control::control_streams";
    11 "CANCEL_PUSH on a request stream" ("7.2.3") => Close(Code::H3_FRAME_UNEXPECTED), "control::request_streams";
    12 "GOAWAY on a request stream" ("7.2.6") => Close(Code::H3_FRAME_UNEXPECTED), "control::request_streams";
    13 "MAX_PUSH_ID on a request stream" ("7.2.7") => Close(Code::H3_FRAME_UNEXPECTED), "control::request_streams";
    14 "PUSH_PROMISE of a client" ("7.2.5") => Close(Code::H3_FRAME_UNEXPECTED), "control::frames_for_no_stream";
    15 "HTTP/2 frame types 2, 6, 8 and 9" ("7.2.8") => Close(Code::H3_FRAME_UNEXPECTED), "control::frames_for_no_stream";
    16 "DATA before HEADERS" ("4.1") => Close(Code::H3_FRAME_UNEXPECTED), "control::request_streams";
    17 "frame after the trailers" ("4.1") => Close(Code::H3_FRAME_UNEXPECTED), "control::request_streams";
    18 "FIN inside a frame" ("7.1") => Close(Code::H3_FRAME_ERROR), "control::request_streams";
    19 "length of a frame that does not match its fields" ("7.1") => Close(Code::H3_FRAME_ERROR), "control::control_streams";
    20 "WT_STREAM (0x41) anywhere but first" ("WT 4.3") => Close(Code::H3_FRAME_ERROR), "control::webtransport_header_in_the_wrong_place";
    21 "MAX_PUSH_ID decreased" ("7.2.7") => Close(Code::H3_ID_ERROR), "control::control_streams";
    22 "GOAWAY id increased" ("5.2") => Close(Code::H3_ID_ERROR), "control::control_streams";
    23 "session id that is no request stream, on a unidirectional stream" ("WT 4") => Close(Code::H3_ID_ERROR), "control::session_ids_that_cannot_be";
    24 "the same on a bidirectional stream (in a datagram, four times the quarter id always is one)" ("WT 4") => Close(Code::H3_ID_ERROR), "control::session_ids_that_cannot_be";
    25 "HTTP/2 setting identifiers" ("7.2.4.1") => Close(Code::H3_SETTINGS_ERROR), "control::settings";
    26 "duplicate setting identifiers" ("7.2.4") => Close(Code::H3_SETTINGS_ERROR), "control::settings";
    27 "H3_DATAGRAM above 1" ("9297 2.1.1") => Close(Code::H3_SETTINGS_ERROR), "control::settings";
    28 "GREASE frames, settings and capsules" ("9, 9297 5.4") => Harmless("ignored"), "control::grease";
    29 "unidirectional streams of unknown types" ("6.2") => Harmless("the stream is stopped, nothing else"), "control::unknown_streams";
};

const MALFORMED: Reaction = Reset(Code::H3_MESSAGE_ERROR);

const REQUESTS: &[Case] = cases! {
    30 "duplicate pseudo-header" ("4.3") => MALFORMED, "requests::malformed";
    31 "missing pseudo-header" ("4.3.1") => MALFORMED, "requests::malformed";
    32 "pseudo-header after a field" ("4.3") => MALFORMED, "requests::malformed";
    33 "unknown pseudo-header" ("4.3") => MALFORMED, "requests::malformed";
    34 "upper-case field name" ("4.2") => MALFORMED, "requests::malformed";
    35 "connection-specific field" ("4.2") => MALFORMED, "requests::malformed";
    36 "CR, LF or NUL in a field value" ("10.3") => MALFORMED, "requests::malformed";
    37 "content-length that does not match" ("4.1.2") => MALFORMED, "requests::malformed";
    38 ":authority and Host differ" ("4.3.1") => MALFORMED, "requests::malformed";
    39 "plain CONNECT with :path" ("4.4") => MALFORMED, "requests::malformed";
    40 ":protocol on GET" ("8441 4") => MALFORMED, "requests::malformed";
    41 "unknown :protocol" ("9220 3") => Status(501), "requests::refused_with_a_status";
    42 "oversized header section" ("4.2.2") => Status(431), "requests::refused_with_a_status";
};

const CONNECT: &[Case] = cases! {
    43 "origin that is not allowed" ("WT 3.2") => Status(403), "connect::refused_with_a_status";
    44 "resource without WebTransport" ("WT 3.2") => Status(405), "connect::refused_with_a_status";
    45 "CONNECT before the client's SETTINGS" ("WT 3.1") => Harmless("held until they are there"), "connect::held_until_settings";
    46 "requirements missing in SETTINGS or transport parameters" ("WT 3.1") => MALFORMED, "connect::requirements";
    47 "CONNECT in 0-RTT" ("WT 3.2") => Harmless("early data is off unless asked for; then the session waits for the end of the handshake"), "connect::no_early_data";
    48 "capsules before the 2xx" ("WT 3.2") => Harmless("kept, at most 16 KiB, and processed after it"), "connect::early_capsules";
    49 "malformed WT-Available-Protocols" ("WT 3.3") => Harmless("the field is ignored"), "connect::malformed_protocols";
    50 "second session without flow control" ("WT 5.1") => Reset(Code::H3_REQUEST_REJECTED), "connect::second_session_without_flow_control";
    51 "flood of sessions" ("WT 5.2") => Status(429), "connect::session_flood";
};

const QPACK: &[Case] = cases! {
    52 "static index out of range" ("9204 3.1") => Close(Code::QPACK_DECOMPRESSION_FAILED), "qpack::field_sections";
    53 "impossible Required Insert Count" ("9204 4.5.1.1") => Close(Code::QPACK_DECOMPRESSION_FAILED), "qpack::field_sections";
    54 "more blocked streams than announced" ("9204 2.1.2") => Close(Code::QPACK_DECOMPRESSION_FAILED), "qpack::blocked_streams";
    55 "bad Huffman" ("9204 4.1.2") => Close(Code::QPACK_DECOMPRESSION_FAILED), "qpack::field_sections";
    56 "table capacity above the limit" ("9204 4.3.1") => Close(Code::QPACK_ENCODER_STREAM_ERROR), "qpack::instructions";
    57 "Insert Count Increment 0" ("9204 4.4.3") => Close(Code::QPACK_DECODER_STREAM_ERROR), "qpack::instructions";
    58 "acknowledgement of an unknown section" ("9204 4.4.1") => Close(Code::QPACK_DECODER_STREAM_ERROR), "qpack::instructions";
};

const BAD_CAPSULE: Reaction = EndSession(Code::H3_MESSAGE_ERROR);

const CAPSULES: &[Case] = cases! {
    59 "truncated datagram" ("9297 2.1") => Close(Code::H3_DATAGRAM_ERROR), "datagrams_capsules::datagrams_without_a_session_id";
    60 "quarter stream id too large" ("9297 2.1") => Close(Code::H3_DATAGRAM_ERROR), "datagrams_capsules::datagrams_without_a_session_id";
    61 "datagram of a closed session" ("9297 2.1") => Harmless("dropped"), "datagrams_capsules::datagrams_of_a_closed_session";
    62 "flood of datagrams before the session" ("WT 4.6") => Harmless("64 are kept for 5 s, the rest is dropped"), "datagrams_capsules::datagrams_before_the_session";
    63 "FIN inside a capsule" ("9297 3.3") => BAD_CAPSULE, "datagrams_capsules::capsules";
    64 "close reason above 1024 bytes" ("WT 6") => BAD_CAPSULE, "datagrams_capsules::capsules";
    65 "close reason that is not UTF-8" ("WT 6") => BAD_CAPSULE, "datagrams_capsules::capsules";
    66 "data after the close capsule" ("WT 6") => BAD_CAPSULE, "datagrams_capsules::capsules";
    67 "close capsule shorter than 4 bytes" ("WT 6") => BAD_CAPSULE, "datagrams_capsules::capsules";
    68 "unknown capsule" ("9297 3.2") => Harmless("skipped"), "datagrams_capsules::unknown_capsules";
    69 "capsule of 2^62 - 1 bytes" ("9297 3.2") => Harmless("skipped as it comes; nothing is allocated"), "datagrams_capsules::a_capsule_without_end";
};

const FLOW_ERROR: Reaction = EndSession(Code::WT_FLOW_CONTROL_ERROR);

const FLOW_CONTROL: &[Case] = cases! {
    70 "more streams than the session's limit" ("WT 5.6.2") => FLOW_ERROR, "flow_control::too_many_streams";
    71 "more data than the session's limit" ("WT 5.6.4") => FLOW_ERROR, "flow_control::too_much_data";
    72 "WT_MAX_STREAMS above 2^60" ("WT 5.6.2") => FLOW_ERROR, "flow_control::capsules";
    73 "limit that does not increase" ("WT 5.6.2, 5.6.4") => FLOW_ERROR, "flow_control::capsules";
    74 "WT_STREAMS_BLOCKED above 2^60" ("WT 5.6.3") => FLOW_ERROR, "flow_control::capsules";
    75 "WT_MAX_STREAM_DATA or WT_STREAM_DATA_BLOCKED" ("WT 5.4") => FLOW_ERROR, "flow_control::capsules";
    76 "any flow-control capsule while it is off" ("WT 5.1") => Harmless("ignored"), "flow_control::ignored_while_off";
};

const ABUSE: &[Case] = cases! {
    77 "flood of streams before their session" ("WT 4.6") => Reset(Code::WT_BUFFERED_STREAM_REJECTED), "abuse::early_streams";
    78 "stream of a closed session" ("WT 6") => Reset(Code::WT_SESSION_GONE), "abuse::streams_of_a_closed_session";
    79 "reset code outside the application's range" ("WT 4.4") => Harmless("the application gets no code"), "abuse::reset_codes";
    80 "stream header that comes byte by byte" ("9000 21.6") => Harmless("the stream is reset after the header timeout (10 s); others are not held up"), "abuse::trickled_headers";
    81 "rapid CONNECT and reset, requests that are stopped before they come or that the server is made to reset" ("10.5") => Close(Code::H3_EXCESSIVE_LOAD), "abuse::rapid_cancelling";
    82 "flood of empty frames" ("10.5") => Close(Code::H3_EXCESSIVE_LOAD), "abuse::empty_frames";
    83 "peer that never reads" ("10.5") => Harmless("at most the send window (8 MiB) is kept for it; too many capsules close the connection"), "abuse::a_peer_that_never_reads";
};

const QUIC: &[Case] = cases! {
    84 "Initial in a datagram below 1200 bytes" ("9000 14.1") => Harmless("dropped without an answer"), "quic::short_initial";
    85 "flood of Initials from spoofed addresses" ("9000 8.1") => Harmless("at most three times the bytes are sent back, then Retry; the rest goes on"), "address_validation::a_flood_of_initials";
    86 "ACK of a packet that was never sent" ("9000 13.1") => Quic(0x0a, "PROTOCOL_VIOLATION"), "quic::broken_rules";
    87 "flood of CRYPTO data" ("9000 7.5") => Quic(0x0d, "CRYPTO_BUFFER_EXCEEDED"), "quic::broken_rules";
    88 "stream data at sparse offsets" ("9000 21.7") => Harmless("memory within the stream's window; above 1 024 gaps the connection is closed"), "quic::sparse_offsets";
    89 "changed final size" ("9000 4.5") => Quic(0x06, "FINAL_SIZE_ERROR"), "quic::broken_rules";
    90 "more connection ids than allowed" ("9000 5.1.1") => Quic(0x09, "CONNECTION_ID_LIMIT_ERROR"), "quic::broken_rules";
    91 "bad transport parameters" ("9000 18.2") => Quic(0x08, "TRANSPORT_PARAMETER_ERROR"), "quic::transport_parameters";
    103 "transport parameters that allow fewer than three unidirectional streams" ("6.2") => Close(Code::H3_GENERAL_PROTOCOL_ERROR), "quic::too_few_streams";
};

const WEBSOCKET: &[Case] = cases! {
    92 "Sec-WebSocket-Key that is missing or not 16 bytes of base64" ("6455 4.2.2") => Status(400), "websocket::handshakes";
    93 "version other than 13" ("6455 4.4") => Status(426), "websocket::handshakes";
    94 "origin that is not allowed" ("6455 10.2") => Status(403), "websocket::handshakes";
    95 "unmasked frame" ("6455 5.1") => WebSocket(1002), "websocket::frames";
    96 "RSV bits or reserved opcodes" ("6455 5.2") => WebSocket(1002), "websocket::frames";
    97 "fragmented or long control frame" ("6455 5.5") => WebSocket(1002), "websocket::frames";
    98 "close code that may not be sent" ("6455 7.4") => WebSocket(1002), "websocket::frames";
    99 "text that is not UTF-8" ("6455 8.1") => WebSocket(1007), "websocket::frames";
    100 "message above the limit (compression, so bombs, is never agreed on)" ("6455 7.4.1") => WebSocket(1009), "websocket::frames";
    101 "stalled handshake" ("6455 4.2") => Harmless("closed after the handshake timeout, or the header timeout"), "websocket::stalled_handshakes";
    102 "flood of pings" ("6455 5.5.2") => Harmless("pongs for a peer that does not read wait in the write buffer, whose limit the application sets, and are then skipped"), "websocket::ping_flood";
};

/// All of them.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    SECTIONS.iter().flat_map(|section| section.cases)
}

/// The case of that number.
pub fn case(number: u8) -> &'static Case {
    cases().find(|case| case.number == number).unwrap()
}

impl Case {
    fn wrong(&self) -> ! {
        panic!("case {} expects {:?}", self.number, self.reaction)
    }

    /// With what the connection is closed.
    pub fn close(&self) -> Code {
        let Close(code) = self.reaction else { self.wrong() };
        code
    }

    /// With what QUIC closes the connection.
    pub fn quic(&self) -> u64 {
        let Quic(code, _) = self.reaction else { self.wrong() };
        code
    }

    /// How the stream or request is answered.
    pub fn answer(&self) -> Answer {
        match self.reaction {
            Reset(code) | EndSession(code) => Answer::Reset(code),
            Status(status) => Answer::Status(status),
            _ => self.wrong(),
        }
    }

    /// With what the stream is reset or stopped.
    pub fn reset(&self) -> Code {
        let Reset(code) = self.reaction else { self.wrong() };
        code
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        let Status(status) = self.reaction else { self.wrong() };
        status
    }

    /// The code in the Close frame.
    pub fn web_socket(&self) -> u16 {
        let WebSocket(code) = self.reaction else { self.wrong() };
        code
    }

    /// What the test is about has no code.
    pub fn harmless(&self) {
        let Harmless(_) = self.reaction else { self.wrong() };
    }
}

impl Reaction {
    /// In the document.
    pub fn text(self) -> String {
        match self {
            Close(code) | EndSession(code) | Reset(code) => format!("`{code}`"),
            Quic(_, name) => format!("`{name}`"),
            Status(status) => format!("status {status}"),
            WebSocket(code) => format!("close code {code}"),
            Harmless(text) => text.to_owned(),
        }
    }

    /// What suffers.
    pub const fn scope(self) -> &'static str {
        match self {
            Close(_) | Quic(..) | WebSocket(_) => "connection",
            EndSession(_) => "session",
            Reset(_) => "stream",
            Status(_) => "request",
            Harmless(_) => "none",
        }
    }
}
