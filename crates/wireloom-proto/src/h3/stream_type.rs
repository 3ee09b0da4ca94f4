//! What the first integer of a stream says (RFC 9114 section 6.2, draft-ietf-webtrans-http3-16 section 4).

/// The control stream.
pub const CONTROL: u64 = 0x00;
/// A push stream.
pub const PUSH: u64 = 0x01;
/// The QPACK encoder stream (RFC 9204 section 4.2).
pub const QPACK_ENCODER: u64 = 0x02;
/// The QPACK decoder stream (RFC 9204 section 4.2).
pub const QPACK_DECODER: u64 = 0x03;
/// A unidirectional WebTransport stream; a session id follows. "The HTTP/3 unidirectional stream type SHALL be 0x54"
/// (draft 16 section 4.2).
pub const WEBTRANSPORT: u64 = 0x54;
/// The signal value that opens a bidirectional WebTransport stream; a session id follows.
pub const WEBTRANSPORT_BIDI: u64 = 0x41;
