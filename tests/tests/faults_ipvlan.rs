//! Faults in ipvlan, as in `faults`. Each day tests a small part, because a guest is slow.

e2e::scenarios! {
    count: 6,
    needs: &[e2e::needs::Feature::Ipvlan],
    ipvlan_add_layer_2: "ipvlan" Add Two HardLinks,
    ipvlan_del_layer_2: "ipvlan" Del Two HardLinks,
    ipvlan_add_v4: "ipvlan" Add V4 HardLinks,
    ipvlan_del_v4: "ipvlan" Del V4 HardLinks,
    ipvlan_add_dual: "ipvlan" Add Dual HardLinks,
    ipvlan_del_dual: "ipvlan" Del Dual HardLinks,
    ipvlan_add_host_access: "ipvlan" Add HostAccess HardLinks,
    ipvlan_del_host_access: "ipvlan" Del HostAccess HardLinks,
    ipvlan_add_host_access_then_gc: "ipvlan" AddThenGc HostAccess HardLinks,
    ipvlan_add_asking_the_lan: "ipvlan" Add Citizen HardLinks,
    ipvlan_add_around_another_machine: "ipvlan" Add Taken HardLinks,
    ipvlan_add_v4_ipam_as_a_process: "ipvlan" Add V4 PlainCopies,
    ipvlan_del_v4_ipam_as_a_process: "ipvlan" Del V4 PlainCopies,
    ipvlan_add_dual_ipam_as_a_process: "ipvlan" Add Dual PlainCopies,
    ipvlan_del_dual_ipam_as_a_process: "ipvlan" Del Dual PlainCopies,
}
