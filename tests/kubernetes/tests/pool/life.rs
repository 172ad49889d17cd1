//! The life of leases: ADD, DEL, CHECK, STATUS and GC, and a pool that is full.

use std::collections::HashSet;
use std::thread;

use e2e::traffic::assert_reaches;
use e2e::with;
use serde_json::json;

use crate::site::{Shared, addresses};

#[test]
fn a_lease_says_who_has_the_address_and_the_same_add_gets_it_again() {
    let shared = Shared::get();
    let node = shared.node("life", "life-1");
    let (conf, container) = (node.conf(10, 20), node.container());
    let result = node.add(&container, &conf).result();
    let given = addresses(&result);
    assert_eq!(given.len(), 2);
    assert_eq!(result["ips"][0]["gateway"], "10.77.0.1");
    assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0");
    assert_eq!(addresses(&node.add(&container, &conf).result()), given);

    let leases = shared.leases("life");
    assert_eq!(leases.len(), 2);
    for lease in &leases {
        assert!(given.contains(&lease["address"].as_str().unwrap().to_owned()), "{lease}");
        assert_eq!(lease["node"], "life-1");
        assert_eq!(lease["containerID"], container.id.as_str());
        assert_eq!(lease["pod"], format!("default/{}", container.id));
        assert!(lease["netns"].as_u64().is_some_and(|inode| inode > 0), "{lease}");
    }
    let checked = with(conf.clone(), "prevResult", result);
    node.call("CHECK", &container, &checked).run().done();
    node.del(&container, &conf).done();
    assert_eq!(shared.leases("life"), [json!(null); 0]);
    node.del(&container, &conf).done();
    node.call("CHECK", &container, &checked).run().fails(102, &["no lease of"]);
}

#[test]
fn a_container_of_macvlan_has_an_address_of_the_pool_on_the_lan() {
    let shared = Shared::get();
    let node = shared.node("lan", "lan-1");
    let neighbour = shared.node("lan", "lan-2");
    let mut ipam = node.ipam(0, 0);
    ipam["ranges"] =
        json!([[{"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.200", "rangeEnd": "192.168.50.210"}]]);
    let conf = json!({"cniVersion": "1.1.0", "name": "lan", "type": "macvlan", "master": node.machine.nic,
                      "mode": "bridge", "ipam": ipam});
    let container = node.container();
    let macvlan = node.main_plugin("macvlan");
    let result = macvlan.add(&container, "eth0", &conf).run().result();
    let given = addresses(&result);
    assert_reaches(&neighbour.machine, given[0].parse().unwrap());
    macvlan.check(&container, "eth0", &with(conf.clone(), "prevResult", result)).run().done();
    macvlan.del(&container, "eth0", &conf).run().done();
    assert_eq!(shared.leases("lan"), [json!(null); 0]);
}

#[test]
fn sixty_four_parallel_adds_of_two_nodes_fill_a_pool_of_sixty_four() {
    let shared = Shared::get();
    let nodes = ["fill-1", "fill-2"].map(|name| shared.node("fill", name));
    let containers: Vec<_> = (0..64).map(|_| nodes[0].container()).collect();
    let given: Vec<String> = thread::scope(|scope| {
        let starts = containers.iter().enumerate().map(|(number, container)| {
            let node = &nodes[number % 2];
            scope.spawn(move || addresses(&node.add(container, &node.conf(100, 163)).result()))
        });
        let starts: Vec<_> = starts.collect();
        starts.into_iter().flat_map(|start| start.join().expect("an ADD")).collect()
    });
    assert_eq!(HashSet::<&String>::from_iter(&given).len(), 128, "{given:?}");
    let one_more = nodes[0].container();
    let conf = nodes[0].conf(100, 163);
    let error =
        nodes[0].add(&one_more, &conf).fails(101, &["ipam.ranges[0] (10.77.0.100-10.77.0.163)", "64 addresses"]);
    assert!(error.msg.contains("64 leases (32 of fill-1, 32 of fill-2)"), "{}", error.msg);
    // A full pool must not make the node NotReady.
    nodes[0].plugin().call("STATUS", &conf).run().done();
    drop(containers);
    // Each node frees the leases of its own containers, whose namespaces are gone.
    nodes[0].gc(&conf).done();
    assert_eq!(shared.leases("fill").len(), 64);
    nodes[0].add(&one_more, &conf).result();
    nodes[1].gc(&nodes[1].conf(100, 163)).done();
    assert_eq!(shared.leases("fill").len(), 2);
}

#[test]
fn a_requested_address_is_given_or_its_holder_is_named() {
    let shared = Shared::get();
    let nodes = ["ask-1", "ask-2"].map(|name| shared.node("ask", name));
    let containers = [nodes[0].container(), nodes[1].container()];
    let conf = |number: usize| with(nodes[number].conf(10, 20), "runtimeConfig", json!({"ips": ["10.77.0.15"]}));
    assert_eq!(addresses(&nodes[0].add(&containers[0], &conf(0)).result())[0], "10.77.0.15");
    let holder = format!("leased to pod default/{} on node ask-1", containers[0].id);
    nodes[1].add(&containers[1], &conf(1)).fails(101, &["runtimeConfig.ips[0] 10.77.0.15", &holder]);
    assert_eq!(shared.leases("ask").len(), 2, "the failed ADD left a lease");
}

#[test]
fn an_address_of_another_machine_is_kept_in_the_store_with_its_mac() {
    let shared = Shared::get();
    let node = shared.node("other", "other-1");
    let neighbour = shared.node("other", "other-2");
    let taken = neighbour.machine.v4.to_string();
    let last: u8 = taken.rsplit('.').next().unwrap().parse().unwrap();
    let mut ipam = node.ipam(0, 0);
    // The machine has the first address. The second one is free.
    let free = "192.168.50.211";
    ipam["ranges"] = json!([[{"subnet": "192.168.50.0/24", "rangeStart": taken, "rangeEnd": taken},
                             {"subnet": "192.168.50.0/24", "rangeStart": free, "rangeEnd": free}]]);
    let conf = json!({"cniVersion": "1.1.0", "name": "lan", "type": "macvlan", "master": node.machine.nic,
                      "mode": "bridge", "detectIPConflict": true, "ipam": ipam});
    // Which of both is tried first is a matter of chance, so fill the pool.
    let container = node.container();
    let macvlan = node.main_plugin("macvlan");
    assert_eq!(addresses(&macvlan.add(&container, "eth0", &conf).run().result()), [free]);
    let second = node.container();
    let error = macvlan.add(&second, "eth0", &conf).run().error();
    assert_eq!(error.code, 101, "{}", error.msg);
    let leases = shared.leases("other");
    let kept = leases.iter().find(|lease| lease["address"] == taken.as_str());
    let kept = kept.unwrap_or_else(|| panic!("{taken} (.{last}) is not kept: {leases:?}"));
    let mac = kept["conflict"]["mac"].as_str().unwrap_or_default();
    assert_eq!(mac, neighbour.machine.link(neighbour.machine.nic).mac, "{kept}");
    assert_eq!(leases.len(), 2, "{leases:?}");
}
