//! Headless Chromium and Firefox without any driver: a process, a fresh profile, and the controller page.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::Result;
use crate::page::Pages;

/// Firefox preferences: no second, speculative QUIC connection; no first-run pages; windows that script opens, and those in
/// the background as fast as the one in front.
const FIREFOX_PREFERENCES: &str = r#"
user_pref("network.http.speculative-parallel-limit", 0);
user_pref("dom.disable_open_during_load", false);
user_pref("dom.popup_maximum", -1);
user_pref("dom.min_background_timeout_value", 4);
user_pref("dom.timeout.enable_budget_timer_throttling", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.telemetry.enabled", false);
user_pref("app.update.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("services.settings.server", "http://localhost:1/");
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"#;

/// Which browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's `chromium`.
    Chromium,
    /// The same with what is still experimental of the web platform.
    Experimental,
    /// Debian's `firefox-esr`.
    Firefox,
}

impl Kind {
    /// As users have them.
    pub const USUAL: [Self; 2] = [Self::Chromium, Self::Firefox];
    /// All.
    pub const ALL: [Self; 3] = [Self::Chromium, Self::Experimental, Self::Firefox];

    /// The name in test names and page addresses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Experimental => "experimental",
            Self::Firefox => "firefox",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Chromium | Self::Experimental => "chromium",
            Self::Firefox => "firefox-esr",
        }
    }

    fn command(self, directory: &Path, url: &str) -> Result<Command> {
        // The kernel ends the browser when the test process dies in any way, so that none is ever left behind.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        match self {
            Self::Chromium | Self::Experimental => command
                .args([
                    "chromium",
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--no-first-run",
                ])
                .args([
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-sync",
                ])
                .args(["--disable-popup-blocking", "--disable-background-timer-throttling"])
                .args([
                    "--disable-renderer-backgrounding",
                    "--disable-backgrounding-occluded-windows",
                ])
                .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
                .args((self == Self::Experimental).then_some("--enable-experimental-web-platform-features"))
                .arg(format!("--user-data-dir={}", directory.display()))
                .arg(url),
            Self::Firefox => {
                let profile = directory.join("profile");
                std::fs::create_dir(&profile)?;
                std::fs::write(profile.join("user.js"), FIREFOX_PREFERENCES)?;
                command
                    .args(["firefox-esr", "--headless", "--no-remote", "--profile"])
                    .arg(profile)
                    .arg(url)
                    .env("HOME", directory)
            }
        };
        Ok(command)
    }
}

/// A running browser. Dropping it ends the process and removes its profile.
pub struct Browser {
    kind: Kind,
    pages: Pages,
    process: Mutex<Child>,
    _directory: TempDir,
}

impl Browser {
    /// Starts the browser on the controller page. Call it on the main thread: the browser ends with its thread.
    pub fn start(kind: Kind, pages: &Pages, address: SocketAddr) -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(kind.program()).is_file()) {
            return Err(format!("{} is missing; `cargo xtask setup` installs it", kind.program()).into());
        }
        let directory = TempDir::with_prefix(format!("wireloom-{}-", kind.name()))?;
        let url = format!("http://localhost:{}/controller?browser={}", address.port(), kind.name());
        let process = kind
            .command(directory.path(), &url)?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            kind,
            pages: pages.clone(),
            process: Mutex::new(process),
            _directory: directory,
        })
    }

    fn process(&self) -> MutexGuard<'_, Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which browser it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Opens a window that runs a case of `cases.js` or `web_api.js`.
    pub fn open(&self, case: &str, options: &Value) -> Window<'_> {
        let (job, results) = self.pages.open(self.kind.name(), case, options);
        Window {
            browser: self,
            job,
            results,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The whole process group, children included; `kill` because the standard library signals one process only.
        let mut process = self.process();
        let group = format!("-{}", process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = process.wait();
    }
}

/// A window with one case. Dropping it closes the window.
pub struct Window<'a> {
    browser: &'a Browser,
    job: u64,
    results: Receiver<Value>,
}

impl Window<'_> {
    /// Waits for the case's value; `Err` is what it threw, or that nothing came.
    pub fn result(&self, deadline: Duration) -> Result<Value, String> {
        let result = self.results.recv_timeout(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => match self.browser.process().try_wait() {
                Ok(None) => format!("no result within {} s", deadline.as_secs()),
                ended => format!("the browser has ended: {ended:?}"),
            },
            RecvTimeoutError::Disconnected => "the page server has gone".to_owned(),
        })?;
        match (result.get("ok"), result.get("error").and_then(Value::as_str)) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(error)) => Err(format!("the page threw {error}")),
            (None, None) => Err(format!("the page sent {result}")),
        }
    }

    /// Reloads the page, which runs its case again.
    pub fn reload(&self) {
        self.browser.pages.reload(self.browser.kind.name(), self.job);
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.browser.pages.close(self.browser.kind.name(), self.job);
    }
}
