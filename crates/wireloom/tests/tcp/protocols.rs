//! What HTTP promises, over both versions.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::Request;
use axum::http::{self, HeaderMap, HeaderValue, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use wireloom::RemoteAddr;
use wireloom::tcp::Options;

use crate::support::{ClientBody, Server, curl, localhost, within};

fn router() -> Router {
    Router::new()
        .route(
            "/",
            get(async |request: Request| {
                let RemoteAddr(peer) = request.extensions().get().expect("the peer's address");
                format!("{:?} from {}", request.version(), peer.ip())
            }),
        )
        .route("/own", get(async || ([(header::ALT_SVC, "clear")], "own")))
        .route(
            "/echo",
            post(async |request: Request| Response::new(request.into_body())),
        )
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/trailers", any(trailers))
        .route("/cookies", any(cookies))
}

/// Answers with the cookie fields, a line each.
async fn cookies(fields: HeaderMap) -> String {
    let fields = fields.get_all(header::COOKIE).into_iter();
    let lines: Vec<&str> = fields.map(|value| value.to_str().expect("text")).collect();
    lines.join("\n")
}

/// Answers with a body and the request's own `x-sum` trailer, doubled.
async fn trailers(request: Request) -> impl IntoResponse {
    let body = request.into_body().collect().await.expect("a body");
    let sum = body
        .trailers()
        .and_then(|t| t.get("x-sum"))
        .map_or_else(String::new, |v| v.to_str().unwrap_or("").repeat(2));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::try_from(sum).expect("digits"));
    let frames = [
        Ok::<_, Infallible>(Frame::data(body.to_bytes())),
        Ok(Frame::trailers(trailers)),
    ];
    (
        [(header::TRAILER, "x-sum")],
        AxumBody::new(StreamBody::new(futures_util::stream::iter(frames))),
    )
}

#[tokio::test]
async fn curl_speaks_both_versions_and_learns_of_http3() {
    let server = Server::start(router(), Some(&localhost()), Options::new().http3_port(4433)).await;
    for (version, name) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let text = curl(&[version, "--include", &server.url("https", "/")]).await;
        assert!(text.ends_with(&format!("{name} from 127.0.0.1")), "{text}");
        assert!(text.contains("alt-svc: h3=\":4433\"; ma=86400"), "{text}");
        let own = curl(&[version, "--include", &server.url("https", "/own")]).await;
        assert!(
            own.contains("alt-svc: clear") && !own.contains("h3="),
            "the application's own stays: {own}"
        );
    }
    let tls12 = curl(&["--tls-max", "1.2", &server.url("https", "/")]).await;
    assert_eq!(tls12, "HTTP/2.0 from 127.0.0.1");
    within(server.stop()).await.expect("no panic").expect("served");
}

#[tokio::test]
async fn plaintext_is_http1_without_alt_svc() {
    let server = Server::start(router(), None, Options::new()).await;
    let text = curl(&["--include", &server.url("http", "/")]).await;
    assert!(
        text.ends_with("HTTP/1.1 from 127.0.0.1") && !text.contains("alt-svc"),
        "{text}"
    );
    within(server.stop()).await.expect("no panic").expect("served");
}

