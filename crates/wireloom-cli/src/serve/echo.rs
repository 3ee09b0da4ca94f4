//! `/echo`: what comes is sent back the way it came.

use axum::response::IntoResponse;
use tokio::task::JoinSet;
use wireloom::{ReadError, RecvStream, SendStream, Session, SessionError, WebTransportUpgrade, WriteError};

/// What one read takes at most, in bytes.
const CHUNK: usize = 64 * 1024;

pub(super) async fn handler(upgrade: WebTransportUpgrade) -> impl IntoResponse {
    upgrade
        .protocols(["echo.v1", "echo.v2"])
        .on_upgrade(|session| async move {
            let (id, remote) = (session.id(), session.remote_address());
            let protocol = session.protocol().unwrap_or("none").to_owned();
            tracing::info!(%remote, id, protocol, dialect = ?session.dialect(), "session opened");
            let end = echo(&session).await;
            tracing::info!(%remote, id, "session ended: {end}");
        })
}

/// Echoes until the session is over, and says why it is.
async fn echo(session: &Session) -> SessionError {
    // How many streams there can be at once is limited by the connection; all of them end with the session.
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = session.accept_bi() => match accepted {
                Ok((send, recv)) => drop(streams.spawn(pipe(recv, send))),
                Err(end) => return end,
            },
            accepted = session.accept_uni() => match accepted {
                Ok(recv) => {
                    let session = session.clone();
                    streams.spawn(async move {
                        if let Ok(send) = session.open_uni().await {
                            pipe(recv, send).await;
                        }
                    });
                }
                Err(end) => return end,
            },
            datagram = session.recv_datagram() => match datagram {
                // Not sent if it has become too large for the way back: datagrams may be lost.
                Ok(datagram) => drop(session.send_datagram(&datagram)),
                Err(end) => return end,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Sends back what is read, and ends the way the peer ends: with a FIN, a reset or a stop of the same code.
async fn pipe(mut recv: RecvStream, mut send: SendStream) {
    loop {
        match recv.read_chunk(CHUNK).await {
            Ok(Some(chunk)) => match send.write_chunk(chunk).await {
                Ok(()) => {}
                Err(WriteError::Stopped(code)) => return recv.stop(code.unwrap_or(0)),
                Err(_) => return,
            },
            Ok(None) => {
                // Stopped or over meanwhile: there is nobody to tell.
                let _ = send.finish();
                return;
            }
            Err(ReadError::Reset(code)) => return send.reset(code.unwrap_or(0)),
            Err(_) => return,
        }
    }
}
