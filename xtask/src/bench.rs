//! Benchmarks: within our crates, and beside others.

use crate::shell::{Result, cargo, command, run, target};

/// The criterion benchmarks of the crates.
pub(crate) fn micro() -> Result {
    run(&mut cargo(&["bench", "--workspace", "--locked"]))
}

/// The side-by-side run of benches/WORKLOADS.md.
pub(crate) fn beside_quinn(arguments: &[&str]) -> Result {
    run(&mut cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "wireloom-cli",
        "--package",
        "wireloom-benches",
    ]))?;
    run(command(target().join("release/compare")).args(arguments))
}
