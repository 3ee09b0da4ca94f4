//! Every test, counted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::shell::{Result, cargo, command, describe, root, run, target};
use crate::{setup, webwire_go};

/// One program that runs tests.
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) seconds: u64,
    /// By name, those that passed.
    pub(crate) tests: BTreeMap<String, bool>,
}

/// Everything.
pub(crate) fn test() -> Result {
    setup::install()?;
    programs()?;
    let outcomes = [
        count(
            "Rust",
            &mut cargo(&[
                "test",
                "--workspace",
                "--exclude",
                "wireloom-interop",
                "--locked",
                "--no-fail-fast",
            ]),
        )?,
        interop_suite(&[])?,
        crate::python::suite(&[], true)?,
        count("TypeScript", &mut npm(&["test"]))?,
        count("pages in browsers", &mut npm(&["run", "test:browsers"]))?,
    ];
    summarise(&outcomes)
}

/// The end-to-end tests drive the programs that users run.
fn programs() -> Result {
    let packages = ["--package", "wireloom-cli", "--package", "wireloom-examples"];
    let targets = ["--bins", "--examples"];
    run(cargo(&["build", "--release", "--locked"]).args(packages).args(targets))
}

/// `npm` in the TypeScript package, with those programs.
fn npm(arguments: &[&str]) -> Command {
    let mut npm = command("npm");
    npm.args(["--silent"])
        .args(arguments)
        .current_dir(root().join("bindings/typescript"))
        .env("WIRELOOM", target().join("release/wireloom"))
        .env("WIRELOOM_EXAMPLES", target().join("release/examples"));
    npm
}

/// The browsers and the other implementations.
pub(crate) fn interop(names: &[&str]) -> Result<BTreeMap<String, bool>> {
    setup::install()?;
    programs()?;
    let outcome = interop_suite(names)?;
    summarise(std::slice::from_ref(&outcome))?;
    Ok(outcome.tests)
}

fn interop_suite(names: &[&str]) -> Result<Outcome> {
    let mut tests = cargo(&[
        "test",
        "--package",
        "wireloom-interop",
        "--locked",
        "--no-fail-fast",
        "--",
    ]);
    tests.args(names).env("WIRELOOM", target().join("release/wireloom"));
    match webwire_go::program()? {
        Some(program) => {
            tests.arg("--include-ignored").env(webwire_go::PROGRAM, program);
        }
        None => println!(
            "not run: WebWire's original software: its Go modules cannot be had here; {} may name the program (interop/src/webwire.rs)",
            webwire_go::PROGRAM
        ),
    }
    count("browsers and other implementations", &mut tests)
}

/// Runs a program that closes with `test result: …` lines as `cargo test` does, passes its output on, and adds them up.
fn count(name: &str, command: &mut Command) -> Result<Outcome> {
    count_lines(name, command, |text, outcome| {
        if let Some(counts) = text.strip_prefix("test result: ") {
            outcome.passed += number_before(counts, " passed");
            outcome.failed += number_before(counts, " failed");
        } else if let Some((name, passed)) = verdict(text) {
            outcome.tests.insert(name.to_owned(), passed);
        }
    })
}

/// Runs a program that tests, passes its output on, and has `count` see what each of its lines tells.
pub(crate) fn count_lines(
    name: &str,
    command: &mut Command,
    mut count: impl FnMut(&str, &mut Outcome),
) -> Result<Outcome> {
    let line = describe(command);
    println!("$ {line}");
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{line}: {error}"))?;
    let mut outcome = Outcome {
        name: name.to_owned(),
        passed: 0,
        failed: 0,
        seconds: 0,
        tests: BTreeMap::new(),
    };
    let stdout = child.stdout.take().expect("standard output is piped");
    for text in BufReader::new(stdout).lines() {
        let text = text.map_err(|error| format!("{line}: {error}"))?;
        println!("{text}");
        count(&text, &mut outcome);
    }
    let status = child.wait().map_err(|error| format!("{line}: {error}"))?;
    if !status.success() && outcome.failed == 0 {
        // It did not compile, or died: one failure that no line has told.
        outcome.failed = 1;
    }
    outcome.seconds = start.elapsed().as_secs();
    Ok(outcome)
}

/// The name of a test and whether it passed.
fn verdict(line: &str) -> Option<(&str, bool)> {
    let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    match verdict {
        // Some harnesses align the verdicts.
        "ok" => Some((name.trim_end(), true)),
        "FAILED" => Some((name.trim_end(), false)),
        _ => None,
    }
}

pub(crate) fn number_before(text: &str, word: &str) -> u64 {
    let digits = text
        .split(word)
        .next()
        .and_then(|before| before.rsplit([' ', '.', ';']).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

pub(crate) fn summarise(outcomes: &[Outcome]) -> Result {
    println!();
    for Outcome {
        name,
        passed,
        failed,
        seconds,
        ..
    } in outcomes
    {
        println!("{name:<40} {passed:>6} passed {failed:>4} failed {seconds:>6} s");
    }
    let passed: u64 = outcomes.iter().map(|outcome| outcome.passed).sum();
    let failed: u64 = outcomes.iter().map(|outcome| outcome.failed).sum();
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        Ok(())
    } else {
        Err("tests failed".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_cargo_test() {
        let line = "FAILED. 33 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 97.33s";
        assert_eq!(
            (number_before(line, " passed"), number_before(line, " failed")),
            (33, 3)
        );
        assert_eq!(number_before("nothing", " passed"), 0);
    }

    #[test]
    fn the_verdicts_of_cargo_test() {
        assert_eq!(verdict("test firefox::echo   ... ok"), Some(("firefox::echo", true)));
        assert_eq!(verdict("test a::b ... FAILED"), Some(("a::b", false)));
        assert_eq!(verdict("test a ... ignored, needs b"), None);
        assert_eq!(verdict("test result: ok. 1 passed"), None);
    }
}
