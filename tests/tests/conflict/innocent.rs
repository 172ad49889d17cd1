//! Machines and frames that look like a conflict and are none.

use std::time::Duration;

use e2e::lab::{Families, MACHINE_NIC, lan4, lan6};
use e2e::traffic::{Manner, Reaction};
use e2e::with;
use serde_json::json;

e2e::on_both_kinds! {
    /// Linux answers for addresses that it has a route to, and never a request with the sender 0.0.0.0.
    fn a_machine_with_proxy_arp_has_not_the_addresses_that_it_answers_for(site) {
        let machine = &site.neighbour;
        machine.create_stray("other0");
        machine.set_up("other0");
        machine.ip("route add 192.168.50.100/32 dev other0");
        machine.set_sysctl("net/ipv4/ip_forward", "1");
        machine.set_sysctl(&format!("net/ipv4/conf/{MACHINE_NIC}/proxy_arp"), "1");
        machine.set_sysctl(&format!("net/ipv4/neigh/{MACHINE_NIC}/proxy_delay"), "0");
        let asked = e2e::traffic::arp_probe(&site.host, e2e::lab::NIC, site.host.v4, lan4(100), Duration::from_secs(2));
        assert_eq!(asked, Some(machine.link(MACHINE_NIC).mac), "the machine is no proxy");
        site.gets(&site.conf(Families::V4), &[lan4(100)]);
    }

    /// Device tracking of switches: a probe to the MAC that has just asked.
    fn a_probe_to_our_own_mac_is_no_conflict(site) {
        let holder = site.holder(Manner::of(&[lan4(100)]).reaction(Reaction::ProbeSender));
        let (_, outcome) = site.gets(&site.conf(Families::V4), &[lan4(100)]);
        holder.await_asked(1);
        assert_eq!(outcome.stderr, "", "{}", outcome.text());
    }

    fn our_own_frames_that_come_back_are_no_conflict(site) {
        let holder = site.holder(Manner::of(&[lan4(100), lan6(100)]).reaction(Reaction::Reflect));
        let (_, outcome) = site.gets(&site.conf(Families::V4), &[lan4(100)]);
        holder.await_asked(1);
        assert_eq!(outcome.stderr, "", "{}", outcome.text());
    }

    fn a_switch_that_reflects_all_frames_is_no_conflict(site) {
        site.reflect();
        site.gets(&site.conf(Families::V4), &[lan4(100)]);
    }

    /// The host has a route to each container, and its own link on the parent.
    fn host_access_is_no_conflict(site) {
        let conf = with(site.conf(Families::V4), "hostAccess", json!(true));
        let other = with(site.static_conf(&[lan4(102)]), "name", json!("other"));
        let attached = [(&conf, 100), (&conf, 101), (&other, 102)].map(|(conf, last)| site.gets(conf, &[lan4(last)]));
        for (_, outcome) in &attached {
            assert_eq!(outcome.stderr, "", "{}", outcome.text());
        }
    }

    /// A machine of the untagged LAN has the address, and no machine of the VLAN.
    #[needs(Vlan)]
    fn only_the_machines_of_the_vlan_are_asked(site) {
        let neighbour = &site.neighbour;
        neighbour.create_vlan("eth0.100", MACHINE_NIC, 100);
        let _holders = [
            Manner::of(&[lan4(100)]).start(neighbour, "eth0.100"),
            Manner::of(&[lan4(101)]).start(neighbour, MACHINE_NIC),
        ];
        site.gets(&with(site.conf(Families::V4), "vlan", json!(100)), &[lan4(101)]);
    }

    fn without_the_key_nothing_is_detected(site) {
        let _holder = site.machine(100);
        let conf = site.conf(Families::V4);
        site.gets(&crate::site::without_detection(&conf), &[lan4(100)]);
        site.gets(&with(site.conf_of(lan4(100), lan4(120)), crate::site::KEY, json!(false)), &[lan4(101)]);
    }

    fn without_a_carrier_detection_is_skipped_with_a_remark(site) {
        site.unplug();
        let (_, plain) = site.add(&with(crate::site::without_detection(&site.conf(Families::V4)), "name", json!("plain")));
        plain.result();
        let (_, outcome) = site.add(&site.conf_of(lan4(101), lan4(110)));
        outcome.result();
        assert!(outcome.stderr.contains("carrier"), "{}", outcome.text());
        assert_ne!(outcome.stderr.lines().count(), plain.stderr.lines().count(), "no remark: {}", outcome.text());
        assert!(outcome.wall < Duration::from_secs(2) * e2e::plugin::slowness(), "{}", outcome.text());
    }
}

#[test]
fn in_layer_3_modes_of_ipvlan_nothing_is_detected() {
    if !e2e::needs::here(&[e2e::needs::Feature::Ipvlan]) {
        return;
    }
    for mode in ["l3", "l3s"] {
        let site = crate::site::Site::new("ipvlan");
        let mut conf = with(site.conf(Families::V4), "mode", json!(mode));
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.66.0.0/24"}]]);
        let wire = e2e::traffic::Wire::open(&site.neighbour, site.neighbour.nic);
        let (container, outcome) = site.add(&conf);
        outcome.result();
        assert_eq!(outcome.stderr, "", "{}", outcome.text());
        let first = crate::site::addresses(&container)[0];
        assert!(!wire.seen().iter().any(|seen| seen.frame.probes(first)), "a probe in mode {mode}");
    }
}
