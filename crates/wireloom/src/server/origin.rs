//! Which web pages may open sessions (draft-ietf-webtrans-http3-16 section 3.2).

use std::sync::Arc;

use http::{HeaderMap, Uri};

type Check = dyn Fn(&str, &http::Request<()>) -> bool + Send + Sync;

/// When there is an origin, "the WebTransport server MUST verify the Origin header to ensure that the specified origin
/// is allowed to access the server in question" (draft 16 section 3.2): same-origin pages are allowed, others only if
/// they are listed or the callback says so. Programs other than browsers send no origin.
#[derive(Clone, Default)]
pub(crate) struct OriginPolicy {
    any: bool,
    allowed: Vec<String>,
    check: Option<Arc<Check>>,
}

impl OriginPolicy {
    /// `*` allows every origin. A default port is none, as browsers write origins.
    pub(crate) fn allow(&mut self, origin: &str) {
        if origin == "*" {
            self.any = true;
        } else {
            let origin = origin.trim_end_matches('/').to_ascii_lowercase();
            self.allowed.push(without_default_port(&origin).to_owned());
        }
    }

    pub(crate) fn check(&mut self, check: Arc<Check>) {
        self.check = Some(check);
    }

    pub(crate) fn allows(&self, request: &http::Request<()>) -> bool {
        let Some(origin) = origin(request.headers()) else {
            // Absent, or not text, which no browser sends.
            return !request.headers().contains_key(http::header::ORIGIN);
        };
        self.any
            || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
            || is_same_origin(origin, request.uri())
            || self.check.as_ref().is_some_and(|check| check(origin, request))
    }
}

fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(http::header::ORIGIN)?.to_str().ok()
}

/// Of an origin in lower case.
fn without_default_port(origin: &str) -> &str {
    let port = match origin.split_once("://") {
        Some(("https", _)) => ":443",
        Some(("http", _)) => ":80",
        _ => return origin,
    };
    origin.strip_suffix(port).unwrap_or(origin)
}

/// Scheme, host and port are equal, the port with its default (RFC 6454 section 5). Where the target is plaintext, a page over
/// TLS may be of the same origin all the same: a proxy has ended it.
fn is_same_origin(origin: &str, target: &Uri) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else {
        return false;
    };
    let default_port = match (origin.scheme_str(), target.scheme_str()) {
        (Some("https"), _) => 443,
        (Some("http"), Some("http")) => 80,
        _ => return false,
    };
    matches!((origin.host(), target.host()), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
        && origin.port_u16().unwrap_or(default_port) == target.port_u16().unwrap_or(default_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(origin: Option<&str>) -> http::Request<()> {
        let mut builder = http::Request::builder()
            .method("CONNECT")
            .uri("https://example.com:4433/chat");
        if let Some(origin) = origin {
            builder = builder.header("origin", origin);
        }
        builder.body(()).expect("a valid request")
    }

    /// "the WebTransport server MUST verify the Origin header to ensure that the specified origin is allowed to access
    /// the server in question" (draft 16 section 3.2).
    #[test]
    fn same_origin_and_programs_pass_others_do_not() {
        let policy = OriginPolicy::default();
        assert!(policy.allows(&request(None)));
        assert!(policy.allows(&request(Some("https://example.com:4433"))));
        assert!(policy.allows(&request(Some("https://EXAMPLE.com:4433"))));
        for foreign in [
            "https://example.com",
            "http://example.com:4433",
            "https://evil.test",
            "null",
            "file://",
            "%",
        ] {
            assert!(!policy.allows(&request(Some(foreign))), "{foreign}");
        }
    }

    #[test]
    fn without_tls_a_proxy_may_have_ended_it() {
        let allows = |target: &str, origin: &str| {
            let request = http::Request::builder().uri(target).header("origin", origin).body(());
            OriginPolicy::default().allows(&request.expect("a valid request"))
        };
        assert!(allows("http://example.com/", "http://example.com"));
        assert!(allows("http://example.com/", "https://example.com"));
        assert!(allows("http://example.com:8000/", "http://example.com:8000"));
        assert!(!allows("http://example.com:8000/", "http://example.com"));
        assert!(!allows("http://example.com/", "https://evil.test"));
        assert!(!allows("https://example.com/", "http://example.com"));
    }

    #[test]
    fn a_default_port_is_a_port() {
        let request = http::Request::builder()
            .uri("https://example.com/")
            .header("origin", "https://example.com:443")
            .body(())
            .expect("a valid request");
        assert!(OriginPolicy::default().allows(&request));
    }

    #[test]
    fn listed_origins_and_the_callback_are_asked() {
        let mut policy = OriginPolicy::default();
        policy.allow("http://localhost:8080/");
        policy.allow("https://Other.test:443");
        policy.allow("https://other.test:80");
        policy.check(Arc::new(|origin, _| origin.ends_with(".example.com")));
        assert!(
            policy.allows(&request(Some("https://other.test"))),
            "as browsers write it"
        );
        assert!(policy.allows(&request(Some("https://other.test:80"))));
        assert!(!policy.allows(&request(Some("http://other.test"))));
        assert!(policy.allows(&request(Some("http://localhost:8080"))));
        assert!(policy.allows(&request(Some("https://a.example.com"))));
        assert!(!policy.allows(&request(Some("http://localhost:8081"))));
        policy.allow("*");
        assert!(policy.allows(&request(Some("null"))));
    }

    #[test]
    fn an_origin_that_is_no_text_is_foreign() {
        let mut request = request(None);
        let value = http::HeaderValue::from_bytes(b"\xff").expect("a valid value");
        request.headers_mut().insert("origin", value);
        assert!(!OriginPolicy::default().allows(&request));
    }
}
