//! Why there is no session, in words that say what to try.

use http::StatusCode;
use wireloom::proto::Code;
use wireloom::{CertificateRejection, ConnectError, ConnectionError, SessionError};

use crate::failure::{Failure, chain};

/// What went wrong at `url`.
pub(crate) fn connect_error(url: &str, error: &ConnectError) -> Failure {
    let authority = url
        .parse::<http::Uri>()
        .ok()
        .and_then(|uri| uri.authority().map(ToString::to_string));
    let server = authority.as_deref().unwrap_or(url);
    match error {
        ConnectError::InvalidUrl(_) => Failure::usage(format!("{url}: {error}")),
        ConnectError::InvalidRequest(_) => Failure::usage(error.to_string()),
        ConnectError::Resolve { .. } => Failure::new("name", error.to_string())
            .hint("another spelling of the name, or the server's address in its place"),
        ConnectError::Socket(_) => Failure::new("system", error.to_string()),
        ConnectError::Tls(_) => Failure::new("tls", chain(error))
            .hint("--ca with a PEM file of roots, --cert-hash with the certificate's SHA-256, or --insecure"),
        ConnectError::Unreachable => Failure::new("udp", format!("{server} does not answer over UDP"))
            .hint("is the server running, on that port, and does every firewall on the way let UDP through?"),
        ConnectError::Certificate(rejection) => certificate(rejection),
        ConnectError::Connection(error) => connection(server, error),
        ConnectError::NotWebTransport => Failure::new(
            "protocol",
            format!("{server} speaks HTTP/3, but no WebTransport that is spoken here"),
        )
        .hint(format!("`wireloom probe {url}`, which shows its SETTINGS")),
        ConnectError::Rejected(response) => status(url, response),
        ConnectError::Session(error) => Failure::new("protocol", format!("the session ended at once: {error}")),
        ConnectError::NoMoreSessions => Failure::new("protocol", format!("{server} allows no session: {error}"))
            .hint("again later: it may be shutting down"),
        _ => Failure::new("protocol", chain(error)),
    }
}

fn certificate(rejection: &CertificateRejection) -> Failure {
    let failure = |kind, hint: &str| {
        let message = rejection.to_string();
        Failure::new(kind, message).hint(hint)
    };
    match rejection {
        CertificateRejection::HashMismatch { presented } => failure(
            "hash",
            &format!(
                "--cert-hash {presented}, if you know that this is your server: its certificate may have been renewed \
                 (its /certificate-hashes lists the current ones)"
            ),
        ),
        CertificateRejection::ValidityTooLong { .. } | CertificateRejection::KeyAlgorithm => failure(
            "hash",
            "--ca with the certificate as PEM, or one of `wireloom cert generate` at the server",
        ),
        CertificateRejection::UnknownIssuer => failure(
            "tls",
            "--cert-hash with its SHA-256 (`wireloom probe` shows it), --ca with its issuer as PEM, or --insecure",
        ),
        CertificateRejection::WrongName => failure(
            "tls",
            "a name of the certificate in the URL (`wireloom probe` lists them), or --cert-hash",
        ),
        CertificateRejection::Expired | CertificateRejection::NotYetValid => failure(
            "tls",
            "a new certificate at the server; are the clocks of both machines right?",
        ),
        _ => failure("tls", "`wireloom probe`, which shows the certificate"),
    }
}

fn connection(server: &str, error: &ConnectionError) -> Failure {
    let message = format!("the connection to {server} failed: {error}");
    match error {
        ConnectionError::HandshakeTimedOut | ConnectionError::TimedOut => {
            Failure::new("udp", format!("{server} did not answer in time"))
                .hint("--timeout with more seconds; does the path let UDP datagrams of 1200 bytes through?")
        }
        // RFC 9001 section 4.8: 0x100 + the TLS alert, which is no_application_protocol here.
        ConnectionError::AbortedByPeer { code: 0x178, .. } => Failure::new(
            "protocol",
            format!("{server} speaks QUIC, but not HTTP/3 (ALPN h3 was refused)"),
        )
        .hint("the port of the HTTP/3 server"),
        ConnectionError::AbortedByPeer { code, .. } if (0x100..0x200).contains(code) => Failure::new("tls", message)
            .hint("a name of the server in the URL: some servers refuse unknown names and bare addresses"),
        ConnectionError::AbortedByPeer { code: 0x2, .. } => Failure::new("refused", message)
            .hint("again later: the server refuses connections now, for it has too many or is shutting down"),
        ConnectionError::VersionMismatch => {
            Failure::new("protocol", message).hint("a server that speaks QUIC version 1 (RFC 9000)")
        }
        _ => Failure::new("protocol", message),
    }
}

