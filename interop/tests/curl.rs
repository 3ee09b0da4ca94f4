//! curl on the TCP side of the port that serves WebTransport.

use std::process::Command;
use std::sync::Arc;

use wireloom_interop::journal::Journal;
use wireloom_interop::peers::wireloom::{HELLO, serve};

/// The body and, after it, what `--write-out` prints: the version of HTTP, and the field that announces HTTP/3.
async fn curl(version: &'static str, url: String) -> String {
    let run = move || {
        Command::new("curl")
            .args(["--silent", "--show-error", "--insecure", "--max-time", "60", version])
            .args(["--write-out", "%{http_version} %header{alt-svc}", &url])
            .output()
    };
    let output = tokio::task::spawn_blocking(run)
        .await
        .expect("no panic")
        .expect("curl runs; `cargo xtask setup`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_and_http2_on_the_port_of_webtransport() {
    let (target, _) = serve(Arc::new(Journal::default()), &[])
        .await
        .expect("the server starts");
    let port = target.url.rsplit(':').next().expect("a port");
    for (argument, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = curl(argument, target.url.clone()).await;
        assert!(answer.starts_with(&format!("{HELLO}{version} ")), "{answer}");
        assert!(
            answer.contains(&format!("h3=\":{port}\"")),
            "HTTP/3 is announced: {answer}"
        );
    }
}
