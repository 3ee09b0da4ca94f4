//! The crate web-transport-quinn (drafts 02 and 07).

use std::sync::Arc;

use bytes::Bytes;
use web_transport_quinn::proto::{ConnectRequest, ConnectResponse};
use web_transport_quinn::{
    ClientBuilder, ReadError, RecvStream, Request, SendStream, ServerBuilder, SessionError, WebTransportError,
};

use super::behaviour::behave;
use super::session::{Client, ReadEnd, RecvHalf, SendHalf, Session};
use super::{Route, Target, choose_protocol};
use crate::Result;
use crate::certificate::Certificate;
use crate::journal::{Event, Journal};

/// Serves the laboratory's paths on a free port until the runtime ends.
pub async fn serve(journal: Arc<Journal>) -> Result<Target> {
    let certificate = Certificate::generate()?;
    let hash = certificate.sha256_hex();
    let mut server = ServerBuilder::new()
        .with_addr(([127, 0, 0, 1], 0).into())
        .with_certificate(vec![certificate.certificate.clone()], certificate.private_key())?;
    let url = format!("https://{}", server.local_addr()?);
    tokio::spawn(async move {
        while let Some(request) = server.accept().await {
            tokio::spawn(answer(request, journal.clone()));
        }
    });
    Ok(Target { url, hash })
}

async fn answer(request: Request, journal: Arc<Journal>) -> Result {
    let path = &request.url[url::Position::BeforePath..url::Position::AfterQuery];
    let Some(route) = Route::parse(path) else {
        return Ok(request.reject(http::StatusCode::NOT_FOUND).await?);
    };
    let mut response = ConnectResponse::OK;
    if let Some(protocol) = choose_protocol(request.protocols.iter().map(String::as_str)) {
        response = response.with_protocol(protocol);
    }
    let session = request.respond(response).await?;
    behave(session, route, journal).await;
    Ok(())
}

/// Dials with a certificate hash.
pub struct Dialer(web_transport_quinn::Client);

impl Dialer {
    /// Trusts the target's certificate.
    pub fn new(target: &Target) -> Result<Self> {
        Ok(Self(
            ClientBuilder::new().with_server_certificate_hashes(vec![target.hash_bytes()?])?,
        ))
    }
}

impl Client for Dialer {
    type Session = web_transport_quinn::Session;

    async fn connect(&self, url: &str, protocols: &[&str]) -> Result<Self::Session> {
        let request = ConnectRequest::new(url::Url::parse(url)?);
        let request = protocols
            .iter()
            .fold(request, |request, protocol| request.with_protocol(*protocol));
        Ok(self.0.connect(request).await?)
    }
}

impl Session for web_transport_quinn::Session {
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
        Ok(Self::send_datagram(self, payload)?)
    }

    async fn recv_datagram(&self) -> Result<Bytes> {
        Ok(self.read_datagram().await?)
    }

    fn close(&self, code: u32, reason: &str) {
        Self::close(self, code, reason.as_bytes());
    }

    async fn closed(&self) -> Event {
        match Self::closed(self).await {
            SessionError::WebTransportError(WebTransportError::Closed(code, reason)) => Event::Closed(code, reason),
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
        Ok(Self::reset(self, code)?)
    }

    async fn stopped(&mut self) -> Result<Option<u32>> {
        Ok(Self::stopped(self).await?)
    }
}

impl RecvHalf for RecvStream {
    async fn read(&mut self) -> Result<Option<Bytes>, ReadEnd> {
        match self.read_chunk(1 << 16, true).await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(ReadError::Reset(code)) => Err(ReadEnd::Reset(Some(code))),
            Err(ReadError::InvalidReset(_)) => Err(ReadEnd::Reset(None)),
            Err(error) => Err(ReadEnd::Lost(error.into())),
        }
    }

    fn stop(mut self, code: u32) -> Result {
        Ok(Self::stop(&mut self, code)?)
    }
}
