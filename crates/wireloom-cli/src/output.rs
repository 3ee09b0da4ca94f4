//! Printing: colour on a terminal only, JSON lines for programs, the log on standard error.

use std::borrow::Cow;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

pub(crate) use crate::stdout::{drained, in_background, loss, lost, raw, room};

/// Colours of one output, or none.
#[derive(Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// NO_COLOR (no-color.org) and dumb terminals are obeyed.
    fn new(is_terminal: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(is_terminal && !unwanted)
    }

    pub(crate) fn stdout() -> Self {
        static PAINT: OnceLock<Paint> = OnceLock::new();
        *PAINT.get_or_init(|| Self::new(stdout().is_terminal()))
    }

    pub(crate) fn stderr() -> Self {
        static PAINT: OnceLock<Paint> = OnceLock::new();
        *PAINT.get_or_init(|| Self::new(stderr().is_terminal()))
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }
}

/// A line on standard output.
pub(crate) fn line(text: &str) {
    raw(format!("{text}\n").as_bytes());
}

/// One JSON value as a line on standard output.
pub(crate) fn json(value: &serde_json::Value) {
    line(&value.to_string());
}

/// What others have sent, as something that a terminal shows and does not obey: control characters are escaped, and it is one line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable.into()
}

/// A line on standard error, for people. What is in it of others has to be [`printable`].
pub(crate) fn note(text: &str) {
    // There is nowhere left to complain.
    let _ = writeln!(stderr(), "{text}");
}

pub(crate) fn error_line(message: &str) {
    note(&format!("{} {}", Paint::stderr().red("error:"), printable(message)));
}

pub(crate) fn hint_line(hint: &str) {
    note(&format!("{} {}", Paint::stderr().cyan("  try:"), printable(hint)));
}

/// The log goes to standard error. Without `-v` it holds warnings, and a server on a terminal tells of its sessions.
pub(crate) fn start_logging(verbose: u8, is_server: bool) {
    let level = match verbose {
        0 if is_server && stderr().is_terminal() => "warn,rustls_platform_verifier=off,wireloom=info",
        // The verifier's complaint is in the error that is printed.
        0 => "warn,rustls_platform_verifier=off",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    // An empty variable is an unset one.
    let chosen = std::env::var(EnvFilter::DEFAULT_ENV)
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = chosen.and_then(|filter| filter.parse().ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        // It would complain on the same standard error, and panic where that fails too: on a full disk, or without a reader.
        .log_internal_errors(false)
        .with_ansi(Paint::stderr().0);
    if verbose < 2 {
        builder.with_target(false).compact().init()
    } else {
        builder.init()
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_terminal_obeys_nobody() {
        assert_eq!(printable("grüße, 你好"), "grüße, 你好");
        assert_eq!(
            printable("\x1b[31mRED\x1b]0;t\x07\u{9b}a\n"),
            "\\u{1b}[31mRED\\u{1b}]0;t\\u{7}\\u{9b}a\\n"
        );
    }
}
