//! What the workloads need of a QUIC or WebTransport implementation.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::certificate::Certificate;
use crate::{Error, Result};

/// Waits for connections, or for the sessions on them.
pub trait Server: Sized {
    /// What has come in and is not ready yet.
    type Incoming: Send + 'static;
    /// What it becomes.
    type Session: Session;

    /// Listens with the settings of WORKLOADS.md.
    fn bind(address: SocketAddr, certificate: &Certificate, max_streams: u32) -> Result<Self>;
    /// Where it listens.
    fn local_addr(&self) -> Result<SocketAddr>;
    /// The next one, whose handshake may be under way.
    fn accept(&mut self) -> impl Future<Output = Option<Self::Incoming>>;
    /// Waits until it is ready.
    fn establish(incoming: Self::Incoming) -> impl Future<Output = Result<Self::Session>> + Send;
}

/// Dials one server.
pub trait Client: Clone + Send + Sync + 'static {
    /// What is made ready.
    type Session: Session;

    /// Trusts the certificate with this SHA-256 and no other.
    fn new(server: SocketAddr, certificate_sha256: &str, max_streams: u32) -> Result<Self>;
    /// A session on a connection of its own.
    fn connect(&self) -> impl Future<Output = Result<Self::Session>> + Send;
    /// Ends every connection and refuses new ones.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A connection of plain QUIC, or a session of WebTransport.
pub trait Session: Clone + Send + Sync + 'static {
    /// The sending half of a stream.
    type Send: SendHalf;
    /// The receiving half of a stream.
    type Recv: RecvHalf;

    /// Opens a bidirectional stream, and waits for credit where the API does.
    fn open_bi(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv)>> + Send;
    /// Opens a unidirectional stream, and waits for credit where the API does.
    fn open_uni(&self) -> impl Future<Output = Result<Self::Send>> + Send;
    /// The peer's next bidirectional stream.
    fn accept_bi(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv)>> + Send;
    /// The peer's next unidirectional stream.
    fn accept_uni(&self) -> impl Future<Output = Result<Self::Recv>> + Send;
    /// Sends a datagram when there is room for it in the send buffer, and drops none by itself where the API allows that.
    fn send_datagram(&self, payload: Bytes) -> impl Future<Output = Result> + Send;
    /// The next datagram.
    fn recv_datagram(&self) -> impl Future<Output = Result<Bytes>> + Send;
    /// Closes with code 0.
    fn close(&self);
    /// Waits for its end.
    fn closed(&self) -> impl Future<Output = ()> + Send;
}

/// The sending half of a stream.
pub trait SendHalf: AsyncWrite + Unpin + Send + 'static {
    /// Writes all of it, without a copy where the API can.
    fn write_chunk(&mut self, chunk: Bytes) -> impl Future<Output = Result> + Send;
    /// Sends the FIN.
    fn finish(&mut self) -> impl Future<Output = Result> + Send;
}

/// The receiving half of a stream.
pub trait RecvHalf: AsyncRead + Unpin + Send + 'static {
    /// What has come, in order; `None` after the FIN. Where the API has nothing that hands over its own bytes, they are read
    /// into a buffer.
    fn read_chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        async {
            let mut buffer = bytes::BytesMut::with_capacity(READ);
            match self.read_buf(&mut buffer).await {
                Ok(0) => Ok(None),
                Ok(_) => Ok(Some(buffer.freeze())),
                Err(error) => Err(Error::from(error)),
            }
        }
    }
}

/// The buffer of APIs that read into one.
const READ: usize = 16 << 10;
