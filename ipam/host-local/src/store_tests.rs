use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::machine::Machine;
use ranges::Range;

const OWNER: Owner<'static> = Owner { container_id: "c1", ifname: "eth0" };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn directory() -> (TempDir, Directory) {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::new(folder.path(), "lan", Machine::this());
    (folder, directory)
}

/// 10.0.0.1 to 10.0.0.6.
fn set() -> Set {
    let subnet = "10.0.0.0/29".parse().unwrap();
    let (first, last) = (ip("10.0.0.1"), ip("10.0.0.6"));
    let range = Range { subnet, first, last, typed: (first, last), gateway: first };
    let mut set = Set::new("ipam.subnet".into(), vec![range]);
    set.leave_out(None, ip("10.0.0.1"), ip("10.0.0.1"));
    set
}

#[test]
fn an_address_is_leased_once() {
    let (_folder, directory) = directory();
    let store = Store::create(&directory).unwrap();
    let other = Owner { container_id: "c2", ..OWNER };
    assert!(store.lease(ip("10.0.0.2"), &OWNER).unwrap());
    assert!(!store.lease(ip("10.0.0.2"), &other).unwrap());
    assert_eq!(store.lease_next(&set(), None, &[], &[], &other).unwrap(), Some(ip("10.0.0.3")));
    assert_eq!(store.held_by(&OWNER).unwrap().leases, [ip("10.0.0.2")]);
    // A file of its own, not one that shares its content with another lease or with a temporary.
    assert_eq!(fs::metadata(directory.path().join("10.0.0.3")).unwrap().nlink(), 1);
    assert!(!directory.path().join(TEMPORARY).exists());
    store.release(ip("10.0.0.2")).unwrap();
    store.release(ip("10.0.0.2")).unwrap();
    assert!(store.lease(ip("10.0.0.2"), &other).unwrap());
}

#[test]
fn a_writer_that_was_killed_between_link_and_unlink_leaves_a_whole_lease() {
    let (_folder, directory) = directory();
    drop(Store::create(&directory).unwrap());
    fs::write(directory.path().join(TEMPORARY), OWNER.content()).unwrap();
    fs::hard_link(directory.path().join(TEMPORARY), directory.path().join("10.0.0.2")).unwrap();

    let store = Store::create(&directory).unwrap();
    assert!(!directory.path().join(TEMPORARY).exists());
    let other = Owner { container_id: "c2", ..OWNER };
    assert!(store.lease(ip("10.0.0.3"), &other).unwrap());
    assert_eq!(fs::read_to_string(directory.path().join("10.0.0.2")).unwrap(), OWNER.content());
    assert_eq!(store.held_by(&OWNER).unwrap().leases, [ip("10.0.0.2")]);
    assert!(!directory.path().join(TEMPORARY).exists());
}

#[test]
fn links_planted_in_the_directory_are_not_written_through() {
    let (folder, directory) = directory();
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    drop(Store::create(&directory).unwrap());
    let plant = |name: &str| symlink(&victim, directory.path().join(name)).unwrap();
    for name in ["last_reserved_ip.0", "10.0.0.2", TEMPORARY] {
        plant(name);
    }
    let store = Store::create(&directory).unwrap();
    assert!(!store.lease(ip("10.0.0.2"), &OWNER).unwrap());
    assert!(store.lease(ip("10.0.0.3"), &OWNER).unwrap());
    store.end_turn(store.turn(0), ip("10.0.0.3")).unwrap();
    assert_eq!(store.turn(0).last, Some(ip("10.0.0.3")));
    assert_eq!(store.directory.read(ip("10.0.0.2")).unwrap().map(|lease| lease.content), None);
    plant(TEMPORARY);
    assert!(store.lease(ip("10.0.0.4"), &OWNER).unwrap());
    assert_eq!(fs::read_to_string(directory.path().join("10.0.0.4")).unwrap(), OWNER.content());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn the_turn_is_written_in_place_only_into_a_file_of_this_directory_alone() {
    let (folder, directory) = directory();
    let store = Store::create(&directory).unwrap();
    let path = directory.path().join("last_reserved_ip.0");
    let inode = || fs::metadata(&path).unwrap().ino();
    let note = |last: &str| {
        store.end_turn(store.turn(0), ip(last)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), last);
        inode()
    };
    let first = note("10.0.0.2");
    assert_eq!(note("10.0.0.3"), first, "the same length needs no new file");
    assert_ne!(note("10.0.0.10"), first, "another length would not be there at once");
    let elsewhere = folder.path().join("elsewhere");
    fs::hard_link(&path, &elsewhere).unwrap();
    note("10.0.0.11");
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "10.0.0.10");
    fs::write(&path, "10.0.0.12\n").unwrap();
    assert_eq!(store.turn(0).last, Some(ip("10.0.0.12")));
    note("10.0.0.13");
    fs::write(&path, "1".repeat(100)).unwrap();
    assert_eq!(store.turn(0).last, None);
    note("10.0.0.14");
}

#[test]
fn a_failed_write_names_what_it_was_for() {
    let (_folder, directory) = directory();
    let store = Store::create(&directory).unwrap();
    // A folder in place of the temporary file is the one obstacle that root cannot write over.
    fs::create_dir(directory.path().join(TEMPORARY)).unwrap();
    let path = directory.path().join("10.0.0.2");
    let error = store.lease(ip("10.0.0.2"), &OWNER).unwrap_err().to_string();
    assert_eq!(error, format!("create {}: File exists (os error 17)", path.display()));
    assert!(!path.exists());
}

#[test]
fn a_missing_directory_holds_nothing_and_stays_missing() {
    let (folder, directory) = directory();
    assert!(Store::lock(&directory).unwrap().is_none());
    assert!(directory.look(&mut |seen| panic!("{}", seen.ip)).unwrap().is_empty());
    assert_eq!(Store::probe(&directory, &[set()], 600).unwrap(), Probed::default());
    assert!(!directory.path().exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was written before. Lost is that an IPv4 address was written as IPv6 maps it.
    #[test]
    fn the_turn_reads_back(given in prop::collection::vec(any::<IpAddr>(), 1..12), before in "[0-9a-f.:]{0,70}") {
        let (_folder, directory) = directory();
        let store = Store::create(&directory).unwrap();
        fs::write(directory.path().join("last_reserved_ip.0"), before).unwrap();
        for ip in given {
            store.end_turn(store.turn(0), ip).unwrap();
            prop_assert_eq!(store.turn(0).last, Some(ip.to_canonical()));
        }
    }
}
