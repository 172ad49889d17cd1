//! The usual life of leases, and what happens when something is lost.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use lan_pool::lease::Holder;
use lan_pool::pool::Swept;
use lan_pool::{Error, Lease};

use crate::store::{Fault, Leases};
use crate::{DEAD, Machine, living, owners, sets};

#[test]
fn an_add_is_given_the_same_address_again_and_a_del_frees_it() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let both = sets(10, 20, 2);
    let given = machine.add("a", living(), &both).unwrap();
    assert_eq!(given.len(), 2);
    assert!(given[0].is_ipv4() && given[1].is_ipv6());
    assert_eq!(machine.add("a", living(), &both).unwrap(), given);
    assert_eq!(leases.all().len(), 2);
    machine.del("a").unwrap();
    assert_eq!(leases.all(), []);
    machine.del("a").unwrap();
    assert_eq!(machine.remarks(), [""; 0]);
}

#[test]
fn parallel_adds_of_two_nodes_share_a_pool_that_they_fill() {
    let leases = Leases::default();
    let machines = ["node1", "node2"].map(|name| Machine::new(name, &leases));
    let pool = sets(10, 73, 1);
    thread::scope(|scope| {
        for number in 0..64 {
            let (machine, pool) = (&machines[number % 2], &pool);
            scope.spawn(move || machine.add(&format!("c{number}"), living(), pool).unwrap());
        }
    });
    assert_eq!(leases.all().len(), 64);
    let full = machines[0].add("one-more", living(), &pool).unwrap_err().to_string();
    assert_eq!(
        full,
        "no free address in ipam.ranges[0] (10.0.0.10-10.0.0.73): 64 addresses, 64 leases (32 of node1, 32 of node2); \
         end pods, add a range, or free the leases of a dead node with lan-pool release"
    );
}

#[test]
fn a_full_pool_gets_the_address_of_a_container_that_is_gone() {
    let machine = Machine::new("node1", &Leases::default());
    let one = sets(10, 10, 1);
    let first = machine.add("gone", DEAD, &one).unwrap();
    assert_eq!(machine.add("new", living(), &one).unwrap(), first);
    assert!(matches!(machine.add("third", living(), &one), Err(Error::Exhausted { .. })));
}

#[test]
fn a_del_without_a_store_succeeds_and_the_next_call_frees_the_lease() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let pool = sets(10, 20, 2);
    machine.add("a", living(), &pool).unwrap();
    for fault in [Fault::Refused, Fault::Lost] {
        let del = |pool: &lan_pool::pool::Pool<'_>| pool.del(&machine.claim("a", living()), &[]);
        machine.with(Duration::from_millis(200), |_, _| fault, del).unwrap().unwrap();
        assert_eq!(leases.all().len(), 2);
        let remarks = machine.remarks();
        assert!(remarks[0].starts_with("a later call on this node releases 10.0.0."), "{remarks:?}");
    }
    machine.add("b", living(), &pool).unwrap();
    assert!(owners(&leases.all()).iter().all(|(_, owner)| owner == "b"), "{:?}", leases.all());
}

#[test]
fn a_reboot_frees_the_leases_of_the_boot_before() {
    let leases = Leases::default();
    let mut machine = Machine::new("node1", &leases);
    let other = Machine::new("node2", &leases);
    let pool = sets(10, 20, 1);
    machine.add("a", living(), &pool).unwrap();
    other.add("b", living(), &pool).unwrap();
    machine.reboot();
    machine.add("c", living(), &pool).unwrap();
    let owners: Vec<_> = owners(&leases.all()).into_iter().map(|(_, owner)| owner).collect();
    assert_eq!(HashSet::<String>::from_iter(owners), HashSet::from(["b".into(), "c".into()]));
    // The pages of the earlier boot are gone too.
    let pages: Vec<_> = machine.journal().pages().unwrap().0.iter().map(|page| page.owner().container_id).collect();
    assert_eq!(pages, ["c"]);
}

