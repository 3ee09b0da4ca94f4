//! What README.md shows is what the documentation of the crates has, where it is compiled.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// The code blocks of Rust as they are read, without the lines that rustdoc hides.
fn blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in markdown.lines() {
        match &mut block {
            None if line == "```rust" || line == "```no_run" => block = Some(String::new()),
            None => {}
            Some(_) if line == "```" => blocks.extend(block.take()),
            Some(_) if line.starts_with("# ") => {}
            Some(text) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    blocks
}

#[test]
fn readme_shows_what_is_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let compiled: Vec<String> = ["crates/wireloom/src/lib.rs", "crates/wireloom-messaging/src/lib.rs"]
        .into_iter()
        .flat_map(|path| {
            let source = read(path);
            let docs = source.lines().map_while(|line| line.strip_prefix("//!"));
            let docs: Vec<&str> = docs.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
            blocks(&docs.join("\n"))
        })
        .collect();
    let shown = blocks(&read("README.md"));
    assert!(shown.len() > 3, "{shown:?}");
    for block in shown {
        assert!(compiled.contains(&block), "only README.md has this:\n{block}");
    }
}
