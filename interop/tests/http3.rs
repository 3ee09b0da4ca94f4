//! HTTP/3 with quic-go's, both ways. (With aioquic it is in `peers.rs`, beside a session.)

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde_json::Value;
use tokio::process::Command;
use wireloom::{Client, Identity, Server};
use wireloom_interop::journal::{Journal, PATIENCE};
use wireloom_interop::peers::process;
use wireloom_interop::peers::webtransport_go::build;

const MIB: usize = 1 << 20;

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

/// `None` without a Go toolchain that is new enough.
async fn program(name: &str) -> Option<PathBuf> {
    // One product for each test: they run at the same time.
    let product = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let program = build("./http3", product).await.expect("it builds");
    if program.is_none() {
        eprintln!("not run: it needs Go 1.26 or newer");
    }
    program
}

/// What the client says of each answer.
async fn ask(program: &Path, url: &str, more: &[&str]) -> Vec<Value> {
    let mut command = Command::new(program);
    command.args(["--get", url]).args(more).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.expect("in time").expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_go_client_wireloom_server() {
    let Some(program) = program("http3-client").await else {
        return;
    };
    let app = Router::new()
        .route("/large", get(|| async { pattern(4 * MIB) }))
        .route("/echo", post(|body: Bytes| async { body }))
        .layer(DefaultBodyLimit::disable());
    let identity = Identity::self_signed(["localhost"]).expect("a valid name");
    let server = Server::builder().bind("127.0.0.1:0").identity(identity).listen();
    let server = server.await.expect("a free port");
    let url = format!("https://{}", server.local_addrs()[0]);
    tokio::spawn(async move { server.serve(app).await });

    let large = ask(&program, &format!("{url}/large"), &["--count", "20"]).await;
    let posted = ask(&program, &format!("{url}/echo"), &["--post", "4194304", "--count", "5"]).await;
    assert_eq!((large.len(), posted.len()), (20, 5));
    for answer in large.iter().chain(&posted) {
        assert_eq!((&answer["status"], &answer["proto"]), (&200.into(), &"HTTP/3.0".into()));
        assert_eq!(answer["length"], 4 * MIB);
        // The same bytes, whichever way they went.
        assert_eq!(answer["sha256"], large[0]["sha256"]);
    }
    let missing = ask(&program, &format!("{url}/nowhere"), &[]).await;
    assert_eq!(missing[0]["status"], 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn wireloom_client_quic_go_server() {
    let Some(program) = program("http3-server").await else {
        return;
    };
    let server = process::Server::start(Command::new(program), Arc::new(Journal::default()));
    let server = server.await.expect("the server starts");
    let client = Client::builder().server_certificate_hash(server.target.hash.parse().expect("a hash"));
    let client = client.build().expect("a client");
    let url = &server.target.url;
    let work = async {
        let connection = client.dial(url).await.expect("connected");
        let request = |method: &str, path: &str, body: Vec<u8>| {
            let request = http::Request::builder().method(method).uri(format!("{url}{path}"));
            connection.request_whole(request.body(body.into()).expect("a request"), 8 * MIB)
        };
        let hello = request("GET", "/hello", Vec::new()).await.expect("answered");
        assert_eq!(
            (hello.status().as_u16(), &hello.body()[..]),
            (200, &b"hello from quic-go"[..])
        );
        let path = format!("/large?size={}", 4 * MIB);
        let (large, echo, missing) = tokio::join!(
            request("GET", &path, Vec::new()),
            request("POST", "/echo", pattern(3 * MIB)),
            request("GET", "/nowhere", Vec::new()),
        );
        assert!(*large.expect("answered").body() == pattern(4 * MIB));
        assert!(*echo.expect("answered").body() == pattern(3 * MIB));
        assert_eq!(missing.expect("answered").status(), 404);
    };
    tokio::time::timeout(PATIENCE, work).await.expect("in time");
}