/// RFC 9113 section 8.2.3.
#[tokio::test]
async fn cookies_that_http2_has_split_are_one_field() {
    let server = Server::tls(router()).await;
    let (mut sender, _connection) = server.http2().await;
    for (crumbs, expected) in [
        (&[][..], ""),
        (&["a=1"][..], "a=1"),
        (&["a=1; b=2", "c=3", "d=4"][..], "a=1; b=2; c=3; d=4"),
    ] {
        let mut request = request(&server, Version::HTTP_2, "/cookies", Empty::new().boxed());
        for crumb in crumbs {
            request
                .headers_mut()
                .append(header::COOKIE, HeaderValue::from_static(crumb));
        }
        let response = within(sender.send_request(request)).await.expect("a response");
        let body = within(response.into_body().collect()).await.expect("a body").to_bytes();
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let server = Server::tls(router()).await;
    for version in ["--http1.1", "--http2"] {
        let text = curl(&[version, "--head", &server.url("https", "/own")]).await;
        assert!(text.contains("content-length: 3") && !text.ends_with("own"), "{text}");
    }
}

/// A body is sent to nobody who takes it for something else: not in answer to HEAD, nor with 204 and 304.
#[tokio::test]
async fn a_body_where_there_can_be_none_is_left_out() {
    /// Answers with a body whatever the method, and with the status that the path names.
    #[derive(Clone)]
    struct Verbose;
    impl tower_service::Service<http::Request<wireloom::Body>> for Verbose {
        type Response = http::Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<wireloom::Body>) -> Self::Future {
            let mut response = http::Response::new(Full::from("too much"));
            *response.status_mut() = request.uri().path()[1..].parse().expect("a status");
            if request.uri().query().is_some() {
                response
                    .headers_mut()
                    .insert(header::CONTENT_LENGTH, HeaderValue::from_static("8"));
            }
            std::future::ready(Ok(response))
        }
    }
    let server = Server::start(Verbose, Some(&localhost()), Options::new()).await;
    let mut both = Both::connect(&server).await;
    for (method, path, length) in [
        ("HEAD", "/200", Some("8")),
        ("HEAD", "/200?8", Some("8")),
        ("GET", "/204", None),
        ("GET", "/204?8", None),
        ("GET", "/304", None),
        ("GET", "/304?8", Some("8")),
    ] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let response = both.ask(version, method.parse().expect("a method"), path).await;
            let told = response.headers().get(header::CONTENT_LENGTH).cloned();
            let body = within(response.collect()).await.expect("no error").to_bytes();
            assert_eq!(body, "", "{method} {path} {version:?}");
            assert_eq!(
                told.as_ref().map(|told| told.to_str().expect("digits")),
                length,
                "{method} {path} {version:?}"
            );
        }
    }
}

/// The client would take the beginning of the next answer for the end of this one, or its end for the next answer.
#[tokio::test]
async fn a_length_that_is_wrong_shifts_no_answers() {
    let router = router()
        .route("/long", get(async || ([(header::CONTENT_LENGTH, "10")], "hello")))
        .route("/short", get(async || ([(header::CONTENT_LENGTH, "3")], "hello")))
        .route("/none", get(async || [(header::CONTENT_LENGTH, "3")]));
    let server = Server::tls(router).await;
    let mut both = Both::connect(&server).await;
    for path in ["/long", "/short", "/none", "/"] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let response = both.ask(version, http::Method::GET, path).await;
            assert_eq!(
                response.status(),
                if path == "/" { 200 } else { 500 },
                "{path} {version:?}"
            );
            within(response.collect()).await.expect("no error");
        }
    }
}

/// "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host header field and
/// to any request message that contains more than one Host header field line or a Host header field with an invalid field value"
/// (RFC 9112 section 3.2).
#[tokio::test]
async fn a_request_has_one_host() {
    let server = Server::start(router(), None, Options::new()).await;
    for (head, status) in [
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\nHost:\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n", 200),
        ("GET / HTTP/1.0\r\n", 200),
        // "If the authority component is missing or undefined for the target URI, then a client MUST send a Host header field with an
        // empty field-value."
        ("GET / HTTP/1.1\r\nHost:\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a_b.example:8080\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a:\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: [::1]\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: [::1]x\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [u]@a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: %2Frun%2Fsocket\r\n", 200),
    ] {
        let mut tcp = server.connect().await;
        let request = format!("{head}Connection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        within(tcp.read_to_string(&mut answer)).await.expect("an answer");
        let told = answer.get(9..12).and_then(|status| status.parse().ok());
        assert_eq!(told, Some(status), "{head}{answer}");
    }
    let server = Server::tls(router()).await;
    let (mut sender, _connection) = server.http2().await;
    for (authority, hosts, status) in [
        ("localhost", &["LOCALHOST"][..], 200),
        ("localhost", &["localhost:443"], 200),
        ("localhost:443", &["localhost"], 200),
        ("localhost", &["other"], 400),
        ("localhost:4433", &["localhost"], 400),
        ("localhost", &["localhost", "localhost"], 400),
    ] {
        let mut request = http::Request::get(format!("https://{authority}/"));
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let request = request.body(Empty::new().boxed()).expect("a request");
        let answer = within(sender.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), status, "{authority} {hosts:?}");
    }
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_expected() {
    let server = Server::tls(router()).await;
    let args = [
        "--http1.1",
        "--verbose",
        "--header",
        "Expect: 100-continue",
        "--data-binary",
        "hello",
    ];
    let text = curl(&[&args[..], &[&server.url("https", "/length")]].concat()).await;
    assert!(
        text.contains("< HTTP/1.1 100 Continue") && text.starts_with('5'),
        "{text}"
    );
    let refused = curl(&[&args[..], &[&server.url("https", "/nowhere")]].concat()).await;
    assert!(
        refused.contains("< HTTP/1.1 404") && !refused.contains("100 Continue"),
        "{refused}"
    );
    // hyper says nothing in between over HTTP/2: clients that wait for it wait as long as they have patience.
    let args = [&["--http2"], &args[1..]].concat();
    let text = curl(&[&args[..], &[&server.url("https", "/length")]].concat()).await;
    assert!(!text.contains("< HTTP/2 100") && text.starts_with('5'), "{text}");
}

/// A connection of either version, to be asked the same.
struct Both<'a> {
    server: &'a Server,
    http1: http1::SendRequest<ClientBody>,
    http2: http2::SendRequest<ClientBody>,
}

