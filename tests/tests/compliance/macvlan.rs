//! Each key of macvlan, with ADD, CHECK and DEL.

use e2e::compliance;
use e2e::compliance::Rig;
use e2e::lab::{Families, NIC};
use e2e::patience::await_that;
use e2e::plugin::write_script;
use e2e::{Container, with, without};
use serde_json::{Value, json};

/// A MAC that cases set.
const MAC: &str = "02:00:5e:10:00:01";

fn key(rig: &Rig, key: &str, value: Value) {
    rig.live(&with(rig.conf(), key, value));
}

fn routes(rig: &Rig, routes: Value) -> Value {
    rig.conf_with(with(rig.ipam(Families::Dual), "routes", routes))
}

/// The calls of an attachment whose IPAM plugin gives this result.
fn leased(rig: &Rig, result: &Value) {
    leased_in(rig, &rig.container(), result);
}

fn leased_in(rig: &Rig, container: &Container, result: &Value) {
    scripted(rig, container, &format!("[ $CNI_COMMAND = ADD ] || exit 0\necho '{result}'"));
}

fn scripted(rig: &Rig, container: &Container, ipam: &str) {
    std::fs::create_dir_all(rig.path("fake")).expect("make a directory");
    write_script(&rig.path("fake/fake"), &format!("cat >/dev/null\n{ipam}"));
    let conf = rig.conf_with(json!({"type": "fake"}));
    rig.live_in(container, &conf, |call| call.env("CNI_PATH", rig.path("fake")));
}

fn bridge(rig: &Rig, name: &str, port: &str) {
    rig.plug(&rig.host, port);
    rig.host.create_bridge(name);
    rig.host.make_port(port, name);
}

