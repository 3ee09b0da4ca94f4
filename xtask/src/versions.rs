//! Which versions of others the project is pinned to, for the documents that name them.

use std::fs;

use crate::shell::{Result, root};

/// What follows `before` in a line of a file of versions.
pub(crate) fn pinned(file: &str, before: &str) -> Result<String> {
    let text = fs::read_to_string(root().join(file)).map_err(|error| format!("{file}: {error}"))?;
    let found = text
        .lines()
        .find_map(|line| Some(line.split_once(before)?.1.split(';').next()?.trim().to_owned()));
    found.ok_or_else(|| format!("{file} has no {before:?}"))
}

/// A crate's version in a lock file of Cargo.
pub(crate) fn locked(file: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(root().join(file)).map_err(|error| format!("{file}: {error}"))?;
    let after = text.split_once(&format!("name = \"{name}\"\nversion = \""));
    let version = after.and_then(|(_, rest)| rest.split_once('"'));
    version
        .map(|(version, _)| version.to_owned())
        .ok_or_else(|| format!("{file} has no {name}"))
}
