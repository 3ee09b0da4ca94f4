//! What every implementation can do, so that behaviours and exercises are written once.

use std::future::Future;

use bytes::Bytes;

use crate::journal::Event;
use crate::{Error, Result};

/// Nothing in the laboratory is longer.
const LIMIT: usize = 64 << 20;

/// Dials sessions with one implementation.
pub trait Client: Sync {
    /// Its sessions.
    type Session: Session;

    /// Dials; an answer other than 2xx is an error.
    fn connect(&self, url: &str, protocols: &[&str]) -> impl Future<Output = Result<Self::Session>> + Send;
}

/// One implementation's session.
pub trait Session: Clone + Send + Sync + 'static {
    /// Its sending halves.
    type Send: SendHalf;
    /// Its receiving halves.
    type Recv: RecvHalf;

    /// Opens a bidirectional stream.
    fn open_bi(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv)>> + Send;
    /// Opens a unidirectional stream.
    fn open_uni(&self) -> impl Future<Output = Result<Self::Send>> + Send;
    /// The peer's next bidirectional stream.
    fn accept_bi(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv)>> + Send;
    /// The peer's next unidirectional stream.
    fn accept_uni(&self) -> impl Future<Output = Result<Self::Recv>> + Send;
    /// Sends a datagram.
    fn send_datagram(&self, payload: Bytes) -> impl Future<Output = Result> + Send;
    /// The next datagram.
    fn recv_datagram(&self) -> impl Future<Output = Result<Bytes>> + Send;
    /// Starts to close the session; [`closed`](Self::closed) tells when it is done.
    fn close(&self, code: u32, reason: &str);
    /// Waits for the session's end: [`Event::Closed`] or [`Event::Lost`].
    fn closed(&self) -> impl Future<Output = Event> + Send;
    /// The subprotocol, where the implementation tells it.
    fn protocol(&self) -> Option<String>;
}

/// How reading ended before the peer's FIN.
#[derive(Debug)]
pub enum ReadEnd {
    /// The peer's reset, with the session's error code if it was one.
    Reset(Option<u32>),
    /// Anything else.
    Lost(Error),
}

impl std::fmt::Display for ReadEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reset(code) => write!(f, "reset with {code:?}"),
            Self::Lost(error) => write!(f, "lost: {error}"),
        }
    }
}

impl std::error::Error for ReadEnd {}

/// A sending half.
pub trait SendHalf: Send + 'static {
    /// Writes all of it.
    fn write(&mut self, data: Bytes) -> impl Future<Output = Result> + Send;
    /// Ends the stream with FIN.
    fn finish(&mut self) -> impl Future<Output = Result> + Send;
    /// Ends the stream with RESET_STREAM.
    fn reset(&mut self, code: u32) -> Result;
    /// Waits for the peer's STOP_SENDING; its code, if it is one of the session's.
    fn stopped(&mut self) -> impl Future<Output = Result<Option<u32>>> + Send;
}

/// A receiving half.
pub trait RecvHalf: Send + 'static {
    /// The next bytes; `None` after the peer's FIN.
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>, ReadEnd>> + Send;
    /// Sends STOP_SENDING.
    fn stop(self, code: u32) -> Result;

    /// All bytes up to the peer's FIN.
    fn read_to_end(&mut self) -> impl Future<Output = Result<Vec<u8>, ReadEnd>> + Send {
        async {
            let mut content = Vec::new();
            while let Some(bytes) = self.read().await? {
                content.extend_from_slice(&bytes);
                if content.len() > LIMIT {
                    return Err(ReadEnd::Lost(
                        "the stream is longer than anything in the laboratory".into(),
                    ));
                }
            }
            Ok(content)
        }
    }
}
