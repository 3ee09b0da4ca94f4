//! The crate web-transport-quinn, on the same quinn with the same settings.

use std::net::SocketAddr;

use bytes::Bytes;
use web_transport_quinn::{RecvStream, Request, SendStream};

use crate::certificate::Certificate;
use crate::stack::{Client, RecvHalf, SendHalf, Server, Session};
use crate::{Result, quic};

const ALPN: &[u8] = web_transport_quinn::ALPN.as_bytes();

/// The serving side.
pub struct Listener {
    server: web_transport_quinn::Server,
    address: SocketAddr,
}

impl Server for Listener {
    type Incoming = Request;
    type Session = web_transport_quinn::Session;

    fn bind(address: SocketAddr, certificate: &Certificate, max_streams: u32) -> Result<Self> {
        let endpoint = quic::server(address, quic::server_config(certificate, ALPN, max_streams)?)?;
        Ok(Self {
            address: endpoint.local_addr()?,
            server: web_transport_quinn::Server::new(endpoint),
        })
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.address)
    }

    async fn accept(&mut self) -> Option<Request> {
        self.server.accept().await
    }

    async fn establish(request: Request) -> Result<Self::Session> {
        Ok(request.ok().await?)
    }
}

/// The dialling side.
#[derive(Clone)]
pub struct Dialer {
    client: web_transport_quinn::Client,
    endpoint: quinn::Endpoint,
    url: url::Url,
}

impl Client for Dialer {
    type Session = web_transport_quinn::Session;

    fn new(server: SocketAddr, certificate_sha256: &str, max_streams: u32) -> Result<Self> {
        let config = quic::client_config(certificate_sha256, ALPN, max_streams)?;
        let endpoint = quic::client(config.clone())?;
        Ok(Self {
            client: web_transport_quinn::Client::new(endpoint.clone(), config),
            endpoint,
            url: format!("https://{server}/bench").parse()?,
        })
    }

    async fn connect(&self) -> Result<Self::Session> {
        Ok(self.client.connect(self.url.clone()).await?)
    }

    async fn close(&self) {
        self.endpoint.close(0_u32.into(), b"");
        self.endpoint.wait_idle().await;
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
        Ok(self.send_datagram_wait(payload).await?)
    }

    async fn recv_datagram(&self) -> Result<Bytes> {
        Ok(self.read_datagram().await?)
    }

    fn close(&self) {
        Self::close(self, 0, b"");
    }

    async fn closed(&self) {
        Self::closed(self).await;
    }
}

impl SendHalf for SendStream {
    async fn write_chunk(&mut self, chunk: Bytes) -> Result {
        Ok(Self::write_chunk(self, chunk).await?)
    }

    async fn finish(&mut self) -> Result {
        Ok(Self::finish(self)?)
    }
}

impl RecvHalf for RecvStream {
    async fn read_chunk(&mut self) -> Result<Option<Bytes>> {
        Ok(Self::read_chunk(self, usize::MAX, true).await?.map(|chunk| chunk.bytes))
    }
}
