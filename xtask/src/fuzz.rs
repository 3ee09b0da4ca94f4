//! The fuzz targets, which need a nightly compiler and cargo-fuzz.

use crate::shell::{Result, cargo, command, on_path, output, root, run, target};

/// All targets, each for its share of the minutes.
pub(crate) fn run_all(arguments: &[&str]) -> Result {
    let minutes: u64 = match arguments {
        [] => 10,
        [minutes] => minutes
            .parse()
            .map_err(|_| format!("{minutes} is not a number of minutes"))?,
        _ => return Err("fuzz takes the number of minutes only".to_owned()),
    };
    if output(command("rustc").args(["+nightly", "--version"])).is_none() {
        return Err("fuzzing needs a nightly compiler: rustup toolchain install nightly".to_owned());
    }
    if !on_path("cargo-fuzz") {
        println!("fuzz: installing cargo-fuzz");
        run(&mut cargo(&["install", "--locked", "cargo-fuzz"]))?;
    }
    let folder = root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut targets: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    targets.sort();
    let seconds = (minutes * 60 / targets.len().max(1) as u64).max(1);
    // What a run finds goes beside the target directory's other products; the corpus of the repository is only read.
    let found = target().join("fuzz-found");
    let mut failed = Vec::new();
    for target in &targets {
        let grown = found.join(target);
        std::fs::create_dir_all(&grown).map_err(|error| format!("{}: {error}", grown.display()))?;
        let mut fuzz = command("cargo");
        fuzz.args(["+nightly", "fuzz", "run", target])
            .arg(&grown)
            .arg(format!("fuzz/corpus/{target}"));
        // A finding ends its target only: cargo-fuzz has said which input it was.
        if let Err(error) = run(fuzz.args(["--", &format!("-max_total_time={seconds}")])) {
            eprintln!("fuzz: {error}");
            failed.push(target.as_str());
        }
    }
    println!("fuzz: {} targets, {seconds} s each", targets.len());
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("fuzzing found something in {}", failed.join(", ")))
    }
}
