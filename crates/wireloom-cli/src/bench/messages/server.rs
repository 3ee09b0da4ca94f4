//! What is measured: a server that somebody names, or one of our own.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::Profile;
use super::dial::Target;
use crate::bench::{failed, spawn};
use crate::explain;
use crate::failure::Failure;
use crate::trust::TrustArgs;

pub(super) use crate::messages::parse_url;

/// What messages go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Ws,
    Wss,
    /// WebTransport.
    Session(Profile),
}

impl Transport {
    pub(super) const ALL: [Self; 4] = [
        Self::Ws,
        Self::Wss,
        Self::Session(Profile::S),
        Self::Session(Profile::M),
    ];

    pub(super) fn of(url: &str, profile: Profile) -> Self {
        match url.split_once(':') {
            Some(("ws", _)) => Self::Ws,
            Some(("wss", _)) => Self::Wss,
            _ => Self::Session(profile),
        }
    }

    /// How it is called in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ws => "websocket",
            Self::Wss => "websocket-tls",
            Self::Session(Profile::S) => "webtransport-s",
            Self::Session(Profile::M) => "webtransport-m",
        }
    }
}

pub(super) fn target(url: &str, profile: Profile, trust: &TrustArgs) -> Result<Target, Failure> {
    let uri: http::Uri = url.parse().map_err(failed)?;
    let tls = uri.scheme_str() == Some("wss");
    if tls || uri.scheme_str() == Some("ws") {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        return Ok(Target::WebSocket {
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            host,
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            tls: tls.then(|| trust.tls()).transpose()?.map(Arc::new),
        });
    }
    let client = trust
        .client()?
        .idle_timeout(Duration::from_secs(120))
        .build()
        .map_err(|error| explain::connect_error(url, &error))?;
    Ok(Target::WebTransport {
        client,
        url: url.to_owned(),
        streams: profile == Profile::M,
    })
}

/// A `wireloom serve` of our own, ended when this is dropped.
pub(in crate::bench) struct Server {
    process: spawn::Server,
    listening: Listening,
}

#[derive(Deserialize)]
struct Listening {
    webtransport: String,
    page: String,
    certificate_sha256: String,
}

impl Server {
    pub(in crate::bench) fn start() -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(failed)?;
        let (process, listening) = spawn::Server::start(
            Command::new(program)
                .args(["serve", "--json", "--bind", "127.0.0.1:0", "--page-bind", "127.0.0.1:0"])
                // Everybody comes from here.
                .args(["--max-per-address", "1000000"])
                .arg("--until-input-ends"),
        )?;
        Ok(Self { process, listening })
    }

    pub(in crate::bench) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Over WebSocket without TLS.
    pub(in crate::bench) fn websocket_url(&self) -> String {
        let page = self.listening.page.replace("http://localhost:", "ws://127.0.0.1:");
        format!("{page}messages")
    }

    pub(super) fn target(&self, transport: Transport) -> Result<Target, Failure> {
        let hash = self.listening.certificate_sha256.parse().map_err(failed)?;
        let trust = TrustArgs {
            cert_hash: vec![hash],
            ca: None,
            insecure: false,
            timeout: Duration::from_secs(10),
        };
        let https = format!("{}/messages", self.listening.webtransport);
        let (url, profile) = match transport {
            Transport::Ws => (self.websocket_url(), Profile::S),
            Transport::Wss => (https.replace("https:", "wss:"), Profile::S),
            Transport::Session(profile) => (https, profile),
        };
        target(&url, profile, &trust)
    }
}
