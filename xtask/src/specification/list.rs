//! The lists of requirements: one text file for each document.
//!
//! ```text
//! document RFC 9114: HTTP/3
//! reason push: no push is ever allowed
//!
//! [4.1]
//! A client MUST send only a single request on a given stream
//! PUSH_PROMISE frames [...]
//!   except push
//! [4.1.2]
//! Clients MUST NOT accept a malformed response
//!   note: only as far as the core sees it
//! ```
//!
//! A line is a requirement in the document's own words; an indented line says more of the one before it. Lines that begin
//! with `#` are comments.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::shell::Result;

/// A specification.
pub(super) struct Document {
    /// How quotes name it.
    pub(super) name: String,
    pub(super) title: String,
    pub(super) requirements: Vec<Requirement>,
}

/// One MUST.
pub(super) struct Requirement {
    pub(super) section: String,
    pub(super) quote: String,
    pub(super) treatment: Treatment,
}

/// What becomes of it.
pub(super) enum Treatment {
    /// Obeyed and tested, perhaps with a limit that has to be told.
    Obeyed(Option<String>),
    /// Not, and why.
    Excepted(String),
}

/// All lists of the folder, by file name.
pub(super) fn read(folder: &Path) -> Result<Vec<Document>> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let parse_file = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    };
    files
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(parse_file)
        .collect()
}

fn parse(text: &str) -> Result<Document> {
    let mut document = Document {
        name: String::new(),
        title: String::new(),
        requirements: Vec::<Requirement>::new(),
    };
    let mut reasons = BTreeMap::new();
    let mut section = String::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
    {
        if let Some(more) = line.strip_prefix("  ") {
            let Some(last) = document.requirements.last_mut() else {
                return Err(format!("nothing that this could speak of: {line}"));
            };
            if !matches!(last.treatment, Treatment::Obeyed(None)) {
                return Err(format!("a second word on the same requirement: {line}"));
            }
            last.treatment = treatment(more, &reasons)?;
        } else if let Some((name, title)) = definition(line, "document ") {
            (document.name, document.title) = (name, title);
        } else if let Some((name, reason)) = definition(line, "reason ") {
            reasons.insert(name, reason);
        } else if let Some(number) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            number.clone_into(&mut section);
        } else {
            add(&mut document.requirements, &section, line)?;
        }
    }
    if document.name.is_empty() {
        return Err("the list does not name its document".to_owned());
    }
    Ok(document)
}

fn add(requirements: &mut Vec<Requirement>, section: &str, quote: &str) -> Result {
    if section.is_empty() {
        return Err(format!("in no section: {quote}"));
    }
    if requirements
        .iter()
        .any(|before| before.section == section && before.quote == quote)
    {
        return Err(format!("twice in section {section}: {quote}"));
    }
    if !says_must(quote) {
        return Err(format!("no requirement: {quote}"));
    }
    requirements.push(Requirement {
        section: section.to_owned(),
        quote: quote.to_owned(),
        treatment: Treatment::Obeyed(None),
    });
    Ok(())
}

/// Whether the words are a requirement (BCP 14).
pub(super) fn says_must(words: &str) -> bool {
    words
        .split(|c: char| !c.is_ascii_alphabetic())
        .any(|word| matches!(word, "MUST" | "SHALL" | "REQUIRED"))
}

/// `kind NAME: TEXT`.
fn definition(line: &str, kind: &str) -> Option<(String, String)> {
    let (name, text) = line.strip_prefix(kind)?.split_once(": ")?;
    Some((name.to_owned(), text.trim().to_owned()))
}

fn treatment(words: &str, reasons: &BTreeMap<String, String>) -> Result<Treatment> {
    if let Some(note) = words.strip_prefix("note: ").filter(|note| !note.trim().is_empty()) {
        return Ok(Treatment::Obeyed(Some(note.trim().to_owned())));
    }
    if let Some(reason) = words
        .strip_prefix("except: ")
        .filter(|reason| !reason.trim().is_empty())
    {
        return Ok(Treatment::Excepted(reason.trim().to_owned()));
    }
    let known = words.strip_prefix("except ").and_then(|name| reasons.get(name.trim()));
    known
        .filter(|reason| !reason.is_empty())
        .map(|reason| Treatment::Excepted(reason.clone()))
        .ok_or_else(|| format!("neither a note nor an exception with a reason: {words}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const LIST: &str = "\
# A comment.
document RFC 1: One
reason never: it never happens

[2]
A peer MUST say \"hello\" first
  note: in German
It MUST NOT shout
  except never
[2.1]
It SHALL leave
";

    pub(in crate::specification) fn document() -> Document {
        parse(LIST).expect("a good list")
    }

    #[test]
    fn a_list() {
        let document = document();
        assert_eq!((&*document.name, &*document.title), ("RFC 1", "One"));
        let sections: Vec<_> = document.requirements.iter().map(|one| &*one.section).collect();
        assert_eq!(sections, ["2", "2", "2.1"]);
        let treatments: Vec<_> = document.requirements.iter().map(|one| &one.treatment).collect();
        assert!(matches!(treatments[0], Treatment::Obeyed(Some(note)) if note == "in German"));
        assert!(matches!(treatments[1], Treatment::Excepted(reason) if reason == "it never happens"));
        assert!(matches!(treatments[2], Treatment::Obeyed(None)));
    }

    #[test]
    fn lists_that_say_nothing() {
        for (from, to) in [
            ("document RFC 1: One\n", ""),
            ("[2]\n", ""),
            ("It SHALL leave", "It leaves"),
            ("It SHALL leave", "It SHALL leave\nIt SHALL leave"),
            ("  except never", "  except always"),
            ("  except never", "  except: "),
            ("  except never", "  except never\n  except never"),
        ] {
            assert!(parse(&LIST.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
