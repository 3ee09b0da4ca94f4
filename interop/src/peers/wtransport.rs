//! The crate wtransport (drafts 02 and 07). It closes connections, never sessions, and leaves error codes unmapped.

use std::sync::Arc;

use bytes::Bytes;
use web_transport_proto::{error_from_http3, error_to_http3};
use wtransport::endpoint::IncomingSession;
use wtransport::error::{ConnectionError, StreamReadError, StreamWriteError};
use wtransport::tls::{Certificate as WtCertificate, CertificateChain, PrivateKey, Sha256Digest};
use wtransport::{ClientConfig, Connection, Endpoint, Identity, RecvStream, SendStream, ServerConfig, VarInt};

use super::behaviour::behave;
use super::session::{Client, ReadEnd, RecvHalf, SendHalf, Session};
use super::{Route, Target};
use crate::Result;
use crate::certificate::Certificate;
use crate::journal::{Event, Journal};

/// Serves the laboratory's paths on a free port until the runtime ends.
pub async fn serve(journal: Arc<Journal>) -> Result<Target> {
    let certificate = Certificate::generate()?;
    let chain = CertificateChain::single(WtCertificate::from_der(certificate.certificate.to_vec())?);
    let key = PrivateKey::from_der_pkcs8(certificate.key.secret_pkcs8_der().to_vec());
    let config = ServerConfig::builder()
        .with_bind_address(([127, 0, 0, 1], 0).into())
        .with_identity(Identity::new(chain, key))
        .build();
    let endpoint = Endpoint::server(config)?;
    let url = format!("https://{}", endpoint.local_addr()?);
    tokio::spawn(async move {
        loop {
            let incoming = endpoint.accept().await;
            tokio::spawn(answer(incoming, journal.clone()));
        }
    });
    Ok(Target {
        url,
        hash: certificate.sha256_hex(),
    })
}

async fn answer(incoming: IncomingSession, journal: Arc<Journal>) -> Result {
    let request = incoming.await?;
    let Some(route) = Route::parse(request.path()) else {
        request.not_found().await;
        return Ok(());
    };
    let session = Arc::new(request.accept().await?);
    behave(session, route, journal).await;
    Ok(())
}

/// Dials with a certificate hash.
pub struct Dialer(Endpoint<wtransport::endpoint::endpoint_side::Client>);

impl Dialer {
    /// Trusts the target's certificate.
    pub fn new(target: &Target) -> Result<Self> {
        let hash: [u8; 32] = target.hash_bytes()?.try_into().map_err(|_| "not a SHA-256")?;
        let config = ClientConfig::builder()
            .with_bind_address(([127, 0, 0, 1], 0).into())
            .with_server_certificate_hashes([Sha256Digest::new(hash)])
            .build();
        Ok(Self(Endpoint::client(config)?))
    }
}

impl Client for Dialer {
    type Session = Arc<Connection>;

    async fn connect(&self, url: &str, _: &[&str]) -> Result<Self::Session> {
        Ok(Arc::new(self.0.connect(url).await?))
    }
}

impl Session for Arc<Connection> {
    type Send = SendStream;
    type Recv = RecvStream;

    async fn open_bi(&self) -> Result<(SendStream, RecvStream)> {
        Ok(Connection::open_bi(self).await?.await?)
    }

    async fn open_uni(&self) -> Result<SendStream> {
        Ok(Connection::open_uni(self).await?.await?)
    }

    async fn accept_bi(&self) -> Result<(SendStream, RecvStream)> {
        Ok(Connection::accept_bi(self).await?)
    }

    async fn accept_uni(&self) -> Result<RecvStream> {
        Ok(Connection::accept_uni(self).await?)
    }

    async fn send_datagram(&self, payload: Bytes) -> Result {
        Ok(Connection::send_datagram(self, payload)?)
    }

    async fn recv_datagram(&self) -> Result<Bytes> {
        Ok(self.receive_datagram().await?.payload())
    }

    fn close(&self, code: u32, reason: &str) {
        Connection::close(self, VarInt::from_u32(code), reason.as_bytes());
    }

    async fn closed(&self) -> Event {
        Connection::closed(self).await;
        // The connection's error hides the session's close, which only the operations tell.
        let error = loop {
            if let Err(error) = self.receive_datagram().await {
                break error;
            }
        };
        match error {
            ConnectionError::ApplicationClosed(close) => match u32::try_from(close.code().into_inner()) {
                Ok(code) => Event::Closed(code, String::from_utf8_lossy(close.reason()).into_owned()),
                Err(_) => Event::Lost(close.to_string()),
            },
            error => Event::Lost(error.to_string()),
        }
    }

    fn protocol(&self) -> Option<String> {
        None
    }
}

fn wire(code: u32) -> Result<VarInt> {
    Ok(VarInt::try_from_u64(error_to_http3(code))?)
}

impl SendHalf for SendStream {
    async fn write(&mut self, data: Bytes) -> Result {
        Ok(self.write_all(&data).await?)
    }

    async fn finish(&mut self) -> Result {
        Ok(Self::finish(self).await?)
    }

    fn reset(&mut self, code: u32) -> Result {
        Ok(Self::reset(self, wire(code)?)?)
    }

    async fn stopped(&mut self) -> Result<Option<u32>> {
        match Self::stopped(self).await {
            StreamWriteError::Stopped(code) => Ok(error_from_http3(code.into_inner())),
            StreamWriteError::Closed => Ok(None),
            error => Err(error.into()),
        }
    }
}

impl RecvHalf for RecvStream {
    async fn read(&mut self) -> Result<Option<Bytes>, ReadEnd> {
        let mut buffer = vec![0; 1 << 16];
        match Self::read(self, &mut buffer).await {
            Ok(Some(length)) => {
                buffer.truncate(length);
                Ok(Some(buffer.into()))
            }
            Ok(None) => Ok(None),
            Err(StreamReadError::Reset(code)) => Err(ReadEnd::Reset(error_from_http3(code.into_inner()))),
            Err(error) => Err(ReadEnd::Lost(error.into())),
        }
    }

    fn stop(self, code: u32) -> Result {
        Self::stop(self, wire(code)?);
        Ok(())
    }
}
