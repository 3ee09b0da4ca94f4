//! aioquic (PyPI, draft 02), as processes that run the scripts of `interop/aioquic`.

use std::path::Path;
use std::sync::Arc;

use tokio::process::Command;

use super::process::Server;
use super::{Abilities, Target};
use crate::Result;
use crate::journal::{Journal, PATIENCE};

fn python(script: &str) -> Result<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("../.venv/bin/python");
    if !python.exists() {
        return Err(format!("{} is missing; `cargo xtask setup` makes it", python.display()).into());
    }
    let mut command = Command::new(python);
    command.arg(root.join("aioquic").join(script));
    Ok(command)
}

/// Serves the laboratory's paths on a free port.
pub async fn serve(journal: Arc<Journal>) -> Result<Server> {
    Server::start(python("server.py")?, journal).await
}

/// Runs the client's exercise, with an ordinary request beside the first session if the server answers those (`http`).
pub async fn exercise(target: &Target, id: &str, can: Abilities, http: bool) -> Result {
    let mut command = python("client.py")?;
    command.kill_on_drop(true);
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
