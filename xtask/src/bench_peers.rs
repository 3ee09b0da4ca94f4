//! `bench peers`: Wireloom beside every other implementation, all workloads of benches/WORKLOADS.md, into docs/performance.md.

use crate::peers;
use crate::shell::{Result, command, output, root, run, target};
use crate::versions::{locked, pinned};

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
    let folder = peers::build_quiche("benches/quiche/Cargo.toml")?;
    let version = locked("benches/quiche/Cargo.lock", "web-transport-quiche")?;
    peers.add("web-transport-quiche", &version);
    peers.path("--quiche", &folder.join("peer-quiche"));
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
    let python = peers::python()?;
    peers.path("--python", &python.interpreter);
    peers.add("aioquic", &pinned(peers::PYTHON, "aioquic==")?);
    if python.has_pywebtransport {
        peers.add("pywebtransport", &pinned(peers::PYTHON, "pywebtransport==")?);
    }
    Ok(())
}
