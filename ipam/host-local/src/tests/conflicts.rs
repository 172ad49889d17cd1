//! Addresses that other machines on the LAN have.

use std::fs;

use serde_json::{Value, json};

use super::{Network, addresses, failure, files};

const MAC: &str = "52:54:00:12:34:56";

/// Three addresses: 10.0.0.2 to 10.0.0.4.
fn of_three() -> Network {
    Network::new(json!({"subnet": "10.0.0.0/29", "rangeEnd": "10.0.0.4"}))
}

impl Network {
    /// A DEL whose configuration names these addresses.
    fn reject(&mut self, id: &str, ips: &[&str]) {
        self.reject_with(id, ips.iter().map(|ip| json!({"address": ip, "mac": MAC})).collect());
    }

    fn reject_with(&mut self, id: &str, conflicts: Value) {
        self.conf["addressConflicts"] = conflicts;
        let rejected = self.del(id);
        self.conf["addressConflicts"] = json!(null);
        rejected.unwrap();
    }

    /// A container that comes and goes. Returns its first address.
    fn next(&self) -> String {
        let ip = addresses(self.add("next")).remove(0);
        self.del("next").unwrap();
        ip.split('/').next().unwrap().to_owned()
    }

    /// Returns true if so many containers come and go, and none of them gets 10.0.0.2.
    fn keeps_through(&self, calls: usize) -> bool {
        (0..calls).all(|_| self.next() != "10.0.0.2")
    }
}

/// A network in which 10.0.0.2 is kept for 600 seconds.
fn with_conflict() -> Network {
    let mut network = of_three();
    assert_eq!(addresses(network.add("c1")), ["10.0.0.2/29"]);
    network.reject("c1", &["10.0.0.2"]);
    assert_eq!(network.leases(), files(&[]));
    network
}

#[test]
fn a_rejected_address_is_kept_until_its_time_is_over() {
    let network = with_conflict();
    assert_eq!(network.next(), "10.0.0.3");
    assert!(network.keeps_through(9));
    network.uptime(699);
    assert!(network.keeps_through(9));
    network.uptime(700);
    assert!(!network.keeps_through(3));
    // Later calls do not read the slots.
    let lock = fs::read(network.path().join("lock")).unwrap();
    assert_eq!(lock[72..80], [0; 8]);
}

#[test]
fn the_delay_is_configured_and_zero_switches_it_off() {
    let mut network = of_three();
    network.conf["ipam"]["conflictDelay"] = json!(5);
    network.add("c1").unwrap();
    network.reject("c1", &["10.0.0.2"]);
    network.uptime(104);
    assert!(network.keeps_through(6));
    network.uptime(105);
    assert!(!network.keeps_through(3));

    let mut network = with_conflict();
    network.conf["ipam"]["conflictDelay"] = json!(0);
    assert!(!network.keeps_through(3), "an operator who switches it off gets the address back");
    network.status().unwrap();
    network.add_with("c1", "IP=10.0.0.3").unwrap();
    network.reject("c1", &["10.0.0.3"]);
    network.conf["ipam"]["conflictDelay"] = json!(600);
    let given = [network.next(), network.next()];
    assert!(given.contains(&"10.0.0.3".to_owned()), "{given:?}");
}

#[test]
fn only_addresses_that_the_owner_holds_are_kept() {
    let mut network = of_three();
    network.add("c1").unwrap();
    network.add("c2").unwrap();
    network.reject("c2", &["10.0.0.2", "10.0.0.4", "192.0.2.1"]);
    network.del("c1").unwrap();
    let given: Vec<_> = (0..3).map(|_| network.next()).collect();
    assert_eq!(given, ["10.0.0.4", "10.0.0.2", "10.0.0.3"]);
    // A second DEL holds nothing.
    network.reject("c1", &["10.0.0.2"]);
    assert!(!network.keeps_through(3));
}

/// The caller probes it again.
#[test]
fn an_address_that_is_asked_for_is_given_and_an_owner_keeps_its_lease() {
    let network = with_conflict();
    assert_eq!(addresses(network.add_with("c2", "IP=10.0.0.2")), ["10.0.0.2/29"]);
    assert_eq!(addresses(network.add("c2")), ["10.0.0.2/29"]);
    network.check("c2").unwrap();
    network.del("c2").unwrap();
    assert!(network.keeps_through(6));
    for (key, value) in
        [("args", json!({"cni": {"ips": ["10.0.0.2"]}})), ("runtimeConfig", json!({"ips": ["10.0.0.2"]}))]
    {
        let network = with_conflict().with(key, value);
        assert_eq!(addresses(network.add("c2")), ["10.0.0.2/29"]);
    }
}

#[test]
fn a_full_range_says_which_addresses_are_kept_how_long_and_for_whom() {
    let mut network = with_conflict();
    network.conf["ipam"]["statusWhenFull"] = json!("unavailable");
    network.add("c2").unwrap();
    network.uptime(110);
    network.status().unwrap();
    network.add("c3").unwrap();
    let full = "no free address in ipam.subnet (10.0.0.1-10.0.0.4): 3 addresses, 2 leases, 0 reclaimed, the oldest \
                10.0.0.3 of c2 eth0, 1 kept because another machine on the LAN has the address: 10.0.0.2 (52:54:00:12:34:56) \
                for 590 s";
    assert_eq!(failure(network.add("c4")), (101, full.into()));
    // With and without a valid index.
    assert_eq!(failure(network.status()), (50, full.into()));
    network.put("notes", "");
    assert_eq!(failure(network.status()), (50, full.into()));
    assert_eq!(failure(network.add("c4")), (101, full.into()));
    network.conf["ipam"]["statusWhenFull"] = json!(null);
    network.status().unwrap();
    network.uptime(700);
    assert_eq!(addresses(network.add("c4")), ["10.0.0.2/29"]);
}

