//! From a CONNECT request in a handler to a session.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use wireloom_proto::webtransport::negotiate::Dialect;

use crate::body::Body;
use crate::session::Session;

type Callback = Box<dyn FnOnce(Session) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What a handler decided, for the server that called it.
#[derive(Default)]
pub(crate) struct Decision {
    pub(crate) callback: Option<Callback>,
    pub(crate) protocol: Option<String>,
    pub(crate) headers: HeaderMap,
}

/// A WebTransport CONNECT request, as a handler sees it.
///
/// With the feature `axum` it is an extractor; a request that is no WebTransport CONNECT is rejected with 400. With any
/// other framework take it out of the request's extensions.
///
/// Nothing is answered before the handler returns: the session is accepted if [`on_upgrade`](Self::on_upgrade) was called
/// and the handler's response has a 2xx status. Any other status rejects it, with the response's fields and body. A 2xx
/// response without `on_upgrade` is answered 405: the resource does not do WebTransport.
///
/// The origin has been checked before the handler is called ([`ServerBuilder::allow_origin`](crate::ServerBuilder::allow_origin)).
///
/// ```
/// use axum::{Router, response::IntoResponse, routing::any};
/// use wireloom::WebTransportUpgrade;
///
/// async fn live(upgrade: WebTransportUpgrade) -> impl IntoResponse {
///     upgrade.protocols(["chat.v2", "chat.v1"]).on_upgrade(|session| async move {
///         while let Ok(datagram) = session.recv_datagram().await {
///             let _ = session.send_datagram(&datagram);
///         }
///     })
/// }
/// let app: Router = Router::new().route("/live", any(live));
/// ```
#[derive(Clone)]
pub struct WebTransportUpgrade {
    decision: Arc<Mutex<Decision>>,
    offered: Arc<[String]>,
    dialect: Dialect,
    remote: SocketAddr,
    max_datagram_size: Option<usize>,
}

impl WebTransportUpgrade {
    pub(crate) fn new(
        offered: Vec<String>,
        dialect: Dialect,
        remote: SocketAddr,
        max_datagram_size: Option<usize>,
    ) -> Self {
        Self {
            decision: Arc::default(),
            offered: offered.into(),
            dialect,
            remote,
            max_datagram_size,
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Decision) -> T) -> T {
        f(&mut self.decision.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn take(&self) -> Decision {
        self.with(std::mem::take)
    }

    /// Offers subprotocols: the client's first that is among them is agreed on (WT-Protocol). Where there is none in common
    /// the session goes on without; [`selected_protocol`](Self::selected_protocol) tells before the decision.
    #[must_use]
    pub fn protocols<P: AsRef<str>>(self, supported: impl IntoIterator<Item = P>) -> Self {
        let supported: Vec<P> = supported.into_iter().collect();
        let chosen = self
            .offered
            .iter()
            .find(|offer| supported.iter().any(|s| s.as_ref() == *offer))
            .cloned();
        self.with(|decision| decision.protocol = chosen);
        self
    }

    /// What the client offered, most preferred first (WT-Available-Protocols).
    pub fn offered_protocols(&self) -> &[String] {
        &self.offered
    }

    /// What [`protocols`](Self::protocols) found in common.
    pub fn selected_protocol(&self) -> Option<String> {
        self.with(|decision| decision.protocol.clone())
    }

    /// Adds a field to the response that accepts the session.
    #[must_use]
    pub fn response_header(self, name: HeaderName, value: HeaderValue) -> Self {
        self.with(|decision| decision.headers.append(name, value));
        self
    }

    /// The draft in which the client speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Where the client is.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// The largest payload that a datagram of the session could carry when it was asked for, in bytes. `None` if the client
    /// takes no datagrams. [`Session::max_datagram_size`] follows the path.
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.max_datagram_size
    }

    /// Accepts the session once the handler returns this response, and runs `handler` with it. Graceful shutdown waits for
    /// the handler, up to its deadline. When the handler is done and every clone of the session and each of its streams is
    /// dropped, the session is closed.
    pub fn on_upgrade<F, Fut>(self, handler: F) -> Response<Body>
    where
        F: FnOnce(Session) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.with(|decision| decision.callback = Some(Box::new(|session| Box::pin(handler(session)))));
        Response::new(Body::empty())
    }

    /// Rejects the session with `status`. A status that rejects nothing becomes 500 (1xx) or 405 (2xx).
    pub fn reject(self, status: StatusCode) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    }
}

impl std::fmt::Debug for WebTransportUpgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebTransportUpgrade")
            .field("offered", &self.offered)
            .field("dialect", &self.dialect)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "axum")]
mod extractor {
    use axum::extract::FromRequestParts;
    use axum::response::{IntoResponse, Response};
    use http::StatusCode;
    use http::request::Parts;

    use super::WebTransportUpgrade;

    /// The request is no WebTransport CONNECT: 400, with a sentence that says so.
    #[derive(Debug)]
    #[non_exhaustive]
    pub struct NotWebTransport;

    impl IntoResponse for NotWebTransport {
        fn into_response(self) -> Response {
            (
                StatusCode::BAD_REQUEST,
                "this resource is reached with WebTransport over HTTP/3\n",
            )
                .into_response()
        }
    }

    impl<S: Sync> FromRequestParts<S> for WebTransportUpgrade {
        type Rejection = NotWebTransport;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotWebTransport> {
            parts.extensions.remove::<Self>().ok_or(NotWebTransport)
        }
    }
}

#[cfg(feature = "axum")]
pub use extractor::NotWebTransport;
