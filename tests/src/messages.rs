//! Checks messages against docs/troubleshooting.md. Every message that a plugin prints in a test must have a row
//! there, and every row must be about a text in the program.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/troubleshooting.md");

/// The cells of all rows of the tables.
pub fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(PAGE).unwrap_or_else(|e| panic!("read {PAGE}: {e}"));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The messages of the rows: the texts between backquotes in the first cells.
pub fn described() -> &'static [String] {
    static DESCRIBED: OnceLock<Vec<String>> = OnceLock::new();
    DESCRIBED.get_or_init(|| {
        let quoted = |row: &Vec<String>| row[0].split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        rows().iter().flat_map(quoted).collect()
    })
}

/// The fixed parts of a message. A word in capitals, or N, is a placeholder.
pub fn fixed(message: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for word in message.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let letters = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_placeholder =
            letters == "N" || letters.len() > 1 && letters.bytes().all(|byte| byte.is_ascii_uppercase());
        if is_placeholder && !is_abbreviation(letters) {
            parts.push(word[letters.len()..].to_owned());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(word);
        }
    }
    let is_text = |part: &String| part.bytes().any(|byte| byte.is_ascii_alphabetic());
    parts.into_iter().map(|part| part.trim().to_owned()).filter(is_text).collect()
}

fn is_abbreviation(word: &str) -> bool {
    const ALL: [&str; 15] = [
        "ADD", "CAP", "CHECK", "CNI", "DEL", "GC", "IP", "LAN", "MAC", "MTU", "PID", "RFC", "SIGTERM", "STATUS", "UTF",
    ];
    ALL.contains(&word)
}

/// Returns true if a text has all fixed parts of a message, in their order.
pub fn is_about(message: &str, text: &str) -> bool {
    let parts = fixed(message);
    let mut rest = text;
    // A short word such as `open` is in many texts, so the text must begin with it.
    let is_short = parts.concat().len() < 8;
    if is_short && !message.starts_with(|c: char| c.is_ascii_lowercase()) {
        return false;
    }
    let begins = |part: &String| text.starts_with(part.as_str()) || text.contains(&format!(": {part}"));
    (!is_short || parts.iter().take(1).all(begins))
        && parts.iter().all(|part| match rest.split_once(part.as_str()) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
}

/// Panics if no row of the page is about this text.
#[track_caller]
pub fn assert_described(text: &str) {
    assert!(
        described().iter().any(|message| is_about(message, text)),
        "docs/troubleshooting.md has no row for: {text}"
    );
}

/// Returns true if three consecutive words of a message are in the bytes of a program.
pub fn is_said_by(program: &[u8], message: &str) -> bool {
    let parts = fixed(message);
    let pieces = parts.iter().flat_map(|part| part.split(|c: char| !c.is_ascii_alphabetic() && !" ,.'_-".contains(c)));
    let pieces: Vec<Vec<&str>> = pieces.map(|piece| piece.split_whitespace().collect()).collect();
    let short = pieces.iter().all(|words| words.len() < 3);
    short || pieces.iter().flat_map(|words| words.windows(3)).any(|three| find(program, three.join(" ").as_bytes()))
}

fn find(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The bytes of the built programs.
pub fn program() -> Vec<u8> {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin").join(name);
        fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
    };
    ["underlay", "lan-pool"].map(read).concat()
}
