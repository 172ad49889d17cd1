//! The rows of docs/migrating.md, read from the page that people read.

use std::fs;
use std::path::Path;

/// One difference that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Such as "U17".
    pub id: String,
    /// Beginnings of the names of tests that show it, where no case does.
    pub shown_by: Vec<String>,
}

/// What differs wherever a lease is made or a call fails, and would be beside every case: row and words. One case at
/// least names each for itself, which is how it is known to be there.
pub const EVERYWHERE: &[(&str, &str)] = &[
    ("E2", "answer error.cniVersion: - | \""),
    ("F1", "lock mode: 750 | 600"),
    ("F2", "file leases/*:*: - | here"),
    ("F4", "file leases: here | -"),
    ("F4", "file leases/lan: here | -"),
    ("F4", "file leases/lan/lock: here | -"),
    ("F3", "lock content: \"\" | \"underly1"),
    ("K2", "net/ipv6/conf/ndisc_notify: 1 | 0"),
    ("K7", "Group: 0 | "),
];

/// Reads them: every line of a table that begins with an id.
pub fn read_rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/migrating.md");
    let page = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    parse(&page)
}

fn parse(page: &str) -> Vec<Row> {
    page.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let id = cells.first()?;
    let is_id =
        id.starts_with(|c: char| c.is_ascii_uppercase()) && id.len() > 1 && id[1..].chars().all(|c| c.is_ascii_digit());
    // Names of tests are the only words with an underscore at their end.
    let names = line.split('`').filter(|word| word.ends_with('_')).map(str::to_owned);
    is_id.then(|| Row { id: (*id).to_owned(), shown_by: names.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_lines_of_a_table_that_begin_with_an_id() {
        let page =
            "| id | there | here |\n|---|---|---|\n| U5 | a | b (`u5_`) | c |\n| D12 | a | b |\ntext U7\n| x | y |\n";
        let row = |id: &str, shown_by: &[&str]| Row {
            id: id.to_owned(),
            shown_by: shown_by.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(parse(page), [row("U5", &["u5_"]), row("D12", &[])]);
    }
}
