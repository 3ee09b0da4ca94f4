//! Servers that are processes of their own and tell the journal by lines of JSON.

use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::Target;
use crate::Result;
use crate::certificate::Certificate;
use crate::journal::{Event, Journal, PATIENCE};

/// A server process. It ends when this is dropped.
pub struct Server {
    /// Where it can be dialled.
    pub target: Target,
    _process: Child,
    _input: ChildStdin,
    _directory: TempDir,
}

impl Server {
    /// Starts `command` with `--certificate FILE --key FILE` and waits until it listens.
    pub async fn start(mut command: Command, journal: Arc<Journal>) -> Result<Self> {
        let certificate = Certificate::generate()?;
        let directory = TempDir::with_prefix("wireloom-peer-")?;
        let (chain, key) = (
            directory.path().join("certificate.pem"),
            directory.path().join("key.pem"),
        );
        std::fs::write(&chain, &certificate.certificate_pem)?;
        std::fs::write(&key, &certificate.key_pem)?;
        command.arg("--certificate").arg(chain).arg("--key").arg(key);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no standard input")?;
        let mut lines = BufReader::new(process.stdout.take().ok_or("no standard output")?).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line())
            .await??
            .ok_or("the server ended at once")?;
        let listening: Value = serde_json::from_str(&first)?;
        let url = listening["url"]
            .as_str()
            .ok_or("the server told no address")?
            .to_owned();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((id, event)) = serde_json::from_str(&line).ok().and_then(|line| event(&line)) {
                    journal.note(&id, event);
                }
            }
        });
        let hash = certificate.sha256_hex();
        Ok(Self {
            target: Target { url, hash },
            _process: process,
            _input: input,
            _directory: directory,
        })
    }
}

fn event(line: &Value) -> Option<(String, Event)> {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let code = line["code"].as_u64().and_then(|code| u32::try_from(code).ok());
    let event = match line["event"].as_str()? {
        "accepted" => Event::Accepted,
        "closed" => Event::Closed(code?, text("reason")),
        "lost" => Event::Lost(line.to_string()),
        "finished" => Event::Finished(text("text")),
        "reset" => Event::Reset(code),
        "stopped" => Event::Stopped(code),
        _ => return None,
    };
    Some((text("id"), event))
}
