//! The quotes in the comments of one file.

use super::list::{Document, says_must};

/// A requirement, quoted.
pub(super) struct Quote {
    /// Its place in the documents, and its own in that document.
    pub(super) document: usize,
    pub(super) requirement: usize,
    pub(super) file: String,
    /// The test's name, `None` in code.
    pub(super) test: Option<String>,
}

/// Consecutive lines of comment, joined.
struct Block {
    text: String,
    first: usize,
    after: usize,
}

/// All quotes of the file, and what is wrong with others.
pub(super) fn find(file: &str, text: &str, documents: &[Document]) -> (Vec<Quote>, Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    // Unit tests come last.
    let tests_from = if file.contains("/tests/") || file.ends_with("/tests.rs") {
        0
    } else {
        lines
            .iter()
            .position(|line| line.trim() == "#[cfg(test)]")
            .unwrap_or(lines.len())
    };
    let (mut quotes, mut errors) = (Vec::new(), Vec::new());
    for block in blocks(&lines) {
        let place = format!("{file}:{}", block.first + 1);
        let cited = match cited(&block.text, documents) {
            Ok(cited) => cited,
            Err(error) => {
                errors.push(format!("{place}: {error}"));
                continue;
            }
        };
        if cited.is_empty() {
            continue;
        }
        let test = (block.first >= tests_from).then(|| test_of(&lines, &block));
        if matches!(test, Some(None)) {
            errors.push(format!("{place}: a quote that belongs to no test"));
            continue;
        }
        quotes.extend(cited.into_iter().map(|(document, requirement)| Quote {
            document,
            requirement,
            file: file.to_owned(),
            test: test.clone().flatten(),
        }));
    }
    (quotes, errors)
}

fn blocks(lines: &[&str]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(words) = line.trim_start().strip_prefix("//") else {
            continue;
        };
        let words = words.trim_start_matches(['/', '!']).trim();
        match blocks.last_mut() {
            Some(block) if block.after == at => {
                block.text.push(' ');
                block.text.push_str(words);
                block.after += 1;
            }
            _ => blocks.push(Block {
                text: words.to_owned(),
                first: at,
                after: at + 1,
            }),
        }
    }
    blocks
}

/// What a comment quotes. An error is a quote with a MUST that the list of its document does not have in that section.
fn cited(text: &str, documents: &[Document]) -> Result<Vec<(usize, usize)>, String> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find("\" (").map(|at| from + at) {
        let citation = &text[at + 3..];
        let named = documents
            .iter()
            .enumerate()
            .find_map(|(index, document)| Some((index, document, citation.strip_prefix(&*document.name)?)));
        if let Some((index, document, rest)) = named {
            let before = &text[from..at];
            for section in sections(rest) {
                let is_quoted = |quote: &str| before.strip_suffix(quote).is_some_and(|before| before.ends_with('"'));
                let requirement = document
                    .requirements
                    .iter()
                    .position(|one| one.section == section && is_quoted(&one.quote));
                match requirement {
                    Some(requirement) => found.push((index, requirement)),
                    None if says_must(before) => {
                        return Err(format!(
                            "{} section {section} does not say (in spec/): {before}",
                            document.name
                        ));
                    }
                    None => {}
                }
            }
        }
        from = at + 3;
    }
    Ok(found)
}

/// The numbers in ` section 4.1)`, ` sections 4.1 and 4.2, of which …`.
fn sections(citation: &str) -> Vec<&str> {
    let Some(numbers) = citation
        .strip_prefix(" section")
        .map(|rest| rest.trim_start_matches('s'))
    else {
        return Vec::new();
    };
    let end = numbers.find([')', ';', ':']).unwrap_or(numbers.len());
    let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    numbers[..end]
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .take_while(|word| *word == "and" || is_number(word))
        .filter(is_number)
        .collect()
}

/// The test that a comment stands before or in.
fn test_of(lines: &[&str], block: &Block) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(lines[block.first]);
    let is_attribute = |line: &&&str| line.trim_start().starts_with("#[");
    // Before: its documentation.
    let next = lines[block.after..].iter().find(|line| !is_attribute(line));
    let at = match next.and_then(|line| function(line)) {
        Some(_) => block.after + lines[block.after..].iter().take_while(is_attribute).count(),
        // In: the function that begins further left.
        None => (0..block.first)
            .rev()
            .find(|&at| function(lines[at]).is_some() && indent(lines[at]) < own)?,
    };
    let attributes = lines[..at].iter().rev().take_while(|line| {
        let line = line.trim_start();
        line.starts_with("#[") || line.starts_with("//")
    });
    let is_test = attributes
        .into_iter()
        .any(|line| line.contains("test]") || line.contains("test("));
    function(lines[at]).filter(|_| is_test).map(str::to_owned)
}

/// The name of the function that the line begins.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::super::list;
    use super::*;

    fn documents() -> Vec<Document> {
        vec![list::tests::document()]
    }

    #[test]
    fn quotes_in_code_and_at_tests() {
        let text = r#"
// "A peer MUST say "hello" first" (RFC 1 section 2), and
// "It SHALL
// leave" (RFC 1 section 2.1).
fn greet() {}

#[cfg(test)]
mod tests {
    /// "It SHALL leave" (RFC 1 section 2.1).
    #[test]
    fn leaves() {
        // "A peer MUST say "hello" first" (RFC 1 sections 2 of which more is said elsewhere).
    }
}
"#;
        let (quotes, errors) = find("src/a.rs", text, &documents());
        assert_eq!(errors, Vec::<String>::new());
        let found: Vec<_> = quotes
            .iter()
            .map(|quote| (quote.requirement, quote.test.as_deref()))
            .collect();
        assert_eq!(found, [(0, None), (2, None), (2, Some("leaves")), (0, Some("leaves"))]);
    }

    #[test]
    fn quotes_that_are_wrong() {
        for wrong in [
            "// \"It SHALL stay\" (RFC 1 section 2.1).",
            "// \"It SHALL leave\" (RFC 1 section 2).",
            "fn helper() {\n    // \"It SHALL leave\" (RFC 1 section 2.1).\n}",
        ] {
            let (quotes, errors) = find("a/tests/b.rs", wrong, &documents());
            assert_eq!((quotes.len(), errors.len()), (0, 1), "{wrong}");
        }
        // Quotes of what is no requirement, and of other documents.
        for other in [
            "// \"It may stay\" (RFC 1 section 2).",
            "// \"It MUST stay\" (RFC 2 section 2).",
        ] {
            let (quotes, errors) = find("src/b.rs", other, &documents());
            assert_eq!((quotes.len(), errors.len()), (0, 0), "{other}");
        }
    }

    #[test]
    fn several_sections() {
        assert_eq!(sections(" section 4.1), and so on"), ["4.1"]);
        assert_eq!(sections(" sections 5.6.2, 5.6.3 and 6), 7"), ["5.6.2", "5.6.3", "6"]);
        assert_eq!(sections(" is long)"), Vec::<&str>::new());
    }
}
