//! The project's own commands: `cargo xtask` lists them. CI runs `lint` and `test`; so can anybody, on a bare Debian 12 with
//! rustup, as root or with sudo: each command installs what it misses, and says so.

mod bench;
mod bench_guard;
mod bench_peers;
mod bench_topics;
mod dependencies;
mod documented;
mod fuzz;
mod interop;
mod lint;
mod peers;
mod python;
mod setup;
mod shell;
mod specification;
mod suite;
mod versions;
mod webwire_go;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  setup           installs what the other commands need and is missing, and nothing else
  test            setup, then every test: Rust, browsers, other implementations
  interop         our endpoint of the QUIC Interop Runner beside every peer's, every case, and the tests below, into docs/interop.md
  interop tests [NAME]
                  setup, then the tests with browsers and other implementations only
  python [PATH]   setup, then the tests of the Python package only, or those in a file of bindings/python/tests
  wheels          the Python wheels, each imported by the interpreter that it is for, in target/wheels
  lint            formatting, clippy, documentation, licences, dependencies, the specifications' coverage
  bench           the micro-benchmarks
  bench quinn     the workloads of benches/WORKLOADS.md, Wireloom beside raw QUIC [--rounds N] [--seconds N] [WORKLOAD...]
  bench flow-control
                  the same beside Wireloom without flow control of sessions: what that costs
  bench peers     the same beside every other implementation from the registries, into docs/performance.md [--rounds N]
                  [--seconds N] [WORKLOAD...]
  bench guard     instructions of the hot paths, by valgrind, against benches/instructions.txt [--write]
  bench topics    setup, then one publisher and a thousand subscribers: Wireloom beside Socket.IO and core NATS,
                  deliveries a second and latency on a quiet stream [--rounds N] [--seconds N]
  bench asgi      ASGI servers from PyPI beside ours: CPU time per request and echo [--rounds N] [--seconds N] [WORKLOAD...]
  soak            ten thousand idle sessions, then floods beside a session that must not notice: memory, latency, what is left
  soak idle|flood one of them
  fuzz [MINUTES]  every fuzz target for its share of the time (10 unless told)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["setup"] => setup::install(),
        ["test"] => suite::test(),
        ["interop"] => interop::matrix(),
        ["interop", "tests", names @ ..] => suite::interop(names).map(drop),
        ["python", names @ ..] => python::test(names),
        ["wheels"] => python::wheels(),
        ["lint"] => lint::run_all(),
        ["bench"] => bench::micro(),
        ["bench", "quinn", rest @ ..] => bench::compare("raw-quinn", rest),
        ["bench", "flow-control", rest @ ..] => bench::compare("no-flow-control", rest),
        ["bench", "peers", rest @ ..] => bench_peers::compare(rest),
        ["bench", "guard", rest @ ..] => bench_guard::check(rest),
        ["bench", "topics", rest @ ..] => setup::install().and_then(|()| bench_topics::compare(rest)),
        ["bench", "asgi", rest @ ..] => bench::asgi(rest),
        ["soak", rest @ ..] => bench::soak(rest),
        ["fuzz", rest @ ..] => fuzz::run_all(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
