//! A server on a free port, and clients for it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;
use wireloom::tcp::{Options, serve};
use wireloom::{Body, CertificateHash, Identity};

/// Long enough for the busiest machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type ClientBody = BoxBody<bytes::Bytes, std::convert::Infallible>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) task: JoinHandle<io::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Server {
    pub(crate) async fn start<S, B>(service: S, identity: Option<&Identity>, options: Options) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let identity = identity.cloned();
        let task = tokio::spawn(async move {
            serve(listener, identity.as_ref(), service, options, async {
                drop(stopped.await)
            })
            .await
        });
        Self { address, task, stop }
    }

    pub(crate) async fn tls(router: Router) -> Self {
        Self::start(router, Some(&localhost()), Options::new()).await
    }

    pub(crate) fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.address)
    }

    /// Begins the shutdown and gives back what completes when it is over.
    pub(crate) fn stop(self) -> JoinHandle<io::Result<()>> {
        self.stop.send(()).expect("still serving");
        self.task
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("listening")
    }

    pub(crate) async fn connect_tls(&self, alpn: &str) -> TlsStream<TcpStream> {
        handshake(self.connect().await, alpn, "localhost")
            .await
            .expect("a handshake")
    }

    pub(crate) async fn http1(&self) -> http1::SendRequest<ClientBody> {
        let io = TokioIo::new(self.connect_tls("http/1.1").await);
        let (sender, connection) = http1::handshake(io).await.expect("a connection");
        tokio::spawn(connection.with_upgrades());
        sender
    }

    pub(crate) async fn http2(&self) -> (http2::SendRequest<ClientBody>, JoinHandle<hyper::Result<()>>) {
        let io = TokioIo::new(self.connect_tls("h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("a connection");
        (sender, tokio::spawn(connection))
    }
}

/// A socket that is no longer read once it is told so.
pub(crate) struct Stoppable<T> {
    pub(crate) io: T,
    pub(crate) stopped: Arc<AtomicBool>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Stoppable<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.stopped.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, out)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stoppable<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The HTTP/2 connection of a client that was answered once and hears nothing any more, as one that has lost its network.
pub(crate) async fn silent_after_an_answer(server: &Server) -> http2::SendRequest<ClientBody> {
    let stopped = Arc::<AtomicBool>::default();
    let io = Stoppable {
        io: server.connect_tls("h2").await,
        stopped: stopped.clone(),
    };
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .expect("a connection");
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/").body(Empty::new().boxed());
    let response = within(sender.send_request(request.expect("a request"))).await;
    within(response.expect("an answer").collect()).await.expect("a body");
    stopped.store(true, Ordering::Relaxed);
    sender
}

/// One identity for all tests: making it costs more than most of them.
pub(crate) fn localhost() -> Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY
        .get_or_init(|| Identity::self_signed(["localhost", "127.0.0.1"]).expect("valid names"))
        .clone()
}

pub(crate) async fn handshake(tcp: TcpStream, alpn: &str, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

pub(crate) fn presented(stream: &TlsStream<TcpStream>) -> CertificateHash {
    let certificates = stream.get_ref().1.peer_certificates().expect("after the handshake");
    CertificateHash::of_der(&certificates[0])
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Runs curl, which must succeed, and returns what it printed.
pub(crate) async fn curl(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--insecure",
            "--noproxy",
            "*",
            "--max-time",
            "60",
        ])
        .args(args)
        .kill_on_drop(true)
        .output()
        .await
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "curl {args:?}: {text}");
    text
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
