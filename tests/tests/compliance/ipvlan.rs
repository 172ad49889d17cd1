//! Each key of ipvlan, and changes before DEL. There are few cases, because they run in a guest.

use e2e::compliance;
use e2e::compliance::Rig;
use e2e::lab::{Families, NIC};
use e2e::{with, without};
use serde_json::{Value, json};

fn conf(rig: &Rig) -> Value {
    rig.ipvlan_conf("l2")
}

fn key(rig: &Rig, key: &str, value: Value) {
    rig.live(&with(conf(rig), key, value));
}

/// Without IPAM, after a plugin that gives the parent and the address.
fn chained(rig: &Rig, interfaces: Value) {
    let conf = without(without(conf(rig), "ipam"), "master");
    rig.live(&with(
        conf,
        "prevResult",
        json!({
            "cniVersion": "1.0.0",
            "interfaces": interfaces,
            "ips": [{"address": "192.168.50.77/24", "gateway": "192.168.50.1", "interface": 0}],
            "routes": [{"dst": "10.20.0.0/16", "gw": "192.168.50.20"}],
            "dns": {"nameservers": ["192.168.50.1"]},
        }),
    ));
}

compliance! {
    #[needs(Ipvlan)]
    fn mode_l2(rig) { rig.live(&conf(rig)); }
    #[needs(Ipvlan)]
    fn mode_l3(rig) { key(rig, "mode", json!("l3")); }
    #[needs(Ipvlan)]
    fn mode_l3s(rig) { key(rig, "mode", json!("l3s")); }
    #[needs(Ipvlan)]
    fn no_mode_and_an_mtu_of_zero(rig) { rig.live(&with(without(conf(rig), "mode"), "mtu", json!(0))); }
    #[needs(Ipvlan)]
    #[differs("E1": "answer end: error 999 | error 2")]
    fn mode_unknown(rig) { key(rig, "mode", json!("l4")); }
    #[needs(Ipvlan)]
    #[differs("N1": "link eth0 Flags: IpVlanFlags(0x0) | IpVlanFlags(Private)")]
    fn flag(rig) { key(rig, "flag", json!("private")); }
    #[needs(Ipvlan)]
    fn mtu(rig) { key(rig, "mtu", json!(1400)); }
    #[needs(Ipvlan)]
    #[differs("K5": "ADD: answer end: success | error 7", "K5": ": here | -")]
    fn mtu_above_the_parents(rig) { rig.add(&rig.container(), "eth0", &with(conf(rig), "mtu", json!(9000))); }

    #[needs(Ipvlan)]
    #[differs("H2": "CHECK: answer end: error 999 | success")]
    fn master_of_the_default_route(rig) {
        rig.add_default_route();
        rig.live(&without(conf(rig), "master"));
    }

    #[needs(Ipvlan)]
    #[differs(
        "U4": "DEL: answer end: error 999 | success",
        "U4": "container-1 *: here | -",
        "U4": "file leases/lan/192.168.50.100: here | -",
    )]
    fn master_of_the_default_route_that_is_gone(rig) {
        rig.add_default_route();
        let (container, conf) = (rig.container(), without(conf(rig), "master"));
        rig.add(&container, "eth0", &conf);
        rig.host.ip("route del default");
        rig.del(&container, "eth0", &conf);
    }

    #[needs(Ipvlan)]
    #[differs("E1": "answer end: error 999 | error 7")]
    fn master_absent(rig) { key(rig, "master", json!("nope0")); }

    #[needs(Ipvlan)]
    fn link_in_container(rig) {
        let container = rig.container();
        rig.plug(&container, "net7");
        let conf = with(with(conf(rig), "master", json!("net7")), "linkInContainer", json!(true));
        rig.add(&container, "eth0", &conf);
        rig.del(&container, "eth0", &conf);
    }

    #[needs(Ipvlan)]
    fn dual_stack_with_routes(rig) {
        let ipam = with(rig.ipam(Families::Dual), "routes", json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        key(rig, "ipam", ipam);
    }

    #[needs(Ipvlan)]
    fn dns(rig) { key(rig, "dns", json!({"nameservers": ["192.168.50.1"], "search": ["lan.example"]})); }
    #[needs(Ipvlan)]
    fn version_0_2_0(rig) { key(rig, "cniVersion", json!("0.2.0")); }
    #[needs(Ipvlan)]
    fn version_0_4_0(rig) { key(rig, "cniVersion", json!("0.4.0")); }

    #[needs(Ipvlan)]
    #[differs(
        "P4": "ADD: answer end: error 999 | success",
        "P4": "link eth0 Qdisc: \"noop\" | \"noqueue\"",
        "P4": "link eth0 flags: ",
    )]
    fn no_ipam(rig) {
        let (container, conf) = (rig.container(), without(conf(rig), "ipam"));
        rig.add(&container, "eth0", &conf);
        rig.del(&container, "eth0", &conf);
    }

    #[needs(Ipvlan)]
    #[differs("H2": "CHECK: answer end: error 999 | success", "R1": "answer result.dns")]
    fn chained_after_one_interface(rig) { chained(rig, json!([{"name": NIC, "mac": "02:00:5e:10:00:01"}])); }

    #[needs(Ipvlan)]
    #[differs("H2": "CHECK: answer end: error 999 | success")]
    fn chained_after_one_interface_with_ipam(rig) {
        let conf = without(conf(rig), "master");
        rig.live(&with(conf, "prevResult", json!({"cniVersion": "1.0.0", "interfaces": [{"name": NIC}]})));
    }

    #[needs(Ipvlan)]
    fn chained_with_unknown_cni_args(rig) {
        let conf = without(conf(rig), "ipam");
        let previous = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.77/24"}]});
        rig.live_with(&with(conf, "prevResult", previous), |call| call.args("none"));
    }

    fn status_without_a_master(rig) {
        let conf = with(without(without(conf(rig), "ipam"), "master"), "cniVersion", json!("1.1.0"));
        rig.see("STATUS", &rig.program("STATUS", "ipvlan").call("STATUS", &conf));
    }

    #[needs(Ipvlan)]
    #[differs(
        "E1": "answer end: error 999 | error 100",
        "U3": "container-1 *: here | -",
        "U3": "file leases/lan/192.168.50.100: here | -",
    )]
    fn a_route_to_nowhere(rig) {
        key(rig, "ipam", with(rig.ipam(Families::V4), "routes", json!([{"dst": "10.9.0.0/16", "gw": "172.31.0.1"}])));
    }

    #[needs(Ipvlan)]
    #[differs(
        "U8": "2 ADD: answer end: success | error 7",
        "U8": "container-1 link eth0 Mode: L3 | L2",
        "U8": "container-1 link eth0 flags: ",
        "U8": "container-2 *: here | -",
        "U8": "file leases/lan/192.168.50.101: here | -",
        "U8": "last_reserved_ip.0 content: \"192.168.50.101\" | \"192.168.50.100\"",
    )]
    fn another_mode_on_the_parent_of_a_running_container(rig) {
        let (first, second) = (rig.container(), rig.container());
        rig.add(&first, "eth0", &conf(rig));
        rig.add(&second, "eth0", &with(conf(rig), "mode", json!("l3")));
    }

    #[needs(Ipvlan)]
    #[differs("E1": "answer end: error 999 | error 100")]
    fn the_parent_carries_a_macvlan(rig) {
        rig.host.create_macvlan_in(&rig.host, "mv0", NIC);
        rig.live(&conf(rig));
    }

    #[needs(Ipvlan)]
    #[differs("E1": "answer end: error 999 | error 3")]
    fn the_link_is_gone(rig) {
        let (container, conf) = (rig.container(), conf(rig));
        let later = with(conf.clone(), "prevResult", rig.add(&container, "eth0", &conf));
        container.delete_link("eth0");
        rig.check(&container, "eth0", &later);
        rig.del(&container, "eth0", &later);
    }

    #[needs(Ipvlan)]
    #[differs("E1": "answer end: error 999 | error 102")]
    fn an_address_is_gone(rig) {
        let (container, conf) = (rig.container(), conf(rig));
        let later = with(conf.clone(), "prevResult", rig.add(&container, "eth0", &conf));
        container.ip("address delete 192.168.50.100/24 dev eth0");
        rig.check(&container, "eth0", &later);
        rig.check(&container, "eth0", &with(later, "mode", json!("l3")));
    }

    #[needs(Ipvlan)]
    fn the_parent_is_gone(rig) {
        let (container, conf) = (rig.container(), conf(rig));
        let later = with(conf.clone(), "prevResult", rig.add(&container, "eth0", &conf));
        rig.host.delete_link(NIC);
        rig.del(&container, "eth0", &later);
    }
}
