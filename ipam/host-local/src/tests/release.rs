//! DEL and CHECK.

use std::fs;

use serde_json::json;

use super::{Network, failure, files};

#[test]
fn del_frees_what_the_owner_holds_and_nothing_else() {
    let network = Network::of(&[&["10.0.0.0/24"], &["fd00::/64"]]);
    network.add("c1").unwrap();
    network.add("c2").unwrap();
    network.put("10.0.0.7", "c1\r\neth1");
    network.put("10.0.0.8", "c1");
    network.put("notes", "c1\r\neth0");
    let mut expected = network.leases();
    network.del("c1").unwrap();
    expected.retain(|name, _| name != "10.0.0.2" && name != "fd00::2");
    assert_eq!(network.leases(), expected);
    assert_eq!(network.files()["notes"], "c1\r\neth0");
}

#[test]
fn del_twice_is_a_success() {
    let network = Network::of(&[&["10.0.0.0/24"]]);
    network.add("c1").unwrap();
    network.add("c2").unwrap();
    for _ in 0..2 {
        network.del("c1").unwrap();
        assert_eq!(network.leases(), files(&[("10.0.0.3", "c2\r\neth0")]));
    }
}

#[test]
fn del_leaves_nothing_of_an_add_that_was_killed() {
    let network = Network::of(&[&["10.0.0.0/24"]]);
    network.put("10.0.0.2", "c1\r\neth0");
    network.put(".lease.tmp", "c1\r\neth0");
    network.del("c1").unwrap();
    assert_eq!(network.files(), files(&[]));
}

#[test]
fn del_frees_a_lease_in_the_old_form_only_where_there_is_none_in_todays() {
    let network = Network::of(&[&["10.0.0.0/24"]]);
    network.put("10.0.0.2", "c1\r\neth0\n");
    network.put("10.0.0.3", "c1");
    network.del("c1").unwrap();
    assert_eq!(network.leases(), files(&[("10.0.0.3", "c1")]));
    network.del("c1").unwrap();
    assert_eq!(network.leases(), files(&[]));
}

#[test]
fn del_reads_nothing_but_the_directory() {
    for broken in [
        json!({"ranges": 7, "subnet": {}, "routes": "x", "resolvConf": []}),
        json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/25"}]], "resolvConf": "/nonexistent"}),
        json!({}),
    ] {
        let mut network = Network::of(&[&["10.0.0.0/24"]]);
        network.add("c1").unwrap();
        network.conf["ipam"] = broken;
        network.conf["runtimeConfig"] = json!("x");
        network.conf["args"] = json!(7);
        network.conf["prevResult"] = json!("x");
        network.del("c1").unwrap();
        assert_eq!(network.leases(), files(&[]));
    }
}

#[test]
fn del_of_what_is_not_there_makes_nothing() {
    let network = Network::of(&[&["10.0.0.0/24"]]);
    network.del("c1").unwrap();
    assert!(!network.data_dir().exists());
}

#[test]
fn check_sees_which_leases_are_missing() {
    let mut network = Network::of(&[&["10.0.0.0/24"], &["fd00::/64"]]);
    let none = format!("c1 eth0 has no lease in {}", network.path().display());
    assert_eq!(failure(network.check("c1")), (3, none));

    network.add("c1").unwrap();
    network.check("c1").unwrap();
    let ips = |ips: &[&str]| json!({"ips": ips.iter().map(|ip| json!({"address": ip})).collect::<Vec<_>>()});
    // An address of no range of ours is another plugin's business.
    network.conf["prevResult"] = ips(&["10.0.0.2/24", "fd00::2/64", "192.0.2.1/24"]);
    network.check("c1").unwrap();
    network.conf["prevResult"] = ips(&["10.0.0.3/24"]);
    let other = "c1 eth0: has no lease of 10.0.0.3, which prevResult names";
    assert_eq!(failure(network.check("c1")), (102, other.into()));

    fs::remove_file(network.path().join("10.0.0.2")).unwrap();
    let missing = "c1 eth0: has no lease in ipam.ranges[0] (10.0.0.1-10.0.0.254)";
    assert_eq!(failure(network.check("c1")), (102, missing.into()));
}
