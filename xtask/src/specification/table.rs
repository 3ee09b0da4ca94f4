//! docs/specification.md.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::Coverage;
use super::list::{Document, Requirement, Treatment};
use super::quotes::Quote;

const HEAD: &str = "\
# Where the specifications are obeyed

Every MUST, MUST NOT and SHALL that concerns an endpoint, in the words of the document; where it is obeyed, and which test
proves it; or why not. `cargo xtask test` compares this with the lists in [spec/](../spec) and the quotes in the code; written
by `WIRELOOM_BLESS=1 cargo test -p xtask`.
";

pub(super) fn render(documents: &[Document], coverage: &[Coverage<'_>]) -> String {
    let mut out = HEAD.to_owned();
    for document in documents {
        let own = || coverage.iter().filter(|one| one.document.name == document.name);
        let excepted = own()
            .filter(|one| matches!(one.requirement.treatment, Treatment::Excepted(_)))
            .count();
        let obeyed = own().count() - excepted;
        let _ = write!(
            out,
            "\n## {}: {}\n\n{} requirements: {obeyed} obeyed and tested, {excepted} not.\n\n\
             | Section | Requirement | Obeyed in | Tested by |\n|---|---|---|---|\n",
            document.name,
            document.title,
            obeyed + excepted
        );
        own().for_each(|one| row(&mut out, one));
    }
    out
}

fn row(out: &mut String, one: &Coverage<'_>) {
    let Requirement {
        section,
        quote,
        treatment,
    } = one.requirement;
    let quote = quote.replace('|', "\\|");
    let _ = match treatment {
        Treatment::Excepted(reason) => writeln!(out, "| {section} | {quote} | not: {reason} | |"),
        Treatment::Obeyed(note) => {
            let note = note.as_ref().map(|note| format!(" *({note})*")).unwrap_or_default();
            let (code, tests) = (join(&one.code), join(&one.tests));
            writeln!(out, "| {section} | {quote}{note} | {code} | {tests} |")
        }
    };
}

fn join(quotes: &[&Quote]) -> String {
    let names: BTreeSet<String> = quotes
        .iter()
        .map(|quote| {
            let file = quote.file.strip_prefix("crates/").unwrap_or(&quote.file);
            match &quote.test {
                Some(test) => format!("{file}: `{test}`"),
                None => file.to_owned(),
            }
        })
        .collect();
    names.into_iter().collect::<Vec<_>>().join("<br>")
}
