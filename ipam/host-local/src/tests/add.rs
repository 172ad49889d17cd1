//! ADD: which address, and what it leaves in the directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::{Network, addresses, failure, files};

#[test]
fn a_lease_is_what_the_reference_would_have_written() {
    let network = Network::of(&[&["10.0.0.0/29"], &["fd00::/64"]]);
    let result = network.add("c1").unwrap();
    let ips: Vec<_> = result.ips.iter().map(|ip| (ip.address.to_string(), ip.gateway.unwrap().to_string())).collect();
    assert_eq!(ips, [("10.0.0.2/29".into(), "10.0.0.1".into()), ("fd00::2/64".into(), "fd00::1".to_string())]);
    assert!(result.interfaces.is_empty() && result.routes.is_empty() && result.dns.is_empty());
    let expected = files(&[
        ("10.0.0.2", "c1\r\neth0"),
        ("fd00::2", "c1\r\neth0"),
        ("last_reserved_ip.0", "10.0.0.2"),
        ("last_reserved_ip.1", "fd00::2"),
    ]);
    assert_eq!(network.files(), expected);
    let mode = |name: &str| fs::metadata(network.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("10.0.0.2"), mode("last_reserved_ip.0"), mode("lock")], [0o600; 3]);
    assert_eq!(mode("."), 0o755);
}

#[test]
fn addresses_go_round_and_a_freed_one_waits_for_its_turn() {
    let network = Network::of(&[&["10.0.0.0/29", "10.1.0.0/30"]]);
    assert_eq!(addresses(network.add("c2")), ["10.0.0.2/29"]);
    assert_eq!(addresses(network.add("c3")), ["10.0.0.3/29"]);
    network.del("c2").unwrap();
    for (id, expected) in [("c4", "10.0.0.4/29"), ("c5", "10.0.0.5/29"), ("c6", "10.0.0.6/29"), ("c7", "10.1.0.2/30")] {
        assert_eq!(addresses(network.add(id)), [expected]);
    }
    assert_eq!(addresses(network.add("c8")), ["10.0.0.2/29"]);
    let full = "no free address in ipam.ranges[0] (10.0.0.1-10.0.0.6,10.1.0.1-10.1.0.2): 6 addresses, 6 leases, 0 reclaimed, the oldest 10.0.0.3 of c3 eth0";
    assert_eq!(failure(network.add("c9")), (101, full.into()));
}

#[test]
fn last_reserved_is_a_hint_that_may_be_missing_or_foreign() {
    for (hint, expected) in [
        ("10.0.0.4", "10.0.0.5/29"),
        ("10.0.0.6", "10.0.0.2/29"),
        ("10.0.0.4\n", "10.0.0.5/29"),
        ("10.9.9.9", "10.0.0.2/29"),
        ("fd00::1", "10.0.0.2/29"),
        ("nonsense", "10.0.0.2/29"),
        ("", "10.0.0.2/29"),
    ] {
        let network = Network::of(&[&["10.0.0.0/29"]]);
        network.put("last_reserved_ip.0", hint);
        assert_eq!(addresses(network.add("c1")), [expected], "{hint:?}");
    }
}

#[test]
fn same_owner_gets_its_own_addresses_back_and_nothing_new_is_leased() {
    let network = Network::of(&[&["10.0.0.0/29"], &["fd00::/64"]]);
    let first = network.add("c1").unwrap();
    network.add("c2").unwrap();
    let before = network.files();
    assert_eq!(network.add("c1").unwrap(), first);
    assert_eq!(network.add_with("c1", "IP=fd00::2").unwrap(), first);
    assert_eq!(network.files(), before);
}

#[test]
fn same_owner_asking_for_another_address_is_told_which_one_it_holds() {
    let network = Network::of(&[&["10.0.0.0/29"]]);
    network.add("c1").unwrap();
    let cause = "CNI_ARGS IP 10.0.0.5, of ipam.ranges[0] (10.0.0.1-10.0.0.6): c1 eth0 already has 10.0.0.2 there; call \
                 DEL before you ask for another address";
    assert_eq!(failure(network.add_with("c1", "IP=10.0.0.5")), (7, cause.into()));
    assert_eq!(network.leases(), files(&[("10.0.0.2", "c1\r\neth0")]));
}

#[test]
fn another_interface_of_the_container_is_another_owner() {
    let network = Network::of(&[&["10.0.0.0/29"]]);
    network.put("10.0.0.2", "c1\r\neth1");
    network.put("10.0.0.3", "c1");
    assert_eq!(addresses(network.add("c1")), ["10.0.0.4/29"]);
}

