//! The access log: a line for each request, in a format of the user's.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::Version;
use http::request::Parts;

use super::access_format::{End, Format};
use super::scope::{Client, Ends};

/// Bytes that wait to be written before they are.
const BUFFER: usize = 16 * 1024;

/// Lines that wait for Python; of more the oldest are forgotten.
const LINES: usize = 16 * 1024;

/// Where lines go, and what is in them.
pub(crate) struct AccessLog {
    format: Format,
    exclude: Vec<Pattern>,
    out: Mutex<Out>,
}

enum Out {
    File {
        file: File,
        buffer: Vec<u8>,
    },
    /// Python's logging, which comes for them.
    Python(VecDeque<Line>),
}

/// A line, with what handlers and filters of Python's logging want to know: client, method, path, query, status, bytes and
/// milliseconds.
pub(crate) type Line = (String, String, String, String, String, u16, u64, f64);

/// Paths that are not logged.
enum Pattern {
    Exactly(String),
    Below(String),
}

/// What is known when a request comes.
pub(crate) struct Entry {
    begun: Instant,
    pub(super) address: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) protocol: &'static str,
    pub(super) scheme: &'static str,
    fields: Vec<(String, String)>,
}

impl Entry {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl AccessLog {
    /// Without a file the lines are Python's to take. A path of `exclude` that ends with `*` is the beginning of paths.
    pub(crate) fn new(format: &str, file: Option<File>, exclude: &[String]) -> Result<Self, String> {
        let exclude = exclude.iter().map(|path| match path.strip_suffix('*') {
            Some(beginning) => Pattern::Below(beginning.to_owned()),
            None => Pattern::Exactly(path.clone()),
        });
        Ok(Self {
            format: Format::parse(format)?,
            exclude: exclude.collect(),
            out: Mutex::new(match file {
                Some(file) => Out::File {
                    file,
                    buffer: Vec::with_capacity(BUFFER),
                },
                None => Out::Python(VecDeque::new()),
            }),
        })
    }

    /// `None` for a request that is not logged.
    pub(crate) fn entry(&self, parts: &Parts, ends: &Ends) -> Option<Entry> {
        let path = parts.uri.path();
        let is_excluded = self.exclude.iter().any(|pattern| match pattern {
            Pattern::Exactly(excluded) => path == excluded,
            Pattern::Below(beginning) => path.starts_with(beginning.as_str()),
        });
        if is_excluded {
            return None;
        }
        let fields = self.format.fields().filter_map(|name| {
            let value = parts.headers.get(name)?;
            Some((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        });
        Some(Entry {
            begun: Instant::now(),
            address: match &ends.client {
                Client::Peer(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).to_string(),
                Client::Forwarded(host) if host.contains(':') => format!("[{host}]:0"),
                Client::Forwarded(host) => format!("{host}:0"),
                Client::Unknown => "-".to_owned(),
            },
            method: parts.method.as_str().to_owned(),
            path: path.to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            protocol: match parts.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_3 => "HTTP/3",
                _ => "HTTP/1.1",
            },
            scheme: if ends.is_secure { "https" } else { "http" },
            fields: fields.collect(),
        })
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self, entry: Entry, status: u16, bytes: u64) {
        let took = entry.begun.elapsed();
        let end = End { status, bytes, took };
        let line = self.format.line(&entry, &end);
        let mut out = self.out();
        match &mut *out {
            Out::File { buffer, .. } => {
                buffer.extend_from_slice(line.as_bytes());
                buffer.push(b'\n');
                if buffer.len() >= BUFFER {
                    out.flush();
                }
            }
            Out::Python(lines) => {
                if lines.len() == LINES {
                    lines.pop_front();
                }
                let Entry {
                    address,
                    method,
                    path,
                    query,
                    ..
                } = entry;
                lines.push_back((line, address, method, path, query, status, bytes, end.milliseconds()));
            }
        }
    }

    /// The lines that wait for Python.
    pub(crate) fn take(&self) -> VecDeque<Line> {
        match &mut *self.out() {
            Out::File { .. } => VecDeque::new(),
            Out::Python(lines) => std::mem::take(lines),
        }
    }

    /// Called often; does nothing if nothing waits.
    pub(crate) fn flush(&self) {
        self.out().flush();
    }
}

impl Out {
    fn flush(&mut self) {
        if let Self::File { file, buffer } = self
            && !buffer.is_empty()
        {
            // A log that cannot be written must not end the server.
            let _ = file.write_all(buffer);
            buffer.clear();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}
