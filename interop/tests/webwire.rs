//! The software that WebWire comes from against ours: its client and our server, our client and its server.

use std::future::IntoFuture;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use wireloom_interop::Result;
use wireloom_interop::webwire::{Peer, go_client, go_server, hex, program, request, wireloom_server};
use wireloom_messaging::Data;
use wireloom_messaging::client::{Backoff, Client, ClientBuilder, RequestError};
use wireloom_messaging::codec::{Encoding, encode_utf16};
use wireloom_messaging::server::{Handlers, Server};
use wireloom_messaging::session::{MemoryStore, Session, SessionInfo, SessionKey};

fn utf16(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_utf16(text, &mut bytes);
    bytes
}

/// The port of `ws://127.0.0.1:PORT/…`, to serve again.
fn address(url: &str) -> Option<&str> {
    url.strip_prefix("ws://")?.split('/').next()
}

async fn terminate(peer: &Peer) -> Result {
    let pid = peer.pid().ok_or("it has ended")?.to_string();
    tokio::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "the variable WEBWIRE_GO_PEER has to name the original software"]
async fn their_client_requests_and_signals() -> Result {
    let program = program()?;
    let (_server, url) = wireloom_server("127.0.0.1:0", &[]).await?;
    let mut client = go_client(program, &url).await?;
    for (encoding, payload, upper) in [
        ("binary", b"ab".to_vec(), b"AB".to_vec()),
        ("utf8", "aжü😀".into(), "AЖÜ😀".into()),
        ("utf16", utf16("aжü😀"), utf16("AЖÜ😀")),
    ] {
        for (name, expected) in [("echo", &payload), ("upper", &upper)] {
            let answer = client.request(name, encoding, &payload).await?;
            assert_eq!(
                answer["reply"],
                json!({"encoding": encoding, "payload": hex(expected)}),
                "{name}"
            );
        }
        for name in ["even", "odd", ""] {
            let answer = client
                .ask(json!({"do": "signal", "name": name, "encoding": encoding, "payload": hex(&payload)}))
                .await?;
            assert_eq!(answer["error"], json!(null));
            let signal = client.event("signal").await?;
            let expected = json!({"event": "signal", "name": name, "encoding": encoding, "payload": hex(&payload)});
            assert_eq!(signal, expected);
        }
    }
    // Without payload, and as large as may be: 8192 bytes with a header of 14, and of 9 in the reply.
    let answer = client.request("echo", "binary", b"").await?;
    assert_eq!(answer["reply"], json!({"encoding": "binary", "payload": ""}));
    let large = vec![7; 8192 - 14];
    let answer = client.request("echo", "binary", &large).await?;
    assert_eq!(answer["reply"]["payload"], json!(hex(&large)));
    Ok(())
}

#[tokio::test]
#[ignore = "the variable WEBWIRE_GO_PEER has to name the original software"]
async fn their_client_gets_every_error() -> Result {
    let program = program()?;
    let (_server, url) = wireloom_server("127.0.0.1:0", &[]).await?;
    let mut client = go_client(program.clone(), &url).await?;
    let answer = client.request("fail", "utf8", "é".as_bytes()).await?;
    assert_eq!(
        answer["error"],
        json!({"kind": "request", "code": "FAIL", "message": "é"})
    );
    let answer = client.request("nonsense", "utf8", b"x").await?;
    assert_eq!(answer["error"]["code"], json!("UNKNOWN_REQUEST"));
    let answer = client.ask(json!({"do": "restore", "key": "../evil"})).await?;
    assert_eq!(answer["error"]["kind"], json!("session_not_found"));
    // Logging in twice is what this service fails at.
    client.request("login", "utf8", b"ann").await?;
    let answer = client.request("login", "utf8", b"ann").await?;
    assert_eq!(answer["error"]["kind"], json!("internal"));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let limited = Server::builder()
        .sessions(MemoryStore::new(), 1)
        .build(
            Handlers::new().on_request("login", async |connection: wireloom_messaging::server::Connection| {
                connection.create_session(SessionInfo::new()).await?;
                Ok::<_, wireloom_messaging::server::ReplyError>(())
            }),
        );
    let serving = tokio::spawn(async move { limited.listen(listener).await });
    let mut first = go_client(program.clone(), &url).await?;
    first.request("login", "utf8", b"x").await?;
    let key = first.event("session_created").await?["key"].clone();
    let mut second = go_client(program.clone(), &url).await?;
    let answer = second.ask(json!({"do": "restore", "key": key})).await?;
    assert_eq!(answer["error"]["kind"], json!("max_session_connections"));
    serving.abort();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let without = Server::builder().without_sessions().build(Handlers::new());
    let serving = tokio::spawn(async move { without.listen(listener).await });
    let mut client = go_client(program, &url).await?;
    let answer = client.ask(json!({"do": "restore", "key": "x"})).await?;
    assert_eq!(answer["error"]["kind"], json!("sessions_disabled"));
    serving.abort();
    Ok(())
}

