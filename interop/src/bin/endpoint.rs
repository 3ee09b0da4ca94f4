//! An endpoint of the QUIC Interop Runner: `endpoint [wireloom | wtransport | web-transport-quinn]`.

use std::process::ExitCode;

use wireloom_interop::endpoint::settings::{Settings, UNSUPPORTED};
use wireloom_interop::endpoint::{Implementation, run};

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_else(|| "wireloom".to_owned());
    let Some(implementation) = Implementation::parse(&name) else {
        eprintln!("endpoint: {name:?} is no implementation");
        return ExitCode::from(2);
    };
    let settings = match Settings::read(|name| std::env::var(name).ok()) {
        Ok(Some(settings)) => settings,
        Ok(None) => return ExitCode::from(UNSUPPORTED),
        Err(error) => {
            eprintln!("endpoint: {error}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    match runtime.block_on(run(implementation, settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("endpoint: {error}");
            ExitCode::FAILURE
        }
    }
}
