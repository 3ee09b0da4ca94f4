//! What `connect` prints: payload on standard output, the session's story on standard error, or JSON lines.

use std::time::Duration;

use serde_json::{Value, json};
use wireloom::{Session, SessionError, SessionStats};

use crate::output::{self, Paint};
use crate::trust::dialect_name;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// On the stream that this program opened.
    Stream,
    /// On a unidirectional stream of the server.
    Uni,
    /// On a bidirectional stream of the server.
    Bidi,
    Datagram,
}

impl Via {
    fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Uni => "incoming_uni",
            Self::Bidi => "incoming_bidi",
            Self::Datagram => "datagram",
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Printer {
    json: bool,
}

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// For what comes on one stream.
    pub(super) fn stream(self, via: Via) -> StreamPrinter {
        StreamPrinter {
            json: self.json,
            via,
            partial: Vec::new(),
        }
    }

    pub(super) fn connected(&self, url: &str, session: &Session) {
        let transport = session.stats().transport;
        let [rtt, min_rtt] = [transport.rtt, transport.min_rtt].map(|time| time.as_secs_f64() * 1000.0);
        let protocol = session.protocol();
        if self.json {
            output::json(&json!({
                "event": "connected",
                "url": url,
                "remote": session.remote_address().to_string(),
                "dialect": dialect_name(session.dialect()),
                "protocol": protocol,
                "rtt_ms": rtt,
                "min_rtt_ms": min_rtt,
                "max_datagram_size": session.max_datagram_size(),
            }));
            return;
        }
        let paint = Paint::stderr();
        let protocol = protocol.map_or_else(String::new, |p| format!(", subprotocol {p}"));
        let dialect = dialect_name(session.dialect());
        output::note(&format!(
            "{} {url} {}",
            paint.green("connected"),
            // The smallest: the others so far have the time of the handshake in them.
            paint.dim(&format!("({dialect}{protocol}, round trip {min_rtt:.1} ms)"))
        ));
    }

    /// A whole message.
    pub(super) fn message(&self, via: Via, payload: &[u8], elapsed: Option<Duration>) {
        if self.json {
            let mut value = payload_json(via, payload);
            if let Some(elapsed) = elapsed {
                value["elapsed_ms"] = json!(elapsed.as_secs_f64() * 1000.0);
            }
            output::json(&value);
        } else if payload.ends_with(b"\n") {
            output::raw(payload);
        } else {
            output::raw(&[payload, b"\n"].concat());
        }
    }

    /// That a stream of the server ended before its end.
    pub(super) fn broken(self, via: Via, why: &str) {
        if self.json {
            output::json(&json!({ "event": "stream_reset", "via": via.name(), "reason": why }));
        } else {
            output::note(&format!("a stream of the server broke off: {}", output::printable(why)));
        }
    }

    /// That streams of the server go on, of which nothing more is printed.
    pub(super) fn unfinished(self, count: usize) {
        if self.json {
            output::json(&json!({ "event": "unfinished_streams", "count": count }));
        } else {
            let which = match count {
                1 => "a stream of the server had not ended".to_owned(),
                _ => format!("{count} streams of the server had not ended"),
            };
            output::note(&format!("{which}: what would still come is not printed"));
        }
    }

    /// `is_error`: people will read it in the error message.
    pub(super) fn closed(&self, end: Option<&SessionError>, is_error: bool) {
        let (by, code, reason) = match end {
            Some(SessionError::Closed { code, reason }) => ("server", Some(code), reason.clone()),
            Some(SessionError::LocallyClosed { code, reason }) => ("client", Some(code), reason.clone()),
            Some(error) => ("connection", None, error.to_string()),
            None => return,
        };
        if self.json {
            output::json(&json!({ "event": "closed", "by": by, "code": code, "reason": reason }));
        } else if by == "server" && !is_error {
            let code = code.map_or(0, |code| *code);
            let reason = if reason.is_empty() {
                String::new()
            } else {
                format!(": {}", output::printable(&reason))
            };
            output::note(&format!("the server closed the session with code {code}{reason}"));
        }
    }

