//! The machines that can have an address: others on the LAN, the host, and containers of the same parent.

use std::time::Duration;

use e2e::lab::{Families, NIC, lan4, lan6};
use e2e::plugin::slowness;
use e2e::traffic::{Manner, Reaction};
use e2e::{Container, with};
use serde_json::json;

use crate::site::{Site, addresses, without_detection};

/// Attaches a container without detection. Its address is unknown to the other networks.
fn sibling(site: &Site, last: u8, mode: Option<&str>) -> Container {
    let mut conf = with(without_detection(&site.static_conf(&[lan4(last)])), "name", json!("other"));
    if let Some(mode) = mode {
        conf["mode"] = json!(mode);
    }
    site.attach(&conf).0
}

/// Returns true if an answer after this time is noticed at least once. On a busy machine, an answer can come later than the test
/// has asked for, and an ADD can listen for longer.
fn is_noticed(site: &Site, delay: u64, wanted: bool) -> bool {
    (0..5).any(|round| {
        let held = lan4(100 + 2 * round);
        let holder = site.holder(Manner::of(&[held]).after(Duration::from_millis(delay)));
        let (container, outcome) = site.add(&site.conf_of(held, lan4(101 + 2 * round)));
        outcome.result();
        holder.await_asked(1);
        let noticed = addresses(&container) != [held];
        site.plugin().del(&container, "eth0", &site.conf_of(held, held)).run().done();
        noticed == wanted
    }) == wanted
}

