//! Each key of ipvlan and its effect in the kernel and on the wire.

use std::net::IpAddr;

use e2e::kernel::Ipvlan;
use e2e::lab::{Families, LAN4, LAN6, NIC, lan4, lan6};
use e2e::patience::PATIENCE;
use e2e::traffic::{Wire, assert_reaches, assert_silent, echo};
use e2e::{Binaries, Lab, cases, with, without};
use serde_json::{Value, json};

fn dual(lab: &Lab, mode: &str) -> Value {
    with(lab.ipvlan_conf(mode), "ipam", lab.ipam(Families::Dual))
}

fn l2(flag: &str) -> Ipvlan {
    Ipvlan { mode: "l2".into(), flag: flag.into(), noarp: false }
}

/// A configuration for layer 3: a subnet for the containers, which the host routes. The first has 10.66.0.2 and
/// fd66::2.
fn routed(lab: &Lab, mode: &str) -> Value {
    let ranges = json!([[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd66::/64"}]]);
    let routes = json!([{"dst": LAN4}, {"dst": LAN6}]);
    for (dst, gateway) in [("10.66.0.0/24", lab.host.v4), ("fd66::/64", lab.host.v6)] {
        lab.neighbour.ip(&format!("route add {dst} via {gateway}"));
    }
    lab.host.set_sysctl("net/ipv4/ip_forward", "1");
    lab.host.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    let mut conf = with(lab.ipvlan_conf(mode), "ipam", lab.conf_over(ranges)["ipam"].take());
    conf["ipam"]["routes"] = routes;
    conf
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

cases! {
    #[needs(Ipvlan)]
    #[reference(passes)]
    fn a_container_is_on_the_lan_with_the_mac_of_the_host(lab) {
        let conf = without(lab.ipvlan_conf("l2"), "mode");
        let (container, result) = lab.ipvlan().attached(lab, &conf);
        assert_eq!(container.ipvlan("eth0"), l2("bridge"));
        let (mac, parent) = (container.link("eth0").mac, lab.host.link(NIC));
        assert_eq!(mac, parent.mac);
        assert_eq!(container.link("eth0").parent, Some(parent.ifindex));
        assert_eq!(result["interfaces"][0]["mac"], json!(mac));
        assert_eq!(result["interfaces"][0]["name"], "eth0");
        assert_eq!(result["interfaces"][0]["sandbox"], json!(container.path()));
        assert_eq!(result["ips"][0]["address"], "192.168.50.100/24");
        assert_eq!(result["ips"][0]["interface"], 0);
        assert_reaches(&lab.neighbour, lan4(100));
        assert_reaches(&container, lab.neighbour.v4);
        echo(&lab.neighbour, &container, lan4(100), 100_000);
        echo(&container, &lab.neighbour, lab.neighbour.v4, 100_000);
        lab.ipvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
        assert_silent(&lab.neighbour, lan4(100));
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn an_empty_mode_and_an_mtu_of_zero_mean_the_defaults(lab) {
        // As podman and nerdctl write them.
        let conf = with(with(lab.ipvlan_conf(""), "mtu", json!(0)), "capabilities", json!({"ips": true}));
        let (container, _) = lab.ipvlan().attached(lab, &conf);
        assert_eq!(container.ipvlan("eth0"), l2("bridge"));
        assert_eq!(container.link("eth0").mtu, lab.host.link(NIC).mtu);
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn siblings_reach_each_other(lab) {
        let [first, second] = [1, 2].map(|_| lab.ipvlan().attached(lab, &dual(lab, "l2")).0);
        assert_reaches(&first, lan4(101));
        assert_reaches(&second, lan6(100));
        echo(&first, &second, lan4(101), 100_000);
        echo(&second, &first, lan6(100), 100_000);
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn dual_stack_works_in_both_directions_when_add_returns(lab) {
        let (container, _) = lab.ipvlan().attached(lab, &dual(lab, "l2"));
        assert_eq!(container.address_texts("eth0"), ["192.168.50.100/24", "fd50::100/64"]);
        assert!(container.addresses("eth0").iter().all(|address| !address.tentative()), "an address is tentative");
        for address in [lan4(100), lan6(100)] {
            assert_reaches(&lab.neighbour, address);
        }
        for address in [lab.neighbour.v4, lab.neighbour.v6] {
            assert_reaches(&container, address);
        }
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn addresses_are_announced_on_the_wire(lab) {
        let wire = Wire::open(&lab.neighbour, lab.neighbour.nic);
        let (_container, _) = lab.ipvlan().attached(lab, &dual(lab, "l2"));
        assert!(wire.wait_for(PATIENCE, |frame| frame.announces(lan4(100))).is_some(), "no gratuitous ARP");
        assert!(wire.wait_for(PATIENCE, |frame| frame.announces(lan6(100))).is_some(), "no unsolicited advertisement");
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "its 5 s for duplicate address detection are too short without ARP")]
    fn l3_is_routed_by_the_host(lab) {
        let (container, _) = lab.ipvlan().attached(lab, &routed(lab, "l3"));
        assert_eq!(container.ipvlan("eth0"), Ipvlan { mode: "l3".into(), flag: "bridge".into(), noarp: true });
        assert_reaches(&lab.neighbour, ip("10.66.0.2"));
        assert_reaches(&lab.neighbour, ip("fd66::2"));
        assert_reaches(&container, lab.neighbour.v4);
        assert_reaches(&container, lab.neighbour.v6);
        echo(&lab.neighbour, &container, ip("10.66.0.2"), 100_000);
    }

    /// The container answers no ARP, so no machine of the LAN could reach it. No message named the cause.
    #[needs(Ipvlan)]
    #[reference(fails: "left == right")]
    fn in_a_layer_3_mode_an_address_of_the_parents_network_is_a_remark(lab) {
        for (mode, remarks) in [("l2", 0), ("l3", 1), ("l3s", 1)] {
            let (container, conf) = (lab.container(), lab.ipvlan_conf(mode));
            let outcome = lab.ipvlan().add(&container, "eth0", &conf).run();
            outcome.result();
            assert_eq!(outcome.stderr.lines().count(), remarks, "{}", outcome.text());
            let in_mode = format!("in mode {mode} no machine");
            let named = ["is in 192.168.50.0/24, the network of parent", &in_mode, "use mode l2"];
            assert!(remarks == 0 || named.iter().all(|part| outcome.stderr.contains(part)), "{}", outcome.text());
            lab.ipvlan().del(&container, "eth0", &conf).run().done();
        }
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "as l3")]
    fn l3s_is_routed_by_the_host(lab) {
        let (container, _) = lab.ipvlan().attached(lab, &routed(lab, "l3s"));
        assert_eq!(container.ipvlan("eth0"), Ipvlan { mode: "l3s".into(), flag: "bridge".into(), noarp: true });
        assert_reaches(&lab.neighbour, ip("10.66.0.2"));
        assert_reaches(&lab.neighbour, ip("fd66::2"));
        assert_reaches(&container, lab.neighbour.v4);
        echo(&container, &lab.neighbour, lab.neighbour.v4, 100_000);
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it has no flags")]
    fn siblings_with_the_flag_private_do_not_reach_each_other(lab) {
        let conf = with(lab.ipvlan_conf("l2"), "flag", json!("private"));
        let ((first, _), (second, _)) = (lab.ipvlan().attached(lab, &conf), lab.ipvlan().attached(lab, &conf));
        assert_eq!(second.ipvlan("eth0"), l2("private"));
        assert_silent(&first, lan4(101));
        assert_reaches(&lab.neighbour, lan4(100));
        assert_reaches(&lab.neighbour, lan4(101));
    }

    /// Their packets go to the switch, which must send them back. All slaves have one MAC, so an ARP request that comes
    /// back looks like the parent's own. So the test sets the neighbour entries.
    #[needs(Ipvlan)]
    #[reference(not_run: "it has no flags")]
    fn siblings_with_the_flag_vepa_reach_each_other_through_the_switch(lab) {
        let conf = with(lab.ipvlan_conf("l2"), "flag", json!("vepa"));
        let ((first, _), (second, _)) = (lab.ipvlan().attached(lab, &conf), lab.ipvlan().attached(lab, &conf));
        assert_eq!(second.ipvlan("eth0"), l2("vepa"));
        let mac = lab.host.link(NIC).mac;
        for (container, ip) in [(&first, lan4(101)), (&second, lan4(100))] {
            container.ip(&format!("neigh replace {ip} lladdr {mac} dev eth0 nud permanent"));
        }
        assert_silent(&first, lan4(101));
        lab.reflect();
        assert_reaches(&first, lan4(101));
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn the_default_mtu_is_that_of_the_parent(lab) {
        lab.host.ip(&format!("link set {NIC} mtu 1480"));
        let (container, _) = lab.ipvlan().attached(lab, &lab.ipvlan_conf("l2"));
        assert_eq!(container.link("eth0").mtu, 1480);
        let (container, _) = lab.ipvlan().attached(lab, &with(lab.ipvlan_conf("l2"), "mtu", json!(1400)));
        assert_eq!(container.link("eth0").mtu, 1400);
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn without_a_master_the_parent_is_that_of_the_default_route(lab) {
        lab.plug(&lab.host, "ens4");
        lab.add_default_route();
        let (container, _) = lab.ipvlan().attached(lab, &with(lab.ipvlan_conf("l2"), "master", json!("")));
        assert_eq!(container.link("eth0").parent, Some(lab.host.link(NIC).ifindex));
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn the_parent_may_be_in_the_container(lab) {
        let container = lab.container();
        lab.plug(&container, "net1");
        let conf = with(with(lab.ipvlan_conf("l2"), "master", json!("net1")), "linkInContainer", json!(true));
        lab.ipvlan().add(&container, "eth0", &conf).run().result();
        assert_eq!(container.ipvlan("eth0"), l2("bridge"));
        assert_reaches(&lab.neighbour, lan4(100));
        lab.ipvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo", "net1"]);
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it needs addresses")]
    fn without_ipam_there_is_a_link_without_addresses(lab) {
        let conf = with(lab.ipvlan_conf("l2"), "ipam", json!({}));
        let (container, result) = lab.ipvlan().attached(lab, &conf);
        assert!(result["ips"].as_array().is_none_or(Vec::is_empty), "{result}");
        assert_eq!(container.address_texts("eth0"), [""; 0]);
        assert!(container.link("eth0").up);
        lab.ipvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// The previous plugin in the chain gives the parent and the address.
    #[needs(Ipvlan)]
    #[reference(passes)]
    fn chained_without_ipam_it_uses_master_and_addresses_of_the_previous_result(lab) {
        let mut conf = without(without(lab.ipvlan_conf("l2"), "ipam"), "master");
        conf["prevResult"] = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": NIC, "mac": lab.host.link(NIC).mac}],
            "ips": [{"address": "192.168.50.77/24", "gateway": "192.168.50.1", "interface": 0}],
            "routes": [{"dst": "10.20.0.0/16", "gw": "192.168.50.20"}],
        });
        let (container, result) = lab.ipvlan().attached(lab, &conf);
        assert_eq!(container.address_texts("eth0"), ["192.168.50.77/24"]);
        assert_eq!(container.route_to("10.20.0.0/16").gateway, Some(lab.neighbour.v4));
        assert_reaches(&lab.neighbour, lan4(77));
        let interfaces = result["interfaces"].as_array().expect("interfaces");
        let index = interfaces.iter().position(|interface| interface["name"] == "eth0").expect("ours is in the result");
        assert_eq!(result["ips"][0]["interface"], json!(index));
        lab.ipvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// In a chain without IPAM, no key of CNI_ARGS has an effect.
    #[needs(Ipvlan)]
    #[reference(passes)]
    fn chained_without_ipam_it_accepts_any_cni_args(lab) {
        let mut conf = without(lab.ipvlan_conf("l2"), "ipam");
        conf["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.77/24"}]});
        for args in ["none", "K8S_POD_NAME=x", "IgnoreUnknown=yes"] {
            let (container, plugin) = (lab.container(), lab.ipvlan());
            plugin.add(&container, "eth0", &conf).args(args).run().result();
            plugin.del(&container, "eth0", &conf).args(args).run().done();
        }
    }

    #[needs(Ipvlan)]
    #[reference(fails: "another code")]
    fn chained_after_several_interfaces_it_needs_the_key_master(lab) {
        let mut conf = without(without(lab.ipvlan_conf("l2"), "ipam"), "master");
        conf["prevResult"] = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": NIC}, {"name": "ens4"}],
            "ips": [{"address": "192.168.50.77/24"}],
        });
        lab.ipvlan().refuses(lab, &conf, 7, &["master", NIC, "ens4"]);
    }

    /// Linux 6.1 refuses a name in the container if the host has a link of that name.
    #[needs(Ipvlan)]
    #[reference(passes)]
    fn the_host_may_have_a_link_of_the_same_name(lab) {
        lab.host.create_stray("eth0");
        let (container, _) = lab.ipvlan().attached(lab, &lab.ipvlan_conf("l2"));
        assert_eq!(container.link_names(), ["lo", "eth0"]);
        assert_reaches(&lab.neighbour, lan4(100));
        lab.ipvlan().del(&container, "eth0", &lab.ipvlan_conf("l2")).run().done();
        lab.assert_gone(&container);
        assert!(lab.host.has_link("eth0"));
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "its messages and codes are others")]
    fn bad_values_are_refused_and_nothing_is_changed(lab) {
        let refused = |key: &str, value: Value, code: u64, names: &[&str]| {
            lab.ipvlan().refuses(lab, &with(lab.ipvlan_conf("l2"), key, value), code, names);
        };
        refused("mode", json!("l4"), 2, &["mode", "l4", "l2, l3, l3s"]);
        refused("flag", json!("passthru"), 2, &["flag", "passthru", "bridge, private, vepa"]);
        refused("mtu", json!(9000), 7, &["mtu", "9000", NIC, "1500"]);
        refused("master", json!("nope0"), 7, &["master", "nope0"]);
        refused("master", json!("lo"), 7, &["master", "lo"]);
    }

    /// For nodes on which no network may use another mode.
    #[needs(Ipvlan)]
    #[reference(not_run: "it has no such name")]
    fn ipvlan_l2_accepts_no_other_mode(lab) {
        // The copies do not include this name.
        if lab.binaries() == Binaries::PlainCopies {
            std::fs::hard_link(lab.bin().join("ipvlan"), lab.bin().join("ipvlan-l2")).expect("link a program");
        }
        let plugin = lab.plugin("ipvlan-l2");
        for mode in ["l3", "l3s"] {
            plugin.refuses(lab, &lab.ipvlan_conf(mode), 2, &["mode", mode, "ipvlan-l2"]);
        }
        let (container, _) = plugin.attach(lab, &lab.ipvlan_conf("l2"));
        assert_eq!(container.ipvlan("eth0"), l2("bridge"));
        plugin.del(&container, "eth0", &lab.ipvlan_conf("l2")).run().done();
        lab.assert_gone(&container);
    }
}
