//! Leases without a DEL, on a node whose range is full. The kubelet starts the pods of the node again, and each needs
//! an address.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use e2e::Namespace;
use e2e::traffic::{assert_reaches, await_silence};
use kubernetes::cluster::{Turn, network};
use kubernetes::pods::{self, Pod};
use kubernetes::{Cluster, Node};
use serde_json::json;

/// The pods, and the addresses of the range.
const PODS: usize = 3;
const ADDRESSES: [&str; PODS] = ["192.168.50.200", "192.168.50.201", "192.168.50.202"];

/// The reason for which a pod does not start, as our plugin says it.
const REFUSAL: &str = "no free address in ipam.ranges[0] (192.168.50.200-192.168.50.202)";

/// Takes away the mounts of pods, their network namespaces among them, and the directories of containerd.
const EMPTY: &str = r#"
for mount in $(cut -d ' ' -f 2 /proc/self/mounts | grep -E '^(/run/containerd|/run/netns|/var/lib/containerd)/'); do
    umount --lazy "$mount"
done
rm -rf /run/netns/* /run/containerd/* /var/lib/containerd/*
"#;

/// Three pods on the second node, which hold all addresses of its range.
fn fill(cluster: &Turn) -> Vec<Pod> {
    let node = &cluster.nodes[1];
    let mut list = network(node);
    let range = &mut list["plugins"][0]["ipam"]["ranges"][0][0];
    (range["rangeStart"], range["rangeEnd"]) = (json!(ADDRESSES[0]), json!(ADDRESSES[PODS - 1]));
    node.set_network(&list);
    let mut spec = pods::spec();
    spec["nodeName"] = json!(node.name);
    let pods = cluster.deploy("web", PODS, spec);
    assert_eq!(node.leases(), ADDRESSES);
    pods
}

/// The containers that the leases of a node name.
fn holders(node: &Node) -> BTreeSet<String> {
    let holder = |address: String| {
        let path = node.lease(address.parse().expect("an address"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        text.lines().next().unwrap_or_default().to_owned()
    };
    node.leases().into_iter().map(holder).collect()
}

/// The node loses all pods and everything that containerd knows of them, so that no DEL comes for them: an operator has
/// ended containerd, its shims and its pods, and has emptied its directories.
fn lose_pods(cluster: &Turn) {
    let node = &cluster.nodes[1];
    cluster.kill_containerd(node);
    node.kill_shims_and_pods();
    node.run(&["sh", "-c", EMPTY]);
    assert_eq!(node.leases(), ADDRESSES, "a DEL came");
    cluster.restart_containerd(node);
    node.import_test_images(&cluster.lab.path("images"));
}

/// All pods have addresses again, and the leases name none of the old containers.
fn assert_all_are_back(cluster: &Turn, old: &BTreeSet<String>) {
    let node = &cluster.nodes[1];
    let pods = cluster.await_replicas("web", PODS);
    let addresses: BTreeSet<String> = pods.iter().map(|pod| pod.ip.to_string()).collect();
    assert_eq!(addresses, ADDRESSES.map(str::to_owned).into());
    assert!(holders(node).is_disjoint(old), "{:?} {old:?}", holders(node));
    for pod in pods {
        assert_reaches(&cluster.gateway, pod.ip);
    }
}

fn clear_away(cluster: &Turn) {
    let node = &cluster.nodes[1];
    cluster.undeploy("web");
    cluster.await_nothing_left();
    node.set_network(&network(node));
}

#[test]
fn a_full_range_gives_its_addresses_again_after_a_reboot() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    fill(&cluster);
    let old = holders(node);
    node.reboot();
    cluster.restart_containerd(node);
    node.start_kubelet();
    node.start_kube_proxy();
    cluster.until("the pods were started again", || {
        if holders(node).is_disjoint(&old) { Ok(()) } else { Err(format!("{:?}", holders(node))) }
    });
    assert_all_are_back(&cluster, &old);
    clear_away(&cluster);
}

#[test]
fn a_full_range_gives_addresses_again_whose_netns_is_gone_within_one_boot() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    fill(&cluster);
    let old = holders(node);
    lose_pods(&cluster);
    cluster.until("the pods were started again", || {
        if holders(node).is_disjoint(&old) { Ok(()) } else { Err(format!("{:?}", holders(node))) }
    });
    assert_all_are_back(&cluster, &old);
    clear_away(&cluster);
}

/// A netns without a process and without a path still has its link, which answers on the LAN. Here this test holds it.
#[test]
fn an_address_whose_netns_only_a_descriptor_holds_stays_taken() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    fill(&cluster);
    let old = holders(node);
    let (_, held_ip, held): (String, IpAddr, Namespace) =
        node.pod_namespaces().into_iter().next().expect("a pod has a namespace");
    let held_lease = fs::read_to_string(node.lease(held_ip)).expect("read a lease");
    lose_pods(&cluster);

    cluster.until("one pod finds no address while the two others have theirs", || {
        let renewed = holders(node).difference(&old).count();
        let refusal = cluster.event("FailedCreatePodSandBox", REFUSAL)?;
        if renewed == PODS - 1 { Ok(()) } else { Err(format!("{renewed} pods have an address again: {refusal}")) }
    });
    assert_eq!(fs::read_to_string(node.lease(held_ip)).expect("read a lease"), held_lease);
    assert_reaches(&cluster.gateway, held_ip);

    drop(held);
    assert_all_are_back(&cluster, &old);
    clear_away(&cluster);
    await_silence(&cluster.gateway, held_ip);
}
