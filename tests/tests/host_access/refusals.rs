//! What is refused, with its reason, and leaves nothing.

use e2e::lab::Families;
use e2e::with;
use serde_json::{Value, json};

use crate::site::{DUAL, RECORDS, Site, address, assert_reach_each_other, other_lan};

fn refuses(site: &Site, conf: &Value, names: &[&str]) {
    let container = site.container();
    site.plugin().add(&container, "eth0", conf).run().fails(7, names);
    site.assert_gone(&container);
    site.assert_nothing_left();
}

#[test]
fn macvlan_passes_frames_to_the_host_in_mode_bridge_only() {
    let site = Site::new("macvlan");
    for mode in ["private", "vepa", "passthru"] {
        let conf = with(site.conf(DUAL), "mode", json!(mode));
        refuses(&site, &conf, &["hostAccess is set", "needs mode bridge", mode]);
        let status = with(conf, "cniVersion", json!("1.1.0"));
        site.plugin().call("STATUS", &status).run().fails(7, &["needs mode bridge"]);
    }
}

/// A second network with an overlapping range may lease an address again. (On ipvlan, the kernel refuses it.)
#[test]
fn an_address_of_another_container_is_refused_and_that_one_keeps_its_route() {
    let site = Site::new("macvlan");
    let (first, _) = site.attach(&site.conf(Families::V4));
    let conf = with(site.conf(Families::V4), "name", json!("lan2"));
    let names = [&format!("add the host's route to {}", address(&first)), &*first.id, "eth0"];
    site.plugin().add(&site.container(), "eth0", &conf).run().fails(7, &names);
    assert_eq!(site.records().len(), 1);
    assert_reach_each_other(&site, &first);
}

/// The neighbour of the first container was removed. So the second ADD had written a record before it saw the route,
/// and its undo removed the route of the first container.
#[test]
fn an_address_of_another_container_that_has_lost_its_neighbour_is_refused_and_that_one_keeps_its_route() {
    for families in [Families::V4, Families::V6] {
        let site = Site::new("macvlan");
        let (first, _) = site.attach(&site.conf(families));
        let (ip, link) = (address(&first), site.host_link());
        site.host.ip(&format!("neighbour delete {ip} dev {}", link.name));
        let conf = with(site.conf(families), "name", json!("lan2"));
        let names = [&format!("add the host's route to {ip}"), &*first.id, "eth0"];
        site.plugin().add(&site.container(), "eth0", &conf).run().fails(7, &names);
        assert_eq!(site.records().len(), 1);
        assert_eq!(site.host_routes(), [ip.to_string()]);
        site.host.ip(&format!("neighbour add {ip} lladdr {} dev {} nud permanent", first.link("eth0").mac, link.name));
        assert_reach_each_other(&site, &first);
    }
}

/// Nothing can be known about the container of such a record, so its route was taken for the rest of an attachment.
#[test]
fn an_address_that_may_be_in_a_record_of_another_release_is_refused() {
    let site = Site::new("macvlan");
    let (first, _) = site.attach(&site.conf(Families::V4));
    let path = format!("/run/{RECORDS}/{}:eth0", first.id);
    site.host.run(|| std::fs::write(&path, "{}").expect("write a record"));
    let conf = with(site.conf(Families::V4), "name", json!("lan2"));
    let names = ["it may belong to the attachment of ", &path, "a record that this release cannot read"];
    site.plugin().add(&site.container(), "eth0", &conf).run().fails(7, &names);
    assert_reach_each_other(&site, &first);
}

/// The path of the first container has a meaning only in the mount namespace of its ADD, as for a runtime in a container.
#[test]
fn an_address_of_a_container_that_cannot_be_looked_at_is_refused_as_long_as_it_lives() {
    let site = Site::new("macvlan");
    let (first, _) = site.attach(&site.conf(Families::V4));
    let path = format!("/run/{RECORDS}/{}:eth0", first.id);
    let change = |from: &str, to: &str| {
        site.host.run(|| {
            let text = std::fs::read_to_string(&path).expect("read a record");
            let other = text.replace(from, to);
            assert_ne!(text, other);
            std::fs::write(&path, other).expect("write a record");
        });
    };
    change("\"path\":\"", "\"path\":\"/elsewhere");
    change("\"mounts\":", "\"mounts\":1");
    let conf = with(site.conf(Families::V4), "name", json!("lan2"));
    let names = [&format!("add the host's route to {}", address(&first)), &*first.id, "eth0"];
    site.plugin().add(&site.container(), "eth0", &conf).run().fails(7, &names);
    assert_reach_each_other(&site, &first);
    drop(first);
    let (second, _) = site.attach(&conf);
    assert_reach_each_other(&site, &second);
}

#[test]
fn ipvlan_passes_frames_to_the_host_in_mode_l2_without_a_flag_only() {
    if !e2e::needs::here(&[e2e::needs::Feature::Ipvlan]) {
        return;
    }
    let site = Site::new("ipvlan");
    for (mode, flag) in [("l3", "bridge"), ("l3s", "bridge"), ("l2", "private"), ("l2", "vepa")] {
        let conf = with(with(site.conf(DUAL), "mode", json!(mode)), "flag", json!(flag));
        refuses(&site, &conf, &["hostAccess is set", "needs mode l2 with flag bridge", mode, flag]);
    }
}

