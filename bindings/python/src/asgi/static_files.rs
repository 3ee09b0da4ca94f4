//! Files that are served without asking the application.

use std::path::PathBuf;

use bytes::Bytes;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tower_http::services::ServeDir;
use tower_service::Service as _;

use super::body::ResponseBody;

/// A folder under a path.
#[derive(Clone)]
pub(crate) struct StaticFiles {
    /// Begins with a slash and does not end with one.
    prefix: String,
    folder: ServeDir,
    /// `Cache-Control` of what is there.
    caching: Option<HeaderValue>,
}

impl StaticFiles {
    /// Clients may keep files for `expires` seconds.
    pub(crate) fn new(prefix: &str, folder: PathBuf, expires: Option<u32>) -> Self {
        Self {
            prefix: format!("/{}", prefix.trim_matches('/'))
                .trim_end_matches('/')
                .to_owned(),
            folder: ServeDir::new(folder),
            caching: expires.and_then(|seconds| HeaderValue::try_from(format!("max-age={seconds}")).ok()),
        }
    }

    pub(crate) fn serves(&self, request: &Parts) -> bool {
        let rest = request.uri.path().strip_prefix(&self.prefix);
        rest.is_some_and(|rest| rest.starts_with('/'))
            && (request.method == Method::GET || request.method == Method::HEAD)
    }

    pub(crate) async fn answer(mut self, mut parts: Parts) -> Response<ResponseBody> {
        let path = parts.uri.path().strip_prefix(&self.prefix).unwrap_or("/");
        // Two slashes would begin the name of a host, where the folder redirects to what it was asked for.
        parts.uri = format!("/{}", path.trim_start_matches('/'))
            .parse::<PathAndQuery>()
            .map_or_else(|_| Uri::from_static("/"), Uri::from);
        let mut response = match self.folder.call(Request::from_parts(parts, Empty)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        if let Some(caching) = self.caching
            && (status.is_success() || status == StatusCode::NOT_MODIFIED)
        {
            response.headers_mut().insert(header::CACHE_CONTROL, caching);
        }
        // It knows nothing of the prefix.
        if let Some(place) = response.headers_mut().get_mut(header::LOCATION)
            && let Ok(whole) = HeaderValue::try_from([self.prefix.as_bytes(), place.as_bytes()].concat())
        {
            *place = whole;
        }
        response.map(|body| ResponseBody::Other(Box::pin(body)))
    }
}

/// The body that a request for a file has.
struct Empty;

impl Body for Empty {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}