impl<'a> Both<'a> {
    async fn connect(server: &'a Server) -> Self {
        let http1 = server.http1().await;
        let (http2, _connection) = server.http2().await;
        Self { server, http1, http2 }
    }

    /// Without a body.
    async fn ask(&mut self, version: Version, method: http::Method, path: &str) -> http::Response<Incoming> {
        let mut request = request(self.server, version, path, Empty::new().boxed());
        *request.method_mut() = method;
        let response = if version == Version::HTTP_2 {
            within(self.http2.send_request(request)).await
        } else {
            within(self.http1.send_request(request)).await
        };
        response.expect("an answer")
    }
}

fn request(server: &Server, version: Version, path: &str, body: ClientBody) -> http::Request<ClientBody> {
    let host = format!("localhost:{}", server.address.port());
    let builder = http::Request::post(if version == Version::HTTP_2 {
        format!("https://{host}{path}")
    } else {
        path.to_owned()
    });
    let builder = if version == Version::HTTP_2 {
        builder
    } else {
        builder.header(header::HOST, host)
    };
    builder
        .version(version)
        .header(header::TE, "trailers")
        .body(body)
        .expect("a request")
}

async fn send(server: &Server, version: Version, path: &str, body: ClientBody) -> http::Response<Incoming> {
    let request = request(server, version, path, body);
    if version == Version::HTTP_2 {
        let (mut sender, _connection) = server.http2().await;
        within(sender.send_request(request)).await.expect("an answer")
    } else {
        within(server.http1().await.send_request(request))
            .await
            .expect("an answer")
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let server = Server::tls(router()).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let trailers =
            HeaderMap::from_iter([(header::HeaderName::from_static("x-sum"), HeaderValue::from_static("42"))]);
        let body = Full::new(Bytes::from_static(b"data")).with_trailers(async { Some(Ok(trailers)) });
        let mut request = request(&server, version, "/trailers", body.boxed());
        if version == Version::HTTP_11 {
            // HTTP/1.1 has trailers only in chunked bodies, and only announced ones.
            request
                .headers_mut()
                .insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            request
                .headers_mut()
                .insert(header::TRAILER, HeaderValue::from_static("x-sum"));
        }
        let response = if version == Version::HTTP_2 {
            server.http2().await.0.send_request(request).await
        } else {
            server.http1().await.send_request(request).await
        };
        let body = within(response.expect("an answer").into_body().collect())
            .await
            .expect("a body");
        assert_eq!(
            body.trailers().and_then(|t| t.get("x-sum")).map(HeaderValue::as_bytes),
            Some(&b"4242"[..])
        );
        assert_eq!(body.to_bytes(), "data");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let server = Server::tls(router()).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (chunks, mut receiver) = mpsc::channel::<Bytes>(1);
        let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let frames = futures_util::StreamExt::map(stream, |chunk| Ok::<_, Infallible>(Frame::data(chunk)));
        chunks.send(Bytes::from_static(b"first")).await.expect("room");
        let body = StreamBody::new(frames).boxed();
        let mut response = send(&server, version, "/echo", body).await;
        for expected in ["first", "second", "third"] {
            let frame = within(response.frame()).await.expect("not over").expect("no error");
            assert_eq!(frame.into_data().expect("data"), expected);
            // Sent only after the one before came back: nothing waits for a whole body.
            let next = if expected == "first" { "second" } else { "third" };
            if expected != "third" {
                chunks.send(Bytes::from_static(next.as_bytes())).await.expect("room");
            }
        }
        drop(chunks);
        let rest = within(response.collect()).await.expect("no error").to_bytes();
        assert_eq!(rest, "", "the end of the request's body is the end of the answer's");
    }
}

