//! What must hold of every commit besides the tests.

use crate::dependencies;
use crate::documented;
use crate::shell::{Result, cargo, on_path, run};
use crate::specification;

type Check = fn() -> Result;

/// Runs all checks and tells all failures, not only the first.
pub(crate) fn run_all() -> Result {
    let checks: [(&str, Check); 9] = [
        ("formatting", formatting),
        ("clippy", clippy),
        ("features", features),
        ("documentation", documentation),
        ("licences, bans, sources", deny),
        ("direct dependencies", dependencies::check),
        ("specifications", specification::check),
        ("names in documents", documented::check),
        ("Python", crate::python::lint),
    ];
    let failed: Vec<&str> = checks
        .into_iter()
        .filter(|(_, check)| check().inspect_err(|error| eprintln!("xtask: {error}")).is_err())
        .map(|(name, _)| name)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("lint failed: {}", failed.join("; ")))
    }
}

/// What is apart from the workspace, because it needs a nightly compiler or builds another TLS library.
const APART: [&str; 3] = [
    "fuzz/Cargo.toml",
    "benches/quiche/Cargo.toml",
    "interop/quiche/Cargo.toml",
];

fn formatting() -> Result {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    APART
        .iter()
        .try_for_each(|manifest| run(&mut cargo(&["fmt", "--check", "--manifest-path", manifest])))
}

fn clippy() -> Result {
    let scope = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked"];
    run(cargo(&scope).args(["--", "--deny", "warnings"]))
}

/// Packages with fewer features than all: what users ask for who do not want the rest.
const FEATURES: [(&str, &str); 6] = [
    ("wireloom", ""),
    ("wireloom-messaging", ""),
    ("wireloom-messaging", "server"),
    ("wireloom-messaging", "client"),
    ("wireloom-messaging", "server,client,webtransport"),
    ("wireloom-messaging", "server,websocket"),
];

fn features() -> Result {
    FEATURES.iter().try_for_each(|(package, features)| {
        let scope = ["clippy", "--locked", "--package", package, "--no-default-features"];
        run(cargo(&scope).args(["--features", features, "--", "--deny", "warnings"]))
    })
}

fn documentation() -> Result {
    let mut doc = cargo(&["doc", "--workspace", "--all-features", "--no-deps", "--locked"]);
    run(doc.env("RUSTDOCFLAGS", "--deny warnings"))
}

fn deny() -> Result {
    if !on_path("cargo-deny") {
        println!("lint: installing cargo-deny, which checks the licences and sources of all dependencies");
        run(&mut cargo(&["install", "--locked", "cargo-deny@0.20.2"]))?;
    }
    // Not `advisories`: they come from a git repository, which CI does not reach. Run `cargo deny check` where it is.
    run(&mut cargo(&[
        "deny",
        "--all-features",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))
}
