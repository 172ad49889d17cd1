//! The string literals of the sources that ship: a scan that knows comments, characters and raw strings, and nothing more
//! of the language.

use std::fs;
use std::path::{Path, PathBuf};

/// A literal and where it is.
#[derive(Debug)]
pub(crate) struct Literal {
    pub(crate) place: String,
    pub(crate) text: String,
}

/// Libraries that only tests use, and sources for them in others.
const NOT_SHIPPED: [&str; 3] = ["hostile", "tests", "fuzz.rs"];

/// All literals of the libraries below these folders of the repository that ship, without those of their tests.
pub(crate) fn of_sources(repository: &Path, folders: &[&str]) -> Vec<Literal> {
    let mut literals = Vec::new();
    for folder in folders {
        for library in directories(&repository.join(folder)) {
            if !NOT_SHIPPED.iter().any(|name| library.ends_with(name)) {
                read_folder(&library.join("src"), repository, &mut literals);
            }
        }
    }
    literals
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    entries.map(|entry| entry.expect("read a directory").path()).filter(|path| path.is_dir()).collect()
}

fn read_folder(folder: &Path, repository: &Path, literals: &mut Vec<Literal>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display())) {
        let path = entry.expect("read a directory").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if NOT_SHIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, repository, literals);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("read a source");
            let place = path.strip_prefix(repository).expect("below the repository").display().to_string();
            let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            literals.extend(scan(shipped).into_iter().map(|text| Literal { place: place.clone(), text }));
        }
    }
}

fn scan(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let raw =
            || rest.strip_prefix('r').map(|rest| rest.trim_start_matches('#')).is_some_and(|r| r.starts_with('"'));
        rest = if rest.starts_with("//") {
            rest.split_once('\n').map_or("", |(_, rest)| rest)
        } else if rest.starts_with('\'') {
            after_character(rest)
        } else if first == 'r' && !before.is_alphanumeric() && before != '_' && raw() {
            let hashes = rest.bytes().skip(1).take_while(|byte| *byte == b'#').count();
            let body = &rest[2 + hashes..];
            let (text, rest) = body.split_once(&format!("\"{}", "#".repeat(hashes))).expect("a raw string ends");
            found.push(text.to_owned());
            rest
        } else if first == '"' {
            let (text, rest) = string(&rest[1..]);
            found.push(text);
            rest
        } else {
            &rest[first.len_utf8()..]
        };
        before = first;
    }
    found
}

/// What follows a character or, where it is none, the mark of a lifetime.
fn after_character(rest: &str) -> &str {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            rest[at + escaped.len_utf8()..].split_once('\'').map_or("", |(_, rest)| rest)
        }
        (Some(_), Some((at, '\''))) => &rest[at + 1..],
        _ => &rest[1..],
    }
}

/// The text of a string without its escapes, and what follows it.
fn string(rest: &str) -> (String, &str) {
    let mut text = String::new();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (text, &rest[at + 1..]),
            '\\' => match characters.next() {
                // A line that goes on.
                Some((_, '\n')) => {
                    while characters.as_str().starts_with(|next: char| next.is_ascii_whitespace()) {
                        characters.next();
                    }
                }
                Some((_, 'n')) => text.push('\n'),
                Some((_, other)) => text.push(other),
                None => break,
            },
            other => text.push(other),
        }
    }
    panic!("a string does not end");
}

#[test]
fn literals_are_found_and_comments_and_lifetimes_are_not() {
    let source = r##"
        // "a comment"
        fn f<'a>(c: char) { let x = ['"', '\'', '\u{1}']; g("one \"two\"", r#"three "four""#, "five \
            six", 'a'); }
    "##;
    assert_eq!(scan(source), ["one \"two\"", "three \"four\"", "five six"]);
}
