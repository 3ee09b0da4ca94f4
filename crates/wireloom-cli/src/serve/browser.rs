//! Starting a browser.

use std::process::{Command, Stdio};

use crate::output;

/// Opens `url` in $BROWSER, or the desktop's choice, or the first browser that is installed. A failure is told, no more.
pub(super) fn open(url: &str) {
    let chosen = std::env::var("BROWSER").unwrap_or_default();
    let chosen = chosen.split(':').map(str::trim).filter(|browser| !browser.is_empty());
    let known: &[&str] = if cfg!(target_os = "macos") {
        &["open"]
    } else if cfg!(windows) {
        &["explorer"]
    } else {
        // xdg-open needs a desktop that has chosen; the others are tried after it.
        &[
            "xdg-open",
            "google-chrome",
            "chromium",
            "chromium-browser",
            "microsoft-edge",
            "firefox",
            "firefox-esr",
        ]
    };
    for browser in chosen.chain(known.iter().copied()) {
        let started = Command::new(browser)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(mut child) = started {
            // Collected when it ends, however long the user browses.
            std::thread::spawn(move || child.wait());
            return;
        }
    }
    output::note(&format!("no browser was found: open {url} yourself, or set BROWSER"));
}