#[tokio::test]
#[ignore = "the variable WEBWIRE_GO_PEER has to name the original software"]
async fn their_client_logs_in_and_out_and_survives_our_restart() -> Result {
    let program = program()?;
    let folder = TempDir::new()?;
    let folder = folder.path().to_str().ok_or("a path")?;
    let (server, url) = wireloom_server("127.0.0.1:0", &["--session-dir", folder]).await?;
    let mut client = go_client(program.clone(), &url).await?;
    let answer = client.request("login", "utf8", "ann <&>".as_bytes()).await?;
    assert!(client.has_event("session_created"), "before the reply {answer}");
    let created = client.event("session_created").await?;
    assert_eq!(created["info"], json!({"user": "ann <&>"}));
    let whoami = hex(br#"{"user":"ann <&>"}"#);
    let answer = client.request("whoami", "utf8", b"").await?;
    assert_eq!(answer["reply"]["payload"], json!(whoami));

    // Without a word, and again at the same port: it reconnects and restores by itself.
    server.kill().await?;
    client.event("disconnected").await?;
    let (_server, url) = wireloom_server(address(&url).ok_or("an address")?, &["--session-dir", folder]).await?;
    let restored = client.event("session_created").await?;
    assert_eq!(
        (&restored["key"], &restored["info"]),
        (&created["key"], &created["info"])
    );
    let answer = client.request("whoami", "utf8", b"").await?;
    assert_eq!(answer["reply"]["payload"], json!(whoami));

    // A second connection of the session; the first that logs out does not destroy it.
    let mut other = go_client(program.clone(), &url).await?;
    let answer = other.ask(json!({"do": "restore", "key": created["key"]})).await?;
    assert_eq!(answer["error"], json!(null));
    let answer = client.request("logout", "utf8", b"").await?;
    assert_eq!(answer["error"], json!(null));
    client.event("session_closed").await?;
    let answer = other.request("whoami", "utf8", b"").await?;
    assert_eq!(answer["reply"]["payload"], json!(whoami));
    let answer = other.ask(json!({"do": "close_session"})).await?;
    assert_eq!(answer["error"], json!(null));
    assert!(!other.has_event("session_closed"), "whoever closes it is not told");
    let answer = client.ask(json!({"do": "restore", "key": created["key"]})).await?;
    assert_eq!(answer["error"]["kind"], json!("session_not_found"));
    assert_eq!(std::fs::read_dir(folder)?.count(), 0, "its file is gone");
    Ok(())
}

/// Section 10: what runs is answered, what comes is refused, and then the connection is closed.
#[tokio::test]
#[ignore = "the variable WEBWIRE_GO_PEER has to name the original software"]
async fn their_client_sees_our_shutdown() -> Result {
    let program = program()?;
    let (server, url) = wireloom_server("127.0.0.1:0", &[]).await?;
    let mut client = go_client(program, &url).await?;
    let slow = client.begin(request("sleep", "utf8", b"2500")).await?;
    // It sends each from a thread of its own, in no order; after so many the first is there.
    for _ in 0..50 {
        client.request("echo", "utf8", b"x").await?;
    }
    terminate(&server).await?;
    let refused = loop {
        let answer = client.request("echo", "utf8", b"x").await?;
        if answer["reply"].is_null() {
            break answer;
        }
    };
    assert_eq!(refused["error"]["kind"], json!("shutdown"));
    let answer = client.answer(slow).await?;
    assert_eq!(answer["reply"], json!({"encoding": "utf8", "payload": hex(b"slept")}));
    client.event("disconnected").await?;
    assert!(server.ended().await?, "the server succeeds");
    Ok(())
}

fn ours(url: &str) -> ClientBuilder {
    Client::builder(url).backoff(Backoff::new(Duration::from_millis(20), Duration::from_millis(200)))
}

#[tokio::test]
#[ignore = "the variable WEBWIRE_GO_PEER has to name the original software"]
async fn their_server_answers_our_client() -> Result {
    let program = program()?;
    let (_server, url) = go_server(program, &[]).await?;
    let (signals, mut received) = mpsc::unbounded_channel();
    let client = ours(&url)
        .on_signal(move |signal| drop(signals.send(signal)))
        .connect()
        .await?;
    for encoding in [Encoding::Binary, Encoding::Utf8, Encoding::Utf16] {
        let data = Data::text_as("aжü😀", encoding);
        assert_eq!(client.request("echo", data.clone()).await?, data);
        let upper = client.request("upper", Data::text_as("ab", encoding)).await?;
        assert_eq!(upper, Data::text_as("AB", encoding));
        for name in ["even", "odd", ""] {
            client.signal(name, data.clone()).await?;
            let signal = received.recv().await.ok_or("a signal")?;
            assert_eq!((signal.name(), signal.data()), (Some(name), &data));
        }
    }
    assert_eq!(client.request("echo", ()).await?, Data::EMPTY);
    let large = vec![7; 8192 - 14];
    assert_eq!(client.request("echo", large.clone()).await?, Data::from(large));
    let error = client.request("echo", vec![7; 8192 - 13]).await.expect_err("too large");
    assert!(matches!(error, RequestError::Invalid(_)), "{error:?}");
    let error = client.request("fail", "é").await.expect_err("an error");
    assert!(matches!(&error, RequestError::Application { code, message } if code == "FAIL" && message == "é"));
    let error = client.request("internal", "x").await.expect_err("an error");
    assert!(matches!(error, RequestError::Internal), "{error:?}");
    let key = SessionKey::parse(b"x")?;
    let error = client.restore_session(key).await.expect_err("an error");
    assert!(matches!(error, RequestError::SessionsDisabled), "{error:?}");
    client.close().await;
    Ok(())
}

#[tokio::test]
#[ignore = "the variable WEBWIRE_GO_PEER has to name the original software"]
async fn our_client_logs_in_and_out_and_survives_their_restart() -> Result {
    let program = program()?;
    let folder = TempDir::new()?;
    let folder = folder.path().to_str().ok_or("a path")?;
    let (server, url) = go_server(
        program.clone(),
        &["--session-dir", folder, "--session-connections", "1"],
    )
    .await?;
    let (events, mut told) = mpsc::unbounded_channel::<Option<Session>>();
    let closed = events.clone();
    let client = ours(&url)
        .on_session_created(move |session| drop(events.send(Some(session.clone()))))
        .on_session_closed(move || drop(closed.send(None)))
        .connect()
        .await?;
    client.request("login", "ann").await?;
    let session = told.recv().await.flatten().ok_or("a session")?;
    assert_eq!(session.info["user"], json!("ann"));
    assert_eq!(client.request("whoami", "x").await?, Data::from(r#"{"user":"ann"}"#));
    let other = ours(&url).connect().await?;
    let error = other.restore_session(session.key.clone()).await.expect_err("taken");
    assert!(matches!(error, RequestError::MaxSessionConnections), "{error:?}");
    let nobody = SessionKey::parse(b"nobody")?;
    let error = other.restore_session(nobody).await.expect_err("nobody's");
    assert!(matches!(error, RequestError::SessionNotFound), "{error:?}");

    server.kill().await?;
    // Sent when there is a connection again, after the session is restored.
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.request("whoami", "x").idempotent().await })
    };
    let bind = address(&url).ok_or("an address")?;
    let arguments = ["--session-dir", folder, "--session-connections", "1", "--bind", bind];
    let (_server, _) = go_server(program, &arguments).await?;
    assert_eq!(waiting.await??, Data::from(r#"{"user":"ann"}"#));
    let restored = told.recv().await.flatten().ok_or("a session")?;
    assert_eq!((&restored.key, &restored.info), (&session.key, &session.info));
    assert!(restored.last_lookup >= session.last_lookup);

    client.request("logout", "x").await?;
    assert_eq!(told.recv().await, Some(None), "the server closed it");
    client.request("login", "bob").await?;
    let second = told.recv().await.flatten().ok_or("a session")?;
    client.close_session().await?;
    assert_eq!((told.recv().await, client.session()), (Some(None), None));
    let error = client.restore_session(second.key).await.expect_err("destroyed");
    assert!(matches!(error, RequestError::SessionNotFound), "{error:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "the variable WEBWIRE_GO_PEER has to name the original software"]
async fn our_client_sees_their_shutdown() -> Result {
    let program = program()?;
    let (mut server, url) = go_server(program, &["--concurrency", "8"]).await?;
    let client = ours(&url).connect().await?;
    let mut slow = client.request("sleep", "1500").into_future();
    tokio::select! {
        biased;
        slow = &mut slow => return Err(format!("{slow:?} before what was sent after it").into()),
        // Behind it on the same connection, so that it runs when the server is told.
        echo = client.request("echo", "x").into_future() => drop(echo?),
    }
    server.say(&json!({"do": "shutdown"})).await?;
    let error = loop {
        if let Err(error) = client.request("echo", "x").await {
            break error;
        }
    };
    assert!(
        matches!(error, RequestError::Shutdown) && error.is_retryable(),
        "{error:?}"
    );
    assert_eq!(slow.await?, Data::from("slept"));
    Ok(())
}
