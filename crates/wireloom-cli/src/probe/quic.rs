//! The QUIC side: handshake, SETTINGS, a session, HTTP/3.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wireloom::proto::connection::SessionRequest;
use wireloom::proto::h3::settings;
use wireloom::proto::webtransport::negotiate::Dialect;
use wireloom::{Client, ConnectError, Connection, LookupFuture, Resolve};

use super::report::{Certificate, HttpAnswer, Quic, Report, Session, Setting};
use super::{Target, parameters};
use crate::cert::facts::Facts;
use crate::explain;
use crate::failure::{Failure, chain};
use crate::trust::{TrustArgs, dialect_name};

/// What was seen, before it is put into words.
pub(super) struct Seen {
    verdict: Verdict,
    trust: &'static str,
    connection: Connection,
    handshake: Duration,
    session: Result<wireloom::Session, ConnectError>,
    opened_in: Duration,
    http3: HttpAnswer,
}

/// Whether the certificate passes the given trust.
enum Verdict {
    Trusted,
    Distrusted(ConnectError),
    /// The connection that would have told failed for another reason.
    Unknown(ConnectError),
}

impl Seen {
    /// Asks once more for the trust where it could not be found out: one handshake may be lost, and other connections of this program may
    /// have taken all the places that a server gives an address. For when those are over.
    pub(super) async fn ask_again(&mut self, target: &Target, trust: &TrustArgs) -> Result<(), Failure> {
        if matches!(self.verdict, Verdict::Unknown(_)) {
            self.verdict = verdict(target, trust).await?;
        }
        Ok(())
    }
}

/// Dials twice: once to hear whether the certificate is trusted, and once to see everything else whether or not.
pub(super) async fn examine(target: &Target, trust: &TrustArgs, origin: Option<&str>) -> Result<Seen, Failure> {
    let failed = |e: ConnectError| explain::connect_error(&target.url, &e);
    let open_minded = Client::builder()
        .connect_timeout(trust.timeout)
        .key_log(true)
        .dangerous()
        .accept_any_certificate();
    let open_minded = open_minded.build().map_err(failed)?;
    let started = Instant::now();
    let connection = open_minded.dial(&target.url).await.map_err(failed)?;
    let handshake = started.elapsed();
    let verdict = if trust.insecure {
        Verdict::Trusted
    } else {
        verdict(target, trust).await?
    };

    let mut request = SessionRequest::new(&*target.authority, &*target.path);
    request.origin = origin.map(str::to_owned);
    let started = Instant::now();
    let session = tokio::time::timeout(trust.timeout, connection.open(request)).await;
    let session = session.unwrap_or(Err(ConnectError::Connection(
        wireloom::ConnectionError::HandshakeTimedOut,
    )));
    let opened_in = started.elapsed();
    let http3 = get(target, &connection, trust.timeout).await;
    Ok(Seen {
        verdict,
        trust: trust.name(),
        connection,
        handshake,
        session,
        opened_in,
        http3,
    })
}

async fn verdict(target: &Target, trust: &TrustArgs) -> Result<Verdict, Failure> {
    let client = match trust.client()?.build() {
        Ok(client) => client,
        // No roots on this machine: then none vouches for the server.
        Err(error @ ConnectError::Tls(_)) => return Ok(Verdict::Distrusted(error)),
        Err(error) => return Err(explain::connect_error(&target.url, &error)),
    };
    Ok(match client.dial(&target.url).await {
        Ok(connection) => {
            connection.close();
            Verdict::Trusted
        }
        Err(error @ (ConnectError::Certificate(_) | ConnectError::Tls(_))) => Verdict::Distrusted(error),
        Err(error) => Verdict::Unknown(error),
    })
}

async fn get(target: &Target, connection: &Connection, timeout: Duration) -> HttpAnswer {
    let request = match http::Request::get(format!("https://{}/", target.authority)).body(Bytes::new()) {
        Ok(request) => request,
        Err(error) => return HttpAnswer::failed(error.to_string()),
    };
    match tokio::time::timeout(timeout, connection.request(request)).await {
        Ok(Ok(response)) => HttpAnswer::of(&response),
        Ok(Err(error)) => HttpAnswer::failed(chain(&error)),
        Err(_) => HttpAnswer::failed("no answer in time"),
    }
}

