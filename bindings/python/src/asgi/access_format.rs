//! What the access log says of a request: pieces of text in between, or an object of JSON.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::access::Entry;

/// The name of the format that is an object of JSON.
const JSON: &str = "json";

/// The field of a request that is in each object.
const USER_AGENT: &str = "user-agent";

pub(crate) enum Format {
    Pieces(Vec<Piece>),
    Json,
}

pub(crate) enum Piece {
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

/// How a request ended.
pub(crate) struct End {
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

impl End {
    pub(crate) fn milliseconds(&self) -> f64 {
        self.took.as_secs_f64() * 1e3
    }
}

impl Format {
    /// It has `%(name)s` for `client`, `time`, `method`, `path`, `query`, `protocol`, `status`, `bytes`, `ms` (the duration),
    /// `scheme` and `{field}` of the request; `%%` is a percent sign. `json` alone is an object with all of these but fields.
    pub(crate) fn parse(format: &str) -> Result<Self, String> {
        if format == JSON {
            return Ok(Self::Json);
        }
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
        Ok(Self::Pieces(pieces))
    }

    /// The fields of the request that it wants to know.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        let pieces = match self {
            Self::Pieces(pieces) => pieces.as_slice(),
            Self::Json => &[],
        };
        let named = pieces.iter().filter_map(|piece| match piece {
            Piece::Field(name) => Some(name.as_str()),
            _ => None,
        });
        named.chain(matches!(self, Self::Json).then_some(USER_AGENT))
    }

    pub(crate) fn line(&self, entry: &Entry, end: &End) -> String {
        let mut line = String::with_capacity(128);
        // Writing to a string does not fail.
        let _ = match self {
            Self::Pieces(pieces) => pieces.iter().try_for_each(|piece| piece.write(&mut line, entry, end)),
            Self::Json => object(&mut line, entry, end),
        };
        line
    }
}

impl Piece {
    fn write(&self, line: &mut String, entry: &Entry, end: &End) -> fmt::Result {
        match self {
            Self::Text(text) => line.write_str(text),
            Self::Address => line.write_str(&entry.address),
            Self::Time => line.write_str(&httpdate::fmt_http_date(SystemTime::now())),
            Self::Method => line.write_str(&entry.method),
            Self::Path => line.write_str(&entry.path),
            Self::Query => line.write_str(&entry.query),
            Self::Protocol => line.write_str(entry.protocol),
            Self::Scheme => line.write_str(entry.scheme),
            Self::Status => write!(line, "{}", end.status),
            Self::Bytes => write!(line, "{}", end.bytes),
            Self::Milliseconds => write!(line, "{:.3}", end.milliseconds()),
            // A client must not begin lines of its own.
            Self::Field(name) => entry
                .field(name)
                .map_or(Ok(()), |value| write!(line, "{}", value.escape_debug())),
        }
    }
}

fn object(line: &mut String, entry: &Entry, end: &End) -> fmt::Result {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    write!(line, "{{\"time\":\"{}\"", Rfc3339(since))?;
    let texts = [
        ("client", entry.address.as_str()),
        ("method", &entry.method),
        ("scheme", entry.scheme),
        ("path", &entry.path),
        ("query", &entry.query),
        ("protocol", entry.protocol),
        ("user_agent", entry.field(USER_AGENT).unwrap_or_default()),
    ];
    for (name, text) in texts {
        write!(line, ",\"{name}\":\"{}\"", Escaped(text))?;
    }
    let (status, bytes, ms) = (end.status, end.bytes, end.milliseconds());
    write!(line, ",\"status\":{status},\"bytes\":{bytes},\"ms\":{ms:.3}}}")
}

/// Text between the quotation marks of JSON.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '"' | '\\' => write!(f, "\\{char}"),
            // Control characters, and what some take for the end of a line.
            '\0'..' ' | '\u{7f}'..'\u{a0}' | '\u{2028}' | '\u{2029}' => write!(f, "\\u{:04x}", u32::from(char)),
            _ => f.write_char(char),
        })
    }
}

/// A time since 1970, as `2026-11-28T12:00:00.123Z`.
struct Rfc3339(Duration);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Years begin in March here, so that the day that not all have is the last one.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let thousandths = self.0.subsec_millis();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{thousandths:03}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_json_is_escaped() {
        let text = Escaped("a\"b\\c\n\u{1b}\u{85}\u{2028}\u{fc}\u{1f600}").to_string();
        assert_eq!(text, "a\\\"b\\\\c\\u000a\\u001b\\u0085\\u2028\u{fc}\u{1f600}");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let text = |seconds, millis: u32| Rfc3339(Duration::new(seconds, millis * 1_000_000)).to_string();
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(text(951_782_400, 1), "2000-02-29T00:00:00.001Z");
        assert_eq!(text(1_709_251_200, 0), "2024-03-01T00:00:00.000Z");
        assert_eq!(text(1_798_761_599, 0), "2026-12-31T23:59:59.000Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
