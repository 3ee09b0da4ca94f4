//! Whether a request says clearly for which host it is: who routes by it, and who compares origins with it, must not see two.

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Version};

/// "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host header field and
/// to any request message that contains more than one Host header field line or a Host header field with an invalid field
/// value" (RFC 9112 section 3.2). `scheme` is that of the connection.
pub(super) fn is_proper<T>(request: &Request<T>, scheme: &Scheme) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return request.version() != Version::HTTP_11;
    };
    let authority = request.uri().authority();
    let is_legal = if host.is_empty() {
        // "If the authority component is missing or undefined for the target URI, then a client MUST send a Host header field
        // with an empty field-value."
        authority.is_none()
    } else {
        is_authority(host)
    };
    // "A server SHOULD treat a request as malformed if it contains a Host header field that identifies an entity that differs
    // from the entity in the ":authority" pseudo-header field" (RFC 9113 section 8.3.1). In HTTP/1.1 the target counts.
    let is_same = request.version() != Version::HTTP_2
        || authority.is_none_or(|authority| {
            let scheme = request.uri().scheme().unwrap_or(scheme);
            let [host, authority] =
                [host.as_bytes(), authority.as_str().as_bytes()].map(|name| without_port(name, scheme));
            host.eq_ignore_ascii_case(authority)
        });
    is_legal && is_same && hosts.next().is_none()
}

/// `uri-host [ ":" port ]`.
fn is_authority(host: &HeaderValue) -> bool {
    // An IPv6 address is for `http` to judge, which takes user names as well.
    if host.as_bytes().starts_with(b"[") {
        let authority = Authority::try_from(host.as_bytes());
        return authority.is_ok_and(|authority| {
            let port = authority.as_str().strip_prefix(authority.host());
            port.is_some_and(|port| port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        });
    }
    let Ok(host) = host.to_str() else { return false };
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    // RFC 3986 section 3.2.2: unreserved, pct-encoded, sub-delims.
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    !name.is_empty() && name.bytes().all(is_legal) && is_port(port)
}

/// `*DIGIT` (RFC 3986 section 3.2.3).
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Without the scheme's own port.
fn without_port<'n>(name: &'n [u8], scheme: &Scheme) -> &'n [u8] {
    let port: &[u8] = if *scheme == Scheme::HTTPS { b":443" } else { b":80" };
    name.strip_suffix(port).unwrap_or(name)
}
