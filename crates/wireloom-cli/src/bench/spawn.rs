//! Servers in processes of their own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde::de::DeserializeOwned;

use super::failed;
use crate::failure::Failure;

/// A server in a process of its own, ended when this is dropped. Its standard input is open as long as this program lives: one that
/// takes the end of that for its own ends with us, whatever becomes of us.
pub(super) struct Server(Child);

impl Server {
    /// Starts a server that prints one line of JSON when it can be dialled; the process, and what the line says.
    pub(super) fn start<T: DeserializeOwned>(command: &mut Command) -> Result<(Self, T), Failure> {
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut server = Self(process.map_err(failed)?);
        let mut line = String::new();
        if let Some(stdout) = server.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        // It has said why on standard error, which is ours.
        let listening = serde_json::from_str(&line).map_err(|_| failed("the server did not start"))?;
        Ok((server, listening))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
