use crate::harness::run;

#[test]
fn help_and_version_are_no_mistakes() {
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["bench", "client", "-h"],
        &["--version"],
    ] {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(!outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:?}");
        assert!(!outcome.stdout.contains('\x1b'), "no colour where no terminal is");
    }
}

#[test]
fn nothing_at_all_shows_the_help_and_is_a_mistake() {
    let outcome = run(&[]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("Usage: wireloom"), "{outcome:?}");
}

#[test]
fn a_mistake_is_one_line_and_code_2() {
    for args in [
        &["serv"][..],
        &["serve", "--bind", "nonsense"],
        &["serve", "--root", "/no/such/directory"],
        &["serve", "--cert", "only.pem"],
        &["connect"],
        &["connect", "http://127.0.0.1/"],
        &["connect", "https://127.0.0.1/", "--cert-hash", "abc"],
        &["probe", "127.0.0.1:4433"],
        &["probe", "https://user@127.0.0.1/"],
        &["call", "ws://127.0.0.1:99999/messages", "x"],
        &["listen", "ws://127.0.0.1:abc/"],
        &["serve", "--allow-origin", "https:///"],
        &["serve", "--max-per-address", "0"],
        &["cert", "generate", "--days", "0"],
        &[
            "cert",
            "generate",
            "--name",
            "no name",
            "--cert",
            "/dev/null",
            "--key",
            "/dev/null",
        ],
        &["bench", "--workload", "nonsense"],
        &["bench", "topics", "wss://127.0.0.1/messages"],
        &["bench", "topics", "nonsense"],
    ] {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(2), "{args:?}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{args:?}: {outcome:?}");
        assert!(outcome.stderr.starts_with("error: "), "{args:?}: {outcome:?}");
        assert!(outcome.stdout.is_empty(), "{args:?}: {outcome:?}");
    }
}

#[test]
fn programs_are_told_of_mistakes_too() {
    let outcome = run(&["connect", "--json", "nonsense"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert_eq!(outcome.event("error")["kind"], "usage");
    // What a bench prints are results.
    let outcome = run(&["bench", "--json", "--workload", "nonsense"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
}

#[test]
fn an_empty_rust_log_is_none() {
    let mut command = crate::harness::wireloom();
    command
        .args(["-vvv", "probe", "https://127.0.0.1:1/", "--timeout", "0.1"])
        .env("RUST_LOG", "");
    let outcome = crate::harness::feed(command, "");
    assert!(outcome.stderr.contains("TRACE"), "{outcome:?}");
}

#[test]
fn the_bench_of_topics_says_which_urls_it_takes() {
    let outcome = run(&["bench", "topics", "wss://127.0.0.1:1/messages"]);
    assert!(outcome.stderr.contains("only ws://"), "{outcome:?}");
}
