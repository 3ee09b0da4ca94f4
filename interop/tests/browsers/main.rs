//! Chromium and Firefox against the server. One process starts both browsers; every test is a window of one of them.
//!
//! `cargo test -p wireloom-interop --test browsers -- firefox` runs one browser's; any part of a name selects.

mod cases;
mod web_api;

use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use wireloom::ServerStats;
use wireloom_interop::browser::{Browser, Kind};
use wireloom_interop::journal::{Journal, PATIENCE};
use wireloom_interop::page::Pages;
use wireloom_interop::peers::{self, Target};
use wireloom_interop::program::Serve;

/// How many windows of one browser work at the same time; most of them only wait.
const WINDOWS: usize = 4;

struct Lab {
    browser: Browser,
    target: Target,
    /// The same server, to which the page's origin is a foreign one.
    strict: Target,
    journal: Arc<Journal>,
}

type Outcome = Result<(), String>;
type Case = fn(&Lab, &str) -> Outcome;

impl Lab {
    fn options(&self, path: &str, id: &str) -> Value {
        json!({"url": format!("{}{path}id={id}", self.target.url), "hash": self.target.hash})
    }

    fn run(&self, case: &str, options: &Value) -> Result<Value, String> {
        self.browser.open(case, options).result(PATIENCE)
    }

    fn kind(&self) -> Kind {
        self.browser.kind()
    }

    fn chromium(&self) -> bool {
        self.kind() != Kind::Firefox
    }
}

fn with(mut options: Value, more: &[(&str, Value)]) -> Value {
    for (name, value) in more {
        options[*name] = value.clone();
    }
    options
}

fn equal<T: PartialEq + std::fmt::Debug>(got: &T, expected: &T) -> Outcome {
    if got == expected {
        Ok(())
    } else {
        Err(format!("got {got:?}, expected {expected:?}"))
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Tests mostly wait, so there may be more of them than cores; the browsers' windows are what is limited.
    arguments.test_threads.get_or_insert(2 * WINDOWS);

    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let journal = Arc::new(Journal::default());
    let (pages, address) = runtime.block_on(Pages::serve()).expect("the pages are served");
    let origin = format!("http://localhost:{}", address.port());
    let serve = |origins: &[String]| {
        runtime
            .block_on(peers::wireloom::serve(journal.clone(), origins))
            .expect("the server starts")
    };
    let (target, monitor) = serve(std::slice::from_ref(&origin));
    let (strict, strict_monitor) = serve(&[]);
    let _serve = (!arguments.list).then(|| {
        let serve = Serve::start(&["--allow-origin", &origin]).expect("`wireloom serve` starts");
        pages.show_demo(&serve.page);
        serve
    });
    let labs = Kind::ALL.map(|kind| {
        // A listing starts nothing.
        let lab = (!arguments.list).then(|| Lab {
            browser: Browser::start(kind, &pages, address).expect("the browser starts"),
            target: target.clone(),
            strict: strict.clone(),
            journal: journal.clone(),
        });
        (kind, lab.map(Arc::new))
    });

    let mut trials = Vec::new();
    let everywhere = cases::CASES
        .into_iter()
        .map(|(name, case)| (name, &Kind::USUAL[..], case));
    for (name, kinds, case) in everywhere.chain(web_api::CASES) {
        for (kind, lab) in labs.iter().filter(|(kind, _)| kinds.contains(kind)) {
            let id = format!("{}-{name}", kind.name());
            let lab = lab.clone();
            trials.push(Trial::test(format!("{}::{name}", kind.name()), move || {
                let lab = lab.ok_or("not started")?;
                case(&lab, &id).map_err(Failed::from)
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(labs); // ends the browsers, without a word to the server
    let gone = Trial::test("killed_browsers_leave_nothing", move || {
        let deadline = Instant::now() + PATIENCE;
        while [&monitor, &strict_monitor]
            .into_iter()
            .any(|monitor| monitor.stats() != ServerStats::default())
        {
            if Instant::now() > deadline {
                return Err(format!("{monitor:?} {strict_monitor:?}").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        journal.wait_all_idle().map_err(Failed::from)
    });
    let gone = libtest_mimic::run(&arguments, vec![gone]);
    if conclusion.has_failed() || gone.has_failed() {
        std::process::exit(101);
    }
}
