//! Records and index: they can be missing, out of date or foreign.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{Network, addresses, failure, files};

/// Two addresses.
fn small() -> Network {
    Network::new(json!({"subnet": "10.0.0.0/29", "rangeEnd": "10.0.0.3", "statusWhenFull": "unavailable"}))
}

fn dual() -> Network {
    Network::new(json!({"ranges": [[{"subnet": "10.0.0.0/30"}], [{"subnet": "fd00::/64"}]]}))
}

/// As the reference makes a lease: no link(2), no record.
fn foreign(network: &Network, ip: &str, id: &str) {
    let _ = fs::remove_file(network.path().join(ip));
    network.put(ip, &format!("{id}\r\neth0"));
}

/// Returns true if the next call will use the index.
fn is_stamped(network: &Network) -> bool {
    let folder = fs::metadata(network.path()).unwrap();
    let lock = fs::read(network.path().join("lock")).unwrap();
    folder.mtime_nsec() == 0 && lock.get(8..16) == Some(&folder.mtime().to_le_bytes())
}

fn records(network: &Network) -> Vec<String> {
    network.records().into_keys().collect()
}

#[test]
fn every_call_leaves_an_index_and_a_record_for_each_owner() {
    let mut network = dual();
    network.add("c1").unwrap();
    assert!(is_stamped(&network));
    let record = &network.records()["c1:eth0"];
    assert!(record.starts_with("u:1 boot-1 - 10.0.0.2=") && record.contains(",fd00::2="), "{record}");
    network.conf["ipam"]["ranges"] = json!([[{"subnet": "fd00::/64"}]]);
    network.add("c2").unwrap();
    network.add("c1").unwrap();
    network.status().unwrap();
    network.del("c2").unwrap();
    network.del("c2").unwrap();
    assert!(is_stamped(&network));
    assert_eq!(records(&network), ["c1:eth0"]);
    network.add("c2").unwrap();
    let network = network.with("cni.dev/valid-attachments", json!([{"containerID": "c2", "ifname": "eth0"}]));
    network.gc().unwrap();
    assert!(is_stamped(&network));
    assert_eq!(records(&network), ["c2:eth0"]);
    network.del("c2").unwrap();
    assert_eq!(network.leases(), files(&[]));
    assert_eq!(records(&network), [""; 0]);
}

#[test]
fn a_failed_add_leaves_the_index_right() {
    let network = small();
    network.add("c1").unwrap();
    network.add("c2").unwrap();
    assert_eq!(failure(network.add("c3")).0, 101);
    assert!(is_stamped(&network));
    assert_eq!(failure(network.add_with("c3", "IP=10.0.0.2")), (101, "CNI_ARGS IP 10.0.0.2: leased to c1 eth0".into()));
    assert!(is_stamped(&network));
    network.del("c1").unwrap();
    assert_eq!(addresses(network.add("c3")), ["10.0.0.2/29"]);
}

#[test]
fn what_others_did_meanwhile_is_seen() {
    let network = small();
    network.add("c1").unwrap();
    foreign(&network, "10.0.0.3", "theirs");
    // With the lease comes a record, and the owner can be found by it.
    network.check("theirs").unwrap();
    network.del("nobody").unwrap();
    assert_eq!(records(&network), ["c1:eth0", "theirs:eth0"]);
    fs::remove_file(network.path().join("10.0.0.2")).unwrap();
    network.del("nobody").unwrap();
    assert_eq!(records(&network), ["theirs:eth0"]);
    assert_eq!(addresses(network.add("c2")), ["10.0.0.2/29"]);
    network.del("theirs").unwrap();
    assert_eq!(network.leases(), files(&[("10.0.0.2", "c2\r\neth0")]));
    // Another owner has the address now, so the old record does not count.
    foreign(&network, "10.0.0.2", "theirs");
    network.del("nobody").unwrap();
    assert_eq!(records(&network), ["theirs:eth0"]);
    assert_eq!(network.leases(), files(&[("10.0.0.2", "theirs\r\neth0")]));
}

