//! DEL and CHECK of macvlan after a change since ADD.

use e2e::compliance;
use e2e::compliance::Rig;
use e2e::lab::{Families, NIC};
use e2e::{Container, Lab, with};
use serde_json::{Value, json};
use std::rc::Rc;

/// A container, and its configuration with the result.
fn attached(rig: &Rig) -> (Rc<Container>, Value) {
    let routes = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.254"}]);
    let conf = rig.conf_with(with(rig.ipam(Families::V4), "routes", routes));
    let container = rig.container();
    let result = rig.add(&container, "eth0", &conf);
    (container, with(conf, "prevResult", result))
}

fn after(rig: &Rig, deed: impl FnOnce(&Lab, &Container)) {
    let (container, conf) = attached(rig);
    deed(rig, &container);
    rig.check(&container, "eth0", &conf);
    rig.del(&container, "eth0", &conf);
}

fn check_with(rig: &Rig, change: impl FnOnce(&mut Value)) {
    let (container, mut conf) = attached(rig);
    change(&mut conf);
    rig.check(&container, "eth0", &conf);
}

compliance! {
    fn no_change(rig) { after(rig, |_, _| ()); }
    #[differs("E1": "answer end: error 999 | error 3")]
    fn the_link_is_gone(rig) { after(rig, |_, container| container.delete_link("eth0")); }
    #[differs("E1": "answer end: error 999 | error 102")]
    fn the_link_is_down(rig) { after(rig, |_, container| container.set_down("eth0")); }
    fn the_link_has_another_mtu(rig) { after(rig, |_, container| container.ip("link set eth0 mtu 1400")); }

    #[differs("E1": "answer end: error 999 | error 102")]
    fn an_address_is_gone(rig) {
        after(rig, |_, container| {
            container.ip("address delete 192.168.50.100/24 dev eth0");
        });
    }

    #[differs("E1": "answer end: error 999 | error 102")]
    fn a_route_is_gone(rig) { after(rig, |_, container| container.ip("route del 10.20.0.0/16")); }

    #[differs("E1": "answer end: error 999 | error 3")]
    fn the_lease_is_gone(rig) {
        after(rig, |lab, _| std::fs::remove_file(lab.lease_file("192.168.50.100")).expect("remove a lease"));
    }

    #[differs("E1": "answer end: error 999 | error 3")]
    fn the_lease_directory_is_gone(rig) {
        after(rig, |lab, _| std::fs::remove_dir_all(lab.data_dir()).expect("remove the leases"));
    }

    #[differs("H1": "CHECK: answer end: error 999 | success")]
    fn the_parent_has_another_name(rig) {
        after(rig, |lab, _| {
            lab.host.rename(NIC, "ens9");
            lab.host.set_up("ens9");
        });
    }

    #[differs("E1": "answer end: error 999 | error 3")]
    fn the_parent_is_gone(rig) { after(rig, |lab, _| lab.host.delete_link(NIC)); }

    #[differs(
        "E1": "answer end: error 999 | error 102",
        "U6": "container-1 link eth0: - | here",
        "U6": "container-1 link eth0p: - | here",
    )]
    fn another_kind_of_link_has_the_name(rig) {
        after(rig, |_, container| {
            container.delete_link("eth0");
            container.create_stray("eth0");
        });
    }

    #[differs("E1": "answer end: error 999 | error 102")]
    fn check_against_another_mac(rig) {
        check_with(rig, |conf| conf["prevResult"]["interfaces"][0]["mac"] = json!("02:00:5e:10:00:99"));
    }

    #[differs("E1": "answer end: error 999 | error 102")]
    fn check_against_another_mode(rig) { check_with(rig, |conf| conf["mode"] = json!("private")); }

    #[differs("E1": "answer end: error 999 | error 102")]
    fn check_against_another_address(rig) {
        check_with(rig, |conf| conf["prevResult"]["ips"][0]["address"] = json!("192.168.50.101/24"));
    }

    #[differs("E1": "answer end: error 999 | error 102")]
    fn check_against_a_route_that_is_not_there(rig) {
        check_with(rig, |conf| conf["prevResult"]["routes"] = json!([{"dst": "10.30.0.0/16"}]));
    }

    fn check_against_a_result_without_routes(rig) {
        let (container, mut conf) = attached(rig);
        conf["prevResult"]["routes"] = json!([]);
        container.ip("route del 10.20.0.0/16");
        rig.check(&container, "eth0", &conf);
    }

    #[differs("E1": "answer end: error 999 | error 7")]
    fn check_without_a_result(rig) {
        check_with(rig, |conf| drop(conf.as_object_mut().and_then(|keys| keys.remove("prevResult"))));
    }

    #[differs("H1": "CHECK: answer end: error 999 | success")]
    fn check_of_another_sandbox(rig) {
        check_with(rig, |conf| conf["prevResult"]["interfaces"][0]["sandbox"] = json!("/run/netns/other"));
    }

    fn del_without_netns(rig) {
        let (container, conf) = attached(rig);
        rig.see("DEL", &rig.program("DEL", "macvlan").del(&container, "eth0", &conf).without("CNI_NETNS"));
        rig.see("DEL", &rig.program("DEL", "macvlan").del(&container, "eth0", &conf).env("CNI_NETNS", ""));
    }

    fn del_with_a_netns_that_is_gone(rig) {
        let (container, conf) = attached(rig);
        let gone = rig.path("gone");
        rig.see("DEL", &rig.program("DEL", "macvlan").del(&container, "eth0", &conf).env("CNI_NETNS", gone));
    }

    #[differs("D2": "DEL: answer end: error 8 | success")]
    fn del_in_the_hosts_own_netns(rig) {
        let (container, conf) = attached(rig);
        rig.host.create_stray("eth0");
        rig.see("DEL", &rig.program("DEL", "macvlan").del(&container, "eth0", &conf).env("CNI_NETNS", rig.host.path()));
    }

    #[differs(
        "U15": "DEL: answer end: error 999 | success",
        "U15": "container-1 *: here | -",
        "U15": "file leases/lan/192.168.50.100: here | -",
        "U15": "host link ens3 Promiscuity: 1 | 0",
    )]
    fn del_with_ranges_that_overlap(rig) {
        let (container, mut conf) = attached(rig);
        let range = json!({"subnet": "192.168.50.0/24"});
        conf["ipam"]["ranges"] = json!([[range, range]]);
        rig.del(&container, "eth0", &conf);
    }

    fn del_with_an_unknown_mode(rig) {
        let (container, mut conf) = attached(rig);
        conf["mode"] = json!("bogus");
        rig.del(&container, "eth0", &conf);
    }

    fn del_with_a_result_that_cannot_be_read(rig) {
        let (container, mut conf) = attached(rig);
        conf["prevResult"] = json!({"cniVersion": "1.0.0", "ips": "nonsense"});
        rig.del(&container, "eth0", &conf);
    }

    fn del_of_another_interface(rig) {
        let (container, conf) = attached(rig);
        rig.del(&container, "net1", &conf);
    }

    #[differs(
        "F4": "file leases: here | -",
        "F4": "file leases/lan: here | -",
        "F4": "file leases/lan/lock: here | -",
    )]
    fn del_without_add(rig) {
        let container = rig.container();
        rig.del(&container, "eth0", &rig.conf());
    }

    #[differs("U6": "container-1 link eth0: - | here", "U6": "container-1 link eth0p: - | here")]
    fn del_without_add_of_a_link_that_the_container_made(rig) {
        let container = rig.container();
        container.create_stray("eth0");
        rig.del(&container, "eth0", &rig.conf());
    }
}
