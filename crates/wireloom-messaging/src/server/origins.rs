//! Whose pages may connect.
#![cfg_attr(not(any(feature = "websocket", feature = "webtransport")), allow(dead_code))]

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// Once one is allowed, all others but the server's own are refused.
#[derive(Clone, Default)]
pub(super) struct Origins {
    allowed: Option<Vec<String>>,
    any: bool,
}

impl Origins {
    pub(super) fn allow(&mut self, origin: &str) {
        let allowed = self.allowed.get_or_insert_default();
        if origin == "*" {
            self.any = true;
        } else {
            let origin = origin.trim_end_matches('/').to_ascii_lowercase();
            allowed.push(without_default_port(&origin).to_owned());
        }
    }

    pub(super) fn allows(&self, target: &Uri, headers: &HeaderMap) -> bool {
        let Some(allowed) = self.allowed.as_ref().filter(|_| !self.any) else {
            return true;
        };
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            // No page.
            (None, _) => true,
            (Some(origin), None) => origin.to_str().is_ok_and(|origin| {
                allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || is_own(origin, target, headers)
            }),
            (Some(_), Some(_)) => false,
        }
    }
}

/// As browsers write it. Of an origin in lower case.
fn without_default_port(origin: &str) -> &str {
    let port = match origin.split_once("://") {
        Some(("https", _)) => ":443",
        Some(("http", _)) => ":80",
        _ => return origin,
    };
    origin.strip_suffix(port).unwrap_or(origin)
}

/// Host and port are those that the client connects to. Whether that is TLS is known to whoever ended it.
fn is_own(origin: &str, target: &Uri, headers: &HeaderMap) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else {
        return false;
    };
    let default_port = match origin.scheme_str() {
        Some("https") => 443,
        Some("http") => 80,
        _ => return false,
    };
    let host = || headers.get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
    let target = target.authority().cloned().or_else(host);
    let Some((origin, target)) = origin.authority().zip(target) else {
        return false;
    };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    origin.host().eq_ignore_ascii_case(target.host()) && port(origin) == port(&target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allowed: &[&str], target: &str, fields: &[(&'static str, &str)]) -> bool {
        let mut origins = Origins::default();
        allowed.iter().for_each(|origin| origins.allow(origin));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        origins.allows(&target.parse().expect("a target"), &headers)
    }

    #[test]
    fn who_may_connect() {
        const HERE: (&str, &str) = ("host", "chat.example.com:8443");
        let one = |origin| allows(&["https://App.example.com:443/"], "/chat", &[HERE, ("origin", origin)]);
        assert!(one("https://app.example.com"));
        assert!(
            one("https://chat.example.com:8443") && one("http://chat.example.com:8443"),
            "its own"
        );
        for foreign in [
            "https://example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://chat.example.com",
            "null",
            "file://chat.example.com:8443",
            "",
        ] {
            assert!(!one(foreign), "{foreign}");
        }
        let own = ("origin", "https://chat.example.com");
        assert!(
            allows(&["https://x"], "/chat", &[("host", "chat.example.com"), own]),
            "a port that goes without saying"
        );
        assert!(
            allows(&["https://x"], "https://chat.example.com/chat", &[own]),
            "HTTP/2 and 3"
        );
        assert!(!allows(&["https://x"], "/chat", &[own]), "nowhere");
        assert!(
            !allows(
                &["https://x"],
                "/chat",
                &[("origin", "https://x"), ("origin", "https://x")]
            ),
            "twice"
        );
        assert!(allows(&["https://x"], "/chat", &[]), "no page");
        assert!(
            allows(&[], "/chat", &[("origin", "https://x")]),
            "unless it is asked for"
        );
        assert!(allows(&["https://y", "*"], "/chat", &[("origin", "https://x")]));
    }
}
