//! A node loses all pods of a full range without a DEL. The kubelet starts the pods again, and each needs an address.

use std::collections::BTreeSet;
use std::fs;

use e2e::traffic::{assert_reaches, await_silence};
use kubernetes::cluster::{REFUSAL, THREE, Turn, network, small_network};
use kubernetes::kube_proxy::KubeProxy;
use kubernetes::pods;
use kubernetes::{Cluster, Node};

/// Removes the mounts of pods, their network namespaces, and the data of containerd.
const EMPTY: &str = r#"
for mount in $(cut -d ' ' -f 2 /proc/self/mounts | grep -E '^(/run/containerd|/run/netns|/var/lib/containerd)/'); do
    umount --lazy "$mount"
done
rm -rf /run/netns/* /run/containerd/* /var/lib/containerd/*
"#;

/// Starts three pods on the second node, which take all addresses of its range. Returns the holders of the leases.
fn fill(cluster: &Turn) -> BTreeSet<String> {
    let node = &cluster.nodes[1];
    node.set_network(&small_network());
    cluster.deploy("web", THREE.len(), pods::spec_on(node));
    assert_eq!(node.leases(), THREE);
    holders(node)
}

/// The containers that hold the leases of a node.
fn holders(node: &Node) -> BTreeSet<String> {
    let holder = |address: String| {
        let path = node.lease(address.parse().expect("an address"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        text.lines().next().unwrap_or_default().to_owned()
    };
    node.leases().into_iter().map(holder).collect()
}

/// Ends all pods of the second node without a DEL, as an operator does who kills containerd and its shims and empties
/// its directories.
fn lose_pods(cluster: &Turn) {
    let node = &cluster.nodes[1];
    cluster.kill_containerd(node);
    node.kill_shims_and_pods();
    node.run(&["sh", "-c", EMPTY]);
    assert_eq!(node.leases(), THREE, "the leases without a DEL");
    cluster.restart_containerd(node);
    node.import_test_images(&cluster.lab.path("images"));
}

/// Waits until all pods have addresses again, and none of the old containers holds a lease. Then removes the pods.
fn await_all_again(cluster: &Turn, old: &BTreeSet<String>) {
    let node = &cluster.nodes[1];
    cluster.until("the pods have started again", || match holders(node) {
        new if new.is_disjoint(old) => Ok(()),
        new => Err(format!("{new:?}")),
    });
    let pods = cluster.await_replicas("web", THREE.len());
    let addresses: BTreeSet<String> = pods.iter().map(|pod| pod.ip.to_string()).collect();
    assert_eq!(addresses, THREE.map(str::to_owned).into());
    assert!(holders(node).is_disjoint(old), "{:?} {old:?}", holders(node));
    for pod in pods {
        assert_reaches(&cluster.gateway, pod.ip);
    }
    cluster.undeploy("web");
    node.set_network(&network(node));
}

#[test]
fn after_a_reboot_pods_get_the_addresses_of_a_full_range_again() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    let old = fill(&cluster);
    node.reboot();
    cluster.restart_containerd(node);
    node.start_kubelet();
    node.start_kube_proxy(&KubeProxy::USUAL.keys());
    await_all_again(&cluster, &old);
}

#[test]
fn pods_get_the_addresses_of_pods_that_ended_without_a_del() {
    let cluster = Cluster::shared();
    let old = fill(&cluster);
    lose_pods(&cluster);
    await_all_again(&cluster, &old);
}

/// A netns without a process and without a path keeps its links as long as a descriptor of it is open. The links still
/// answer on the LAN.
#[test]
fn an_address_stays_taken_while_a_descriptor_holds_its_netns() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    let old = fill(&cluster);
    let (held_ip, held) = node.pod_namespaces().remove(0);
    let held_lease = fs::read_to_string(node.lease(held_ip)).expect("read a lease");
    lose_pods(&cluster);

    cluster.until("two pods have an address, and the third is refused one", || {
        let renewed = holders(node).difference(&old).count();
        let refusal = cluster.event("FailedCreatePodSandBox", REFUSAL)?;
        if renewed == 2 { Ok(()) } else { Err(format!("{renewed} pods have an address: {refusal}")) }
    });
    assert_eq!(fs::read_to_string(node.lease(held_ip)).expect("read a lease"), held_lease);
    assert_reaches(&cluster.gateway, held_ip);

    drop(held);
    await_all_again(&cluster, &old);
    await_silence(&cluster.gateway, held_ip);
}