e2e::on_both_kinds! {
    fn an_address_of_another_machine_is_not_given(site) {
        let _holder = site.machine(100);
        let conf = site.conf(Families::V4);
        let (container, checked) = site.attach(&conf);
        assert_eq!(addresses(&container), [lan4(101)]);
        site.checks(&container, &checked);
        site.detach(&container, &conf);
        site.assert_undone(&container);
    }

    fn an_answer_after_10_and_100_ms_is_noticed(site) {
        for (last, delay) in [(100, 10), (110, 100)] {
            let holder = site.holder(Manner::of(&[lan4(last)]).after(Duration::from_millis(delay)));
            site.gets(&site.conf_of(lan4(last), lan4(last + 1)), &[lan4(last + 1)]);
            holder.await_asked(1);
        }
    }

    fn an_answer_after_190_ms_is_noticed(site) {
        assert!(is_noticed(site, 190, true), "never noticed");
    }

    /// The default of detectTimeout is 200.
    fn an_answer_after_250_ms_is_too_late_and_a_longer_timeout_notices_it(site) {
        assert!(!is_noticed(site, 250, false), "always noticed");
        let _holder = site.holder(Manner::of(&[lan4(120)]).after(Duration::from_millis(250)));
        let conf = with(site.conf_of(lan4(120), lan4(121)), "detectTimeout", json!(1000));
        site.gets(&conf, &[lan4(121)]);
    }

    /// RFC 5227, 2.1.1: any ARP frame whose sender has the address.
    /// docs/lan.md names this limit.
    fn a_machine_that_answers_no_probes_is_not_noticed(site) {
        let machine = site.machine(100);
        machine.set_sysctl("net/ipv4/conf/all/arp_ignore", "8");
        site.gets(&site.conf(Families::V4), &[lan4(100)]);
    }

    fn a_machine_that_announces_the_address_has_it(site) {
        let _holder = site.holder(Manner::of(&[lan4(100)]).reaction(Reaction::Announce));
        site.gets(&site.conf(Families::V4), &[lan4(101)]);
    }

    /// RFC 5227, 2.1.1: a probe of another machine for the same address.
    fn a_machine_that_probes_the_address_at_the_same_time_wants_it(site) {
        let _holder = site.holder(Manner::of(&[lan4(100)]).reaction(Reaction::ProbeAll));
        site.gets(&site.conf(Families::V4), &[lan4(101)]);
    }

    fn of_several_addresses_the_one_in_use_is_replaced(site) {
        let _holder = site.machine(110);
        let mut conf = site.conf(Families::V4);
        let range = |first: u8, last: u8| json!([{"subnet": "192.168.50.0/24", "rangeStart": lan4(first), "rangeEnd": lan4(last)}]);
        conf["ipam"]["ranges"] = json!([range(100, 105), range(110, 115)]);
        let (container, _) = site.add(&conf);
        let got = addresses(&container);
        assert!(got.len() == 2 && got[1] == lan4(111) && (lan4(100)..=lan4(105)).contains(&got[0]), "{got:?}");
    }

    fn the_parent_may_be_in_the_container(site) {
        let _holder = site.machine(100);
        let container = site.container();
        site.plug(&container, "net1");
        let conf = with(with(site.conf(Families::V4), "master", json!("net1")), "linkInContainer", json!(true));
        site.plugin().add(&container, "eth0", &conf).run().result();
        assert_eq!(addresses(&container), [lan4(101)]);
    }

    /// The kernel passes no frames between a container and the host of its parent, so no probe shows this.
    fn an_address_of_the_host_is_not_given(site) {
        let mut conf = site.conf(Families::Dual);
        conf["ipam"]["ranges"] = json!([
            [{"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.10", "rangeEnd": "192.168.50.11"}],
            [{"subnet": "fd50::/64", "rangeStart": "fd50::10", "rangeEnd": "fd50::11"}],
        ]);
        let (_container, outcome) = site.gets(&conf, &[lan4(11), lan6(11)]);
        let single = site.gets(&site.conf(Families::Dual), &[lan4(100), lan6(100)]).1;
        let at_once = single.wall + Duration::from_millis(150) * slowness();
        assert!(outcome.wall < at_once, "{:?}, and {:?} without conflicts", outcome.wall, single.wall);
    }

    fn an_address_of_another_nic_of_the_host_is_not_given(site) {
        site.plug(&site.host, "ens4");
        site.host.add_address("ens4", "192.168.50.100/24".parse().expect("an address"));
        site.gets(&site.conf(Families::V4), &[lan4(101)]);
    }

    fn a_static_address_of_the_host_is_refused(site) {
        for held in [site.host.v4, site.host.v6] {
            site.is_refused(&site.static_conf(&[held]), 103, &[&held.to_string(), NIC]);
        }
    }

    fn an_ipv6_address_of_another_machine_is_not_given(site) {
        let _holder = site.machine(100);
        site.gets(&site.conf(Families::V6), &[lan6(101)]);
    }

    fn an_ipv6_address_that_is_claimed_late_is_not_given(site) {
        let holder = site.holder(Manner::of(&[lan6(100)]).after(Duration::from_millis(50)));
        let (container, _) = site.add(&site.conf(Families::Dual));
        holder.await_asked(1);
        let got = addresses(&container);
        assert!(got.contains(&lan6(101)) && got.len() == 2, "{got:?}");
        assert!(!container.addresses("eth0").iter().any(|address| address.duplicate() || address.tentative()));
    }
}

#[test]
fn an_address_of_a_sibling_in_bridge_mode_is_not_given() {
    let site = Site::new("macvlan");
    let _sibling = sibling(&site, 100, None);
    site.gets(&site.conf(Families::V4), &[lan4(101)]);
}

/// docs/lan.md names this limit.
#[test]
fn an_address_of_a_sibling_in_private_mode_is_not_noticed() {
    let site = Site::new("macvlan");
    let _sibling = sibling(&site, 100, Some("private"));
    site.gets(&with(site.conf(Families::V4), "mode", json!("private")), &[lan4(100)]);
}

#[test]
fn an_address_of_a_sibling_in_vepa_mode_is_not_given_if_the_switch_reflects() {
    let site = Site::new("macvlan");
    site.reflect();
    let _sibling = sibling(&site, 100, Some("vepa"));
    site.gets(&with(site.conf(Families::V4), "mode", json!("vepa")), &[lan4(101)]);
}

/// The kernel refuses an address that another slave of the parent has.
#[test]
fn an_address_of_a_sibling_of_ipvlan_is_not_given() {
    if !e2e::needs::here(&[e2e::needs::Feature::Ipvlan]) {
        return;
    }
    let site = Site::new("ipvlan");
    let _sibling = sibling(&site, 100, None);
    site.gets(&site.conf(Families::V4), &[lan4(101)]);
}
