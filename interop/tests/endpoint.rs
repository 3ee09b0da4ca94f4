//! The endpoint of the QUIC Interop Runner in both roles against itself, every case, as programs. `cargo xtask interop` pairs it
//! with others.

use std::process::Command;

use wireloom_interop::endpoint::pair::{CASES, Program, run};

const ENDPOINT: &str = env!("CARGO_BIN_EXE_endpoint");

#[tokio::test(flavor = "multi_thread")]
async fn every_case_with_itself() {
    let ours = Program {
        command: vec![ENDPOINT.into(), "wireloom".into()],
    };
    for case in CASES {
        if let Err(error) = run(case, &ours, &ours).await {
            panic!("{}: {error}", case.name);
        }
    }
}

/// As the runner asks: a case that nobody knows, and no requests.
#[test]
fn unsupported_cases_exit_with_127_in_both_roles() {
    for role in ["client", "server"] {
        let mut endpoint = Command::new(ENDPOINT);
        endpoint
            .env("ROLE", role)
            .env("TESTCASE", "made-up")
            .env("REQUESTS", "");
        assert_eq!(endpoint.status().expect("it runs").code(), Some(127), "{role}");
    }
}
