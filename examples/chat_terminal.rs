//! A chat room with logins that survive a lost connection: `cargo run --release --example chat-terminal` serves it, and
//! `cargo run --release --example chat-terminal -- ann` joins as Ann; every line is a message.

use std::io::BufRead;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::ORIGIN;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use wireloom_messaging::Data;
use wireloom_messaging::client::Client;
use wireloom_messaging::server::{Connection, ConnectionOptions, Context, Handlers, Refusal, ReplyError, Server};
use wireloom_messaging::session::MemoryStore;

const ADDRESS: &str = "127.0.0.1:4434";

#[derive(Serialize, Deserialize)]
struct Line {
    from: String,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        Some(name) => join(&name).await,
        None => serve().await,
    }
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    // What the handlers say to everybody goes through a channel: they are made before the server is.
    let (say, mut said) = mpsc::channel::<Line>(64);
    let handlers = Handlers::new()
        // Pages of any site could speak here otherwise, as whoever opens them.
        .admit(async |admission| match admission.headers.contains_key(ORIGIN) {
            true => Err(Refusal::new(StatusCode::FORBIDDEN, "this room is for terminals")),
            false => Ok(ConnectionOptions::default()),
        })
        .on_request("login", async |connection: Connection, name: String| {
            if name.trim().is_empty() {
                return Err(ReplyError::new("NO_NAME", "who are you?"));
            }
            // The client learns of its session before the reply, and restores it by itself after a lost connection.
            connection
                .create_session([("name".to_owned(), name.into())].into())
                .await?;
            Ok(())
        })
        .on_request("say", move |context: Context, text: String| {
            let say = say.clone();
            async move {
                let session = context.connection().session();
                let name = session.as_ref().and_then(|session| session.info.get("name")?.as_str());
                let Some(from) = name.map(str::to_owned) else {
                    return Err(ReplyError::new("NOT_LOGGED_IN", "log in first"));
                };
                say.send(Line { from, text }).await?;
                Ok(())
            }
        });
    // Whoever may connect may log in.
    let sessions = MemoryStore::new().expire_after(Duration::from_secs(86_400));
    let server = Server::builder().sessions(sessions, 0).build(handlers);
    let room = server.clone();
    tokio::spawn(async move {
        while let Some(line) = said.recv().await {
            if let Ok(line) = Data::json(&line) {
                // Fails for a line that is larger than a message may be: nobody reads it.
                let _ = room.broadcast("line", line);
            }
        }
    });
    let listener = TcpListener::bind(ADDRESS)
        .await
        .map_err(|error| format!("{ADDRESS}: {error}"))?;
    println!("the room is at ws://{ADDRESS}/");
    server.listen(listener).await?;
    Ok(())
}

async fn join(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder(format!("ws://{ADDRESS}/"))
        .on_signal(|signal| {
            if let Ok(Line { from, text }) = signal.data().parse_json() {
                // Others' text, which a terminal would obey.
                let [from, text] = [from, text].map(|text| text.replace(char::is_control, "\u{fffd}"));
                println!("{from}: {text}");
            }
        })
        .on_disconnected(|why| eprintln!("({why}; trying again)"))
        .connect()
        .await?;
    client.request("login", name).await?;
    let (lines, mut typed) = mpsc::channel(1);
    // Reading a terminal cannot be cancelled: it gets a thread.
    std::thread::spawn(move || {
        std::io::stdin()
            .lock()
            .lines()
            .try_for_each(|line| lines.blocking_send(line).ok())
    });
    while let Some(line) = typed.recv().await {
        if let Err(error) = client.request("say", line?).await {
            eprintln!("({error})");
        }
    }
    client.close().await;
    Ok(())
}