/// Whether HTTP/3 answers at each address by itself: `None`, or why not. A single address is not asked again.
pub(super) async fn reachable(target: &Target, timeout: Duration) -> Vec<Option<String>> {
    if target.addresses.len() < 2 {
        return vec![None; target.addresses.len()];
    }
    let mut answers = tokio::task::JoinSet::new();
    for (index, &address) in target.addresses.iter().enumerate() {
        let url = target.url.clone();
        answers.spawn(async move {
            let client = Client::builder().connect_timeout(timeout).resolver(Only(address));
            let error = match client.dangerous().accept_any_certificate().build() {
                Ok(client) => client.dial(&url).await.map(|connection| connection.close()).err(),
                Err(error) => Some(error),
            };
            (index, error.map(|e| chain(&e)))
        });
    }
    let mut errors = vec![None; target.addresses.len()];
    for (index, error) in answers.join_all().await {
        errors[index] = error;
    }
    errors
}

/// Every name is this address.
struct Only(SocketAddr);

impl Resolve for Only {
    fn lookup<'a>(&'a self, _: &'a str, _: u16) -> LookupFuture<'a> {
        Box::pin(async { Ok(vec![self.0]) })
    }
}

/// Completes the report, and says whether a session under the given trust is possible.
pub(super) fn fill(report: &mut Report, seen: Result<Seen, Failure>, url: &str) -> Result<(), Failure> {
    let seen = match seen {
        Ok(seen) => seen,
        Err(failure) => {
            if let [only] = &mut report.addresses[..] {
                only.answers = false;
                only.error = Some(failure.message.clone());
            }
            return Err(failure);
        }
    };
    let Seen {
        verdict,
        trust,
        connection,
        handshake,
        session,
        opened_in,
        http3,
    } = seen;
    let stats = connection.stats();
    let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 100.0;
    let max_datagram_size = match &session {
        Ok(session) => session.max_datagram_size(),
        // The quarter stream ID in front takes a byte or more.
        Err(_) => connection.max_datagram_size().map(|size| size.saturating_sub(1)),
    };
    report.quic = Some(Quic {
        remote: connection.remote_address(),
        handshake_ms: milliseconds(handshake),
        rtt_ms: milliseconds(stats.rtt),
        min_rtt_ms: milliseconds(stats.min_rtt),
        mtu: stats.mtu,
        max_datagram_size,
        transport_parameters: connection
            .peer_transport_parameters()
            .map_or_else(Vec::new, |p| parameters::decode(&p)),
    });
    let facts = connection.server_certificate().as_deref().and_then(Facts::of_der);
    let (trusted, distrust) = match verdict {
        Verdict::Trusted => (Some(true), None),
        Verdict::Distrusted(error) => (Some(false), Some(error)),
        Verdict::Unknown(error) => (None, Some(error)),
    };
    let distrust = distrust.map(|error| explain::connect_error(url, &error));
    report.certificate = facts.map(|facts| Certificate {
        facts: facts.to_json(),
        trust,
        trusted,
        not_trusted_because: distrust.as_ref().map(|failure| failure.message.clone()),
        unpinnable: facts.unpinnable(),
    });
    report.settings = connection
        .peer_settings()
        .iter()
        // Reserved to exercise the rule that unknown settings are ignored (RFC 9114 section 7.2.4.1).
        .filter(|(id, _)| *id < 0x21 || (id - 0x21) % 0x1f != 0)
        .map(|(id, value)| Setting {
            id: format!("{id:#x}"),
            name: settings::name(id),
            value,
            number: id,
        })
        .collect();
    let offers = [
        (settings::WEBTRANSPORT_DRAFT02, Dialect::Draft02),
        (settings::WEBTRANSPORT_MAX_SESSIONS_DRAFT07, Dialect::Draft07),
        (settings::WT_MAX_SESSIONS_DRAFT13, Dialect::Draft13),
        (settings::WT_ENABLED, Dialect::Draft15),
    ];
    let offered = offers
        .iter()
        .filter(|(id, _)| report.setting(*id).is_some_and(|value| value > 0));
    report.dialects.offered = offered.map(|(_, dialect)| dialect_name(*dialect)).collect();
    report.dialects.chosen = connection.dialect().map(dialect_name);
    let status = match &session {
        Ok(session) => session.response().map(|response| response.status().as_u16()),
        Err(ConnectError::Rejected(response)) => Some(response.status().as_u16()),
        Err(_) => None,
    };
    report.session = Some(Session {
        open: session.is_ok(),
        status,
        error: session.as_ref().err().map(|e| explain::connect_error(url, e).message),
        open_ms: milliseconds(opened_in),
    });
    report.http3 = Some(http3);
    match (session, distrust) {
        (Err(error), _) => Err(explain::connect_error(url, &error)),
        (Ok(_), Some(failure)) => Err(failure),
        (Ok(session), None) => {
            session.close(0, "");
            Ok(())
        }
    }
}
