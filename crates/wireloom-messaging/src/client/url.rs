//! Dialling a URL: WebTransport first, WebSocket as the fallback, and what worked last before the other.

use std::io;
use std::sync::Arc;
#[cfg(feature = "webtransport")]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
#[cfg(feature = "webtransport")]
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, pki_types::ServerName};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::ConnectError;
use super::attempt::{Attempt, Prepared};
use super::dial::{Dial, DialFuture};
use crate::transport::Link;
use crate::transport::websocket::{self, HandshakeError};

/// What a message may have before the server has said how large one may be: its first has 11 bytes and a name.
const FIRST_MESSAGE: usize = 64 * 1024;

/// How long what worked last is tried first. After that WebTransport gets another chance.
#[cfg(feature = "webtransport")]
const REMEMBERED: Duration = Duration::from_secs(600);

pub(super) struct UrlDialer {
    pub(super) attempt: Attempt,
    /// Of the application, for each attempt.
    pub(super) prepare: Option<Box<dyn Fn(Attempt) -> Prepared + Send + Sync>>,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    #[cfg(feature = "webtransport")]
    pub(super) trust: wireloom::ServerTrust,
    #[cfg(feature = "webtransport")]
    pub(super) key_log: bool,
    #[cfg(feature = "webtransport")]
    pub(super) profile: crate::transport::webtransport::Profile,
    #[cfg(feature = "webtransport")]
    pub(super) patience: Duration,
    /// Since when WebSocket is known to work where WebTransport does not.
    #[cfg(feature = "webtransport")]
    websocket_since: Mutex<Option<Instant>>,
    /// Made when it is first needed: reading the system's roots takes a while.
    #[cfg(feature = "webtransport")]
    made: Mutex<Made>,
}

