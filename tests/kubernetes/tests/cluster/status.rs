//! STATUS in the condition of a node: the kubelet asks containerd, and containerd calls our plugin.

use kubernetes::cluster::{Turn, network};
use kubernetes::pods::{self, DEPLOYMENTS};
use kubernetes::{Cluster, Node};
use serde_json::{Value, json};

/// A second NIC of the node, without which the node still reaches the API server.
const SECOND_NIC: &str = "eth1";

/// A network of three addresses.
fn small_network(node: &Node) -> Value {
    let mut list = network(node);
    let range = &mut list["plugins"][0]["ipam"]["ranges"][0][0];
    (range["rangeStart"], range["rangeEnd"]) = (json!("192.168.50.200"), json!("192.168.50.202"));
    list
}

/// When a node last became ready.
fn ready_since(cluster: &Turn, node: &Node) -> Value {
    let object = cluster.api.get(&format!("/api/v1/nodes/{}", node.name));
    let conditions = object["status"]["conditions"].as_array().expect("a list");
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").expect("the condition");
    assert_eq!(ready["status"], "True", "{ready}");
    ready["lastTransitionTime"].clone()
}

#[test]
fn a_node_whose_parent_is_absent_or_down_is_not_ready_and_says_why_until_it_is_back() {
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

/// A node that is not ready loses its Services and in the end its pods, though nothing is wrong with them. A full range
/// only keeps further pods waiting.
#[test]
fn a_node_whose_range_is_full_is_ready_unless_the_configuration_asks_otherwise() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[1];
    let mut strict = small_network(node);
    strict["plugins"][0]["ipam"]["statusWhenFull"] = json!("unavailable");
    node.set_network(&strict);
    let mut spec = pods::spec();
    spec["nodeName"] = json!(node.name);
    // The taint of a node that is not ready must not evict them.
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    cluster.deploy("web", 3, spec);
    assert_eq!(node.leases(), ["192.168.50.200", "192.168.50.201", "192.168.50.202"]);
    let message = cluster.await_readiness(node, false);
    assert!(message.contains("no free address"), "{message}");

    // The same state without the key. STATUS is called, since the condition changes, and it succeeds.
    node.set_network(&small_network(node));
    cluster.await_readiness(node, true);
    let since = ready_since(&cluster, node);

    cluster.api.patch(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 4}}));
    cluster.until("the fourth pod is refused an address", || {
        let refusal = "no free address in ipam.ranges[0] (192.168.50.200-192.168.50.202)";
        cluster.event("FailedCreatePodSandBox", refusal)
    });
    assert_eq!(node.leases().len(), 3);

    cluster.api.patch(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 3}}));
    cluster.await_replicas("web", 3);
    assert_eq!(ready_since(&cluster, node), since, "the node was not ready in between");
    cluster.undeploy("web");
    cluster.await_nothing_left();
    node.set_network(&network(node));
}
