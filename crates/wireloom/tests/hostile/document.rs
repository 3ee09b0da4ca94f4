//! `docs/hostile.md`, made from the table.

use std::fmt::Write;
use std::path::Path;

use crate::table::{SECTIONS, cases};

fn document() -> String {
    let mut text = String::from(
        "# Hostile and malformed input\n\n\
         Made from the table of `crates/wireloom/tests/hostile/table.rs`, whose reactions the tests assert with these exact \
         bytes over\nreal connections: `WIRELOOM_BLESS=1 cargo test -p wireloom --test hostile document` writes it anew. \
         Around each of them\nanother session goes on working, and afterwards connections, sessions, streams, tasks and \
         allocated memory are back where\nthey were.\n\n\
         Sections are those of RFC 9114 unless another document is named: a number is an RFC, WT is \
         draft-ietf-webtrans-http3-16.\n",
    );
    for section in SECTIONS {
        write!(text, "\n## {}\n\n", section.title).unwrap();
        if !section.note.is_empty() {
            write!(text, "{}\n\n", section.note).unwrap();
        }
        text.push_str("| | Input | Section | Reaction | Scope | Test |\n|-|-|-|-|-|-|\n");
        for case in section.cases {
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | `{}` |",
                case.number,
                case.what,
                case.section,
                case.reaction.text(),
                case.reaction.scope(),
                case.test
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn the_document_is_that_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hostile.md");
    let document = document();
    if std::env::var_os("WIRELOOM_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &document).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == document,
        "docs/hostile.md is out of date: WIRELOOM_BLESS=1 writes it"
    );
}

#[test]
fn every_number_has_a_test_that_names_it() {
    let mut numbers: Vec<u8> = cases().map(|case| case.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=103).collect::<Vec<u8>>());
    for case in cases() {
        let (module, function) = case.test.split_once("::").unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/hostile/{module}.rs"));
        let source = std::fs::read_to_string(path).unwrap();
        let start = source.find(&format!("async fn {function}() {{"));
        let body = start.and_then(|at| source[at..].split("\n}\n").next());
        let body = body.unwrap_or_else(|| panic!("{} is no test", case.test));
        let call = format!("case({})", case.number);
        assert!(body.contains(&call), "{} does not use {call}", case.test);
    }
}
