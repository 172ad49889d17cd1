//! Each key of static, called by itself and under macvlan.

use e2e::compliance;
use e2e::compliance::Rig;
use e2e::{Call, with};
use serde_json::{Value, json};

fn call<'a>(rig: &'a Rig, command: &str, conf: &Value) -> Call<'a> {
    let call = rig.program(command, "static").call(command, conf);
    call.env("CNI_CONTAINERID", "c1").env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/run/netns/none")
}

/// ADD, CHECK and DEL.
fn live(rig: &Rig, conf: &Value) {
    live_with(rig, conf, |call| call);
}

fn live_with(rig: &Rig, conf: &Value, with: impl Fn(Call<'_>) -> Call<'_>) {
    let mut later = conf.clone();
    let result = rig.see("ADD", &with(call(rig, "ADD", conf)));
    if result.is_object() {
        later["prevResult"] = result;
        rig.see("CHECK", &with(call(rig, "CHECK", &later)));
    }
    rig.see("DEL", &with(call(rig, "DEL", &later)));
}

/// A configuration with these keys in `ipam`.
fn conf(rig: &Rig, keys: Value) -> Value {
    let mut conf = with(rig.conf_with(keys), "type", json!("static"));
    conf["ipam"]["type"] = json!("static");
    conf
}

fn of(rig: &Rig, addresses: Value) -> Value {
    conf(rig, json!({"addresses": addresses}))
}

fn usual(rig: &Rig) -> Value {
    of(rig, json!([{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}, {"address": "fd00::5/64", "gateway": "fd00::1"}]))
}

compliance! {
    fn two_families(rig) { live(rig, &usual(rig)); }
    fn several_addresses_of_one_family(rig) {
        live(rig, &of(rig, json!([{"address": "10.0.0.5/24"}, {"address": "10.0.1.5/24"}, {"address": "fd00::5/64"}])));
    }
    fn routes(rig) {
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16", "gw": "10.0.0.9"}, {"dst": "::/0", "mtu": 1400}]);
        live(rig, &conf(rig, json!({"addresses": [{"address": "10.0.0.5/24"}], "routes": routes})));
    }
    fn dns(rig) {
        let dns = json!({"nameservers": ["10.0.0.53"], "domain": "a", "search": ["a", "b"], "options": ["rotate"]});
        live(rig, &conf(rig, json!({"addresses": [{"address": "10.0.0.5/24"}], "dns": dns})));
    }
    fn an_ip_of_cni_args_is_added(rig) {
        live_with(rig, &usual(rig), |call| call.args("IP=10.0.2.5/24, 10.0.3.5/24;GATEWAY=10.0.2.1;IgnoreUnknown=1"));
    }
    fn gateways_of_cni_args_are_for_the_addresses_of_cni_args(rig) {
        live_with(rig, &usual(rig), |call| {
            call.args("IP=10.0.2.5/24,fd00:2::5/64;GATEWAY=10.0.2.254,fd00:2::fe")
        });
    }
    fn args_replace_the_addresses(rig) {
        live(rig, &with(usual(rig), "args", json!({"cni": {"ips": ["10.0.4.5/24"]}})));
    }
    fn the_runtime_replaces_all(rig) {
        let conf = with(usual(rig), "args", json!({"cni": {"ips": ["10.0.4.5/24"]}}));
        let conf = with(conf, "runtimeConfig", json!({"ips": ["10.0.5.5/24", "fd00:5::5/64"]}));
        live_with(rig, &conf, |call| call.args("IP=10.0.2.5/24"));
    }
    fn version_0_2_0(rig) { live(rig, &with(usual(rig), "cniVersion", json!("0.2.0"))); }
    #[differs("E1": "answer end: error 999 | error 7", "E2": "answer error.cniVersion: - | *")]
    fn version_0_2_0_with_two_addresses_of_one_family(rig) {
        let conf = of(rig, json!([{"address": "10.0.0.5/24"}, {"address": "10.0.1.5/24"}]));
        live(rig, &with(conf, "cniVersion", json!("0.2.0")));
    }
    #[differs("E1": "answer end: error 999 | error 7", "E2": "answer error.cniVersion: - | *")]
    fn no_prefix_length(rig) { live(rig, &of(rig, json!([{"address": "10.0.0.5"}]))); }
    #[differs("E1": "answer end: error 999 | error 4", "E2": "answer error.cniVersion: - | *")]
    fn no_prefix_length_in_cni_args(rig) { live_with(rig, &usual(rig), |call| call.args("IP=10.0.2.5")); }
    #[differs("E1": "answer end: error 999 | error 7", "E2": "answer error.cniVersion: - | *")]
    fn no_prefix_length_from_the_runtime(rig) {
        live(rig, &with(usual(rig), "runtimeConfig", json!({"ips": ["10.0.5.5"]})));
    }
    #[differs("T1": "answer end: success | error 7", "T1": "calls: *")]
    fn an_address_twice(rig) { live(rig, &of(rig, json!([{"address": "10.0.0.5/24"}, {"address": "10.0.0.5/24"}]))); }
    #[differs("T1": "answer end: success | error 7", "T1": "calls: *")]
    fn a_gateway_in_another_network(rig) {
        live(rig, &of(rig, json!([{"address": "10.0.0.5/24", "gateway": "10.0.1.1"}])));
    }
    #[differs("T1": "answer end: success | error 4", "T1": "calls: *")]
    fn a_gateway_of_cni_args_in_another_network(rig) {
        live_with(rig, &usual(rig), |call| call.args("GATEWAY=10.9.9.1"));
    }
    fn a_link_local_gateway(rig) { live(rig, &of(rig, json!([{"address": "fd00::5/64", "gateway": "fe80::1"}]))); }
    fn a_gateway_of_one_address(rig) { live(rig, &of(rig, json!([{"address": "10.0.0.5/32", "gateway": "10.0.0.1"}]))); }
    #[differs("T1": "answer end: success | error 7", "T1": "calls: *")]
    fn the_network_in_place_of_an_address(rig) { live(rig, &of(rig, json!([{"address": "10.0.0.0/24"}]))); }
    #[differs("T1": "calls: *")]
    fn no_address(rig) { live(rig, &of(rig, json!([]))); }
    #[differs("T2": "CHECK: answer end: success | error 102")]
    fn check_with_another_address_than_in_the_result(rig) {
        let result = rig.see("ADD", &call(rig, "ADD", &usual(rig)));
        let conf = with(of(rig, json!([{"address": "10.0.0.6/24"}])), "prevResult", result);
        rig.see("CHECK", &call(rig, "CHECK", &conf));
    }
    #[differs("E1": "answer end: error 999 | error 102")]
    fn check_with_another_gateway_than_in_the_result(rig) {
        let result = rig.see("ADD", &call(rig, "ADD", &usual(rig)));
        let conf = of(rig, json!([{"address": "10.0.0.5/24", "gateway": "10.0.0.9"}]));
        rig.see("CHECK", &call(rig, "CHECK", &with(conf, "prevResult", result)));
    }
    #[differs("U12": "fd50::77 on eth0 Flags: AddressFlags(Tentative | Permanent) | AddressFlags(Permanent)")]
    fn under_macvlan(rig) {
        let addresses = json!([{"address": "192.168.50.77/24", "gateway": "192.168.50.1"}, {"address": "fd50::77/64"}]);
        let ipam = json!({"type": "static", "addresses": addresses, "routes": [{"dst": "0.0.0.0/0"}]});
        // Longer than all calls of the reference.
        let container = rig.container();
        container.set_sysctl("net/ipv6/conf/default/dad_transmits", "8");
        rig.live_in(&container, &rig.conf_with(ipam), |call| call);
    }
    fn under_macvlan_with_an_ip_of_the_runtime(rig) {
        let conf = rig.conf_with(json!({"type": "static"}));
        rig.live(&with(conf, "runtimeConfig", json!({"ips": ["192.168.50.77/24"]})));
    }
}
