//! How a command fails: what, and what to try.

use std::process::ExitCode;

use serde_json::json;

use crate::output;

/// A failure as the user sees it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For programs: `usage`, `system`, `name`, `udp`, `tls`, `hash`, `status`, `protocol`, `closed` and so on.
    pub(crate) kind: &'static str,
    /// What failed, as a sentence without a full stop.
    pub(crate) message: String,
    /// What to try.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The command was wrong: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it, for programs on standard output too, and answers the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if json {
            output::json(&json!({
                "event": "error", "kind": self.kind, "message": self.message, "hint": self.hint,
            }));
        }
        output::error_line(&self.message);
        if let Some(hint) = &self.hint {
            output::hint_line(hint);
        }
        ExitCode::from(if self.kind == "usage" { 2 } else { 1 })
    }
}

/// An error and its causes on one line, without saying the same twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
