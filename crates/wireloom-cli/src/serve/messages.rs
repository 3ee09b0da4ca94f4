//! `/messages`: requests, replies, signals, sessions (WebWire 2.0) and topics, over WebSocket and WebTransport.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use wireloom_messaging::server::{Connection, Handlers, INVALID_PAYLOAD, ReplyError, Server};
use wireloom_messaging::session::{FileStore, MemoryStore};
use wireloom_messaging::topics::{TopicOptions, Topics};
use wireloom_messaging::{Data, IncomingMessage};

use super::sessions::{self, Bounded};
use crate::failure::Failure;
use crate::trust::parse_seconds;

#[derive(Args)]
pub(super) struct SessionArgs {
    /// Keep the sessions of /messages in files of this directory, over restarts; without it, in memory
    #[arg(long, value_name = "DIR")]
    session_dir: Option<PathBuf>,
    /// Forget sessions of /messages that nobody has used for so long
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = parse_seconds)]
    session_lifetime: Duration,
    /// Keep so many sessions of /messages; for one more, that goes which nobody has used for longest
    #[arg(long, value_name = "N", default_value = "10000")]
    max_sessions: NonZeroUsize,
}

/// Handlers of one connection at once: a `sleep` does not hold up an `echo`.
const CONCURRENCY: usize = 64;

/// The longest name that somebody may log in with, in bytes: it is kept.
const MAX_USER: usize = 256;

/// The service, which then waits to be mounted.
pub(super) fn server(args: &SessionArgs, per_address: usize) -> Result<Server, Failure> {
    let builder = Server::builder()
        .concurrency(CONCURRENCY)
        // Every name, for everybody, in memory, with the last hundred messages of each.
        .topics(Topics::open(TopicOptions::new()))
        .max_connections(usize::MAX, per_address)
        .sweep_interval(sessions::sweep_interval(args.session_lifetime));
    let (max, lifetime) = (args.max_sessions.get(), args.session_lifetime);
    let builder = match &args.session_dir {
        Some(folder) => {
            let opened = FileStore::open(folder).and_then(|store| Ok((store, sessions::in_folder(folder)?)));
            let (store, known) = opened.map_err(|error| {
                Failure::new("file", format!("cannot keep sessions in {}: {error}", folder.display()))
                    .hint("--session-dir with a folder that may be written")
            })?;
            builder.sessions(Bounded::new(store.expire_after(lifetime), max, known), 0)
        }
        None => {
            let store = MemoryStore::new().expire_after(lifetime);
            builder.sessions(Bounded::new(store, max, Vec::new()), 0)
        }
    };
    Ok(builder.build(handlers()))
}

fn handlers() -> Handlers {
    Handlers::new()
        .on_request("echo", async |data: Data| data)
        .on_request("upper", upper)
        .on_request("sleep", sleep)
        .on_request("fail", async |message: String| {
            Err::<(), _>(ReplyError::new("FAIL", message))
        })
        .on_request("login", login)
        .on_request("logout", async |connection: Connection| {
            connection.close_session().await?;
            Ok::<_, ReplyError>(())
        })
        .on_request("whoami", whoami)
        .on_other_signals(send_back)
}

async fn upper(message: IncomingMessage) -> Result<Data, ReplyError> {
    let text = message
        .text()
        .map_err(|error| ReplyError::new(INVALID_PAYLOAD, error.to_string()))?;
    Ok(Data::text_as(&text.to_uppercase(), message.encoding()))
}

async fn sleep(milliseconds: String) -> Result<&'static str, ReplyError> {
    let parsed = milliseconds.trim().parse();
    let milliseconds =
        parsed.map_err(|_| ReplyError::new(INVALID_PAYLOAD, "a number of milliseconds is needed, such as 250"))?;
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    Ok("slept")
}

async fn login(connection: Connection, user: String) -> Result<(), ReplyError> {
    if user.len() > MAX_USER {
        let most = format!("a name has at most {MAX_USER} bytes");
        return Err(ReplyError::new(INVALID_PAYLOAD, most));
    }
    let info = [("user".to_owned(), user.into())];
    connection.create_session(info.into_iter().collect()).await?;
    Ok(())
}

async fn whoami(connection: Connection) -> Result<Data, ReplyError> {
    match connection.session() {
        Some(session) => Ok(Data::json(&session.info)?),
        None => Err(ReplyError::new("NO_SESSION", "log in first")),
    }
}

/// One with a name that may not be sent is dropped.
async fn send_back(connection: Connection, signal: IncomingMessage) -> Result<(), ReplyError> {
    if let Some(name) = signal.name() {
        connection.signal_wait(name, signal.data().clone()).await?;
    }
    Ok(())
}
