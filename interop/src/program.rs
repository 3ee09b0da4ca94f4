//! The program `wireloom`, as users run it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::Result;

/// The program: what `WIRELOOM` names, else the one that was built beside this test.
pub(crate) fn path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WIRELOOM") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let path = test
        .ancestors()
        .nth(2)
        .ok_or("a test is in target/PROFILE/deps")?
        .join("wireloom");
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{}: cargo build -p wireloom-cli", path.display()).into())
    }
}

/// A running `wireloom serve` on free ports. Dropping it ends it.
pub struct Serve {
    process: Child,
    /// `https://127.0.0.1:PORT`
    pub webtransport: String,
    /// `http://localhost:PORT/`
    pub page: String,
    /// In hexadecimal digits.
    pub certificate_sha256: String,
}

impl Serve {
    /// Starts it and waits until it listens. Call it on the main thread: it ends with its thread.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(path()?)
            .args(["serve", "--bind", "127.0.0.1:0", "--page-bind", "127.0.0.1:0", "--json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        // What it prints later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let listening: Value = serde_json::from_str(&line)?;
        let text = |name: &str| {
            listening[name]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| format!("{name} is missing in {line}"))
        };
        let (webtransport, page) = (text("webtransport")?, text("page")?);
        let certificate_sha256 = text("certificate_sha256")?;
        Ok(Self {
            process,
            webtransport,
            page,
            certificate_sha256,
        })
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
