//! Faults in attachments on a VLAN, as in `faults`. No container ever loses its link, and the link of the VLAN goes with
//! the last. Each day tests a small part, because a guest is slow.

e2e::scenarios! {
    count: 5,
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
