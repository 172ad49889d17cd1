//! Compares with the reference: each case runs on its programs, on ours, and mixed (ADD by one, the rest by the
//! other). Every difference must be a row of docs/migrating.md.

mod ends;
mod host_local;
mod ipvlan;
mod macvlan;
mod protocol;
mod static_ipam;
mod vlan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use e2e::compliance::{Case, EVERYWHERE, read_rows};

const CASES: [(&str, &[Case]); 7] = [
    ("macvlan", macvlan::CASES),
    ("ends", ends::CASES),
    ("host_local", host_local::CASES),
    ("protocol", protocol::CASES),
    ("ipvlan", ipvlan::CASES),
    ("static_ipam", static_ipam::CASES),
    ("vlan", vlan::CASES),
];

fn sources() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = fs::read_dir(&folder).expect("read the folder of the tests").flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|suffix| suffix == "rs"));
    files.map(|path| fs::read_to_string(path).expect("read a test")).collect()
}

#[test]
fn every_row_of_the_page_is_shown_and_every_difference_has_a_row() {
    let rows = read_rows();
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "an id has two rows");
    let sources = sources();
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for case in CASES.iter().flat_map(|(_, cases)| cases.iter()) {
        for row in case.rows() {
            assert!(ids.contains(row), "{}: docs/migrating.md has no row {row}", case.name);
            *shown.entry(row).or_default() += 1;
        }
    }
    for (row, _) in EVERYWHERE {
        assert!(shown.contains_key(row), "{row} is allowed everywhere, and no case shows it");
    }
    for row in &rows {
        for beginning in &row.shown_by {
            assert!(sources.contains(&format!("fn {beginning}")), "{}: there is no test {beginning}...", row.id);
        }
        let id = row.id.as_str();
        assert!(shown.contains_key(id) || !row.shown_by.is_empty(), "{id}: no case and no test shows it");
    }
    #[allow(clippy::disallowed_macros, reason = "printed with --nocapture")]
    {
        print!("{}", table(&rows, &shown));
    }
}

fn table(rows: &[e2e::compliance::Row], shown: &BTreeMap<&str, usize>) -> String {
    let mut lines = Vec::new();
    for (module, case) in CASES.iter().flat_map(|(module, cases)| cases.iter().map(move |case| (module, case))) {
        let rows = case.rows();
        let verdict = if rows.is_empty() { "equal".to_owned() } else { format!("differs: {}", rows.join(", ")) };
        lines.push(format!("{:<70} {verdict}", format!("{module}: {}", case.name.replace('_', " "))));
    }
    let (cases, equal) = (lines.len(), lines.iter().filter(|line| line.ends_with(" equal")).count());
    lines.push(format!("{cases} cases, {equal} equal, {} differ as docs/migrating.md says", cases - equal));
    let everywhere: BTreeSet<&str> = EVERYWHERE.iter().map(|(row, _)| *row).collect();
    let everywhere: Vec<&str> = everywhere.into_iter().collect();
    lines.push(format!("equal: except for {}, which every case may show", everywhere.join(", ")));
    lines.push("rows, with the number of cases that show each:".to_owned());
    for row in rows {
        let count = shown.get(row.id.as_str()).copied().unwrap_or_default();
        let tests = row.shown_by.iter().map(|beginning| format!(", tests {beginning}...")).collect::<String>();
        lines.push(format!("  {:<4} {count}{tests}", row.id));
    }
    lines.join("\n") + "\n"
}
