//! The rows of docs/migrating.md, read from the page.

use std::fs;
use std::path::Path;

/// One intended difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// For example "U17".
    pub id: String,
    /// The beginnings of the names of tests that show it, if no case does.
    pub shown_by: Vec<String>,
}

/// Differences that every lease or every error has, so they are allowed in all cases. At least one case must list each
/// of them.
pub const EVERYWHERE: &[(&str, &str)] = &[
    ("E2", "answer error.cniVersion: - | \""),
    ("F1", "lock mode: 750 | 600"),
    ("F2", "file leases/*:*: - | here"),
    ("F4", "file leases: here | -"),
    ("F4", "file leases/lan: here | -"),
    ("F4", "file leases/lan/lock: here | -"),
    ("F3", "lock content: \"\" | \"underly2"),
    ("K2", "net/ipv6/conf/ndisc_notify: 1 | 0"),
    ("K7", "Group: 0 | "),
];

/// Reads each line of a table that begins with an ID.
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
    // Only names of tests end with an underscore.
    let names = line.split('`').filter(|word| word.ends_with('_')).map(str::to_owned);
    is_id.then(|| Row { id: (*id).to_owned(), shown_by: names.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_table_that_begin_with_an_id_are_rows() {
        let page =
            "| id | there | here |\n|---|---|---|\n| U5 | a | b (`u5_`) | c |\n| D12 | a | b |\ntext U7\n| x | y |\n";
        let row = |id: &str, shown_by: &[&str]| Row {
            id: id.to_owned(),
            shown_by: shown_by.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(parse(page), [row("U5", &["u5_"]), row("D12", &[])]);
    }
}
