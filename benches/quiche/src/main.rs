//! `peer-quiche server|client`: the crate web-transport-quiche with the settings of WORKLOADS.md, as far as it has them. Its QUIC and
//! its TLS are others than everybody else's here, BoringSSL among them, which is why it is built apart.

use std::io::Result as IoResult;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use web_transport_quiche::{ClientBuilder, Connection, RecvStream, SendStream, ServerBuilder, Settings, h3};
use wireloom_benches::certificate::{Certificate, hash_bytes};
use wireloom_benches::stack::{Client, RecvHalf, SendHalf, Server, Session};
use wireloom_benches::{Result, Side, run};

#[derive(Parser)]
#[command(about = "The workloads of WORKLOADS.md on web-transport-quiche")]
struct Arguments {
    #[command(subcommand)]
    side: Side,
}

fn main() -> ExitCode {
    run::<Listener, Dialer>("web-transport-quiche", Arguments::parse().side)
}

fn settings(max_streams: u32) -> Settings {
    let mut settings = Settings::default();
    settings.initial_max_data = 16 << 20;
    settings.max_connection_window = 16 << 20;
    settings.initial_max_stream_data_bidi_local = 4 << 20;
    settings.initial_max_stream_data_bidi_remote = 4 << 20;
    settings.initial_max_stream_data_uni = 4 << 20;
    settings.max_stream_window = 4 << 20;
    settings.initial_max_streams_bidi = max_streams.into();
    settings.initial_max_streams_uni = max_streams.into();
    settings.max_idle_timeout = Some(Duration::from_secs(30));
    settings.max_recv_udp_payload_size = 1452;
    settings.max_send_udp_payload_size = 1452;
    // No Retry: nothing is to be defended against.
    settings.disable_client_ip_validation = true;
    settings
}

struct Listener(web_transport_quiche::Server);

impl Server for Listener {
    type Incoming = h3::Request;
    type Session = Link;

    fn bind(address: SocketAddr, certificate: &Certificate, max_streams: u32) -> Result<Self> {
        let key = PrivatePkcs8KeyDer::from(certificate.pkcs8().to_vec());
        let server = ServerBuilder::default()
            .with_bind(address)?
            .with_settings(settings(max_streams))
            .with_single_cert(vec![certificate.der.clone()], key.into())?;
        Ok(Self(server))
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(*self.0.local_addrs().first().ok_or("it listens nowhere")?)
    }

    async fn accept(&mut self) -> Option<h3::Request> {
        self.0.accept().await
    }

    async fn establish(request: h3::Request) -> Result<Link> {
        Ok(Link(request.ok().await?))
    }
}

/// Every connection has a socket of its own: the crate cannot do otherwise.
#[derive(Clone)]
struct Dialer {
    url: url::Url,
    hash: [u8; 32],
    max_streams: u32,
}

impl Client for Dialer {
    type Session = Link;

    fn new(server: SocketAddr, certificate_sha256: &str, max_streams: u32) -> Result<Self> {
        Ok(Self {
            url: format!("https://{server}/bench").parse()?,
            hash: hash_bytes(certificate_sha256)?,
            max_streams,
        })
    }

    async fn connect(&self) -> Result<Link> {
        let client = ClientBuilder::new()
            .with_bind("127.0.0.1:0")?
            .with_settings(settings(self.max_streams))
            .with_server_certificate_hashes(vec![self.hash]);
        Ok(Link(client.connect(self.url.clone()).await?.established().await?))
    }

    async fn close(&self) {}
}

#[derive(Clone)]
struct Link(Connection);

impl Session for Link {
    type Send = Sending;
    type Recv = Receiving;

    async fn open_bi(&self) -> Result<(Sending, Receiving)> {
        let (send, recv) = self.0.open_bi().await?;
        Ok((Sending(send), Receiving(recv)))
    }

    async fn open_uni(&self) -> Result<Sending> {
        Ok(Sending(self.0.open_uni().await?))
    }

    async fn accept_bi(&self) -> Result<(Sending, Receiving)> {
        let (send, recv) = self.0.accept_bi().await?;
        Ok((Sending(send), Receiving(recv)))
    }

    async fn accept_uni(&self) -> Result<Receiving> {
        Ok(Receiving(self.0.accept_uni().await?))
    }

    async fn send_datagram(&self, payload: Bytes) -> Result {
        self.0.send_datagram(payload)?;
        // It has nothing that waits, drops what its queue of 64 cannot take, and sends in a task of its own.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn recv_datagram(&self) -> Result<Bytes> {
        Ok(self.0.read_datagram().await?)
    }

    fn close(&self) {
        self.0.close(0, "");
    }

    async fn closed(&self) {
        self.0.closed().await;
    }
}

struct Sending(SendStream);

impl SendHalf for Sending {
    async fn write_chunk(&mut self, mut chunk: Bytes) -> Result {
        Ok(self.0.write_buf_all(&mut chunk).await?)
    }

    async fn finish(&mut self) -> Result {
        Ok(self.0.finish()?)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Receiving(RecvStream);

impl RecvHalf for Receiving {
    async fn read_chunk(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.read_chunk(usize::MAX).await?)
    }
}

impl AsyncRead for Receiving {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}