    /// What was counted: on standard error, or a JSON line.
    pub(super) fn stats(&self, stats: &SessionStats) {
        let SessionStats {
            transport, datagrams, ..
        } = stats;
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        if self.json {
            output::json(&json!({
                "event": "stats",
                "streams_opened": stats.streams_opened,
                "streams_received": stats.streams_received,
                "bytes_written": stats.bytes_written,
                "bytes_received": stats.bytes_received,
                "datagrams_sent": datagrams.sent,
                "datagrams_received": datagrams.received,
                "datagrams_dropped_incoming": datagrams.dropped_incoming,
                "connection": {
                    "rtt_ms": ms(transport.rtt),
                    "min_rtt_ms": ms(transport.min_rtt),
                    "bytes_sent": transport.bytes_sent,
                    "bytes_received": transport.bytes_received,
                    "packets_sent": transport.packets_sent,
                    "packets_received": transport.packets_received,
                    "packets_lost": transport.packets_lost,
                    "bytes_lost": transport.bytes_lost,
                    "congestion_events": transport.congestion_events,
                    "congestion_window": transport.congestion_window,
                    "estimated_send_rate": transport.estimated_send_rate,
                    "mtu": transport.mtu,
                },
            }));
            return;
        }
        let rows = [
            (
                "streams",
                format!("{} opened, {} received", stats.streams_opened, stats.streams_received),
            ),
            (
                "bytes",
                format!("{} written, {} received", stats.bytes_written, stats.bytes_received),
            ),
            (
                "datagrams",
                format!(
                    "{} sent, {} received, {} of them dropped unread",
                    datagrams.sent, datagrams.received, datagrams.dropped_incoming
                ),
            ),
            (
                "packets",
                format!(
                    "{} sent, {} of them lost, {} received",
                    transport.packets_sent, transport.packets_lost, transport.packets_received
                ),
            ),
            (
                "on the wire",
                format!(
                    "{} bytes sent, {} received",
                    transport.bytes_sent, transport.bytes_received
                ),
            ),
            (
                "round trip",
                format!("{} ms, at least {} ms", ms(transport.rtt), ms(transport.min_rtt)),
            ),
            (
                "path",
                format!(
                    "{} bytes a packet, window of {} bytes",
                    transport.mtu, transport.congestion_window
                ),
            ),
        ];
        let paint = Paint::stderr();
        for (name, value) in rows {
            output::note(&format!("  {}  {value}", paint.dim(&format!("{name:<11}"))));
        }
    }
}

/// Prints the bytes of a stream: as they are, or a JSON line for each line of theirs. However it is dropped, nothing is left out.
pub(super) struct StreamPrinter {
    json: bool,
    via: Via,
    /// For JSON: what came of a line that is not complete.
    partial: Vec<u8>,
}

impl StreamPrinter {
    pub(super) fn chunk(&mut self, payload: &[u8]) {
        /// A line that is longer is printed in pieces.
        const MAX_LINE: usize = 64 * 1024;
        if !self.json {
            return output::raw(payload);
        }
        for piece in payload.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= MAX_LINE {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if !self.partial.is_empty() {
            let line = self.partial.strip_suffix(b"\n").unwrap_or(&self.partial);
            output::json(&payload_json(self.via, line));
            self.partial.clear();
        }
    }
}

impl Drop for StreamPrinter {
    fn drop(&mut self) {
        self.end_line();
    }
}

fn payload_json(via: Via, payload: &[u8]) -> Value {
    match std::str::from_utf8(payload) {
        Ok(text) => json!({ "event": "message", "via": via.name(), "bytes": payload.len(), "text": text }),
        Err(_) => {
            let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "event": "message", "via": via.name(), "bytes": payload.len(), "hex": hex })
        }
    }
}
