//! The matrix of the QUIC Interop Runner's WebTransport cases: our endpoint and every peer's, in docs/interop.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::peers;
use crate::setup;
use crate::shell::{Result, cargo, command, output, root, run, target};
use crate::versions::{locked, pinned};

/// The endpoints of crates: the name of the crate is also the program's argument.
const CRATES: [&str; 3] = ["wireloom", "wtransport", "web-transport-quinn"];

/// The endpoints on webtransport-go: name, file of modules, build tags.
const GO: [(&str, &str, &str); 2] = [
    ("webtransport-go", "go.mod", ""),
    ("webtransport-go v0.9", "v09.mod", "v09"),
];

const DOCUMENT: &str = "docs/interop.md";

/// The browsers as the tests call them, and their programs.
const BROWSERS: [(&str, &str); 3] = [
    ("chromium", "chromium"),
    ("experimental", "chromium"),
    ("firefox", "firefox-esr"),
];

/// Builds the endpoints, runs every pair and every test, and writes the document.
pub(crate) fn matrix() -> Result {
    setup::python()?;
    run(&mut cargo(&[
        "build",
        "--workspace",
        "--bin",
        "endpoint",
        "--bin",
        "matrix",
        "--locked",
    ]))?;
    let programs = target().join("debug");
    let path = |program: &Path| program.display().to_string();
    let mut endpoints: Vec<Vec<String>> = Vec::new();
    for name in CRATES {
        let version = locked("Cargo.lock", name)?;
        endpoints.push(vec![
            name.to_owned(),
            version,
            path(&programs.join("endpoint")),
            name.to_owned(),
        ]);
    }
    for (name, modules, tags) in GO {
        match go(name, modules, tags)? {
            Some((version, program)) => endpoints.push(vec![name.to_owned(), version, program]),
            None => println!("not run: {name} needs Go 1.26 or newer"),
        }
    }
    endpoints.push(vec![
        "aioquic".to_owned(),
        pinned("interop/aioquic/requirements.txt", "aioquic==")?,
        path(&root().join(".venv/bin/python")),
        path(&root().join("interop/aioquic/endpoint.py")),
    ]);
    let quiche = peers::build_quiche("interop/quiche/Cargo.toml")?;
    endpoints.push(vec![
        "web-transport-quiche".to_owned(),
        locked("interop/quiche/Cargo.lock", "web-transport-quiche")?,
        path(&quiche.join("endpoint-quiche")),
    ]);
    let python = peers::python()?;
    if python.has_pywebtransport {
        endpoints.push(vec![
            "pywebtransport".to_owned(),
            pinned(peers::PYTHON, "pywebtransport==")?,
            path(&python.interpreter),
            path(&root().join("interop/pywebtransport/endpoint.py")),
        ]);
    }
    run(command(programs.join("matrix"))
        .arg(DOCUMENT)
        .args(endpoints.join(&"--".to_owned())))?;
    let tests = crate::suite::interop(&[])?;
    let mut document = fs::read_to_string(root().join(DOCUMENT)).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    document.push_str(&tests_in_markdown(&tests));
    fs::write(root().join(DOCUMENT), document).map_err(|error| format!("{DOCUMENT}: {error}"))
}

/// Those of each browser side by side, then the others.
fn tests_in_markdown(tests: &BTreeMap<String, bool>) -> String {
    let version = |program: &str| {
        let told = output(command(program).arg("--version")).unwrap_or_default();
        told.split_whitespace()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
            .map_or_else(|| "?".to_owned(), str::to_owned)
    };
    let mut text = String::from(
        "\n## Browsers\n\nAn empty cell: the case is not run there, because the browser has not what it is about, or another has shown it.\n\n|",
    );
    for (name, program) in BROWSERS {
        let _ = write!(text, " | {name} {}", version(program));
    }
    let _ = writeln!(text, " |\n|---|{}", "---|".repeat(BROWSERS.len()));
    let word = |passed: &bool| if *passed { "yes" } else { "no" };
    let cases: BTreeSet<&str> = tests
        .keys()
        .filter_map(|name| name.split_once("::"))
        .filter(|(browser, _)| BROWSERS.iter().any(|(name, _)| name == browser))
        .map(|(_, case)| case)
        .collect();
    for case in &cases {
        let _ = write!(text, "| {case}");
        for (browser, _) in BROWSERS {
            let passed = tests.get(&format!("{browser}::{case}")).map_or("", word);
            let _ = write!(text, " | {passed}");
        }
        text.push_str(" |\n");
    }
    text.push_str("\n## The other tests with other implementations\n\n| | |\n|---|---|\n");
    let is_of_browser = |name: &str| name.split_once("::").is_some_and(|(_, case)| cases.contains(case));
    let is_of_ours_alone = |name: &str| name.contains("::tests::");
    for (name, passed) in tests
        .iter()
        .filter(|(name, _)| !is_of_browser(name) && !is_of_ours_alone(name))
    {
        let _ = writeln!(text, "| {} | {} |", name.replace('_', " "), word(passed));
    }
    text
}

/// Builds the endpoint; `None` without a Go that is new enough. Another toolchain than the machine's own would be fetched from
/// elsewhere than the module proxy.
fn go(name: &str, modules: &str, tags: &str) -> Result<Option<(String, String)>> {
    let folder = root().join("interop/webtransport-go");
    let modules_flag = format!("-modfile={modules}");
    let go = |arguments: &[&str]| {
        let mut go = command("go");
        go.args(arguments).current_dir(&folder).env("GOTOOLCHAIN", "local");
        go
    };
    if output(&mut go(&["list", &modules_flag, "."])).is_none() {
        return Ok(None);
    }
    let program = target().join(format!("endpoint-{}", name.replace(' ', "-")));
    let program = program.display().to_string();
    run(&mut go(&[
        "build",
        &modules_flag,
        "-tags",
        tags,
        "-o",
        &program,
        "./endpoint",
    ]))?;
    let file = format!("interop/webtransport-go/{modules}");
    Ok(Some((pinned(&file, "github.com/quic-go/webtransport-go ")?, program)))
}
