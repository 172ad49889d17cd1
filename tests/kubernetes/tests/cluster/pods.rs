//! Many pods start and end, some of them by force or without containerd.

use std::net::IpAddr;
use std::thread;

use e2e::traffic::assert_reaches;
use kubernetes::pods::{self, Pod};
use kubernetes::{Cluster, cluster::Turn};

const PODS: usize = 40;

/// So many pods send to all others before the neighbour tables are emptied. All namespaces of the machine share one
/// table of 1,024 neighbours, and it would overflow.
const BATCH: usize = 8;

/// Asserts that each pod reaches all others, and that the gateway reaches each pod.
fn assert_all_reach_all(cluster: &Cluster, pods: &[Pod]) {
    let namespaces: Vec<_> = cluster.nodes.iter().flat_map(|node| node.pod_namespaces()).collect();
    let mut expected: Vec<IpAddr> = pods.iter().map(|pod| pod.ip).collect();
    let mut found: Vec<IpAddr> = namespaces.iter().map(|(ip, _)| *ip).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "the addresses in the pods, and those in the API server");
    for batch in namespaces.chunks(BATCH) {
        thread::scope(|scope| {
            for (own, netns) in batch {
                let others = expected.iter().filter(move |ip| *ip != own);
                scope.spawn(move || others.for_each(|ip| _ = assert_reaches(netns, *ip)));
            }
        });
        for (_, netns) in &namespaces {
            netns.ip("neighbour flush all");
        }
    }
    for ip in expected {
        assert_reaches(&cluster.gateway, ip);
    }
    cluster.gateway.ip("neighbour flush all");
}

/// Starts pods on both nodes.
fn forty_pods(cluster: &Turn) -> Vec<Pod> {
    let pods = cluster.deploy("web", PODS, pods::spec());
    for node in &cluster.nodes {
        let here = pods.iter().filter(|pod| pod.node == node.name).count();
        assert!(here >= PODS / 4, "{here} of {PODS} pods are on {}", node.name);
        assert_eq!(node.leases().len(), here, "{}: {:?}", node.name, node.leases());
    }
    pods
}

#[test]
fn forty_pods_on_two_nodes_reach_each_other_and_leave_nothing() {
    let cluster = Cluster::shared();
    let pods = forty_pods(&cluster);
    assert_all_reach_all(&cluster, &pods);
    cluster.undeploy("web");
}

/// A deletion by force does not wait for the kubelet. The new pods start before the old sandboxes are gone.
#[test]
fn ten_pods_deleted_by_force_are_replaced_and_leave_nothing() {
    let cluster = Cluster::shared();
    let pods = forty_pods(&cluster);
    for pod in &pods[..10] {
        cluster.api.force_delete(&format!("{}/{}", pods::PODS, pod.name));
    }
    let pods = cluster.await_replicas("web", PODS);
    // The leases of the deleted pods are then gone.
    cluster.await_leases(PODS);
    assert_all_reach_all(&cluster, &pods);
    cluster.undeploy("web");
}

/// The kill of containerd also interrupts calls of the plugins.
#[test]
fn nothing_is_left_after_containerd_was_killed_while_pods_started_and_ended() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    cluster.api.create(pods::DEPLOYMENTS, &pods::deployment("web", PODS, pods::spec()));
    cluster.until("some pods have an address", || match node.leases().len() {
        count if count >= 5 => Ok(()),
        count => Err(format!("{count} leases")),
    });
    cluster.kill_containerd(node);
    cluster.restart_containerd(node);
    let pods = cluster.await_replicas("web", PODS);
    // The leases of sandboxes that never became pods are then gone.
    cluster.await_leases(PODS);
    assert_all_reach_all(&cluster, &pods);

    let before = node.leases().len();
    cluster.api.delete(&format!("{}/web", pods::DEPLOYMENTS));
    cluster.until("some pods are gone", || match node.leases().len() {
        count if count + 5 <= before => Ok(()),
        count => Err(format!("{count} leases")),
    });
    cluster.kill_containerd(node);
    cluster.restart_containerd(node);
    cluster.await_no_pods();
    cluster.await_only_empty_namespaces_left();
}
