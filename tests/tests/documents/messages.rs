//! Every row of docs/troubleshooting.md is about a message of the program. `e2e::messages` checks in every test that
//! each message has a row.

use e2e::messages::{described, fixed, is_about, is_said_by, program, rows};

#[test]
fn every_row_is_about_a_text_of_the_program() {
    let program = program();
    let stale: Vec<&String> = described().iter().filter(|message| !is_said_by(&program, message)).collect();
    assert!(stale.is_empty(), "no part of these messages is in bin/underlay or bin/lan-pool: {stale:#?}");
}

#[test]
fn every_row_has_a_cause_and_a_cure() {
    for row in rows() {
        assert_eq!(row.len(), 3, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn a_text_without_a_row_is_found_out() {
    assert_eq!(fixed("no address ADDRESS in \"NAME\": CAUSE"), ["no address", "in \""]);
    assert!(is_about("no address ADDRESS in SET: CAUSE", "no address 10.0.0.2 in ipam.ranges[0]: it is full"));
    assert!(!is_about("no address ADDRESS in SET: CAUSE", "no address 10.0.0.2: it is full"));
    // A row that has only placeholders must not match every text.
    assert!(!is_about("OPERATION PATH: CAUSE", "open /nonexistent: no such file"));
    let odd = "no such words, neither here nor there";
    assert!(!described().iter().any(|message| is_about(message, odd)));
    assert!(!is_said_by(&program(), odd));
}
