//! WebSocket on a TCP port of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::server::ErrorResponse;

use super::limits::Permit;
use super::{Admission, Refusal, Server};
use crate::transport::TransportKind;
use crate::transport::websocket::Handshake;

/// How long a client may take for the WebSocket handshake, the application's part of it not counted.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Handshakes at once; newcomers beyond wait in the backlog.
const MAX_HANDSHAKES: usize = 1024;

/// How long accepting pauses when there are no descriptors or no memory left.
const PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// Serves WebSocket without TLS on every path of a TCP port, until [`shut_down`](Server::shut_down) is called.
    ///
    /// A client may take ten seconds for its handshake, and 1024 may be under way, those about which the application
    /// [decides](super::Handler::admit) included; connections beyond the limits are dropped. Dropping the future stops accepting;
    /// connections go on.
    ///
    /// # Errors
    /// None for now: failures of single connections are logged at debug level, a lack of descriptors at warn level.
    pub async fn listen(&self, listener: TcpListener) -> io::Result<()> {
        let handshakes = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_HANDSHAKES));
        let accept = async {
            loop {
                let Ok(permit) = handshakes.clone().acquire_owned().await else {
                    return;
                };
                match listener.accept().await {
                    Ok((stream, remote)) => {
                        // Counted from here on, so that one address cannot take all handshakes.
                        let Some(place) = self.place(Some(remote.ip())) else {
                            tracing::debug!(%remote, "too many connections");
                            continue;
                        };
                        // Fails only on a socket that is broken already.
                        let _ = stream.set_nodelay(true);
                        let server = self.clone();
                        tokio::spawn(async move {
                            server.handshake(stream, Some(remote), place).await;
                            drop(permit);
                        });
                    }
                    Err(error) if is_of_one_connection(&error) => {
                        tracing::debug!(%error, "a connection was lost early")
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection can be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = self.shutting_down() => {}
        }
        Ok(())
    }

    /// Answers the WebSocket handshake of a client on a fresh connection (TLS is done), and spawns a task that runs the
    /// connection. Returns when the handshake is over; beyond the limits it drops the connection at once.
    pub async fn accept_websocket<T>(&self, io: T, remote: Option<SocketAddr>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Some(permit) = self.place(remote.map(|remote| remote.ip())) {
            self.handshake(io, remote, permit).await;
        }
    }

    async fn handshake<T>(&self, io: T, remote: Option<SocketAddr>, permit: Permit)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut request = match tokio::time::timeout(HANDSHAKE_DEADLINE, Handshake::read(io)).await {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => return tracing::debug!(%error, ?remote, "the WebSocket handshake failed"),
            Err(_) => return tracing::debug!(?remote, "the WebSocket handshake took too long"),
        };
        let (head, _) = std::mem::take(request.request_mut()).into_parts();
        let admission = Admission {
            transport: TransportKind::WebSocket,
            remote,
            uri: head.uri,
            headers: head.headers,
            extensions: head.extensions,
        };
        let answered = async {
            match self.admit(admission, permit).await {
                Ok(place) => Ok((request.accept(self.0.message_buffer_size()).await?, place)),
                Err(refusal) => Err(request.refuse(refused(&refusal)).await),
            }
        };
        // Of which the application may take as long as it may.
        match tokio::time::timeout(self.0.connect_timeout.saturating_add(HANDSHAKE_DEADLINE), answered).await {
            Ok(Ok((link, place))) => {
                // A task of its own, so that nothing of the handshake is kept.
                tokio::spawn(self.run_in(Box::new(link.with_remote_address(remote)), place));
            }
            Ok(Err(error)) => tracing::debug!(%error, ?remote, "the WebSocket handshake failed"),
            Err(_) => tracing::debug!(?remote, "the WebSocket handshake took too long"),
        }
    }
}

fn refused(refusal: &Refusal) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(refusal.reason.clone()));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    headers.insert(http::header::CONTENT_LENGTH, refusal.reason.len().into());
    response
}

/// A connection that was lost before it was accepted says nothing about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