#[test]
fn requested_addresses_come_from_three_sources_with_or_without_a_prefix_length() {
    for text in ["10.0.0.5", "10.0.0.5/8", "::ffff:10.0.0.5"] {
        let of = || Network::of(&[&["10.0.0.0/29"]]);
        assert_eq!(addresses(of().add_with("c", &format!("IP={text}"))), ["10.0.0.5/29"]);
        assert_eq!(addresses(of().with("args", json!({"cni": {"ips": [text]}})).add("c")), ["10.0.0.5/29"]);
        assert_eq!(addresses(of().with("runtimeConfig", json!({"ips": [text]})).add("c")), ["10.0.0.5/29"]);
    }
    let all = Network::of(&[&["10.0.0.0/29"], &["fd00::/64"], &["10.1.0.0/24"], &["10.2.0.0/24"]])
        .with("args", json!({"cni": {"ips": ["fd00::5"]}}))
        .with("runtimeConfig", json!({"ips": ["10.1.0.5", "10.0.0.5"]}));
    let got = addresses(all.add_with("c", "IP=10.0.0.5"));
    assert_eq!(got, ["10.0.0.5/29", "fd00::5/64", "10.1.0.5/24", "10.2.0.2/24"]);
}

#[test]
fn a_requested_address_that_is_taken_names_its_holder() {
    let network = Network::of(&[&["10.0.0.0/29"]]);
    network.put("10.0.0.5", "c1\r\neth0");
    assert_eq!(failure(network.add_with("c2", "IP=10.0.0.5")), (101, "CNI_ARGS IP 10.0.0.5: leased to c1 eth0".into()));
    network.put("10.0.0.6", "");
    assert_eq!(addresses(network.add_with("c2", "IP=10.0.0.6")), ["10.0.0.6/29"]);
    assert_eq!(network.leases()["10.0.0.6"], "c2\r\neth0");
}

#[test]
fn sets_are_numbered_with_the_runtimes_first_and_the_single_subnet_before_the_list() {
    let ipam = json!({"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.9", "rangeEnd": "10.2.0.9", "gateway": "10.2.0.7",
                      "ranges": [[{"subnet": "10.3.0.0/24"}]]});
    let network = Network::new(ipam).with("runtimeConfig", json!({"ipRanges": [[{"subnet": "10.1.0.0/24"}]]}));
    let result = network.add("c").unwrap();
    let gateways: Vec<_> = result.ips.iter().map(|ip| ip.gateway.unwrap().to_string()).collect();
    assert_eq!(addresses(Ok(result)), ["10.1.0.2/24", "10.2.0.9/24", "10.3.0.2/24"]);
    assert_eq!(gateways, ["10.1.0.1", "10.2.0.7", "10.3.0.1"]);
    assert_eq!(network.files()["last_reserved_ip.1"], "10.2.0.9");
}

#[test]
fn no_gateway_of_any_set_is_leased() {
    let range = |start: &str, end: &str, gateway: &str| json!({"subnet": "10.0.0.0/24", "rangeStart": start, "rangeEnd": end, "gateway": gateway});
    let network = Network::new(json!({"ranges": [
        [range("10.0.0.1", "10.0.0.3", "10.0.0.5"), range("10.0.0.4", "10.0.0.5", "10.0.0.2")],
        [range("10.0.0.8", "10.0.0.9", "10.0.0.1")],
    ]}));
    let mut got = Vec::new();
    for id in ["a", "b"] {
        got.extend(addresses(network.add(id)));
    }
    assert_eq!(got, ["10.0.0.3/24", "10.0.0.8/24", "10.0.0.4/24", "10.0.0.9/24"]);
    let full = "no free address in ipam.ranges[0] (10.0.0.1-10.0.0.3,10.0.0.4-10.0.0.5): 2 addresses, 2 leases, 0 reclaimed, the oldest 10.0.0.3 of a eth0";
    assert_eq!(failure(network.add("c")), (101, full.into()));
}

#[test]
fn network_and_broadcast_address_are_passed_over_even_when_the_range_names_them() {
    let ipam = json!({"subnet": "10.0.0.0/30", "rangeStart": "10.0.0.0", "rangeEnd": "10.0.0.3"});
    let network = Network::new(ipam);
    assert_eq!(addresses(network.add("a")), ["10.0.0.2/30"]);
    assert_eq!(failure(network.add("b")).0, 101);

    // IPv6 has no broadcast address; its first one belongs to the routers.
    let network = Network::new(json!({"subnet": "fd00::/126", "rangeStart": "fd00::", "gateway": "fd00::1"}));
    assert_eq!(addresses(network.add("a")), ["fd00::2/126"]);
    assert_eq!(addresses(network.add("b")), ["fd00::3/126"]);
    assert_eq!(failure(network.add("c")).0, 101);
}

