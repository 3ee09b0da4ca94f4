//! A session that the server has not answered yet.

use std::pin::pin;

use tokio::time::Instant;

use super::{ConnectError, until};
use crate::error::{ConnectionError, DatagramError, SessionError};
use crate::session::Session;
use crate::stream::{RecvStream, SendStream};
use crate::wake::Topic;

/// A session that was asked for and not answered yet: "The client MAY optimistically open unidirectional and bidirectional
/// streams, as well as send datagrams, on a session for which it has sent the CONNECT request, even if it has not yet received
/// the server's response" (draft-ietf-webtrans-http3-16 section 4).
///
/// Its streams go on when the server accepts the session. If it does not, they fail with [`SessionError::Rejected`]. Streams
/// and datagrams beyond what the server keeps for undecided sessions are reset (WT_BUFFERED_STREAM_REJECTED) or lost; a server
/// of Wireloom keeps 64 streams, 64 datagrams and 256 KiB for five seconds
/// ([`early_streams`](crate::ServerBuilder::early_streams)).
///
/// Dropping it, with all its streams, gives the session up.
#[derive(Debug)]
pub struct EarlySession {
    session: Session,
    deadline: Option<Instant>,
}

impl EarlySession {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            deadline: None,
        }
    }

    /// Bounds how long the server may take.
    pub(super) fn until(self, deadline: Option<Instant>) -> Self {
        Self { deadline, ..self }
    }

    /// Opens a bidirectional stream, as [`Session::open_bi`] does.
    ///
    /// # Errors
    /// The session or its connection is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        self.session.open_bi().await
    }

    /// Opens a unidirectional stream, as [`Session::open_uni`] does.
    ///
    /// # Errors
    /// The session or its connection is over.
    pub async fn open_uni(&self) -> Result<SendStream, SessionError> {
        self.session.open_uni().await
    }

    /// Sends a datagram, as [`Session::send_datagram`] does.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn send_datagram(&self, payload: &[u8]) -> Result<(), DatagramError> {
        self.session.send_datagram(payload)
    }

    /// Waits for the server's answer.
    ///
    /// Cancel safe; it may be called again, and answers the same.
    ///
    /// # Errors
    /// [`ConnectError::Rejected`] with the server's response; the connection failed; the server took longer than the client's
    /// `connect_timeout`.
    pub async fn ready(&self) -> Result<Session, ConnectError> {
        let answer = until(self.deadline, self.answer()).await;
        answer.unwrap_or(Err(ConnectError::Connection(ConnectionError::HandshakeTimedOut)))
    }

    async fn answer(&self) -> Result<Session, ConnectError> {
        let state = self.session.state();
        loop {
            let mut changed = pin!(state.signals.notified(Topic::State));
            changed.as_mut().enable();
            // The answer first: a session that was accepted and is over already is handed out, and says why it is over.
            if let Some(response) = self.session.response() {
                if response.status().is_success() {
                    return Ok(self.session.clone());
                }
                return Err(ConnectError::Rejected(Box::new(response.clone())));
            }
            match state.ended() {
                Some(SessionError::Connection(lost)) => return Err(lost.clone().into()),
                Some(ended) => return Err(ended.clone().into()),
                None => changed.await,
            }
        }
    }
}
