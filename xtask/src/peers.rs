//! Other implementations that `interop` and `bench peers` build apart from the workspace, because of what they need.

use std::path::PathBuf;

use crate::setup;
use crate::shell::{Result, cargo, command, output, run, target};

/// What is installed of those in Python.
pub(crate) const PYTHON: &str = "benches/python/requirements.txt";

/// Interpreters, newest first: pywebtransport needs 3.12.
const PYTHONS: [&str; 4] = ["python3.14", "python3.13", "python3.12", "python3"];

/// Builds a program on web-transport-quiche, beneath which is BoringSSL; the folder that it is in.
pub(crate) fn build_quiche(manifest: &str) -> Result<PathBuf> {
    setup::package(
        "libclang-dev",
        "the bindings to BoringSSL, beneath web-transport-quiche",
        output(command("sh").args(["-c", "ls /usr/lib/llvm-*/lib/libclang.so*"])).is_some(),
    )?;
    let folder = target().join("bench-quiche");
    let build = ["build", "--release", "--locked", "--manifest-path", manifest];
    run(cargo(&build).env("CARGO_TARGET_DIR", &folder))?;
    Ok(folder.join("release"))
}

/// An environment with the peers in Python.
pub(crate) struct Python {
    pub(crate) interpreter: PathBuf,
    pub(crate) has_pywebtransport: bool,
}

/// With the newest interpreter that there is.
pub(crate) fn python() -> Result<Python> {
    let is_new = "import sys; assert sys.version_info >= (3, 12)";
    // A shim of a version manager may be there without its interpreter.
    let newest = PYTHONS
        .into_iter()
        .find(|python| output(command(python).args(["-c", is_new])).is_some());
    if newest.is_none() {
        println!("not run: pywebtransport needs Python 3.12 or newer");
    }
    let program = newest.unwrap_or("python3");
    // One for each: an environment keeps the version with which it was made.
    let venv = target().join(format!("bench-{program}"));
    let interpreter = venv.join("bin/python");
    run(command(program).args(["-m", "venv"]).arg(&venv))?;
    setup::pip_install(command(&interpreter), &[PYTHON])?;
    Ok(Python {
        interpreter,
        has_pywebtransport: newest.is_some(),
    })
}
