//! The Python package: its tests, its checks, its wheels.

use std::fs;
use std::path::{Path, PathBuf};

use crate::setup;
use crate::shell::{Result, cargo, command, output, root, run, target};
use crate::suite::{Outcome, count_lines, number_before, summarise};

/// The tests, or those that `names` names below bindings/python/tests.
pub(crate) fn test(names: &[&str]) -> Result {
    setup::install()?;
    summarise(&[suite(names, false)?])
}

/// Builds the native module as the other tests have built everything else, and runs pytest on the package of the checkout.
pub(crate) fn suite(names: &[&str], after_rust: bool) -> Result<Outcome> {
    let mut build = cargo(&["build", "--workspace", "--exclude", "wireloom-interop", "--locked"]);
    build.args(["--lib", "--bin", "wireloom"]);
    if after_rust {
        // With the features of the Rust tests, so that no dependency is compiled twice.
        build.arg("--tests");
    }
    run(&mut build)?;
    let package = target().join("debug/python");
    lay_out(&package, &target().join("debug/lib_wireloom.so"))?;
    let mut pytest = setup::venv("python");
    pytest.args(["-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--color=no"]);
    if names.is_empty() {
        pytest.arg("bindings/python/tests");
    }
    pytest.args(names.iter().map(|name| root().join("bindings/python/tests").join(name)));
    pytest
        .env("WIRELOOM_PACKAGE", &package)
        .env("WIRELOOM", target().join("debug/wireloom"));
    count_lines("Python", &mut pytest, |text, outcome| {
        // The last line: `2 failed, 97 passed, 1 error in 60.00s (0:01:00)`
        if text.contains(" in ") && (text.contains(" passed") || text.contains(" failed") || text.contains(" error")) {
            outcome.passed = number_before(text, " passed");
            outcome.failed = number_before(text, " failed") + number_before(text, " error");
        }
    })
}

/// The package of the checkout with a native module.
pub(crate) fn lay_out(folder: &Path, module: &Path) -> Result {
    let package = folder.join("wireloom");
    let text = |error: std::io::Error| error.to_string();
    let _ = fs::remove_dir_all(&package);
    fs::create_dir_all(&package).map_err(text)?;
    let sources = fs::read_dir(root().join("bindings/python/python/wireloom")).map_err(text)?;
    for source in sources
        .flatten()
        .filter(|file| file.path().extension().is_some_and(|end| end == "py"))
    {
        fs::copy(source.path(), package.join(source.file_name())).map_err(text)?;
    }
    fs::copy(module, package.join("_wireloom.abi3.so")).map_err(text)?;
    Ok(())
}

/// ruff and mypy.
pub(crate) fn lint() -> Result {
    setup::python()?;
    run(setup::venv("ruff").args(["format", "--check", "--quiet", "bindings/python", "benches/python"]))?;
    run(setup::venv("ruff").args(["check", "--quiet", "bindings/python", "benches/python"]))?;
    run(setup::venv("mypy").current_dir(root().join("bindings/python")))
}

/// One wheel for each interpreter that the machine has, and the one for all. Each is installed into an environment of its own
/// interpreter and imported.
pub(crate) fn wheels() -> Result {
    setup::python()?;
    let out = target().join("wheels");
    let _ = fs::remove_dir_all(&out);
    let versions = ["3.11", "3.12", "3.13", "3.14", "3.13t", "3.14t"];
    // A shim of a version manager may be there without its interpreter.
    let works = |python: &str| output(command(python).args(["-c", "print(1)"])).is_some();
    let interpreters: Vec<String> = versions
        .iter()
        .map(|version| format!("python{version}"))
        .filter(|python| works(python))
        .collect();
    let Some(first) = interpreters.first() else {
        return Err("there is no interpreter of Python 3.11 or newer".to_owned());
    };
    let build = |interpreter: &str, features: &[&str]| {
        let mut maturin = setup::venv("maturin");
        maturin.args(["build", "--locked", "--manifest-path", "bindings/python/Cargo.toml"]);
        maturin
            .args(["--interpreter", interpreter, "--out"])
            .arg(&out)
            .args(features);
        run(&mut maturin)
    };
    for interpreter in &interpreters {
        build(interpreter, &[])?;
    }
    build(first, &["--features", "abi3"])?;
    for wheel in fs::read_dir(&out).map_err(|error| error.to_string())?.flatten() {
        let name = wheel.file_name().to_string_lossy().into_owned();
        for interpreter in interpreters.iter().filter(|python| is_for(&name, python)) {
            let environment = environment_of(&out, interpreter);
            run(command(interpreter).args(["-m", "venv"]).arg(&environment))?;
            let python = environment.join("bin/python");
            run(command(&python)
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-index",
                    "--disable-pip-version-check",
                ])
                .arg(wheel.path()))?;
            run(command(&python).args(["-c", "import wireloom; print(wireloom.__version__, wireloom.run)"]))?;
            run(command(environment.join("bin/wireloom-asgi")).arg("--version"))?;
            fs::remove_dir_all(&environment).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn environment_of(out: &Path, interpreter: &str) -> PathBuf {
    let environment = out.join(format!("import-{interpreter}"));
    let _ = fs::remove_dir_all(&environment);
    environment
}

/// Whether the interpreter takes the wheel.
fn is_for(wheel: &str, interpreter: &str) -> bool {
    let digits: String = interpreter.chars().filter(char::is_ascii_digit).collect();
    let abi = if interpreter.ends_with('t') {
        format!("{digits}t")
    } else {
        digits.clone()
    };
    wheel.contains(&format!("-cp{digits}-cp{abi}-")) || (wheel.contains("-abi3-") && !interpreter.ends_with('t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_find_their_interpreters() {
        let abi3 = "wireloom-0.1.0-cp311-abi3-manylinux_2_34_x86_64.whl";
        let own = "wireloom-0.1.0-cp313-cp313-manylinux_2_34_x86_64.whl";
        let free = "wireloom-0.1.0-cp313-cp313t-manylinux_2_34_x86_64.whl";
        assert!(is_for(abi3, "python3.11") && is_for(abi3, "python3.13") && !is_for(abi3, "python3.13t"));
        assert!(is_for(own, "python3.13") && !is_for(own, "python3.12") && !is_for(own, "python3.13t"));
        assert!(is_for(free, "python3.13t") && !is_for(free, "python3.13"));
    }
}