#[test]
fn the_leases_of_a_clone_with_the_same_name_stay() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let mut clone = Machine::new("node1", &leases);
    clone.node.machine = "another machine".into();
    clone.node.boot = "another boot".into();
    machine.add("a", DEAD, &sets(10, 20, 1)).unwrap();
    clone.sweep();
    clone.sweep();
    assert_eq!(leases.all().len(), 1);
    let remark = "1 leases of node node1 were made by another machine with that name, so they stay; \
                  if that machine is gone, free them with lan-pool release";
    assert!(clone.remarks().contains(&remark.to_owned()));
}

/// The first call after the loss makes the pages again, and deletes nothing.
#[test]
fn a_lost_journal_is_made_again_of_the_leases_of_living_containers() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let pool = sets(10, 20, 2);
    let given = machine.add("a", living(), &pool).unwrap();
    machine.add("dead", DEAD, &pool).unwrap();
    fs::remove_dir_all(machine.journal_folder().join("office")).unwrap();
    assert_eq!(machine.sweep(), Swept::default());
    assert_eq!(leases.all().len(), 4);
    assert_eq!(machine.add("a", living(), &pool).unwrap(), given);
    assert_eq!(leases.all().len(), 2, "the dead container's leases are freed by a later call: {:?}", leases.all());
    machine.del("a").unwrap();
    assert_eq!(leases.all(), []);
}

#[test]
fn a_del_after_the_journal_was_lost_frees_the_leases_also_if_the_store_was_away_then() {
    for is_away in [false, true] {
        let leases = Leases::default();
        let machine = Machine::new("node1", &leases);
        let pool = sets(10, 20, 2);
        machine.add("a", living(), &pool).unwrap();
        machine.add("b", living(), &pool).unwrap();
        fs::remove_dir_all(machine.journal_folder().join("office")).unwrap();
        let fault = if is_away { Fault::Refused } else { Fault::None };
        let del = |pool: &lan_pool::pool::Pool<'_>| pool.del(&machine.claim("a", living()), &[]);
        machine.with(Duration::from_millis(200), |_, _| fault, del).unwrap().unwrap();
        machine.sweep();
        machine.sweep();
        let owners: Vec<_> = owners(&leases.all()).into_iter().map(|(_, owner)| owner).collect();
        assert_eq!(owners, ["b", "b"], "away: {is_away}");
    }
}

#[test]
fn leases_that_the_store_has_lost_are_made_again() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let pool = sets(10, 20, 2);
    let given = machine.add("a", living(), &pool).unwrap();
    machine.add("dead", DEAD, &pool).unwrap();
    leases.wipe();
    let swept = machine.sweep();
    assert_eq!((swept.restored, swept.left), (2, 0), "{swept:?}");
    assert_eq!(leases.all().len(), 2);
    assert!(given.iter().all(|ip| leases.get(*ip).is_some()));
    machine.del("a").unwrap();
    assert_eq!(leases.all(), []);
}

#[test]
fn a_lost_lease_that_another_node_got_is_named_and_not_taken() {
    let leases = Leases::default();
    let machines = ["node1", "node2"].map(|name| Machine::new(name, &leases));
    let one = sets(10, 10, 1);
    machines[0].add("a", living(), &one).unwrap();
    leases.wipe();
    machines[1].add("b", living(), &one).unwrap();
    assert_eq!(machines[0].sweep().left, 1);
    let remarks = machines[0].remarks();
    let expected = "10.0.0.10 is in use by container a eth0 of this node, and the store has leased it to pod default/b on \
                    node node2 in the meantime: two containers may have this address; end one of them";
    assert_eq!(remarks, [expected]);
    machines[0].del("a").unwrap();
    assert_eq!(owners(&leases.all()), [("10.0.0.10".parse::<IpAddr>().unwrap(), "b".into())]);
}

#[test]
fn an_address_of_another_machine_is_kept_for_a_time() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let two = sets(10, 11, 1);
    let first = machine.add("a", living(), &two).unwrap()[0];
    let conflict = cni::Conflict { address: first, mac: Some("52:54:00:12:34:56".into()) };
    machine.call(|pool| pool.del(&machine.claim("a", living()), &[conflict])).unwrap();
    let holder = Holder::Machine { mac: Some("52:54:00:12:34:56".into()) };
    assert!(matches!(leases.get(first), Some(held) if held.lease.holder == holder));
    let second = machine.add("a", living(), &two).unwrap()[0];
    assert_ne!(second, first);
    assert!(matches!(machine.add("b", living(), &two), Err(Error::Exhausted { .. })));
    leases.pass(600);
    assert_eq!(machine.add("b", living(), &two).unwrap(), [first]);
}

