//! What the tests need beyond Rust: Debian's packages, a Python environment, Node's packages.

use std::fs;

use crate::shell::{Result, command, on_path, output, root, run};

/// Program, Debian package, and why.
const PROGRAMS: [(&str, &str, &str); 10] = [
    ("chromium", "chromium", "the browser tests"),
    ("firefox-esr", "firefox-esr", "the browser tests"),
    ("curl", "curl", "the tests of HTTP/1.1 and HTTP/2"),
    (
        "python3",
        "python3",
        "the tests of the Python package, and interop against aioquic",
    ),
    ("cmake", "cmake", "building aws-lc on machines without a prepared build"),
    (
        "setpriv",
        "util-linux",
        "ending browsers and servers with their test; pinning benchmarks to a core",
    ),
    ("nats-server", "nats-server", "the tests of topics on several machines"),
    ("kill", "procps", "ending browsers with their test"),
    ("ip", "iproute2", "the network namespace of the pages' tests"),
    ("nft", "nftables", "the firewall in it"),
];

/// Pinned Python packages, installed into `.venv`.
const PYTHON: [&str; 2] = ["interop/aioquic/requirements.txt", "bindings/python/requirements.txt"];

/// Folders with a `package-lock.json`, as far as they exist.
const NODE: [&str; 1] = ["bindings/typescript"];

/// A program of the Python environment.
pub(crate) fn venv(program: &str) -> std::process::Command {
    command(root().join(".venv/bin").join(program))
}

/// Installs what is missing; running it again does nothing.
pub(crate) fn install() -> Result {
    packages()?;
    python()?;
    node()
}

fn packages() -> Result {
    let mut missing: Vec<(&str, &str)> = PROGRAMS
        .iter()
        .filter(|(program, ..)| !on_path(program))
        .map(|(_, package, why)| (*package, *why))
        .collect();
    // Debian's python3 has no ensurepip of its own.
    if !on_path("python3") || output(command("python3").args(["-c", "import ensurepip"])).is_none() {
        missing.push(("python3-venv", "the environment of the Python packages"));
    }
    if NODE
        .iter()
        .any(|folder| root().join(folder).join("package-lock.json").exists())
        && !on_path("npm")
    {
        missing.push(("nodejs", "the TypeScript tests"));
        missing.push(("npm", "the TypeScript tests"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    for (package, why) in &missing {
        println!("setup: {package} is missing; it is needed for {why}");
    }
    if !on_path("apt-get") {
        return Err("this is no Debian: install the packages above by other means".to_owned());
    }
    let packages = missing.iter().map(|(package, _)| *package);
    run(apt().arg("update"))?;
    run(apt()
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages))
}

/// One package that a command of its own needs, unless it is there.
pub(crate) fn package(name: &str, why: &str, is_there: bool) -> Result {
    if is_there {
        return Ok(());
    }
    println!("setup: {name} is missing; it is needed for {why}");
    run(apt().arg("update"))?;
    run(apt().args(["install", "--yes", "--no-install-recommends", name]))
}

fn apt() -> std::process::Command {
    let root = output(command("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    let mut apt = command(if root { "env" } else { "sudo" });
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]);
    apt
}

/// The Python packages.
pub(crate) fn python() -> Result {
    let venv = root().join(".venv");
    let wanted: Vec<&str> = PYTHON.into_iter().filter(|file| root().join(file).exists()).collect();
    let stamp = read_all(&wanted);
    if fs::read_to_string(venv.join("installed.txt")).is_ok_and(|installed| installed == stamp) {
        return Ok(());
    }
    println!("setup: Python packages for the tests, in .venv");
    run(command("python3").args(["-m", "venv", ".venv"]))?;
    pip_install(self::venv("python"), &wanted)?;
    fs::write(venv.join("installed.txt"), stamp).map_err(|error| error.to_string())
}

/// Installs what these files of the checkout name, for this interpreter.
pub(crate) fn pip_install(mut python: std::process::Command, requirements: &[&str]) -> Result {
    python.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    for file in requirements {
        python.args(["--requirement", file]);
    }
    run(&mut python)
}

fn node() -> Result {
    for folder in NODE {
        let folder = root().join(folder);
        let Ok(lock) = fs::read_to_string(folder.join("package-lock.json")) else {
            continue;
        };
        let stamp = folder.join("node_modules/.installed-lock.json");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
            continue;
        }
        println!("setup: Node packages of {}", folder.display());
        run(command("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder))?;
        fs::write(stamp, lock).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn read_all(files: &[&str]) -> String {
    files
        .iter()
        .filter_map(|file| fs::read_to_string(root().join(file)).ok())
        .collect()
}
