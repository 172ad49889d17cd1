//! Pods start, end and crash.

use std::net::IpAddr;
use std::process::Command;
use std::thread;

use e2e::Namespace;
use e2e::traffic::assert_reaches;
use kubernetes::pods::{self, Pod};
use kubernetes::{Cluster, cluster::Turn};

/// How many pods.
const PODS: usize = 40;

/// How many pods reach all others before the neighbour tables are emptied: the kernel has one table of 1,024 neighbours
/// for all namespaces of the machine, and pods that all know each other need more.
const BATCH: usize = 8;

/// Every pod reaches every other pod on both nodes and is reached by the gateway.
fn assert_all_reach_all(cluster: &Cluster, pods: &[Pod]) {
    let namespaces: Vec<(IpAddr, Namespace)> =
        cluster.nodes.iter().flat_map(|node| node.pod_namespaces()).map(|(_, ip, netns)| (ip, netns)).collect();
    let mut expected: Vec<IpAddr> = pods.iter().map(|pod| pod.ip).collect();
    let mut found: Vec<IpAddr> = namespaces.iter().map(|(ip, _)| *ip).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "the addresses in the pods are not those of the API server");
    for batch in namespaces.chunks(BATCH) {
        thread::scope(|scope| {
            for (own, netns) in batch {
                let others = expected.iter().filter(move |ip| *ip != own);
                scope.spawn(move || others.for_each(|ip| _ = assert_reaches(netns, *ip)));
            }
        });
        for (_, netns) in &namespaces {
            forget_neighbours(netns);
        }
    }
    for ip in expected {
        assert_reaches(&cluster.gateway, ip);
    }
    forget_neighbours(&cluster.gateway);
}

fn forget_neighbours(netns: &Namespace) {
    let status = netns.run(|| Command::new("ip").args(["neighbour", "flush", "all"]).status()).expect("start ip");
    assert!(status.success(), "empty a table of neighbours");
}

/// Both nodes have some of them.
fn assert_on_both_nodes(cluster: &Cluster, pods: &[Pod]) {
    for node in &cluster.nodes {
        let here = pods.iter().filter(|pod| pod.node == node.name).count();
        assert!(here >= PODS / 4, "{here} of {} pods are on {}", pods.len(), node.name);
        assert_eq!(node.leases().len(), here, "{}: {:?}", node.name, node.leases());
    }
}

fn forty_pods(cluster: &Turn) -> Vec<Pod> {
    let pods = cluster.deploy("web", PODS, pods::spec());
    assert_on_both_nodes(cluster, &pods);
    pods
}

#[test]
fn forty_pods_on_two_nodes_reach_each_other_and_leave_nothing() {
    let cluster = Cluster::shared();
    let pods = forty_pods(&cluster);
    assert_all_reach_all(&cluster, &pods);
    cluster.undeploy("web");
    cluster.await_nothing_left();
}

/// Nobody waits for the kubelet when a pod is deleted by force: its address can be asked for again before its sandbox is
/// gone.
#[test]
fn ten_pods_deleted_by_force_are_replaced_and_leave_nothing() {
    let cluster = Cluster::shared();
    let pods = forty_pods(&cluster);
    for pod in &pods[..10] {
        cluster.api.force_delete(&format!("{}/{}", pods::PODS, pod.name));
    }
    let pods = cluster.await_replicas("web", PODS);
    cluster.until("the sandboxes of the deleted pods are gone", || {
        let leases: usize = cluster.nodes.iter().map(|node| node.leases().len()).sum();
        if leases == PODS { Ok(()) } else { Err(format!("{leases} leases")) }
    });
    assert_all_reach_all(&cluster, &pods);
    cluster.undeploy("web");
    cluster.await_nothing_left();
}

/// The second node loses its containerd while pods start, and again while they end. Calls of the plugins are cut short.
#[test]
fn a_containerd_killed_while_pods_start_and_while_they_end_leaves_nothing() {
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
    cluster.until("the sandboxes that never became pods are gone", || {
        let leases: usize = cluster.nodes.iter().map(|node| node.leases().len()).sum();
        if leases == PODS { Ok(()) } else { Err(format!("{leases} leases")) }
    });
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
