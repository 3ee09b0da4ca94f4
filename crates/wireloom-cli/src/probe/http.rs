//! HTTP/1.1 and HTTP/2 over TCP on the same port.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
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
    let mut config = ServerTrust::Insecure
        .tcp_client_config(None)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    // As browsers do, more or less: one address that swallows everything does not hide another that answers.
    let dials = target
        .addresses
        .iter()
        .map(|&address| Box::pin(TcpStream::connect(address)));
    let (tcp, _) = select_ok(dials).await.map_err(|e| format!("no TCP connection: {e}"))?;
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// As with a name whose first address swallows everything.
    #[tokio::test]
    async fn an_address_that_answers_is_found_behind_one_that_does_not() {
        // Its backlog is full, and nobody takes what is in it: further connections hang.
        let silent = TcpSocket::new_v4().expect("a socket");
        silent.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let silent = silent.listen(0).expect("a listener");
        let silent_address = silent.local_addr().expect("bound");
        let mut waiting = Vec::new();
        let second = Duration::from_secs(1);
        while let Ok(taken) = tokio::time::timeout(second, TcpStream::connect(silent_address)).await {
            waiting.push(taken.expect("there is room, or it hangs"));
        }
        let live = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let target = Target {
            url: String::new(),
            host: "localhost".to_owned(),
            authority: "localhost".to_owned(),
            path: "/".to_owned(),
            addresses: vec![silent_address, live.local_addr().expect("bound")],
        };
        let asked = tokio::spawn(async move { get(&target, Version::Http1, Duration::from_secs(120)).await });
        let taken = tokio::time::timeout(Duration::from_secs(100), live.accept()).await;
        drop(taken.expect("it is dialled").expect("accepted"));
        let answer = asked.await.expect("no panic");
        assert!(answer.error.expect("no TLS").starts_with("TLS failed"));
    }
}
