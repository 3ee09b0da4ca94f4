//! Limits and deadlines of the TCP side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::admit::{Admit, Filter};
use crate::limits::ConnectionLimits;
use crate::server::OriginPolicy;
use crate::threads::Threads;
use crate::tls::ClientAuth;

/// What a clock can count in any case: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Which versions of HTTP a connection over TLS may speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpVersions {
    /// HTTP/2 for clients that know it, HTTP/1.1 for others.
    #[default]
    Both,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only: clients that do not ask for it are refused in the handshake, or where it begins without ALPN after it.
    Http2,
}

/// Limits and deadlines of [`serve`](super::serve).
#[derive(Clone)]
pub struct Options {
    pub(super) limits: ConnectionLimits,
    pub(super) handshake_timeout: Duration,
    pub(super) header_timeout: Duration,
    pub(super) max_header_size: u32,
    pub(super) max_concurrent_streams: u32,
    pub(super) shutdown_deadline: Duration,
    pub(super) alt_svc: Option<HeaderValue>,
    pub(super) clients: ClientAuth,
    pub(super) versions: HttpVersions,
    pub(super) key_log: bool,
    pub(super) threads: Option<Threads>,
    pub(super) filter: Option<Filter>,
    /// Which pages may open WebSockets; `None` for all.
    pub(super) origins: Option<Arc<OriginPolicy>>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("header_timeout", &self.header_timeout)
            .field("shutdown_deadline", &self.shutdown_deadline)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: ConnectionLimits::default(),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            max_header_size: 64 * 1024,
            max_concurrent_streams: 200,
            shutdown_deadline: Duration::from_secs(30),
            alt_svc: None,
            clients: ClientAuth::None,
            versions: HttpVersions::Both,
            key_log: false,
            threads: None,
            filter: None,
            origins: None,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the secrets of each TLS connection are written to the file that the environment variable `SSLKEYLOGFILE` names, so
    /// that Wireshark and the like can read what was recorded. Whoever has the file can, too. Default false.
    pub fn key_log(mut self, write: bool) -> Self {
        self.key_log = write;
        self
    }

    /// Drives connections on these threads, by turns, instead of the runtime that serves. Default: none. In a
    /// [`Server`](crate::Server), its builder's.
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Connections at once; a connection over a limit is closed as soon as it is accepted. Give clones of one
    /// [`ConnectionLimits`] to several listeners to count them together. Default: [`ConnectionLimits::default`].
    pub fn limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Asks `decide` about the address of each client before anything is kept for it, TLS included; what is not [`Admit::Yes`]
    /// or [`Admit::Retry`] is closed at once. It is called where connections are accepted: it must be quick, and must not
    /// block. Not asked on Unix sockets. Default: everybody. In a [`Server`](crate::Server), its builder's.
    pub fn admit(self, decide: impl Fn(SocketAddr) -> Admit + Send + Sync + 'static) -> Self {
        self.filter(Filter::new(decide))
    }

    pub(crate) fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Whether the application has nothing against a client.
    pub(super) fn admits(&self, peer: Option<SocketAddr>) -> bool {
        let (Some(filter), Some(peer)) = (&self.filter, peer) else {
            return true;
        };
        matches!(filter.ask(peer), Admit::Yes | Admit::Retry)
    }

    /// How long a TLS handshake may take. Default: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a connection may take for the header of its first request, and then for that of each next one, which
    /// makes it the longest idle time of a kept connection. On HTTP/2 an idle connection may live up to twice as long.
    /// Default: 30 s.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout.min(LONGEST);
        self
    }

    /// Bytes that a request's header may have; a larger one is answered with 431, and so is one of more than 100 fields over
    /// HTTP/1.1. It is held in memory while it is read. Default: 65 536.
    pub fn max_header_size(mut self, bytes: u32) -> Self {
        self.max_header_size = bytes;
        self
    }

    /// Requests at once on one HTTP/2 connection. Default: 200.
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.max_concurrent_streams = streams;
        self
    }

    /// How long requests and upgraded connections may go on after the shutdown began. Default: 30 s.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.shutdown_deadline = deadline;
        self
    }

    /// Tells clients that HTTP/3 is served on this UDP port, for a day (`alt-svc: h3=":443"; ma=86400`, RFC 7838), in
    /// every response that has no `alt-svc` of its own. Default: no; in a [`Server`](crate::Server), the port of the UDP socket
    /// beside the listener.
    pub fn http3_port(mut self, port: u16) -> Self {
        let value = format!("h3=\":{port}\"; ma=86400");
        self.alt_svc = Some(HeaderValue::try_from(value).expect("digits and punctuation are a header value"));
        self
    }

    /// What a [`Server`](crate::Server) says of HTTP/3, with a UDP socket at `port`.
    pub(crate) fn announce_http3(mut self, announce: bool, port: Option<u16>) -> Self {
        if !announce {
            self.alt_svc = None;
        } else if let (None, Some(port)) = (&self.alt_svc, port) {
            return self.http3_port(port);
        }
        self
    }

    /// Whether clients prove who they are. Default: they need not.
    pub fn client_auth(mut self, clients: ClientAuth) -> Self {
        self.clients = clients;
        self
    }

    /// Which versions of HTTP are offered. Default: both. Without TLS there is HTTP/1.1 alone, whatever is set.
    pub fn versions(mut self, versions: HttpVersions) -> Self {
        self.versions = versions;
        self
    }

    /// Lets pages of `origin` (`https://host[:port]`) open WebSockets, besides pages of the same origin; `*` lets all. Once one is
    /// allowed all others get 403. A listener without TLS takes `http` and `https` of its host for the same origin: a proxy may
    /// have ended TLS. Programs other than browsers send no origin and are not concerned. Default: nobody is refused. In a
    /// [`Server`](crate::Server), its builder's.
    ///
    /// ```
    /// let options = wireloom::tcp::Options::new().allow_origin("https://app.example.com");
    /// ```
    pub fn allow_origin(mut self, origin: impl AsRef<str>) -> Self {
        Arc::make_mut(self.origins.get_or_insert_default()).allow(origin.as_ref());
        self
    }

    /// Refuses WebSockets of pages that the policy does not allow.
    pub(crate) fn origins(mut self, origins: Arc<OriginPolicy>) -> Self {
        self.origins = Some(origins);
        self
    }
}
