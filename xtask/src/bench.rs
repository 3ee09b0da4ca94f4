//! Benchmarks: within our crates, and beside others.

use crate::shell::{Result, cargo, command, run, target};

/// The criterion benchmarks of the crates.
pub(crate) fn micro() -> Result {
    run(&mut cargo(&["bench", "--workspace", "--locked"]))
}

/// The programs that benches/WORKLOADS.md names, as far as the workspace has them.
pub(crate) fn build_compare() -> Result {
    run(&mut cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "wireloom-cli",
        "--package",
        "wireloom-benches",
    ]))
}

/// A side-by-side run of benches/WORKLOADS.md.
pub(crate) fn compare(against: &str, arguments: &[&str]) -> Result {
    build_compare()?;
    let mut compare = command(target().join("release/compare"));
    run(compare.args(["--against", against]).args(arguments))
}

/// ASGI servers side by side.
pub(crate) fn asgi(arguments: &[&str]) -> Result {
    crate::setup::python()?;
    crate::setup::pip_install(crate::setup::venv("python"), &["benches/asgi/requirements.txt"])?;
    let locked = ["build", "--locked", "--package"];
    run(cargo(&locked).args(["wireloom-benches", "--release", "--bin", "asgi"]))?;
    // The package as it is in the checkout, with the native module built as in a wheel.
    run(cargo(&locked).args(["wireloom-python", "--profile", "dist", "--lib"]))?;
    let package = target().join("bench-asgi");
    crate::python::lay_out(&package, &target().join("dist/lib_wireloom.so"))?;
    let program = target().join("release/asgi");
    let mut asgi = if crate::shell::on_path("taskset") {
        let mut pinned = command("taskset");
        pinned.args(["-c", "1"]).arg(program);
        pinned
    } else {
        command(program)
    };
    asgi.arg("--python").arg(crate::shell::root().join(".venv/bin"));
    run(asgi.arg("--package").arg(package).args(arguments))
}

/// Figures of benches/src/soak.
pub(crate) fn soak(arguments: &[&str]) -> Result {
    let scope = [
        "build",
        "--release",
        "--locked",
        "--package",
        "wireloom-benches",
        "--bin",
        "soak",
    ];
    run(&mut cargo(&scope))?;
    run(command(target().join("release/soak")).args(arguments))
}