#[cfg(feature = "webtransport")]
#[derive(Default)]
struct Made {
    client: Option<wireloom::Client>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl UrlDialer {
    pub(super) fn new(url: String) -> Self {
        Self {
            attempt: Attempt::new(url),
            prepare: None,
            tls: None,
            #[cfg(feature = "webtransport")]
            trust: wireloom::ServerTrust::default(),
            #[cfg(feature = "webtransport")]
            key_log: false,
            #[cfg(feature = "webtransport")]
            profile: Default::default(),
            #[cfg(feature = "webtransport")]
            patience: Duration::from_millis(2500),
            #[cfg(feature = "webtransport")]
            websocket_since: Mutex::default(),
            #[cfg(feature = "webtransport")]
            made: Mutex::default(),
        }
    }

    async fn dial(&self) -> Result<Box<dyn Link>, ConnectError> {
        let mut attempt = self.attempt.clone();
        if let Some(prepare) = &self.prepare {
            attempt = prepare(attempt).await?;
        }
        attempt.check()?;
        let uri: Uri = attempt.url.parse().map_err(|_| unusable("it is no URL"))?;
        check(&uri)?;
        match uri.scheme_str() {
            Some("ws" | "wss") => self.websocket(&attempt, &uri).await,
            #[cfg(feature = "webtransport")]
            Some("https") => self.either(&attempt, &uri).await,
            #[cfg(not(feature = "webtransport"))]
            Some("https") => Err(unusable("this program was built without WebTransport: use wss://")),
            _ => Err(unusable("a URL of ws://, wss:// or https:// is needed")),
        }
    }

    /// What worked last first, then the other.
    #[cfg(feature = "webtransport")]
    async fn either(&self, attempt: &Attempt, uri: &Uri) -> Result<Box<dyn Link>, ConnectError> {
        let lock = || self.websocket_since.lock().unwrap_or_else(PoisonError::into_inner);
        let fallback = attempt.clone().url(attempt.url.replacen("https", "wss", 1));
        // Forgotten unless there is an answer: where nothing comes this is dropped when the attempt has taken too long, and the next one
        // begins with WebTransport.
        let since = lock().take().filter(|since| since.elapsed() < REMEMBERED);
        let mut failed = None;
        if since.is_some() {
            let tried = self.websocket(&fallback, uri).await;
            *lock() = since;
            match tried {
                Ok(link) => return Ok(link),
                Err(error) => failed = Some(error),
            }
        }
        let first = match tokio::time::timeout(self.patience, self.webtransport(attempt)).await {
            Ok(Ok(link)) => {
                *lock() = None;
                return Ok(link);
            }
            Ok(Err(error @ ConnectError::Dismissed { .. })) => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => ConnectError::TimedOut,
        };
        // Of both: what is final for one says nothing of the other.
        let both = |first, second| ConnectError::Both(Arc::new(first), Arc::new(second));
        if let Some(failed) = failed {
            return Err(both(first, failed));
        }
        tracing::debug!(error = %first, "no WebTransport, trying WebSocket");
        match self.websocket(&fallback, uri).await {
            Ok(link) => {
                *lock() = Some(Instant::now());
                Ok(link)
            }
            Err(second) => Err(both(first, second)),
        }
    }

    #[cfg(feature = "webtransport")]
    async fn webtransport(&self, attempt: &Attempt) -> Result<Box<dyn Link>, ConnectError> {
        use crate::transport::webtransport::{self, PROTOCOL_M, PROTOCOL_S, Profile};
        let client = self.client()?;
        let offered: &[&str] = match self.profile {
            Profile::Single => &[PROTOCOL_S],
            Profile::Multi => &[PROTOCOL_M, PROTOCOL_S],
        };
        let mut session = client.session(&attempt.url).protocols(offered.iter().copied());
        for (name, value) in &attempt.headers {
            session = match value.to_str() {
                // It takes the place of none, which is what wireloom sends by itself.
                Ok(origin) if name == http::header::ORIGIN => session.origin(origin),
                _ => session.header(name.clone(), value.clone()),
            };
        }
        let session = session.connect().await.map_err(|error| of_webtransport(&error))?;
        // A server that takes none of them speaks the profile that all must.
        let profile = Profile::of(session.protocol(), None);
        Ok(Box::new(webtransport::connect(session, profile, FIRST_MESSAGE).await?))
    }

    async fn websocket(&self, attempt: &Attempt, uri: &Uri) -> Result<Box<dyn Link>, ConnectError> {
        let is_plain = uri.scheme_str() == Some("ws");
        let mut request = attempt.url.as_str().into_client_request().map_err(of_handshake)?;
        request.headers_mut().extend(attempt.headers.clone());
        let host = uri.host().ok_or_else(|| unusable("the URL has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let addresses = tokio::net::lookup_host((host, port)).await.map_err(unreachable)?;
        let tcp = first_of(addresses.map(TcpStream::connect)).await.map_err(unreachable)?;
        // A request is smaller than a packet and must not wait for another.
        tcp.set_nodelay(true).map_err(unreachable)?;
        let link = if is_plain {
            websocket::connect(tcp, request, FIRST_MESSAGE).await
        } else {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| unusable("the URL's host is no name"))?;
            let tls = TlsConnector::from(self.tls_config()?).connect(name, tcp);
            websocket::connect(tls.await.map_err(of_tls)?, request, FIRST_MESSAGE).await
        };
        Ok(Box::new(link.map_err(of_handshake)?))
    }

    #[cfg(not(feature = "webtransport"))]
    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
        let missing = || unusable("wss:// needs a TLS configuration: ClientBuilder::tls");
        self.tls.clone().ok_or_else(missing)
    }

    #[cfg(feature = "webtransport")]
    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
        if let Some(config) = &self.tls {
            return Ok(config.clone());
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &made.tls {
            return Ok(config.clone());
        }
        let config = self.trust.tcp_client_config(None);
        let mut config = config.map_err(|error| ConnectError::Unusable(error.to_string()))?;
        if self.key_log {
            config.key_log = Arc::new(rustls::KeyLogFile::new());
        }
        let config = Arc::new(config);
        made.tls = Some(config.clone());
        Ok(config)
    }

    #[cfg(feature = "webtransport")]
    fn client(&self) -> Result<wireloom::Client, ConnectError> {
        use wireloom::ServerTrust;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &made.client {
            return Ok(client.clone());
        }
        let builder = wireloom::Client::builder().key_log(self.key_log);
        let builder = match &self.trust {
            ServerTrust::Hashes(hashes) => hashes
                .iter()
                .fold(builder, |builder, hash| builder.server_certificate_hash(*hash)),
            ServerTrust::Roots(roots) => builder.root_certificates(roots.clone()),
            ServerTrust::Insecure => builder.dangerous().accept_any_certificate(),
            _ => builder,
        };
        let client = builder.build().map_err(|error| of_webtransport(&error))?;
        made.client = Some(client.clone());
        Ok(client)
    }
}

impl Dial for UrlDialer {
    fn dial(&self) -> DialFuture<'_> {
        Box::pin(Self::dial(self))
    }
}

