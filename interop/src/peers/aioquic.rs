//! aioquic (PyPI, draft 02), as processes that run the scripts of `interop/aioquic`.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::{Abilities, Target};
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

fn python(script: &str) -> Result<Command> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("../.venv/bin/python");
    if !python.exists() {
        return Err(format!("{} is missing; `cargo xtask setup` makes it", python.display()).into());
    }
    let mut command = Command::new(python);
    command.arg(root.join("aioquic").join(script)).kill_on_drop(true);
    Ok(command)
}

/// Serves the laboratory's paths on a free port.
pub async fn serve(journal: Arc<Journal>) -> Result<Server> {
    let certificate = Certificate::generate()?;
    let directory = TempDir::with_prefix("wireloom-aioquic-")?;
    let (chain, key) = (
        directory.path().join("certificate.pem"),
        directory.path().join("key.pem"),
    );
    std::fs::write(&chain, &certificate.certificate_pem)?;
    std::fs::write(&key, &certificate.key_pem)?;
    let mut process = python("server.py")?
        .arg("--certificate")
        .arg(chain)
        .arg("--key")
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
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
    let target = Target {
        url,
        hash: certificate.sha256_hex(),
    };
    Ok(Server {
        target,
        _process: process,
        _input: input,
        _directory: directory,
    })
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

/// Runs the client's exercise, with an ordinary request beside the first session if the server answers those (`http`).
pub async fn exercise(target: &Target, id: &str, can: Abilities, http: bool) -> Result {
    let mut command = python("client.py")?;
    command.args([&target.url, "--hash", &target.hash, "--id", id]);
    for (flag, set) in [
        ("protocols", can.protocols),
        ("close", can.close_server),
        ("http", http),
    ] {
        if set {
            command.args(["--can", flag]);
        }
    }
    let output = tokio::time::timeout(PATIENCE, command.output()).await??;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }
}
