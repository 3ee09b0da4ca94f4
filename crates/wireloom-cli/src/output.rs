//! Printing: colour on a terminal only, JSON lines for programs, the log on standard error.

use std::io::{Error, IsTerminal, Write, stderr, stdout};
use std::sync::OnceLock;

use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

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

/// Why standard output cannot be written any more.
static LOST: OnceLock<Error> = OnceLock::new();
static LOSING: Notify = Notify::const_new();

/// Writes bytes to standard output at once, until that has failed: see [`lost`] and [`loss`].
pub(crate) fn raw(bytes: &[u8]) {
    if loss().is_some() {
        return;
    }
    let mut out = stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        LOST.get_or_init(|| error);
        LOSING.notify_one();
    }
}

/// Why what a command prints gets nowhere, if so: nothing is left to do but to end it, in good order.
pub(crate) fn loss() -> Option<&'static Error> {
    LOST.get()
}

/// Waits for that. For one at a time. Cancel safe.
pub(crate) async fn lost() {
    while loss().is_none() {
        LOSING.notified().await;
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

/// A line on standard error, for people.
pub(crate) fn note(text: &str) {
    // There is nowhere left to complain.
    let _ = writeln!(stderr(), "{text}");
}

pub(crate) fn error_line(message: &str) {
    note(&format!("{} {message}", Paint::stderr().red("error:")));
}

pub(crate) fn hint_line(hint: &str) {
    note(&format!("{} {hint}", Paint::stderr().cyan("  try:")));
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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(Paint::stderr().0);
    if verbose < 2 {
        builder.with_target(false).compact().init()
    } else {
        builder.init()
    }
}
