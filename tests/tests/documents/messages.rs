//! docs/troubleshooting.md has a row for every message that the program can give, and none for others.

use std::fs;
use std::path::Path;

use crate::literals::{Literal, of_sources};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Where what ships is: every text of some words in there is taken for a message.
const FOLDERS: [&str; 3] = ["crates", "plugins", "ipam"];

/// Texts of some words that are no messages about anything amiss: help, and what was done. Each begins like this.
const NO_MESSAGES: [&str; 16] = [
    "{} {}: CNI plugins that put",
    "{head}CNI spec versions",
    "Called by one of these names",
    "usage: ",
    "x01this program is an Underlay",
    "{}: {} {} is there already",
    "new; its predecessor is",
    "  nothing of {}'s",
    "as before",
    "waiting for SIGTERM",
    "leases addresses from this host's",
    "ipvlan in mode l2 and in no other",
    "puts a container on the host's LAN",
    "switches lo on in a container",
    "  install [--to DIRECTORY]",
    "  uninstall [--from DIRECTORY]",
];

fn messages() -> Vec<Literal> {
    let of_words = |text: &str| {
        let lower = |pair: &[u8]| pair.iter().all(u8::is_ascii_lowercase);
        text.trim().contains(' ') && text.as_bytes().windows(2).any(lower)
    };
    let literals = of_sources(Path::new(REPOSITORY), &FOLDERS).into_iter();
    literals
        .filter(|literal| of_words(&literal.text))
        .filter(|literal| !NO_MESSAGES.iter().any(|start| literal.text.starts_with(start)))
        .collect()
}

/// The rows of the document's tables: their cells.
fn rows() -> Vec<Vec<String>> {
    let path = Path::new(REPOSITORY).join("docs/troubleshooting.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The messages that a row is about: what its first cell has between backquotes.
fn of_rows(rows: &[Vec<String>]) -> Vec<String> {
    let quoted = |row: &Vec<String>| row[0].split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rows.iter().flat_map(quoted).collect()
}

/// What of a literal is in the message whatever it is about: all but the braces.
fn fixed(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((part, after)) = rest.split_once('{') {
        parts.push(part);
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    parts.push(rest);
    parts.into_iter().map(str::trim).filter(|part| part.bytes().any(|byte| byte.is_ascii_alphabetic())).collect()
}

/// Whether a row's message has all that is fixed of a literal, in that order.
fn is_about(row: &str, literal: &str) -> bool {
    let mut rest = row;
    fixed(literal).into_iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[test]
fn every_message_of_the_program_has_a_row() {
    let described = of_rows(&rows());
    let messages = messages();
    assert!(messages.len() > 200, "only {} messages were found", messages.len());
    let missing: Vec<String> = messages
        .iter()
        .filter(|message| !described.iter().any(|row| is_about(row, &message.text)))
        .map(|message| format!("{}: {}", message.place, message.text))
        .collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md has no row for\n{}", missing.join("\n"));
}

#[test]
fn every_row_is_about_a_message_of_the_program() {
    let messages = messages();
    // A row of capitals alone is about the frame that other messages are in.
    let of_words = |row: &String| row.bytes().any(|byte| byte.is_ascii_lowercase());
    let known =
        |row: &String| messages.iter().any(|message| !fixed(&message.text).is_empty() && is_about(row, &message.text));
    let stale: Vec<String> = of_rows(&rows()).into_iter().filter(|row| of_words(row) && !known(row)).collect();
    assert!(stale.is_empty(), "no code gives these messages:\n{}", stale.join("\n"));
}

#[test]
fn every_row_has_a_cause_and_a_cure() {
    for row in rows() {
        assert_eq!(row.len(), 3, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn a_text_that_is_not_in_a_row_is_missed() {
    assert_eq!(fixed("no address {a} in {b:?}: {c}"), ["no address", "in"]);
    assert!(is_about("no address A in B: C", "no address {a} in {b:?}: {c}"));
    assert!(!is_about("no address A: C", "no address {a} in {b:?}: {c}"));
    assert!(!of_rows(&rows()).iter().any(|row| is_about(row, "this text is in no row of {the} table")));
}