#[test]
fn nothing_that_is_kept_beside_the_leases_is_needed() {
    for name in ["lock", "c1:eth0", "last_reserved_ip.0"] {
        let network = small();
        network.add("c1").unwrap();
        fs::remove_file(network.path().join(name)).unwrap();
        network.add("c1").unwrap();
        assert_eq!(addresses(network.add("c2")), ["10.0.0.3/29"], "{name}");
        fs::remove_file(network.path().join("lock")).unwrap();
        network.del("c1").unwrap();
        network.del("c2").unwrap();
        assert_eq!(network.leases(), files(&[]), "{name}");
    }
}

/// A backup that was put back, a directory that was copied: all is as it was, but for the identity of the files.
#[test]
fn a_copied_directory_works_and_none_of_its_leases_is_taken_for_an_old_one() {
    let network = small();
    network.add("c1").unwrap();
    network.add("c2").unwrap();
    let (path, copy) = (network.path(), network.data_dir().join("copy"));
    let status = std::process::Command::new("cp").arg("-a").args([&path, &copy]).status().unwrap();
    assert!(status.success());
    fs::remove_dir_all(&path).unwrap();
    fs::rename(&copy, &path).unwrap();
    network.boot("boot-2");
    assert_eq!(failure(network.add("c3")).0, 101);
    assert_eq!(network.leases().len(), 2);
    network.del("c1").unwrap();
    assert_eq!(addresses(network.add("c3")), ["10.0.0.2/29"]);
}

#[test]
fn a_wrong_index_gives_no_address_twice_and_hides_none() {
    let network = small();
    network.add("c1").unwrap();
    let stamp = fs::metadata(network.path()).unwrap().mtime();
    let restamp = || {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(stamp.unsigned_abs());
        File::open(network.path()).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
        assert!(is_stamped(&network));
    };
    // A clock that was set back to the very second: the worst that can be.
    foreign(&network, "10.0.0.3", "theirs");
    restamp();
    assert_eq!(failure(network.add("c2")).0, 101);

    let stamp = fs::metadata(network.path()).unwrap().mtime();
    fs::remove_file(network.path().join("10.0.0.3")).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(stamp.unsigned_abs());
    File::open(network.path()).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    assert!(is_stamped(&network));
    assert_eq!(addresses(network.add("c2")), ["10.0.0.3/29"]);
    // The edited content counts.
    fs::write(network.path().join("10.0.0.3"), "c9\r\neth0").unwrap();
    assert!(is_stamped(&network));
    network.del("c2").unwrap();
    assert_eq!(network.leases()["10.0.0.3"], "c9\r\neth0");
    network.del("c9").unwrap();
    assert_eq!(network.leases(), files(&[("10.0.0.2", "c1\r\neth0")]));
}

#[test]
fn leases_from_before_a_reboot_are_reclaimed_when_the_range_runs_out_and_not_before() {
    let network = small();
    network.add("c1").unwrap();
    network.boot("boot-2");
    assert_eq!(addresses(network.add("c2")), ["10.0.0.3/29"]);
    assert_eq!(network.leases().len(), 2);
    network.status().unwrap();
    assert_eq!(addresses(network.add("c3")), ["10.0.0.2/29"]);
    assert_eq!(network.leases(), files(&[("10.0.0.2", "c3\r\neth0"), ("10.0.0.3", "c2\r\neth0")]));
    assert_eq!(records(&network), ["c2:eth0", "c3:eth0"]);

    // A late DEL of what was reclaimed changes nothing.
    let before = (network.files(), network.records());
    network.del("c1").unwrap();
    assert_eq!((network.files(), network.records()), before);
    assert_eq!(failure(network.add("c4")).0, 101);
    assert_eq!(failure(network.status()).0, 50);
}

#[test]
fn a_lease_without_evidence_waits_for_a_reboot_that_we_have_seen() {
    let network = small();
    foreign(&network, "10.0.0.2", "t1");
    foreign(&network, "10.0.0.3", "t2");
    network.boot("boot-2");
    assert_eq!(failure(network.add("c1")).0, 101);
    network.boot("boot-3");
    assert_eq!(addresses(network.add("c1")), ["10.0.0.2/29"]);
    assert_eq!(network.leases(), files(&[("10.0.0.2", "c1\r\neth0")]));
}

