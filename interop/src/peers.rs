//! Servers with one behaviour in several implementations, and clients that exercise it.
//!
//! | path | what a server does |
//! |---|---|
//! | `/echo` | echoes bidi streams and datagrams, answers a uni stream with a uni stream; offers `echo.v1`, `echo.v2` |
//! | `/server-opens` | opens a uni stream (`uni of the server`) and a bidi stream (`bidi of the server`), notes the answer, then echoes |
//! | `/close` | closes with `code` and `reason` at once |
//! | `/resets` | opens a uni stream; after the FIN of a bidi stream from the peer it resets both; then stops a uni stream from the peer; all with `code` |
//! | `/observe` | echoes bidi streams; of one that begins with `observe` it echoes only that and notes how both halves end |
//!
//! Every path takes `id`, under which the server's [`Journal`](crate::journal::Journal) notes what it sees. Another
//! path gets 404.

pub mod aioquic;
pub mod behaviour;
pub mod exercise;
pub mod process;
pub mod session;
pub mod web_api;
pub mod web_transport_quinn;
pub mod webtransport_go;
pub mod wireloom;
pub mod wtransport;

use crate::Result;

/// Where a server of the laboratory can be dialled.
#[derive(Clone, Debug)]
pub struct Target {
    /// `https://127.0.0.1:PORT`, without a path.
    pub url: String,
    /// The SHA-256 of the server's certificate, in hexadecimal digits.
    pub hash: String,
}

impl Target {
    /// The hash as bytes.
    pub fn hash_bytes(&self) -> Result<Vec<u8>> {
        let pairs = self.hash.as_bytes().chunks(2);
        pairs
            .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
            .collect()
    }
}

/// What a pair of a client and a server can do together; what the other implementations lack is in the table of
/// `tests/peers.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Both negotiate subprotocols.
    pub protocols: bool,
    /// A server's close arrives with its code and reason.
    pub close_server: bool,
    /// A client's close arrives with its code and reason.
    pub close_client: bool,
}

/// The subprotocol that a server of the laboratory takes of those offered.
pub fn choose_protocol<'a>(mut offered: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    offered.find(|protocol| matches!(*protocol, "echo.v1" | "echo.v2"))
}

/// What a session's path asks a server to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What to do.
    pub behaviour: Behaviour,
    /// Under which name the journal notes it.
    pub id: String,
    /// The code to close, reset or stop with.
    pub code: u32,
    /// The reason to close with.
    pub reason: String,
}

/// See the table of the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// `/echo`
    Echo,
    /// `/server-opens`
    ServerOpens,
    /// `/close`
    Close,
    /// `/resets`
    Resets,
    /// `/observe`
    Observe,
}

impl Route {
    /// Reads a path with its query; `None` for a path that gets 404.
    pub fn parse(path_and_query: &str) -> Option<Self> {
        let url = url::Url::parse("https://lab").ok()?.join(path_and_query).ok()?;
        let behaviour = match url.path() {
            "/echo" => Behaviour::Echo,
            "/server-opens" => Behaviour::ServerOpens,
            "/close" => Behaviour::Close,
            "/resets" => Behaviour::Resets,
            "/observe" => Behaviour::Observe,
            _ => return None,
        };
        let query = |name: &str| {
            url.query_pairs()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        Some(Self {
            behaviour,
            id: query("id").unwrap_or_default(),
            code: query("code").and_then(|code| code.parse().ok()).unwrap_or(0),
            reason: query("reason").unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        assert_eq!(Route::parse("/nowhere"), None);
        let route = Route::parse("/close?id=a-1&code=4294967295&reason=so%20long").expect("a known path");
        let expected = Route {
            behaviour: Behaviour::Close,
            id: "a-1".into(),
            code: u32::MAX,
            reason: "so long".into(),
        };
        assert_eq!(route, expected);
    }
}
