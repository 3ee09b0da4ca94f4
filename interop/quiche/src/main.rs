//! An endpoint of the QUIC Interop Runner on the crate web-transport-quiche. Its TLS is another than everybody else's here, which is why
//! it is built apart.

use std::process::ExitCode;

use bytes::Bytes;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;
use web_transport_proto::{ConnectRequest, ConnectResponse};
use web_transport_quiche::{
    ClientBuilder, Connection, RecvStream, SendStream, ServerBuilder, SessionError, Settings as Transport, StreamError,
};
use wireloom_interop::Result;
use wireloom_interop::endpoint::settings::{Role, Settings};
use wireloom_interop::endpoint::{self, dial, transfer};
use wireloom_interop::journal::Event;
use wireloom_interop::peers::session::{Client, ReadEnd, RecvHalf, SendHalf, Session};

fn main() -> ExitCode {
    endpoint::main(async |settings: Settings| match settings.role {
        Role::Client => dial(Dialer, settings).await,
        Role::Server => serve(settings).await,
    })
}

/// Trusts any certificate: the runner makes a new authority for each run, and tests transport.
struct Dialer;

impl Client for Dialer {
    type Session = Link;

    async fn connect(&self, url: &str, protocols: &[&str]) -> Result<Link> {
        let mut transport = Transport::default();
        transport.verify_peer = false;
        let request = ConnectRequest::new(Url::parse(url)?);
        let request = protocols
            .iter()
            .fold(request, |request, protocol| request.with_protocol(*protocol));
        let client = ClientBuilder::new().with_settings(transport);
        Ok(Link(client.connect(request).await?.established().await?))
    }
}

async fn serve(settings: Settings) -> Result {
    let chain = CertificateDer::pem_file_iter(settings.certs.join("cert.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(settings.certs.join("priv.key"))?;
    let mut server = ServerBuilder::default()
        .with_bind((std::net::Ipv6Addr::UNSPECIFIED, settings.port))?
        .with_single_cert(chain, key)?;
    endpoint::listening(*server.local_addrs().first().ok_or("it listens nowhere")?);
    while let Some(request) = server.accept().await {
        let settings = settings.clone();
        tokio::spawn(async move {
            let outcome = async {
                let path = request.url.path().trim_matches('/').to_owned();
                let mut response = ConnectResponse::OK;
                let mut offered = request.protocols.iter();
                if let Some(protocol) = offered.find(|offered| settings.protocols.contains(offered)) {
                    response = response.with_protocol(protocol.as_str());
                }
                let session = request.respond(response).await?;
                transfer::run(Link(session), &path, &settings).await
            };
            // What went wrong on one session does not end the server.
            if let Err(error) = outcome.await {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
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
        Ok(self.0.send_datagram(payload)?)
    }

    async fn recv_datagram(&self) -> Result<Bytes> {
        Ok(self.0.read_datagram().await?)
    }

    fn close(&self, code: u32, reason: &str) {
        self.0.close(code, reason);
    }

    async fn closed(&self) -> Event {
        match self.0.closed().await {
            SessionError::Remote(code, reason) | SessionError::Local(code, reason) => Event::Closed(code, reason),
            error => Event::Lost(error.to_string()),
        }
    }

    fn protocol(&self) -> Option<String> {
        self.0.protocol().map(str::to_owned)
    }
}

struct Sending(SendStream);

impl SendHalf for Sending {
    async fn write(&mut self, data: Bytes) -> Result {
        Ok(self.0.write_all(&data).await?)
    }

    async fn finish(&mut self) -> Result {
        Ok(self.0.finish()?)
    }

    fn reset(&mut self, code: u32) -> Result {
        self.0.reset(code);
        Ok(())
    }

    async fn stopped(&mut self) -> Result<Option<u32>> {
        match self.0.closed().await {
            Err(StreamError::Stop(code)) => Ok(Some(code)),
            Ok(()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

struct Receiving(RecvStream);

impl RecvHalf for Receiving {
    async fn read(&mut self) -> Result<Option<Bytes>, ReadEnd> {
        match self.0.read_chunk(1 << 16).await {
            Ok(chunk) => Ok(chunk),
            Err(StreamError::Reset(code)) => Err(ReadEnd::Reset(Some(code))),
            Err(error) => Err(ReadEnd::Lost(error.into())),
        }
    }

    fn stop(mut self, code: u32) -> Result {
        self.0.stop(code);
        Ok(())
    }
}