#[tokio::test]
async fn nonsense_and_oversized_headers_are_refused() {
    let server = Server::start(router(), None, Options::new().max_header_size(4096)).await;
    let big = format!("GET / HTTP/1.1\r\nhost: a\r\nx-big: {}\r\n\r\n", "x".repeat(5000));
    for (bytes, status) in [(&b"nonsense\r\n\r\n"[..], "400"), (big.as_bytes(), "431")] {
        let mut tcp = server.connect().await;
        tcp.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        let _may_be_reset = within(tcp.read_to_end(&mut answer)).await;
        assert!(
            answer.starts_with(format!("HTTP/1.1 {status}").as_bytes()),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    let server = Server::start(router(), Some(&localhost()), Options::new().max_header_size(4096)).await;
    let mut request = request(&server, Version::HTTP_2, "/echo", Empty::new().boxed());
    request
        .headers_mut()
        .insert("x-big", HeaderValue::try_from("x".repeat(5000)).expect("a value"));
    let (mut sender, _connection) = server.http2().await;
    let refused = within(sender.send_request(request))
        .await
        .map_or(true, |answer| answer.status() == 431);
    assert!(refused, "by status or by reset");
}

/// A Unix socket carries plaintext HTTP/1.1, whose requests have no address.
#[tokio::test]
async fn a_unix_socket() {
    let folder = tempfile_dir();
    let path = folder.join("socket");
    let listener = tokio::net::UnixListener::bind(&path).expect("bound");
    let router = Router::new().route(
        "/",
        get(|extensions: http::Extensions| async move { extensions.get::<RemoteAddr>().is_none().to_string() }),
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(wireloom::tcp::serve_unix(
        listener,
        router,
        Options::new(),
        async move { drop(stopped.await) },
    ));
    let mut stream = tokio::net::UnixStream::connect(&path).await.expect("listening");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("true"),
        "{answer}"
    );
    stop.send(()).expect("serving");
    served.await.expect("the end");
    std::fs::remove_dir_all(&folder).expect("removed");
}

fn tempfile_dir() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("wireloom-unix-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Alt-Svc names the UDP port beside the listener, or that which clients see in its stead; without one there is no HTTP/3 to
/// tell of.
#[tokio::test]
async fn alt_svc_is_of_the_socket_beside_it() {
    for (has_udp, explicit, announce) in [
        (false, None, true),
        (true, None, true),
        (true, Some(443), true),
        (true, None, false),
        (true, Some(443), false),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = udp.local_addr().expect("bound").port();
        let server = wireloom::Server::builder()
            .sockets(has_udp.then_some(udp), Some(listener))
            .alt_svc(announce)
            .tcp_options(explicit.map_or_else(Options::new, |port| Options::new().http3_port(port)))
            .identity(localhost());
        let serving = tokio::spawn(async move { server.serve(router()).await });
        let url = format!("https://{address}/");
        let head = curl(&["--http2", "--head", &url]).await;
        let port = explicit.unwrap_or(port);
        let expected = (has_udp && announce).then(|| format!("h3=\":{port}\"; ma=86400"));
        let told = head.lines().find_map(|line| line.strip_prefix("alt-svc: "));
        assert_eq!(told, expected.as_deref(), "{head}");
        serving.abort();
    }
}
