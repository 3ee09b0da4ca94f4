//! From a URL to a connection: resolution, racing IPv6 against IPv4 (RFC 8305), the QUIC handshake, SETTINGS.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use http::uri::Authority;
use rustls::pki_types::UnixTime;
use wireloom_proto::{Code, Side};

use super::connection::Connection;
use super::{Client, ConnectError, until};
use crate::driver::{Conn, Driver};
use crate::error::ConnectionError;
use crate::quic::{DialError, client_config};
use crate::resolve::resolve;
use crate::tls::TrustError;
use crate::wake::Topic;

/// How long an address has before the next one is tried beside it (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Where a URL leads.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: String,
    pub(super) path: String,
    /// A connection is enough on which requests can leave before anybody has answered.
    pub(super) early: bool,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, ConnectError> {
        let uri: Uri = url
            .parse()
            .map_err(|_| ConnectError::InvalidUrl("it cannot be parsed"))?;
        if uri.scheme_str() != Some("https") {
            return Err(ConnectError::InvalidUrl("WebTransport needs https"));
        }
        let authority = uri.authority().ok_or(ConnectError::InvalidUrl("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(ConnectError::InvalidUrl("it must not contain a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(ConnectError::InvalidUrl("it has no host"));
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            host: host.to_owned(),
            port: port(authority)?,
            authority: authority.as_str().to_owned(),
            path,
            early: false,
        })
    }
}

/// 443 unless there is one. `http` knows none where there is something else behind the colon.
fn port(authority: &Authority) -> Result<u16, ConnectError> {
    let text = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    match text.strip_prefix(':') {
        None | Some("") => Some(443),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
    }
    .ok_or(ConnectError::InvalidUrl("its port is no number up to 65535"))
}

/// What is told if no attempt wins: of their errors the one that tells most.
#[derive(Default)]
struct Failure(Mutex<Option<ConnectError>>);

impl Failure {
    fn note(&self, error: ConnectError) {
        let mut most = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if most.as_ref().is_none_or(|most| weight(&error) > weight(most)) {
            *most = Some(error);
        }
    }

    fn into_error(self) -> ConnectError {
        let most = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        most.unwrap_or(ConnectError::Unreachable)
    }
}

/// The more of the server an attempt has seen, the more its error tells.
fn weight(error: &ConnectError) -> u8 {
    match error {
        ConnectError::Certificate(_) => 3,
        ConnectError::Connection(_) => 2,
        ConnectError::Unreachable => 1,
        // It never left this machine.
        _ => 0,
    }
}

/// An attempt that is dropped, because another won, time is up, or the caller gave up, closes its connection.
struct Attempt<'a> {
    conn: Option<Arc<Conn>>,
    failure: &'a Failure,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            if conn.with(|quic, _, _| quic.stats().packets_received > 0) {
                self.failure.note(ConnectionError::HandshakeTimedOut.into());
            }
            close(&conn, Code::H3_NO_ERROR);
        }
    }
}

pub(super) fn close(conn: &Arc<Conn>, code: Code) {
    conn.with(|quic, driver, wakes| {
        driver.close(Instant::now(), quic, wakes, code, b"", ConnectionError::LocallyClosed);
    });
}

pub(super) async fn dial(
    client: &Client,
    target: &Target,
    deadline: Option<tokio::time::Instant>,
) -> Result<Connection, ConnectError> {
    let resolved = until(deadline, resolve(&*client.0.resolver, &target.host, target.port)).await;
    let resolved = resolved.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
    let mut addresses = resolved.map_err(|source| ConnectError::Resolve {
        host: target.host.clone(),
        source,
    })?;
    for address in &mut addresses {
        // IPv6 sockets reach no IPv4 addresses, whatever their form.
        address.set_ip(address.ip().to_canonical());
    }
    let failure = Failure::default();
    match until(deadline, race(client, target, addresses, &failure)).await {
        Some(Some(connection)) => return Ok(connection),
        Some(None) => {}
        // Whoever has said nothing by now is silent.
        None => failure.note(ConnectError::Unreachable),
    }
    Err(failure.into_error())
}

/// The first connection that is ready; `None` if there is none, and `failure` says why.
async fn race(client: &Client, target: &Target, addresses: Vec<SocketAddr>, failure: &Failure) -> Option<Connection> {
    let mut addresses = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    loop {
        if let Some(address) = addresses.next() {
            attempts.push(attempt_or_refused(client, target, address, failure));
        }
        let more = addresses.len() > 0;
        let mut delay = pin!(tokio::time::sleep(ATTEMPT_DELAY));
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(connection) => return Some(connection),
                Err(error) => failure.note(error),
            },
            () = &mut delay, if more => {}
            else => {}
        }
        if attempts.is_empty() && addresses.len() == 0 {
            return None;
        }
    }
}

/// An attempt that fails as soon as ICMP says that nobody listens.
async fn attempt_or_refused(
    client: &Client,
    target: &Target,
    address: SocketAddr,
    failure: &Failure,
) -> Result<Connection, ConnectError> {
    tokio::select! {
        result = attempt(client, target, address, failure) => result,
        () = refused(client, address) => Err(ConnectError::Unreachable),
    }
}

/// Resolves if the port is closed, or no way leads there. Only a connected socket is told so by the system, and QUIC's is not
/// connected: another one asks, with a datagram that is no QUIC, once a server that listens would have answered the handshake.
async fn refused(client: &Client, address: SocketAddr) {
    tokio::time::sleep(ATTEMPT_DELAY).await;
    let ask = async {
        let socket = client.0.sockets.bind_another(usize::from(address.is_ipv6()))?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        socket.connect(address).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 16]).await
    };
    match ask.await {
        Err(e) if says_unreachable(&e) => {}
        _ => std::future::pending().await,
    }
}

