//! Servers in processes of their own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde::de::DeserializeOwned;

use super::failed;
use crate::failure::Failure;

/// Starts a server that prints one line of JSON when it can be dialled; the process, and what the line says.
pub(super) fn listening<T: DeserializeOwned>(command: &mut Command) -> Result<(Child, T), Failure> {
    let mut process = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = process.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    match serde_json::from_str(&line) {
        Ok(listening) => Ok((process, listening)),
        Err(_) => {
            // It has said why on standard error, which is ours.
            let _ = process.kill();
            let _ = process.wait();
            Err(failed("the server did not start"))
        }
    }
}