#[test]
fn at_most_five_kept_addresses_are_named() {
    let mut network = Network::new(json!({"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.9"}));
    for number in 2..10 {
        network.add("c1").unwrap();
        network.reject_with("c1", json!([{"address": format!("10.0.0.{number}")}]));
    }
    let (code, message) = failure(network.add("c2"));
    let expected = "0 leases, 0 reclaimed, 8 kept because another machine on the LAN has the address: 10.0.0.2 for 600 s, \
                    10.0.0.3 for 600 s, 10.0.0.4 for 600 s, 10.0.0.5 for 600 s, 10.0.0.6 for 600 s and 3 more";
    assert_eq!(code, 101);
    assert!(message.ends_with(expected), "{message}");
    assert_eq!(network.leases(), files(&[]));
}

#[test]
fn many_releases_do_not_push_a_conflict_out() {
    let mut network = with_conflict();
    network.conf["ipam"]["reuseDelay"] = json!(60);
    assert!(network.keeps_through(1100));
    // Released addresses come last, a kept one never.
    network.add_with("c3", "IP=10.0.0.3").unwrap();
    assert!(network.keeps_through(3));
    network.add("c4").unwrap();
    assert_eq!(failure(network.add("c5")).0, 101);
}

#[test]
fn each_family_and_each_set_has_its_own_conflicts() {
    let mut network = Network::of(&[&["10.0.0.0/29"], &["fd00::/64"], &["10.1.0.0/29"]]);
    let all = addresses(network.add("c1"));
    assert_eq!(all, ["10.0.0.2/29", "fd00::2/64", "10.1.0.2/29"]);
    network.reject("c1", &["fd00::2", "::ffff:10.1.0.2"]);
    for _ in 0..20 {
        let given = addresses(network.add("c2"));
        assert!(given[1] != "fd00::2/64" && given[2] != "10.1.0.2/29", "{given:?}");
        network.del("c2").unwrap();
    }
    assert_eq!(addresses(network.add_with("c3", "IP=10.0.0.2"))[0], "10.0.0.2/29");
}

#[test]
fn a_foreign_change_of_the_directory_loses_no_conflict() {
    let network = with_conflict();
    for number in 0..3 {
        network.put(&format!("notes{number}"), "");
        assert!(network.keeps_through(3));
    }
    // A call that scans and fails erases the index.
    fs::create_dir(network.path().join("10.0.0.3")).unwrap();
    network.add("c1").unwrap();
    assert_eq!(failure(network.add("c2")).0, 101);
    fs::remove_dir(network.path().join("10.0.0.3")).unwrap();
    assert!(network.keeps_through(3));
}

#[test]
fn a_reboot_ends_the_time_and_the_next_conflicts_are_kept() {
    let mut network = with_conflict();
    network.boot("boot-2");
    network.uptime(10);
    assert_eq!(
        [network.next(), network.next(), network.next()],
        ["10.0.0.3", "10.0.0.4", "10.0.0.2"].map(str::to_owned)
    );
    network.add_with("c1", "IP=10.0.0.2").unwrap();
    network.reject("c1", &["10.0.0.2"]);
    assert!(network.keeps_through(6));
}

#[test]
fn a_lock_file_of_an_earlier_release_or_with_other_content_has_no_conflicts() {
    for content in [&b"underly1"[..], b"", &[b'x'; 500]] {
        let mut network = of_three();
        let mut lock = content.to_vec();
        lock.resize(30_000.max(lock.len()) * content.len().min(1), 0);
        fs::create_dir_all(network.path()).unwrap();
        fs::write(network.path().join("lock"), lock).unwrap();
        assert_eq!(addresses(network.add("c1")), ["10.0.0.2/29"]);
        network.reject("c1", &["10.0.0.2"]);
        assert!(network.keeps_through(6));
    }
}

#[test]
fn a_wrong_value_keeps_no_lease() {
    for wrong in [json!("x"), json!([7]), json!([{"address": "x"}]), json!([{"mac": MAC}]), json!({})] {
        let mut network = of_three();
        network.add("c1").unwrap();
        network.reject_with("c1", wrong);
        assert_eq!(network.leases(), files(&[]));
    }
    let mut network = of_three();
    network.add("c1").unwrap();
    network.conf["ipam"]["conflictDelay"] = json!("long");
    network.reject("c1", &["10.0.0.2"]);
    assert_eq!(network.leases(), files(&[]));
    let refused = "ipam.conflictDelay \"long\": is not a whole number from 0 to 4294967295";
    assert_eq!(failure(network.add("c1")), (7, refused.into()));
    network.conf["ipam"]["conflictDelay"] = json!(null);
    assert!(network.keeps_through(6));
    network.uptime(700);
    assert!(!network.keeps_through(3), "the default is used");
}

#[test]
fn without_a_lock_file_that_can_be_written_the_lease_is_freed() {
    let mut network = of_three();
    network.add("c1").unwrap();
    let other = network.folder.path().join("other");
    fs::hard_link(network.path().join("lock"), &other).unwrap();
    network.reject("c1", &["10.0.0.2"]);
    assert_eq!(network.leases(), files(&[]));
    fs::remove_file(other).unwrap();
    assert!(!network.keeps_through(3));

    fs::remove_file(network.machine.proc.join("uptime")).unwrap();
    network.add_with("c1", "IP=10.0.0.2").unwrap();
    network.reject("c1", &["10.0.0.2"]);
    assert_eq!(network.leases(), files(&[]));
}
