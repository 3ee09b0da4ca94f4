//! HTTP/1.1 and HTTP/2 over TCP on the same port.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use wireloom::ServerTrust;

use super::Target;
use super::report::HttpAnswer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Asks for `/`, whatever the certificate.
pub(super) async fn get(target: &Target, version: Version, timeout: Duration) -> HttpAnswer {
    match tokio::time::timeout(timeout, try_get(target, version)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => HttpAnswer::failed(error),
        Err(_) => HttpAnswer::failed("no answer over TCP"),
    }
}

async fn try_get(target: &Target, version: Version) -> Result<HttpAnswer, String> {
    let alpn: &[u8] = if version == Version::Http1 { b"http/1.1" } else { b"h2" };
    // What is shown of the certificate is read from QUIC's handshake, and nothing secret is sent.
    let mut config = ServerTrust::Insecure.tcp_client_config().map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    let tcp = TcpStream::connect(&*target.addresses)
        .await
        .map_err(|e| format!("no TCP connection: {e}"))?;
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tls.connect(name, tcp).await.map_err(|e| format!("TLS failed: {e}"))?;
    if version == Version::Http2 && stream.get_ref().1.alpn_protocol() != Some(alpn) {
        return Err("not offered".to_owned());
    }
    let io = TokioIo::new(stream);
    let uri = if version == Version::Http1 {
        "/".to_owned()
    } else {
        format!("https://{}/", target.authority)
    };
    let request = hyper::Request::get(uri).header(
        hyper::header::USER_AGENT,
        concat!("wireloom/", env!("CARGO_PKG_VERSION")),
    );
    let request = if version == Version::Http1 {
        request.header(hyper::header::HOST, &target.authority)
    } else {
        request
    };
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let failed = |e: hyper::Error| format!("the request failed: {e}");
    // The connection runs as long as its answer is waited for, and is dropped with it.
    let response = if version == Version::Http1 {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(failed)?;
        answered(sender.send_request(request), connection).await
    } else {
        let executor = TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .map_err(failed)?;
        answered(sender.send_request(request), connection).await
    };
    Ok(HttpAnswer::of(&response.map_err(failed)?))
}

async fn answered<T>(
    answer: impl Future<Output = Result<T, hyper::Error>>,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) -> Result<T, hyper::Error> {
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Then the answer is there, or will never come: it knows.
        _ = &mut connection => answer.await,
    }
}
