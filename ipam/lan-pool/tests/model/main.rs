//! The model of lan-pool: an explicit search through all orders of events. Messages may be late, lost, or arrive after their
//! sender is gone. Calls are killed, nodes reboot, and an administrator releases the leases of a node that is off.
//!
//! The nodes of the model run the protocol of the plugin itself. Time is not modelled.
#![allow(clippy::disallowed_macros, reason = "a test shows the number of states")]

mod search;
mod world;

use search::{Found, search};
use world::{Limits, Variant, World};

/// Searches all states, and fails with the events that lead to a broken rule.
#[track_caller]
fn holds(name: &str, limits: Limits) {
    let Found { states, broken } = search(&World::new(limits, Variant::Real));
    println!("{name}: {states} states");
    if let Some((rule, events)) = broken {
        panic!("{name}: {rule} after {states} states:\n  {}", events.join("\n  "));
    }
}

/// The search must find a mistake in a broken protocol.
#[track_caller]
fn breaks(variant: Variant, rule: &str, limits: Limits) {
    let Found { states, broken } = search(&World::new(limits, variant));
    let (found, events) = broken.unwrap_or_else(|| panic!("{variant:?}: nothing was found in {states} states"));
    println!("{variant:?}: {found} after {states} states:\n  {}", events.join("\n  "));
    assert!(found.starts_with(rule), "{variant:?}: {found} in place of {rule}:\n  {}", events.join("\n  "));
}

/// Two nodes want the same single address.
fn small() -> Limits {
    Limits { addresses: 1, owners: 1, flight: 2, ..Limits::default() }
}

#[test]
fn calls_that_are_killed_and_answers_that_are_lost() {
    holds("kills", Limits { kills: 1, timeouts: 2, ends: 1, ..small() });
}

#[test]
fn two_addresses_on_one_node_and_one_on_the_other() {
    holds("addresses", Limits { addresses: 2, timeouts: 1, ..small() });
}

#[test]
fn an_add_after_the_del_of_the_same_container() {
    holds("returns", Limits { addresses: 2, timeouts: 2, returns: 1, sweeps: 1, is_alone: true, ..small() });
}

#[test]
fn a_node_that_reboots_and_sweeps() {
    holds("reboots", Limits { reboots: 1, sweeps: 1, timeouts: 1, ..small() });
}

#[test]
fn a_sweep_while_containers_come_and_go() {
    holds("sweeps", Limits { owners: 2, sweeps: 1, ends: 1, ..small() });
}

#[test]
fn both_families() {
    holds("families", Limits { families: 2, timeouts: 1, kills: 1, sweeps: 1, is_alone: true, ..small() });
}

#[test]
fn a_node_that_is_off_and_an_administrator_who_releases_its_leases() {
    holds("release", Limits { reboots: 1, releases: 1, timeouts: 1, sweeps: 1, ..small() });
}

#[test]
fn a_clone_with_the_name_of_another_node() {
    holds("clone", Limits { is_cloned: true, reboots: 1, sweeps: 1, ..small() });
}

#[test]
fn a_journal_that_is_wiped() {
    holds("journal", Limits { journal_wipes: 1, sweeps: 1, ends: 1, ..small() });
}

#[test]
fn a_store_that_is_wiped_and_leases_that_are_made_again() {
    holds("store", Limits { store_wipes: 1, sweeps: 1, timeouts: 1, ..small() });
}

#[test]
fn found_a_delete_without_a_uid() {
    breaks(Variant::NoUid, "I2", Limits { owners: 2, timeouts: 1, ..small() });
}

#[test]
fn found_a_journal_that_is_written_after_the_request() {
    breaks(Variant::LateJournal, "I4", Limits { sweeps: 1, ..small() });
}

#[test]
fn found_a_sweep_that_reads_the_journal_before_the_list() {
    breaks(Variant::JournalFirst, "I2", Limits { sweeps: 1, ..small() });
}

#[test]
fn found_a_sweep_that_frees_the_leases_of_other_nodes() {
    breaks(Variant::OtherNodes, "I", Limits { sweeps: 1, ..small() });
}

#[test]
fn found_a_sweep_that_trusts_a_wiped_journal() {
    breaks(Variant::TrustsJournal, "I2", Limits { journal_wipes: 1, sweeps: 1, ..small() });
}

#[test]
fn found_another_address_while_one_is_open() {
    breaks(Variant::Impatient, "I4", Limits { addresses: 2, timeouts: 1, sweeps: 1, ..small() });
}