fn says_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

async fn attempt(
    client: &Client,
    target: &Target,
    address: SocketAddr,
    failure: &Failure,
) -> Result<Connection, ConnectError> {
    let inner = &client.0;
    let known = inner
        .known
        .as_ref()
        .map(|known| known.get(&target.authority, address, &inner.tls, UnixTime::now()));
    let (tls, verdicts) = match &known {
        Some(known) => known.tls.clone(),
        None => inner.tls.observed(),
    };
    let config = client_config(&inner.quic, Arc::new(tls))
        .ok_or_else(|| TrustError::Tls(rustls::Error::General("no cipher suite for QUIC".into())))?;
    let endpoint = client
        .endpoint(usize::from(address.is_ipv6()))
        .map_err(ConnectError::Socket)?;
    let span = tracing::debug_span!("connection", remote = %address, side = "client");
    let driver = Driver::new(Side::Client, inner.driver.clone(), None, None, span, Instant::now())
        .with_memory(known.map(|known| known.memory.clone()));
    let conn = endpoint
        .connect(config, address, &target.host, driver)
        .await
        .map_err(|error| match error {
            DialError::Name => ConnectError::InvalidUrl("its host is no name of a server"),
            // Filters of DNS answer so for names that they block.
            DialError::Address => ConnectError::Unreachable,
            DialError::Gone => ConnectionError::EndpointGone.into(),
        })?;
    conn.with(|_, driver, _| driver.set_handle(&conn));
    let mut guard = Attempt {
        conn: Some(conn.clone()),
        failure,
    };
    let signals = conn.with(|_, driver, _| driver.signals.clone());
    loop {
        let mut changed = pin!(signals.notified(Topic::State));
        changed.as_mut().enable();
        let outcome = conn.with(|quic, driver, _| match driver.lost() {
            Some(lost) => Some(Err((lost.clone(), quic.stats().packets_received == 0))),
            None => (driver.is_ready() || (target.early && driver.is_early())).then_some(Ok(())),
        });
        match outcome {
            Some(Ok(())) => {
                guard.conn = None;
                return Ok(Connection::new(conn, &target.authority, inner.connect_timeout));
            }
            Some(Err((lost, silent))) => {
                guard.conn = None;
                let rejection = match &lost {
                    ConnectionError::Transport { reason, .. } => verdicts.find(reason),
                    _ => None,
                };
                return Err(match rejection {
                    Some(rejection) => ConnectError::Certificate(rejection),
                    None if silent => ConnectError::Unreachable,
                    None => ConnectError::Connection(lost),
                });
            }
            None => changed.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertificateRejection;

    #[test]
    fn urls_are_taken_apart() {
        let t = Target::parse("https://[::1]:4433/a/b?c=d").expect("valid");
        assert_eq!(
            (&*t.host, t.port, &*t.authority, &*t.path),
            ("::1", 4433, "[::1]:4433", "/a/b?c=d")
        );
        let t = Target::parse("https://example.com").expect("valid");
        assert_eq!(
            (&*t.host, t.port, &*t.authority, &*t.path),
            ("example.com", 443, "example.com", "/")
        );
        // "port = *DIGIT" (RFC 3986 section 3.2.3)
        for (url, port) in [("https://a:/", 443), ("https://a:00080/", 80), ("https://[::1]:/", 443)] {
            assert_eq!(Target::parse(url).expect("valid").port, port, "{url}");
        }
    }

    /// A machine without an IPv6 route is told at once that it has none; QUIC's sends fail in silence.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_says_of_the_way_counts() {
        for (code, expected) in [(101, true), (111, true), (113, true), (1, false), (90, false)] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(says_unreachable(&error), expected, "{error}");
        }
    }

    #[test]
    fn what_tells_most_of_the_server_is_told() {
        let socket = || ConnectError::Socket(io::ErrorKind::AddrInUse.into());
        let lost = |reason: &str| {
            ConnectError::Connection(ConnectionError::Transport {
                code: 1,
                reason: reason.to_owned(),
            })
        };
        let told = |errors: Vec<ConnectError>| {
            let failure = Failure::default();
            errors.into_iter().for_each(|error| failure.note(error));
            failure.into_error()
        };
        let refused = || ConnectError::Certificate(CertificateRejection::Expired);
        assert!(matches!(told(vec![]), ConnectError::Unreachable));
        assert!(matches!(told(vec![socket()]), ConnectError::Socket(_)));
        assert!(matches!(
            told(vec![socket(), ConnectError::Unreachable, socket()]),
            ConnectError::Unreachable
        ));
        let first = told(vec![ConnectError::Unreachable, lost("first"), lost("second"), socket()]);
        assert_eq!(first.to_string(), lost("first").to_string());
        assert!(matches!(told(vec![lost("x"), refused()]), ConnectError::Certificate(_)));
        assert!(matches!(told(vec![refused(), lost("x")]), ConnectError::Certificate(_)));
    }

    #[test]
    fn other_urls_are_the_callers_fault() {
        for url in [
            "http://example.com/",
            "example.com",
            "https://",
            "https://u:p@example.com/",
            "https:///x",
            "",
            "https://example.com:99999/",
            "https://example.com:65536/",
            "https://example.com:abc/",
            "https://example.com:+80/",
            "https://[::1]:-1/",
        ] {
            assert!(matches!(Target::parse(url), Err(ConnectError::InvalidUrl(_))), "{url}");
        }
    }
}
