//! An endpoint of the QUIC Interop Runner: `endpoint [wireloom | wtransport | web-transport-quinn]`.

use std::process::ExitCode;

use wireloom_interop::endpoint::{self, Implementation, run};

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_else(|| "wireloom".to_owned());
    let Some(implementation) = Implementation::parse(&name) else {
        eprintln!("endpoint: {name:?} is no implementation");
        return ExitCode::from(2);
    };
    endpoint::main(|settings| run(implementation, settings))
}
