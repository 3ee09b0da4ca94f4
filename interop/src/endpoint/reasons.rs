//! Why a pair cannot pass a case. What is not here is a failure.

/// A client, a server and a case (`*` is any), and the reason.
const REASONS: [(&str, &str, &str, &str); 9] = [
    ("webtransport-go", "wireloom", "*", RESET_STREAM_AT),
    ("webtransport-go v0.9", "wireloom", "*", NO_SETTING),
    ("*", "wtransport", "handshake", NO_SUBPROTOCOLS),
    ("wtransport", "*", "handshake", NO_SUBPROTOCOLS),
    ("*", "webtransport-go v0.9", "handshake", NO_SUBPROTOCOLS),
    ("wtransport", "*", "two sessions", CONNECTION_EACH),
    ("web-transport-quinn", "*", "two sessions", CONNECTION_EACH),
    ("wireloom", "wtransport", "two sessions", NO_FLOW_CONTROL),
    ("wireloom", "web-transport-quinn", "two sessions", NO_FLOW_CONTROL),
];

const RESET_STREAM_AT: &str = "This client demands the transport parameter reset_stream_at of a server, which quinn-proto, the QUIC library \
    beneath Wireloom, does not have.";
const NO_SETTING: &str = "This client announces WebTransport in no SETTINGS, of any draft, though \"both the client and the server MUST \
    send\" it (draft 02 section 3.1): Wireloom treats its CONNECT as malformed (270 is H3_MESSAGE_ERROR).";
const NO_SUBPROTOCOLS: &str =
    "The peer has no subprotocols, which the runner wants negotiated: its session is opened, without one.";
const CONNECTION_EACH: &str =
    "This client opens a connection for each session, and the endpoint's server admits one, as the runner asks.";
const NO_FLOW_CONTROL: &str = "The server speaks draft 07, without flow control of sessions: Wireloom's client then opens one session on a \
    connection.";

/// The reason, if it is known.
pub fn find(client: &str, server: &str, case: &str) -> Option<&'static str> {
    let matches = |pattern: &str, value: &str| pattern == "*" || pattern == value;
    let found = REASONS
        .iter()
        .find(|(c, s, name, _)| matches(c, client) && matches(s, server) && matches(name, case));
    found.map(|(.., reason)| *reason)
}
