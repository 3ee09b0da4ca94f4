//! `bench peers`: Wireloom beside every other implementation, all workloads of benches/WORKLOADS.md, into docs/performance.md.

use std::path::PathBuf;

use crate::setup;
use crate::shell::{Result, cargo, command, output, root, run, target};
use crate::versions::{locked, pinned};

const PYTHON_PEERS: &str = "benches/python/requirements.txt";

/// Where pip finds it, pywebtransport needs 3.12.
const PYTHONS: [&str; 4] = ["python3.14", "python3.13", "python3.12", "python3"];

/// What the program `compare` is told of the peers.
#[derive(Default)]
struct Peers {
    options: Vec<String>,
}

impl Peers {
    fn add(&mut self, name: &str, version: &str) {
        self.options.extend(["--against".to_owned(), name.to_owned()]);
        self.fact(name, version);
    }

    fn fact(&mut self, name: &str, version: &str) {
        self.options
            .extend(["--version".to_owned(), format!("{name}={version}")]);
    }

    fn path(&mut self, option: &str, path: &std::path::Path) {
        self.options.extend([option.to_owned(), path.display().to_string()]);
    }
}

/// Builds what can be built, runs it, and writes the document unless workloads are named.
pub(crate) fn compare(arguments: &[&str]) -> Result {
    crate::bench::build_compare()?;
    let mut peers = Peers::default();
    peers.fact("wireloom", &locked("Cargo.lock", "wireloom")?);
    for name in ["wtransport", "web-transport-quinn", "h3-quinn"] {
        peers.add(name, &locked("Cargo.lock", name)?);
    }
    peers.add("raw-quinn", &locked("Cargo.lock", "quinn")?);
    peers.add(
        "sealed-udp",
        &format!("aws-lc-rs {}", locked("Cargo.lock", "aws-lc-rs")?),
    );
    quiche(&mut peers)?;
    go(&mut peers)?;
    python(&mut peers)?;
    let is_whole = arguments.iter().all(|argument| {
        let is_number = argument.parse::<f64>().is_ok();
        argument.starts_with("--") || is_number
    });
    if is_whole {
        peers
            .options
            .extend(["--write".to_owned(), "docs/performance.md".to_owned()]);
    }
    run(command(target().join("release/compare"))
        .args(peers.options)
        .args(arguments))
}

fn quiche(peers: &mut Peers) -> Result {
    setup::package(
        "libclang-dev",
        "the bindings to BoringSSL, beneath web-transport-quiche",
        output(command("sh").args(["-c", "ls /usr/lib/llvm-*/lib/libclang*.so*"])).is_some(),
    )?;
    let folder = target().join("bench-quiche");
    let manifest = "benches/quiche/Cargo.toml";
    run(cargo(&["build", "--release", "--locked", "--manifest-path", manifest]).env("CARGO_TARGET_DIR", &folder))?;
    peers.add(
        "web-transport-quiche",
        &locked("benches/quiche/Cargo.lock", "web-transport-quiche")?,
    );
    peers.path("--quiche", &folder.join("release/peer-quiche"));
    Ok(())
}

fn go(peers: &mut Peers) -> Result {
    let folder = root().join("benches/webtransport-go");
    let go = |arguments: &[&str]| {
        let mut go = command("go");
        // Another toolchain than the machine's own would be fetched from elsewhere than the module proxy.
        go.args(arguments).current_dir(&folder).env("GOTOOLCHAIN", "local");
        go
    };
    if output(&mut go(&["list", "."])).is_none() {
        println!("not run: webtransport-go needs Go 1.26 or newer");
        return Ok(());
    }
    let program = target().join("bench-webtransport-go");
    run(go(&["build", "-o"]).arg(&program).arg("."))?;
    let version = pinned("benches/webtransport-go/go.mod", "github.com/quic-go/webtransport-go ")?;
    peers.add("webtransport-go", &version);
    peers.path("--webtransport-go", &program);
    Ok(())
}

fn python(peers: &mut Peers) -> Result {
    let runs = |program: &str, code: &str| output(command(program).args(["-c", code])).is_some();
    let is_new = "import sys; assert sys.version_info >= (3, 12)";
    let newest = PYTHONS.into_iter().find(|python| runs(python, is_new));
    let venv = target().join("bench-python");
    let interpreter: PathBuf = venv.join("bin/python");
    run(command(newest.unwrap_or("python3")).args(["-m", "venv"]).arg(&venv))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ];
    run(command(&interpreter).args(pip).arg(PYTHON_PEERS))?;
    peers.path("--python", &interpreter);
    peers.add("aioquic", &pinned(PYTHON_PEERS, "aioquic==")?);
    if newest.is_some() {
        peers.add("pywebtransport", &pinned(PYTHON_PEERS, "pywebtransport==")?);
    } else {
        println!("not run: pywebtransport needs Python 3.12 or newer");
    }
    Ok(())
}