compliance! {
    #[differs(
        "F1": "file leases/lan/lock mode: 750 | 600",
        "F2": "file leases/lan/container-1:eth0: - | here",
        "F3": "file leases/lan/lock content",
        "K2": "link eth0 net/ipv6/conf/ndisc_notify: 1 | 0",
        "K7": "link eth0 Group: 0 | 143451878",
    )]
    fn only_the_required_keys(rig) { rig.live(&rig.conf()); }
    fn mode_bridge(rig) { key(rig, "mode", json!("bridge")); }
    fn mode_private(rig) { key(rig, "mode", json!("private")); }
    fn mode_vepa(rig) { key(rig, "mode", json!("vepa")); }
    fn mode_passthru(rig) { key(rig, "mode", json!("passthru")); }
    fn mode_empty(rig) { key(rig, "mode", json!("")); }
    #[differs("E1": "answer end: error 999 | error 2", "E2": "answer error.cniVersion: - | \"1.0.0\"")]
    fn mode_unknown(rig) { key(rig, "mode", json!("bogus")); }
    #[differs(
        "H4": "container-1 route 192.168.50.10/32 table 254: - | here",
        "H4": "host route 192.168.50.100/32 table 254: - | here",
        "H4": "host link underlay*: - | here",
    )]
    fn host_access(rig) {
        rig.host.give_own_run();
        rig.add(&rig.container(), "eth0", &with(rig.conf(), "hostAccess", json!(true)));
    }

    #[differs(
        "H6": "result.ips[0].address: \"192.168.50.100/24\" | \"192.168.50.101/24\"",
        "H6": "192.168.50.100*: here | -",
        "H6": "192.168.50.101*: - | here",
        "H6": "src: 192.168.50.100 | 192.168.50.101",
        "H6": "last_reserved_ip.0 content: \"192.168.50.100\" | \"192.168.50.101\"",
    )]
    fn an_address_of_another_machine_with_detection(rig) {
        rig.neighbour.add_address(rig.neighbour.nic, "192.168.50.100/24".parse().expect("a prefix"));
        rig.add(&rig.container(), "eth0", &with(rig.conf(), "detectIPConflict", json!(true)));
    }

    fn mtu(rig) { key(rig, "mtu", json!(1400)); }
    fn mtu_zero(rig) { key(rig, "mtu", json!(0)); }

    fn mtu_of_the_parent(rig) {
        rig.host.ip(&format!("link set {NIC} mtu 1420"));
        rig.live(&rig.conf());
    }

    #[differs("E1": "answer end: error 999 | error 7")]
    fn mtu_above_the_parents(rig) { key(rig, "mtu", json!(1501)); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn mtu_negative(rig) { key(rig, "mtu", json!(-1)); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn mtu_below_the_minimum_of_ipv4(rig) { key(rig, "mtu", json!(60)); }
    fn mac(rig) { key(rig, "mac", json!(MAC)); }
    fn mac_in_capitals(rig) { key(rig, "mac", json!("02:00:5E:10:00:0A")); }

    fn mac_in_cni_args(rig) {
        rig.live_with(&with(rig.conf(), "mac", json!(MAC)), |call| {
            call.args("IgnoreUnknown=1;MAC=02:00:5e:10:00:02;K8S_POD_NAME=web")
        });
    }

    fn mac_of_the_runtime(rig) {
        let conf = with(with(rig.conf(), "mac", json!(MAC)), "runtimeConfig", json!({"mac": "02:00:5e:10:00:03"}));
        rig.live_with(&conf, |call| call.args("IgnoreUnknown=true;MAC=02:00:5e:10:00:02"));
    }

    #[differs(
        "C1": "calls: 1 ADD, 2 DEL, 3 DEL | 1 ADD, 2 CHECK, 3 DEL, 4 DEL",
        "D1": "DEL: answer end: error 999 | success",
        "D1": "link eth0: here | -",
    )]
    fn mac_in_cni_args_without_ignore_unknown(rig) {
        rig.live_with(&rig.conf(), |call| call.args("MAC=02:00:5e:10:00:02"));
    }

    #[differs("E1": "answer end: error 999 | error 7")]
    fn mac_multicast(rig) { key(rig, "mac", json!("01:00:5e:10:00:01")); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn mac_zero(rig) { key(rig, "mac", json!("00:00:00:00:00:00")); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn mac_nonsense(rig) { key(rig, "mac", json!("nonsense")); }
    #[differs("E1": "answer end: error 999 | error 4", "D1": "DEL: answer end: error 999 | success")]
    fn mac_nonsense_in_cni_args(rig) { rig.live_with(&rig.conf(), |call| call.args("MAC=nonsense")); }

    #[differs("E1": "answer end: error 999 | error 100", "U13": "container-2 *: here | -")]
    fn mac_that_another_container_has(rig) {
        let conf = with(rig.conf(), "mac", json!(MAC));
        let first = rig.container();
        rig.add(&first, "eth0", &conf);
        rig.live(&conf);
    }

    fn master_of_the_default_route(rig) {
        rig.plug(&rig.host, "ens4");
        rig.add_default_route();
        rig.live(&without(rig.conf(), "master"));
    }

    fn master_empty_and_an_ipv6_default_route(rig) {
        rig.add_default_route6();
        key(rig, "master", json!(""));
    }

    #[differs("E1": "answer end: error 999 | error 7")]
    fn master_missing_without_a_default_route(rig) { rig.live(&without(rig.conf(), "master")); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn master_absent(rig) { key(rig, "master", json!("nope0")); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn master_is_loopback(rig) { key(rig, "master", json!("lo")); }

    fn master_is_a_macvlan(rig) {
        rig.host.create_macvlan_in(&rig.host, "mv0", NIC);
        key(rig, "master", json!("mv0"));
    }

    #[differs("E1": "answer end: error 999 | error 100")]
    fn master_is_a_bridge_port(rig) {
        bridge(rig, "br7", "ens4");
        key(rig, "master", json!("ens4"));
    }

    fn master_is_a_bridge(rig) {
        bridge(rig, "br7", "ens4");
        rig.host.set_up("br7");
        key(rig, "master", json!("br7"));
    }

    fn master_is_down(rig) {
        rig.host.set_down(NIC);
        rig.live(&rig.conf());
    }

    fn master_without_carrier(rig) {
        rig.unplug();
        rig.live(&rig.conf());
    }

    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn master_is_of_the_wrong_type(rig) { key(rig, "master", json!(5)); }
    fn broadcast_queue_length(rig) { key(rig, "bcqueuelen", json!(5000)); }

    fn link_in_container(rig) {
        let container = rig.container();
        rig.plug(&container, "net7");
        let conf = with(with(rig.conf(), "master", json!("net7")), "linkInContainer", json!(true));
        rig.add(&container, "eth0", &conf);
        rig.del(&container, "eth0", &conf);
    }

    fn unknown_keys(rig) { key(rig, "vlanTrunk", json!([{"id": 7}])); }

    fn keys_in_other_capitalisation(rig) {
        rig.live(&with(with(without(rig.conf(), "master"), "Master", json!(NIC)), "MTU", json!(1400)));
    }

    fn no_ipam(rig) { rig.live(&without(rig.conf(), "ipam")); }
    fn empty_ipam(rig) { rig.live(&rig.conf_with(json!({}))); }
    #[differs("E1": "answer end: error 999 | error 7", "U1": "link eth0: here | -")]
    fn an_ipam_type_without_a_program(rig) { rig.live(&rig.conf_with(json!({"type": "no-such-ipam"}))); }

    fn dns(rig) {
        let dns = json!({
            "nameservers": ["192.168.50.1"], "domain": "lan.example", "search": ["lan.example"], "options": ["ndots:2"],
        });
        key(rig, "dns", dns);
    }

    #[differs("R1": "answer result.dns")]
    fn dns_of_resolv_conf(rig) {
        std::fs::write(rig.path("resolv.conf"), "nameserver 192.168.50.1\nsearch lan.example\n").expect("write a file");
        rig.live(&rig.conf_with(with(rig.ipam(Families::V4), "resolvConf", json!(rig.path("resolv.conf")))));
    }

    fn ipv6_alone(rig) { rig.live(&rig.conf_with(rig.ipam(Families::V6))); }

    fn dual_stack_with_routes(rig) {
        rig.live(&routes(rig, json!([
            {"dst": "0.0.0.0/0"},
            {"dst": "10.20.0.0/16", "gw": "192.168.50.254"},
            {"dst": "::/0"},
            {"dst": "fd99::/48", "gw": "fd50::fe"},
        ])));
    }

    fn dual_stack_where_ipv6_is_off(rig) {
        let container = rig.container();
        container.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        container.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        let conf = rig.conf_with(rig.ipam(Families::Dual));
        rig.add(&container, "eth0", &conf);
        rig.del(&container, "eth0", &conf);
    }

    fn three_subnets(rig) {
        let sets = ["192.168.50.0/24", "192.168.60.0/24", "10.7.0.0/16"].map(|subnet| json!([{"subnet": subnet}]));
        rig.live(&rig.conf_with(with(rig.ipam(Families::V4), "ranges", json!(sets))));
    }

    #[differs("K3": "route 10.20.0.0/16 table 254 scope: Universe | Link")]
    fn addresses_without_a_gateway(rig) {
        leased(rig, &json!({
            "cniVersion": "1.0.0",
            "ips": [{"address": "192.168.50.77/24"}],
            "routes": [{"dst": "10.20.0.0/16"}, {"dst": "10.30.0.0/16", "gw": "192.168.50.254"}],
        }));
    }

    #[differs("U12": "AddressFlags(Tentative | Permanent) | AddressFlags(Permanent)")]
    fn ipv6_without_a_gateway(rig) {
        // Long enough to see that the reference does not wait.
        let container = rig.container();
        container.set_sysctl("net/ipv6/conf/default/dad_transmits", "8");
        let ips = json!([{"address": "fd50::77/64"}]);
        leased_in(rig, &container, &json!({"cniVersion": "1.0.0", "ips": ips, "routes": [{"dst": "fd99::/48"}]}));
    }

    #[differs("K3": "calls: 1 ADD, 2 DEL, 3 DEL | 1 ADD, 2 CHECK, 3 DEL, 4 DEL")]
    fn a_gateway_on_a_route_without_one(rig) {
        leased(rig, &json!({
            "cniVersion": "1.0.0",
            "ips": [{"address": "192.168.50.77/32"}],
            "routes": [{"dst": "169.254.1.1/32"}, {"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
        }));
    }

    #[differs("E1": "answer end: error 999 | error 7", "U1": "link eth0: here | -")]
    fn an_ipam_plugin_that_gives_no_address(rig) { leased(rig, &json!({"cniVersion": "1.0.0"})); }

    fn an_ipam_plugin_of_an_old_version(rig) {
        leased(rig, &json!({"cniVersion": "0.2.0", "ip4": {"ip": "192.168.50.77/24", "gateway": "192.168.50.1"}}));
    }

    #[differs("E1": "answer end: error 999 | error 6", "U1": "link eth0: here | -")]
    fn an_ipam_plugin_that_prints_a_wrong_result(rig) { leased(rig, &json!("nonsense")); }

    #[differs("U1": "link eth0: here | -")]
    fn an_ipam_plugin_with_an_error(rig) {
        let answer = r#"echo '{"cniVersion": "1.0.0", "code": 123, "msg": "no"}'; exit 1"#;
        scripted(rig, &rig.container(), answer);
    }

    #[differs(
        "U17": "Metrics: - | [Mtu(1400), Advmss(1340)]",
    )]
    fn route_mtu_and_advmss(rig) {
        rig.live(&routes(rig, json!([{"dst": "10.20.0.0/16", "mtu": 1400, "advmss": 1340}])));
    }

    #[differs("H2": "CHECK: answer end: error 999 | success")]
    fn route_priority_and_table(rig) {
        let both = json!([{"dst": "10.20.0.0/16", "priority": 77}, {"dst": "10.30.0.0/16", "table": 1000}]);
        rig.live(&routes(rig, both));
    }

    #[differs(
        "E1": "answer end: error 999 | error 100",
        "U2": "container-1 *: here | -",
        "U2": "host link ens3 Promiscuity: 1 | 0",
    )]
    fn route_to_nowhere(rig) { rig.live(&routes(rig, json!([{"dst": "10.20.0.0/16", "gw": "172.31.0.1"}]))); }
    #[differs(
        "E1": "answer end: error 999 | error 7",
        "U2": "container-1 *: here | -",
        "U2": "host link ens3 Promiscuity: 1 | 0",
        "F5": "last_reserved_ip.*: here | -",
    )]
    fn route_with_host_bits(rig) { rig.live(&routes(rig, json!([{"dst": "10.20.0.1/16"}]))); }
    #[differs("H2": "CHECK: answer end: error 999 | success")]
    fn route_with_host_bits_ipv6(rig) { rig.live(&routes(rig, json!([{"dst": "fd99::1/48"}]))); }

    #[differs(
        "E1": "answer end: error 999 | error 7",
        "U2": "container-1 *: here | -",
        "U2": "host link ens3 Promiscuity: 1 | 0",
    )]
    fn route_through_the_other_family(rig) {
        rig.live(&routes(rig, json!([{"dst": "10.20.0.0/16", "gw": "fd50::fe"}])));
    }

    #[differs(
        "E1": "answer end: error 999 | error 7",
        "D1": "DEL: answer end: error 999 | success",
        "U1": "link eth0: here | -",
    )]
    fn route_without_a_prefix_length(rig) { rig.live(&routes(rig, json!([{"dst": "10.20.0.1"}]))); }
    #[differs("K6": "calls: 1 ADD, 2 DEL, 3 DEL | 1 ADD, 2 CHECK, 3 DEL, 4 DEL")]
    fn route_of_scope_link(rig) { rig.live(&routes(rig, json!([{"dst": "10.20.0.0/16", "scope": 253}]))); }

    fn two_ipv6_default_routes(rig) {
        rig.live(&routes(rig, json!([{"dst": "::/0", "gw": "fd50::20"}, {"dst": "::/0", "gw": "fd50::21"}])));
    }

    fn a_link_that_was_down_and_is_up_again(rig) {
        let (container, conf) = (rig.container(), rig.conf_with(rig.ipam(Families::Dual)));
        let later = with(conf.clone(), "prevResult", rig.add(&container, "eth0", &conf));
        container.set_down("eth0");
        container.set_up("eth0");
        await_that("the address is usable again", || {
            container.addresses("eth0").iter().all(|address| !address.tentative())
        });
        rig.check(&container, "eth0", &later);
        rig.del(&container, "eth0", &later);
    }

    #[differs("K4": "calls: 1 ADD, 2 DEL, 3 DEL | 1 ADD, 2 CHECK, 3 DEL, 4 DEL")]
    fn the_same_route_twice(rig) {
        rig.live(&routes(rig, json!([{"dst": "10.20.0.0/16"}, {"dst": "10.20.0.0/16"}])));
    }

    #[differs("K4": "answer result.routes[0].dst: \"192.168.50.0/24\" | -", "K4": "route 192.168.50.0/24 table 254")]
    fn route_to_the_subnet_itself(rig) { rig.live(&routes(rig, json!([{"dst": "192.168.50.0/24"}]))); }

    #[differs(
        "K4": "answer result.routes[0].dst: \"0.0.0.0/0\" | -",
        "K4": "route 0.0.0.0/0 table 254 gateway: 192.168.60.1 | 192.168.50.1",
        "K4": "route 0.0.0.0/0 table 254 dev: net1 | eth0",
        "K4": "route 0.0.0.0/0 table 254 #2: here | -",
    )]
    fn a_second_network_with_a_default_route(rig) {
        rig.plug(&rig.host, "ens4");
        let container = rig.container();
        let first = rig.conf_with(with(rig.ipam(Families::V4), "routes", json!([{"dst": "0.0.0.0/0"}])));
        let mut second = rig.conf_with(json!({
            "type": "host-local", "dataDir": rig.data_dir(), "subnet": "192.168.60.0/24",
            "routes": [{"dst": "0.0.0.0/0"}],
        }));
        (second["name"], second["master"]) = (json!("lan2"), json!("ens4"));
        rig.add(&container, "eth0", &first);
        rig.add(&container, "net1", &second);
        rig.del(&container, "net1", &second);
        rig.del(&container, "eth0", &first);
    }

    #[differs(
        "K4": "answer result.routes[0].dst: \"::/0\" | -",
        "K4": "route ::/0 table 254",
    )]
    fn a_second_network_with_an_ipv6_default_route(rig) {
        rig.plug(&rig.host, "ens4");
        let container = rig.container();
        let first = rig.conf_with(with(rig.ipam(Families::V6), "routes", json!([{"dst": "::/0"}])));
        let mut second = rig.conf_with(json!({
            "type": "host-local", "dataDir": rig.data_dir(), "subnet": "fd60::/64", "routes": [{"dst": "::/0"}],
        }));
        (second["name"], second["master"]) = (json!("lan2"), json!("ens4"));
        rig.add(&container, "eth0", &first);
        rig.add(&container, "net1", &second);
        rig.del(&container, "net1", &second);
        rig.del(&container, "eth0", &first);
    }

    fn two_interfaces_of_one_network(rig) {
        let (container, conf) = (rig.container(), rig.conf());
        for command in ["ADD", "DEL"] {
            for name in ["eth0", "fifteen-letters", "eth0.100"] {
                rig.see(command, &rig.program(command, "macvlan").attachment(command, &container, name, &conf));
            }
        }
    }

    #[differs("E1": "answer end: error 999 | error 7")]
    fn the_same_add_twice(rig) {
        let (container, conf) = (rig.container(), rig.conf());
        rig.add(&container, "eth0", &conf);
        rig.add(&container, "eth0", &conf);
        rig.del(&container, "eth0", &conf);
    }

    #[differs("E1": "answer end: error 999 | error 7")]
    fn the_name_is_taken_by_another_link(rig) {
        let container = rig.container();
        container.create_stray("eth0");
        rig.add(&container, "eth0", &rig.conf());
    }

    fn the_host_has_a_link_of_that_name(rig) {
        rig.host.create_stray("eth0");
        rig.live(&rig.conf());
    }

    #[differs(
        "E1": "answer end: error 999 | error 101",
        "U1": "container-2 link eth0: here | -",
        "U1": "4 ADD: answer end: error 999 | success",
        "U1": "4 ADD: container-2",
        "U1": "4 ADD: file leases/lan/192.168.50.100: - | here",
        "U1": "4 ADD: host link ens3 Promiscuity: 0 | 1",
    )]
    fn a_full_range_and_a_retry(rig) {
        let conf = rig.conf_of("192.168.50.100", "192.168.50.100");
        let (first, second) = (rig.container(), rig.container());
        rig.add(&first, "eth0", &conf);
        rig.add(&second, "eth0", &conf);
        rig.del(&first, "eth0", &conf);
        rig.add(&second, "eth0", &conf);
    }

    fn a_prev_result_of_the_plugin_before(rig) {
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "lan0", "mac": MAC, "sandbox": "/run/netns/x"}],
            "ips": [{"address": "10.1.0.5/16", "interface": 0}],
            "routes": [{"dst": "10.2.0.0/16"}],
            "dns": {"nameservers": ["10.1.0.1"]},
        });
        key(rig, "prevResult", previous);
    }
}
