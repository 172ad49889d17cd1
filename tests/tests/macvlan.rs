//! Each key of macvlan and its effect in the kernel and on the wire.

use std::fs;

use e2e::kernel::Macvlan;
use e2e::lab::{Families, NIC, lan4, lan6};
use e2e::patience::{PATIENCE, await_that};
use e2e::plugin::write_script;
use e2e::traffic::{Wire, assert_reaches, assert_silent, echo};
use e2e::{Container, Lab, Plugin, cases, with, without};
use serde_json::{Value, json};

fn macvlan_of(container: &Container) -> Macvlan {
    container.link("eth0").macvlan.expect("eth0 is a macvlan link")
}

fn mode_of(lab: &Lab, conf: &Value) -> String {
    macvlan_of(&lab.macvlan().attached(lab, conf).0).mode
}

/// The name of the parent. It must be on the host.
fn parent_of(lab: &Lab, container: &Container) -> String {
    let ifindex = container.link("eth0").parent;
    let links = lab.host.links();
    links.into_iter().find(|link| Some(link.ifindex) == ifindex).expect("the parent is on the host").name
}

cases! {
    #[reference(passes)]
    fn the_default_mode_is_bridge(lab) {
        assert_eq!(mode_of(lab, &lab.conf()), "bridge");
        // As podman and nerdctl write it.
        assert_eq!(mode_of(lab, &with(lab.conf(), "mode", json!(""))), "bridge");
    }

    #[reference(passes)]
    fn the_shared_modes_reach_the_kernel(lab) {
        for mode in ["bridge", "private", "vepa"] {
            assert_eq!(mode_of(lab, &with(lab.conf(), "mode", json!(mode))), mode);
        }
    }

    #[reference(passes)]
    fn passthru_takes_the_parent_with_its_mac(lab) {
        let (container, _) = lab.macvlan().attached(lab, &with(lab.conf(), "mode", json!("passthru")));
        assert_eq!(macvlan_of(&container).mode, "passthru");
        assert_eq!(container.link("eth0").mac, lab.host.link(NIC).mac);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn siblings_in_bridge_mode_reach_each_other(lab) {
        let [first, second] = [1, 2].map(|_| lab.macvlan().attached(lab, &lab.conf()).0);
        assert_reaches(&first, lan4(101));
        assert_reaches(&second, lan4(100));
        echo(&first, &second, lan4(101), 100_000);
    }

    #[reference(passes)]
    fn siblings_in_private_mode_do_not_reach_each_other(lab) {
        let conf = with(lab.conf(), "mode", json!("private"));
        let ((first, _), (_second, _)) = (lab.macvlan().attached(lab, &conf), lab.macvlan().attached(lab, &conf));
        assert_silent(&first, lan4(101));
        assert_reaches(&lab.neighbour, lan4(101));
    }

    #[reference(passes)]
    fn siblings_in_vepa_mode_reach_each_other_through_the_switch(lab) {
        lab.reflect();
        let conf = with(lab.conf(), "mode", json!("vepa"));
        let ((first, _), (_second, _)) = (lab.macvlan().attached(lab, &conf), lab.macvlan().attached(lab, &conf));
        assert_reaches(&first, lan4(101));
    }

    /// The kernel passes no packets between a macvlan link and the host of its parent.
    #[reference(passes)]
    fn a_container_reaches_the_lan_and_not_its_own_host(lab) {
        let (container, _) = lab.macvlan().attached(lab, &lab.conf());
        assert_reaches(&container, lab.neighbour.v4);
        assert_silent(&container, lab.host.v4);
        echo(&lab.neighbour, &container, lan4(100), 1_000_000);
        echo(&container, &lab.neighbour, lab.neighbour.v4, 1_000_000);
    }

    #[reference(passes)]
    fn the_default_mtu_is_that_of_the_parent(lab) {
        lab.host.ip(&format!("link set {NIC} mtu 1400"));
        assert_eq!(lab.macvlan().attached(lab, &lab.conf()).0.link("eth0").mtu, 1400);
        // As podman and nerdctl write it.
        assert_eq!(lab.macvlan().attached(lab, &with(lab.conf(), "mtu", json!(0))).0.link("eth0").mtu, 1400);
        assert_eq!(lab.macvlan().attached(lab, &with(lab.conf(), "mtu", json!(1300))).0.link("eth0").mtu, 1300);
    }

    #[reference(passes)]
    fn the_mac_of_the_configuration_is_used(lab) {
        let (container, result) = lab.macvlan().attached(lab, &with(lab.conf(), "mac", json!("02:00:5E:10:00:0A")));
        assert_eq!(container.link("eth0").mac, "02:00:5e:10:00:0a");
        assert_eq!(result["interfaces"][0]["mac"], "02:00:5e:10:00:0a");
    }

    #[reference(passes)]
    fn a_mac_in_cni_args_has_priority_over_the_configuration(lab) {
        let container = lab.container();
        let call = lab.macvlan().add(&container, "eth0", &with(lab.conf(), "mac", json!("02:00:00:00:00:01")));
        call.args("IgnoreUnknown=1;MAC=02:00:00:00:00:02").run().result();
        assert_eq!(container.link("eth0").mac, "02:00:00:00:00:02");
    }

    #[reference(passes)]
    fn a_mac_of_the_runtime_has_priority_over_both(lab) {
        let mut conf = with(lab.conf(), "mac", json!("02:00:00:00:00:01"));
        conf["runtimeConfig"] = json!({"mac": "02:00:00:00:00:03"});
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &conf).args("IgnoreUnknown=1;MAC=02:00:00:00:00:02").run().result();
        assert_eq!(container.link("eth0").mac, "02:00:00:00:00:03");
    }

    #[reference(passes)]
    fn the_length_of_the_broadcast_queue_is_set(lab) {
        let (container, _) = lab.macvlan().attached(lab, &with(lab.conf(), "bcqueuelen", json!(5000)));
        assert_eq!(macvlan_of(&container).bcqueuelen, Some(5000));
        let (container, _) = lab.macvlan().attached(lab, &lab.conf());
        assert_eq!(macvlan_of(&container).bcqueuelen, Some(1000), "the default of the kernel");
    }

    #[reference(passes)]
    fn without_a_master_the_parent_is_that_of_the_default_route(lab) {
        lab.plug(&lab.host, "ens4");
        lab.add_default_route();
        let (container, _) = lab.macvlan().attached(lab, &with(lab.conf(), "master", json!("")));
        assert_eq!(parent_of(lab, &container), NIC);
        assert_eq!(parent_of(lab, &lab.macvlan().attach(lab, &without(lab.conf(), "master")).0), NIC);
    }

    #[reference(passes)]
    fn the_default_route_with_the_lower_metric_selects_the_parent(lab) {
        lab.plug(&lab.host, "ens4");
        lab.host.add_address("ens4", "192.168.60.10/24".parse().expect("a prefix"));
        lab.host.ip("route add default via 192.168.50.1 metric 200");
        lab.host.ip("route add default via 192.168.60.1 metric 100");
        assert_eq!(parent_of(lab, &lab.macvlan().attached(lab, &with(lab.conf(), "master", json!(""))).0), "ens4");
    }

    #[reference(passes)]
    fn an_ipv6_default_route_selects_the_parent_if_there_is_no_ipv4_route(lab) {
        lab.add_default_route6();
        assert_eq!(parent_of(lab, &lab.macvlan().attached(lab, &with(lab.conf(), "master", json!(""))).0), NIC);
    }

    #[reference(passes)]
    fn the_parent_may_be_in_the_container(lab) {
        let container = lab.container();
        lab.plug(&container, "net7");
        let conf = with(with(lab.conf(), "master", json!("net7")), "linkInContainer", json!(true));
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        assert_eq!(container.link("eth0").parent, Some(container.link("net7").ifindex));
        assert_reaches(&lab.neighbour, lan4(100));
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo", "net7"]);
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn the_default_route_of_the_container_selects_a_parent_in_the_container(lab) {
        let container = lab.container();
        lab.plug(&container, "net7");
        container.add_address("net7", "192.168.60.10/24".parse().expect("a prefix"));
        container.ip("route add default via 192.168.60.1");
        let conf = with(with(lab.conf(), "master", json!("")), "linkInContainer", json!(true));
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        assert_eq!(container.link("eth0").parent, Some(container.link("net7").ifindex));
    }

    #[reference(fails: "another code")]
    fn a_parent_that_only_the_host_has_is_absent_in_the_container(lab) {
        let conf = with(lab.conf(), "linkInContainer", json!(true));
        lab.macvlan().refuses(lab, &conf, 7, &["master", NIC]);
    }

    #[reference(passes)]
    fn without_ipam_there_is_a_link_without_addresses(lab) {
        for (ip, conf) in [(lan4(77), lab.conf_with(json!({}))), (lan4(78), without(lab.conf(), "ipam"))] {
            let (container, _) = lab.macvlan().attached(lab, &conf);
            let link = container.link("eth0");
            assert!(link.up && link.carrier, "{link:?}");
            assert_eq!(container.address_texts("eth0"), [""; 0]);
            // Another program adds the address.
            container.add_address("eth0", format!("{ip}/24").parse().expect("a prefix"));
            assert_reaches(&lab.neighbour, ip);
            lab.macvlan().del(&container, "eth0", &conf).run().done();
            assert_eq!(container.link_names(), ["lo"]);
        }
    }

    #[reference(passes)]
    fn dual_stack_works_in_both_directions_when_add_returns(lab) {
        let (container, result) = lab.macvlan().attached(lab, &lab.conf_with(lab.ipam(Families::Dual)));
        assert_eq!(result["ips"][0]["address"], "192.168.50.100/24");
        assert_eq!(result["ips"][1]["address"], "fd50::100/64");
        assert_eq!(container.address_texts("eth0"), ["192.168.50.100/24", "fd50::100/64"]);
        assert!(container.addresses("eth0").iter().all(|address| !address.tentative()));
        for (there, here) in [(lan4(100), lab.neighbour.v4), (lan6(100), lab.neighbour.v6)] {
            assert_reaches(&lab.neighbour, there);
            assert_reaches(&container, here);
            echo(&lab.neighbour, &container, there, 100_000);
        }
    }

    #[reference(passes)]
    fn each_set_of_ranges_gives_one_address(lab) {
        let conf = lab.conf_over(json!([
            [{"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.100"}],
            [{"subnet": "192.168.60.0/24"}],
            [{"subnet": "10.7.0.0/16"}],
        ]));
        let (container, result) = lab.macvlan().attached(lab, &conf);
        let expected = ["10.7.0.2/16", "192.168.50.100/24", "192.168.60.2/24"];
        assert_eq!(container.address_texts("eth0"), expected);
        let ips = result["ips"].as_array().expect("a list");
        assert!(ips.iter().all(|ip| ip["interface"] == 0), "{result}");
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn routes_use_their_gateway_or_that_of_the_subnet(lab) {
        let mut ipam = lab.ipam(Families::Dual);
        ipam["routes"] = json!([
            {"dst": "0.0.0.0/0"},
            {"dst": "10.20.0.0/16", "gw": "192.168.50.254"},
            {"dst": "::/0"},
            {"dst": "fd99::/48", "gw": "fd50::fe"},
        ]);
        let (container, _) = lab.macvlan().attached(lab, &lab.conf_with(ipam));
        for (dst, gateway) in [
            ("0.0.0.0/0", "192.168.50.1"),
            ("10.20.0.0/16", "192.168.50.254"),
            ("::/0", "fd50::1"),
            ("fd99::/48", "fd50::fe"),
        ] {
            let route = container.route_to(dst);
            assert_eq!(route.gateway, gateway.parse().ok(), "{route:?}");
            assert_eq!(route.oif, Some(container.link("eth0").ifindex), "{route:?}");
            assert_eq!(route.table, 254, "{route:?}");
        }
        assert_eq!(container.routes_of("eth0").len(), 4);
    }

    /// A pod with two networks.
    #[reference(fails: "not one route to 0.0.0.0/0")]
    fn a_second_network_does_not_replace_the_default_route(lab) {
        lab.plug(&lab.host, "ens4");
        let ipam = with(lab.ipam(Families::V4), "routes", json!([{"dst": "0.0.0.0/0"}]));
        let (container, _) = lab.macvlan().attach(lab, &lab.conf_with(ipam));
        let mut second = lab.conf_over(json!([[{"subnet": "192.168.60.0/24"}]]));
        second["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        (second["name"], second["master"]) = (json!("lan2"), json!("ens4"));
        lab.macvlan().add(&container, "net1", &second).run().result();
        assert_eq!(container.route_to("0.0.0.0/0").oif, Some(container.link("eth0").ifindex));
        assert_eq!(container.address_texts("net1"), ["192.168.60.2/24"]);
    }

    /// Routers and neighbours still have the MAC of the former container in their caches.
    #[reference(passes)]
    fn an_ipv4_address_is_announced_on_the_wire(lab) {
        let wire = Wire::open(&lab.neighbour, lab.neighbour.nic);
        let (container, _) = lab.macvlan().attached(lab, &lab.conf());
        let frame = wire.wait_for(PATIENCE, |frame| frame.announces(lan4(100)));
        let mac = container.link("eth0").mac;
        assert!(format!("{frame:?}").contains(&mac), "{frame:?} is not from {mac}");
        assert_eq!(container.sysctl("net/ipv4/conf/eth0/arp_notify"), "1");
    }

    #[reference(passes)]
    fn an_ipv6_address_is_announced_on_the_wire(lab) {
        let wire = Wire::open(&lab.neighbour, lab.neighbour.nic);
        let (container, _) = lab.macvlan().attached(lab, &lab.conf_with(lab.ipam(Families::V6)));
        let frame = wire.wait_for(PATIENCE, |frame| frame.announces(lan6(100)));
        let mac = container.link("eth0").mac;
        assert!(format!("{frame:?}").contains(&mac), "{frame:?} is not from {mac}");
        assert_eq!(container.sysctl("net/ipv6/conf/eth0/ndisc_notify"), "1");
    }

    /// Linux 6.1 refuses a name in the container if the host has a link of that name.
    #[reference(passes)]
    fn the_host_may_have_a_link_of_the_same_name(lab) {
        lab.host.create_stray("eth0");
        let before = lab.host.link("eth0");
        let (container, result) = lab.macvlan().attached(lab, &lab.conf());
        assert_eq!(result["interfaces"][0]["name"], "eth0");
        assert_eq!(lab.host.link("eth0"), before);
        lab.macvlan().del(&container, "eth0", &lab.conf()).run().done();
        assert_eq!(lab.host.link("eth0"), before);
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// After the link was set down and up, the IPv4 address was still there and the IPv6 address was not.
    #[reference(passes)]
    fn a_link_set_down_and_up_keeps_its_ipv6_address(lab) {
        let (container, _) = lab.macvlan().attached(lab, &lab.conf_with(lab.ipam(Families::Dual)));
        let before = container.address_texts("eth0");
        assert_eq!(before, ["192.168.50.100/24", "fd50::100/64"]);
        container.set_down("eth0");
        assert_eq!(container.address_texts("eth0"), before);
        container.set_up("eth0");
        await_that("the address is usable again", || {
            container.addresses("eth0").iter().all(|address| !address.tentative())
        });
        assert_eq!(container.address_texts("eth0"), before);
        assert_reaches(&lab.neighbour, lan6(100));
    }

    /// With two routers on the LAN, the kernel distributes IPv6 traffic over both. The second route was not set.
    #[reference(passes)]
    fn two_ipv6_default_routes_of_one_result_are_both_used(lab) {
        let mut ipam = lab.ipam(Families::V6);
        ipam["routes"] = json!([{"dst": "::/0", "gw": "fd50::20"}, {"dst": "::/0", "gw": "fd50::21"}]);
        let (container, mut conf) = (lab.container(), lab.conf_with(ipam));
        let outcome = lab.macvlan().add(&container, "eth0", &conf).run();
        conf["prevResult"] = outcome.result();
        assert_eq!(outcome.stderr, "");
        assert_eq!(conf["prevResult"]["routes"], conf["ipam"]["routes"]);
        let mut routes = container.routes();
        routes.retain(|route| route.dst == "::/0".parse().expect("a prefix"));
        let gateways: Vec<_> = routes.iter().map(|route| route.gateway).collect();
        assert_eq!(gateways, [Some(lan6(20)), Some(lan6(21))], "{routes:?}");
        lab.macvlan().check(&container, "eth0", &conf).run().done();
        lab.macvlan().del(&container, "eth0", &conf).run().done();
    }

    /// Some programs take the dot for a separator in the name of a sysctl.
    #[reference(passes)]
    fn interface_names_may_have_a_dot_and_fifteen_characters(lab) {
        for name in ["eth0.100", "fifteen-letters"] {
            let container = lab.container();
            lab.macvlan().add(&container, name, &lab.conf()).run().result();
            assert_eq!(container.link(name).kind.as_deref(), Some("macvlan"));
            assert_eq!(container.sysctl(&format!("net/ipv4/conf/{name}/arp_notify")), "1");
            lab.macvlan().del(&container, name, &lab.conf()).run().done();
            assert_eq!(container.link_names(), ["lo"]);
        }
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn a_container_can_have_several_interfaces_of_one_network(lab) {
        let container = lab.container();
        for name in ["eth0", "eth1"] {
            lab.macvlan().add(&container, name, &lab.conf()).run().result();
        }
        assert_eq!(lab.leases(), ["192.168.50.100", "192.168.50.101"]);
        lab.macvlan().del(&container, "eth1", &lab.conf()).run().done();
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        assert_eq!(container.link_names(), ["lo", "eth0"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn after_del_the_network_of_the_host_is_as_before(lab) {
        let container = lab.container();
        lab.unchanged(&[&container], || {
            let conf = lab.conf_with(json!({}));
            lab.macvlan().add(&container, "eth0", &conf).run().result();
            lab.macvlan().del(&container, "eth0", &conf).run().done();
        });
    }

    /// The kernel creates the link, but the access point drops the frames.
    #[reference(fails: "no warning")]
    fn a_wireless_parent_is_a_warning_that_names_ipvlan(lab) {
        // A directory with the files that /sys has for a wireless interface. The plugin sees it in its mount namespace.
        fs::create_dir_all(lab.path("sys/class/net").join(NIC).join("phy80211")).expect("make a directory");
        let (sys, program) = (lab.path("sys"), lab.bin().join("macvlan"));
        let script = lab.path("macvlan-with-wireless");
        let mounted = format!("mount --bind {} /sys && exec {}", sys.display(), program.display());
        write_script(&script, &format!("exec unshare -m sh -c '{mounted}'"));
        let outcome = Plugin::new(&lab.host, script).search(lab.bin()).add(&lab.container(), "eth0", &lab.conf()).run();
        outcome.result();
        let wireless = format!("parent {NIC} is wireless");
        let warned = outcome.stderr.contains(&wireless) && outcome.stderr.contains("use ipvlan");
        assert!(warned, "no warning: {}", outcome.text());
    }

    /// The kernel ignores the host bits of IPv6 routes, so such configurations work with the reference.
    #[reference(passes)]
    fn the_host_bits_of_an_ipv6_route_are_ignored(lab) {
        let mut conf = lab.conf_with(lab.ipam(Families::V6));
        conf["ipam"]["routes"] = json!([{"dst": "fd99::1/48"}]);
        let (container, _) = lab.macvlan().attach(lab, &conf);
        assert_eq!(container.route_to("fd99::/48").gateway, "fd50::1".parse().ok());
    }

    /// The reference accepts this notation of some switches.
    #[reference(passes)]
    fn a_mac_in_the_dotted_form_is_accepted(lab) {
        let (container, conf) = lab.macvlan().attach(lab, &with(lab.conf(), "mac", json!("0200.5e10.0001")));
        assert_eq!(container.link("eth0").mac, "02:00:5e:10:00:01");
        assert_eq!(conf["prevResult"]["interfaces"][0]["mac"], "02:00:5e:10:00:01");
    }
}
