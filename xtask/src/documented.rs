//! The names of Wireloom in docs/migrating.md are those of the code.

use std::collections::HashSet;
use std::fs;

use crate::shell::{Result, files_below, root};

const PAGE: &str = "docs/migrating.md";
/// Where those names are.
const SOURCES: [&str; 3] = ["crates", "bindings/typescript/src", "examples"];

/// Fails with every identifier in code of the last column of a table that no source has.
pub(crate) fn check() -> Result {
    let mut known = HashSet::new();
    for folder in SOURCES {
        for path in files_below(&root().join(folder), &["rs", "ts"])? {
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            known.extend(identifiers(&text));
        }
    }
    let page = fs::read_to_string(root().join(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let unknown: Vec<String> = names(&page).filter(|name| !known.contains(name)).collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(format!("{PAGE} names what is nowhere: {}", unknown.join(", ")))
    }
}

/// Those in code of the last column of each table.
fn names(page: &str) -> impl Iterator<Item = String> + '_ {
    page.lines()
        .filter(|line| line.starts_with('|'))
        .filter_map(|row| row.trim_end_matches('|').rsplit('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .flat_map(identifiers)
}

/// The words of a text that may be names. Those of fewer letters than four are placeholders.
fn identifiers(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.len() > 3 && word.starts_with(|c: char| c.is_ascii_alphabetic()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_in_code_of_the_last_column() {
        let page = "`not_a_table`\n| peer | Wireloom |\n|---|---|\n| `theirs()` | one `ours(vec![1], &x)`, `Our::Other` or two |\n";
        assert_eq!(names(page).collect::<Vec<_>>(), ["ours", "Other"]);
    }
}