#[test]
fn a_set_that_is_full_undoes_the_others_and_leaves_the_turn_where_it_was() {
    let network = Network::of(&[&["fd00::/64"], &["10.0.0.0/30"]]);
    network.add("c1").unwrap();
    let before = network.files();
    assert_eq!(failure(network.add("c2")).0, 101);
    assert_eq!(network.files(), before);
}

#[test]
fn a_half_held_attachment_keeps_its_half_when_the_other_set_is_full() {
    let network = Network::of(&[&["fd00::/64"], &["10.0.0.0/30"]]);
    network.put("fd00::7", "c2\r\neth0");
    network.put("10.0.0.2", "c1\r\neth0");
    assert_eq!(failure(network.add("c2")).0, 101);
    assert_eq!(network.leases(), files(&[("fd00::7", "c2\r\neth0"), ("10.0.0.2", "c1\r\neth0")]));
}

#[test]
fn torn_leases_are_reclaimed_when_the_range_runs_out_and_not_before() {
    for torn in ["", "\0\0\0\0", " \n", "c9\r\n", "c9\r"] {
        let network = Network::of(&[&["10.0.0.0/29"]]);
        network.put("10.0.0.3", torn);
        let got: Vec<_> = ["a", "b", "c", "d"].iter().flat_map(|id| addresses(network.add(id))).collect();
        assert_eq!(got, ["10.0.0.2/29", "10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29"], "{torn:?}");
        assert_eq!(addresses(network.add("e")), ["10.0.0.3/29"], "{torn:?}");
        assert_eq!(failure(network.add("f")).0, 101);
    }
}

#[test]
fn a_full_range_of_what_may_be_somebodys_is_left_alone() {
    let network = Network::of(&[&["10.0.0.0/29"]]);
    for (name, content) in [("10.0.0.2", "c1"), ("10.0.0.3", "c1\n"), ("10.0.0.4", "a b"), ("10.0.0.5", "c\r\neth0")] {
        network.put(name, content);
    }
    symlink("/nonexistent", network.path().join("10.0.0.6")).unwrap();
    let before = network.files();
    let full = "no free address in ipam.ranges[0] (10.0.0.1-10.0.0.6): 5 addresses, 5 leases, 0 reclaimed, the oldest 10.0.0.2 of c1";
    assert_eq!(failure(network.add("x")), (101, full.into()));
    assert_eq!(network.files(), before);
}

#[test]
fn an_ipv6_64_is_never_counted_out() {
    let network = Network::of(&[&["fd00::/64"]]);
    network.put("last_reserved_ip.0", "fd00::ffff:ffff:ffff:fffe");
    assert_eq!(addresses(network.add("a")), ["fd00::ffff:ffff:ffff:ffff/64"]);
    assert_eq!(addresses(network.add("b")), ["fd00::2/64"]);
    network.status().unwrap();
}

#[test]
fn routes_and_resolver_come_with_the_addresses() {
    let resolv = tempfile::NamedTempFile::new().unwrap();
    fs::write(resolv.path(), "nameserver 10.0.0.1\nsearch lan\n").unwrap();
    let route = json!({"dst": "10.9.0.0/16", "gw": "10.0.0.1", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 9,
                       "scope": 253});
    let network = Network::new(json!({"subnet": "10.0.0.0/24", "resolvConf": resolv.path(),
                                      "routes": [{"dst": "0.0.0.0/0"}, route]}));
    let result = network.add("c").unwrap();
    assert_eq!(serde_json::to_value(&result.routes).unwrap(), json!([{"dst": "0.0.0.0/0"}, route]));
    assert_eq!(serde_json::to_value(&result.dns).unwrap(), json!({"nameservers": ["10.0.0.1"], "search": ["lan"]}));
}

#[test]
fn fifty_parallel_adds_on_fifty_addresses_all_succeed() {
    let ipam = json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.100", "rangeEnd": "10.0.0.149"});
    let network = Network::new(ipam);
    let mut got: Vec<String> = std::thread::scope(|scope| {
        let network = &network;
        let threads: Vec<_> = (0..50).map(|n| scope.spawn(move || addresses(network.add(&format!("c{n}"))))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 50);
    assert_eq!(network.leases().len(), 50);
}
