//! The matrix of the QUIC Interop Runner's WebTransport cases: our endpoint and every peer's, in docs/interop.md.

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

/// Builds the endpoints, runs every pair, and writes the document.
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
        .arg("docs/interop.md")
        .args(endpoints.join(&"--".to_owned())))
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
