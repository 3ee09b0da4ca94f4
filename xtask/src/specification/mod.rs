//! Every MUST of the specifications that concerns an endpoint: quoted in a comment at the code that obeys it and in one at a
//! test that proves it, or listed in `spec/` with the reason why not. docs/specification.md shows who obeys what where.
//!
//! A quote is a comment (or documentation) that says `"the words of the list" (RFC 9114 section 6.2.1)`.

mod list;
mod quotes;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{Result, files_below, root};
use list::{Document, Treatment};
use quotes::Quote;

/// Rewrites the table instead of comparing it.
const BLESS: &str = "WIRELOOM_BLESS";
const TABLE: &str = "docs/specification.md";

/// A requirement with all that was found of it.
struct Coverage<'a> {
    document: &'a Document,
    requirement: &'a list::Requirement,
    code: Vec<&'a Quote>,
    tests: Vec<&'a Quote>,
}

/// Fails with every requirement that is neither obeyed and tested nor excepted, every quote that no list has, and a table
/// that is out of date.
pub(crate) fn check() -> Result {
    let documents = list::read(&root().join("spec"))?;
    let mut sources = Vec::new();
    for folder in subfolders(&root().join("crates"))? {
        sources.extend(sources_of(&folder.join("src"))?);
        sources.extend(sources_of(&folder.join("tests"))?);
    }
    sources.sort();
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for path in sources {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let (quotes, wrong) = quotes::find(&name, &text, &documents);
        found.extend(quotes);
        errors.extend(wrong);
    }
    let coverage = cover(&documents, &found);
    errors.extend(coverage.iter().filter_map(missing));
    if !errors.is_empty() {
        return Err(format!(
            "the specifications and the code differ:\n{}",
            errors.join("\n")
        ));
    }
    let is_excepted = |one: &&Coverage<'_>| matches!(one.requirement.treatment, Treatment::Excepted(_));
    let excepted = coverage.iter().filter(is_excepted).count();
    println!(
        "specification: {} requirements, {} obeyed and tested, {excepted} excepted with a reason",
        coverage.len(),
        coverage.len() - excepted
    );
    compare(&table::render(&documents, &coverage))
}

fn cover<'a>(documents: &'a [Document], found: &'a [Quote]) -> Vec<Coverage<'a>> {
    let mut coverage = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        for (index, requirement) in document.requirements.iter().enumerate() {
            let (tests, code) = found
                .iter()
                .filter(|quote| quote.document == at && quote.requirement == index)
                .partition(|quote| quote.test.is_some());
            coverage.push(Coverage {
                document,
                requirement,
                code,
                tests,
            });
        }
    }
    coverage
}

/// What a requirement lacks.
fn missing(one: &Coverage<'_>) -> Option<String> {
    let lacks = match (&one.requirement.treatment, one.code.is_empty(), one.tests.is_empty()) {
        (Treatment::Obeyed(_), true, true) => "is quoted nowhere",
        (Treatment::Obeyed(_), true, false) => "is quoted at no code that obeys it",
        (Treatment::Obeyed(_), false, true) => "is quoted at no test",
        (Treatment::Excepted(_), false, _) | (Treatment::Excepted(_), _, false) => {
            "is excepted and quoted all the same"
        }
        _ => return None,
    };
    let list::Requirement { section, quote, .. } = one.requirement;
    Some(format!("{} section {section}: \"{quote}\" {lacks}", one.document.name))
}

fn compare(table: &str) -> Result {
    let path = root().join(TABLE);
    if std::env::var_os(BLESS).is_some() {
        return fs::write(&path, table).map_err(|error| format!("{TABLE}: {error}"));
    }
    match fs::read_to_string(&path) {
        Ok(before) if before == table => Ok(()),
        _ => Err(format!(
            "{TABLE} is out of date: run `{BLESS}=1 cargo test -p xtask` and commit it"
        )),
    }
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect())
}

/// The Rust files below `folder`, which need not exist. `testing` folders hold neither code that obeys nor tests.
fn sources_of(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let is_testing = |path: &Path| path.file_stem().is_some_and(|stem| stem == "testing");
    let below = |path: &PathBuf| path.strip_prefix(folder).map(Path::to_owned).unwrap_or_default();
    let mut files = files_below(folder, &["rs"])?;
    files.retain(|path| !below(path).iter().any(|part| is_testing(Path::new(part))));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_must_is_obeyed_and_tested_or_excepted() {
        if let Err(error) = check() {
            panic!("{error}");
        }
    }

    #[test]
    fn what_is_missing() {
        let documents = [list::tests::document()];
        let quote = |requirement, test: Option<&str>| Quote {
            document: 0,
            requirement,
            file: "src/a.rs".to_owned(),
            test: test.map(str::to_owned),
        };
        let complaints = |found: &[Quote]| -> Vec<String> {
            let coverage = cover(&documents, found);
            let complaints = coverage.iter().filter_map(missing);
            complaints
                .filter_map(|line| Some(line.rsplit_once("\" ")?.1.to_owned()))
                .collect()
        };
        let whole = [quote(0, None), quote(0, Some("t")), quote(2, None), quote(2, Some("t"))];
        assert!(complaints(&whole).is_empty());
        assert_eq!(complaints(&[]), ["is quoted nowhere", "is quoted nowhere"]);
        assert_eq!(complaints(&whole[..3]), ["is quoted at no test"]);
        assert_eq!(complaints(&whole[1..]), ["is quoted at no code that obeys it"]);
        for excepted in [quote(1, None), quote(1, Some("t"))] {
            let mut found = vec![excepted];
            found.extend([quote(0, None), quote(0, Some("t")), quote(2, None), quote(2, Some("t"))]);
            assert_eq!(complaints(&found), ["is excepted and quoted all the same"]);
        }
    }
}
