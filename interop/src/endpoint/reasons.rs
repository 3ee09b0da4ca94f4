//! Why a pair cannot pass a case. A failure that is not here, or that looks otherwise, is a failure.

struct Reason {
    /// A name; `*` is any.
    client: &'static str,
    server: &'static str,
    case: &'static str,
    /// Part of what is then seen.
    sign: &'static str,
    why: &'static str,
}

const fn reason(
    client: &'static str,
    server: &'static str,
    case: &'static str,
    sign: &'static str,
    why: &'static str,
) -> Reason {
    Reason {
        client,
        server,
        case,
        sign,
        why,
    }
}

const REASONS: [Reason; 14] = [
    reason(
        "webtransport-go",
        "wireloom",
        "*",
        "stream reset partial delivery",
        RESET_STREAM_AT,
    ),
    reason(
        "webtransport-go v0.9",
        "wireloom",
        "two sessions",
        "CONNECTION_REFUSED",
        CONNECTION_EACH,
    ),
    reason(
        "webtransport-go v0.9",
        "*",
        "handshake",
        "negotiated None",
        NO_SUBPROTOCOLS,
    ),
    reason("*", "wtransport", "handshake", "negotiated None", NO_SUBPROTOCOLS),
    reason("wtransport", "*", "handshake", "negotiated None", NO_SUBPROTOCOLS),
    reason(
        "*",
        "webtransport-go v0.9",
        "handshake",
        "negotiated None",
        NO_SUBPROTOCOLS,
    ),
    reason(
        "wtransport",
        "*",
        "two sessions",
        "refused to accept a new connection",
        CONNECTION_EACH,
    ),
    reason(
        "web-transport-quinn",
        "*",
        "two sessions",
        "refused to accept a new connection",
        CONNECTION_EACH,
    ),
    reason(
        "web-transport-quiche",
        "wireloom",
        "two sessions",
        "timed out",
        CONNECTION_EACH,
    ),
    reason("web-transport-quiche", "*", "*", "did not arrive", QUICHE_STALLS),
    reason("*", "web-transport-quiche", "*", "not every file came", QUICHE_STALLS),
    reason(
        "wireloom",
        "web-transport-quiche",
        "two sessions",
        "no more sessions",
        NO_FLOW_CONTROL,
    ),
    reason(
        "wireloom",
        "wtransport",
        "two sessions",
        "no more sessions",
        NO_FLOW_CONTROL,
    ),
    reason(
        "wireloom",
        "web-transport-quinn",
        "two sessions",
        "no more sessions",
        NO_FLOW_CONTROL,
    ),
];

const RESET_STREAM_AT: &str = "This client demands the transport parameter reset_stream_at of a server, which quinn-proto, the QUIC library \
    beneath Wireloom, does not have.";
const NO_SUBPROTOCOLS: &str =
    "The peer has no subprotocols, which the runner wants negotiated: its session is opened, without one.";
const CONNECTION_EACH: &str =
    "This client opens a connection for each session, and the endpoint's server admits one, as the runner asks.";
const NO_FLOW_CONTROL: &str = "The server speaks draft 07, without flow control of sessions: Wireloom's client then opens one session on a \
    connection.";

const QUICHE_STALLS: &str = "Where this peer sends several streams at once, one of them stops in one run of ten to thirty, with data or only its \
    FIN still to be sent: towards wtransport and web-transport-quinn as well.";

/// The reason, if it is known and `evidence` shows it.
pub fn find(client: &str, server: &str, case: &str, evidence: &str) -> Option<&'static str> {
    let matches = |pattern: &str, value: &str| pattern == "*" || pattern == value;
    let found = REASONS.iter().find(|known| {
        matches(known.client, client)
            && matches(known.server, server)
            && matches(known.case, case)
            && evidence.contains(known.sign)
    });
    found.map(|found| found.why)
}
