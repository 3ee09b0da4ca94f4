//! The body of a request, whatever version of HTTP carried it.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::driver::{RequestBody, RequestError};

/// The body of a request: data as it arrives, then trailers if there are any.
///
/// Reading it is what lets the peer send more. Dropping it before its end tells the peer to stop where the protocol can.
pub struct Body(Inner);

enum Inner {
    Empty,
    Tcp(hyper::body::Incoming),
    H3(RequestBody),
}

impl Body {
    /// A body without any data.
    pub const fn empty() -> Self {
        Self(Inner::Empty)
    }
}

impl Body {
    pub(crate) const fn h3(body: RequestBody) -> Self {
        Self(Inner::H3(body))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("size", &self.size_hint())
            .finish_non_exhaustive()
    }
}

impl From<hyper::body::Incoming> for Body {
    fn from(body: hyper::body::Incoming) -> Self {
        Self(Inner::Tcp(body))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Tcp(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Inner::H3(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Tcp(body) => body.is_end_stream(),
            Inner::H3(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Tcp(body) => body.size_hint(),
            Inner::H3(body) => body.size_hint(),
        }
    }
}

/// Why a request's body ended before its end. Nothing of it can be read any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The peer gave up, or the connection broke, in the middle of the body.
    #[error("the body was cut off before its end")]
    Incomplete(#[source] Box<dyn StdError + Send + Sync>),
    /// The peer broke the rules of HTTP in the middle of the body.
    #[error("the body is malformed")]
    Malformed(#[source] Box<dyn StdError + Send + Sync>),
}

impl From<RequestError> for BodyError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Malformed(_) => Self::Malformed(error.into()),
            error => Self::Incomplete(error.into()),
        }
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        // hyper wraps a bad chunk size or trailer of HTTP/1 in an I/O error of the kind that names bad input.
        let bad_input = error
            .source()
            .and_then(|source| source.downcast_ref::<std::io::Error>())
            .is_some_and(|io| {
                matches!(
                    io.kind(),
                    std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData
                )
            });
        if error.is_parse() || bad_input {
            Self::Malformed(error.into())
        } else {
            Self::Incomplete(error.into())
        }
    }
}

/// In the extensions of HTTP/3 requests that came in early data (0-RTT), which a server takes only after
/// [`ServerBuilder::early_data`](crate::ServerBuilder::early_data). Whoever recorded such a request may send it again: answer 425
/// (Too Early) to have it sent once more after the handshake (RFC 8470). Nor has anything proven its [`RemoteAddr`] yet: whoever
/// has been a client before can send such a request in another's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EarlyData;

/// The peer's address, in the extensions of every request over IP. Behind a proxy it is that of the proxy.
///
/// With the feature `axum` it is an extractor, and axum's own `ConnectInfo<SocketAddr>` has the same address, without
/// `into_make_service_with_connect_info`:
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use std::net::SocketAddr;
///
/// use axum::extract::ConnectInfo;
/// use axum::{Router, routing::get};
/// use wireloom::{RemoteAddr, TlsInfo};
///
/// let app: Router = Router::new()
///     .route("/", get(async |RemoteAddr(peer): RemoteAddr| peer.to_string()))
///     .route("/axum", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()))
///     // Without TLS there is none.
///     .route("/tls", get(async |tls: Option<TlsInfo>| format!("{:?}", tls.and_then(|tls| tls.peer_subject()))));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddr(pub SocketAddr);

/// None, with room for those of every request and some of a router's: as a map grows everything in it is moved, with the fourth first.
static ROOM: LazyLock<http::Extensions> = LazyLock::new(|| {
    let mut extensions = http::Extensions::new();
    extensions.insert(0_u8);
    extensions.insert(0_u16);
    extensions.insert(0_u32);
    extensions.insert(0_u64);
    // It stays as large as it was, and so do its clones.
    extensions.clear();
    extensions
});

impl RemoteAddr {
    /// Tells a handler, in each place where it may look.
    pub(crate) fn insert(self, extensions: &mut http::Extensions) {
        let before = std::mem::replace(extensions, ROOM.clone());
        extensions.extend(before);
        #[cfg(feature = "axum")]
        extensions.insert(axum::extract::ConnectInfo(self.0));
        extensions.insert(self);
    }
}
