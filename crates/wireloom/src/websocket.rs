//! What every WebSocket handshake must have, checked before the service hears of it (RFC 6455 section 4.2).

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::ext::Protocol;

use crate::server::OriginPolicy;

/// The only version there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// The answer to a WebSocket handshake that may not go on; `None` for all other requests. Without `origins` every page may
/// open WebSockets. `scheme` is that of the connection, which HTTP/1.1 does not say.
pub(crate) fn refuse<T>(request: &Request<T>, origins: Option<&OriginPolicy>, scheme: Scheme) -> Option<Response<()>> {
    let is_http1 = is_upgrade(request);
    if !is_http1 && !is_extended_connect(request) {
        return None;
    }
    let headers = request.headers();
    let mut response = Response::new(());
    *response.status_mut() = if headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        // "the server MUST [...] send an appropriate HTTP error code (such as 426 Upgrade Required) and a
        // |Sec-WebSocket-Version| header field indicating the version(s) the server is capable of understanding" (section
        // 4.2.2).
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
        if is_http1 {
            // "The server MUST send an Upgrade header field in a 426 response to indicate the required protocol(s)" (RFC 9110
            // section 15.5.22), which Connection names (section 7.8). Other versions have neither.
            response
                .headers_mut()
                .insert(UPGRADE, HeaderValue::from_static("websocket"));
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        StatusCode::UPGRADE_REQUIRED
    } else if is_http1 && !has_key(headers) {
        // "A |Sec-WebSocket-Key| header field with a base64-encoded value that, when decoded, is 16 bytes in length [...] the
        // server MUST stop processing the client's handshake and return an HTTP response with an appropriate error code"
        // (section 4.2.1).
        StatusCode::BAD_REQUEST
    } else if origins.is_some_and(|origins| !origins.allows(&head(request, scheme))) {
        // "If the origin indicated is unacceptable to the server, then it SHOULD respond to the WebSocket handshake with a
        // reply containing HTTP 403 Forbidden status code" (section 10.2).
        StatusCode::FORBIDDEN
    } else {
        return None;
    };
    Some(response)
}

fn is_upgrade<T>(request: &Request<T>) -> bool {
    let is_websocket = |value: &HeaderValue| {
        let tokens = value.as_bytes().split(|&byte| byte == b',');
        tokens
            .map(<[u8]>::trim_ascii)
            .any(|token| token.eq_ignore_ascii_case(b"websocket"))
    };
    request.method() == Method::GET && request.headers().get_all(UPGRADE).iter().any(is_websocket)
}

/// WebSocket over HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220), which has no key.
pub(crate) fn is_extended_connect<T>(request: &Request<T>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

/// Sixteen bytes are 22 digits and two signs of padding in base64.
fn has_key(headers: &HeaderMap) -> bool {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return false;
    };
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && matches!(key.as_bytes().strip_suffix(b"=="), Some(digits) if digits.iter().all(is_digit))
}

/// The request as the origin policy wants it, with an absolute URI: HTTP/1.1 names the authority in `host`.
fn head<T>(request: &Request<T>, scheme: Scheme) -> Request<()> {
    let uri = request.uri();
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = uri.authority().map(http::uri::Authority::as_str).or(host);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let absolute = Uri::builder().scheme(scheme).authority(authority.unwrap_or_default());
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    // Without a legal authority no origin is the same as it.
    *head.uri_mut() = absolute.path_and_query(path).build().unwrap_or_default();
    *head.headers_mut() = request.headers().clone();
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri("/ws").header("host", "example.com:4433");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request")
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");
    const UPGRADE: (&str, &str) = ("upgrade", "h2c, WebSocket");

    fn refused(fields: &[(&str, &str)]) -> Option<u16> {
        refuse(&request(fields), Some(&OriginPolicy::default()), Scheme::HTTPS)
            .map(|response| response.status().as_u16())
    }

    #[test]
    fn only_websockets_are_judged() {
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[("upgrade", "h2c"), ("origin", "https://evil.test")]), None);
        assert_eq!(refused(&[UPGRADE, KEY, VERSION]), None);
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        for key in [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZ!==",
            "dGhlIHNhbXBsZSBub25jZSBzYW1wbGU=",
        ] {
            assert_eq!(refused(&[UPGRADE, VERSION, (KEY.0, key)]), Some(400), "{key}");
        }
        assert_eq!(refused(&[UPGRADE, VERSION]), Some(400));
        assert_eq!(refused(&[UPGRADE, VERSION, KEY, KEY]), Some(400));
    }

    #[test]
    fn another_version_learns_which_there_is() {
        for version in ["12", "0", "13, 8"] {
            let answer = refuse(&request(&[UPGRADE, KEY, (VERSION.0, version)]), None, Scheme::HTTPS).expect("refused");
            assert_eq!(answer.status(), 426);
            assert_eq!(answer.headers()["sec-websocket-version"], "13");
            assert_eq!(answer.headers()["upgrade"], "websocket");
            assert_eq!(answer.headers()["connection"], "upgrade");
        }
        assert_eq!(refused(&[UPGRADE, KEY]), Some(426));
    }

    #[test]
    fn foreign_origins_are_refused() {
        let with = |origin| refused(&[UPGRADE, KEY, VERSION, ("origin", origin)]);
        assert_eq!(with("https://example.com:4433"), None);
        assert_eq!(with("https://evil.test"), Some(403));
        assert_eq!(with("null"), Some(403));
        let foreign = request(&[UPGRADE, KEY, VERSION, ("origin", "https://evil.test")]);
        assert!(refuse(&foreign, None, Scheme::HTTPS).is_none(), "no policy");
    }

    #[test]
    fn http2_has_no_key() {
        let mut request = request(&[VERSION]);
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::from_static("https://example.com/ws");
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        assert!(refuse(&request, Some(&OriginPolicy::default()), Scheme::HTTPS).is_none());
        let version = request.headers_mut().remove("sec-websocket-version").expect("one");
        let answer = refuse(&request, None, Scheme::HTTPS).expect("refused");
        assert_eq!(answer.status(), 426);
        assert!(!answer.headers().contains_key("upgrade") && !answer.headers().contains_key("connection"));
        request.headers_mut().insert("sec-websocket-version", version);
        request
            .headers_mut()
            .insert("origin", HeaderValue::from_static("https://evil.test"));
        assert_eq!(
            refuse(&request, Some(&OriginPolicy::default()), Scheme::HTTPS).map(|answer| answer.status()),
            Some(StatusCode::FORBIDDEN)
        );
    }
}
