//! The access log: a line for each request, in a format of the user's.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use http::Version;
use http::request::Parts;

use super::scope::{Client, Ends};

/// Bytes that wait to be written before they are.
const BUFFER: usize = 16 * 1024;

/// Where lines go, and what is in them.
pub(crate) struct AccessLog {
    pieces: Vec<Piece>,
    out: Mutex<Out>,
}

struct Out {
    file: File,
    buffer: Vec<u8>,
}

/// A piece of the format.
enum Piece {
    Text(String),
    Address,
    Time,
    Method,
    Path,
    Query,
    Protocol,
    Status,
    Bytes,
    Milliseconds,
    Scheme,
    Field(String),
}

/// What is known when a request comes.
pub(crate) struct Entry {
    begun: Instant,
    address: String,
    method: String,
    path: String,
    query: String,
    protocol: &'static str,
    scheme: &'static str,
    fields: Vec<(String, String)>,
}

impl AccessLog {
    /// The format has `%(name)s` for `client`, `time`, `method`, `path`, `query`, `protocol`, `status`, `bytes`, `ms` (the
    /// duration), `scheme` and `{field}` of the request; `%%` is a percent sign.
    pub(crate) fn new(format: &str, file: File) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                pieces.push(Piece::Text("%".to_owned()));
                rest = after;
                continue;
            }
            let (name, after) = rest
                .strip_prefix('(')
                .and_then(|rest| rest.split_once(")s"))
                .ok_or_else(|| format!("the access log's format has a '%' without '(name)s': {format}"))?;
            rest = after;
            pieces.push(match name {
                "client" => Piece::Address,
                "time" => Piece::Time,
                "method" => Piece::Method,
                "path" => Piece::Path,
                "query" => Piece::Query,
                "protocol" => Piece::Protocol,
                "status" => Piece::Status,
                "bytes" => Piece::Bytes,
                "ms" => Piece::Milliseconds,
                "scheme" => Piece::Scheme,
                _ => match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    Some(field) => Piece::Field(field.to_ascii_lowercase()),
                    None => return Err(format!("the access log knows no '{name}'")),
                },
            });
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        pieces.push(Piece::Text("\n".to_owned()));
        let buffer = Vec::with_capacity(BUFFER);
        Ok(Self {
            pieces,
            out: Mutex::new(Out { file, buffer }),
        })
    }

    pub(crate) fn entry(&self, parts: &Parts, ends: &Ends) -> Entry {
        let fields = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field(name) => {
                let value = parts.headers.get(name.as_str())?;
                Some((name.clone(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            }
            _ => None,
        });
        Entry {
            begun: Instant::now(),
            address: match &ends.client {
                Client::Peer(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).to_string(),
                Client::Forwarded(host) if host.contains(':') => format!("[{host}]:0"),
                Client::Forwarded(host) => format!("{host}:0"),
                Client::Unknown => "-".to_owned(),
            },
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            protocol: match parts.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_3 => "HTTP/3",
                _ => "HTTP/1.1",
            },
            scheme: if ends.is_secure { "https" } else { "http" },
            fields: fields.collect(),
        }
    }

    pub(crate) fn write(&self, entry: &Entry, status: u16, bytes: u64) {
        let mut line = String::with_capacity(128);
        for piece in &self.pieces {
            // Writing to a string does not fail.
            let _ = match piece {
                Piece::Text(text) => line.write_str(text),
                Piece::Address => line.write_str(&entry.address),
                Piece::Time => line.write_str(&httpdate::fmt_http_date(SystemTime::now())),
                Piece::Method => line.write_str(&entry.method),
                Piece::Path => line.write_str(&entry.path),
                Piece::Query => line.write_str(&entry.query),
                Piece::Protocol => line.write_str(entry.protocol),
                Piece::Scheme => line.write_str(entry.scheme),
                Piece::Status => write!(line, "{status}"),
                Piece::Bytes => write!(line, "{bytes}"),
                Piece::Milliseconds => write!(line, "{:.3}", entry.begun.elapsed().as_secs_f64() * 1e3),
                Piece::Field(name) => {
                    let value = entry.fields.iter().find(|(known, _)| known == name);
                    // A client must not begin lines of its own.
                    value.map_or(Ok(()), |(_, value)| line.write_str(&value.escape_debug().to_string()))
                }
            };
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.buffer.extend_from_slice(line.as_bytes());
        if out.buffer.len() >= BUFFER {
            out.flush();
        }
    }

    /// Called often; does nothing if nothing waits.
    pub(crate) fn flush(&self) {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).flush();
    }
}

impl Out {
    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            // A log that cannot be written must not end the server.
            let _ = self.file.write_all(&self.buffer);
            self.buffer.clear();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}
