//! Dialling and listening with each implementation.

use std::net::SocketAddr;

use http::StatusCode;
use tokio::sync::OnceCell;
use wireloom::{Identity, Server};
use wireloom_proto::connection::SessionRequest;

use super::settings::Settings;
use super::{listening, transfer};
use crate::Result;
use crate::peers::session::Client;

/// The endpoint that a path names.
fn endpoint(path: &str) -> String {
    path.trim_matches('/').to_owned()
}

/// What went wrong on one session does not end the server.
fn tell(outcome: Result) {
    if let Err(error) = outcome {
        eprintln!("{error}");
    }
}

/// Wireloom's client, with all sessions on one connection.
pub struct OneConnection {
    client: wireloom::Client,
    connection: OnceCell<wireloom::Connection>,
}

impl OneConnection {
    /// Trusts any certificate: the runner makes a new authority for each run, and tests transport.
    pub fn new(settings: &Settings) -> Result<Self> {
        let mut builder = wireloom::Client::builder().key_log(true);
        if let Some(folder) = &settings.qlog {
            builder = builder.qlog_dir(folder);
        }
        Ok(Self {
            client: builder.dangerous().accept_any_certificate().build()?,
            connection: OnceCell::new(),
        })
    }
}

impl Client for OneConnection {
    type Session = wireloom::Session;

    async fn connect(&self, url: &str, protocols: &[&str]) -> Result<Self::Session> {
        let connection = self.connection.get_or_try_init(|| self.client.dial(url)).await?;
        let url = url::Url::parse(url)?;
        let mut request = SessionRequest::new(url.authority(), url.path());
        request.protocols = protocols.iter().map(|protocol| (*protocol).to_owned()).collect();
        Ok(connection.open(request).await?)
    }
}

/// Serves with Wireloom.
pub async fn serve_wireloom(settings: Settings) -> Result {
    let identity = Identity::pem_files(settings.certs.join("cert.pem"), settings.certs.join("priv.key"))?;
    let address = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, settings.port));
    // "A server therefore SHOULD only accept a single QUIC connection."
    let mut builder = Server::builder()
        .bind(address)
        .identity(identity)
        .max_connections(1, 1)
        .key_log(true);
    if let Some(folder) = &settings.qlog {
        builder = builder.qlog_dir(folder);
    }
    let server = builder.listen().await?;
    listening(
        server
            .local_addrs()
            .first()
            .copied()
            .ok_or("the server has no address")?,
    );
    while let Some(request) = server.accept().await {
        let endpoint = endpoint(request.path());
        if !settings.www.join(&endpoint).is_dir() {
            request.reject(StatusCode::NOT_FOUND);
            continue;
        }
        let settings = settings.clone();
        tokio::spawn(async move {
            tell(
                async {
                    let session = request.protocols(&settings.protocols).accept().await?;
                    transfer::run(session, &endpoint, &settings).await
                }
                .await,
            );
        });
    }
    Ok(())
}

/// Serves with wtransport, which has no subprotocols.
pub async fn serve_wtransport(settings: Settings) -> Result {
    let identity =
        wtransport::Identity::load_pemfiles(settings.certs.join("cert.pem"), settings.certs.join("priv.key")).await?;
    let config = wtransport::ServerConfig::builder()
        .with_bind_default(settings.port)
        .with_identity(identity)
        .build();
    let server = wtransport::Endpoint::server(config)?;
    listening(server.local_addr()?);
    loop {
        let incoming = server.accept().await;
        let settings = settings.clone();
        tokio::spawn(async move {
            tell(
                async {
                    let request = incoming.await?;
                    let endpoint = endpoint(request.path());
                    let session = std::sync::Arc::new(request.accept().await?);
                    transfer::run(session, &endpoint, &settings).await
                }
                .await,
            );
        });
    }
}

/// Serves with web-transport-quinn.
pub async fn serve_web_transport_quinn(settings: Settings) -> Result {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use web_transport_quinn::proto::ConnectResponse;

    let chain = CertificateDer::pem_file_iter(settings.certs.join("cert.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(settings.certs.join("priv.key"))?;
    let mut server = web_transport_quinn::ServerBuilder::new()
        .with_addr((std::net::Ipv6Addr::UNSPECIFIED, settings.port).into())
        .with_certificate(chain, key)?;
    listening(server.local_addr()?);
    while let Some(request) = server.accept().await {
        let settings = settings.clone();
        tokio::spawn(async move {
            tell(
                async {
                    let endpoint = endpoint(request.url.path());
                    let mut response = ConnectResponse::OK;
                    let chosen = request
                        .protocols
                        .iter()
                        .find(|offered| settings.protocols.contains(offered));
                    if let Some(protocol) = chosen {
                        response = response.with_protocol(protocol.as_str());
                    }
                    let session = request.respond(response).await?;
                    transfer::run(session, &endpoint, &settings).await
                }
                .await,
            );
        });
    }
    Ok(())
}
