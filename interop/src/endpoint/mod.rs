//! An endpoint of the QUIC Interop Runner's WebTransport cases: Wireloom, or one of the crates beside it.
//!
//! The environment says what to do (`ROLE`, `TESTCASE`, `REQUESTS`, `PROTOCOLS`, `QLOGDIR`, and where the peer's crate obeys
//! it `SSLKEYLOGFILE`). `WWW`, `DOWNLOADS`, `CERTS` and `PORT` move the folders and the server's port for runs without containers. A server prints
//! `listening PORT` when it does, and runs until it is ended; a client exits when it is done.

pub mod pair;
pub mod peers;
pub mod reasons;
pub mod settings;
pub mod transfer;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use settings::{Role, Settings, UNSUPPORTED};
use tokio::task::JoinSet;

use crate::Result;
use crate::peers::Target;
use crate::peers::session::Client;

/// How long a session's end is waited for that this endpoint, or its peer, has to bring about.
const PATIENCE: Duration = Duration::from_secs(90);

/// Which implementation plays the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// Ours.
    Wireloom,
    /// The crate wtransport.
    Wtransport,
    /// The crate web-transport-quinn.
    WebTransportQuinn,
}

impl Implementation {
    /// By its crate's name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "wireloom" => Some(Self::Wireloom),
            "wtransport" => Some(Self::Wtransport),
            "web-transport-quinn" => Some(Self::WebTransportQuinn),
            _ => None,
        }
    }
}

/// Plays the role.
///
/// # Errors
/// What kept it from doing what it was told.
pub async fn run(implementation: Implementation, settings: Settings) -> Result {
    let target = || -> Result<Target> {
        let hash = wireloom::CertificateHash::of_pem(std::fs::read(settings.certs.join("cert.pem"))?)?;
        Ok(Target {
            url: String::new(),
            hash: hash.to_string(),
        })
    };
    match (settings.role, implementation) {
        (Role::Server, Implementation::Wireloom) => peers::serve_wireloom(settings).await,
        (Role::Server, Implementation::Wtransport) => peers::serve_wtransport(settings).await,
        (Role::Server, Implementation::WebTransportQuinn) => peers::serve_web_transport_quinn(settings).await,
        (Role::Client, Implementation::Wireloom) => dial(peers::OneConnection::new(&settings)?, settings).await,
        (Role::Client, Implementation::Wtransport) => {
            dial(crate::peers::wtransport::Dialer::new(&target()?)?, settings).await
        }
        (Role::Client, Implementation::WebTransportQuinn) => {
            dial(crate::peers::web_transport_quinn::Dialer::new(&target()?)?, settings).await
        }
    }
}

/// What the program of an endpoint does: `play`, as the environment says.
pub fn main<F: Future<Output = Result>>(play: impl FnOnce(Settings) -> F) -> ExitCode {
    let settings = match Settings::read(|name| std::env::var(name).ok()) {
        Ok(Some(settings)) => settings,
        Ok(None) => return ExitCode::from(UNSUPPORTED),
        Err(error) => {
            eprintln!("endpoint: {error}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    match runtime.block_on(play(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("endpoint: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever waits that a server can be dialled.
pub fn listening(address: SocketAddr) {
    println!("listening {}", address.port());
}

/// Opens every session in parallel, and does what is to be done on it.
///
/// # Errors
/// A session failed, or did not end.
pub async fn dial<C: Client + Send + Sync + 'static>(client: C, settings: Settings) -> Result {
    let client = std::sync::Arc::new(client);
    let mut sessions = JoinSet::new();
    for requests in settings.requests.clone() {
        let (client, settings) = (client.clone(), settings.clone());
        sessions.spawn(async move {
            let protocols: Vec<&str> = settings.protocols.iter().map(String::as_str).collect();
            let url = format!("{}/{}", requests.origin, requests.endpoint);
            let session = client.connect(&url, &protocols).await?;
            transfer::run(session, &requests.endpoint, &settings).await
        });
    }
    let all = async {
        while let Some(done) = sessions.join_next().await {
            done??;
        }
        Ok::<_, crate::Error>(())
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .unwrap_or_else(|_| Err("a session did not end".into()))
}
