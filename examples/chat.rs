//! A chat with rooms: `cargo run --release --example chat`, then open the page in some browsers. Nothing that was said is lost or
//! said twice, whatever happens to the network, the page or this server; the page's half of that is in chat/room.js.
//!
//! Sessions and rooms are kept in the folder that `--data` names, `target/chat` without it. A message that comes twice within
//! `--remember` seconds, 120 without it, is published once; what comes later the page has to know by itself.

mod web;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use wireloom_messaging::Data;
use wireloom_messaging::server::{Connection, Context, Handlers, Json, ReplyError, Server};
use wireloom_messaging::session::FileStore;
use wireloom_messaging::topics::{MemoryBroker, TopicAction, TopicOptions, Topics};

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Deserialize)]
struct Login {
    name: String,
}

/// What a client says: after an absence, much at once.
#[derive(Deserialize)]
struct Say {
    room: String,
    messages: Vec<Said>,
}

/// The id is the client's own, and makes a repeated message of its user known.
#[derive(Deserialize)]
struct Said {
    id: String,
    text: String,
}

/// What is published: who said it and when is the server's word.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    user: &'a str,
    name: &'a str,
    text: &'a str,
    at: u128,
}

#[tokio::main]
async fn main() -> Result<(), web::Failure> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/chat");
    let data = PathBuf::from(web::argument("--data").unwrap_or_else(|| default.to_owned()));
    std::fs::create_dir_all(&data)?;

    // Less than a broker remembers by itself only for tests: for the page it is as if it had slept for long.
    let remember = web::argument("--remember").map_or(Ok(120), |seconds| seconds.parse())?;
    let remember = Duration::from_secs(remember);
    let rooms = Topics::new()
        .find(|name| is_room(name.strip_prefix("room/")?).then(|| TopicOptions::new().history(500, 30 * DAY)))
        // Messages go through `say`: a client that published them itself could say anything in anybody's name. Everybody may see who is
        // there; whoever has a session may listen, be there and type (which is ephemeral).
        .authorise(async |access| match access.action {
            TopicAction::Presence => true,
            TopicAction::Publish if !access.is_ephemeral => false,
            _ => access.connection.session().is_some(),
        })
        .broker(MemoryBroker::with_journal(data.join("rooms.jsonl"), 64 << 20)?.key_lifetime(remember));
    let handlers = Handlers::new().on_request("login", login).on_request("say", say);
    let server = Server::builder()
        .concurrency(16)
        .topics(rooms)
        .sessions(FileStore::open(data.join("sessions"))?.expire_after(30 * DAY), 0)
        .build(handlers);
    web::serve("chat", FILES, server).await
}

const FILES: &[web::File] = &[
    ("/", web::HTML, include_str!("chat/index.html")),
    ("/style.css", web::CSS, include_str!("chat/style.css")),
    ("/chat.js", web::JAVASCRIPT, include_str!("chat/chat.js")),
    ("/room.js", web::JAVASCRIPT, include_str!("chat/room.js")),
    ("/icon.svg", web::SVG, include_str!("chat/icon.svg")),
];

fn is_room(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=24).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn is_id(id: &str) -> bool {
    (1..=40).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The client learns of its session before the reply, keeps it, and restores it by itself.
async fn login(connection: Connection, Json(login): Json<Login>) -> Result<(), ReplyError> {
    let name = login.name.trim();
    if name.is_empty() || name.chars().count() > 24 {
        return Err(ReplyError::new("NAME", "a name has 1 to 24 letters"));
    }
    // Names may be the same; users are not.
    let user = now().as_nanos().to_string();
    let info = [("name".to_owned(), name.into()), ("user".to_owned(), user.into())];
    connection.create_session(info.into()).await?;
    Ok(())
}

/// Publishes what has the same id once, as long as the topic remembers it; answers when all is kept.
async fn say(server: Server, context: Context, Json(say): Json<Say>) -> Result<(), ReplyError> {
    let session = context.connection().session();
    let who = |field| session.as_ref()?.info.get(field)?.as_str();
    let (Some(user), Some(name)) = (who("user"), who("name")) else {
        return Err(ReplyError::new("LOGIN", "log in first"));
    };
    if !is_room(&say.room) {
        return Err(ReplyError::new("ROOM", "there is no such room"));
    }
    let topic = format!("room/{}", say.room);
    for Said { id, text } in &say.messages {
        let text = text.trim();
        if !is_id(id) || text.is_empty() || text.len() > 6000 {
            let what = "an id of 1 to 40 letters, digits and hyphens, and 1 to 6000 bytes of text";
            return Err(ReplyError::new("TEXT", what));
        }
        // Everybody sees ids: another's use of one must not keep a message out.
        let key = format!("{user}-{id}");
        let at = now().as_millis();
        let line = Data::json(&Line {
            id,
            user,
            name,
            text,
            at,
        })?;
        server.publish_once(&topic, &key, line).await?;
    }
    Ok(())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
