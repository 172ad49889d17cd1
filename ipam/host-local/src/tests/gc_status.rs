//! GC and STATUS.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::{Network, failure, files, listing};

#[test]
fn gc_frees_what_is_not_in_the_list_and_nothing_else() {
    let network = Network::of(&[&["10.0.0.0/24"]]).with(
        "cni.dev/valid-attachments",
        json!([{"containerID": "live", "ifname": "eth0"}, {"containerID": "old", "ifname": "net1"}]),
    );
    let kept = files(&[
        ("10.0.0.2", "live\r\neth0"),
        ("10.0.0.3", "old"),
        ("10.0.0.4", "live\r\n"),
        ("last_reserved_ip.0", "10.0.0.9"),
        ("notes", "dead\r\neth0"),
    ]);
    for (name, content) in &kept {
        network.put(name, content);
    }
    for (name, content) in [
        ("10.0.0.5", "dead\r\neth0"),
        ("10.0.0.6", "live\r\neth1"),
        ("10.0.0.7", ""),
        ("10.0.0.8", "dead"),
        ("10.0.0.9", "dead\r\n"),
        ("10.0.0.10", "what is this"),
        ("fd00::9", "dead\r\neth0"),
    ] {
        network.put(name, content);
    }
    fs::create_dir(network.path().join("10.0.0.11")).unwrap();
    symlink(network.path().join("notes"), network.path().join("10.0.0.12")).unwrap();
    let other = network.data_dir().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("10.0.0.5"), "dead\r\neth0").unwrap();

    network.gc().unwrap();
    let mut expected = kept;
    expected.extend(files(&[("10.0.0.11", "a folder"), ("10.0.0.12", "a link")]));
    assert_eq!(network.files(), expected);
    assert!(network.path().join("lock").exists());
    assert_eq!(listing(&other), files(&[("10.0.0.5", "dead\r\neth0")]));
}

#[test]
fn gc_with_an_empty_list_frees_everything_and_without_a_list_nothing() {
    let network = Network::of(&[&["10.0.0.0/24"]]);
    network.add("c1").unwrap();
    let missing =
        "cni.dev/valid-attachments: is not set; GC needs this list, because without it all leases would be freed";
    assert_eq!(failure(network.gc()), (7, missing.into()));
    assert_eq!(network.leases().len(), 1);
    let network = network.with("cni.dev/attachments", json!([]));
    network.gc().unwrap();
    assert_eq!(network.leases(), files(&[]));
}

#[test]
fn gc_reads_no_ranges_and_makes_no_directory() {
    let network = Network::new(json!({"ranges": 7})).with("cni.dev/valid-attachments", json!([]));
    network.gc().unwrap();
    assert!(!network.data_dir().exists());
}

#[test]
fn status_fails_on_a_full_set_if_the_configuration_asks_for_that_and_says_which() {
    let mut network = Network::of(&[&["fd00::/64"], &["10.0.0.0/30"]]);
    network.conf["ipam"]["statusWhenFull"] = json!("unavailable");
    network.status().unwrap();
    assert!(!network.data_dir().exists(), "STATUS changes nothing");
    network.add("c1").unwrap();
    let before = network.files();
    let full = "no free address in ipam.ranges[1] (10.0.0.1-10.0.0.2): 1 addresses, 1 leases, 0 reclaimed, the oldest 10.0.0.2 of c1 eth0";
    assert_eq!(failure(network.status()), (50, full.into()));
    assert_eq!(network.files(), before);

    // A lease that ADD would free counts as free.
    network.put("10.0.0.2", "");
    network.status().unwrap();
    assert_eq!(network.files()["10.0.0.2"], "");
}

/// A node of Kubernetes was NotReady from the moment on when its range was full, and its healthy pods were evicted.
#[test]
fn status_of_a_full_range_is_success_unless_the_configuration_asks_for_failure() {
    let mut network = Network::of(&[&["10.0.0.0/30"]]);
    network.add("c1").unwrap();
    let before = network.files();
    for word in [json!(null), json!(""), json!("available")] {
        network.conf["ipam"]["statusWhenFull"] = word;
        network.status().unwrap();
    }
    network.conf["ipam"]["statusWhenFull"] = json!("unavailable");
    assert_eq!(failure(network.status()).0, 50);
    assert_eq!(network.files(), before);
}

#[test]
fn status_of_a_range_that_is_nothing_but_the_gateway() {
    let network = Network::new(json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.1", "rangeEnd": "10.0.0.1"}));
    let full = "no free address in ipam.subnet (10.0.0.1-10.0.0.1): 0 addresses, 0 leases, 0 reclaimed";
    assert_eq!(failure(network.status()), (50, full.into()));
}

#[test]
fn status_of_a_directory_that_cannot_be_made_or_written() {
    let network = Network::of(&[&["10.0.0.0/24"]]);
    fs::write(network.data_dir(), "a file in its place").unwrap();
    let cause = format!("create {}: Not a directory (os error 20)", network.path().display());
    assert_eq!(failure(network.status()), (50, cause));

    fs::remove_file(network.data_dir()).unwrap();
    fs::create_dir_all(network.path().join(".lease.tmp")).unwrap();
    let cause = format!("create {}: File exists (os error 17)", network.path().join(".lease.tmp").display());
    assert_eq!(failure(network.status()), (50, cause));
}
