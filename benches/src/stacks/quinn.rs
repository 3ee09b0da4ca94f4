//! Plain QUIC on the quinn crate: the yardstick for what a WebTransport layer costs.

use std::net::SocketAddr;

use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};

use crate::certificate::Certificate;
use crate::stack::{Client, RecvHalf, SendHalf, Server, Session};
use crate::{Result, quic};

const ALPN: &[u8] = b"wireloom-bench";

/// The serving side.
pub struct Listener(Endpoint);

impl Server for Listener {
    type Incoming = Incoming;
    type Session = Connection;

    fn bind(address: SocketAddr, certificate: &Certificate, max_streams: u32) -> Result<Self> {
        let config = quic::server_config(certificate, ALPN, max_streams)?;
        Ok(Self(quic::server(address, config)?))
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    async fn accept(&mut self) -> Option<Incoming> {
        self.0.accept().await
    }

    async fn establish(incoming: Incoming) -> Result<Connection> {
        Ok(incoming.await?)
    }
}

/// The dialling side.
#[derive(Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    server: SocketAddr,
}

impl Client for Dialer {
    type Session = Connection;

    fn new(server: SocketAddr, certificate_sha256: &str, max_streams: u32) -> Result<Self> {
        let config = quic::client_config(certificate_sha256, ALPN, max_streams)?;
        let endpoint = quic::client(config)?;
        Ok(Self { endpoint, server })
    }

    async fn connect(&self) -> Result<Connection> {
        Ok(self.endpoint.connect(self.server, "localhost")?.await?)
    }

    async fn close(&self) {
        self.endpoint.close(0_u32.into(), b"");
        self.endpoint.wait_idle().await;
    }
}

impl Session for Connection {
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
        Self::close(self, 0_u32.into(), b"");
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
