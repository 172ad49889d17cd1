//! Faults in attachments on a VLAN, as in `faults`. No container ever loses its link, and the link of the VLAN goes with
//! the last. Each day tests a small part, because a guest is slow.

use e2e::Binaries;
use e2e::faults::{Command, Layers, Scenario, Selection};
use e2e::needs::{Feature, here};

e2e::scenarios! {
    count: 6,
    needs: &[e2e::needs::Feature::Vlan, e2e::needs::Feature::Ipvlan],
    macvlan_add_vlan: "macvlan" Add Vlan HardLinks,
    macvlan_del_vlan: "macvlan" Del Vlan HardLinks,
    macvlan_add_vlan_again: "macvlan" AddAgain Vlan HardLinks,
    macvlan_add_vlan_with_host_access: "macvlan" Add VlanAccess HardLinks,
    macvlan_del_vlan_with_host_access: "macvlan" Del VlanAccess HardLinks,
    macvlan_add_vlan_with_another_container: "macvlan" Add SharedVlan HardLinks,
    macvlan_del_vlan_with_another_container: "macvlan" Del SharedVlan HardLinks,
    macvlan_add_vlan_with_a_foreign_container: "macvlan" Add ForeignVlan HardLinks,
    macvlan_del_vlan_with_a_foreign_container: "macvlan" Del ForeignVlan HardLinks,
    ipvlan_add_vlan: "ipvlan" Add Vlan HardLinks,
    ipvlan_del_vlan: "ipvlan" Del Vlan HardLinks,
}

/// All kills are tested every day.
fn survives_kills(command: Command, layers: Layers) {
    if here(&[Feature::Vlan]) {
        Scenario { plugin: "macvlan", command, layers, binaries: Binaries::HardLinks }.survives(&Selection::Kills);
    }
}

#[test]
fn an_add_on_a_vlan_killed_at_any_step_leaves_no_link_after_del() {
    survives_kills(Command::Add, Layers::Vlan);
}

#[test]
fn a_del_on_a_vlan_killed_at_any_step_leaves_no_link_after_another() {
    survives_kills(Command::Del, Layers::Vlan);
}

#[test]
fn a_del_killed_at_any_step_never_takes_the_link_from_a_container_of_another_program() {
    survives_kills(Command::Del, Layers::ForeignVlan);
}
