//! Listeners beside the site: one for the metrics, one that leads to HTTPS.

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::body::ResponseBody;
use super::service::text;
use super::site::Site;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Site,
    Metrics,
    /// To HTTPS on this port.
    Redirect(u16),
}

impl Role {
    /// As python/wireloom/sockets.py names it.
    pub(crate) fn parse(name: &str, redirect_to: u16) -> Option<Self> {
        match name {
            "site" => Some(Self::Site),
            "metrics" => Some(Self::Metrics),
            "redirect" => Some(Self::Redirect(redirect_to)),
            _ => None,
        }
    }
}

/// The metrics at their path, and nothing else.
pub(crate) fn metrics(site: &Site, parts: &Parts, path: Option<&str>) -> Response<ResponseBody> {
    if Some(parts.uri.path()) != path {
        text(StatusCode::NOT_FOUND, "Not Found")
    } else if parts.method == Method::GET || parts.method == Method::HEAD {
        super::metrics::response(site)
    } else {
        text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
    }
}

/// The same on this port of the same host, for all methods.
pub(crate) fn redirect(parts: &Parts, port: u16) -> Response<ResponseBody> {
    let Some(place) = secure(parts, port) else {
        return text(StatusCode::BAD_REQUEST, "Bad Request");
    };
    let mut response = text(StatusCode::PERMANENT_REDIRECT, "Permanent Redirect");
    response.headers_mut().insert(header::LOCATION, place);
    response
}

/// `None` if the client does not say which host it means.
fn secure(parts: &Parts, port: u16) -> Option<HeaderValue> {
    let named = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority: Authority = match parts.uri.authority() {
        Some(authority) => authority.clone(),
        None => named?.parse().ok()?,
    };
    let host = authority.host();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // As of `OPTIONS *`.
    let path = if path.starts_with('/') { path } else { "/" };
    let place = match port {
        443 => format!("https://{host}{path}"),
        port => format!("https://{host}:{port}{path}"),
    };
    if host.is_empty() { None } else { place.try_into().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(target: &str, host: Option<&str>, port: u16) -> Option<String> {
        let mut request = http::Request::builder().uri(target);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let place = secure(&parts, port)?;
        Some(place.to_str().expect("text").to_owned())
    }

    #[test]
    fn redirects_keep_host_path_and_query() {
        let found = |target, host| place(target, Some(host), 443);
        assert_eq!(
            found("/a%20b?c=d", "example.com:80").as_deref(),
            Some("https://example.com/a%20b?c=d")
        );
        assert_eq!(found("/", "[::1]:8080").as_deref(), Some("https://[::1]/"));
        assert_eq!(
            found("//other/x", "example.com").as_deref(),
            Some("https://example.com//other/x")
        );
        assert_eq!(
            found("http://named.test/x", "other.test").as_deref(),
            Some("https://named.test/x")
        );
        assert_eq!(found("*", "example.com").as_deref(), Some("https://example.com/"));
        assert_eq!(
            place("/x", Some("example.com"), 8443).as_deref(),
            Some("https://example.com:8443/x")
        );
        assert_eq!(found("/", "user@example.com").as_deref(), Some("https://example.com/"));
        assert_eq!(found("/", "exa mple"), None);
        assert_eq!(place("/", None, 443), None);
    }
}
