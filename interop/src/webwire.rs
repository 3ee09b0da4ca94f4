//! The software that WebWire comes from (webwire-go with webwire-go-gorilla, and webwire-go-client, of version 2.0), as a program that
//! lines of JSON drive: `interop/webwire-go`. `cargo xtask test` builds it where its modules can be had; for a test alone, the
//! environment variable [`PROGRAM`] names what `go build` there has made.
//!
//! `PROGRAM server [--session-dir DIR] [--session-connections N] [--concurrency N] [--bind ADDR]` serves what `wireloom serve` has
//! at `/messages`, and `internal`, whose handler fails. It prints `{"event":"listening","url":"ws://…"}` first, and takes
//! `{"do":"shutdown"}`. Without a directory it has no sessions; without `--concurrency`, one handler of a connection at once.
//!
//! `PROGRAM client URL` takes lines of `{"id":N,"do":…}`: `connect`, `request` and `signal` (`name`, `encoding` of `binary`, `utf8` and
//! `utf16`, `payload` in hexadecimal digits), `restore` (`key`), `close_session`, `session`, `close`. It answers each with a line of the same
//! `id` that has `reply` (`encoding`, `payload`), `key`, or `error` (`kind`, and for `request` also `code` and `message`), and
//! prints `{"event":…}` of `signal`, `session_created` (`key`, `info`), `session_closed` and `disconnected`.
//!
//! Both end with their standard input.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Result;
use crate::journal::PATIENCE;

/// The environment variable that names the program.
pub const PROGRAM: &str = "WEBWIRE_GO_PEER";

/// The program.
pub fn program() -> Result<PathBuf> {
    let program = std::env::var_os(PROGRAM).ok_or_else(|| format!("{PROGRAM} names no program"))?;
    Ok(program.into())
}

/// A process that is driven by lines of JSON. It ends when this is dropped.
pub struct Peer {
    process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Read while something else was waited for.
    early: VecDeque<Value>,
    last_id: u64,
}

impl Peer {
    /// Starts it.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no standard input")?;
        let lines = BufReader::new(process.stdout.take().ok_or("no standard output")?).lines();
        Ok(Self {
            process,
            input,
            lines,
            early: VecDeque::new(),
            last_id: 0,
        })
    }

    /// Says a line.
    pub async fn say(&mut self, line: &Value) -> Result {
        Ok(self.input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// Begins what is not waited for; answers its identifier.
    pub async fn begin(&mut self, mut line: Value) -> Result<u64> {
        self.last_id += 1;
        line["id"] = self.last_id.into();
        self.say(&line).await?;
        Ok(self.last_id)
    }

    /// The answer to what was begun.
    pub async fn answer(&mut self, id: u64) -> Result<Value> {
        self.wait(|line| line["id"] == id).await
    }

    /// Says a line and waits for its answer.
    pub async fn ask(&mut self, line: Value) -> Result<Value> {
        let id = self.begin(line).await?;
        self.answer(id).await
    }

    /// A request with a payload of text; the answer.
    pub async fn request(&mut self, name: &str, encoding: &str, payload: &[u8]) -> Result<Value> {
        self.ask(request(name, encoding, payload)).await
    }

    /// The next event of this name.
    pub async fn event(&mut self, name: &str) -> Result<Value> {
        self.wait(|line| line["event"] == name).await
    }

    /// Whether an event of this name was printed and not taken yet, among what was read so far.
    pub fn has_event(&self, name: &str) -> bool {
        self.early.iter().any(|line| line["event"] == name)
    }

    async fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(at) = self.early.iter().position(&wanted) {
            return Ok(self.early.remove(at).unwrap_or_default());
        }
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.map_err(|_| format!("nothing came but {:?}", self.early))??;
            let line: Value = serde_json::from_str(&line.ok_or("the process has ended")?)?;
            if wanted(&line) {
                return Ok(line);
            }
            self.early.push_back(line);
        }
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Ends it, and waits until it is gone.
    pub async fn kill(mut self) -> Result {
        Ok(self.process.kill().await?)
    }

    /// Waits until it ends by itself: whether it succeeded.
    pub async fn ended(mut self) -> Result<bool> {
        Ok(tokio::time::timeout(PATIENCE, self.process.wait()).await??.success())
    }
}

/// A request to be begun or asked.
pub fn request(name: &str, encoding: &str, payload: &[u8]) -> Value {
    json!({"do": "request", "name": name, "encoding": encoding, "payload": hex(payload)})
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The original's server; the URL it serves.
pub async fn go_server(program: PathBuf, arguments: &[&str]) -> Result<(Peer, String)> {
    let mut command = Command::new(program);
    command.arg("server").args(arguments);
    let mut peer = Peer::start(command)?;
    let listening = peer.event("listening").await?;
    let url = listening["url"].as_str().ok_or("no URL")?.to_owned();
    Ok((peer, url))
}

/// The original's client, connected.
pub async fn go_client(program: PathBuf, url: &str) -> Result<Peer> {
    let mut command = Command::new(program);
    command.args(["client", url]);
    let mut peer = Peer::start(command)?;
    let answer = peer.ask(json!({"do": "connect"})).await?;
    if answer["error"].is_null() {
        Ok(peer)
    } else {
        Err(format!("the original's client does not connect: {answer}").into())
    }
}

/// `wireloom serve`, with plain WebSocket at this address; the URL of its messages.
pub async fn wireloom_server(page_bind: &str, arguments: &[&str]) -> Result<(Peer, String)> {
    let mut command = Command::new(crate::program::path()?);
    command
        .args(["serve", "--json", "--bind", "127.0.0.1:0", "--page-bind", page_bind])
        .args(arguments);
    let mut peer = Peer::start(command)?;
    let listening = peer.event("listening").await?;
    let page = listening["page"].as_str().ok_or("no page")?;
    let url = page.replacen("http://localhost", "ws://127.0.0.1", 1) + "messages";
    Ok((peer, url))
}
