//! Each key of host-local, called by itself.

use std::fs;

use e2e::compliance;
use e2e::compliance::{Rig, host_local};
use e2e::{Call, lab, with, without};
use serde_json::{Value, json};

fn call<'a>(rig: &'a Rig, command: &str, id: &str, conf: &Value) -> Call<'a> {
    let call = rig.program(command, "host-local").call(command, conf);
    call.env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/run/netns/none")
}

fn make(rig: &Rig, command: &str, id: &str, conf: &Value) -> Value {
    rig.see(command, &call(rig, command, id, conf))
}

/// ADD, CHECK, DEL and DEL again.
fn live(rig: &Rig, conf: &Value) {
    live_with(rig, conf, |call| call);
}

fn live_with(rig: &Rig, conf: &Value, with: impl Fn(Call<'_>) -> Call<'_>) {
    let mut later = conf.clone();
    let result = rig.see("ADD", &with(call(rig, "ADD", "c1", conf)));
    if result.is_object() {
        later["prevResult"] = result;
        rig.see("CHECK", &with(call(rig, "CHECK", "c1", &later)));
    }
    rig.see("DEL", &with(call(rig, "DEL", "c1", &later)));
    rig.see("DEL", &with(call(rig, "DEL", "c1", conf)));
}

fn add_all(rig: &Rig, ids: &[&str], conf: &Value) {
    for id in ids {
        make(rig, "ADD", id, conf);
    }
}

fn ranges(rig: &Rig, ranges: Value) -> Value {
    host_local(rig, json!({"ranges": ranges}))
}

fn range(first: &str, last: &str) -> Value {
    json!({"subnet": lab::LAN4, "rangeStart": first, "rangeEnd": last})
}

fn few(rig: &Rig) -> Value {
    ranges(rig, json!([[range("192.168.50.100", "192.168.50.102")]]))
}

fn requested(rig: &Rig, conf: Value, ips: Value) {
    live(rig, &with(conf, "runtimeConfig", json!({"ips": ips})));
}

compliance! {
    fn a_subnet(rig) { live(rig, &ranges(rig, json!([[{"subnet": lab::LAN4}]]))); }
    fn a_subnet_in_the_old_form(rig) { live(rig, &host_local(rig, json!({"subnet": lab::LAN4}))); }

    fn every_key_of_the_old_form(rig) {
        live(rig, &host_local(rig, json!({
            "subnet": lab::LAN4, "rangeStart": "192.168.50.20", "rangeEnd": "192.168.50.30",
            "gateway": "192.168.50.254", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "192.168.50.253"}],
        })));
    }

    fn old_form_and_ranges_together(rig) {
        live(rig, &host_local(rig, json!({"subnet": lab::LAN4, "ranges": [[{"subnet": "10.1.0.0/24"}]]})));
    }

    fn only_a_start_and_only_an_end(rig) {
        live(rig, &ranges(rig, json!([[
            {"subnet": lab::LAN4, "rangeStart": "192.168.50.250"}, {"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.3"},
        ]])));
    }

    #[differs("E1": "answer end: error 999 | error 101")]
    fn a_gateway_in_the_middle(rig) {
        let mut one = range("192.168.50.100", "192.168.50.102");
        one["gateway"] = json!("192.168.50.101");
        add_all(rig, &["c1", "c2", "c3"], &ranges(rig, json!([[one]])));
    }

    #[differs(
        "A2": "calls: 1 ADD, 2 DEL, 3 DEL | 1 ADD, 2 CHECK, 3 DEL, 4 DEL",
        "D1": "DEL: answer end: error 999 | success",
    )]
    fn a_gateway_outside_the_subnet(rig) {
        let mut one = range("192.168.50.100", "192.168.50.102");
        one["gateway"] = json!("10.9.9.9");
        live(rig, &ranges(rig, json!([[one]])));
    }

    fn dual_stack(rig) { live(rig, &ranges(rig, json!([[{"subnet": lab::LAN4}], [{"subnet": lab::LAN6}]]))); }

    #[differs("E1": "answer end: error 999 | error 101")]
    fn two_ranges_in_a_set(rig) {
        let conf = ranges(rig, json!([[
            range("192.168.50.100", "192.168.50.101"),
            {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.7", "rangeEnd": "10.1.0.8"},
        ]]));
        add_all(rig, &["c1", "c2", "c3", "c4", "c5"], &conf);
        make(rig, "DEL", "c2", &conf);
        add_all(rig, &["c6"], &conf);
    }

    fn three_sets(rig) {
        live(rig, &ranges(rig, json!([[{"subnet": lab::LAN4}], [{"subnet": "10.1.0.0/24"}], [{"subnet": lab::LAN6}]])));
    }

    #[differs("E1": "answer end: error 999 | error 101")]
    fn a_small_ipv6_range(rig) {
        let conf = ranges(rig, json!([[{"subnet": "fd50::/64", "rangeStart": "fd50::a", "rangeEnd": "fd50::b"}]]));
        add_all(rig, &["c1", "c2", "c3"], &conf);
    }

    fn a_large_ipv6_subnet(rig) {
        add_all(rig, &["c1", "c2"], &ranges(rig, json!([[{"subnet": "fd50:0:0:7::/64"}]])));
    }

    fn ipv6_addresses_in_a_long_form(rig) {
        live(rig, &ranges(rig, json!([[{"subnet": "FD50:0000::/64", "rangeStart": "fd50:0:0:0:0:0:0:AB"}]])));
    }

    #[differs("E1": "answer end: error 999 | error 101")]
    fn round_robin_and_wrap_around(rig) {
        let conf = few(rig);
        add_all(rig, &["c1", "c2"], &conf);
        make(rig, "DEL", "c1", &conf);
        add_all(rig, &["c3", "c4", "c5"], &conf);
        make(rig, "DEL", "c3", &conf);
        add_all(rig, &["c5"], &conf);
    }

    #[differs("E1": "answer end: error 999 | error 101")]
    fn one_address(rig) {
        let conf = ranges(rig, json!([[range("192.168.50.100", "192.168.50.100")]]));
        add_all(rig, &["c1", "c2"], &conf);
        make(rig, "DEL", "c1", &conf);
        add_all(rig, &["c2"], &conf);
    }

    #[differs("E1": "answer end: error 999 | error 101")]
    fn a_subnet_of_four_addresses(rig) {
        add_all(rig, &["c1", "c2"], &ranges(rig, json!([[{"subnet": "10.1.0.0/30"}]])));
    }

    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_subnet_of_two_addresses(rig) { live(rig, &ranges(rig, json!([[{"subnet": "10.1.0.0/31"}]]))); }
    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_subnet_of_one_address(rig) { live(rig, &ranges(rig, json!([[{"subnet": "10.1.0.0/32"}]]))); }

    #[differs(
        "A1": "1 ADD: answer result.ips[0].address: \"192.168.50.0/24\" | \"192.168.50.2/24\"",
        "A1": "2 ADD: answer result.ips[0].address: \"192.168.50.2/24\" | \"192.168.50.3/24\"",
        "A1": "file leases/lan/192.168.50.",
        "A1": "last_reserved_ip.0 content: \"192.168.50.",
    )]
    fn a_range_that_begins_with_the_network_address(rig) {
        add_all(rig, &["c1", "c2"], &ranges(rig, json!([[range("192.168.50.0", "192.168.50.3")]])));
    }

    #[differs(
        "A1": "2 ADD: answer end: success | error 101",
        "A1": "file leases/lan/192.168.50.255: here | -",
        "A1": "last_reserved_ip.0 content: \"192.168.50.255\" | \"192.168.50.254\"",
    )]
    fn a_range_that_ends_with_the_broadcast_address(rig) {
        add_all(rig, &["c1", "c2"], &ranges(rig, json!([[range("192.168.50.254", "192.168.50.255")]])));
    }

    #[differs(
        "A1": "1 ADD: answer result.ips[0].address: \"192.168.50.101/24\" | \"192.168.50.102/24\"",
        "A1": "2 ADD: answer result.ips[0].address: \"192.168.50.102/24\" | \"192.168.50.103/24\"",
        "A1": "file leases/lan/192.168.50.10",
        "A1": "last_reserved_ip.0 content: \"192.168.50.",
    )]
    fn the_gateway_of_another_range(rig) {
        let mut other = range("192.168.50.200", "192.168.50.210");
        other["gateway"] = json!("192.168.50.101");
        add_all(rig, &["c1", "c2"], &ranges(rig, json!([[range("192.168.50.101", "192.168.50.103"), other]])));
    }

    fn routes(rig) {
        live(rig, &host_local(rig, json!({"subnet": lab::LAN4, "routes": [
            {"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "192.168.50.253"}, {"dst": "fd99::/48", "gw": "fd50::1"},
        ]})));
    }

    fn resolv_conf(rig) {
        let text = "# mine\nnameserver 192.168.50.1\nnameserver fd50::1\ndomain lan.example\nsearch a.example b.example\n\
                    options ndots:2 edns0\nsortlist 192.168.50.0\n";
        fs::write(rig.path("resolv.conf"), text).expect("write a file");
        live(rig, &host_local(rig, json!({"subnet": lab::LAN4, "resolvConf": rig.path("resolv.conf")})));
    }

    #[differs("E1": "answer end: error 999 | error 5")]
    fn resolv_conf_that_is_missing(rig) {
        live(rig, &host_local(rig, json!({"subnet": lab::LAN4, "resolvConf": rig.path("nothing")})));
    }

    fn another_data_dir(rig) {
        let mut conf = few(rig);
        conf["ipam"]["dataDir"] = json!(rig.data_dir().join("a/b"));
        live(rig, &conf);
    }

    fn ranges_of_the_runtime(rig) {
        let runtime = json!({"ipRanges": [[{"subnet": "10.1.0.0/24"}]]});
        live(rig, &with(few(rig), "runtimeConfig", runtime.clone()));
        live(rig, &with(host_local(rig, json!({})), "runtimeConfig", runtime));
    }

    fn requested_in_cni_args(rig) { live_with(rig, &few(rig), |call| call.args("IP=192.168.50.101")); }

    fn requested_in_cni_args_as_kubernetes_does(rig) {
        live_with(rig, &few(rig), |call| {
            call.args("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;IP=192.168.50.101;GATEWAY=192.168.50.1")
        });
    }

    #[differs("E1": "answer end: error 999 | error 4", "D1": "DEL: answer end: error 999 | success")]
    fn cni_args_with_an_unknown_key(rig) { live_with(rig, &few(rig), |call| call.args("K8S_POD_NAME=web")); }
    #[differs("E1": "answer end: error 999 | error 4", "D1": "DEL: answer end: error 999 | success")]
    fn cni_args_that_are_not_pairs(rig) { live_with(rig, &few(rig), |call| call.args("IP")); }
    #[differs("E1": "answer end: error 999 | error 4", "D1": "DEL: answer end: error 999 | success")]
    fn cni_args_with_a_text_that_is_not_an_address(rig) { live_with(rig, &few(rig), |call| call.args("IP=nonsense")); }
    fn requested_in_args(rig) { live(rig, &with(few(rig), "args", json!({"cni": {"ips": ["192.168.50.101"]}}))); }
    fn requested_by_the_runtime(rig) { requested(rig, few(rig), json!(["192.168.50.101"])); }
    fn requested_with_a_prefix(rig) { requested(rig, few(rig), json!(["192.168.50.101/24"])); }
    fn requested_with_another_prefix(rig) { requested(rig, few(rig), json!(["192.168.50.101/16"])); }
    fn requested_twice(rig) { requested(rig, few(rig), json!(["192.168.50.101", "192.168.50.101"])); }
    #[differs(
        "E1": "answer end: error 999 | error 7", "F5": "last_reserved_ip.0: here | -",
        "F5": "perhaps last_reserved_ip.0 content: "
    )]
    fn requested_two_of_one_set(rig) { requested(rig, few(rig), json!(["192.168.50.101", "192.168.50.102"])); }

    fn requested_of_one_family_of_two(rig) {
        requested(rig, ranges(rig, json!([[{"subnet": lab::LAN4}], [{"subnet": lab::LAN6}]])), json!(["fd50::77"]));
    }

    fn requested_of_both_families(rig) {
        let conf = ranges(rig, json!([[{"subnet": lab::LAN4}], [{"subnet": lab::LAN6}]]));
        requested(rig, conf, json!(["fd50::77", "192.168.50.77"]));
    }

    #[differs("E1": "answer end: error 999 | error 7", "F5": "last_reserved_ip.0: here | -")]
    fn requested_outside_the_range(rig) { requested(rig, few(rig), json!(["192.168.50.103"])); }

    #[differs("E1": "answer end: error 999 | error 7")]
    fn requested_the_gateway(rig) {
        requested(rig, ranges(rig, json!([[{"subnet": lab::LAN4}]])), json!(["192.168.50.1"]));
    }

    #[differs("E1": "answer end: error 999 | error 7", "F5": "last_reserved_ip.0: here | -")]
    fn requested_the_network_address(rig) {
        requested(rig, ranges(rig, json!([[{"subnet": lab::LAN4}]])), json!(["192.168.50.0"]));
    }

    #[differs("E1": "answer end: error 999 | error 7", "F5": "last_reserved_ip.0: here | -")]
    fn requested_the_broadcast_address(rig) {
        requested(rig, ranges(rig, json!([[{"subnet": lab::LAN4}]])), json!(["192.168.50.255"]));
    }

    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn requested_text_that_is_not_an_address(rig) { requested(rig, few(rig), json!(["nonsense"])); }

    #[differs("E1": "answer end: error 999 | error 101")]
    fn requested_address_of_another_container(rig) {
        let conf = with(few(rig), "runtimeConfig", json!({"ips": ["192.168.50.101"]}));
        make(rig, "ADD", "c2", &conf);
        live(rig, &conf);
    }

    #[differs("E1": "answer end: error 999 | error 101")]
    fn requested_in_a_full_range(rig) {
        add_all(rig, &["c2", "c3", "c4"], &few(rig));
        requested(rig, few(rig), json!(["192.168.50.101"]));
    }

    fn requested_and_the_address_after_it(rig) {
        let conf = few(rig);
        make(rig, "ADD", "c1", &with(conf.clone(), "runtimeConfig", json!({"ips": ["192.168.50.102"]})));
        add_all(rig, &["c2", "c3"], &conf);
    }

    #[differs("U11": "2 ADD: answer end: error 999 | success")]
    fn the_same_owner_again(rig) { add_all(rig, &["c1", "c1"], &few(rig)); }

    #[differs("U11": "2 ADD: answer end: error 999 | success")]
    fn the_same_owner_again_with_its_own_address(rig) {
        let conf = with(few(rig), "runtimeConfig", json!({"ips": ["192.168.50.100"]}));
        add_all(rig, &["c1", "c1"], &conf);
    }

    #[differs("U11": "4 ADD: answer end: error 999 | success")]
    fn the_same_owner_again_in_a_full_range(rig) {
        let conf = few(rig);
        add_all(rig, &["c1", "c2", "c3", "c1"], &conf);
    }

    fn two_interfaces_of_one_container(rig) {
        let conf = few(rig);
        for name in ["eth0", "net1"] {
            rig.see("ADD", &call(rig, "ADD", "c1", &conf).env("CNI_IFNAME", name));
        }
        rig.see("DEL", &call(rig, "DEL", "c1", &conf).env("CNI_IFNAME", "net1"));
    }

    fn two_networks(rig) {
        let (first, second) = (few(rig), with(few(rig), "name", json!("lan2")));
        add_all(rig, &["c1"], &first);
        add_all(rig, &["c1"], &second);
        make(rig, "DEL", "c1", &first);
    }

    fn a_lease_of_an_old_release(rig) {
        rig.write_lease("192.168.50.100", "c1");
        let conf = few(rig);
        make(rig, "DEL", "c1", &conf);
    }

    fn a_lease_with_a_newline(rig) {
        rig.write_lease("192.168.50.100", "c1\r\neth0\n");
        make(rig, "DEL", "c1", &few(rig));
    }

    #[differs(
        "F1": "192.168.50.100 mode: 644 | 600",
        "U7": "3 ADD: answer end: error 999 | success",
        "U7": "192.168.50.100 content: \"\" | \"c3\\r\\neth0\"",
        "U7": "last_reserved_ip.0 content: \"192.168.50.102\" | \"192.168.50.100\"",
    )]
    fn an_empty_lease(rig) {
        rig.write_lease("192.168.50.100", "");
        add_all(rig, &["c1", "c2", "c3"], &few(rig));
    }

    #[differs("F1": "last_reserved_ip.0 mode: 644 | 600")]
    fn a_last_address_that_is_not_an_address(rig) {
        rig.write_lease("last_reserved_ip.0", "nonsense");
        add_all(rig, &["c1", "c2"], &few(rig));
    }

    #[differs("F1": "last_reserved_ip.0 mode: 644 | 600")]
    fn a_last_address_outside_the_range(rig) {
        rig.write_lease("last_reserved_ip.0", "10.9.9.9");
        add_all(rig, &["c1", "c2"], &few(rig));
    }

    fn a_last_address_in_the_middle(rig) {
        rig.write_lease("last_reserved_ip.0", "192.168.50.101");
        add_all(rig, &["c1", "c2"], &few(rig));
    }

    fn a_file_that_is_not_a_lease(rig) {
        rig.write_lease("README", "not a lease");
        live(rig, &few(rig));
    }

    #[differs(
        "N1": "result.ips[0].address: \"192.168.50.100/24\" | \"192.168.50.101/24\"",
        "N1": "192.168.50.100: here | -",
        "N1": "192.168.50.101: - | here",
        "N1": "last_reserved_ip.0 content: \"192.168.50.100\" | \"192.168.50.101\"",
    )]
    fn keys_that_only_ours_has(rig) {
        let mut conf = few(rig);
        conf["ipam"]["exclude"] = json!(["192.168.50.100"]);
        live(rig, &conf);
    }

    #[differs("E1": "answer end: error 999 | error 3")]
    fn check_without_a_lease(rig) {
        let result = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.100/24"}]});
        make(rig, "CHECK", "c1", &with(few(rig), "prevResult", result));
    }

    #[differs("H3": "CHECK: answer end: success | error 102")]
    fn check_of_an_address_that_another_owner_has(rig) {
        let conf = few(rig);
        add_all(rig, &["c1", "c2"], &conf);
        let claimed = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.101/24"}]});
        make(rig, "CHECK", "c1", &with(conf, "prevResult", claimed));
    }

    fn check_without_a_result(rig) {
        let conf = few(rig);
        add_all(rig, &["c1"], &conf);
        make(rig, "CHECK", "c1", &conf);
    }

    fn del_after_the_ranges_have_moved(rig) {
        add_all(rig, &["c1"], &few(rig));
        make(rig, "DEL", "c1", &ranges(rig, json!([[{"subnet": "10.1.0.0/24"}]])));
    }

    #[differs("D1": "DEL: answer end: error 999 | success", "D1": "file leases/lan/192.168.50.100: here | -")]
    fn del_without_ranges(rig) {
        add_all(rig, &["c1"], &few(rig));
        make(rig, "DEL", "c1", &host_local(rig, json!({})));
    }

    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn no_ranges(rig) { live(rig, &host_local(rig, json!({}))); }
    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn an_empty_set(rig) { live(rig, &ranges(rig, json!([[]]))); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn no_ipam(rig) { make(rig, "ADD", "c1", &without(few(rig), "ipam")); }
    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_subnet_that_is_not_a_subnet(rig) { live(rig, &ranges(rig, json!([[{"subnet": "nonsense"}]]))); }
    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_subnet_with_host_bits(rig) { live(rig, &ranges(rig, json!([[{"subnet": "192.168.50.7/24"}]]))); }
    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_range_without_a_subnet(rig) { live(rig, &ranges(rig, json!([[{"rangeStart": "192.168.50.100"}]]))); }
    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_start_that_is_not_an_address(rig) { live(rig, &ranges(rig, json!([[range("nonsense", "192.168.50.102")]]))); }
    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_start_outside_the_subnet(rig) { live(rig, &ranges(rig, json!([[range("10.1.0.5", "192.168.50.102")]]))); }
    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_start_after_the_end(rig) { live(rig, &ranges(rig, json!([[range("192.168.50.103", "192.168.50.102")]]))); }

    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_gateway_that_is_not_an_address(rig) {
        live(rig, &ranges(rig, json!([[{"subnet": lab::LAN4, "gateway": "nonsense"}]])));
    }

    #[differs("E1": "answer end: error 999 | error 7", "U15": "DEL: answer end: error 999 | success")]
    fn ranges_that_overlap_in_a_set(rig) {
        live(rig, &ranges(rig, json!([[{"subnet": lab::LAN4}, {"subnet": lab::LAN4}]])));
    }

    #[differs("E1": "answer end: error 999 | error 7", "U15": "DEL: answer end: error 999 | success")]
    fn sets_that_overlap(rig) { live(rig, &ranges(rig, json!([[{"subnet": lab::LAN4}], [{"subnet": lab::LAN4}]]))); }

    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn both_families_in_a_set(rig) {
        live(rig, &ranges(rig, json!([[{"subnet": lab::LAN4}, {"subnet": lab::LAN6}]])));
    }

    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn two_sets_of_a_family_in_an_old_version(rig) {
        let conf = ranges(rig, json!([[{"subnet": lab::LAN4}], [{"subnet": "10.1.0.0/24"}]]));
        live(rig, &with(conf, "cniVersion", json!("0.2.0")));
    }

    #[differs("E1": "answer end: error 999 | error 7", "D1": "DEL: answer end: error 999 | success")]
    fn a_route_that_is_not_a_prefix(rig) {
        live(rig, &host_local(rig, json!({"subnet": lab::LAN4, "routes": [{"dst": "nonsense"}]})));
    }

    #[differs("E1": "answer end: error 999 | error 5", "D1": "DEL: answer end: error 999 | success")]
    fn a_data_dir_that_is_a_file(rig) {
        fs::write(rig.data_dir(), "in the way").expect("write a file");
        live(rig, &few(rig));
    }
}
