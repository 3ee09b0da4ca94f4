//! Whom to trust: the options that `connect` and `probe` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use wireloom::proto::webtransport::negotiate::Dialect;
use wireloom::{CertificateHash, Client, ClientBuilder, RootCertificates, ServerTrust};

use crate::failure::{Failure, chain};

/// Without any of these, those whom the operating system trusts.
#[derive(Args, Clone)]
pub(crate) struct TrustArgs {
    /// Trust the certificate with this SHA-256, as browsers do with serverCertificateHashes; may be repeated
    #[arg(long, help_heading = "Trust", value_name = "HEX", value_parser = parse_hash, conflicts_with_all = ["ca", "insecure"])]
    pub(crate) cert_hash: Vec<CertificateHash>,
    /// Trust the root certificates of this PEM file only
    #[arg(long, help_heading = "Trust", value_name = "PEM", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust any certificate: whoever is on the way can read and change everything
    #[arg(long, help_heading = "Trust")]
    pub(crate) insecure: bool,
    /// Give up connecting after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub(crate) timeout: Duration,
}

pub(crate) fn parse_hash(text: &str) -> Result<CertificateHash, String> {
    text.parse().map_err(|e: wireloom::ParseHashError| e.to_string())
}

pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    seconds(text).ok_or_else(|| "a number of seconds above 0 is needed, such as 2.5".to_owned())
}

/// Above 0, and not so many that no clock can say when they are over.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    const MOST: f64 = 1e9;
    let seconds = text.parse().ok().filter(|seconds| (0.0..=MOST).contains(seconds))?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
}

/// `https://host[:port]/path`, so that a mistake is told before anything is dialled.
pub(crate) fn parse_url(text: &str) -> Result<String, String> {
    let wrong = "WebTransport URLs begin with https://, as in https://127.0.0.1:4433/echo";
    dialable(text, &["https"], wrong).map(|_| text.to_owned())
}

/// A URL of one of these schemes, with a host and nothing before it, and with a port that is one, if any; `wrong` is what to write.
pub(crate) fn dialable(text: &str, schemes: &[&str], wrong: &str) -> Result<http::Uri, String> {
    let uri: http::Uri = text.parse().map_err(|_| format!("it is no URL; {wrong}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong.to_owned());
    };
    if !schemes.contains(&scheme) || authority.host().is_empty() {
        return Err(wrong.to_owned());
    }
    if authority.as_str().contains('@') {
        return Err("there is no logging in by URL: nothing may stand before the host".to_owned());
    }
    // What is behind the colon is kept as it is, and is no port where it is no number of one.
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if uri.port_u16().is_none() && !matches!(port, "" | ":") {
        return Err("its port is no number up to 65535".to_owned());
    }
    Ok(uri)
}

impl TrustArgs {
    /// A client's settings with this trust.
    pub(crate) fn client(&self) -> Result<ClientBuilder, Failure> {
        let mut builder = Client::builder().connect_timeout(self.timeout);
        for hash in &self.cert_hash {
            builder = builder.server_certificate_hash(*hash);
        }
        if let Some(roots) = self.roots()? {
            builder = builder.root_certificates(roots);
        }
        Ok(if self.insecure {
            builder.dangerous().accept_any_certificate()
        } else {
            builder
        })
    }

    fn roots(&self) -> Result<Option<RootCertificates>, Failure> {
        let Some(path) = &self.ca else {
            return Ok(None);
        };
        let pem =
            std::fs::read(path).map_err(|e| Failure::new("file", format!("cannot read {}: {e}", path.display())))?;
        let roots = RootCertificates::from_pem(&pem).map_err(|e| {
            Failure::new("tls", format!("{}: {}", path.display(), chain(&e)))
                .hint("a PEM file with -----BEGIN CERTIFICATE----- is needed")
        })?;
        Ok(Some(roots))
    }

    /// The same trust by name.
    pub(crate) fn server_trust(&self) -> Result<ServerTrust, Failure> {
        Ok(match self.roots()? {
            _ if self.insecure => ServerTrust::Insecure,
            _ if !self.cert_hash.is_empty() => ServerTrust::Hashes(self.cert_hash.clone()),
            Some(roots) => ServerTrust::Roots(roots),
            None => ServerTrust::Platform,
        })
    }

    /// The same trust for TLS over TCP.
    pub(crate) fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        let config = self.server_trust()?.tcp_client_config(None);
        config.map_err(|e| Failure::new("tls", chain(&e)))
    }

    /// Who vouches for the server.
    pub(crate) fn name(&self) -> &'static str {
        if self.insecure {
            "anything"
        } else if !self.cert_hash.is_empty() {
            "hash"
        } else if self.ca.is_some() {
            "ca"
        } else {
            "platform"
        }
    }
}

/// The drafts as people name them.
pub(crate) fn dialect_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Draft02 => "draft-02",
        Dialect::Draft07 => "draft-07",
        Dialect::Draft13 => "draft-13",
        Dialect::Draft15 => "draft-15",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_nobody_can_dial_are_told() {
        for text in [
            "https://x",
            "https://x/",
            "https://x:/",
            "https://[::1]:4433/echo?a=b",
            "https://x:65535",
        ] {
            assert_eq!(parse_url(text).as_deref(), Ok(text));
        }
        for (text, part) in [
            ("", "no URL"),
            ("x", "https://"),
            ("http://x/", "https://"),
            ("https://:1/", "https://"),
            ("https://a@x/", "before the host"),
            ("https://x:99999/", "65535"),
            ("https://x:abc/", "65535"),
            ("https://[::1]:abc/", "65535"),
        ] {
            let message = parse_url(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
