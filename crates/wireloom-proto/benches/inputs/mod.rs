//! Heads of messages as they are in the field, for all benchmarks.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

/// What a browser sends to open a session.
pub(crate) fn connect() -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = Method::CONNECT;
    *head.uri_mut() = Uri::from_static("https://chat.example.com:4433/rooms/42/live?token=4f1c9a2e");
    for (name, value) in [
        ("sec-webtransport-http3-draft02", "1"),
        ("origin", "https://chat.example.com"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0",
        ),
        ("accept", "*/*"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("sec-fetch-dest", "webtransport"),
        ("sec-fetch-mode", "no-cors"),
        ("sec-fetch-site", "same-origin"),
        ("priority", "u=4"),
        ("cache-control", "no-cache"),
        ("wt-available-protocols", "\"chat.v2\", \"chat.v1\""),
    ] {
        head.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    head
}

/// Of an ordinary page.
pub(crate) fn response() -> HeaderMap {
    [
        ("content-type", "application/json"),
        ("content-length", "1234"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("server", "wireloom"),
        ("cache-control", "no-store"),
        ("vary", "accept-encoding"),
        ("alt-svc", "h3=\":4433\"; ma=86400"),
        ("x-request-id", "0c6f7a1e-6c1f-4d2e-9a70-3c7b2f0f9d11"),
    ]
    .into_iter()
    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
    .collect()
}
