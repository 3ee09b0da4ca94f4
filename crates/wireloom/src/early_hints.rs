//! 103 (Early Hints): what a client may fetch while its answer is still being made (RFC 8297).

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::{HeaderMap, Response, StatusCode};
use wireloom_proto::StreamId;

use crate::driver::Conn;
use crate::tcp::InterimLine;

/// Sends 103 (Early Hints) ahead of the response. In the extensions of requests over HTTP/1.1 and HTTP/3; hyper has no way to
/// send an interim response over HTTP/2, nor may HTTP/1.0 have one, so that there it is missing.
///
/// Keeping one does nothing, and does not keep the connection open. With the feature `axum`, `Option<EarlyHints>` is an
/// extractor.
#[derive(Clone)]
pub struct EarlyHints(Way);

#[derive(Clone)]
enum Way {
    Http1 { line: Arc<InterimLine>, request: u64 },
    Http3 { conn: Weak<Conn>, stream: StreamId },
}

/// Why early hints were not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EarlyHintsError {
    /// The response has begun, or the client is gone.
    #[error("the response has begun, or nobody waits for it")]
    Late,
    /// The fields are more than the client takes (HTTP/3), or more than 64 KiB wait for it.
    #[error("the fields cannot be sent")]
    Fields,
}

impl EarlyHints {
    /// For the `request`th of a connection.
    pub(crate) fn http1(line: Arc<InterimLine>, request: u64) -> Self {
        Self(Way::Http1 { line, request })
    }

    pub(crate) fn http3(conn: &Arc<Conn>, stream: StreamId) -> Self {
        let conn = Arc::downgrade(conn);
        Self(Way::Http3 { conn, stream })
    }

    /// Sends one 103 response with these fields, usually `link` ones. Never waits; call it as often as there is news. What is
    /// sent leaves before the response, whatever comes first.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send(&self, fields: &HeaderMap) -> Result<(), EarlyHintsError> {
        match &self.0 {
            Way::Http1 { line, request } => line.push(*request, StatusCode::EARLY_HINTS, fields),
            Way::Http3 { conn, stream } => {
                let mut head = Response::new(());
                *head.status_mut() = StatusCode::EARLY_HINTS;
                *head.headers_mut() = fields.clone();
                let conn = conn.upgrade().ok_or(EarlyHintsError::Late)?;
                conn.with(|quic, driver, wakes| {
                    let sent = driver.send_interim(Instant::now(), quic, wakes, *stream, &head);
                    sent.map_err(|error| match error {
                        wireloom_proto::connection::CommandError::InvalidState => EarlyHintsError::Late,
                        _ => EarlyHintsError::Fields,
                    })
                })
            }
        }
    }
}

impl fmt::Debug for EarlyHints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyHints").finish_non_exhaustive()
    }
}
