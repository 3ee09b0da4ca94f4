//! `bench guard`: the instructions of the hot paths, counted by valgrind, against those that the repository remembers. Other than times
//! they are the same on a busy machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;

use crate::setup;
use crate::shell::{Result, cargo, command, on_path, output, root};

const REMEMBERED: &str = "benches/instructions.txt";
const PACKAGES: [&str; 2] = ["wireloom-proto", "wireloom-messaging"];
/// How much more is a regression. Random seeds of hash tables make up to one per cent.
const TOLERANCE: f64 = 0.03;

/// Counts, and compares or, with `--write`, remembers.
pub(crate) fn check(arguments: &[&str]) -> Result {
    let write = match arguments {
        [] => false,
        ["--write"] => true,
        _ => return Err("bench guard takes --write or nothing".to_owned()),
    };
    setup::package("valgrind", "counting instructions", on_path("valgrind"))?;
    let compiler = output(command("rustc").arg("--version")).unwrap_or_default();
    let compiler = compiler.trim();
    let mut counts = BTreeMap::new();
    for package in PACKAGES {
        let program = build(package)?;
        let names = output(&mut command(&program)).ok_or_else(|| format!("{program} names no cases"))?;
        for name in names.lines() {
            counts.insert(format!("{package}/{name}"), instructions(&program, name)?);
        }
    }
    if write {
        let mut text = format!("# Instructions, by `cargo xtask bench guard --write`, with {compiler}\n");
        for (name, count) in &counts {
            let _ = writeln!(text, "{name} {count}");
        }
        return fs::write(root().join(REMEMBERED), text).map_err(|error| format!("{REMEMBERED}: {error}"));
    }
    let text = fs::read_to_string(root().join(REMEMBERED)).map_err(|error| format!("{REMEMBERED}: {error}"))?;
    if !text.lines().next().is_some_and(|head| head.ends_with(compiler)) {
        println!("note: the remembered counts are another compiler's than {compiler}");
    }
    compare(&remembered(&text), &counts)
}

fn remembered(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let counts = lines.filter_map(|line| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    counts.collect()
}

/// Prints every case; an error names those that have more instructions than before, or that nobody remembers.
fn compare(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Result {
    let mut worse = Vec::new();
    for (name, &count) in now {
        let Some(&old) = before.get(name) else {
            println!("{name:<42} {:>10} {count:>10}", "new");
            worse.push(name.as_str());
            continue;
        };
        let change = count as f64 / old as f64 - 1.0;
        println!("{name:<42} {old:>10} {count:>10} {:>+7.2} %", 100.0 * change);
        if change > TOLERANCE {
            worse.push(name);
        }
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        println!("{name:<42} is gone");
        worse.push(name);
    }
    if worse.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "more instructions than {REMEMBERED} allows, or other cases: {}; `cargo xtask bench guard --write` accepts them",
            worse.join(", ")
        ))
    }
}

/// The program with the package's cases.
fn build(package: &str) -> Result<String> {
    let scope = [
        "bench",
        "--no-run",
        "--locked",
        "--package",
        package,
        "--bench",
        "guard",
    ];
    let mut cargo = cargo(&scope);
    cargo.arg("--message-format=json").stderr(Stdio::inherit());
    let messages = cargo.output().map_err(|error| error.to_string())?;
    let messages = String::from_utf8_lossy(&messages.stdout);
    let program = messages
        .lines()
        .filter_map(|line| line.split_once("\"executable\":\"")?.1.split_once('"'))
        .find(|(program, _)| program.contains("guard-"));
    program
        .map(|(program, _)| program.to_owned())
        .ok_or_else(|| format!("cargo bench --package {package} --bench guard built nothing"))
}

/// Of what runs in the function `measured`.
fn instructions(program: &str, case: &str) -> Result<u64> {
    let mut valgrind = command("valgrind");
    valgrind.args([
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--toggle-collect=*guard*measured*",
    ]);
    let told = valgrind
        .args([program, case])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let told = String::from_utf8_lossy(&told.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected : "));
    collected
        .and_then(|(_, count)| count.trim().parse().ok())
        .filter(|&count| count > 0)
        .ok_or_else(|| format!("{case}: valgrind counted nothing:\n{told}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn more_than_the_tolerance_fails_and_less_does_not() {
        let before = counts(&[("a", 1000), ("b", 1000)]);
        assert!(compare(&before, &counts(&[("a", 1029), ("b", 500)])).is_ok());
        assert!(compare(&before, &counts(&[("a", 1031), ("b", 1000)])).is_err());
    }

    #[test]
    fn other_cases_than_are_remembered_fail() {
        let before = counts(&[("a", 1000)]);
        assert!(compare(&before, &counts(&[("a", 1000), ("b", 1)])).is_err());
        assert!(compare(&before, &counts(&[])).is_err());
        assert_eq!(remembered("# head\na 1000\n"), before);
    }
}
