//! The condition `Ready` of a node depends on STATUS: the kubelet asks containerd, which calls our plugin.

use kubernetes::cluster::{REFUSAL, THREE, Turn, network, ready_condition, small_network};
use kubernetes::pods::{self, DEPLOYMENTS};
use kubernetes::{Cluster, Node};
use serde_json::{Value, json};

/// A second NIC of the node. The node reaches the API server without it.
const SECOND_NIC: &str = "eth1";

/// The time at which a node last became ready.
fn ready_since(cluster: &Turn, node: &Node) -> Value {
    let object = cluster.api.get(&format!("/api/v1/nodes/{}", node.name));
    let ready = ready_condition(&object).expect("a node has the condition");
    assert_eq!(ready["status"], "True", "{ready}");
    ready["lastTransitionTime"].clone()
}

#[test]
fn a_node_whose_parent_is_absent_or_down_is_not_ready_and_names_the_reason() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    cluster.lab.plug(&node.machine, SECOND_NIC);
    let mut list = network(node);
    list["plugins"][0]["master"] = json!(SECOND_NIC);
    node.set_network(&list);
    node.machine.rename(SECOND_NIC, "elsewhere");
    let message = cluster.await_readiness(node, false);
    assert!(message.contains("master \"eth1\": there is no such interface"), "{message}");

    node.machine.rename("elsewhere", SECOND_NIC);
    node.machine.set_up(SECOND_NIC);
    cluster.await_readiness(node, true);

    node.machine.set_down(SECOND_NIC);
    let message = cluster.await_readiness(node, false);
    assert!(message.contains("parent eth1 is down: no packets pass until it is up"), "{message}");
    node.machine.set_up(SECOND_NIC);
    cluster.await_readiness(node, true);

    node.set_network(&network(node));
    node.machine.delete_link(SECOND_NIC);
    cluster.await_readiness(node, true);
}

/// A node that is not ready loses its Services, and later its pods. With a full range, only further pods have to wait.
#[test]
fn a_node_whose_range_is_full_is_ready_unless_statuswhenfull_is_unavailable() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    let mut strict = small_network();
    strict["plugins"][0]["ipam"]["statusWhenFull"] = json!("unavailable");
    node.set_network(&strict);
    let mut spec = pods::spec_on(node);
    // The taint of a node that is not ready must not evict the pods.
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    cluster.deploy("web", 3, spec);
    assert_eq!(node.leases(), THREE);
    let message = cluster.await_readiness(node, false);
    assert!(message.contains("no free address"), "{message}");

    // The same state without the key. The condition changes, so STATUS was called and succeeded.
    node.set_network(&small_network());
    cluster.await_readiness(node, true);
    let since = ready_since(&cluster, node);

    cluster.api.patch(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 4}}));
    cluster.until("the fourth pod is refused an address", || cluster.event("FailedCreatePodSandBox", REFUSAL));
    assert_eq!(node.leases().len(), 3);

    cluster.api.patch(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 3}}));
    cluster.await_replicas("web", 3);
    assert_eq!(ready_since(&cluster, node), since, "the node was not ready for some time");
    cluster.undeploy("web");
    node.set_network(&network(node));
}