/// How long an attempt has before the next begins beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The first that succeeds; the next begins when one has failed, or takes long: an address that swallows packets keeps nobody from the
/// others.
async fn first_of<T>(attempts: impl Iterator<Item = impl Future<Output = io::Result<T>>>) -> io::Result<T> {
    let mut attempts = attempts.peekable();
    let mut running = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        running.extend(attempts.next());
        let has_more = attempts.peek().is_some();
        tokio::select! {
            done = running.next() => match done {
                Some(Ok(done)) => return Ok(done),
                Some(Err(error)) => failed = error,
                None => return Err(failed),
            },
            () = tokio::time::sleep(HEAD_START), if has_more => {}
        }
    }
}

/// What `Uri` takes, and nobody can dial: it would be another host or port.
fn check(uri: &Uri) -> Result<(), ConnectError> {
    let Some(authority) = uri.authority() else {
        return Err(unusable("the URL has no host"));
    };
    if authority.as_str().contains('@') {
        return Err(unusable("the URL must not contain a user name"));
    }
    match authority.as_str().strip_prefix(authority.host()) {
        None | Some("" | ":") => Ok(()),
        Some(_) if authority.port_u16().is_some() => Ok(()),
        Some(_) => Err(unusable("the URL's port is no number up to 65535")),
    }
}

fn unusable(why: &str) -> ConnectError {
    ConnectError::Unusable(why.to_owned())
}

fn unreachable(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Unreachable(error.to_string())
}

fn of_tls(error: io::Error) -> ConnectError {
    use rustls::{CertificateError, Error};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        // The words of whoever verifies, where that is not rustls itself.
        Some(Error::InvalidCertificate(CertificateError::Other(cause))) => {
            ConnectError::Certificate(cause.0.to_string())
        }
        Some(cause @ Error::InvalidCertificate(_)) => ConnectError::Certificate(cause.to_string()),
        _ => unreachable(error),
    }
}

/// A status of the client's own making will be the same next time; any other may not.
fn refused(status: http::StatusCode) -> ConnectError {
    let passing = [
        http::StatusCode::REQUEST_TIMEOUT,
        http::StatusCode::TOO_EARLY,
        http::StatusCode::TOO_MANY_REQUESTS,
    ];
    if status.is_client_error() && !passing.contains(&status) {
        ConnectError::Refused(status.to_string())
    } else {
        ConnectError::Unreachable(format!("the server answers {status}"))
    }
}

fn of_handshake(error: HandshakeError) -> ConnectError {
    match error {
        HandshakeError::Http(response) => refused(response.status()),
        HandshakeError::Url(error) => ConnectError::Unusable(error.to_string()),
        error => unreachable(error),
    }
}

#[cfg(feature = "webtransport")]
fn of_webtransport(error: &wireloom::ConnectError) -> ConnectError {
    use wireloom::ConnectError as Error;
    match error {
        Error::InvalidUrl(_) | Error::InvalidRequest(_) | Error::Tls(_) => ConnectError::Unusable(error.to_string()),
        Error::Certificate(rejection) => ConnectError::Certificate(rejection.to_string()),
        Error::Rejected(response) => refused(response.status()),
        Error::NotWebTransport => ConnectError::Refused(error.to_string()),
        _ => unreachable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_swallows_packets_is_not_waited_for() {
        let attempts = ["swallows", "refuses", "takes", "swallows"]
            .into_iter()
            .map(async |what| match what {
                "swallows" => std::future::pending().await,
                "refuses" => Err(io::ErrorKind::ConnectionRefused.into()),
                what => Ok(what),
            });
        let first = tokio::time::timeout(Duration::from_secs(60), first_of(attempts)).await;
        assert_eq!(first.expect("in time").expect("connected"), "takes");
        let refused = || async { io::Result::<()>::Err(io::ErrorKind::ConnectionRefused.into()) };
        let error = first_of([refused(), refused()].into_iter()).await.expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(
            first_of(std::iter::empty::<std::future::Ready<io::Result<()>>>())
                .await
                .is_err()
        );
    }
}
