//! Every plugin has a manual page, and mandoc finds no fault in the pages.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::fixture::{REPOSITORY, installed_names, list, run};

#[test]
fn mandoc_finds_no_fault_in_the_manual_pages() {
    let directory = Path::new(REPOSITORY).join("packaging/man");
    let pages = list(&directory);
    assert!(pages.contains(&"underlay.8".to_owned()), "{pages:?}");
    let output = run(Command::new("mandoc").args(["-T", "lint", "-W", "style"]).args(&pages).current_dir(&directory));
    let said = String::from_utf8_lossy(&output.stdout);
    // The pages that they refer to may be missing on this machine.
    let faults: Vec<&str> = said.lines().filter(|line| !line.contains("referenced manual not found")).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(output.status.code().is_some_and(|code| code <= 2), "{output:?}");
}

#[test]
fn every_plugin_is_in_a_manual_page() {
    let directory = Path::new(REPOSITORY).join("packaging/man");
    let text: String = list(&directory)
        .iter()
        .map(|page| std::fs::read_to_string(directory.join(page)).expect("read a manual page"))
        .collect();
    let words: BTreeSet<&str> = text.split_whitespace().collect();
    for name in installed_names() {
        assert!(words.contains(name.as_str()), "no manual page has {name}");
    }
}