e2e::on_both_kinds! {
    fn a_parent_in_the_container_is_refused(site) {
        let conf = with(site.conf(DUAL), "linkInContainer", json!(true));
        let container = site.container();
        site.plug(&container, e2e::lab::NIC);
        let error = site.plugin().add(&container, "eth0", &conf).run().error();
        assert_eq!(error.code, 7);
        assert!(error.msg.contains("hostAccess is set: needs the parent on the host"), "{}", error.msg);
        site.assert_nothing_left();
    }

    /// In a container of LXC, the interface below is not visible. The kernel put the host's link there. It was not found
    /// again, so the second ADD failed, and nothing removed its link.
    fn a_parent_of_the_same_kind_on_an_interface_that_is_not_visible_is_refused(site) {
        let there = &site.neighbour;
        match site.kind {
            "macvlan" => there.create_macvlan_in(&site.host, "shim0", there.nic),
            _ => there.create_ipvlan_in(&site.host, "shim0", there.nic, "l2", "bridge"),
        }
        site.host.set_up("shim0");
        let conf = with(site.conf(Families::V4), "master", json!("shim0"));
        let reason = format!("shim0 is {} itself", site.kind);
        refuses(site, &conf, &["hostAccess is set", &reason, "set master to that one"]);
        let (container, conf) = site.attach(&site.conf(Families::V4));
        assert_reach_each_other(site, &container);
        site.detach(&container, &conf);
    }

    fn an_attachment_without_addresses_is_refused(site) {
        let conf = with(site.conf(DUAL), "ipam", json!({}));
        refuses(site, &conf, &["hostAccess is set", "gets no address from IPAM"]);
    }

    fn services_that_hide_the_lan_are_refused(site) {
        for (net, reason) in [
            ("192.168.50.0/24", "192.168.50.0/24, the container's own subnet"),
            ("192.168.0.0/16", "192.168.50.0/24, the container's own subnet"),
            ("fd50::/32", "fd50::/64, the container's own subnet"),
            ("0.0.0.0/0", "is a default route"),
            ("::/0", "is a default route"),
            ("10.96.0.1/16", "has host bits set; the network is 10.96.0.0/16"),
            ("10.96.0.0", "is not a network"),
        ] {
            let conf = site.conf_with(DUAL, json!({"services": [net]}));
            refuses(site, &conf, &["hostAccess.services", net, reason]);
        }
    }

    fn values_of_another_kind_are_refused(site) {
        for (access, reason) in [
            (json!("yes"), "is neither true, nor false, nor an object"),
            (json!({"services": "10.96.0.0/16"}), "hostAccess.services"),
            (json!({"addresses": ["10.0.0.1/24"]}), "is not an address without a prefix length"),
            (json!({"privateAddresses": ["127.0.0.1"]}), "is not an address of one machine"),
            (json!({"privateAddresses": ["169.254.255.7", "169.254.255.8"]}), "has two addresses of one family"),
        ] {
            refuses(site, &site.conf_with(DUAL, access), &[reason]);
        }
    }

    fn a_private_address_that_the_host_has_already_is_refused(site) {
        site.host.ip("address add 169.254.255.7/32 dev lo");
        let conf = site.conf_with(DUAL, json!({"privateAddresses": ["169.254.255.7"]}));
        refuses(site, &conf, &["hostAccess.privateAddresses \"169.254.255.7\"", "another interface of the host has it"]);
    }

    /// An address that was chosen, and not configured, is another one then.
    fn a_usual_private_address_that_the_host_has_already_is_passed_over(site) {
        for there in ["169.254.255.1/32", "fd00:75:6c::1/128"] {
            site.host.ip(&format!("address add {there} dev lo"));
        }
        site.attach(&site.conf(DUAL));
        assert_eq!(site.private(), ["169.254.255.2/32", "fd00:75:6c::2/128"]);
    }

    fn two_networks_of_one_parent_cannot_have_two_private_addresses(site) {
        let access = json!({"privateAddresses": ["169.254.255.7"]});
        let (first, _) = site.attach(&site.conf_with(Families::V4, access));
        let access = json!({"privateAddresses": ["169.254.255.8"]});
        let mut conf = with(site.conf_with(Families::V4, access), "name", json!("lan2"));
        conf["ipam"]["ranges"][0][0]["rangeStart"] = json!("192.168.50.120");
        let names = ["\"169.254.255.8\"", "has 169.254.255.7 already", "all networks of a parent share its link"];
        site.plugin().add(&site.container(), "eth0", &conf).run().fails(7, &names);
        assert_reach_each_other(site, &first);
    }

    /// The host cannot have two routes to one address. The second container would take the first one's.
    fn one_address_on_two_parents_is_refused(site) {
        let _other = other_lan(site, "ens4", "10.9.9.1/24", "10.9.9.2/24");
        let (first, _) = site.attach(&site.conf(Families::V4));
        let ip = address(&first);
        let mut conf = with(with(site.conf(Families::V4), "name", json!("lan2")), "master", json!("ens4"));
        conf["ipam"]["dataDir"] = json!(site.path("other-leases"));
        let names = [&format!("add the host's route to {ip}"), &*first.id, "eth0"];
        let error = site.plugin().add(&site.container(), "eth0", &conf).run().fails(7, &names);
        assert!(error.msg.contains("the host cannot reach two containers by one address"), "{}", error.msg);
        assert_eq!(site.host_links().len(), 1);
    }

    fn a_route_of_another_program_to_the_address_is_named(site) {
        for (to, families) in [("192.168.50.100", Families::V4), ("fd50::100", Families::V6)] {
            site.host.ip(&format!("route add {to} dev lo"));
            let names = [&format!("add the host's route to {to}"), "the host has another route to it"];
            refuses(site, &site.conf(families), &names);
        }
    }
}
