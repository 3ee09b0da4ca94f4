//! webwire-js 0.1.0, WebWire's JavaScript client, against our server. It is on no registry: an environment variable names its
//! `lib/webwire.js`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use wireloom_interop::Result;
use wireloom_interop::webwire::{Peer, hex, wireloom_server};

fn library() -> Option<PathBuf> {
    let library = std::env::var_os("WEBWIRE_JS_CLIENT");
    if library.is_none() {
        eprintln!("not run: WEBWIRE_JS_CLIENT may name webwire.js of webwire-js 0.1.0");
    }
    library.map(Into::into)
}

/// A client that has connected; with a key, one that found it in its storage.
async fn client(library: &Path, url: &str, key: Option<&str>) -> Result<Peer> {
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("webwire-js/drive.cjs");
    let mut command = Command::new("node");
    command.arg(driver).arg(library).arg(url).args(key);
    let mut client = Peer::start(command)?;
    let answer = client.ask(json!({"do": "connect"})).await?;
    assert_eq!(answer["error"], Value::Null);
    Ok(client)
}

fn payload(text: &str, encoding: &str) -> Vec<u8> {
    match encoding {
        "utf16" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        _ => text.into(),
    }
}

/// What has a character outside of the basic plane is left out: it cannot read that in UTF-8.
#[tokio::test]
#[ignore = "needs webwire.js, which is on no registry"]
async fn it_requests_and_signals() -> Result {
    let Some(library) = library() else { return Ok(()) };
    let (_server, url) = wireloom_server("127.0.0.1:0", &[]).await?;
    let mut client = client(&library, &url, None).await?;
    for encoding in ["utf8", "utf16"] {
        let (text, upper) = (payload("aжü", encoding), payload("AЖÜ", encoding));
        for (name, expected) in [("echo", &text), ("upper", &upper)] {
            let answer = client.request(name, encoding, &text).await?;
            let expected = json!({"encoding": encoding, "payload": hex(expected)});
            assert_eq!(answer["reply"], expected, "{name}");
        }
        let answer = client.request("fail", encoding, &payload("é", encoding)).await?;
        let expected = json!({"kind": "request", "code": "FAIL", "message": "é"});
        assert_eq!(answer["error"], expected);
    }
    // Nor can it read the name and the text of a signal in UTF-16.
    for name in ["even", "odd", ""] {
        let signal = json!({"do": "signal", "name": name, "encoding": "utf8", "payload": hex("aж".as_bytes())});
        client.ask(signal).await?;
        let signal = client.event("signal").await?;
        assert_eq!(
            (&signal["name"], &signal["payload"]),
            (&json!(name), &json!(hex("aж".as_bytes())))
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs webwire.js, which is on no registry"]
async fn it_logs_in_and_out_and_restores() -> Result {
    let Some(library) = library() else { return Ok(()) };
    let folder = TempDir::new()?;
    let arguments = ["--session-dir", folder.path().to_str().ok_or("a path")?];
    let (server, url) = wireloom_server("127.0.0.1:0", &arguments).await?;
    let mut first = client(&library, &url, None).await?;
    first.request("login", "utf16", &payload("ann", "utf16")).await?;
    let created = first.event("session_created").await?;
    assert_eq!(created["info"], json!({"user": "ann"}));
    let key = created["key"].as_str().ok_or("a key")?;
    let whoami = json!({"encoding": "utf8", "payload": hex(br#"{"user":"ann"}"#)});
    assert_eq!(first.request("whoami", "utf8", b"x").await?["reply"], whoami);

    // From its storage, as it connects, at another server that has the session.
    first.kill().await?;
    server.kill().await?;
    let (_server, url) = wireloom_server("127.0.0.1:0", &arguments).await?;
    let mut second = client(&library, &url, Some(key)).await?;
    assert_eq!(second.request("whoami", "utf8", b"x").await?["reply"], whoami);
    let mut third = client(&library, &url, Some(key)).await?;
    second.ask(json!({"do": "close_session"})).await?;
    assert_eq!(second.ask(json!({"do": "session"})).await?["key"], Value::Null);
    assert_eq!(third.request("logout", "utf8", b"x").await?["error"], Value::Null);
    third.event("session_closed").await?;
    let mut late = client(&library, &url, Some(key)).await?;
    assert_eq!(late.ask(json!({"do": "session"})).await?["key"], Value::Null);
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0, "its file is gone");
    Ok(())
}