fn status(url: &str, response: &http::Response<()>) -> Failure {
    let status = response.status();
    let failure = Failure::new("status", format!("{url} answered {status}"));
    match status {
        StatusCode::NOT_FOUND => failure.hint("the path of a WebTransport endpoint, such as /echo"),
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => {
            failure.hint("another path: this one seems to be no WebTransport endpoint")
        }
        StatusCode::FORBIDDEN => {
            failure.hint("another origin, or none: the server checks where pages come from (`serve --allow-origin`)")
        }
        StatusCode::UNAUTHORIZED => failure.hint("--header 'Authorization: ...'"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => failure.hint("again later"),
        _ if status.is_redirection() => {
            let location = response
                .headers()
                .get(http::header::LOCATION)
                .and_then(|v| v.to_str().ok());
            failure.hint(location.map_or_else(
                || "another URL: WebTransport does not follow redirections".to_owned(),
                |to| format!("{to}, where it points: WebTransport does not follow redirections"),
            ))
        }
        _ => failure,
    }
}

/// How an established session ended: `None` for an ordinary end.
pub(crate) fn session_end(error: &SessionError) -> Option<Failure> {
    match error {
        SessionError::Closed { code: 0, .. } | SessionError::LocallyClosed { .. } => None,
        SessionError::Connection(ConnectionError::LocallyClosed) => None,
        SessionError::Connection(ConnectionError::ClosedByPeer { code, .. }) if *code == Code::H3_NO_ERROR => None,
        SessionError::Closed { .. } => Some(Failure::new("closed", error.to_string())),
        SessionError::Connection(ConnectionError::TimedOut) => Some(
            Failure::new("udp", "the server fell silent").hint("is it still running, and is the network still there?"),
        ),
        _ => Some(Failure::new("protocol", chain(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(status: u16, location: Option<&str>) -> Failure {
        let mut builder = http::Response::builder().status(status);
        if let Some(location) = location {
            builder = builder.header("location", location);
        }
        let response = builder.body(()).expect("a valid response");
        connect_error("https://x/y", &ConnectError::Rejected(Box::new(response)))
    }

    #[test]
    fn a_status_says_what_to_try() {
        assert!(rejected(404, None).message.contains("404"));
        assert!(rejected(404, None).hint.expect("a hint").contains("path"));
        assert!(rejected(403, None).hint.expect("a hint").contains("origin"));
        assert!(
            rejected(302, Some("https://z/"))
                .hint
                .expect("a hint")
                .contains("https://z/")
        );
    }

    #[test]
    fn kinds_tell_the_layers_apart() {
        let kind = |error| connect_error("https://x:1/", &error).kind;
        assert_eq!(kind(ConnectError::Unreachable), "udp");
        assert_eq!(kind(ConnectError::InvalidUrl("no")), "usage");
        assert_eq!(kind(ConnectError::NotWebTransport), "protocol");
        assert_eq!(kind(CertificateRejection::UnknownIssuer.into()), "tls");
        assert_eq!(
            kind(
                ConnectionError::AbortedByPeer {
                    code: 0x178,
                    reason: String::new()
                }
                .into()
            ),
            "protocol"
        );
        assert_eq!(
            kind(
                ConnectionError::AbortedByPeer {
                    code: 0x128,
                    reason: String::new()
                }
                .into()
            ),
            "tls"
        );
    }

    #[test]
    fn code_zero_is_an_ordinary_end() {
        let closed = |code| SessionError::Closed {
            code,
            reason: "why".to_owned(),
        };
        assert!(session_end(&closed(0)).is_none());
        assert!(session_end(&closed(7)).expect("a failure").message.contains("why"));
    }
}
