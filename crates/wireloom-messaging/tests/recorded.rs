//! Conversations of the original's client and server (webwire-go 2.0), recorded between them: our server answers their client what
//! theirs did, and our client says to their server what theirs did. Keys and times of sessions are each server's own.
#![cfg(all(feature = "client", feature = "server"))]

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wireloom_messaging::client::{Backoff, Client};
use wireloom_messaging::codec::Message;
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::{Connection, Handlers, ReplyError, Server};
use wireloom_messaging::session::{Session, SessionKey};
use wireloom_messaging::transport::memory::{self, MemoryLink};
use wireloom_messaging::transport::{self, Incoming};
use wireloom_messaging::{Data, IncomingMessage};

const PATIENCE: Duration = Duration::from_secs(60);

/// Who said it, and what.
struct Line {
    by_client: bool,
    bytes: Bytes,
}

fn recorded(name: &str) -> Vec<Vec<Line>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/webwire-recorded.json");
    let all: Vec<Value> = serde_json::from_slice(&std::fs::read(path).expect("the file")).expect("JSON");
    let conversation = all.into_iter().find(|one| one["name"] == name).expect("a conversation");
    let connections = conversation["connections"].as_array().expect("connections").clone();
    let line = |line: &Value| {
        let hex = line["hex"].as_str().expect("hex");
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
        Line {
            by_client: line["from"] == "client",
            bytes: (0..hex.len()).step_by(2).map(digits).collect(),
        }
    };
    let lines = |connection: &Value| connection.as_array().expect("lines").iter().map(line).collect();
    connections.iter().map(lines).collect()
}

async fn hear(link: &mut MemoryLink) -> Bytes {
    match timeout(PATIENCE, transport::recv(link))
        .await
        .expect("a message in time")
    {
        Ok(Incoming::Message { bytes, .. }) => bytes,
        other => panic!("{other:?}"),
    }
}

/// What the recorded server did.
fn handlers() -> Handlers {
    Handlers::new()
        .on_request("echo", async |data: Data| data)
        .on_request("upper", async |message: IncomingMessage| {
            Ok::<_, ReplyError>(Data::text_as(&message.text()?.to_uppercase(), message.encoding()))
        })
        .on_request("fail", async |text: String| Err::<(), _>(ReplyError::new("FAIL", text)))
        .on_request("internal", async || Err::<(), _>(ReplyError::internal("a secret")))
        .on_request("login", async |connection: Connection, user: String| {
            let info = [("user".to_owned(), user.into())];
            connection.create_session(info.into_iter().collect()).await?;
            Ok::<_, ReplyError>("welcome")
        })
        .on_request("logout", async |connection: Connection| {
            connection.close_session().await?;
            Ok::<_, ReplyError>(())
        })
        .on_request("whoami", async |connection: Connection| {
            let session = connection.session().ok_or_else(|| ReplyError::new("NO_SESSION", ""))?;
            Ok::<_, ReplyError>(Data::json(&session.info)?)
        })
        .on_other_requests(async |message: IncomingMessage| {
            let name = message.name().unwrap_or_default().to_owned();
            Err::<(), _>(ReplyError::new("UNKNOWN_REQUEST", name))
        })
        .on_other_signals(async |connection: Connection, signal: IncomingMessage| {
            connection.signal(signal.name().unwrap_or_default(), signal.data().clone())?;
            Ok::<_, ReplyError>(())
        })
}

/// The session that a server tells of, whose key and times are its own.
fn session(message: &[u8]) -> Option<Session> {
    let json = match Message::decode(message).ok()? {
        Message::SessionCreated { session } => session,
        Message::Reply { payload, .. } => payload.bytes,
        _ => return None,
    };
    Session::from_json(json).ok()
}