#[test]
fn a_check_names_the_other_holder() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let ip = machine.add("a", living(), &sets(10, 10, 1)).unwrap()[0];
    let check = |id: &str| machine.call(|pool| pool.check(&machine.claim(id, living()), ip)).map_err(|e| e.to_string());
    check("a").unwrap();
    assert_eq!(check("b").unwrap_err(), "10.0.0.10: no lease of b eth0; it is leased to pod default/a on node node1");
    leases.wipe();
    assert_eq!(check("a").unwrap_err(), "10.0.0.10: no lease of a eth0");
}

#[test]
fn a_lease_of_another_lan_or_node_is_never_touched() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let other = Machine::new("node2", &leases);
    let lease = Lease { node: other.node.clone(), ..machine.claim("x", DEAD).lease("10.0.0.10".parse().unwrap()) };
    leases.put(lease);
    machine.sweep();
    machine.sweep();
    assert_eq!(leases.all().len(), 1);
}

/// A power failure or a full disk can leave an empty file. The DEL of its container failed for ever.
#[test]
fn a_damaged_page_is_made_again_of_the_leases_in_the_store() {
    for damage in ["", "{\"containerID\":", "[]", "{}"] {
        let leases = Leases::default();
        let machine = Machine::new("node1", &leases);
        let pool = sets(10, 20, 2);
        let page = machine.journal().folder().join("a@eth0");
        let given = machine.add("a", living(), &pool).unwrap();
        fs::write(&page, damage).unwrap();
        assert_eq!(machine.add("a", living(), &pool).unwrap(), given, "{damage:?}");
        fs::write(&page, damage).unwrap();
        machine.sweep();
        assert_eq!(leases.all().len(), 2, "{damage:?}");
        fs::write(&page, damage).unwrap();
        machine.del("a").unwrap();
        assert_eq!(leases.all(), [], "{damage:?}");
        // The damaged page of a container that is gone.
        fs::write(&page, damage).unwrap();
        machine.sweep();
        assert!(!page.exists(), "{damage:?}");
    }
}

/// A DEL came after the journal was lost, and the store was away. The note of that DEL must not count for a later ADD of the
/// same container.
#[test]
fn a_container_that_comes_back_keeps_its_new_leases() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let pool = sets(10, 20, 2);
    machine.add("a", living(), &pool).unwrap();
    let folder = machine.journal_folder().join("office");
    fs::remove_dir_all(&folder).unwrap();
    let del = |its: &lan_pool::pool::Pool<'_>| its.del(&machine.claim("a", living()), &[]);
    machine.with(Duration::from_millis(200), |_, _| Fault::Refused, del).unwrap().unwrap();
    let given = machine.add("a", living(), &pool).unwrap();
    for _ in 0..2 {
        machine.sweep();
        let now: HashSet<IpAddr> = leases.all().iter().map(|held| held.lease.address).collect();
        assert_eq!(now, given.iter().copied().collect(), "{:?}", leases.all());
    }
    machine.del("a").unwrap();
    assert_eq!(leases.all(), []);
}

/// The pages of the boot before are still there, and the note of their boot is lost.
#[test]
fn a_journal_without_its_boot_is_made_again_over_the_pages_of_the_boot_before() {
    let leases = Leases::default();
    let mut machine = Machine::new("node1", &leases);
    let pool = sets(10, 20, 1);
    machine.add("a", living(), &pool).unwrap();
    machine.reboot();
    machine.add("a", living(), &pool).unwrap();
    machine.reboot();
    fs::remove_file(machine.journal_folder().join("office/boot")).unwrap();
    machine.add("b", living(), &pool).unwrap();
    machine.sweep();
    let owners: Vec<_> = owners(&leases.all()).into_iter().map(|(_, owner)| owner).collect();
    assert_eq!(owners, ["b"]);
}
