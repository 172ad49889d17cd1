//! Kills macvlan and host-local at their system calls, or makes a system call fail. Each day tests a part. `make faults
//! FULL=1` tests all. ipvlan is in `faults_ipvlan`.

use e2e::Binaries;
use e2e::faults::{Command, Layers, Scenario, Selection};

e2e::scenarios! {
    count: 60,
    needs: &[],
    macvlan_add_layer_2: "macvlan" Add Two HardLinks,
    macvlan_del_layer_2: "macvlan" Del Two HardLinks,
    macvlan_add_v4: "macvlan" Add V4 HardLinks,
    macvlan_del_v4: "macvlan" Del V4 HardLinks,
    macvlan_add_dual: "macvlan" Add Dual HardLinks,
    macvlan_del_dual: "macvlan" Del Dual HardLinks,
    macvlan_add_v4_ipam_as_a_process: "macvlan" Add V4 PlainCopies,
    macvlan_del_v4_ipam_as_a_process: "macvlan" Del V4 PlainCopies,
    macvlan_add_dual_ipam_as_a_process: "macvlan" Add Dual PlainCopies,
    macvlan_del_dual_ipam_as_a_process: "macvlan" Del Dual PlainCopies,
    macvlan_add_host_access: "macvlan" Add HostAccess HardLinks,
    macvlan_del_host_access: "macvlan" Del HostAccess HardLinks,
    macvlan_add_host_access_then_gc: "macvlan" AddThenGc HostAccess HardLinks,
    macvlan_del_host_access_then_gc: "macvlan" DelThenGc HostAccess HardLinks,
    macvlan_add_taking_the_default_route: "macvlan" Add Take HardLinks,
    macvlan_del_taking_the_default_route: "macvlan" Del Take HardLinks,
    macvlan_add_asking_the_lan: "macvlan" Add Citizen HardLinks,
    macvlan_del_asking_the_lan: "macvlan" Del Citizen HardLinks,
    macvlan_add_asking_the_lan_ipam_as_a_process: "macvlan" Add Citizen PlainCopies,
    macvlan_add_around_another_machine: "macvlan" Add Taken HardLinks,
    macvlan_add_around_another_machine_ipam_as_a_process: "macvlan" Add Taken PlainCopies,
    macvlan_add_again: "macvlan" AddAgain V4 HardLinks,
    host_local_add_v4: "host-local" Add V4 HardLinks,
    host_local_del_v4: "host-local" Del V4 HardLinks,
    host_local_add_dual: "host-local" Add Dual HardLinks,
    host_local_del_dual: "host-local" Del Dual HardLinks,
}

/// All kills are tested every day.
fn survives_kills(command: Command, binaries: Binaries) {
    Scenario { plugin: "macvlan", command, layers: Layers::V4, binaries }.survives(&Selection::Kills);
}

#[test]
fn an_add_killed_at_any_step_leaves_nothing_after_del() {
    survives_kills(Command::Add, Binaries::HardLinks);
}

#[test]
fn a_del_killed_at_any_step_leaves_nothing_after_another() {
    survives_kills(Command::Del, Binaries::HardLinks);
}

#[test]
fn an_add_with_host_access_killed_at_any_step_leaves_nothing_on_the_host_after_del() {
    Scenario { plugin: "macvlan", command: Command::Add, layers: Layers::HostAccess, binaries: Binaries::HardLinks }
        .survives(&Selection::Kills);
}

#[test]
fn a_del_with_host_access_killed_at_any_step_leaves_nothing_on_the_host_after_another() {
    Scenario { plugin: "macvlan", command: Command::Del, layers: Layers::HostAccess, binaries: Binaries::HardLinks }
        .survives(&Selection::Kills);
}

/// A runtime may never call DEL for a container whose namespace it has removed.
#[test]
fn an_add_with_host_access_killed_at_any_step_leaves_nothing_on_the_host_after_gc() {
    Scenario {
        plugin: "macvlan",
        command: Command::AddThenGc,
        layers: Layers::HostAccess,
        binaries: Binaries::HardLinks,
    }
    .survives(&Selection::Kills);
}

#[test]
fn an_add_that_takes_the_default_route_killed_at_any_step_gives_it_back_after_del() {
    Scenario { plugin: "macvlan", command: Command::Add, layers: Layers::Take, binaries: Binaries::HardLinks }
        .survives(&Selection::Kills);
}

#[test]
fn an_add_with_a_separate_ipam_killed_at_any_step_leaves_nothing_after_del() {
    survives_kills(Command::Add, Binaries::PlainCopies);
}

#[test]
fn a_del_with_a_separate_ipam_killed_at_any_step_leaves_nothing_after_another() {
    survives_kills(Command::Del, Binaries::PlainCopies);
}
