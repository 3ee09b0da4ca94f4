//! Wireloom itself.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use wireloom::{Identity, ReadError, RecvStream, SendStream, Server, ServerMonitor, SessionError, WebTransportUpgrade};

use super::behaviour::behave;
use super::session::{Client, ReadEnd, RecvHalf, SendHalf, Session};
use super::{Route, Target};
use crate::Result;
use crate::journal::{Event, Journal};

/// What `GET /` answers over every version of HTTP.
pub const HELLO: &str = "hello from the laboratory\n";

/// Serves the laboratory's paths, and [`HELLO`] at `/`, on a free port until the runtime ends. Pages of `origins` may open
/// sessions; `*` lets all.
pub async fn serve(journal: Arc<Journal>, origins: &[String]) -> Result<(Target, ServerMonitor)> {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"])?;
    let hash = identity.certificate_sha256().to_string();
    let builder = Server::builder().bind("127.0.0.1:0").identity(identity);
    let server = origins
        .iter()
        .fold(builder, |builder, origin| builder.allow_origin(origin))
        .listen()
        .await?;
    let address = server
        .local_addrs()
        .first()
        .copied()
        .ok_or("the server has no address")?;
    let monitor = server.monitor();
    let app = Router::new()
        .route("/", get(|| async { HELLO }))
        .route("/{behaviour}", any(answer))
        .merge(super::web_api::router())
        .with_state(journal);
    tokio::spawn(async move { server.serve(app).await });
    Ok((
        Target {
            url: format!("https://{address}"),
            hash,
        },
        monitor,
    ))
}

async fn answer(State(journal): State<Arc<Journal>>, uri: Uri, upgrade: WebTransportUpgrade) -> Response {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let Some(route) = Route::parse(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let upgrade = upgrade.protocols(["echo.v1", "echo.v2"]);
    upgrade
        .on_upgrade(move |session| behave(session, route, journal))
        .into_response()
}

/// Dials with a certificate hash.
pub struct Dialer(wireloom::Client);

impl Dialer {
    /// Trusts the target's certificate.
    pub fn new(target: &Target) -> Result<Self> {
        Ok(Self(
            wireloom::Client::builder()
                .server_certificate_hash(target.hash.parse()?)
                .build()?,
        ))
    }
}

impl Client for Dialer {
    type Session = wireloom::Session;

    async fn connect(&self, url: &str, protocols: &[&str]) -> Result<Self::Session> {
        Ok(self
            .0
            .session(url)
            .protocols(protocols.iter().copied())
            .connect()
            .await?)
    }
}

impl Session for wireloom::Session {
    type Send = SendStream;
    type Recv = RecvStream;

    async fn open_bi(&self) -> Result<(SendStream, RecvStream)> {
        Ok(Self::open_bi(self).await?)
    }

    async fn open_uni(&self) -> Result<SendStream> {
        Ok(Self::open_uni(self).await?)
    }

    async fn accept_bi(&self) -> Result<(SendStream, RecvStream)> {
        Ok(Self::accept_bi(self).await?)
    }

    async fn accept_uni(&self) -> Result<RecvStream> {
        Ok(Self::accept_uni(self).await?)
    }

    async fn send_datagram(&self, payload: Bytes) -> Result {
        Ok(Self::send_datagram(self, &payload)?)
    }

    async fn recv_datagram(&self) -> Result<Bytes> {
        Ok(Self::recv_datagram(self).await?)
    }

    fn close(&self, code: u32, reason: &str) {
        Self::close(self, code, reason);
    }

    async fn closed(&self) -> Event {
        match Self::closed(self).await {
            SessionError::Closed { code, reason } => Event::Closed(code, reason),
            error => Event::Lost(error.to_string()),
        }
    }

    fn protocol(&self) -> Option<String> {
        Self::protocol(self).map(str::to_owned)
    }
}

impl SendHalf for SendStream {
    async fn write(&mut self, data: Bytes) -> Result {
        Ok(self.write_chunk(data).await?)
    }

    async fn finish(&mut self) -> Result {
        Ok(Self::finish(self)?)
    }

    fn reset(&mut self, code: u32) -> Result {
        Self::reset(self, code);
        Ok(())
    }

    async fn stopped(&mut self) -> Result<Option<u32>> {
        Ok(Self::stopped(self).await?)
    }
}

impl RecvHalf for RecvStream {
    async fn read(&mut self) -> Result<Option<Bytes>, ReadEnd> {
        match self.read_chunk(1 << 16).await {
            Ok(chunk) => Ok(chunk),
            Err(ReadError::Reset(code)) => Err(ReadEnd::Reset(code)),
            Err(error) => Err(ReadEnd::Lost(error.into())),
        }
    }

    fn stop(mut self, code: u32) -> Result {
        Self::stop(&mut self, code);
        Ok(())
    }
}