#[test]
fn a_container_that_came_back_after_the_reboot_is_no_old_one() {
    let network = small();
    network.add("same").unwrap();
    network.add("theirs").unwrap();
    network.boot("boot-2");
    // One by us, who give it its own address back; one by the reference, under the same ID with the same address.
    assert_eq!(addresses(network.add("same")), ["10.0.0.2/29"]);
    foreign(&network, "10.0.0.3", "theirs");
    // Not even before we have walked over it.
    assert_eq!(failure(network.status()).0, 50);
    assert_eq!(failure(network.add("c1")).0, 101);
    assert!(network.records()["theirs:eth0"].starts_with("u:1 boot-2 "));
    let expected = files(&[("10.0.0.2", "same\r\neth0"), ("10.0.0.3", "theirs\r\neth0")]);
    assert_eq!(network.leases(), expected);
}

/// One of its leases is of today: so the container is, whatever the record says of the other.
#[test]
fn a_container_with_one_new_lease_keeps_its_old_one() {
    let network = dual();
    network.add("c1").unwrap();
    network.boot("boot-2");
    foreign(&network, "fd00::2", "c1");
    assert_eq!(failure(network.add("c2")).0, 101);
    assert_eq!(network.leases().len(), 2);
}

#[test]
fn what_is_reclaimed_is_reclaimed_whole() {
    let network = dual();
    network.add("c1").unwrap();
    network.boot("boot-2");
    network.add("c2").unwrap();
    assert_eq!(network.leases(), files(&[("10.0.0.2", "c2\r\neth0"), ("fd00::3", "c2\r\neth0")]));
}

#[test]
fn an_address_that_was_asked_for_is_taken_from_before_the_reboot_and_from_nobody_else() {
    let network = Network::of(&[&["10.0.0.0/24"]]);
    network.add("c1").unwrap();
    assert_eq!(failure(network.add_with("c2", "IP=10.0.0.2")).0, 101);
    network.boot("boot-2");
    assert_eq!(addresses(network.add_with("c2", "IP=10.0.0.2")), ["10.0.0.2/24"]);
}

#[test]
fn without_a_boot_id_nothing_is_old_and_everything_works() {
    let network = small();
    network.add("c1").unwrap();
    fs::remove_file(network.machine.proc.join("sys/kernel/random/boot_id")).unwrap();
    network.add("c2").unwrap();
    assert_eq!(failure(network.add("c3")).0, 101);
    network.del("c2").unwrap();
    network.add("c3").unwrap();
    network.boot("boot-2");
    // c1 has a record of boot-1, c3 one of no boot.
    assert_eq!(addresses(network.add("c4")), ["10.0.0.2/29"]);
    assert_eq!(failure(network.add("c5")).0, 101);
}

#[test]
fn gc_frees_whole_owners_and_their_records_and_keeps_what_is_valid_across_a_reboot() {
    let network = dual().with("cni.dev/valid-attachments", json!([{"containerID": "c2", "ifname": "eth0"}]));
    let network = Network {
        conf: {
            let mut conf = network.conf.clone();
            conf["ipam"]["ranges"][0] = json!([{"subnet": "10.0.0.0/24"}]);
            conf
        },
        ..network
    };
    for id in ["c1", "c2", "c3"] {
        network.add(id).unwrap();
    }
    foreign(&network, "10.0.0.77", "t");
    network.boot("boot-2");
    network.gc().unwrap();
    assert_eq!(network.leases(), files(&[("10.0.0.3", "c2\r\neth0"), ("fd00::3", "c2\r\neth0")]));
    assert_eq!(records(&network), ["c2:eth0"]);
    assert!(is_stamped(&network));
}

#[test]
fn a_file_with_the_name_of_a_record_is_left_alone() {
    let network = small();
    network.put("c1:eth0", "notes");
    symlink("notes", network.path().join("c2:eth0")).unwrap();
    for id in ["c1", "c2"] {
        network.add(id).unwrap();
        network.check(id).unwrap();
    }
    for id in ["c1", "c2"] {
        network.del(id).unwrap();
    }
    assert_eq!(network.leases(), BTreeMap::new());
    assert_eq!(fs::read_to_string(network.path().join("c1:eth0")).unwrap(), "notes");
    assert_eq!(fs::read_link(network.path().join("c2:eth0")).unwrap().to_str(), Some("notes"));
}