async fn our_server_answers(name: &str, server: Server) {
    // Their keys, and ours of the same sessions.
    let mut keys: Vec<(SessionKey, SessionKey)> = Vec::new();
    for connection in recorded(name) {
        let mut link = server.connect_memory();
        for Line { by_client, bytes } in connection {
            if by_client {
                let ours = match Message::decode(&bytes).expect("a message") {
                    Message::RestoreSession { id, key } => {
                        let known = keys.iter().find(|(theirs, _)| theirs.as_str().as_bytes() == key);
                        let key = known.map_or(key, |(_, ours)| ours.as_str().as_bytes());
                        Message::RestoreSession { id, key }.to_vec().expect("a message").into()
                    }
                    _ => bytes.clone(),
                };
                transport::send(&mut link, ours).await.expect("the server listens");
                continue;
            }
            let answer = hear(&mut link).await;
            let (Some(theirs), Some(ours)) = (session(&bytes), session(&answer)) else {
                assert_eq!(answer, bytes, "{name}");
                continue;
            };
            assert_eq!((&ours.info, answer[0]), (&theirs.info, bytes[0]), "{name}");
            assert_eq!(ours.key.as_str().len(), theirs.key.as_str().len());
            // Byte for byte, with our secrets and times in the place of theirs.
            let shape = |message: &[u8], session: &Session| {
                let text = String::from_utf8_lossy(message).replace(session.key.as_str(), "KEY");
                text.split('"')
                    .filter(|part| !part.starts_with("20"))
                    .collect::<Vec<_>>()
                    .join("\"")
            };
            assert_eq!(shape(&answer, &ours), shape(&bytes, &theirs), "{name}");
            keys.push((theirs.key, ours.key));
        }
    }
}

#[tokio::test]
async fn our_server_answers_as_theirs_did() {
    for name in ["requests", "signals", "sessions"] {
        our_server_answers(name, Server::builder().build(handlers())).await;
    }
    let without = Server::builder().without_sessions().build(handlers());
    our_server_answers("sessions-disabled", without).await;
}

fn has_id(message: &[u8]) -> bool {
    Message::decode(message).expect("a message").id().is_some()
}

/// Has the client do what makes it say this.
fn provoke(client: &Client, bytes: &[u8]) {
    let (client, bytes) = (client.clone(), bytes.to_vec());
    // What becomes of it is told by the recorded server, and is other tests' business.
    tokio::spawn(async move {
        match Message::decode(&bytes).expect("a message") {
            Message::Request { name, payload, .. } => drop(client.request(name.to_string(), payload).await),
            Message::Signal { name, payload } => drop(client.signal(name.to_string(), payload).await),
            Message::RestoreSession { key, .. } => {
                drop(client.restore_session(SessionKey::parse(key).expect("a key")).await);
            }
            Message::CloseSession { .. } => drop(client.close_session().await),
            other => panic!("{other:?}"),
        }
    });
}

#[tokio::test]
async fn our_client_says_what_theirs_did() {
    for name in ["requests", "signals", "sessions", "sessions-disabled"] {
        let (links, mut served) = mpsc::unbounded_channel();
        let builder = Client::over(move || {
            let (ours, theirs) = memory::pair();
            let _ = links.send(theirs);
            async { Ok(ours) }
        });
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let client = builder.backoff(backoff).build();
        for (nth, connection) in recorded(name).into_iter().enumerate() {
            let mut link = timeout(PATIENCE, served.recv())
                .await
                .expect("in time")
                .expect("a connection");
            let mut restores = nth > 0;
            // Their client goes on counting over connections, ours begins anew: what it said last, for what theirs did.
            let mut id = [0; 8];
            for Line { by_client, bytes } in connection {
                let mut bytes = bytes.to_vec();
                if !by_client {
                    if nth > 0 && has_id(&bytes) {
                        bytes[1..9].copy_from_slice(&id);
                    }
                    transport::send(&mut link, bytes.into())
                        .await
                        .expect("the client listens");
                    continue;
                }
                // The first message of a later connection comes by itself.
                if !std::mem::take(&mut restores) {
                    // What the server said before it has been heard.
                    while client.session().is_none() && matches!(bytes[0], 0x1f) {
                        tokio::task::yield_now().await;
                    }
                    provoke(&client, &bytes);
                }
                let heard = hear(&mut link).await;
                if nth > 0 && has_id(&bytes) {
                    id.copy_from_slice(&heard[1..9]);
                    bytes[1..9].copy_from_slice(&id);
                }
                assert_eq!(heard, bytes, "{name}");
            }
            // What was said before is heard first.
            transport::close(&mut link, CloseCode::Normal, "").await;
        }
    }
}
