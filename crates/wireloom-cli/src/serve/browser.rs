//! Starting a browser.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::output;

/// Who runs for so long has something to show; who cannot has said so before.
const FAILS_WITHIN: Duration = Duration::from_secs(2);

/// Opens `url` in $BROWSER, or the desktop's choice, or the first browser that is installed and does not fail at once. That none does is
/// told, no more.
pub(super) fn open(url: String) {
    // Nobody is served later for it.
    std::thread::spawn(move || {
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
                .arg(&url)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            if let Ok(mut child) = started
                && opens(&mut child)
            {
                // Collected when it ends, however long the user browses.
                let _ = child.wait();
                return;
            }
        }
        output::note(&format!("no browser was found: open {url} yourself, or set BROWSER"));
    });
}

/// Whether it goes on, or ends without a failure.
fn opens(child: &mut Child) -> bool {
    let started = Instant::now();
    while started.elapsed() < FAILS_WITHIN {
        match child.try_wait() {
            // explorer.exe fails when it succeeds.
            Ok(Some(status)) => return status.success() || cfg!(windows),
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => return true,
        }
    }
    true
}
