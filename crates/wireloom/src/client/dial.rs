//! From a URL to a connection: resolution, racing IPv6 against IPv4 (RFC 8305), the QUIC handshake, SETTINGS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use wireloom_proto::{Code, Side};

use super::connection::Connection;
use super::{Client, ConnectError};
use crate::driver::{Conn, Driver};
use crate::error::ConnectionError;
use crate::quic::client_config;
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
            port: uri.port_u16().unwrap_or(443),
            authority: authority.as_str().to_owned(),
            path,
        })
    }
}

pub(super) fn unspecified(family: usize) -> SocketAddr {
    let ip: IpAddr = if family == 0 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(ip, 0)
}

/// Closes the connection if the attempt is dropped, because another won or the caller gave up.
struct Attempt(Option<Arc<Conn>>);

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            close(&conn, Code::H3_NO_ERROR);
        }
    }
}

pub(super) fn close(conn: &Arc<Conn>, code: Code) {
    conn.with(|quic, driver, wakes| {
        driver.close(Instant::now(), quic, wakes, code, b"", ConnectionError::LocallyClosed);
    });
}

pub(super) async fn dial(client: &Client, target: &Target) -> Result<Connection, ConnectError> {
    let deadline = client.0.connect_timeout;
    let race = race(client, target);
    match tokio::time::timeout(deadline, race).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Unreachable),
    }
}

async fn race(client: &Client, target: &Target) -> Result<Connection, ConnectError> {
    let resolved = resolve(&*client.0.resolver, &target.host, target.port).await;
    let resolved = resolved.map_err(|source| ConnectError::Resolve {
        host: target.host.clone(),
        source,
    })?;
    let mut addresses = resolved.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        let next = addresses.next();
        if let Some(address) = next {
            attempts.push(attempt_or_refused(client, target, address));
        }
        let more = addresses.len() > 0;
        let mut delay = pin!(tokio::time::sleep(ATTEMPT_DELAY));
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(connection) => return Ok(connection),
                Err(e) => {
                    first_error.get_or_insert(e);
                }
            },
            () = &mut delay, if more => {}
            else => {}
        }
        if attempts.is_empty() && addresses.len() == 0 {
            return Err(first_error.unwrap_or_else(|| ConnectError::Resolve {
                host: target.host.clone(),
                source: std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"),
            }));
        }
    }
}

/// An attempt that fails as soon as ICMP says that nobody listens.
async fn attempt_or_refused(client: &Client, target: &Target, address: SocketAddr) -> Result<Connection, ConnectError> {
    tokio::select! {
        result = attempt(client, target, address) => result,
        () = refused(address) => Err(ConnectError::Unreachable),
    }
}

/// Resolves if the port is closed. Only a connected socket is told so by the system, and QUIC's is not connected: another
/// one asks, with a datagram that is no QUIC, once a server that listens would have answered the handshake.
async fn refused(address: SocketAddr) {
    tokio::time::sleep(ATTEMPT_DELAY).await;
    let ask = async {
        let socket = tokio::net::UdpSocket::bind(unspecified(usize::from(address.is_ipv6()))).await?;
        socket.connect(address).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 16]).await
    };
    match ask.await {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {}
        _ => std::future::pending().await,
    }
}

async fn attempt(client: &Client, target: &Target, address: SocketAddr) -> Result<Connection, ConnectError> {
    let inner = &client.0;
    let known = inner
        .known
        .as_ref()
        .map(|known| known.get(&target.authority, &inner.tls));
    let (tls, presented) = match &known {
        Some(known) => known.tls.observed(),
        None => inner.tls.observed(),
    };
    let config = client_config(&inner.quic, Arc::new(tls))
        .ok_or_else(|| TrustError::Tls(rustls::Error::General("no cipher suite for QUIC".into())))?;
    let endpoint = client
        .endpoint(usize::from(address.is_ipv6()))
        .await
        .map_err(ConnectError::Socket)?;
    let span = tracing::debug_span!("connection", remote = %address, side = "client");
    let driver = Driver::new(Side::Client, inner.driver.clone(), None, None, span, Instant::now())
        .with_memory(known.map(|known| known.memory.clone()));
    let conn = endpoint
        .connect(config, address, &target.host, driver)
        .await
        .ok_or(ConnectionError::EndpointGone)?
        .map_err(|_| ConnectError::InvalidUrl("the host cannot be dialled"))?;
    conn.with(|_, driver, _| driver.set_handle(&conn));
    let mut guard = Attempt(Some(conn.clone()));
    let signals = conn.with(|_, driver, _| driver.signals.clone());
    loop {
        let mut changed = pin!(signals.notified(Topic::State));
        changed.as_mut().enable();
        let outcome = conn.with(|quic, driver, _| match driver.lost() {
            Some(lost) => Some(Err((lost.clone(), quic.stats().packets_received == 0))),
            None => (driver.is_ready() || driver.is_early()).then_some(Ok(())),
        });
        match outcome {
            Some(Ok(())) => {
                guard.0 = None;
                return Ok(Connection::new(conn, presented));
            }
            Some(Err((lost, silent))) => {
                guard.0 = None;
                return Err(match presented.rejection() {
                    Some(rejection) => ConnectError::Certificate(rejection.clone()),
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
        ] {
            assert!(matches!(Target::parse(url), Err(ConnectError::InvalidUrl(_))), "{url}");
        }
    }
}