#[test]
fn a_record_of_another_release_is_replaced() {
    let network = small();
    network.add("c1").unwrap();
    let path = network.path().join("c1:eth0");
    fs::remove_file(&path).unwrap();
    symlink("u:2 what is to come", &path).unwrap();
    symlink("u:2 of an owner without a lease", network.path().join("c9:eth0")).unwrap();
    network.add("c2").unwrap();
    assert_eq!(records(&network), ["c1:eth0", "c2:eth0"]);
    assert!(network.records()["c1:eth0"].starts_with("u:1 boot-1 "));
}

#[test]
fn an_owner_whose_name_is_too_long_for_a_record_has_its_lease_all_the_same() {
    let network = small();
    let long = "c".repeat(300);
    assert_eq!(addresses(network.add(&long)), ["10.0.0.2/29"]);
    assert_eq!(addresses(network.add(&long)), ["10.0.0.2/29"]);
    network.check(&long).unwrap();
    network.add("c2").unwrap();
    network.del(&long).unwrap();
    assert_eq!(network.leases(), files(&[("10.0.0.3", "c2\r\neth0")]));
}

#[test]
fn a_released_address_rests_while_others_are_free() {
    let mut network = Network::new(json!({"subnet": "10.0.0.0/29", "rangeEnd": "10.0.0.4", "reuseDelay": 60}));
    for id in ["a", "b", "c"] {
        network.add(id).unwrap();
    }
    network.del("b").unwrap();
    network.uptime(130);
    network.del("a").unwrap();
    // Both rest: the one that has rested longest.
    assert_eq!(addresses(network.add("d")), ["10.0.0.3/29"]);
    network.del("c").unwrap();
    network.uptime(189);
    assert_eq!(addresses(network.add("e")), ["10.0.0.2/29"]);
    network.del("d").unwrap();
    network.uptime(190);
    // 10.0.0.4 has rested enough; 10.0.0.3 has not.
    assert_eq!(addresses(network.add("f")), ["10.0.0.4/29"]);
    network.del("f").unwrap();
    network.del("e").unwrap();
    // One that is asked for is not free for others to come first.
    assert_eq!(addresses(network.add_with("g", "IP=10.0.0.2")), ["10.0.0.2/29"]);
    network.conf["ipam"]["reuseDelay"] = json!(0);
    assert_eq!(addresses(network.add("h")), ["10.0.0.3/29"]);
}

#[test]
fn excluded_addresses_are_never_leased_and_say_why() {
    let mut network = Network::new(json!({
        "ranges": [[{"subnet": "10.0.0.0/28", "exclude": ["10.0.0.2", "10.0.0.4/30"]}], [{"subnet": "fd00::/64"}]],
        "exclude": ["10.0.0.8/29", "fd00::/65", "192.0.2.0/24"],
    }));
    assert_eq!(addresses(network.add("c1")), ["10.0.0.3/28", "fd00::8000:0:0:0/64"]);
    let full = "no free address in ipam.ranges[0] (10.0.0.1-10.0.0.14): 1 addresses, 1 leases, 0 reclaimed, \
                the oldest 10.0.0.3 of c1 eth0";
    assert_eq!(failure(network.add("c2")), (101, full.into()));
    for (ip, why) in [
        ("10.0.0.2", "is excluded by ipam.ranges[0][0].exclude[0] 10.0.0.2/32"),
        ("10.0.0.5", "is excluded by ipam.ranges[0][0].exclude[1] 10.0.0.4/30"),
        ("fd00::7", "is excluded by ipam.exclude[1] fd00::/65"),
    ] {
        assert_eq!(failure(network.add_with("c2", &format!("IP={ip}"))), (7, format!("CNI_ARGS IP {ip}: {why}")));
    }
    for (text, cause) in [
        ("10.0.0.5/24", "has host bits set; the network is 10.0.0.0/24, the address 10.0.0.5"),
        ("all", "is neither an IP address nor a network such as 10.0.0.64/28"),
    ] {
        network.conf["ipam"]["exclude"] = json!([text]);
        assert_eq!(failure(network.add("c2")), (7, format!("ipam.exclude[0] {text:?}: {cause}")));
    }
    network.conf["ipam"]["exclude"] = json!(["10.0.0.0/8"]);
    let none = "no free address in ipam.ranges[0] (10.0.0.1-10.0.0.14): 0 addresses, 0 leases, 0 reclaimed";
    assert_eq!(failure(network.status()), (50, none.into()));
}
