//! The crate wtransport, on the same quinn with the same settings.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use wtransport::endpoint::{IncomingSession, endpoint_side};
use wtransport::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, VarInt};

use crate::certificate::Certificate;
use crate::stack::{Client, RecvHalf, SendHalf, Server, Session};
use crate::{Result, quic};

const ALPN: &[u8] = b"h3";

/// The serving side.
pub struct Listener(Endpoint<endpoint_side::Server>);

impl Server for Listener {
    type Incoming = IncomingSession;
    type Session = Arc<Connection>;

    fn bind(address: SocketAddr, certificate: &Certificate, max_streams: u32) -> Result<Self> {
        let config = ServerConfig::builder()
            .with_bind_socket(quic::socket(address)?)
            .build_with_quic_config(quic::server_config(certificate, ALPN, max_streams)?);
        Ok(Self(Endpoint::server(config)?))
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    async fn accept(&mut self) -> Option<IncomingSession> {
        Some(self.0.accept().await)
    }

    async fn establish(incoming: IncomingSession) -> Result<Arc<Connection>> {
        Ok(Arc::new(incoming.await?.accept().await?))
    }
}

/// The dialling side.
#[derive(Clone)]
pub struct Dialer {
    endpoint: Arc<Endpoint<endpoint_side::Client>>,
    url: String,
}

impl Client for Dialer {
    type Session = Arc<Connection>;

    fn new(server: SocketAddr, certificate_sha256: &str, max_streams: u32) -> Result<Self> {
        let config = ClientConfig::builder()
            .with_bind_socket(quic::client_socket()?)
            .build_with_quic_config(quic::client_config(certificate_sha256, ALPN, max_streams)?);
        Ok(Self {
            endpoint: Arc::new(Endpoint::client(config)?),
            url: format!("https://{server}/bench"),
        })
    }

    async fn connect(&self) -> Result<Arc<Connection>> {
        Ok(Arc::new(self.endpoint.connect(&self.url).await?))
    }

    async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"");
        self.endpoint.wait_idle().await;
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
        // It has nothing that waits: at a full buffer it drops the oldest.
        while self.quic_connection().datagram_send_buffer_space() <= payload.len() {
            tokio::task::yield_now().await;
        }
        Ok(Connection::send_datagram(self, payload)?)
    }

    async fn recv_datagram(&self) -> Result<Bytes> {
        Ok(self.receive_datagram().await?.payload())
    }

    fn close(&self) {
        Connection::close(self, VarInt::from_u32(0), b"");
    }

    async fn closed(&self) {
        Connection::closed(self).await;
    }
}

impl SendHalf for SendStream {
    async fn write_chunk(&mut self, chunk: Bytes) -> Result {
        Ok(self.write_all(&chunk).await?)
    }

    async fn finish(&mut self) -> Result {
        // Its own waits until the peer has acknowledged all of it, which is not what the others do.
        Ok(self.quic_stream_mut().finish()?)
    }
}

impl RecvHalf for RecvStream {}
