//! Benchmarks: within our crates, and beside others.

use crate::shell::{Result, cargo, command, run, target};

/// The criterion benchmarks of the crates.
pub(crate) fn micro() -> Result {
    run(&mut cargo(&["bench", "--workspace", "--locked"]))
}

/// A side-by-side run of benches/WORKLOADS.md.
pub(crate) fn compare(against: &str, arguments: &[&str]) -> Result {
    run(&mut cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "wireloom-cli",
        "--package",
        "wireloom-benches",
    ]))?;
    let mut compare = command(target().join("release/compare"));
    run(compare.args(["--against", against]).args(arguments))
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
