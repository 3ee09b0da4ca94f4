//! Traces of connections for tools such as qvis (draft-ietf-quic-qlog-main-schema), one file each.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use qp::ConnectionIdGenerator;
use quinn_proto as qp;

/// The destination of a client's first packet.
pub(super) fn connection_id() -> qp::ConnectionId {
    qp::RandomConnectionIdGenerator::new(8).generate_cid()
}

/// Begins the trace of a connection whose client chose `id` first. Without a trace a connection works as well, so that a full
/// disk only costs the trace.
pub(super) fn open(dir: &Path, id: &qp::ConnectionId, vantage: &'static str) -> Option<qp::QlogStream> {
    // The name that quic-go, ngtcp2 and the interop runner agree on; the id is the same on both ends.
    let path = dir.join(format!("{id}_{vantage}.sqlog"));
    let file = File::create(&path).inspect_err(|error| {
        tracing::warn!(path = %path.display(), %error, "no qlog of this connection");
    });
    let mut config = qp::QlogConfig::default();
    config
        .writer(Box::new(Trace {
            file: BufWriter::new(file.ok()?),
            head: Some(Vec::new()),
            vantage,
        }))
        .title(Some(format!("wireloom {vantage}")));
    config.into_stream()
}

/// What the QUIC library says of its vantage point.
const UNKNOWN: &str = r#""vantage_point":{"type":"unknown"}"#;

/// The file. Its first record is told what the QUIC library does not say: which end writes it, and that times begin with the
/// connection.
struct Trace {
    file: BufWriter<File>,
    /// The first record, as long as it is incomplete.
    head: Option<Vec<u8>>,
    vantage: &'static str,
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(head) = &mut self.head else {
            return self.file.write(bytes);
        };
        head.extend_from_slice(bytes);
        // A line feed ends each record (RFC 7464 section 2.2).
        if bytes.contains(&b'\n') {
            self.write_head()?;
        }
        Ok(bytes.len())
    }

    /// Nothing: a system call for each packet would slow the connection down. The file is complete when the connection is
    /// over.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Trace {
    fn write_head(&mut self) -> io::Result<()> {
        let head = self.head.take().unwrap_or_default();
        let times = r#""common_fields":{"protocol_type":["QUIC"],"reference_time":0,"time_format":"relative"}"#;
        let known = format!(r#""vantage_point":{{"type":"{}"}},{times}"#, self.vantage);
        let head = String::from_utf8_lossy(&head).replacen(UNKNOWN, &known, 1);
        self.file.write_all(head.as_bytes())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // A full disk costs the trace, and nobody is left to tell.
        let _ = self.write_head();
        let _ = self.file.flush();
    }
}
